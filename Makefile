# `make demo` and `make test` need nothing but Python 3.10 or newer, its venv module and the package index.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: help app demo test check clean

help:
	@echo "make app    open a page in the browser that cuts people out of photographs"
	@echo "make demo   matte photographs with InstMatt-S, train both stages on a small set, print IMQ, write results/demo/index.html"
	@echo "make test   run the tests"
	@echo "make check  run linter, formatter, type checker and the tests"
	@echo "make clean  remove the virtual environment and the results"

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 10) else 0'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

$(VENV)/.app: requirements-app.txt requirements.txt | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	$(PY) -c "import pymatting"  # compiles itself once, which the first visitor would wait for
	@touch $@

app: $(VENV)/.app
	$(PY) -m misc.app

demo: $(VENV)/.runtime
	$(PY) -m misc.demo

# As many processes as processors; the tests of a file stay together, and what they share is made once.
test: $(VENV)/.dev
	$(PY) -m pytest -n auto --dist loadfile

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) -m pytest -n auto --dist loadfile

clean:
	rm -rf $(VENV) results
