#!/usr/bin/env bash
# Installs the authorization servers of other people that outgoing links are tried with, as requirements.txt,
# package-lock.json and zitadel/go.sum pin them, and prints the folder on stdout: bin/python, node_modules and zitadel
# are in it, and the program of this folder that needs to stand beside its packages. With --list: only the folder's name.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # read by packages.sh
what=servers module=zitadel program=zitadel beside=(oidc_provider.mjs)
# shellcheck source=tests/rig/packages.sh
. "$here/../rig/packages.sh"
packages "$@"
