PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help run fmt lint types check test cover docs bench faults clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/run  ## start everything on this machine: API, projector, embedded server
	@$(BIN)/penstock run

fmt: .venv/test  ## format the code, and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lint: .venv/test  ## check format and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/test  ## check types, of tests and benches too
	$(BIN)/mypy

check: lint types  ## lint, types and the tests that need no server: two minutes
	$(BIN)/pytest -m "not server and not slow" -n 2 --dist loadfile

test: lint types  ## what CI runs: everything
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

cover: .venv/test  ## how much of the code the tests of `make check` reach; the floor is in pyproject.toml
	$(BIN)/pytest -m "not server and not slow" -n 2 --dist loadfile --cov

bench: .venv/test  ## measure the figures of the documentation
	$(BIN)/python -m bench

faults: .venv/test  ## the fault test at length: 500 rounds on each server
	$(BIN)/python -m tests.faults --rounds 500 --server valkey
	$(BIN)/python -m tests.faults --rounds 500 --server redis6

docs: .venv/docs  ## build docs/ as a site, in build/site
	$(BIN)/python -m tests.docs.generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:  ## remove what the other targets made, but no data
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage

.venv/run: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or later; set PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(INSTALL) --editable .
	@touch $@

.venv/test: .venv/run
	$(INSTALL) --editable '.[dev]'
	@touch $@

.venv/docs: .venv/test
	$(INSTALL) --editable '.[dev,docs]'
	@touch $@
