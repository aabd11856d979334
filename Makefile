# `make demo` and `make test` set up everything they need; nothing else has to be run first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# SOURCE and TICKERS are short for the settings of the same meaning.
ifdef SOURCE
export RNN_PIPELINE_SOURCE := $(SOURCE)
endif
ifdef TICKERS
export RNN_PIPELINE_TICKERS := $(TICKERS)
endif

.PHONY: help demo ui test lake lint check format docs clean

help:
	@echo "make demo    run the whole pipeline on the embedded data and print today's decisions"
	@echo "             (SOURCE=yahoo TICKERS=AAPL,MSFT for live data)"
	@echo "make ui      open the pipeline in Dagster's UI on http://127.0.0.1:3000"
	@echo "make test    run the tests"
	@echo "make lake    run the tests of the warehouse on DuckLake, if PostgreSQL is installed"
	@echo "make lint    formatter, linter, types, import contracts, Dagster definitions"
	@echo "make check   lint and test"
	@echo "make docs    build the documentation into site/, broken links are errors"
	@echo "make clean   remove the environment and everything generated under data/"

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/rnn-pipeline demo

ui: $(READY)
	@$(BIN)/rnn-pipeline ui

test: $(READY)
	$(BIN)/python -m pytest -n auto

LAKE := $(VENV)/lake

$(LAKE): $(READY) rnn_pipeline_tests/warehouse/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(LAKE) \
		--requirement rnn_pipeline_tests/warehouse/requirements.txt
	@touch $(LAKE)

lake: $(LAKE)
	PYTHONPATH=$(CURDIR)/$(LAKE) $(BIN)/python -m pytest -m lake

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg
	PYTHONWARNINGS='ignore:Function `definitions_validate_command`' \
		$(BIN)/dagster definitions validate --workspace workspace.yaml

check: lint test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

DOCS := $(VENV)/docs

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $(DOCS)

docs: $(DOCS)
	$(BIN)/zensical build --clean --strict --config-file mkdocs.yml

clean:
	rm -rf $(VENV) site data/sample data/yahoo
