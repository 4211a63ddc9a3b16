# The README's commands. Each target sets up what it needs in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WORK   ?= demo
RUNTIMES ?= .venv-runtimes
WEB    := 1.30.0
COMMA  := ,

.DEFAULT_GOAL := help
	rm -rf $(VENV) $(RUNTIMES) $(WORK) tutorial build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
