#!/usr/bin/env bash
# A wheel, installed in a new environment, and ten steps by its command in an empty folder.
#   tests/install/wheel.sh [/usr/bin/python3.12]
source "$(dirname "$0")/common.sh"

for python in $(pythons "${1:-$(command -v python3.11 || command -v python3)}"); do
    SECONDS=0
    venv=$work/venv
    "$python" -m venv "$venv"
    # Of a copy: a build takes up what earlier ones left in its source.
    git archive --prefix=source/ HEAD | tar -x -C "$work"
    "$venv/bin/pip" wheel --quiet --no-deps --wheel-dir "$work/dist" "$work/source"
    "$venv/bin/pip" install --quiet "$work"/dist/electra_es-*.whl
    rm -rf "$work/source"
    "$venv/bin/pip" check
    say_size "$venv"
    mkdir "$work/empty"
    (cd "$work/empty" && ten_steps "$venv/bin/electra-es" pretrain)
    echo "ok: $python, $SECONDS s"
done
