"""Vocabulary and records of the bundled sample: the first two steps of the demo."""

import os

from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from data_prep.train_vocabulary import train_vocabulary
from electra_es import sample
from electra_es.config import PretrainingConfig, TextConfig
from electra_es.data.records import COMPLETED_FILE
from electra_es.text.tokenizer import TEXT_CONFIG_FILE, check_agrees, load_text_config


def prepare_sample(root: str, text_settings: dict, config: PretrainingConfig) -> tuple[str, str]:
    """Makes `vocabulary/` and `records/` in `root` where they are not there already.

    Args:
      root: directory of the run on the sample.
      text_settings: fields of `TextConfig` asked for.
      config: gives the length of the examples and the seed.

    Returns:
      the vocabulary and the records directory.

    Raises:
      UsageError: `root` holds something else than this asks for.
    """
    vocab_dir, records_dir = os.path.join(root, "vocabulary"), os.path.join(root, "records")
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
    return vocab_dir, records_dir
