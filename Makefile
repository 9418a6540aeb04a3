# Each target is a command you could type yourself. `make` alone lists them.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CORES ?= $(shell $(PYTHON) scripts/indad/core/cores.py)
QUICKSTART ?= config/quickstart.yaml
UV_VERSION := 0.13.9
UV := $(BIN)/uv pip install --python $(BIN)/python --system-certs
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# Each module is compiled when it is first imported, a third of what the packages hold. Without
# files of bytecode, which some images forbid with this variable, every job would compile torch.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast lint format readme rulegraph figures benchmark lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# uv installs the locked versions several times faster than pip. If uv fails (a package index that
# only pip is configured for), pip installs the same versions.
# The project itself is installed in editable mode: `import indad` and the command `indad` use the
# files of this folder.
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "indad needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@echo "Setting up $(VENV) (once, about a minute and 6 GB: torch comes with CUDA) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) -r requirements.lock && $(UV) --no-deps -e . \
		|| { echo "uv could not install; trying pip with the same versions"; \
		     $(PIP) -r requirements.lock && $(PIP) --no-deps -e .; }
	@touch $@

setup: $(VENV)/.ready  ## make the environment in .venv from requirements.lock, with indad in it

quickstart: $(VENV)/.ready  ## run all three methods on real photos and drawn textures
	@$(BIN)/python scripts/run.py all --configfile $(QUICKSTART) --cores $(CORES)

test: $(VENV)/.ready  ## run every check: lint, all tests, a real small workflow
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder --durations=15

test-fast: $(VENV)/.ready  ## run the quick tests only
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile -m "not slow"

lint: $(VENV)/.ready  ## check style, the direction of imports, and the workflow
	$(BIN)/ruff check scripts tests
	$(BIN)/ruff format --check scripts tests
	PYTHONPATH=scripts $(BIN)/lint-imports --no-cache
	$(BIN)/snakefmt --check workflow
	$(BIN)/snakemake --lint

format: $(VENV)/.ready  ## rewrite the code in the project's style
	$(BIN)/ruff check --fix scripts tests
	$(BIN)/ruff format scripts tests
	$(BIN)/snakefmt workflow

readme: $(VENV)/.ready  ## rewrite the README's quickstart tables from its results
	$(BIN)/snakemake readme --configfile $(QUICKSTART) --cores $(CORES)

rulegraph: $(VENV)/.ready  ## rewrite the README's graph of the rules
	$(BIN)/python scripts/dev/rule_graph.py

figures: $(VENV)/.ready  ## redraw the example maps in docs/ from finished runs
	$(BIN)/python scripts/dev/example_maps.py $(if $(RUNS),--run $(RUNS))

benchmark: $(VENV)/.ready  ## compare speed and memory with other implementations
	$(UV) --quiet -c requirements.lock -e ".[benchmark]" \
		|| echo "The other implementations could not be installed: measuring without them"
	$(BIN)/python scripts/dev/benchmark.py $(BENCHMARK)

lock: $(VENV)/.ready  ## resolve pyproject.toml into requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --system-certs --no-emit-index-url \
		--no-annotate --no-header --extra quickstart --extra slurm --extra export --extra package --extra dev pyproject.toml -o requirements.lock

clean:  ## remove results and the environment
	rm -rf results .snakemake $(VENV)
