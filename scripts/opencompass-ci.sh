#!/usr/bin/env bash
# The environment of the OpenCompass harness, .venv-opencompass, from the pins of images.toml.
# OpenCompass pins numpy<2, datasets<4 and httpx, so it shares an environment with nothing of ours.
# Needs the project installed in .venv (`make install`) and 3 GB of disk. Skipped when it is already there.
#
#   scripts/opencompass-ci.sh
#   FT_TEST_OPENCOMPASS="$PWD/.venv-opencompass/bin/python" make test    then its tests run
set -euo pipefail
cd "$(dirname "$0")/.."

env_dir="$PWD/.venv-opencompass"
stamp="$env_dir/pins.txt"

say() { echo "== $*"; }

wanted=$(.venv/bin/rdagent-ft images pins opencompass --variant cpu)
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say "OpenCompass is in .venv-opencompass"
  exit 0
fi

say "installing OpenCompass into .venv-opencompass (five to ten minutes)"
rm -rf "$env_dir"
.venv/bin/python -m venv "$env_dir"
echo "$wanted" >"$env_dir/wanted.txt"
# The pins are complete, so nothing is resolved. pip is used as it is set up; a plain torch may be the
# CUDA build, which this client never needs (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL name another place).
"$env_dir/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$env_dir/wanted.txt"

say "checking that it starts"
if ! "$env_dir/bin/python" -c 'import opencompass.cli.main, opencompass.models' >"$env_dir/check.log" 2>&1; then
  echo "error: OpenCompass does not start; the end of its import:" >&2
  tail -n 20 "$env_dir/check.log" >&2
  exit 3
fi
mv "$env_dir/wanted.txt" "$stamp"
say "ready: FT_TEST_OPENCOMPASS=$env_dir/bin/python runs its tests"
