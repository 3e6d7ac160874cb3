# `make` lists the targets. Each is a task of tools/__main__.py, where its commands stand; each prepares .venv, once.
# On Linux without a GPU: make notebooks TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: always

%: always
	@$(PYTHON) tools $@

Makefile always: ;
