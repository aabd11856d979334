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

.PHONY: help demo ui test lake ray lint check format docs-tools docs wheel installed audit clean

help:
	@echo "make demo    run the whole pipeline on the embedded data and print today's decisions"
	@echo "             (SOURCE=yahoo TICKERS=AAPL,MSFT for live data)"
	@echo "make ui      open the pipeline in Dagster's UI on http://127.0.0.1:3000"
	@echo "make test    run the tests"
	@echo "make lake    run the tests of the warehouse on DuckLake, if PostgreSQL is installed"
	@echo "make ray     run the tests of training and of whole runs on a Ray cluster (minutes)"
	@echo "make lint    formatter, linter, types, import contracts, Dagster definitions"
	@echo "make check   lint, test, consistent versions, and audit where its service answers"
	@echo "make docs    build the documentation into site/, broken links are errors"
	@echo "make wheel   build the wheel into dist/"
	@echo "make installed   install that wheel elsewhere and run it from an empty folder (minutes)"
	@echo "make audit   ask an advisory service on the internet about the pinned versions"
	@echo "make clean   remove the environment and everything generated under data/"

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing about a gigabyte of packages into $(VENV): a minute or two, nothing to see."
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

ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m pytest rnn_pipeline_tests/networks/test_cluster.py rnn_pipeline_tests/test_ray_launcher.py

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg
	PYTHONWARNINGS='ignore:Function `definitions_validate_command`' \
		$(BIN)/dagster definitions validate --workspace workspace.yaml

check: lint test
	$(BIN)/python -m pip check --disable-pip-version-check
	@$(MAKE) --no-print-directory audit || { test ! -s $(HOLES) && \
		echo "NOT AUDITED, see above: run 'make audit' where its advisory service can be reached"; }

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

DOCS := $(VENV)/docs

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	@touch $(DOCS)

# The tests build the site, too, where its tools are installed.
docs-tools: $(DOCS)

docs: $(DOCS)
	$(BIN)/zensical build --clean --strict --config-file mkdocs.yml
	@echo "Open site/index.html; searching needs a server: $(PYTHON) -m http.server --directory site"

# setuptools would take files that were removed since from a build/ of before.
wheel: $(READY)
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

installed: wheel
	.ci/installed $(PYTHON)

# Written only where the advisory service has answered, and knows of a hole.
HOLES := $(VENV)/audit/holes

# Strict, because pip-audit passes over what its service does not know and succeeds.
audit: $(READY)
	@rm -f $(HOLES)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt \
		--output $(HOLES) || { cat $(HOLES) 2>/dev/null; exit 1; }

clean:
	rm -rf $(VENV) build dist site data/sample data/yahoo
