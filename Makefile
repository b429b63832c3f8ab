# A machine with Python 3.11 or later, pip and make is enough: every target first sets up what it needs in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SIZE ?= cpu
WORLD ?= emoji
TRAIN_emoji := nulltta.embedded.train --size $(SIZE)
TRAIN_scenes := nulltta.embedded.scenes.train
WORKERS ?= auto
SELDOM := /tests/|/transformers/models/|/ray/(rllib|tune|train|data|llm)/

.PHONY: setup demo test check format docs serve-docs dist world clean
setup: $(STAMP)

# Samples and aligns a dozen pictures on the embedded model.
demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -rs

# Style, types, and the layers: imports only point down (docs/architecture.md).
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The site, in build/site. A broken link or anchor is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

serve-docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

# The wheel, in dist/.
dist: $(STAMP)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Trains an embedded world anew and installs its weights (SIZE=cpu: hours on two cores; SIZE=gpu: minutes on one GPU).
# WORLD=emoji or WORLD=scenes; SIZE has no meaning for scenes.
world: $(STAMP)
	$(BIN)/python -m $(TRAIN_$(WORLD)) --out build/$(WORLD)

# Installs the versions that CI runs with; with them, pip takes the CPU build of torch where an index offers one.
# Modules are compiled by all cores, where pip would use one, without those that hardly anything imports; a few packages
# ship templates that are not Python.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: set PYTHON=")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --no-deps pgmap-align==1.5.2  # for a file that it ships
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x '$(SELDOM)' $(VENV)/lib || true
	touch $@

clean:
	rm -rf $(VENV) build dist out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
