# The commands of this project; `make` alone lists them. Each recipe is short and calls a script
# that can also be run by hand: the scripts in deploy/ run nodes, those in .ci/ check the source.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run run-cluster check test conformance fuzz sim test-chaos isolation audit bench \
	bench-peers bench-runtimes doc clean toolchain

# A shell opened before rustup was installed has no cargo on its PATH yet, and an ordinary
# user's PATH on Debian has no /usr/sbin, where nginx lives.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:/usr/sbin:/sbin

NODE = target/release/switchboard
# What the tests need besides Rust, as Debian names it.
TESTED_WITH = redis-server nginx chromium chromium-driver openssl python3-venv curl
BUILD = cargo build --release --target-dir target

help: ## Show this help
	@echo 'Switchboard: plug into any node, reach everyone, lose nothing.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Ports and sizes, for example: make run-cluster NODES=3 PORT=8000'
	@echo '  NODE_PORT=9090   the first node; node n listens on NODE_PORT + n - 1'
	@echo '  PORT=8080        nginx, before all nodes (run-cluster)'
	@echo '  REDIS_PORT=6399  the Redis that is started (run-cluster)'
	@echo '  NODES=2          how many nodes (run-cluster)'
	@echo '  REDIS_URL=       a Redis to use instead of starting one (run-cluster)'
	@echo '  SEED=            of a run to repeat (test-chaos); SCENARIO=A1,B3; LOAD=small|standard'

run: toolchain ## Run one node with its broker in memory; installs nothing
	@deploy/port-free NODE_PORT "$${NODE_PORT:-9090}"
	@$(BUILD)
	@echo "The chat page: http://localhost:$${NODE_PORT:-9090}/    (Ctrl-C ends the node)"
	@echo "The node's figures: http://localhost:$${NODE_PORT:-9090}/status.html"
	@exec $(NODE) serve --listen "127.0.0.1:$${NODE_PORT:-9090}"

run-cluster: toolchain ## Run two nodes, one Redis and nginx; installs Redis and nginx if missing
	@if [ -n "$${REDIS_URL:-}" ]; then deploy/install nginx; else deploy/install nginx redis-server; fi
	@$(BUILD)
	@exec deploy/cluster

check: toolchain ## What precedes a commit: fmt, clippy, rustdoc, all tests, runtimes; half an hour
	@deploy/install $(TESTED_WITH)
	@exec .ci/check all

test: toolchain ## Run every test once, on the default runtime; installs what they need if missing
	@deploy/install $(TESTED_WITH)
	@exec .ci/check test

conformance: toolchain ## Run Autobahn and schemathesis in pinned versions; installs them if missing
	@deploy/install nginx python3-venv curl
	@exec .ci/check conformance

sim: toolchain ## Simulate faults in virtual time: new schedules, or one again with SEED=…
	@exec .ci/check sim

test-chaos: toolchain ## Break a cluster under load and check what clients received; ten minutes
	@deploy/install redis-server nginx
	@cargo test --release --target-dir target --test chaos -- \
		run SEED=$${SEED:-} SCENARIO=$${SCENARIO:-} LOAD=$${LOAD:-} ONE_IN=$${ONE_IN:-}

isolation: toolchain ## Measure what clients and slow links delay, on a quiet machine; ten minutes
	@deploy/install redis-server
	@cargo test --release --target-dir target --test tests -- --ignored --nocapture \
		--test-threads 1 isolation::

fuzz: toolchain ## Fuzz guided by coverage: all targets, or TARGET=…; SECONDS_EACH=60
	@deploy/install g++
	@exec .ci/fuzz

audit: toolchain ## Check licences, duplicates and sources of what is built in; installs cargo-deny
	@exec .ci/audit

bench: toolchain ## Measure nodes beside the physical limit; ten minutes; installs Redis if missing
	@deploy/install redis-server
	@cargo bench --target-dir target

bench-peers: toolchain ## Measure other servers beside a node; twenty minutes; installs them
	@bench/peers/install
	@cargo bench --target-dir target -- peers

bench-runtimes: toolchain ## Measure the node on async-std, smol and tokio; builds them first
	@cargo bench --target-dir target -- runtimes

doc: toolchain ## Build the documentation of the source
	@cargo doc --no-deps --document-private-items --target-dir target
	@echo 'Open target/doc/switchboard/index.html'

clean: ## Remove target/: all builds, and the cluster's data and logs
	@if [ -e target/cluster/lock ] && ! flock -n target/cluster/lock true; then \
		echo 'A cluster runs from target/cluster: end it first.' >&2; exit 1; \
	fi
	@rm -rf target

toolchain:
	@.ci/toolchain
