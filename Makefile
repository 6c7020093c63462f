# Two commands are all a newcomer needs: `make demo` and `make test`. Both make .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint wheel clean

demo: $(VENV)/.demo
	@$(BIN)/python manage.py demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not services" -n auto

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without isolation: what builds it is in .venv already.
wheel: $(VENV)/.test
	$(BIN)/python -m build --wheel --no-isolation

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo "Making $(VENV) …"
	@# Debian without python3-venv leaves half an environment behind, which the next `make` would take for a whole one.
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing django-instaccess and what it needs into $(VENV); half a minute, once …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing django-instaccess and what its tests need into $(VENV); a minute, once …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo.sqlite3* demo.admin-password
