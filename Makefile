# settled: `make demo` shows it at work, `make test` runs everything.
.DEFAULT_GOAL := help
SEEDS ?= 1000000
ARGS ?=
# What the tests look at the operator page with, and letters for it to write.
BROWSER = chromium:/usr/bin/chromium chromium-driver:/usr/bin/chromedriver \
          fonts-dejavu-core:/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
.PHONY: help demo test bench soak check-tools lint queries check-queries check-alerts deny

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

demo: check-tools ## A private broker, an OES stand-in, the daemon, and clients that use it
	@scripts/demo.sh

test: check-tools lint check-queries check-alerts ## Formatting, lints, committed queries, alert rules, and every test on real parts
	@scripts/rabbitmq.sh install
	@scripts/install.sh $(BROWSER)
	@echo "building and running the tests"
	@# Where output is cut, the message of a failure is worth more than how its test was called.
	RUST_BACKTRACE=0 SQLX_OFFLINE=true scripts/with-rabbitmq.sh cargo test --locked

bench: check-tools ## Throughput, latency and memory on real parts, beside others: ARGS="--only throughput --jobs 20000"
	@scripts/bench.sh $(ARGS)

soak: check-tools ## The simulation with many more seeds than `make test` runs: SEEDS=1000000
	SETTLED_SIMULATION_SEEDS=$(SEEDS) SQLX_OFFLINE=true cargo test --locked --profile soak --lib simulation

lint: ## Formatting and lints, warnings denied
	cargo fmt --check
	SQLX_OFFLINE=true cargo clippy --locked --all-targets -- -D warnings

check-queries: ## Whether the committed query data is up to date
	@scripts/check-queries.sh

check-alerts: ## Prometheus's rules and the tests of them
	@scripts/promtool.sh check rules config/alerts.yml
	@scripts/promtool.sh test rules config/alerts.test.yml

queries: ## Write the query data that offline builds need
	@scripts/check-queries.sh --write

deny: ## Licences, bans and sources of dependencies (needs cargo-deny)
	cargo deny check bans licenses sources

check-tools:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs and try again"; exit 1; }
	@command -v cc >/dev/null || scripts/install.sh gcc:/usr/bin/cc libc6-dev:/usr/include/stdio.h
