# make demo   sets up and runs the main job on the bundled sample
# make test   sets up and runs the tests
# make walk   sets up and walks the whole road, text to use, for each kind of model
# make lint   sets up and checks style and types
# make tpu    sets up .venv-tpu, for a TPU VM
# make gpu    sets up .venv for NVIDIA GPUs

PYTHON ?= python3
VENV ?= .venv
TPU_VENV ?= .venv-tpu
BIN = $(VENV)/bin
PIP_INSTALL = pip install --quiet --disable-pip-version-check
CHECK_PYTHON = $(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or \
	sys.exit(f"error: Python 3.11 to 3.13 is needed, $(PYTHON) is {v.major}.{v.minor}; name another: make PYTHON=python3.11")'

.PHONY: demo test walk lint tpu gpu clean

$(VENV)/base.stamp: requirements.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: $(VENV)/base.stamp $(filter-out requirements-gcp.txt requirements-gpu.txt requirements-tpu.txt,$(wildcard requirements-*.txt))
	$(BIN)/$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

$(VENV)/gpu.stamp: $(VENV)/base.stamp requirements-gpu.txt
	$(BIN)/$(PIP_INSTALL) -r requirements-gpu.txt
	@touch $@

# An environment of its own: in another one, the next `pip install` of a package that asks for
# `tensorflow` would put that over TensorFlow for TPU.
$(TPU_VENV)/tpu.stamp: requirements.txt requirements-gcs.txt requirements-tpu.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(TPU_VENV)
	$(TPU_VENV)/bin/$(PIP_INSTALL) -r requirements.txt -r requirements-gcs.txt
	$(TPU_VENV)/bin/pip uninstall --quiet --yes tensorflow
	$(TPU_VENV)/bin/$(PIP_INSTALL) --no-deps -r requirements-tpu.txt
	@touch $@

.PHONY: .venv
.venv: $(VENV)/base.stamp

demo: $(VENV)/base.stamp
	$(BIN)/python run_pretraining.py

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile

walk: $(VENV)/dev.stamp
	$(BIN)/python -m pytest tests/walk --walk --capture=no

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

tpu: $(TPU_VENV)/tpu.stamp

gpu: $(VENV)/gpu.stamp

clean:
	rm -rf $(VENV) $(TPU_VENV) runs
