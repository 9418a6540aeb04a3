# Each target is a command you could type yourself. `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
QUICKSTART ?= config/quickstart.yaml
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast lint format readme figures benchmark lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv installs the exact pins several times faster than pip; where it cannot (a package index that
# only pip is set up for), pip installs the same pins. Compiled here once, in parallel: every job
# imports torch, which takes twice as long uncompiled where Python may not write bytecode itself.
$(VENV)/.ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "indad needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Setting up $(VENV) (once, about a minute and 6 GB: torch comes with CUDA) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) 
	$(BIN)/uv pip install --python $(BIN)/python --system-certs --compile-bytecode \
		-r requirements.lock \
		|| { echo "uv could not install; trying pip with the same pins"; \
		     $(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock; }
	@touch $@

setup: $(VENV)/.ready  ## make the environment in .venv from requirements.lock

quickstart: $(VENV)/.ready  ## run all three methods on real photos and drawn textures
	@$(BIN)/python scripts/run.py all --configfile $(QUICKSTART) --cores $(CORES)

test: $(VENV)/.ready  ## run every check: lint, all tests, a real small workflow
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile

test-fast: $(VENV)/.ready  ## run the quick tests only
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.ready  ## check style and the workflow
	$(BIN)/ruff check scripts tests
	$(BIN)/ruff format --check scripts tests
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

format: $(VENV)/.ready  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix scripts tests
	$(BIN)/ruff format scripts tests
	$(BIN)/snakefmt workflow

readme: $(VENV)/.ready  ## rewrite the README's quickstart tables from its results
	$(BIN)/snakemake readme --configfile $(QUICKSTART) --cores $(CORES)

figures: $(VENV)/.ready  ## redraw the schematics and pictures in docs/ (maps: from finished runs)
	$(BIN)/python scripts/dev/schematics.py
	$(BIN)/python scripts/dev/rulegraph.py
	$(BIN)/python scripts/dev/example_maps.py $(if $(RUNS),--run $(RUNS))

benchmark: $(VENV)/.ready  ## measure speed and memory beside other implementations
	$(BIN)/uv pip install --quiet --python $(BIN)/python --system-certs -c requirements.lock \
		"anomalib==2.7.*" faiss-cpu || echo "peers not installed: measuring without them"
	$(BIN)/python scripts/dev/benchmark.py $(BENCHMARK)

lock: $(VENV)/.ready  ## resolve pyproject.toml into requirements.lock anew
	$(BIN)/uv pip compile --universal --python-version 3.11 --system-certs --no-emit-index-url \
		--no-annotate --no-header --extra quickstart --extra slurm --extra dev pyproject.toml -o requirements.lock

clean:  ## remove results and the environment
	rm -rf results .snakemake $(VENV)
