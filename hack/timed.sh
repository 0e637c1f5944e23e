#!/usr/bin/env bash
# Runs a test program for cargo (as its `runner`), and says at the end which of its tests took longest.
#
# libtest tells the time of each test as an unstable option only. The variable is set for the test program and not for
# cargo, so nothing is recompiled.
set -uo pipefail

program=$1
shift
# Documentation tests and programs that aren't tests know no such option.
if [[ $program != */deps/* ]]; then exec "$program" "$@"; fi

out=$(mktemp)
trap 'rm -f "$out"' EXIT
RUSTC_BOOTSTRAP=1 "$program" -Z unstable-options --report-time "$@" | tee "$out"
status=${PIPESTATUS[0]}

slowest=$(sed -nE 's/^test ([^ ]+).* <([0-9.]+)s>$/\2 \1/p' "$out" | awk '$1 >= 1' | sort -rn | head -n 30)
if [[ -n $slowest ]]; then
  printf '== the slowest tests\n' >&2
  awk '{ printf "   %6.1f s  %s\n", $1, $2 }' <<<"$slowest" >&2
fi

# What failed comes last, where it is read: libtest tells it before, and a record that is cut in the middle loses it.
failed=$(awk '/^---- .* stdout ----$/ { name = $2; lines = 0 }
  / panicked at / && name { printf "   %s\n", name; lines = 4; next }
  lines > 0 { printf "     %s\n", substr($0, 1, 1500); lines-- }' "$out")
if [[ $status -ne 0 && -n $failed ]]; then printf '== what failed\n%s\n' "$failed" >&2; fi
exit "$status"
