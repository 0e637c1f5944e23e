#!/usr/bin/env bash
# All that can be said of the code without running it. What isn't installed is skipped, and said.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need_toolchains

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

# The list of known weaknesses comes from the network; without it the rest is checked all the same.
deny() {
  local checks=(bans licenses sources)
  if cargo deny --locked fetch db >/dev/null 2>&1; then checks+=(advisories); else say "   no advisories: their list can't be fetched"; fi
  cargo deny --locked check --hide-inclusion-graph "${checks[@]}"
}

lint "format" cargo fmt --check
lint "clippy" cargo clippy --locked --quiet --all-targets -- -D warnings
if has shellcheck; then lint "shellcheck" shell; else say "== shellcheck: skipped, it isn't installed (apt-get install shellcheck)"; fi
lint "helm lint" helm_lint
if has cargo-deny; then lint "cargo deny" deny; else say "== cargo deny: skipped, it isn't installed (cargo install cargo-deny --locked)"; fi

((${#failed[@]} == 0)) || fail "Failed: $(IFS=,; printf '%s' "${failed[*]}")"
