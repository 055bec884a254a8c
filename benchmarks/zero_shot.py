"""Speed of zero-shot classification against transformers' pipeline, on the same texts and labels.

    python -m benchmarks.zero_shot
    python -m benchmarks.zero_shot --model_size=debug --texts=64 --turns=3

With the defaults this takes at most ten minutes on two cores, a third of it for the pipeline's batch
size. The pipeline has the Hugging Face folder that is exported from our model, whose weights are
random; both read paragraphs of the bundled sample and have to give the same scores. The pipeline is
timed twice: as it comes, with batch_size=1, and with the one of --batch_sizes that is fastest in a turn
of its own. All take turns, so that a machine whose speed drifts favours none. The last lines are
ratios, medians over the turns; below 1.5 of the first is a failure.
"""

import functools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import tensorflow as tf
import tf_keras
import transformers
from absl import flags

from benchmarks.turns import SECONDS, take_turns, timed
from data_prep.train_vocabulary import train_vocabulary
from electra_es import files, sample
from electra_es.config import TextConfig, model_config
from electra_es.errors import CheckFailed, run_main
from electra_es.finetuning.export.huggingface import export_finetuned_huggingface
from electra_es.finetuning.model import FinetuningModel, Pretrained
from electra_es.finetuning.saved import prepare_finetuned_dir
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import load_task
from electra_es.flags import parse_flags_only
from electra_es.model.pretrainer import build_pretrainer
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import vocabulary_facts
from electra_es.zero_shot.classifier import BATCH_SIZE, Classified, load_classifier
from electra_es.zero_shot.labels import TEMPLATE

_SIZE = flags.DEFINE_string("model_size", "small", "Row of the table of model sizes.")
_TEXTS = flags.DEFINE_integer("texts", 64, "Texts of each turn.")
_TURNS = flags.DEFINE_integer("turns", 5, "How often each takes its turn.")
_BATCH = flags.DEFINE_integer("batch_size", BATCH_SIZE, "Pairs of a batch, ours.")
_BATCHES = flags.DEFINE_list("batch_sizes", ["2", "4", "8", "16", "32", "64"],
                             "Batch sizes of the pipeline that are tried, beside its default 1.")

LABELS = ["cultura", "sociedad", "economía", "salud", "deportes"]


def paragraphs(count: int) -> list[str]:
    """As many different paragraphs as wanted, from all over the sample."""
    found = []
    for path, _ in files.find(sample.TRAIN_GLOB):
        found += files.read_bytes(path).decode("utf-8").split("\n")
    found = list(dict.fromkeys(line.strip() for line in found if line.strip()))
    step = len(found) / count
    return [found[int(i * step)] for i in range(count)]


def write_model(vocab_dir: str, directory: str) -> None:
    """Writes a fine-tuned model for inferes whose weights are random."""
    tokenizer, config = load_tokenizer(vocab_dir), model_config({"model_size": _SIZE.value})
    task, settings = load_task("inferes"), FinetuningConfig()
    tf_keras.utils.set_random_seed(1)
    pretrainer = build_pretrainer(config, vocabulary_facts(tokenizer))
    model = FinetuningModel(pretrainer, task.kind, len(task.labels), settings.head_dropout)
    pretrained = Pretrained(pretrainer, [], config, tokenizer, vocab_dir, "random weights")
    prepare_finetuned_dir(directory, pretrained, task, settings)
    Checkpoints(directory, tf.train.Checkpoint(model=model), keep=1, keep_every=0).save(0, 0)


def largest_difference(ours: Sequence[Classified], theirs: Sequence[dict[str, Any]]) -> float:
    """Between scores of the same text and label."""
    return max(abs(score - dict(zip(other["labels"], other["scores"], strict=True))[label])
               for one, other in zip(ours, theirs, strict=True)
               for label, score in zip(one.labels, one.scores, strict=True))


def best_batch_size(classify: Callable[[int], object], sizes: Sequence[int], texts: int) -> int:
    """The batch size with which the pipeline is fastest; prints what each reaches."""
    seconds = {}
    for size in sizes:
        seconds[size] = min(timed(functools.partial(classify, size)) for _ in range(2))
        print(f"  pipeline, batch_size={size}: {texts / seconds[size]:.1f} texts/s", flush=True)
    return min(seconds, key=seconds.__getitem__)


def main() -> None:
    parse_flags_only()
    print("at most ten minutes on two cores", flush=True)
    texts = paragraphs(_TEXTS.value)
    with tempfile.TemporaryDirectory() as folder:
        train_vocabulary(sample.TRAIN_GLOB, f"{folder}/vocabulary", TextConfig(vocab_size=2_000),
                         held_out=sample.VALIDATION_GLOB, workers=1)
        write_model(f"{folder}/vocabulary", f"{folder}/model")
        export_finetuned_huggingface(f"{folder}/model", f"{folder}/published")
        ours = load_classifier(f"{folder}/model", _BATCH.value)
        theirs = transformers.pipeline("zero-shot-classification", model=f"{folder}/published")

    def pipeline(batch_size: int) -> list[dict[str, Any]]:
        return theirs(texts, candidate_labels=LABELS, hypothesis_template=TEMPLATE,
                      batch_size=batch_size)

    difference = largest_difference(ours(texts, LABELS), pipeline(1))
    print(f"largest difference of a score: {difference:.1g}", flush=True)
    sizes = [1, *map(int, _BATCHES.value)]
    best = best_batch_size(pipeline, sizes, len(texts))
    turns: dict[str, Callable[[], object]] = {
        f"ours, batches of {_BATCH.value}": lambda: ours(texts, LABELS),
        "pipeline, batch_size=1 (its default)": lambda: pipeline(1),
        f"pipeline, batch_size={best} (its best)": lambda: pipeline(best)}
    seconds = take_turns(turns, _TURNS.value, SECONDS / 2)
    print(f"{_SIZE.value}, {len(texts)} texts of {sum(map(len, texts)) / len(texts):.0f} characters, "
          f"{len(LABELS)} labels")
    for name, times in seconds.items():
        print(f"{name:38} {len(texts) / statistics.median(times):8.1f} texts/s")
    mine, default, fastest = seconds.values()
    ratio = statistics.median(b / a for a, b in zip(mine, default, strict=True))
    print(f"ours / pipeline as it comes: {ratio:.2f}")
    print(f"ours / pipeline at its best batch size: "
          f"{statistics.median(b / a for a, b in zip(mine, fastest, strict=True)):.2f}")
    sys.stdout.flush()
    if difference > 1e-5:
        raise CheckFailed(f"a score differs by {difference:.1g}: expected at most 1e-5")
    if ratio < 1.5:
        raise CheckFailed(f"ours has {ratio:.2f} of the pipeline's speed: expected 1.5")


if __name__ == "__main__":
    run_main(main)
