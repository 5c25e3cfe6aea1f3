# Everything runs in .venv, which `make setup` (or any other target) fills from constraints.txt.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

DEMO_TEXTS := demo_acceptability,demo_polarity,demo_paraphrase
DEMO_PAIRS := demo_similarity,demo_entailment
DEMO_PATTERNS := full,local2_global2,local1_global1_random2,aaa

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: setup
setup: $(READY) ## Install the project and what it is tested with into .venv

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

.PHONY: demo
# Two runs at a time on one thread each: matrices this small gain little from more threads, and lose
# much where cores are shared. One half shows its progress, the other writes to outputs/demo.log.
demo: setup ## Fine-tune under four patterns on five generated tasks, then print the table
	@mkdir -p outputs; export OMP_NUM_THREADS=1; \
	$(BIN)/aaa finetune -m scale=demo task=$(DEMO_TEXTS) pattern=$(DEMO_PATTERNS) \
		$(ARGS) run.progress=false > outputs/demo.log 2>&1 & other=$$!; \
	trap "kill $$other 2> /dev/null; exit 130" INT TERM; \
	$(BIN)/aaa finetune -m scale=demo task=$(DEMO_PAIRS) pattern=$(DEMO_PATTERNS) $(ARGS) \
		|| { kill $$other 2> /dev/null; exit 1; }; \
	echo "waiting for the other half (outputs/demo.log) ..."; \
	wait $$other || { tail -n 20 outputs/demo.log; exit 1; }
	@$(BIN)/aaa table outputs/runs --model tiny --markdown outputs/demo.md

.PHONY: test
test: setup ## Run all tests
	@$(BIN)/python -m pytest -n 2 --cov=aaa --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

.PHONY: check
check: setup ## Lint, format check and type check
	@$(BIN)/ruff check aaa scripts tests
	@$(BIN)/ruff format --check aaa scripts tests
	@$(BIN)/mypy

.PHONY: clean
clean: ## Remove caches; runs under outputs/ stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist build
