# Everything runs in .venv, which `make setup` (or any other target) fills from constraints.txt.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Of a reproduction: demo (minutes on 2 cores), small (real data, small encoder) or paper.
SCALE ?= demo
# Runs at a time, each with its share of the cores; one that takes several devices is alone.
JOBS ?= $(shell cores=$$(nproc 2> /dev/null || sysctl -n hw.ncpu); echo $$((cores < 8 ? cores : 8)))
LAUNCHER ?= $(if $(filter paper,$(SCALE)),,hydra/launcher=joblib_parallel hydra.launcher.n_jobs=$(JOBS))
# Whether the encoders that Tables 1, 3 and 5 start from are pre-trained first, where missing.
PRETRAIN ?= $(if $(filter demo,$(SCALE)),pretrain=true)
PAPER_TABLES := 1 2 3 4 5 6 7
STUDIES := masks layers degrees

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@sed -nE 's/^(## )?([a-zN-]+):.*## /\2\t/p' $(MAKEFILE_LIST) | expand -t 26
	@echo; echo "SCALE=demo|small|paper   ARGS='data.path=... seeds=0,1'   JOBS=2 runs at a time"

.PHONY: setup
setup: $(READY) ## Install the project and what it is tested with into .venv

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

# Runs what is missing of a table, then shows it, also if cells failed; not if it was stopped.
# (READ_PLACE is in bash, which knows of quotes: $$place is run.output_dir of ARGS, if it is there.)
READ_PLACE = args=($(ARGS)); for arg in "$${args[@]}"; do \
	case "$$arg" in run.output_dir=*) place="$${arg\#*=}";; esac; done
define reproduce
@$(BIN)/aaa finetune -m +table=$(1) scale=$(SCALE) $(PRETRAIN) $(LAUNCHER) $(ARGS); code=$$?; $(READ_PLACE); \
	if [ $$code -lt 128 ]; then \
		$(BIN)/aaa table $(1) --scale $(SCALE) $${place:+--output-dir "$$place"} || code=1; \
	fi; exit $$code
endef

## reproduce-table-N: ## Run what is missing of Table N (1 to 7) and show it
.PHONY: $(PAPER_TABLES:%=reproduce-table-%)
$(PAPER_TABLES:%=reproduce-table-%): reproduce-table-%: setup
	$(call reproduce,$*)

## reproduce-figure-N: ## Figure 1 (the patterns) or 2 (local against global)
.PHONY: reproduce-figure-1 reproduce-figure-2
reproduce-figure-1: setup
	@$(READ_PLACE); $(BIN)/aaa plot pattern=all $${place:+output="$$place/plots/patterns"}

reproduce-figure-2: setup
	$(call reproduce,figure_2)

.PHONY: reproduce-breaking-bert $(STUDIES:%=reproduce-breaking-bert-%)
reproduce-breaking-bert: $(STUDIES:%=reproduce-breaking-bert-%) ## Breaking BERT's studies: masks, layers, degrees

$(STUDIES:%=reproduce-breaking-bert-%): reproduce-breaking-bert-%: setup
	$(call reproduce,breaking_bert_$*)

.PHONY: compare-learned
compare-learned: setup ## A table of ours: every learned pattern at one sparsity
	$(call reproduce,learned)

.PHONY: reproduce-all
reproduce-all: ## Every table, both figures and Breaking BERT, one after the other
	@trap 'exit 130' INT TERM; \
	for target in $(PAPER_TABLES:%=table-%) figure-1 figure-2 breaking-bert; do \
		$(MAKE) --no-print-directory reproduce-$$target || failed="$$failed $$target"; \
	done; test -z "$$failed" || { echo "not complete:$$failed"; exit 1; }

.PHONY: tables
tables: setup ## Show every table as it stands, running nothing
	@$(READ_PLACE); for table in $(PAPER_TABLES) figure_2 $(STUDIES:%=breaking_bert_%) learned; do \
		$(BIN)/aaa table $$table --scale $(SCALE) $${place:+--output-dir "$$place"} || exit 1; \
	done

.PHONY: demo
demo: ## Table 4 at demo scale, in minutes
	@$(MAKE) --no-print-directory reproduce-table-4 SCALE=demo

.PHONY: test
test: setup ## Run all tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal --cov=aaa --cov-report=term:skip-covered --cov-fail-under=90 $(ARGS)

.PHONY: check
check: setup ## Lint, format check and type check
	@$(BIN)/ruff check aaa hydra_plugins scripts tests
	@$(BIN)/ruff format --check aaa hydra_plugins scripts tests
	@$(BIN)/mypy

.PHONY: clean
clean: ## Remove caches; runs under outputs/ stay
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage dist build
