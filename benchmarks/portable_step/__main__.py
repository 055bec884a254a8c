"""The training step, taken to a machine without TensorFlow, and trained weights brought back.

    python -m benchmarks.portable_step export --data_dir=records --vocab_dir=vocabulary \
        --model_size=small --train_batch_size=128 --precision=bfloat16 --output=step
    python -m benchmarks.portable_step run step --steps=20 --turns=5 --with_pytorch
    python -m benchmarks.portable_step run step --seconds=600 --output=trained
    python -m benchmarks.portable_step load trained --vocab_dir=vocabulary --data_dir=records \
        --model_dir=model

`export` and `load` need this project's packages. `run` needs this repository, JAX and NumPy (with
--with_pytorch also PyTorch and transformers); it runs on a GPU if JAX sees one. What `load` writes is a
model directory, like that of any run.
"""

import sys

from electra_es.errors import UsageError, run_main

COMMANDS = ("export", "run", "load")


def main() -> int:
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help"):
        print(__doc__)
        return 0
    if command not in COMMANDS:
        raise UsageError(f"{command}: expected one of {', '.join(COMMANDS)}")
    del sys.argv[1]
    # Only `run` can be imported without TensorFlow.
    if command == "export":
        from benchmarks.portable_step import export

        export.main()
    elif command == "load":
        from benchmarks.portable_step import load

        load.main()
    else:
        from benchmarks.portable_step import run

        run.main()
    return 0


if __name__ == "__main__":
    run_main(main)
