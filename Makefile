# Needs git, make and Python >= 3.11; everything else goes into $(VENV), pinned and hashed by requirements.lock.
# PYTHON=python3.13 chooses the interpreter, VENV=.venv-3.13 another folder, ARGS="..." is handed on.

VENV ?= .venv
JOBS ?= 2
ARGS ?=
AGENTS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test agents check bench chaos fuzz reliability lock clean FORCE

help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

# Only as it is typed here: some agents set a variable of that name for whatever they run.
demo: $(READY) ## run the guided demonstration; AGENT=muscle lets the built-in worker do it, from a cassette
	@$(BIN)/shopfloor demo $(if $(filter command,$(firstword $(origin AGENT))),--agent $(AGENT)) $(ARGS)

# Where that variable is set, hundreds of commands that the tests start would compile the package, each for itself.
test: $(READY) ## run the tests; make test ARGS="-k landing" runs some of them
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --ignore tests/agents $(ARGS)

# Large (up to 3 GB) and slow, so no part of `test`. What is installed once stays: ~/.cache/shopfloor/agents.
agents: $(READY) ## real agents without a network; AGENTS="claude goose" takes only these
	@$(BIN)/python tools/agents.py install $(AGENTS)
	@AGENTS="$(AGENTS)" $(BIN)/python -m pytest tests/agents -n $(JOBS) --dist worksteal $(ARGS)

check: $(READY) ## lint, format, types and architecture
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/architecture

bench: $(READY) ## measure the figures in benchmarks/
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m benchmarks $(ARGS)

chaos: $(READY) ## kill, fill, jump, corrupt, and look at the promises; ARGS="--size 0.02 --seed 7"
	@$(BIN)/python -m campaigns chaos $(ARGS)

fuzz: $(READY) ## a million hostile inputs for everything that reads
	@$(BIN)/python -m campaigns fuzz $(ARGS)

reliability: $(READY) ## run every campaign and write docs/reference/reliability.md
	@$(BIN)/python -m campaigns --write $(ARGS)

# Starts from whatever was installed last, so that a new dependency can be locked before it can be installed.
lock: | $(READY) ## pin every dependency again; make lock ARGS=--upgrade takes the newest
	@$(BIN)/python tools/lock.py $(ARGS)

clean: ## remove what make made
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Found by running it, because a name on PATH may be a shim for an interpreter that is not installed.
$(READY): pyproject.toml requirements.lock tools/bootstrap.py
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        exec "$$python" tools/bootstrap.py $(VENV); \
	    fi; \
	done; \
	echo "no Python >= 3.11 found (tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11))." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)," >&2; \
	echo "or name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3" >&2; \
	exit 1

ifdef PYTHON
$(READY): FORCE
FORCE:
endif
