"""The whole way on the bundled sample: vocabulary, records, pretraining, export, a look at it."""

import os
import sys

from data_prep.build_config import BuildConfig
from data_prep.pipeline import build_tfrecords
from data_prep.train_vocabulary import train_vocabulary
from electra_es import sample
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig
from electra_es.detect import detect, to_terminal
from electra_es.export.saved_model import export_saved_model
from electra_es.records import COMPLETED_FILE
from electra_es.text import TEXT_CONFIG_FILE, check_agrees, load_text_config
from electra_es.training import TrainResult, train

# The model card's example: "rosa" (pink) stands where "con" or "integral" would.
SENTENCE = "Estamos desayunando pan rosa con tomate y aceite de oliva."


def run_on_sample(model_config: ModelConfig, config: PretrainingConfig,
                  text_settings: dict, root: str) -> TrainResult:
    """Does in `root` whatever is not done yet; what is finished is named and left as it is.

    Args:
      model_config, config: resolved.
      text_settings: fields of `TextConfig` asked for.
      root: gets `vocabulary/`, `records/`, `model/` and `saved_model/`.

    Raises:
      UsageError: `root` holds something else than this asks for.
    """
    vocab_dir, records_dir = os.path.join(root, "vocabulary"), os.path.join(root, "records")
    model_dir, saved_model_dir = os.path.join(root, "model"), os.path.join(root, "saved_model")

    print(f"1/5 vocabulary: {vocab_dir}", flush=True)
    if os.path.exists(os.path.join(vocab_dir, TEXT_CONFIG_FILE)):
        check_agrees(load_text_config(vocab_dir), text_settings, vocab_dir)
        print("    is there already", flush=True)
    else:
        train_vocabulary(sample.TRAIN_GLOB, vocab_dir, TextConfig(**text_settings),
                         held_out=sample.VALIDATION_GLOB, workers=1)

    print(f"2/5 records: {records_dir}", flush=True)
    if os.path.exists(os.path.join(records_dir, COMPLETED_FILE)):
        print("    are there already", flush=True)
    else:
        build_tfrecords(BuildConfig(
            input=sample.TRAIN_GLOB, validation_input=sample.VALIDATION_GLOB, vocab_dir=vocab_dir,
            output=records_dir, max_seq_length=config.max_seq_length, seed=config.seed, workers=1))

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
