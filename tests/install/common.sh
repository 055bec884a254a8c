# What the scripts of this folder share. They build an environment from nothing in a temporary folder,
# use it, say what it weighs, and delete it. For each they need the network and some gigabytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The interpreters given as arguments, else those of Python 3.11 to 3.13 on the PATH.
pythons() {
    if [ $# -gt 0 ]; then printf '%s\n' "$@"; return; fi
    for version in 3.11 3.12 3.13; do command -v "python$version" || true; done | grep . ||
        { echo "error: no python3.11, python3.12 or python3.13 on the PATH: name one" >&2; return 2; }
}

# say_size FOLDER: what an environment weighs.
say_size() {
    echo "$("$1/bin/python" --version): $("$1/bin/pip" list --format=freeze 2>/dev/null | wc -l) packages," \
        "$(du -sm "$1" | cut -f1) MB, after $SECONDS s"
}

# ten_steps COMMAND…: the demo with ten steps on the CPU of an environment, in silence on stderr.
ten_steps() {
    "$@" --sample_dir="$work/sample" --num_train_steps=10 --log_every=5 \
        >"$work/out" 2>"$work/err" || { cat "$work/out" "$work/err"; return 1; }
    grep -E '^(devices:|step 10/10|evaluation at)' "$work/out"
    grep -q '^devices: CPU' "$work/out" || { echo "the run does not say that it uses the CPU"; return 1; }
    if [ -s "$work/err" ]; then echo "on stderr:"; cat "$work/err"; return 1; fi
    rm -rf "$work/sample"
}
