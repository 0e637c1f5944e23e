# What the scripts of this folder share; to be sourced.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# Runs a command and says what it is for and how long it took. $1 what, the rest is the command.
stage() {
  local what=$1 started=$SECONDS status=0
  shift
  say "== $what"
  "$@" || status=$?
  if ((status == 0)); then
    say "== $what: $((SECONDS - started)) s"
  else
    say "== $what: failed after $((SECONDS - started)) s"
  fi
  return "$status"
}

# Installs Debian packages, or says why it can't.
install() {
  has apt-get || fail "Missing: $*. There is no apt-get here; install them some other way and try again."
  [[ $(id -u) == 0 ]] || fail "Missing: $*. Install them and try again: sudo apt-get install $*"
  say "Installing $*"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"; } \
    </dev/null >/dev/null || fail "apt-get could not install $*; its message stands above."
}

# Makes programs be there. Pairs of program and Debian package: cc:gcc
need() {
  local pair missing=()
  for pair in "$@"; do
    has "${pair%%:*}" || missing+=("${pair#*:}")
  done
  if ((${#missing[@]})); then install "${missing[@]}"; fi
}

# Python 3 with venv, which on Debian is a package of its own.
need_python() {
  need python3:python3
  python3 -c 'import venv, ensurepip' 2>/dev/null || install python3-venv
}

# What every build needs beside Debian packages.
need_toolchains() {
  # sqlite and Lua are compiled from C.
  need cc:gcc
  has cargo || fail "There is no cargo on the PATH. Install Rust with https://rustup.rs; rust-toolchain.toml names the version."
}
