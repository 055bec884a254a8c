"""Vocabulary and records of the bundled sample: the first two steps of the demo."""

import dataclasses
import glob
import hashlib
import os

from data_prep.build.job import build_tfrecords
from data_prep.build.settings import BuildConfig
from data_prep.train_vocabulary import train_vocabulary
from electra_es import files, sample
from electra_es.config import PretrainingConfig, TextConfig
from electra_es.data.records import COMPLETED_FILE
from electra_es.errors import UsageError
from electra_es.settings import first_difference
from electra_es.text.vocabulary import TEXT_CONFIG_FILE

# In the root of a run on the sample: from what its vocabulary and records were made.
MADE_OF_FILE = "sample.json"


def prepare_sample(root: str, text_settings: dict, config: PretrainingConfig) -> tuple[str, str]:
    """Makes `vocabulary/` and `records/` in `root` if they do not exist yet.

    Args:
      root: directory of the run on the sample.
      text_settings: requested fields of `TextConfig`.
      config: gives the length of the examples and the seed.

    Returns:
      the vocabulary and the records directory.

    Raises:
      UsageError: `root` holds results of other settings.
    """
    vocab_dir, records_dir = os.path.join(root, "vocabulary"), os.path.join(root, "records")
    text = TextConfig(**text_settings)
    _check_made_of(root, (vocab_dir, records_dir), text, config)
    print(f"1/5 vocabulary: {vocab_dir}", flush=True)
    if os.path.exists(os.path.join(vocab_dir, TEXT_CONFIG_FILE)):
        print("    is there already", flush=True)
    else:
        train_vocabulary(sample.TRAIN_GLOB, vocab_dir, text, held_out=sample.VALIDATION_GLOB, workers=1)

    print(f"2/5 records: {records_dir}", flush=True)
    if os.path.exists(os.path.join(records_dir, COMPLETED_FILE)):
        print("    are there already", flush=True)
    else:
        build_tfrecords(BuildConfig(
            input=sample.TRAIN_GLOB, validation_input=sample.VALIDATION_GLOB, vocab_dir=vocab_dir,
            output=records_dir, max_seq_length=config.max_seq_length, seed=config.seed, workers=1))
    return vocab_dir, records_dir


def _check_made_of(root: str, products: tuple[str, ...], text: TextConfig, config: PretrainingConfig
                   ) -> None:
    """Records the requested settings, or refuses products that were made with other settings or text."""
    digest = hashlib.sha256()
    for path in sorted(glob.glob(sample.TRAIN_GLOB) + glob.glob(sample.VALIDATION_GLOB)):
        digest.update(files.read_bytes(path))
    requested = {**dataclasses.asdict(text), "max_seq_length": config.max_seq_length,
                 "seed": config.seed, "text_sha256": digest.hexdigest()}
    path = os.path.join(root, MADE_OF_FILE)
    if not any(map(os.path.exists, (*products, path))):
        files.make_directory(root)
        files.write_json(path, requested)
        return
    try:
        recorded = files.read_json(path)
    except UsageError:
        raise UsageError(f"{path}: does not say what the vocabulary and the records in {root} are made "
                         "of: expected another --sample_dir") from None
    if different := first_difference(recorded, requested):
        name, before, now = different
        raise UsageError(f"{root}: was made with {name}={before!r}, this run has {name}={now!r}: "
                         "expected the same, or another --sample_dir")
