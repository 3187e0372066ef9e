# `make demo` is the whole thing in one command. Each target begins with the set-up, which does nothing once it is done.

PORT ?= 8000
TESTS ?= tests
SEED ?= 1
VENV_PYTHON := .venv/bin/python
PYTHON6 ?= python3.12
VENV6 := .data/django6

.PHONY: demo setup setup-dev test test-django6 check format bench chaos lock

demo: setup
	@exec $(VENV_PYTHON) manage.py demo --port $(PORT)

setup:
	@./bootstrap.sh

setup-dev:
	@./bootstrap.sh dev

test: setup-dev
	@exec $(VENV_PYTHON) -m pytest -n 2 $(TESTS)

# The same tests on Django 6, which needs Python 3.12 or newer: make test-django6 PYTHON6=python3.13 TESTS=tests/api
test-django6: $(VENV6)/.installed
	@exec $(VENV6)/bin/python -m pytest -n 2 $(TESTS)

$(VENV6)/.installed: .ci/requirements-django6.txt
	@rm -rf $(VENV6)
	@if command -v uv >/dev/null; then \
	    uv venv --quiet --python $(PYTHON6) $(VENV6) && \
	    uv pip install --quiet --python $(VENV6)/bin/python --require-hashes -r $<; \
	else \
	    $(PYTHON6) -m venv $(VENV6) && $(VENV6)/bin/python -m pip install --quiet --require-hashes -r $<; \
	fi
	@touch $@

check: setup-dev
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy
	.venv/bin/lint-imports
	$(VENV_PYTHON) manage.py makemigrations --check --dry-run

format: setup-dev
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

bench: setup-dev
	@exec $(VENV_PYTHON) -m tests.bench

# A quarter of an hour; QUICK=1: small, in minutes; SEED=7: other jobs, other moments.
chaos: setup-dev
	@exec $(VENV_PYTHON) -m tests.chaos --seed $(SEED) $(if $(QUICK),--quick)

# The lists of people become the lists of machines: every version pinned, every file hashed. Needs uv.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	    -o requirements.txt requirements.in
	uv pip compile --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	    -o requirements-dev.txt requirements-dev.in
	grep -v "^-c" requirements-dev.in | uv pip compile --universal --python-version 3.12 --generate-hashes \
	    --override .ci/django6.in --custom-compile-command "make lock" -o .ci/requirements-django6.txt -
