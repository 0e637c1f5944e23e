#!/usr/bin/env bash
# Installs the OAuth clients of other people that we are tried with and compared to, as requirements.txt, package-lock.json
# and replies/go.mod pin them, and prints the folder on stdout: bin/python, bin/replies and node_modules are in it.
#
# With --list: installs nothing, and prints the folder's name.
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'clients: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?clients: set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}

command -v python3 >/dev/null || fail "the OAuth clients in Python need python3 (3.10 or newer), and there is none on the PATH."
python3 -c 'import venv, ensurepip' 2>/dev/null ||
  fail "python3 has no venv module; install it (on Debian and Ubuntu: the package python3-venv)."
command -v npm >/dev/null || fail "the OAuth client in JavaScript needs Node.js 20 or newer with npm, and there is no npm on the PATH."

command -v go >/dev/null || fail "the OAuth client in Go needs Go 1.26, and there is no go on the PATH."

# A venv and compiled packages belong to one Python and one Node.js.
hash=$({
  cat "$here/requirements.txt" "$here/package-lock.json" "$here/setup.sh" "$here"/replies/{go.mod,go.sum,main.go}
  python3 --version
  node --version
} | sha256sum | cut -c1-12)
folder=$cache/clients-$hash
if [[ ${1:-} == --list ]]; then
  printf '%s\n' "${folder##*/}"
  exit
fi

# Two test runs may want it at the same time; one makes it, under another name until it is whole.
mkdir -p "$cache"
exec 9>"$folder.lock"
flock 9
if [ ! -e "$folder/done" ]; then
  say "installing into $folder"
  rm -rf "$folder"
  python3 -m venv "$folder" >&2
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt" >&2 ||
    fail "pip could not install requirements.txt; it says why above."
  cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$folder/"
  (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2) ||
    fail "npm could not install package-lock.json; it says why above."
  (cd "$here/replies" && CGO_ENABLED=0 go build -trimpath -o "$folder/bin/replies" . >&2) ||
    fail "go could not build replies; it says why above."
  touch "$folder/done"
fi
printf '%s\n' "$folder"
