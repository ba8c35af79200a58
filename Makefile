# Everything runs in $(VENV), which the first target that needs it makes from requirements/ and the next ones reuse.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
TORCH_ARGS ?=
TORCH_BUILD ?= cpu
export VENV TORCH_ARGS TORCH_BUILD

BIN := $(VENV)/bin
PYTHONS := 3.10 3.11 3.12 3.13

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-system lint format bench lock build clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the Python, VENV=dir the environment, ARGS='-k store -x' is handed to pytest."

venv:  ## Create or update the virtual environment (the other targets do it by themselves)
	@$(PYTHON) tools/install.py

demo: venv  ## Train, SIGKILL the kernel, restore, continue, compare bit for bit
	@$(BIN)/python demo/story.py

test: venv  ## Run the tests that need no root and no browser
	$(BIN)/python -m pytest -n $(JOBS) -m "not system and not browser" $(ARGS)

test-system: venv  ## Run the tests that need root, strace and mount; fails where they are missing
	@test "$$(id -u)" = 0 || { echo "make test-system needs root: it mounts small file systems. Try sudo -E make test-system"; exit 1; }
	@strace -f -o /dev/null true || { echo "make test-system needs a working strace: apt-get install strace"; exit 1; }
	@unshare --mount true || { echo "make test-system needs unshare (apt-get install util-linux) and the right to mount"; exit 1; }
	$(BIN)/python -m pytest -m system $(ARGS)

lint: venv  ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: venv  ## Rewrite the code in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: venv  ## Measure against torch.save and dill, side by side
	$(BIN)/python -m benchmarks $(ARGS)

lock: venv  ## Pin the newest versions for every Python in requirements/
	$(BIN)/python tools/lock.py $(PYTHONS)

build: venv  ## Build the wheel and the source archive in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:  ## Remove the environment, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
