# `make` lists what there is. Each target sets up what it needs in .venv, once, with
# uv where there is one and with venv and pip otherwise (tools/venv.sh).
#
#   PYTHON=...  the Python that makes .venv, 3.11 or newer; python3 if not given
#   ARGS=...    passed on to the program that the target runs
#   USE=...     a Python with everything installed: used as it is, no .venv is made

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
USE ?=
CUDA ?= cuda12

PY = $(or $(USE),$(VENV)/bin/python)
# $(call setup,EXTRA,RELEASES)
setup = $(if $(USE),:,sh tools/venv.sh "$(VENV)" "$(PYTHON)" "$(1)" $(or $(2),$(RELEASE)))
# Which releases of the dependencies: any that fits, oldest or newest.
RELEASE ?= any

WORKERS ?= auto
# Neighbours, which share compiled programs, stay with one worker (worksteal).
# Tests run on the CPU, also where there is a GPU that the workers would fight over.
PYTEST = JAX_PLATFORMS="$${JAX_PLATFORMS:-cpu}" $(PY) -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-examples coverage test-slow test-fuzz test-strict test-table test-gpu test-oldest test-newest test-matrix \
	lint audit format docs bench bench-compiled check-compiled clean

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## "; print "Usage: make TARGET [ARGS=...] [PYTHON=python3.12]\n" } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

demo: ## train, prune and compare on handwritten digits (ARGS=--help: its options)
	@$(call setup,examples)
	$(PY) examples/digits.py $(ARGS)

test: ## run the tests of the library (ARGS="-k NAME": some of all tests)
	@$(call setup,test)
	$(PYTEST) $(if $(strip $(ARGS)),$(ARGS),--ignore=tests/examples)

test-examples: ## run the tests of the examples and of the pages' Python
	@$(call setup,test)
	$(PYTEST) tests/examples $(ARGS)

coverage: ## run all of these tests and check how much of the package they run
	@$(call setup,test)
	$(PYTEST) --cov=swd_jax --cov-report=term $(ARGS)

test-slow: ## run the tests that take long
	@$(call setup,test)
	$(PYTEST) -m "slow and not gpu" $(ARGS)

test-fuzz: ## check random models, trees, chains and layouts (SWD_FUZZ_SEED, SWD_FUZZ_COUNT)
	@$(call setup,test)
	JAX_PLATFORMS=cpu $(PY) -m pytest -n 0 -m fuzz tests/fuzz $(ARGS)

test-strict: ## run every function where jax is told to be strict: leaks, NaN, transfers, ...
	@$(call setup,test)
	$(PYTEST) -m strict tests/table $(ARGS)

test-table: ## trace every transformation in all wraps, dtypes and containers, any two together
	@$(call setup,test)
	JAX_PLATFORMS=cpu $(PY) tests/table/whole_table.py $(ARGS)

test-gpu: ## run the tests that need a GPU (CUDA=cuda13: with that jax; USE=PYTHON: yours)
	@$(MAKE) --no-print-directory gpu-tests VENV="$(if $(filter .venv,$(VENV)),.venv-gpu,$(VENV))"

.PHONY: gpu-tests
gpu-tests:
	@$(call setup,test jax[$(CUDA)])
	$(PY) -m pytest -n 0 -m gpu $(ARGS)

test-oldest: ## run the tests on the oldest dependencies allowed
	@$(MAKE) --no-print-directory test test-examples RELEASE=oldest VENV=.venv-oldest

test-newest: ## run the tests on the newest dependencies there are
	@$(MAKE) --no-print-directory test test-examples RELEASE=newest VENV=.venv-newest

test-matrix: test-oldest test-newest ## both of these

lint: ## check style, formatting, types and which wing imports which
	@$(call setup,lint)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright --pythonpath "$(PY)"
	$(PY) -c "from importlinter.cli import lint_imports_command as lint; lint()"

# In an environment of its own: this needs the network, and neither lint nor tests do.
AUDITED = $(or $(USE),.venv-audit/bin/python)
audit: ## look for known vulnerabilities in the dependencies (needs the network)
	@$(if $(USE),:,sh tools/venv.sh .venv-audit "$(PYTHON)" audit newest)
	$(AUDITED) -m pip_audit --skip-editable $(ARGS)

format: ## format the code and mend what can be mended
	@$(call setup,lint)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: ## build the pages in docs/_build/html
	@$(call setup,docs)
	$(PY) -m sphinx -W --keep-going -b html docs docs/_build/html $(ARGS)

bench: ## measure the selection, the optimizer step, structures, criteria and channels
	@$(call setup,examples)
	$(PY) benchmarks/selection.py $(ARGS)
	$(PY) benchmarks/optimizer_step.py $(ARGS)
	$(PY) benchmarks/structures.py $(ARGS)
	$(PY) benchmarks/channels.py $(ARGS)

# Neither needs a device; each plugin has an environment of its own. cuda12-local: the
# compiler without NVIDIA's libraries, 200 MB instead of 3 GB.
ACCELERATORS ?= v5e h100
bench-compiled: ## compile steps for TPUs and GPUs without one (ACCELERATORS="v6e-2x2 h100")
	@for name in $(ACCELERATORS); do \
		case $$name in \
			h100*) plugin=cuda with='jax[cuda12-local]' ;; \
			*) plugin=tpu with='jax[tpu]' ;; \
		esac; \
		sh tools/venv.sh .venv-$$plugin "$(PYTHON)" "examples $$with" $(RELEASE) && \
			JAX_PLATFORMS=cpu .venv-$$plugin/bin/python benchmarks/compiled.py $$name $(ARGS) || \
			exit 1; \
	done

check-compiled: ## check the limits of steps compiled for TPUs and GPUs (the same ACCELERATORS)
	@$(MAKE) --no-print-directory bench-compiled ARGS="--check $(ARGS)"

clean: ## remove the environments and everything built
	rm -rf .venv .venv-oldest .venv-newest .venv-gpu .venv-tpu .venv-cuda .venv-audit docs/_build build dist \
		.coverage .coverage.* htmlcov .pytest_cache .ruff_cache .hypothesis
	find swd_jax tests examples benchmarks docs tools -name __pycache__ \
		-type d -prune -exec rm -rf {} + 2>/dev/null || true
