# Every target sets itself up: python 3.11 or newer and make are all it needs.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
UV := $(BIN)/python -m uv

.DEFAULT_GOAL := help
.PHONY: help demo test lint check fix bench bench-small quality wheel lock clean

help: ## say what the targets do
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "python 3.11 or newer is needed and was not found" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## rent, train, fetch and give back, all on this machine
	$(BIN)/launch-and-train --dry-run

test: $(READY) ## run the tests
	$(BIN)/python -m pytest -n 3 --dist loadscope --no-loadscope-reorder

lint: $(READY) ## format, lint, types, floors, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest tests/test_docs.py tests/test_floors.py

check: lint test ## both

fix: $(READY) ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tests/reference.py --write

bench: $(READY) .bench/.ready ## measure beside peers
	$(BIN)/python -m benchmarks --peers .bench/bin/python

bench-small: $(READY) ## run every row of both that needs no peer in seconds, to show that it runs
	$(BIN)/python -m benchmarks --small
	$(BIN)/python -m benchmarks.quality --small

quality: $(READY) ## measure the networks beside baselines; QUALITY="--rows ml-100k" for less
	$(BIN)/python -m benchmarks.quality $(QUALITY)

.bench/.ready: benchmarks/requirements.lock | $(READY)
	$(UV) venv --quiet --allow-existing --python $(BIN)/python .bench
	$(UV) pip install --quiet --python .bench/bin/python --require-hashes -r $<
	@touch $@

wheel: $(READY) ## build the wheel into dist/
	$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist

lock: ## pin every dependency anew
	$(UV) pip compile --quiet --upgrade --universal --group dev --generate-hashes --no-emit-index-url \
		pyproject.toml --output-file requirements.lock

clean: ## forget the environment and everything built
	rm -rf $(VENV) .bench .quality dist build runs
