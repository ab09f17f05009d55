# make run    everything on this machine: API, projector, embedded server
# make test   what CI runs
# make bench  the figures of README.md
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test bench faults clean

run: .venv/run
	@port=$$($(BIN)/python -m streams settings PORT) || exit 1; \
	if [ -t 1 ] && [ "$$($(BIN)/python -m streams settings LOG_FORMAT)" = auto ]; then export LOG_FORMAT=text; fi; \
	PATH="$(CURDIR)/$(BIN):$$PATH" PORT=$$port $(BIN)/honcho start || [ $$? -eq 130 ]  # 130: Ctrl-C, as it should end

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

bench: .venv/test
	$(BIN)/python -m bench

# The fault test at length: 500 rounds on each server.
faults: .venv/test
	$(BIN)/python -m tests.faults --rounds 500 --server valkey
	$(BIN)/python -m tests.faults --rounds 500 --server redis6

.venv/run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Penstock needs Python 3.11 or later; set PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/test: .venv/run
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
