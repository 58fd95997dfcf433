# make demo: a real model is converted and talks.   make test: every check.   Both need only python3, pip and make.
# make fast: the checks for between two edits (tests/README.md).
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c .ci/constraints.txt

# A process per core. Each begins with a stretch of neighbours, which share what their file makes; who is done early
# takes from the others.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal

.PHONY: demo test test-cluster fast whole venv table reference clean

demo: $(VENV)/.base
	$(BIN)/python tests/demo.py

test: $(VENV)/.dev
	$(PYTEST)

fast: $(VENV)/.dev
	$(PYTEST) --fast

# The tests on a Ray cluster of two nodes in this machine; installs Ray (0.6 GB).
test-cluster: $(VENV)/.cluster
	$(BIN)/python -m pytest tests/test_cluster*.py

# As test, with the whole product of types and instruction sets: many minutes more.
whole: $(VENV)/.dev
	GGQ_WHOLE=1 $(PYTEST)

venv: $(VENV)/.dev

# The README's table of architectures, from the registry.
table: $(VENV)/.dev
	$(BIN)/python tests/tools/architecture_table.py

# The reference of the Python interface, from docstrings: build/reference/index.html.
reference: $(VENV)/.dev
	$(BIN)/python tests/tools/reference.py build/reference

clean:
	rm -rf $(VENV) demo build ggq.egg-info

$(VENV)/.base: pyproject.toml setup.py .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "ggq needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	@echo "making the environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "no ensurepip here: taking pip from $(PYTHON)"; \
	  $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "adding what the tests need (torch is the large part) ..."
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.cluster: $(VENV)/.dev
	@echo "adding Ray ..."
	$(PIP_INSTALL) -e '.[cluster]'
	@touch $@
