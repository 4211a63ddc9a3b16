# The README's commands. Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WORK   ?= demo
RUNTIMES ?= .venv-runtimes
WEB    := 1.30.0
COMMA  := ,

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-fast runtimes lint types format bench peers package site tools tutorials clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# The ONNX Runtime that is there stays; where there is none, the extra `cpu` brings one.
RUNTIME = $(shell $(BIN)/python -c 'import onnxruntime' 2>/dev/null || echo '[cpu]')
INSTALL = $(BIN)/python -m pip install --quiet

venv: $(VENV)/.installed ## create the virtual environment, with tests and linters

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	touch $@

# What runs, and nothing else.
$(VENV)/.runs: pyproject.toml | $(VENV)/.python
	$(INSTALL) --editable '.$(RUNTIME)'
	touch $@

$(VENV)/.installed: $(VENV)/.runs
	$(INSTALL) --editable '.[test,lint]'
	touch $@

$(VENV)/.packaging: $(VENV)/.runs
	$(INSTALL) --editable '.[package]'
	touch $@

$(VENV)/.site: $(VENV)/.runs
	$(INSTALL) --editable '.[site]'
	touch $@

demo: $(VENV)/.runs ## quantize the two networks of testdata/ and print what int8 costs
	ONNXQ=$(BIN)/onnxq WORK=$(WORK) scripts/demo.sh

test: venv ## run all the tests, two at a time
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: venv ## run the tests that take less than a few seconds each
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

lint: venv ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv ## check types
	$(BIN)/mypy

format: venv ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

runtimes: $(RUNTIMES)/.installed ## run models in OpenVINO and onnxruntime-web; QNN=1: in QNN's simulator too
	ONNXQ_WEB=$(abspath $(RUNTIMES)) PYTHONPATH=. $(RUNTIMES)/bin/python -m pytest tests/runtimes

# onnxruntime-qnn wants the package onnxruntime, beside which onnxruntime-gpu must not be. It is for
# who accepts Qualcomm's licence, which lies in it.
$(RUNTIMES)/.installed: pyproject.toml
	$(PYTHON) -m venv $(RUNTIMES)
	$(RUNTIMES)/bin/python -m pip install --quiet --upgrade pip
	$(RUNTIMES)/bin/python -m pip install --quiet --editable '.[openvino$(if $(QNN),$(COMMA)qnn)]' pytest hypothesis
	$(RUNTIMES)/bin/python -m pip uninstall --quiet --yes onnxruntime-gpu onnxruntime
	$(RUNTIMES)/bin/python -m pip install --quiet 'onnxruntime>=1.24.2'
	npm install --silent --no-audit --no-fund --prefix $(RUNTIMES) onnxruntime-web@$(WEB)
	touch $@

bench: venv ## measure accuracy, time and memory on testdata/
	$(BIN)/python benchmarks/steps.py testdata/mobilenetv2.onnx \
	  --calibration testdata/fashion-mnist/calibration --test testdata/fashion-mnist/test \
	  --preprocess 'unit,color=gray,mean=0.5,std=0.5'

peers: venv ## compare with five other quantizers on testdata/; installs them in ~/.cache/onnxq-peers
	$(BIN)/python benchmarks/peers/run.py testdata/mobilenetv2.onnx \
	  --calibration testdata/fashion-mnist/calibration --test testdata/fashion-mnist/test \
	  --preprocess 'unit,color=gray,mean=0.5,std=0.5'

package: $(VENV)/.packaging ## build wheel and sdist in dist/, and check what they hold
	$(BIN)/python scripts/check_package.py

site: $(VENV)/.site ## build the documentation as a site in site/
	$(BIN)/mkdocs build --quiet

tools: $(VENV)/.packaging ## try the action, the pre-commit hook and the Dockerfile in fresh environments
	$(BIN)/python scripts/try_tools.py

tutorials: $(VENV)/.packaging ## type the tutorials of docs/ in a fresh environment; needs the network
	$(BIN)/python scripts/tutorials.py

clean: ## remove everything the other targets made
	rm -rf $(VENV) $(RUNTIMES) $(WORK) tutorial build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
