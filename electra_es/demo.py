"""The last three steps of the run on the bundled sample: pretraining, export, an example."""

import os
import sys

import tensorflow as tf

from electra_es import files
from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.detect.scoring import detect, to_terminal
from electra_es.export.output import origin_of, read_origin
from electra_es.export.saved_model.write import export_saved_model
from electra_es.training.train import TrainResult, train

# The model card's example: "rosa" (pink) stands where "con" or "integral" would.
SENTENCE = "Estamos desayunando pan rosa con tomate y aceite de oliva."
MASKED = "Estamos desayunando pan [MASK] tomate y aceite de oliva."


def run_on_sample(model_config: ModelConfig, config: PretrainingConfig, vocab_dir: str,
                  records_dir: str, root: str) -> TrainResult:
    """Runs the steps that are not done yet in `root`; finished steps are named and not repeated.

    Args:
      model_config, config: resolved.
      vocab_dir, records_dir: what `data_prep.sample_records` made.
      root: gets `model/` and `saved_model/`.

    Raises:
      UsageError: `root` holds results of other settings.
    """
    model_dir, saved_model_dir = os.path.join(root, "model"), os.path.join(root, "saved_model")

    print(f"3/5 pretraining: {model_dir}", flush=True)
    result = train(model_config, config, data_dir=records_dir, vocab_dir=vocab_dir,
                   model_dir=model_dir)
    if result.stopped_by_signal:
        return result

    print(f"4/5 SavedModel: {saved_model_dir}", flush=True)
    if read_origin(saved_model_dir) == origin_of(model_dir, result.step):
        print(f"    of step {result.step:,} is there already", flush=True)
    else:
        export_saved_model(model_dir, saved_model_dir, overwrite=True)

    if model_config.objective == "mlm":
        print(f"5/5 which words fit, after {result.step:,} steps?", flush=True)
        _show_candidates(saved_model_dir)
        return result
    print(f"5/5 which tokens look replaced, after {result.step:,} steps?", flush=True)
    found = detect(saved_model_dir, [SENTENCE])
    print(to_terminal(found, width=100, colour=sys.stdout.isatty()), flush=True)
    return result


def _show_candidates(saved_model_dir: str) -> None:
    """BERT's objective has no discriminator, so its tower fills in a masked word."""
    print(MASKED)
    with files.no_pattern(saved_model_dir) as opened:
        signatures = tf.saved_model.load(opened).signatures
    filled = signatures["fill_mask"](texts=tf.constant([MASKED]))
    for token, probability in zip(filled["tokens"].numpy()[0, 0], filled["probabilities"].numpy()[0, 0],
                                  strict=True):
        print(f"{probability:8.2%}  {token.decode('utf-8')}", flush=True)
