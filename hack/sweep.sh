#!/usr/bin/env bash
# The crash sweep, whole: the operator killed before and after each of its writes and proofs, and an API server that makes trouble at
# each of them (cut off for 5 to 130 s, 429, 500, 403, the operator stopped for 40 s), for every kind of link, deed
# and provider of tests/support/sweep.rs. Then whether Ready is honest under random deeds, what one namespace notices of another one
# at full tilt, in each of the ways of tests/support/neighbours, and what the operator holds in memory beside many large Secrets. With
# an argument: only the rounds whose name has it, such as `hydra`; `honesty` is the links under random deeds alone (with a seed: that one),
# `neighbours` the neighbours alone (with further words: the ways whose name has them), and `memory` the Secrets alone.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_toolchains
need gcc:gcc

stage "control plane and Hydra" tests/rig/build.sh etcd kubernetes helm hydra
stage "build" cargo build --locked --bin applink --example sweep
case ${1:-} in
  memory) ;;
  honesty | neighbours) exec cargo run --locked --quiet --example sweep -- "$@" ;;
  *) cargo run --locked --quiet --example sweep -- "$@" ;;
esac
if [[ -z ${1:-} ]]; then
  cargo run --locked --quiet --example sweep -- honesty
  cargo run --locked --quiet --example sweep -- neighbours
fi
if [[ ${1:-memory} == memory ]]; then
  exec cargo test --locked --quiet --test it -- --ignored --nocapture link::memory
fi
