#!/usr/bin/env bash
# A Docker engine, a base image and our CPU images on a bare Debian machine, without any image registry.
# Needs root and the project installed in .venv (`make install`). Each step is skipped when its result is
# already there; an engine that answers is kept as it is.
#
#   scripts/docker-ci.sh          everything
#   FT_TEST_DOCKER=1 make test    then the tests that need an engine run
set -euo pipefail
cd "$(dirname "$0")/.."

base=rdagent-ft-base:bookworm
suite=bookworm
wheels="$PWD/.venv/wheels"
engine_dir="${TMPDIR:-/tmp}/rdagent-ft-docker"
answer_timeout_s=90

say() { echo "== $*"; }
answers() { docker version >/dev/null 2>&1; }
has_base() { docker image inspect "$base" >/dev/null 2>&1; }

install_packages() {
  local missing=()
  if ! answers && ! command -v dockerd >/dev/null; then missing+=(docker.io); fi
  if ! has_base && ! command -v debootstrap >/dev/null; then missing+=(debootstrap); fi
  if [ "${#missing[@]}" -eq 0 ]; then return; fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

start_engine() {
  if answers; then
    say "engine: $(docker version --format '{{.Server.Version}}') answers"
    return
  fi
  mkdir -p "$engine_dir"
  local pid_file="$engine_dir/dockerd.pid" daemon
  daemon=$(cat "$pid_file" 2>/dev/null || echo none)
  if [ "$(cat "/proc/$daemon/comm" 2>/dev/null)" != dockerd ]; then
    # A pid file that outlived its process makes dockerd refuse to start.
    rm -f "$pid_file"
    say "starting dockerd; log: $engine_dir/dockerd.log"
    setsid dockerd --pidfile "$pid_file" </dev/null >"$engine_dir/dockerd.log" 2>&1 &
    daemon=$!
  fi
  for ((second = 0; second < answer_timeout_s; second++)); do
    if answers; then return; fi
    kill -0 "$daemon" 2>/dev/null || break
    sleep 1
  done
  echo "error: dockerd does not answer; the end of its log:" >&2
  tail -n 20 "$engine_dir/dockerd.log" >&2
  exit 3
}

# The first Debian archive that apt is set up with, in either format of its sources; comments skipped.
debian_mirror() {
  local files=()
  for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    if [ -f "$file" ]; then files+=("$file"); fi
  done
  local found=""
  if [ "${#files[@]}" -gt 0 ]; then
    found=$(awk '
      /^[[:space:]]*#/ { next }
      /^URIs:/ { for (i = 2; i <= NF; i++) print $i }
      $1 == "deb" { sub(/\[[^]]*\]/, ""); print $2 }
    ' "${files[@]}" | grep -m 1 -E '/debian/?$' || true)
  fi
  echo "${found:-http://deb.debian.org/debian}"
}

make_base() {
  if has_base; then
    say "base image $base is there"
    return
  fi
  local mirror root
  mirror=$(debian_mirror)
  root=$(mktemp -d)
  say "making $base with debootstrap (one to two minutes)"
  # libnuma1 is for vLLM's CPU build: image builds then need no Debian archive.
  if ! debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates,libnuma1 \
    "$suite" "$root/tree" "$mirror" >"$root/log" 2>&1; then
    echo "error: debootstrap failed; the end of its log:" >&2
    tail -n 20 "$root/log" >&2
    rm -rf --one-file-system "$root"
    exit 3
  fi
  rm -rf "$root/tree/var/cache/apt" "$root/tree/var/lib/apt/lists"
  tar -C "$root/tree" -c . | docker import - "$base" >/dev/null
  rm -rf --one-file-system "$root"
}

# The image's Python installs these wheels, so ours must be of the same version.
check_python() {
  local inside outside print_version='import sys; print("%d.%d" % sys.version_info[:2])'
  inside=$(docker run --rm --network none "$base" python3 -c "$print_version")
  outside=$(.venv/bin/python -c "$print_version")
  if [ "$inside" != "$outside" ]; then
    echo "error: .venv has Python $outside, $base has $inside: wheels would not fit" >&2
    exit 3
  fi
}

# Built from sdists where there is no wheel, so that the image needs no compiler and no index.
# pip is used as it is set up; a plain torch may be the CUDA build (PIP_FIND_LINKS or
# PIP_EXTRA_INDEX_URL name another place for it).
gather_wheels() {
  local wanted
  wanted=$(.venv/bin/rdagent-ft images pins train lm-eval --variant cpu)
  if [ "$(cat "$wheels/pins.txt" 2>/dev/null)" = "$wanted" ]; then
    say "wheels are in .venv/wheels"
    return
  fi
  say "gathering wheels into .venv/wheels"
  rm -rf "$wheels"
  mkdir -p "$wheels"
  echo "$wanted" >"$wheels/wanted.txt"
  .venv/bin/python -m pip wheel -qq --disable-pip-version-check --no-deps -w "$wheels" -r "$wheels/wanted.txt"
  mv "$wheels/wanted.txt" "$wheels/pins.txt"
}

build_images() {
  say "images train and lm-eval (CPU)"
  local log="$engine_dir/build.log"
  mkdir -p "$engine_dir"
  if ! FT_DOCKER_BASE_IMAGE="$base" FT_DOCKER_WHEELS="$wheels" FT_FILE_PATH="$engine_dir/files" \
    .venv/bin/rdagent-ft images build train lm-eval --variant cpu 2>"$log"; then
    tail -n 20 "$log" >&2
    exit 3
  fi
}

install_packages
start_engine
make_base
check_python
gather_wheels
build_images
say "ready: FT_TEST_DOCKER=1 runs the tests that need an engine"
