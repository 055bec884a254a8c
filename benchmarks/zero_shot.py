"""Speed of zero-shot classification against transformers' pipeline, on the same texts and labels.

    python -m benchmarks.zero_shot
    python -m benchmarks.zero_shot --model_size=debug --texts=64 --turns=3

Both have a network of the same shape with random weights, and read the same tokens of sentences of the
bundled sample. The pipeline is timed twice: as it comes, with batch_size=1, and with the one of
--batch_sizes that is fastest in a turn of its own. All take turns, so that a machine whose speed drifts
favours none. The last lines are ratios, medians over the turns; issue 13 asks for 1.5 of the first.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import tf_keras
from absl import flags

from data_prep.train_vocabulary import train_vocabulary
from electra_es import files, sample
from electra_es.config import ModelConfig, TextConfig, model_config
from electra_es.errors import CheckFailed, run_main
from electra_es.export.huggingface.tokenizer import tokenizer_config, tokenizer_json
from electra_es.finetuning.model import FinetuningModel
from electra_es.finetuning.saved import Finetuned
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task, load_task
from electra_es.flags import parse_flags_only
from electra_es.model.pretrainer import build_pretrainer
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.text.vocabulary import vocab_path
from electra_es.training.run_dir import vocabulary_facts
from electra_es.zero_shot.classifier import BATCH_SIZE, ZeroShotClassifier
from electra_es.zero_shot.labels import TEMPLATE

_SIZE = flags.DEFINE_string("model_size", "small", "Row of the table of model sizes.")
_TEXTS = flags.DEFINE_integer("texts", 64, "Texts of each turn.")
_TURNS = flags.DEFINE_integer("turns", 5, "How often each takes its turn.")
_BATCH = flags.DEFINE_integer("batch_size", BATCH_SIZE, "Pairs of a batch, ours.")
_BATCHES = flags.DEFINE_list("batch_sizes", ["2", "4", "8", "16", "32", "64"],
                             "Batch sizes of the pipeline that are tried, beside its default 1.")

LABELS = ["cultura", "sociedad", "economía", "salud", "deportes"]


def sentences(count: int) -> list[str]:
    """As many different sentences as wanted, from all over the sample."""
    found = []
    for path, _ in files.find(sample.TRAIN_GLOB):
        found += files.read_bytes(path).decode("utf-8").split("\n")
    found = list(dict.fromkeys(line.strip() for line in found if line.strip()))
    step = len(found) / count
    return [found[int(i * step)] for i in range(count)]


def our_classifier(tokenizer: Tokenizer, config: ModelConfig, task: Task) -> ZeroShotClassifier:
    """Ours, with random weights."""
    settings = FinetuningConfig()
    tf_keras.utils.set_random_seed(1)
    pretrainer = build_pretrainer(config, vocabulary_facts(tokenizer))
    model = FinetuningModel(pretrainer, task.kind, len(task.labels), settings.head_dropout)
    return ZeroShotClassifier(Finetuned(model, tokenizer, task, settings), "random", _BATCH.value)


def their_pipeline(vocab_dir: str, config: ModelConfig, task: Task, folder: str) -> Callable:
    """transformers' pipeline, with random weights and the tokeniser of an export."""
    import transformers

    tokenizer, length = load_tokenizer(vocab_dir), FinetuningConfig().max_seq_length
    vocabulary = files.read_bytes(vocab_path(vocab_dir, tokenizer.config))
    files.write_json(f"{folder}/tokenizer.json", tokenizer_json(tokenizer, vocabulary))
    files.write_json(f"{folder}/tokenizer_config.json", tokenizer_config(tokenizer.config, length))
    network = transformers.ElectraForSequenceClassification(transformers.ElectraConfig(
        vocab_size=len(tokenizer.vocab), embedding_size=config.embedding_size,
        hidden_size=config.hidden_size, num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads, intermediate_size=config.intermediate_size,
        id2label=dict(enumerate(task.labels)), label2id=task.label_ids)).eval()
    return transformers.pipeline("zero-shot-classification", model=network, framework="pt",
                                 tokenizer=transformers.AutoTokenizer.from_pretrained(folder))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def best_batch_size(classify: Callable[[int], object], sizes: Sequence[int], texts: int) -> int:
    """The batch size with which the pipeline is fastest; prints what each reaches."""
    seconds = {}
    for size in sizes:
        seconds[size] = min(timed(lambda size=size: classify(size)) for _ in range(2))
        print(f"  pipeline, batch_size={size}: {texts / seconds[size]:.1f} texts/s", flush=True)
    return min(seconds, key=seconds.__getitem__)


def main() -> None:
    parse_flags_only()
    config, task = model_config({"model_size": _SIZE.value}), load_task("inferes")
    texts = sentences(_TEXTS.value)
    with tempfile.TemporaryDirectory() as folder:
        train_vocabulary(sample.TRAIN_GLOB, f"{folder}/vocabulary", TextConfig(vocab_size=2_000),
                         held_out=sample.VALIDATION_GLOB, workers=1)
        ours = our_classifier(load_tokenizer(f"{folder}/vocabulary"), config, task)
        theirs = their_pipeline(f"{folder}/vocabulary", config, task, folder)

    def pipeline(batch_size: int) -> object:
        return theirs(texts, candidate_labels=LABELS, hypothesis_template=TEMPLATE,
                      batch_size=batch_size)

    pipeline(1)
    sizes = [1, *map(int, _BATCHES.value)]
    best = best_batch_size(pipeline, sizes, len(texts))
    turns: dict[str, Callable[[], object]] = {
        f"ours, batches of {_BATCH.value}": lambda: ours(texts, LABELS),
        "pipeline, batch_size=1 (its default)": lambda: pipeline(1),
        f"pipeline, batch_size={best} (its best)": lambda: pipeline(best)}
    for action in turns.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(_TURNS.value):
        for name, action in turns.items():
            seconds[name].append(timed(action))
    print(f"{len(texts)} texts, {len(LABELS)} labels, {_SIZE.value}")
    for name, times in seconds.items():
        print(f"{name:38} {len(texts) / statistics.median(times):8.1f} texts/s")
    mine, default, fastest = seconds.values()
    ratio = statistics.median(b / a for a, b in zip(mine, default, strict=True))
    print(f"ours / pipeline as it comes: {ratio:.2f}")
    print(f"ours / pipeline at its best batch size: "
          f"{statistics.median(b / a for a, b in zip(mine, fastest, strict=True)):.2f}")
    sys.stdout.flush()
    if ratio < 1.5:
        raise CheckFailed(f"ours has {ratio:.2f} of the pipeline's speed: expected 1.5")


if __name__ == "__main__":
    run_main(main)
