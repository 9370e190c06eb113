# Two commands do everything: `make demo` and `make test`. Both install what they need first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build of torch is enough for the demo and the tests; on a GPU node install your own first.
TORCH ?= torch==2.13.0
STAMP := $(VENV)/.installed

.PHONY: demo test check install docs clean help

help:
	@echo "make demo     install, then run the embedded demo: three loops of real fine-tuning on CPU"
	@echo "make test     install, then run all tests; those that need more than that skip with a reason"
	@echo "make install  create $(VENV) and install the package with what trains and scores"
	@echo "make check    format, lint, types, layers (part of CI)"
	@echo "make docs     write the generated pages again: settings, CLI, .env.example"
	@echo "make clean    remove $(VENV) and caches; never your runs"

demo: install
	@echo "== the demo: a router task, a tiny base model, three loops (about five minutes on two cores)"
	$(BIN)/rdagent-ft demo

test: install
	@echo "== all tests (two cores: about 50 minutes with a Docker engine and the serving environment)"
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder -q

check: install
	@echo "== format, lint, types"
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/python -m pytest -q tests/architecture

docs: install
	$(BIN)/python scripts/make_docs.py

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@echo "== installing into $(VENV) (once; about two minutes and 2 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt "$(TORCH)"
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[train,lm-eval,litellm,dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -type d -prune -exec rm -rf {} +
