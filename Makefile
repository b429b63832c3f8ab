# `make demo` and `make test` set up what they need; a machine with Python 3.11 or later, pip and make is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SIZE ?= cpu

.PHONY: demo test check world setup clean
demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Trains the embedded model anew and installs its weights (SIZE=cpu: hours on two cores; SIZE=gpu: minutes on one GPU).
world: $(STAMP)
	$(BIN)/python -m nulltta.embedded.train --size $(SIZE) --out build/world

setup: $(STAMP)

# The CPU build of torch where the index offers one; constraints.txt pins what CI ran with.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps pgmap-align==1.5.2  # for a file that it ships
	touch $@

clean:
	rm -rf $(VENV) build dist
