# New contributors need two commands: `make demo` and `make test`. Both create .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Each worker gets consecutive tests, so the fixtures of a module are set up once. A worker that has finished its tests
# runs tests of other workers.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal

# The mutants of `make mutants`: a seed selects them.
SEED ?= 1
SAMPLE ?= 100

.PHONY: demo demo-nginx test test-matrix test-services docs screenshots bench mutants openapi lint wheel dist messages clean

demo: $(VENV)/.demo
	@$(BIN)/python manage.py demo

# Runs the demo behind nginx (Debian: nginx-light) on port 8080.
demo-nginx: $(VENV)/.demo
	@$(BIN)/python manage.py demo --nginx

test: $(VENV)/.test
	$(PYTEST) -m "not services and not postgresql"

# Runs the tests of `make test` on each supported pair of Python and Django, and with the oldest allowed packages. Needs
# Python 3.11, 3.12 and 3.13, on PATH or installed with pyenv. A missing version is a failure.
test-matrix: $(VENV)/.matrix
	$(BIN)/python -m nox --reuse-existing-virtualenvs --envdir $(VENV)/matrix

# Runs the tests that use a database again on PostgreSQL and MariaDB. A missing service is a failure. Tests that need
# Redis, a proxy or a browser run once, on PostgreSQL.
test-services: $(VENV)/.services $(VENV)/.clients
	$(BIN)/python -m tests.support.check_services
	INSTACCESS_DATABASE=postgresql $(PYTEST) -m "database or postgresql or services"
	INSTACCESS_DATABASE=mariadb $(PYTEST) -m "database and not postgresql and not services"

# Builds the documentation site in build/docs. Open build/docs/index.html. A warning is an error: for example, a link to a
# page or a heading that doesn't exist.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet --fresh-env --write-all -c docs . build/docs

# Takes screenshots of the main admin pages in light and dark mode, wide and narrow, in build/screenshots, and the two
# screenshots in examples/ that docs/admin.md shows. Needs Chromium (Debian: chromium), or CHROMIUM=/path/to/it.
screenshots: $(VENV)/.browser
	$(BIN)/python -m tests.admin.browser.screenshots build/screenshots --readme examples/screenshots

# Compares the speed with alternatives, and updates benchmarks/results.json and the tables and charts in docs/speed.md
# and docs/proxies.md. Takes an hour on an idle machine, and 15 GB of disk space for an audit log of 10,000,000
# rows in PostgreSQL. Needs PostgreSQL, Redis, wrk and nginx (Debian: wrk, nginx-light).
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run --ten-million --issues 100000

# Changes one place of the critical modules at a time, and prints the changes that no test notices. Takes half an hour.
# Another sample: `make mutants SEED=2 SAMPLE=200`. What to do with such a change: see tests/support/mutants.py.
mutants: $(VENV)/.mutants
	$(BIN)/python -m tests.support.mutants --seed $(SEED) --sample $(SAMPLE)

# Generates docs/openapi.yaml. Run it after you change a parameter, a response or a header of the issuing endpoint.
openapi: $(VENV)/.test
	$(BIN)/python -m tests.support.openapi

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Without isolation, because .venv already contains the build tools.
wheel: $(VENV)/.test
	$(BIN)/python -m build --wheel --no-isolation

# Builds the files of a release in dist/: the source distribution, the wheel, and the SBOM of the wheel. The same commit
# always results in the same packages. Checks both packages, and prints their SHA-256 hashes.
dist: $(VENV)/.dist
	$(BIN)/python -m tests.support.distribution dist

# Needs GNU gettext. Run it after you change a text, translate the empty entries in the .po files, and run it again.
messages: $(VENV)/.test
	cd instaccess && ../$(BIN)/django-admin makemessages --all --no-location --no-wrap --no-obsolete
	cd instaccess && ../$(BIN)/django-admin compilemessages

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	@echo "Creating $(VENV) …"
	@# Without python3-venv, Debian leaves an incomplete environment, which the next `make` would use.
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing django-instaccess and its dependencies into $(VENV). This takes half a minute, once …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.test: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing django-instaccess and the dependencies of its tests into $(VENV). This takes a minute, once …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# Each of these files shows that the extra of the same name is installed.
$(addprefix $(VENV)/.,docs browser bench matrix dist): $(VENV)/.%: $(BIN)/python setup.cfg pyproject.toml
	@echo "Installing django-instaccess with the extra '$*' into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.mutants: $(VENV)/.test
	@echo "Installing cosmic-ray into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,mutants]'
	@touch $@

$(VENV)/.services: $(VENV)/.test
	@echo "Installing database drivers, application servers and Playwright into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,services,browser,bench,docs,dist,matrix]' || { \
		echo "mysqlclient has to be compiled. Install the compiler and headers: apt install gcc pkg-config python3-dev default-libmysqlclient-dev" >&2; exit 1; }
	@touch $@

# Clients of Canvas. tests/support/clients.py runs each of them in a separate process.
$(VENV)/.clients: $(BIN)/python Makefile
	@echo "Installing clients of Canvas into $(VENV)/clients …"
	@command -v npm >/dev/null || { echo "One client needs Node.js and npm. Install them: apt install nodejs npm" >&2; exit 1; }
	@rm -rf $(VENV)/clients
	@for version in 2.2 3.4 3.6; do \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check \
			--target $(VENV)/clients/canvasapi-$$version canvasapi==$$version.0 || exit 1; \
	done
	@npm install --loglevel=error --no-audit --no-fund --prefix $(VENV)/clients/node @kth/canvas-api@5.1.1 undici@6.29.1
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo.sqlite3* demo.admin-password demo.nginx
