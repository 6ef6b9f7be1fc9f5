# `make demo` and `make test` work as the first command in a fresh clone: each makes .venv and installs what it needs.
# Needs Python 3.11 or newer; name another one with `make PYTHON=python3.12 ...`.

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --constraint requirements.lock --editable

.PHONY: help demo test lint install clean

help:
	@echo "make demo     dreams from a bundled model, then the whole loop live in Doom (about five minutes on two cores)"
	@echo "make test     ruff, mypy and the tests"
	@echo "make lint     ruff and mypy alone"
	@echo "make install  the package with every extra, editable, in .venv"
	@echo "make clean    remove .venv"

demo: .venv/demo.stamp
	$(BIN)/worldmodel demo

test: lint
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: install
	$(BIN)/ruff check
	$(BIN)/mypy

install: .venv/full.stamp

clean:
	rm -rf .venv

# The stamps say what .venv holds, so that a second run installs nothing until the requirements change.
.venv/demo.stamp: pyproject.toml requirements.lock | $(BIN)/pip
	$(INSTALL) '.[doom,metrics]'
	@touch $@

.venv/full.stamp: pyproject.toml requirements.lock | $(BIN)/pip
	$(INSTALL) '.[agents,audio,dev,doom,metrics,minari]'
	@touch $@ .venv/demo.stamp

$(BIN)/pip:
	$(PYTHON) -m venv .venv
