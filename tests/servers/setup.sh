#!/usr/bin/env bash
# Installs the authorization servers of other people that outgoing links are tried with, as requirements.txt,
# package-lock.json and zitadel/go.sum pin them, and prints the folder on stdout: bin/python, node_modules and zitadel
# are in it, and the programs of this folder that need to stand beside their packages.
#
# With --list: installs nothing, and prints the folder's name.
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'servers: %s\n' "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?servers: set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}

command -v python3 >/dev/null || fail "two of the servers need python3 (3.10 or newer), and there is none on the PATH."
python3 -c 'import venv, ensurepip' 2>/dev/null ||
  fail "python3 has no venv module; install it (on Debian and Ubuntu: the package python3-venv)."
command -v npm >/dev/null || fail "oidc-provider needs Node.js 20 or newer with npm, and there is no npm on the PATH."
command -v go >/dev/null || fail "zitadel/oidc needs Go 1.26 or newer to be built, and there is no go on the PATH."

# A venv and compiled packages belong to one Python and one Node.js.
hash=$({
  cat "$here"/{requirements.txt,package-lock.json,setup.sh,oidc_provider.mjs} "$here"/zitadel/{go.mod,go.sum,main.go}
  python3 --version
  node --version
  uname -sm
} | sha256sum | cut -c1-12)
folder=$cache/servers-$hash
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
  cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$here/oidc_provider.mjs" "$folder/"
  (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2) ||
    fail "npm could not install package-lock.json; it says why above."
  (cd "$here/zitadel" &&
    CGO_ENABLED=0 GOFLAGS='' GOWORK=off GOTOOLCHAIN=local go build -mod=readonly -trimpath -o "$folder/zitadel" . >&2) ||
    fail "zitadel/oidc could not be built; go says why above."
  touch "$folder/done"
fi
printf '%s\n' "$folder"
