#!/usr/bin/env bash
# `make gpu`, from nothing to ten steps. Without a GPU: CUDA's libraries do not disturb, the CPU is
# used, and the run says so. With one, distribution=auto takes it; the ten steps here are the CPU's.
#   tests/install/gpu.sh [/usr/bin/python3.11]
source "$(dirname "$0")/common.sh"

python=$(pythons "$@" | head -1)
venv=$work/venv
make --silent gpu PYTHON="$python" VENV="$venv"
say_size "$venv"
"$venv/bin/python" -m electra_es.devices
export CUDA_VISIBLE_DEVICES=-1
ten_steps "$venv/bin/python" run_pretraining.py
echo "ok: $python, $SECONDS s"
