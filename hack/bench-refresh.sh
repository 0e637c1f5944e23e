#!/usr/bin/env bash
# The benchmark of the schedule: 100,000 outgoing links in the real queue, with a clock of its own. BENCH_TIMERS=1000 for a
# quick look; docs/performance.md says what is measured.
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_toolchains

stage "build" cargo build --locked --profile bench --bench refresh
stage "benchmark" cargo bench --locked --quiet --bench refresh
