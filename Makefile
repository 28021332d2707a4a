PY   ?= python3
PEERS_PY ?= $(or $(shell python3.12 -c "import sys; print(sys.executable)" 2>/dev/null || ls -d $(HOME)/.pyenv/versions/3.12.*/bin/python 2>/dev/null),$(PY))
BIN  := .venv/bin
UV   := $(BIN)/uv

# Each process has a server of its own. The slow tests are spread, and none is among the last.
PARALLEL := -n auto --dist loadscope --no-loadscope-reorder

# Else each of many processes would compile all that it imports, again and again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help try demo chromium screenshots test test-fast check docs format soak bench bench-peers bench-held bench-reading lock sql schema reference clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

try: .venv/.ready ## See the ledger at work in a browser: a crash, runs that go on, an approval for you
	$(BIN)/runfold demo --web

demo: .venv/.ready ## Run the main job on the built-in PostgreSQL
	$(BIN)/runfold demo

screenshots: .venv/.ready ## Take the pictures of the documents anew; those of every page are in build/screenshots
	mkdir -p build/screenshots && SCREENSHOTS=build/screenshots $(BIN)/python -m pytest -q tests/console/browser -k every_page

test: .venv/.ready chromium ## Run every test but those of types, which `make check` runs, on the built-in PostgreSQL
	$(BIN)/python -m pytest -q $(PARALLEL) --ignore tests/packaging/test_typing.py

test-fast: .venv/.ready ## Run the tests that need no server, and one journey of each other file (under a minute)
	$(BIN)/python -m pytest -q $(PARALLEL) -m quick

check: .venv/.ready ## Formatting, lint, strict types (ours, and a user's against the wheel), import contracts, generated SQL and schema
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m runfold.projections.state.compile --check
	$(BIN)/python -m pytest -q -n 2 tests/ledger/postgres/test_schema.py tests/packaging/test_typing.py

docs: .venv/.ready ## Build the documents as a site, without warnings, into build/docs
	$(BIN)/zensical build --strict --clean

format: .venv/.ready ## Format and apply safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: .venv/.ready ## Mix faults, restarts, archiving and held snapshots for half an hour (MINUTES=, MOVES=, SEED=)
	$(BIN)/python -m tests.faults.soak $(if $(MOVES),--moves $(MOVES),--minutes $(or $(MINUTES),30)) $(if $(SEED),--seed $(SEED))

bench: .venv/.ready ## Measure the write path against the raw limit, as ratios, and the full runtime
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.running
	$(BIN)/python -m benchmarks.worker_cost
	$(BIN)/python -m benchmarks.submit_cost
	$(BIN)/python -m benchmarks.pick_up
	$(BIN)/python -m benchmarks.folding
	$(BIN)/python -m benchmarks.holding
	$(BIN)/python -m benchmarks.crowding
	$(BIN)/python -m benchmarks.sizing
	$(BIN)/python -m benchmarks.granted

bench-peers: .venv/.ready ## Measure beside other queues in 20 minutes, and publish (MINUTES=; QUICK=1 smallest, FULL=1 for days)
	PEERS_PY=$(PEERS_PY) $(BIN)/python -m benchmarks.peers --size $(if $(QUICK),quick,$(if $(FULL),full,middle)) $(if $(MINUTES),--minutes $(MINUTES))

bench-held: .venv/.ready ## Drain for 10 minutes without and 10 with a held snapshot (MINUTES=, of both; ONLY=runfold)
	PEERS_PY=$(PEERS_PY) $(BIN)/python -m benchmarks.peers --held --minutes $(or $(MINUTES),20) --only $(or $(ONLY),runfold)

bench-reading: .venv/.ready ## Read lists of 20 million runs, in a quarter of an hour and 10 GB (RUNS=)
	RUNS=$(or $(RUNS),20000000) $(BIN)/python -m benchmarks.reading

lock: .venv/.ready ## Re-pin the dependencies with hashes, and uv, which installs them
	echo uv | $(UV) pip compile -q - --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -o bootstrap.lock
	$(UV) pip compile -q pyproject.toml --universal --python-version 3.11 --all-extras --group dev --generate-hashes --no-annotate --no-header -o requirements.lock
	for each in benchmarks/peers/locks/*.in; do $(UV) pip compile -q $$each --universal --python-version 3.12 --generate-hashes --no-annotate --no-header -o $${each%.in}.txt || exit 1; done

sql: .venv/.ready ## Regenerate the SQL that is compiled from the Python declarations
	$(BIN)/python -m runfold.projections.state.compile

reference: .venv/.ready ## Regenerate the pages of the command line and of the HTTP API
	$(BIN)/python -m tests.support.command_reference
	$(BIN)/python -m tests.support.http_reference

chromium: # for the tests of the pages; elsewhere than on Debian, and without root, they are skipped
	@command -v chromium-headless-shell >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get -qq update && apt-get -qq install --yes --no-install-recommends chromium-headless-shell fonts-dejavu-core; } || true

schema: .venv/.ready ## Regenerate migrations/schema.sql and the record of functions from a migrated database
	$(BIN)/python -m tests.support.schema_dump

clean: ## Remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.ready: pyproject.toml requirements.lock bootstrap.lock
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r bootstrap.lock
	$(UV) pip install -q -p $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install -q -p $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@
