"""The last three steps of the run on the bundled sample: pretraining, export, a look at the result."""

import os
import sys

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.detect.scoring import detect, to_terminal
from electra_es.export.saved_model import export_saved_model
from electra_es.training.train import TrainResult, train

# The model card's example: "rosa" (pink) stands where "con" or "integral" would.
SENTENCE = "Estamos desayunando pan rosa con tomate y aceite de oliva."


def run_on_sample(model_config: ModelConfig, config: PretrainingConfig, vocab_dir: str,
                  records_dir: str, root: str) -> TrainResult:
    """Does in `root` whatever is not done yet; what is finished is named and left as it is.

    Args:
      model_config, config: resolved.
      vocab_dir, records_dir: what `data_prep.sample_records` made.
      root: gets `model/` and `saved_model/`.

    Raises:
      UsageError: `root` holds something else than this asks for.
    """
    model_dir, saved_model_dir = os.path.join(root, "model"), os.path.join(root, "saved_model")

    print(f"3/5 pretraining: {model_dir}", flush=True)
    result = train(model_config, config, data_dir=records_dir, vocab_dir=vocab_dir,
                   model_dir=model_dir)
    if result.stopped_by_signal:
        return result

    print(f"4/5 SavedModel: {saved_model_dir}", flush=True)
    if os.path.exists(saved_model_dir):
        print("    is there already", flush=True)
    else:
        export_saved_model(model_dir, saved_model_dir)

    print("5/5 which tokens look replaced?", flush=True)
    found = detect(saved_model_dir, [SENTENCE])
    print(to_terminal(found, width=100, colour=sys.stdout.isatty()), flush=True)
    return result
