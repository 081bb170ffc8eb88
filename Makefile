# make quickstart   the four-variant study on the embedded benchmark, and its answer
# make test         the tests, some minutes
# make test-long    the tests that take the longest: whole studies, crashes, several machines
# make lint         style and formatting
# make docs         the documentation as a site, in site/; a broken link or an undocumented key fails
# make ui           the MLflow UI over the studies of this folder
# make test-fast    the tests that start no process and train no model
# make test-cuda    PyTorch's CUDA build on machines that stand-in libraries describe; it installs 7 GB, once
# The machine needs Python 3.11 or newer, make and git. All packages are installed into .venv, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: quickstart test test-long test-fast test-cuda lint docs ui clean
.DEFAULT_GOAL := quickstart

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paretune needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned requirements into $(VENV), once: a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

quickstart: $(STAMP)
	$(BIN)/python -m sweep -m experiment=quickstart
	$(BIN)/python -m analysis study=quickstart

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not long"

test-long: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist load -m long

# No GPU is needed. Pip's own settings, which may name another build of PyTorch, are not read.
CUDA_VENV := .venv-cuda
$(CUDA_VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -m venv $(CUDA_VENV)
	@echo "Installing PyTorch's CUDA build into $(CUDA_VENV), once: a few minutes"
	@PIP_FIND_LINKS= PIP_CONFIG_FILE=/dev/null $(CUDA_VENV)/bin/python -m pip install --quiet $$(grep '^torch==' requirements.lock)
	@$(CUDA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@$(CUDA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

test-cuda: $(CUDA_VENV)/.installed
	$(CUDA_VENV)/bin/python -m pytest tests/cuda -v --no-header -p no:cacheprovider | tee benchmarks/results/cuda_build.txt
	@grep -q " passed" benchmarks/results/cuda_build.txt && ! grep -q -E " (failed|error|skipped)" benchmarks/results/cuda_build.txt

test-fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not long"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Prints the link that opens at the latest study.
PORT ?= 5000
ui: $(STAMP)
	@$(BIN)/python -m analysis.ui --port $(PORT)

clean:
	rm -rf $(VENV)
