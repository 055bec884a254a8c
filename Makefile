# make demo   sets up and runs the main job on the bundled sample
# make test   sets up and runs the tests
# make lint   sets up and checks style and types

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint clean

$(VENV)/base.stamp: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or \
	sys.exit(f"error: Python 3.11 to 3.13 is needed, $(PYTHON) is {v.major}.{v.minor}; name another: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp $(filter-out requirements-gcp.txt requirements-tpu.txt,$(wildcard requirements-*.txt))
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: .venv
.venv: $(VENV)/base.stamp

demo: $(VENV)/base.stamp
	$(BIN)/python run_pretraining.py

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) runs
