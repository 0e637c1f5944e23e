#!/usr/bin/env bash
# Builds the operator of an earlier commit, from this repository's own history, and prints its path on stdout: what that one
# made must go on after an upgrade. It is kept in the tests' cache.
#
# With --list: builds nothing, and prints the folder's name. Without the commit in the history (a shallow clone): exit code 3.
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
set -euo pipefail

# The last commit before identities and claims were proven (records of the first version).
commit=328ae3d52d582568aac28b44f252052c342aa9f6
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
say() { printf 'upgrade: %s\n' "$*" >&2; }

cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?upgrade: set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}
folder=$cache/before-${commit:0:12}
if [[ ${1:-} == --list ]]; then
  printf '%s\n' "${folder##*/}"
  exit
fi
mkdir -p "$cache"
exec 9>"$folder.lock"
flock 9
if [[ ! -x $folder/applink ]]; then
  git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null || {
    say "the history has no commit $commit; clone without --depth to try an upgrade."
    exit 3
  }
  say "building the operator of ${commit:0:12}"
  source=$(mktemp -d)
  trap 'rm -rf "$source"' EXIT
  git -C "$root" archive "$commit" | tar -x -C "$source"
  # Its dependencies are nearly all the same: they are built once for both, and with an example, since that has the
  # features that the tests need. Today's operator takes its place again with the next build.
  target=${CARGO_TARGET_DIR:-$root/target}
  (cd "$source" && CARGO_TARGET_DIR=$target cargo build --locked --quiet --bin applink --example sweep >&2)
  mkdir -p "$folder"
  cp "$target/debug/applink" "$folder/applink.unfinished"
  mv "$folder/applink.unfinished" "$folder/applink"
fi
printf '%s\n' "$folder/applink"
