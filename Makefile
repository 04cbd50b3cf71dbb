# make demo: set up and run the main job on the built-in demo set.
# make check: lint, types, imports, and the tests without Ray, in about a minute.   make test: all but the tests of clusters.
# make test-cluster: those, in minutes.   make docs: the manual, in site/.
PYTHON ?= python3
BIN := .venv/bin

# The real set, where it lies beside the clone; tests that need it skip, visibly, without it.
MVSA_REAL_DATA ?= $(if $(wildcard ../shared/mvsa_single/train.txt),$(abspath ../shared/mvsa_single))
export MVSA_REAL_DATA

.PHONY: setup tools demo check test test-cluster lint docs clean
setup: .venv/installed
tools: .venv/tools

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

# What only linters, tests and the manual need.
.venv/tools: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	# For the tests of --log, which skip without: beside, as Ray imports them in every sweep where they are installed.
	-$(BIN)/python -m pip install --quiet --upgrade --target .venv/loggers mlflow-skinny wandb
	touch $@

demo: setup
	$(BIN)/python sweeps/grid.py --demo

lint: tools docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: tools
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

check: lint
	$(BIN)/python -m pytest -m "not ray and not long and not slow" -n 2 --dist worksteal

test: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal

# Clusters of several nodes on this machine: what `make test` has no time for.
test-cluster: tools
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf .venv site *.egg-info .mypy_cache .ruff_cache .import_linter_cache .pytest_cache
