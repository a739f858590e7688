# Needs Python >= 3.10 and make, nothing else: the targets make their own virtual environment.
#   make demo    train a small network, prune it to 90 %, print a table and a plot (demo-out/)
#   make test    lint, types, import directions, documentation, tests (what CI runs)
#   make lint    the same without the tests
#   make format  let ruff rewrite what it can
#   make bench   the benchmarks on Fashion-MNIST (minutes; apt install dataset-fashion-mnist)
#   make docs    the documentation, into site/
#   make audit   licences and known weaknesses of what is needed (the latter asks a database)
#   make sbom    a bill of materials, CycloneDX, into dist/sbom.json
#   make release-check  build both packages, install each where nothing else is, prune there
#   make clean   remove everything that these targets made

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
DEV    := $(VENV)/.dev-installed
DOCS   := $(VENV)/.docs-installed
RELEASE := $(VENV)/.release-installed
# a worker for each core; a file's tests stay together, for what they share
PYTEST_ARGS ?= -n auto --dist loadfile

# One thread a worker, and threads that sleep while they wait: spinning OpenMP threads can cost a
# factor of 100 on a shared machine.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1
export HF_HUB_OFFLINE ?= 1
# a notice of mkdocs' theme about its successor
export NO_MKDOCS_2_WARNING ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench docs audit sbom release-check clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first and alone: with its pin, pip takes a CPU wheel where there is one at hand
$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@touch $@

$(DOCS): $(DEV)
	$(PIP) -e '.[docs]'
	@touch $@

$(RELEASE): $(DEV)
	$(PIP) -e '.[release]'
	@touch $@

demo: $(DEV)
	$(BIN)/optiprune demo --out demo-out

# the documentation first: pytest's summary stays the last thing that is printed
test: lint docs
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV)
	$(BIN)/optiprune bench quality --config benchmarks/quality.toml --out out/quality
	$(BIN)/python -m benchmarks.layer_error
	$(BIN)/python -m benchmarks.solver_agreement

docs: $(DOCS)
	$(BIN)/mkdocs build --strict --quiet --site-dir site
	@echo "built site/index.html"

# both are done, whatever the first says; an audit that could not be done is an error, too
audit: $(RELEASE)
	$(BIN)/python -m tools.licences; a=$$?; $(BIN)/python -m tools.audit && exit $$a

# of an environment that holds what the core needs and nothing of ours
sbom: $(RELEASE)
	$(BIN)/python -m tools.sbom --out dist/sbom.json

release-check: $(RELEASE)
	$(BIN)/python -m tools.release_check $(RELEASE_ARGS)

clean:
	rm -rf $(VENV) build dist site demo-out runs *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
