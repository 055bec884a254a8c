"""Writes a SavedModel that takes Spanish strings; its graph contains the tokeniser.

    python -m electra_es.export.saved_model --model_dir=runs/sample/model --output=runs/saved_model
    python -m electra_es.export.saved_model --model_dir=runs/pos/trial-1/model --output=runs/tagger

    import tensorflow as tf, tensorflow_text
    model = tf.saved_model.load("runs/saved_model")
    model.signatures["detect"](texts=tf.constant(["Estamos desayunando pan rosa."]))["logits"]

--model_dir is a model directory of run_pretraining.py, or a fine-tuned model: the directory model/ of
a trial. docs/export.md lists the signatures.
"""

from electra_es.errors import run_main
from electra_es.export.output import run_export
from electra_es.export.saved_model.write import export_saved_model
from electra_es.finetuning.export.saved_model import export_finetuned_saved_model
from electra_es.finetuning.saved import is_finetuned


def main() -> None:
    run_export(lambda model_dir: (export_finetuned_saved_model if is_finetuned(model_dir)
                                  else export_saved_model), "SavedModel", "reloaded")


if __name__ == "__main__":
    run_main(main)
