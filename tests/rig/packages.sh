#!/usr/bin/env bash
# Other people's programs in Python, JavaScript and Go, for a setup.sh that pins them. It sets, and sources this:
#
#   what    what they are called: the folder's name in the cache, and in messages
#   here    where requirements.txt, package.json, package-lock.json, .npmrc and setup.sh are
#   module  the folder of the Go module in $here, and program: what it is built as, in the installed folder
#   beside  files of $here that stand beside the packages
#
# packages prints the folder on stdout; with --list it installs nothing, and prints the folder's name.
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.

# shellcheck disable=SC2154 # set by who sources this
say() { printf '%s: %s\n' "$what" "$*" >&2; }
fail() {
  say "$*"
  exit 1
}

packages() {
  local cache hash folder
  cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}
  command -v python3 >/dev/null || fail "they need python3 (3.10 or newer), and there is none on the PATH."
  python3 -c 'import venv, ensurepip' 2>/dev/null ||
    fail "python3 has no venv module; install it (on Debian and Ubuntu: the package python3-venv)."
  command -v npm >/dev/null || fail "they need Node.js 20 or newer with npm, and there is no npm on the PATH."
  command -v go >/dev/null || fail "they need Go 1.26 or newer, and there is no go on the PATH."

  # A venv and compiled packages belong to one Python and one Node.js.
  hash=$({
    (cd "$here" && cat requirements.txt package-lock.json setup.sh "${beside[@]}" "$module"/{go.mod,go.sum,main.go})
    cat "$here/../rig/packages.sh"
    python3 --version
    node --version
    uname -sm
  } | sha256sum | cut -c1-12)
  folder=$cache/$what-$hash
  if [[ ${1:-} == --list ]]; then
    printf '%s\n' "${folder##*/}"
    return
  fi

  # Two test runs may want it at the same time; one makes it, and it is whole once done is there.
  mkdir -p "$cache"
  exec 9>"$folder.lock"
  flock 9
  if [ ! -e "$folder/done" ]; then
    say "installing into $folder"
    rm -rf "$folder"
    python3 -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt" >&2 ||
      fail "pip could not install requirements.txt; it says why above."
    (cd "$here" && cp package.json package-lock.json .npmrc "${beside[@]}" "$folder/")
    (cd "$folder" && npm ci --silent --no-audit --no-fund --ignore-scripts >&2) ||
      fail "npm could not install package-lock.json; it says why above."
    (cd "$here/$module" &&
      CGO_ENABLED=0 GOFLAGS='' GOWORK=off GOTOOLCHAIN=local go build -mod=readonly -trimpath -o "$folder/$program" . >&2) ||
      fail "$module could not be built; go says why above."
    touch "$folder/done"
  fi
  printf '%s\n' "$folder"
}
