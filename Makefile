# callsplit: `make demo` shows it, `make test` proves it.  Both set up what they need.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO_ARGS ?=
BENCH_ARGS ?=
BENCH_MCP_ARGS ?=
PROOF_ARGS ?=
CHAOS_ARGS ?=
RESTARTS_ARGS ?=
SLOW_ARGS ?=
CONFORMANCE_ARGS ?=
DESYNC_ARGS ?=
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
TEST_ARGS ?=

# The compiled build lives apart from the tree: an extension beside a source would take its place.
COMPILED := .cache/compiled
# What runs in its interpreter, or in ours with its packages first; the docs show the tree.
COMPILED_TESTS := tests/adapters tests/backends tests/core tests/functional tests/mcp tests/cli/test_serve.py \
  $(filter-out tests/test_docs.py tests/test_project.py,$(wildcard tests/test_*.py))

.DEFAULT_GOAL := help
.PHONY: help demo serve redis clients suite test lint bench bench-mcp proof cycle chaos restarts slowhttptest slow conformance desync fuzz generate compiled test-compiled clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("callsplit needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Could not create $(VENV): install Python's venv module (Debian: apt-get install python3-venv, as root)." >&2; exit 1; }
	@echo "Installing callsplit and its tools into $(VENV) (once, about half a minute) ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools > $(VENV)/install.log 2>&1 \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' >> $(VENV)/install.log 2>&1 \
	  || { tail -n 20 $(VENV)/install.log >&2; echo "Installation failed; the whole story is in $(VENV)/install.log" >&2; exit 1; }
	@touch $(STAMP)

demo: $(STAMP) ## split live demo calls, break an arm, watch the rescue
	@$(BIN)/callsplit demo $(DEMO_ARGS)

serve: $(STAMP) ## run the sidecar with rules/rules.yaml
	@$(BIN)/callsplit serve

# Other people's MCP clients, one environment each; without them their tests are skipped.
clients: $(STAMP) ## get other people's MCP clients for the tests
	@$(BIN)/python tests/mcp/environments.py

# Node and the official MCP conformance suite; without them its tests are skipped.
suite: $(STAMP)
	@$(BIN)/python -m tests.mcp.suite_tools

# Without it the tests of the outbox in a Redis are skipped, and say so.
redis:
	@command -v redis-server > /dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
	       && echo "Installing redis-server for the tests ..." >&2 \
	       && RUNLEVEL=1 apt-get install -y -q --no-install-recommends redis-server > $(VENV)/redis.log 2>&1; } \
	  || echo "redis-server is missing, so its tests are skipped; as root: apt-get update && apt-get install redis-server" >&2

test: $(STAMP) redis clients suite ## run every test
	@$(BIN)/python -m pytest -n auto --dist loadfile $(TEST_ARGS)

lint: $(STAMP) ## style, types, import contracts
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(STAMP) ## CPU and latency side by side with Envoy, nginx and a naive proxy
	@$(BIN)/python tests/bench/run_bench.py $(BENCH_ARGS)

bench-mcp: $(STAMP) clients ## what an MCP call costs through callsplit; its bridge beside FastMCP's proxy
	@$(BIN)/python tests/bench/run_bench_mcp.py $(BENCH_MCP_ARGS)

proof: $(STAMP) ## a million requests, reloads under traffic, start time (JSON out)
	@$(BIN)/python tests/bench/run_proof.py $(PROOF_ARGS)

cycle: $(STAMP) ## what callers notice of a breaker's cycle, beside Envoy (half a minute)
	@$(BIN)/python tests/bench/run_proof.py --only cycle --out results/cycle.json

chaos: $(STAMP) ## ten minutes of kills, freezes and restarts; nothing may be lost or run twice
	@$(BIN)/python tests/chaos/run_chaos.py $(CHAOS_ARGS)

restarts: $(STAMP) ## rolling restarts under kept connections: none lost, nothing twice (a minute)
	@$(BIN)/python tests/restarts/run_restarts.py $(RESTARTS_ARGS)

# Without it `make slow` ends with a word about it.
slowhttptest:
	@command -v slowhttptest > /dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
	       && echo "Installing slowhttptest ..." >&2 \
	       && apt-get install -y -q --no-install-recommends slowhttptest > $(VENV)/slowhttptest.log 2>&1; } \
	  || echo "slowhttptest is missing; as root: apt-get update && apt-get install slowhttptest" >&2

slow: $(STAMP) slowhttptest ## callers who send, read or wait for ever; nobody else may notice (two minutes)
	@$(BIN)/python tests/slow/run_slow.py $(SLOW_ARGS)

conformance: $(STAMP) ## the official MCP conformance suite, direct and through callsplit
	@$(BIN)/python tests/mcp/run_conformance.py $(CONFORMANCE_ARGS)

desync: $(STAMP) ## other people's broken messages through a sidecar; nothing may be misread
	@$(BIN)/python tests/desync/run_desync.py $(DESYNC_ARGS)

fuzz: $(STAMP) ## atheris on everything that reads what others wrote; FUZZ_SECONDS=60 in all
	@$(BIN)/python tests/fuzz/run_fuzz.py --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)

generate: $(STAMP) ## write the generated files anew (schema, tables)
	@$(BIN)/python -m proxy rules schema > rules/rules.schema.json
	@$(BIN)/python -m proxy rules reference --into rules/README.md
	@$(BIN)/python -m tests.functional.row_table > deploy/docs/security-rows.md

compiled: $(COMPILED)/.built ## the hot path compiled to C, installed in .cache/compiled/venv

$(COMPILED)/.built: $(STAMP) setup.py $(shell find proxy backends -name '*.py')
	@set -- $${CC:-cc}; command -v $$1 > /dev/null \
	  || { test "$$(id -u)" = 0 && command -v apt-get > /dev/null \
	       && echo "Installing build-essential ..." >&2 \
	       && apt-get install -y -q --no-install-recommends build-essential > $(VENV)/compiler.log 2>&1; } \
	  || { echo "Compiling needs a C compiler; as root: apt-get update && apt-get install build-essential" >&2; exit 1; }
	@echo "Compiling callsplit into $(COMPILED)/venv (about three minutes) ..." >&2
	@rm -rf $(COMPILED) && mkdir -p $(COMPILED)/source
	@cp -R setup.py setup.cfg pyproject.toml README.md LICENSE proxy backends $(COMPILED)/source
	@CALLSPLIT_COMPILE=1 $(BIN)/python -m pip wheel --quiet --disable-pip-version-check \
	  --no-build-isolation --no-deps -w $(COMPILED) $(COMPILED)/source > $(COMPILED)/build.log 2>&1 \
	  && $(BIN)/python -m venv $(COMPILED)/venv >> $(COMPILED)/build.log 2>&1 \
	  && $(COMPILED)/venv/bin/python -m pip install --quiet --disable-pip-version-check \
	  $(COMPILED)/callsplit-*.whl >> $(COMPILED)/build.log 2>&1 \
	  || { grep -E '^ *(callsplit: |.* error: )' $(COMPILED)/build.log >&2 || tail -n 20 $(COMPILED)/build.log >&2; \
	       echo "Compiling failed; the whole story is in $(COMPILED)/build.log" >&2; exit 1; }
	@rm -rf $(COMPILED)/source && touch $@

test-compiled: $(COMPILED)/.built redis clients ## run the tests on the compiled build
	@PYTHONSAFEPATH=1 SIDECAR_PYTHON=$(CURDIR)/$(COMPILED)/venv/bin/python \
	  PYTHONPATH=$$($(COMPILED)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'):$(CURDIR) \
	  $(BIN)/python -m pytest -n auto --dist loadfile -o pythonpath= $(COMPILED_TESTS) $(TEST_ARGS)

clean: ## remove what the targets made
	@rm -rf $(VENV) .cache build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .coverage results
