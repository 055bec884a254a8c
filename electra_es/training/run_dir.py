"""The model directory: all files of a run, and of a finished model, in one place.

    model_dir/
      config.json        resolved configuration, written before step 1
      text.json, vocab.txt (or spm.model)    copies, so that the model keeps its text rules
      records.json       which records it trains on
      id_counts.npy      how often each id occurs in them, if they say so
      checkpoints/       see checkpoints.py
      summaries/, metrics.jsonl, samples.jsonl, evaluation.json
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from electra_es import files
from electra_es.config import ModelConfig, PretrainingConfig, TextConfig, to_json
from electra_es.data.records import ID_COUNTS_FILE, RecordsInfo, read_id_counts, shard_paths
from electra_es.errors import UsageError, reason
from electra_es.model.batches import VocabularyFacts
from electra_es.model.pretrainer import ElectraPretrainer, Precision, build_pretrainer
from electra_es.run_config import CONFIG_FILE, Run, load_run
from electra_es.settings import first_difference
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import save_text_config, vocab_path
from electra_es.training.checkpoint_files import completed_steps
from electra_es.training.checkpoints import restore_weights

RECORDS_FILE = "records.json"


def vocabulary_facts(tokenizer: Tokenizer) -> VocabularyFacts:
    return VocabularyFacts(
        size=len(tokenizer.vocab), pad_id=tokenizer.pad_id, cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id, mask_id=tokenizer.mask_id, word_starts=tokenizer.word_starts)


def load_model(model_dir: str, precision: Precision = "float32"
               ) -> tuple[ElectraPretrainer, Tokenizer, Run, int]:
    """Builds the model of `model_dir` with the weights of its newest readable checkpoint.

    Args:
      precision: the type that it computes in, whatever the run's precision.

    Returns:
      the model, its tokeniser, its configuration and the step of the weights.

    Raises:
      UsageError: not a model directory, or one without a complete checkpoint.

    Example, after `make demo`: one number a token, above 0 where it looks replaced.

        >>> import tensorflow as tf
        >>> from electra_es import load_model
        >>> model, tokenizer, run, step = load_model("runs/sample/model")
        >>> run.model.model_size
        'debug'
        >>> ids = tokenizer.tokenize(tf.constant(["Comemos pan."])).to_tensor()
        >>> model.discriminator_logits(ids, tf.ones_like(ids), tf.zeros_like(ids)).shape
        TensorShape([1, 5])
    """
    run = load_run(model_dir)
    tokenizer = load_tokenizer(model_dir)
    model = build_pretrainer(run.model, vocabulary_facts(tokenizer), precision)
    return model, tokenizer, run, restore_weights(model_dir, model)


def prepare_model_dir(model_dir: str, tokenizer: Tokenizer, vocab_dir: str,
                      model: ModelConfig, pretraining: PretrainingConfig) -> bool:
    """Writes configuration and vocabulary, or checks that an earlier start had the same ones.

    Returns:
      whether the directory held a run already.

    Raises:
      UsageError: the directory holds another run, or cannot be written.
    """
    path = os.path.join(model_dir, CONFIG_FILE)
    run = Run(tokenizer.config, model, pretraining)
    if files.exists(path):
        _check_same(model_dir, load_run(model_dir), run)
        files.remove_temporary(model_dir)
        return True
    files.make_directory(model_dir)
    files.copy(vocab_path(vocab_dir, tokenizer.config), vocab_path(model_dir, tokenizer.config))
    save_text_config(model_dir, tokenizer.config)
    files.write_bytes(path, to_json(**run._asdict()).encode())
    return False


def check_same_records(model_dir: str, data_dir: str, info: RecordsInfo) -> None:
    """Records which data a run trains on, or checks that its checkpoints were trained on the same.

    The position in the data is a number, and in other records it means other examples.

    Raises:
      UsageError: the run has checkpoints, and the training records are not those it began with.
    """
    path = os.path.join(model_dir, RECORDS_FILE)
    names = [os.path.basename(shard) for shard in shard_paths(data_dir, info, "train")]
    counts = dict(zip(names, info.examples["train"], strict=True))
    now = {"kind": info.kind, "vocab_sha256": info.vocab_sha256, "fingerprint": info.fingerprint,
           "train": counts}
    if not (completed_steps(model_dir) and files.exists(path)):
        files.write_json(path, now)
        return
    try:
        before = files.read_json(path)
        shards = dict.fromkeys(counts) | before["train"]
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not what a run wrote ({reason(error)})") from None
    if before == now:
        return
    differences = [f"{name} has {counts.get(name, 'no')} examples, had {count or 'none'}"
                   for name, count in shards.items() if count != counts.get(name)]
    raise UsageError(
        f"{data_dir}: not the records that {model_dir} was trained on "
        f"({differences[0] if differences else 'built of other text or settings'}): expected the "
        f"same, or a new --model_dir with --init_checkpoint={model_dir}")


def store_id_counts(model_dir: str, data_dir: str, vocab_size: int) -> None:
    """Copies the counts of the records that a run trains on. With them any later evaluation, on whatever
    records, can say what counting alone reaches; `read_id_counts(model_dir, vocab_size)` reads them.

    Raises:
      UsageError: counts of another vocabulary.
    """
    counts = read_id_counts(data_dir, vocab_size)
    path = os.path.join(model_dir, ID_COUNTS_FILE)
    if counts is not None:
        files.write_array(path, counts)
    elif files.exists(path) and not completed_steps(model_dir):
        files.remove(path)  # of other records, with which this run was begun


def settings_of_run(model_dir: str, overrides: Mapping[str, Any]
                    ) -> tuple[ModelConfig, PretrainingConfig]:
    """The settings of the run in `model_dir`, with those of `overrides` that may change.

    Args:
      model_dir: where `config.json` is.
      overrides: setting -> value, as from the command line; those of the text are left out here.

    Raises:
      UsageError: no such run, or `overrides` changes a setting that a run may not change. An
        evaluation may have another precision.
    """
    run = load_run(model_dir)
    model = _with_overrides(run.model, overrides)
    pretraining = _with_overrides(run.pretraining, overrides)
    old = dataclasses.replace(run.pretraining, precision=pretraining.precision)
    _check_same(model_dir, run._replace(pretraining=old), Run(run.text, model, pretraining))
    return model, pretraining


def _with_overrides(config: Any, overrides: Mapping[str, Any]) -> Any:
    fields = type(config).__dataclass_fields__
    return dataclasses.replace(
        config, **{name: value for name, value in overrides.items() if name in fields})


def check_same_evaluation(model_dir: str, text: TextConfig, model: ModelConfig,
                          pretraining: PretrainingConfig) -> None:
    """Raises UsageError if model, text settings, seed or length differ from those of `model_dir`: the
    figures of such an evaluation could not be compared with the run's."""
    run = load_run(model_dir)
    _check_same(model_dir, run, Run(text, model, dataclasses.replace(
        run.pretraining, seed=pretraining.seed, max_seq_length=pretraining.max_seq_length)))


def _check_same(model_dir: str, old: Run, new: Run) -> None:
    parts: list[tuple[Any, Any]] = list(zip(old, new, strict=True))
    for old_part, new_part in parts:
        fixed = {field.name: getattr(new_part, field.name) for field in dataclasses.fields(new_part)
                 if not field.metadata["may_change"]}
        if different := first_difference(vars(old_part), fixed):
            name, before, now = different
            raise UsageError(f"{model_dir}: holds a run with {name}={before!r}, this one has "
                             f"{name}={now!r}: expected the same, or another --model_dir")
