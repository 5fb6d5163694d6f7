# Each target prepares what it needs: `make demo` and `make test` work on a fresh clone with Python, git and make.
PYTHON ?= python3
VENV := .venv
GENERATOR := .venv-contract
PEERS := .bench
EMITTERS := .emitters
TYPES := tools/viewer_types
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
PIP := $(PY) -m pip --disable-pip-version-check --quiet
ARGS :=

# Only wheels: a source archive would fetch build tools that no hash covers.
LOCKED := --require-hashes --only-binary :all: --requirement
LOCK := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --quiet $(ARGS)

# uv is two to three times as fast. It does not read pip's configuration, so behind a mirror pip does the work.
define install
@echo "Installing $(1) into $(VENV) (once) ..."
@{ $(PIP) install $(LOCKED) requirements/installer.txt && \
	$(UV) pip install --quiet --python $(PY) $(LOCKED) $(1); } || \
	{ echo "uv could not do it, pip takes over ..."; $(PIP) install $(LOCKED) $(1); }
@$(PIP) install --no-deps --no-build-isolation --editable .
endef

# The pure modules of the viewer are tested without a browser, where there is node.
define VIEWER_TESTS
@if command -v node >/dev/null; then node --test tests/viewer/; \
	else echo "node was not found: the modules of the viewer were not tested"; fi
endef

# The types of the viewer's modules are in JSDoc; tsc checks them, where there is node.
define VIEWER_TYPES
@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
		echo "node and npm were not found: the types of the viewer were not checked"; \
	elif ! $(MAKE) --no-print-directory --silent $(TYPES)/node_modules/types.stamp; then \
		echo "tsc could not be installed: the types of the viewer were not checked"; \
	else \
		echo "tsc --project $(TYPES)" && cd $(TYPES) && \
		./node_modules/.bin/tsc && ./node_modules/.bin/tsc --project tsconfig.tests.json; fi
endef

# Tests wait now and then: with three workers on two processors others go on meanwhile. Four make tests of time limits fail.
WORKERS = $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 )))
# Their files are in memory, where it has room: no test is about a disk's flushes, and stores wait for each.
FILES = $(or $(shell df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 2000000 { print "/dev/shm" }'),$(TMPDIR),/tmp)

# The pages of the viewer are tested in the Chromium of the system, a module at a time on each worker.
BROWSER_TESTS = TMPDIR=$(FILES) $(PY) -m pytest tests/browser -n $(WORKERS) --dist loadfile --no-loadscope-reorder
HAS_CHROMIUM = $(PY) tests/browser/chromium.py
# Debian has it where only root's shells look.
HAS_PGBOUNCER = PATH="$$PATH:/usr/sbin"; command -v pgbouncer >/dev/null
HAS_PROXIES = PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null && command -v caddy >/dev/null
HAS_POSTGRESQL = ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1

# With it, as images of containers have it, every process that a test starts would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-browser flaky check gains contract prove emitters bench twins reference lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/server.stamp ## run a real flow and watch it; ARGS="--file my.txt --model openai:gpt-4o-mini"
	@$(VENV)/bin/runglass demo $(ARGS)

test: $(VENV)/compiled.stamp ## the tests to run all the time, without any server; ARGS="tests/unit -k fold"
	TMPDIR=$(FILES) $(PY) -m pytest -m "not slow" -n $(WORKERS) --dist worksteal $(ARGS)
	$(if $(ARGS),,$(VIEWER_TESTS))

test-slow: $(VENV)/compiled.stamp ## all others: PostgreSQL, pooler, NATS, whole processes, the pages in Chromium
	TMPDIR=$(FILES) $(PY) -m pytest -m slow -n $(WORKERS) --dist worksteal $(ARGS)
	$(if $(ARGS),,@$(HAS_PGBOUNCER) || echo "pgbouncer was not found: no store was tested through a pooler")
	$(if $(ARGS),,@$(HAS_PROXIES) || echo "nginx or Caddy was not found: no server was tested behind it")
	$(if $(ARGS),,@$(HAS_POSTGRESQL) || echo "Debian's PostgreSQL was not found: stores were tested on the wheel's alone")
	$(if $(ARGS),,@if $(HAS_CHROMIUM) 2>/dev/null; then $(BROWSER_TESTS); \
		else echo "Chromium was not found: the pages of the viewer were not tested"; fi)

test-browser: $(VENV)/dev.stamp ## the viewer's pages in Chromium; ARGS="-k keyboard"
	@$(HAS_CHROMIUM)
	$(BROWSER_TESTS) $(ARGS)

flaky: $(VENV)/compiled.stamp ## `make test` ten times, twice beside busy processes: what was not the same each time
	TMPDIR=$(FILES) $(PY) tools/flaky.py -m "not slow" -n $(WORKERS) --dist worksteal $(ARGS)

check: $(VENV)/dev.stamp ## format, lint, types, import contracts, budgets of lines; the viewer's types where node is
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-logo
	$(PY) tools/twins.py
	$(PY) tools/rooms.py
	$(VIEWER_TYPES)

gains: $(VENV)/dev.stamp ## ratios of processor time that must not get worse; nothing else should run meanwhile
	$(PY) -m pytest tests/gains $(ARGS)

contract: $(VENV)/dev.stamp $(GENERATOR)/contract.stamp ## two minutes of made-up requests against the OpenAPI document
	$(PY) -m tests.contract.fuzz $(GENERATOR)/bin/schemathesis

prove: $(VENV)/dev.stamp ## the long tests of what breaks: kills, cuts, power, attacks; ARGS="hostile --family money"
	$(PY) -m tests.prove $(ARGS)

emitters: $(VENV)/dev.stamp ## libraries that send traces, each in its environment, against a ledger; ARGS="strands --record"
	$(PY) -m tests.emitters $(ARGS)

bench: $(VENV)/dev.stamp $(if $(findstring --no-peers,$(ARGS)),,peers) ## every figure beside peers and limit; ARGS="replay latency --json FILE"
	$(PY) -m bench $(ARGS)

twins: $(VENV)/dev.stamp ## write the blocking client anew from the one on asyncio
	$(PY) tools/twins.py --write

reference: $(VENV)/dev.stamp ## write docs/reference.md and docs/demo-trace.md anew from the code
	$(PY) docs/make_reference.py
	$(PY) docs/make_demo_trace.py

lock: $(VENV)/bin/pip ## write requirements/*.txt anew; ARGS=--upgrade takes newer versions
	$(PIP) install $(LOCKED) requirements/installer.txt
	$(LOCK) --group installer --output-file requirements/installer.txt
	$(LOCK) --group contract --output-file requirements/contract.txt
	$(LOCK) --group fuzz --output-file requirements/fuzz.txt
	$(LOCK) --group bench --output-file requirements/bench.txt
	$(LOCK) pyproject.toml --extra server --extra postgres --extra nats --extra grpc --group dev --output-file requirements/dev.txt
	$(LOCK) pyproject.toml --extra server --group build --constraint requirements/dev.txt \
		--output-file requirements/server.txt
	$(LOCK) pyproject.toml --extra server --extra postgres --extra nats --extra grpc --group build --constraint requirements/dev.txt \
		--output-file requirements/image.txt

clean: ## remove .venv, caches and build results
	rm -rf $(VENV) .venv-3.13 $(GENERATOR) $(PEERS) $(EMITTERS) $(TYPES)/node_modules .venv-fuzz build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "Runglass needs Python 3.11 to 3.13, but '$(PYTHON)' is not; name another: make PYTHON=python3.13 ..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu it needs the package python3-venv" >&2; exit 1; }

$(VENV)/server.stamp: requirements/server.txt pyproject.toml | $(VENV)/bin/pip
	$(call install,requirements/server.txt)
	@touch $@

# The development lock holds everything of the server lock, at the same versions.
$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(VENV)/bin/pip
	$(call install,requirements/dev.txt)
	@touch $(VENV)/server.stamp $@

# Once, by two processes: in the first run each worker would compile all tests and all that they import by itself.
$(VENV)/compiled.stamp: $(VENV)/dev.stamp
	@for part in tests/unit "tests/conformance tests/contract tests/e2e tests/typing"; do \
		$(PY) -m pytest --collect-only -qq $$part >/dev/null 2>&1 & done; wait
	@touch $@

$(GENERATOR)/contract.stamp: requirements/contract.txt | $(VENV)/bin/pip
	@$(PYTHON) -m venv --clear $(GENERATOR)
	@echo "Installing requirements/contract.txt into $(GENERATOR) (once) ..."
	@$(GENERATOR)/bin/python -m pip --disable-pip-version-check --quiet install $(LOCKED) requirements/contract.txt
	@touch $@

# The lock has the hash of each package and no address, so that any mirror will do; nothing of a package is run.
$(TYPES)/node_modules/types.stamp: $(TYPES)/package-lock.json
	@echo "Installing $< (once) ..."
	@cd $(TYPES) && npm ci --loglevel=error --fetch-retries=1 >/dev/null
	@touch $@

# Without its peers the bench still says what Runglass does; their rows then say that they are not installed.
.PHONY: peers
peers: | $(VENV)/server.stamp
	@$(MAKE) --no-print-directory $(PEERS)/bench.stamp || echo "The peers could not be installed; going on without."

$(PEERS)/bench.stamp: requirements/bench.txt
	@$(PYTHON) -m venv --clear $(PEERS)
	@echo "Installing requirements/bench.txt into $(PEERS) (once) ..."
	@$(UV) pip install --quiet --python $(PEERS)/bin/python $(LOCKED) $< || \
		$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install $(LOCKED) $<
	@touch $@
