#!/usr/bin/env bash
# The benchmark: this project beside a bare client, on a control plane and provider services of its own.
# BENCH_LINKS=200 for a quick look, BENCH_PROVIDERS=hydra for one provider; docs/performance.md says what is measured.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_toolchains

stage "control plane and Hydra" tests/rig/build.sh etcd kubernetes helm hydra
stage "build" cargo build --locked --profile bench --bin applink --bench links
stage "benchmark" cargo bench --locked --quiet --bench links
