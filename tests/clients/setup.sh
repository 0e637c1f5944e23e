#!/usr/bin/env bash
# Installs the OAuth clients of other people that we are tried with and compared to, as requirements.txt, package-lock.json
# and replies/go.mod pin them, and prints the folder on stdout: bin/python, bin/replies and node_modules are in it. With
# --list: only the folder's name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # read by packages.sh
what=clients module=replies program=bin/replies beside=()
# shellcheck source=tests/rig/packages.sh
. "$here/../rig/packages.sh"
packages "$@"
