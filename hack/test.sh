#!/usr/bin/env bash
# All the tests. Installs what they need where it can. Arguments go to cargo test: hack/test.sh --test it chart::
set -euo pipefail
# shellcheck source=hack/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The OAuth clients of other people that the provider is tried with are in Python and in JavaScript.
interpreters() {
  local major
  need_python
  need npm:npm
  major=$(node --version)
  major=${major#v}
  ((${major%%.*} >= 20)) ||
    fail "The OAuth client in JavaScript needs Node.js 20 or newer, and this is $(node --version). Install it from https://nodejs.org."
}

# Keycloak runs on Java and comes from a Maven repository.
keycloak_tools() { need java:default-jre-headless mvn:maven; }

# The pages are tried in a real browser, which Debian keeps together with its driver.
browser() { need chromium:chromium chromedriver:chromium-driver; }

need_toolchains
stage "Java and Maven" keycloak_tools
stage "Chromium" browser
stage "Python and Node.js" interpreters
stage "other people's OAuth clients" tests/clients/setup.sh >/dev/null
stage "other people's authorization servers" tests/servers/setup.sh >/dev/null
stage "control plane and providers" tests/rig/build.sh
# A clone that doesn't reach back to the earlier version can't try an upgrade; the test says so.
earlier_version() { tests/upgrade/before.sh >/dev/null || (($? == 3)); }
stage "the version before" earlier_version
stage "build" cargo test --locked --no-run
# Most of a test is waiting, so many run at once; tests/support limits what can't.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-10}
stage "tests" cargo test --locked --config 'target."cfg(all())".runner = "hack/timed.sh"' "$@"
