# Everything a person types. `make run` needs Python 3.11+ and nothing else; the rest comes with it (tools/bootstrap.py).
.DEFAULT_GOAL := help
.PHONY: help run setup test test-unit test-contract test-behaviour test-attacks lint format bench lock lock-check clean

export PYTHON APT
BOOTSTRAP = $(or $(PYTHON),$(firstword $(wildcard /usr/bin/python3)),python3) -B tools/bootstrap.py
PYTEST    = .venv/bin/python -m pytest
SUITES    = tests/unit tests/contract tests/behaviour tests/attacks

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

run: .python ## start the server: address, key and client configs are printed; Ctrl-C ends it
	@$(BOOTSTRAP) server
	@exec .venv/bin/power-interpreter serve --show-key

setup: .python ## install everything that development needs, without starting anything
	@$(BOOTSTRAP) dev

test: setup ## every check and suite, as CI runs them
	@$(MAKE) --no-print-directory lint
	$(PYTEST) $(SUITES)

test-unit: setup ## the suite without a server
	$(PYTEST) tests/unit

test-contract: setup ## guards: rows have tests, docs name what exists, layers hold
	$(PYTEST) tests/contract

test-behaviour: setup ## promises, driven through MCP and REST on a real server
	$(PYTEST) tests/behaviour

test-attacks: setup ## attacks on the sandbox, each with its positive control
	$(PYTEST) tests/attacks

lint: setup ## ruff, mypy --strict, import layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --python-executable .venv-sandbox/bin/python sandbox/src/interpreter_sandbox/runtime
	.venv/bin/lint-imports --no-logo

format: setup ## let ruff rewrite what it can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .python ## our numbers beside a peer's or a floor's, measured in one run
	@$(BOOTSTRAP) bench
	PYTHONPATH=tests .venv/bin/python -m bench

lock: setup ## pin what the pyproject files ask for; UPGRADE=--upgrade takes the newest
	.venv/bin/python tools/lock.py $(UPGRADE)

lock-check: setup ## fail where requirements/ is not what the pyproject files ask for
	.venv/bin/python tools/lock.py --check

clean: ## remove the environments and caches; data stays
	rm -rf .venv .venv-sandbox .venv-bench .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .grimp_cache

.PHONY: .python
.python:
	@command -v $(firstword $(BOOTSTRAP)) >/dev/null || { \
		echo "Power Interpreter needs Python 3.11 to 3.14. Type: sudo apt-get install -y python3" >&2; exit 1; }
