#!/usr/bin/env bash
# The crash sweep, whole: the operator killed before and after each of its writes and proofs, for every kind of link, deed
# and provider of tests/support/sweep.rs. With an argument: only the rounds whose name has it, such as `hydra`.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_toolchains
need gcc:gcc

stage "control plane and Hydra" tests/rig/build.sh etcd kubernetes helm hydra
stage "build" cargo build --locked --bin applink --example sweep
exec cargo run --locked --quiet --example sweep -- "$@"
