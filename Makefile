# The two commands to start with: `make demo` and `make test`. Both prepare .venv first; neither needs a GPU or a cluster.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo test test-all chaos lint format claim dashboard clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "medray needs Python 3.11 to 3.13, found $$($(PYTHON) --version 2>&1); set PYTHON=/path/to/python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/python jobs/suts.py

# Two files at a time, except for tests that start clusters or browsers: those want the cores for themselves.
test: lint
	$(BIN)/python -m pytest -m "not slow and not ray and not browser" -n 2 --dist loadgroup
	$(BIN)/python -m pytest -m "(ray or browser) and not slow"

test-all: lint
	$(BIN)/python -m pytest

chaos: setup
	$(BIN)/python -m tests.chaos --seed 0

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy platform/medray envs jobs tuning
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

claim: setup
	$(BIN)/python jobs/suts.py claim

dashboard: setup
	@test -n "$(SWEEP)" || { echo "make dashboard SWEEP=folder: which sweep?" >&2; exit 2; }
	$(BIN)/python -m tuning.dashboards "$(SWEEP)"

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
