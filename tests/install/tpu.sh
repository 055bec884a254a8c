#!/usr/bin/env bash
# `make tpu`, from nothing to ten steps. TPU_SYSTEM is there on a machine without a TPU too: it shows
# that TensorFlow's files are those of tensorflow-tpu, and that libtpu was loaded.
#   tests/install/tpu.sh [/usr/bin/python3.11]
source "$(dirname "$0")/common.sh"

python=$(pythons "$@" | head -1)
venv=$work/venv
make --silent tpu PYTHON="$python" TPU_VENV="$venv"
say_size "$venv"
"$venv/bin/python" -m electra_es.devices | tee "$work/devices"
grep -q '^devices .*TPU_SYSTEM' "$work/devices" || { echo "no TPU_SYSTEM"; exit 1; }
ten_steps "$venv/bin/python" run_pretraining.py
echo "ok: $python, $SECONDS s"
