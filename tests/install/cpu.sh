#!/usr/bin/env bash
# requirements.txt on each Python, from nothing to ten steps.
#   tests/install/cpu.sh                          python3.11, python3.12, python3.13 of the PATH
#   tests/install/cpu.sh /usr/bin/python3.12 …
source "$(dirname "$0")/common.sh"

for python in $(pythons "$@"); do
    SECONDS=0
    venv=$work/venv
    make --silent .venv PYTHON="$python" VENV="$venv"
    "$venv/bin/pip" check
    say_size "$venv"
    "$venv/bin/python" -m electra_es.devices
    ten_steps "$venv/bin/python" run_pretraining.py
    rm -rf "$venv"
    echo "ok: $python, $SECONDS s"
done
