"""Writes a SavedModel that takes Spanish strings; its graph contains the tokeniser.

    python -m electra_es.export.saved_model --model_dir=runs/sample/model --output=runs/saved_model

    import tensorflow as tf, tensorflow_text
    model = tf.saved_model.load("runs/saved_model")
    model.signatures["detect"](texts=tf.constant(["Estamos desayunando pan rosa."]))["logits"]
"""

from electra_es.errors import run_main
from electra_es.export.output import run_export
from electra_es.export.saved_model.write import export_saved_model


def main() -> None:
    run_export(lambda model_dir: export_saved_model, "SavedModel", "reloaded")


if __name__ == "__main__":
    run_main(main)
