# `make` lists the targets. Each one prepares .venv by itself, once.
# On Linux without a GPU: make notebooks TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON      ?= python3
TORCH_INDEX ?=

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready

# The embedded models need no network; a hub id such as CompVis/stable-diffusion-v1-4 does.
export HF_HUB_OFFLINE ?= $(if $(findstring /,$(DIFFSEG_MODEL)),0,1)

# Notebooks and files of tests in parallel, each on its own core; more than four would want much memory.
PYTEST := env -u DIFFSEG_MODEL $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile
define LINT
$(PY) -m ruff check .
$(PY) -m ruff format --check .
endef

.DEFAULT_GOAL := help
.PHONY: help setup notebooks foreign pages book lab quick test test-browser test-full bench pocket results refresh exercises format constraints clean

help:          ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@echo 'Setting up $(VENV), once; PyTorch alone is a large download.'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[lab,test]'
	@touch $@

setup: $(READY) ## prepare .venv with the tested packages

notebooks: $(READY) ## run every notebook, write pages to build/html
	$(PY) tools/run_notebooks.py --html build/html

foreign: $(READY) ## run every notebook on a small model that is not the embedded one
	$(PY) tools/foreign_model.py build/foreign
	DIFFSEG_MODEL=$(CURDIR)/build/foreign HF_HUB_CACHE=$(CURDIR)/build/foreign/hub HF_HUB_OFFLINE=1 \
		$(PY) tools/run_notebooks.py --html build/html-foreign

pages: $(READY) ## write pages of the outputs that the notebooks hold to build/html
	$(PY) tools/run_notebooks.py --render --html build/html

book: $(READY) ## write the book, a site of all of this, to build/book
	$(PY) tools/make_book.py

lab: $(READY)  ## open JupyterLab on the notebooks
	$(PY) -m jupyter lab notebooks

quick: $(READY) ## after a change: lint and the fast tests, within a minute
	$(LINT)
	$(PYTEST) tests -m 'not slow'

test: $(READY) ## lint, tests, and every notebook against its committed outputs
	$(LINT)
	$(PYTEST) --durations=15

test-browser: $(READY) ## the live notebooks in JupyterLab and a headless Chromium; screenshots in build/screenshots
	$(PY) -m pytest tests/browser

test-full: $(READY) ## published architectures at full size, random weights: 8 GB, minutes
	$(PY) -m pytest tests/full

bench: $(READY) ## time and memory of each stage
	$(PY) -m benchmarks.bench

pocket: $(READY) ## train the embedded models again
	$(PY) -m diffseg.pocket.training all

results: $(READY) ## the tables in data/results, anew where models have changed: hours, goes on where it stopped
	$(PY) -m diffseg.results

refresh: $(READY) ## run every notebook, store its outputs in the file, make the exercises anew
	$(PY) tools/run_notebooks.py --inplace
	$(PY) tools/make_exercises.py

exercises: $(READY) ## make notebooks/exercises, with the answers taken out, from the notebooks
	$(PY) tools/make_exercises.py

format: $(READY) ## format and lint, mending what can be mended
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

constraints: $(READY) ## pin what is installed in .venv as the tested set
	( sed -n '/^#/p' constraints.txt; \
	  $(PY) -m pip freeze --exclude-editable | sed 's/+[^ ]*//' ) > constraints.new
	mv constraints.new constraints.txt
	@touch $(READY)

clean:         ## remove .venv and what was built, but not the training runs in build/pocket
	rm -rf $(VENV) build/html build/book dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
