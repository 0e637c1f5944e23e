#!/usr/bin/env bash
# The demo: builds what is missing, then a control plane, the provider and the operator with some links, until Ctrl-C.
# CHECK=1 asserts each step and ends.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_toolchains
need curl:curl

args=()
[[ -z ${CHECK:-} || $CHECK == 0 ]] || args+=(--check)

# cargo's own progress is seen; in the second run it has nothing to do.
stage "control plane and Hydra" tests/rig/build.sh etcd kubernetes helm hydra
stage "build" cargo build --locked --bin applink --example demo
exec cargo run --locked --quiet --example demo -- "${args[@]}"
