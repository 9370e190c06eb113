#!/usr/bin/env bash
# The environment of the second trainer, .venv-llamafactory, from the pins of images.toml, for CPU.
# LLaMA-Factory holds transformers, trl, peft and datasets at old versions, so it shares an environment
# with nothing of ours. Needs the project installed in .venv (`make install`) and 2 GB of disk. Skipped
# when it is already there.
#
#   scripts/llamafactory-ci.sh
#   FT_TEST_LLAMAFACTORY="$PWD/.venv-llamafactory/bin/python" make test    then its tests run
set -euo pipefail
cd "$(dirname "$0")/.."

env_dir="$PWD/.venv-llamafactory"
stamp="$env_dir/pins.txt"

say() { echo "== $*"; }

# Training on text needs neither package, and builds for CUDA fail at import beside a CPU torch.
# torchaudio is imported all the same, so an empty module stands in. The image does the same.
wanted=$(.venv/bin/rdagent-ft images pins llamafactory --variant cpu | grep -v -E '^(torchvision|torchaudio)==')
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say "LLaMA-Factory is in .venv-llamafactory"
  exit 0
fi

say "installing LLaMA-Factory into .venv-llamafactory (about five minutes)"
rm -rf "$env_dir"
.venv/bin/python -m venv "$env_dir"
echo "$wanted" >"$env_dir/wanted.txt"
# The pins are complete, so nothing is resolved. pip is used as it is set up; a plain torch may be the
# CUDA build, which is never needed here (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL name another place).
"$env_dir/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$env_dir/wanted.txt"
packages=$("$env_dir/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$packages/torchaudio"
touch "$packages/torchaudio/__init__.py"

say "checking that it starts"
if ! "$env_dir/bin/python" -c 'import llamafactory.train.tuner, llamafactory.hparams' >"$env_dir/check.log" 2>&1
then
  echo "error: LLaMA-Factory does not start; the end of its import:" >&2
  tail -n 20 "$env_dir/check.log" >&2
  exit 3
fi
mv "$env_dir/wanted.txt" "$stamp"
say "ready: FT_TEST_LLAMAFACTORY=$env_dir/bin/python runs its tests"
