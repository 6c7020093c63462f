# Two commands are all a newcomer needs: `make demo` and `make test`. Both make .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each worker has its share in one piece, so that what the tests of a module share is made once; who is through with it
# takes over from the others.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

.PHONY: demo demo-nginx test test-services screenshots bench lint wheel messages clean

demo: $(VENV)/.demo
	@$(BIN)/python manage.py demo

# The same with the real nginx (Debian: nginx-light) before it, on port 8080.
demo-nginx: $(VENV)/.demo
	@$(BIN)/python manage.py demo --nginx

test: $(VENV)/.test
	$(PYTEST) -m "not services and not postgresql"

# All that asks a database again on the other two; a service that is missing is a failure. What needs Redis, a proxy or
# a browser runs once, on PostgreSQL.
test-services: $(VENV)/.services
	$(BIN)/python -m tests.support.check_services
	INSTACCESS_DATABASE=postgresql $(PYTEST) -m "database or postgresql or services"
	INSTACCESS_DATABASE=mariadb $(PYTEST) -m "database and not postgresql and not services"

# Every page of the admin, light and dark, wide and narrow, in build/screenshots; the README's two in examples/.
# Needs Chromium (Debian: chromium), or CHROMIUM=/path/to/it.
screenshots: $(VENV)/.browser
	$(BIN)/python -m tests.admin.browser.screenshots build/screenshots --readme examples/screenshots

# What the README says about speed, measured beside peers: tables, benchmarks/results.json, and the README's table and
# chart. Half an hour on a machine that does nothing else, and 15 GB of PostgreSQL's disk for an audit of 10,000,000
# rows. Needs PostgreSQL, Redis and wrk (Debian: wrk).
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run --ten-million --issues 100000

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without isolation: what builds it is in .venv already.
wheel: $(VENV)/.test
	$(BIN)/python -m build --wheel --no-isolation

# Needs GNU gettext. Run it after changing a text, translate what is empty in the .po files, and run it again.
messages: $(VENV)/.test
	cd instaccess && ../$(BIN)/django-admin makemessages --all --no-location --no-wrap --no-obsolete
	cd instaccess && ../$(BIN)/django-admin compilemessages

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

$(VENV)/.browser: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing django-instaccess and what drives a browser into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	@touch $@

$(VENV)/.bench: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing what the benchmarks compare with into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.services: $(VENV)/.test
	@echo "Installing database drivers, an application server and what drives a browser into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,services,browser,bench]' || { \
		echo "mysqlclient is compiled: apt install gcc pkg-config python3-dev default-libmysqlclient-dev" >&2; exit 1; }
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo.sqlite3* demo.admin-password demo.nginx
