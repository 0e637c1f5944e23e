# The commands of this project. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test sweep kills bench bench-refresh build rig prune generate check-generated lint image clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | \
		while IFS='|' read -r target what; do printf '  make %-16s %s\n' "$$target" "$$what"; done

demo: ## The operator at work on this machine, until Ctrl-C; CHECK=1: assert each step and end
	@exec env CHECK='$(CHECK)' hack/demo.sh

test: ## All the tests; installs what they need. One of them: hack/test.sh NAME
	@hack/test.sh

sweep: ## The operator killed before and after each effect, and beside noisy neighbours; ONLY=hydra, neighbours or memory: a part of it
	@hack/sweep.sh $(ONLY)

kills: ## Refreshes over 20 rotations with the operator killed at random, at Hydra and Keycloak, with and without a grace
	@hack/test.sh --test it -- --include-ignored --nocapture --test-threads 2 link::kills

bench: ## What a link costs beside a bare client, in target/bench/links.json; BENCH_LINKS=200: a quick look
	@BENCH_LINKS='$(BENCH_LINKS)' BENCH_PROVIDERS='$(BENCH_PROVIDERS)' hack/bench.sh

bench-refresh: ## When 100,000 links are refreshed, in simulated hours, in target/bench/refresh.json; BENCH_TIMERS=1000: fewer
	@BENCH_TIMERS='$(BENCH_TIMERS)' hack/bench-refresh.sh

build: ## The program, for this machine: target/debug/applink
	cargo build --locked

rig: ## The control plane and the providers that tests and demo run on: some minutes the first time
	@tests/rig/build.sh

prune: ## Remove from the cache what this checkout doesn't use: control planes and clients of other versions
	@hack/prune.sh

generate: ## Write the files that are made from the Rust types: CRDs, the chart's CRDs, the reference
	@hack/generate.sh

check-generated: ## Fail when one of those isn't current
	@hack/generate.sh --check

lint: ## Format, clippy, shellcheck, helm lint, cargo deny
	@hack/lint.sh

image: ## A container image from scratch with a static program; IMAGE=name:tag
	@IMAGE='$(IMAGE)' hack/image.sh

clean: ## Remove what was built here; the control plane's programs stay in their cache
	cargo clean
