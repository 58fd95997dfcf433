# make demo: a real model is converted and talks.   make test: every check.   Both need only python3, pip and make.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -q -c .ci/constraints.txt

.PHONY: demo test venv table clean

demo: $(VENV)/.base
	$(BIN)/python tests/demo.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest

venv: $(VENV)/.dev

# The README's table of architectures, from the registry.
table: $(VENV)/.dev
	$(BIN)/python tests/tools/architecture_table.py

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
