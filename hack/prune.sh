#!/usr/bin/env bash
# Removes from the cache what this checkout doesn't use: programs and clients of other versions. Other checkouts make
# theirs again when they want them. Not to be run while another checkout's tests run.
#
# APPLINK_RIG_CACHE says where the cache is; without it: $XDG_CACHE_HOME/applink-rig or ~/.cache/applink-rig.
set -euo pipefail
# What can't be listed mustn't count as unused.
shopt -s inherit_errexit
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cache=${APPLINK_RIG_CACHE:-${XDG_CACHE_HOME:-${HOME:?set HOME or APPLINK_RIG_CACHE}/.cache}/applink-rig}
[[ -d $cache ]] || fail "There is no cache at $cache."

# Lint, the demo and the tests use folders of some of the parts.
used=$(
  tests/rig/build.sh --list
  tests/rig/build.sh --list helm
  tests/rig/build.sh --list etcd kubernetes helm
  tests/rig/build.sh --list etcd kubernetes helm hydra
  tests/rig/build.sh --list hydra
  tests/rig/build.sh --list keycloak
  tests/clients/setup.sh --list
  tests/servers/setup.sh --list
  hack/cargo-deny.sh --list
  tests/upgrade/before.sh --list
)
removed=0
for entry in "$cache"/{etcd,kubernetes,helm,hydra,keycloak,bin,clients,servers,cargo-deny,before}-*; do
  name=${entry##*/}
  [[ -e $entry || -L $entry ]] || continue
  grep -qxF -- "${name%.lock}" <<<"$used" && continue
  if [[ -d $entry ]]; then say "removing $name ($(du -sh "$entry" | cut -f1))"; fi
  rm -rf "$entry"
  removed=$((removed + 1))
done
say "$removed removed; $(du -sh "$cache" | cut -f1) left in $cache"
