# `make help` lists the targets. CI runs `make test`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
TARGET ?= x86_64-unknown-linux-gnu
IMAGE ?= audit-operator.io/audit-operator:dev
NODES ?= 1
TESTBED := tests/testbed/testbed
CACHE := $(or $(AUDIT_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/audit-operator)
DENY_VERSION := 0.20.2
DENY := $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
BINARY := target/$(TARGET)/release/audit-operator

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: image ## A real control plane with the operator on it, and what it does
	demo/run

.PHONY: demo-down
demo-down: ## End the demo
	$(TESTBED) down

.PHONY: test
test: test-fast test-e2e ## Every test there is, the real control plane included

.PHONY: test-fast
test-fast: fmt-check lint generated unit test-upstream deny chart ## What needs no cluster

.PHONY: test-upstream
test-upstream: ## The policy engine against kube-apiserver's own code, over generated input (UPSTREAM_SCALE=10: ten times as much)
	cargo test --locked --features upstream --test upstream -- --nocapture

.PHONY: test-e2e
test-e2e: image ## The whole chain on the real control plane; takes it down at the end
	$(TESTBED) down
	trap '$(TESTBED) down' EXIT; $(TESTBED) up && $(TESTBED) load-image target/image.tar && \
	  cargo test --features e2e --test e2e -- --test-threads=1 --nocapture

.PHONY: bench
bench: image ## What a change costs, by the operator and by hand, on one real control plane (half an hour)
	$(TESTBED) down
	trap '$(TESTBED) down' EXIT; $(TESTBED) up && $(TESTBED) load-image target/image.tar && tests/bench/restart

.PHONY: bench-replay
bench-replay: ## How fast logs are replayed and requests decided, beside jq and upstream's Go (SIZE=1.1e9 bytes, ROUNDS=5; no cluster)
	cargo build --release --locked
	tests/bench/replay
	taskset -c 0 cargo bench --locked --bench decisions -- $(or $(BENCH_DATA),target/bench)/audit-small.jsonl

.PHONY: testbed
testbed: ## Bring the testbed up (NODES=1 to 3)
	$(TESTBED) up --nodes $(NODES)

.PHONY: testbed-down
testbed-down: ## Take the testbed down
	$(TESTBED) down

.PHONY: image
image: $(BINARY) ## Build the image (target/image.tar) without Docker
	$(TESTBED) image target/image.tar $(IMAGE) /usr/local/bin/audit-operator --user 65532:65532 --compress gzip \
	  /usr/local/bin/audit-operator=$(BINARY)

# A static binary: the image holds nothing else. The target is named, so that build scripts and macros are not linked that way.
.PHONY: $(BINARY)
$(BINARY):
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target $(TARGET)

.PHONY: fmt fmt-check lint unit
fmt: ## Format the code
	cargo fmt
fmt-check:
	cargo fmt --check
lint: ## Clippy, without a warning
	cargo clippy --all-targets --features e2e,upstream --locked -- -D warnings
unit: ## Unit tests, properties, golden cases, host files
	cargo test --locked

.PHONY: generate generated
generate: ## Write crds/ and the chart's copies
	cargo run --quiet --locked -- crds --output-dir crds
	cp crds/*.yaml charts/audit-operator/crds-generated/
generated: generate
	@git diff --exit-code -- crds charts/audit-operator/crds-generated || { echo 'Generated files differ: run `make generate` and commit.' >&2; exit 1; }

.PHONY: deny
deny: $(DENY) ## Licences, banned and yanked crates, advisories
	$(DENY) --log-level error check bans licenses sources
	@mkdir -p target; if ! $(DENY) check advisories > target/advisories.log 2>&1; then \
	  grep -q 'failed to fetch advisory database' target/advisories.log || { cat target/advisories.log >&2; exit 1; }; \
	  echo 'NOT CHECKED: advisories. The advisory database cannot be fetched from here.' >&2; fi
$(DENY):
	cargo install --quiet --locked --root $(CACHE)/tools/cargo-deny-$(DENY_VERSION) cargo-deny@$(DENY_VERSION)

.PHONY: chart
chart: ## Lint and render the chart
	$(TESTBED) build
	tests/chart/check
