"""Speed of fine-tuning and of scoring against transformers' PyTorch classes.

    python -m benchmarks.finetuning
    python -m benchmarks.finetuning --vocab_dir=vocabulary --conll=esp.testa --sentences=500 --turns=3

With the defaults this takes about four minutes on two cores, and with all of esp.testa up to ten.

Work: tagging with the labels of CoNLL-2002. One step: forward, backward, clipping, Adam with a rate for
each layer, schedule; every row is full. transformers' side is what its Trainer does:
ElectraForTokenClassification, fused AdamW with the same groups, clip_grad_norm_, LambdaLR. Scoring:
64 sentences a batch. Ours sorts by length; one program takes batches of any length. PyTorch takes the
order of the file and pads to 128, or to the longest of each batch (what a collator with padding does).
All take turns, so that a machine whose speed drifts favours none; ratios are medians over the turns.
With --precision=bfloat16 both compute in it; the goals are those of float32.
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks.pytorch_step import autocast
from benchmarks.turns import SECONDS, take_turns
from data_prep.train_vocabulary import train_vocabulary
from electra_es import sample
from electra_es.config import ModelConfig, TextConfig, model_config
from electra_es.errors import CheckFailed, run_main
from electra_es.finetuning.alignment import tagging_features
from electra_es.finetuning.batches import Batch
from electra_es.finetuning.features import Features
from electra_es.finetuning.finetuner import Finetuner, TrialKeys
from electra_es.finetuning.formats.conll import read_conll
from electra_es.finetuning.formats.rows import Rows
from electra_es.finetuning.model import Pretrained
from electra_es.finetuning.predictions import run_forward
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task, load_task
from electra_es.flags import parse_flags_only
from electra_es.model.pretrainer import build_pretrainer
from electra_es.text.tokenizer import Tokenizer, load_tokenizer
from electra_es.training.devices import TpuAddress, set_up_devices
from electra_es.training.run_dir import vocabulary_facts

_SIZE = flags.DEFINE_string("model_size", "small", "Row of the table of model sizes.")
_VOCAB = flags.DEFINE_string("vocab_dir", "", "Vocabulary directory; none: 2,000 entries of the sample.")
_CONLL = flags.DEFINE_string("conll", "", "esp.testa of CoNLL-2002; without it no scoring.")
_SENTENCES = flags.DEFINE_integer("sentences", 0, "First sentences of it to score; 0: all.")
_STEPS = flags.DEFINE_integer("steps", 3, "Steps of each turn.")
_TURNS = flags.DEFINE_integer("turns", 5, "How often each takes its turn.")
_BATCH = flags.DEFINE_integer("batch_size", 32, "Examples per step.")
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"],
                               "Compute type of both; PyTorch's bfloat16 is autocast.")
_LENGTH = 128
_STEP_GOAL, _SCORING_GOAL = 1.2, 1.5


def our_finetuner(task: Task, config: FinetuningConfig, settings: ModelConfig, tokenizer: Tokenizer,
                  strategy: tf.distribute.Strategy) -> Finetuner:
    with strategy.scope():
        model = build_pretrainer(settings, vocabulary_facts(tokenizer), config.precision)
    weights = [variable.numpy() for variable in model.variables]
    finetuner = Finetuner(Pretrained(model, weights, settings, tokenizer, "", "random"), task, config,
                          10_000, strategy)
    finetuner.begin(TrialKeys(config.seed, 1))
    return finetuner


def full_batch(size: int, vocab_size: int, labels: int) -> Batch:
    """Random ids and a label at every position."""
    random = np.random.default_rng(0)
    shape = (size, _LENGTH)
    return Batch(random.integers(5, vocab_size, shape).astype(np.int32), np.ones(shape, np.int32),
                 np.zeros(shape, np.int32), random.integers(0, labels, shape).astype(np.int32),
                 np.ones(shape, np.float32))


def peer_model(settings: ModelConfig, vocab_size: int, labels: int) -> Any:
    from transformers import ElectraConfig, ElectraForTokenClassification

    values: dict[str, Any] = dict(
        vocab_size=vocab_size, embedding_size=settings.embedding_size,
        hidden_size=settings.hidden_size, num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads, intermediate_size=settings.intermediate_size,
        max_position_embeddings=settings.max_position_embeddings, num_labels=labels)
    return ElectraForTokenClassification(ElectraConfig(**values))


def peer_step(peer: Any, config: FinetuningConfig, batch: Batch) -> Callable[[], None]:
    """A function that trains one step as transformers' Trainer does."""
    import torch

    layers = len(peer.electra.encoder.layer)
    groups: dict[float, list[Any]] = {}
    for name, parameter in peer.named_parameters():
        depth = (layers + 2 if name.startswith("electra.embeddings") else
                 1 + layers - int(name.split(".")[3]) if ".layer." in name else 0)
        groups.setdefault(config.learning_rate * config.layer_decay ** depth, []).append(parameter)
    optimizer = torch.optim.AdamW([{"params": some, "lr": rate} for rate, some in groups.items()],
                                  weight_decay=config.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 10_000))
    inputs = {name: torch.tensor(array.astype(np.int64)) for name, array in (
        ("input_ids", batch.input_ids), ("attention_mask", batch.input_mask),
        ("token_type_ids", batch.segment_ids), ("labels", batch.labels))}

    def step() -> None:
        peer.train()
        with autocast(config.precision):
            loss = peer(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    return step


def peer_scoring(peer: Any, features: Sequence[Features], config: FinetuningConfig, to_longest: bool
                 ) -> Callable[[], None]:
    """A function that predicts the label of every piece, in the order of the file."""
    import torch

    batches, size = [], config.eval_batch_size
    for start in range(0, len(features), size):
        rows = features[start:start + size]
        length = max(map(len, rows)) if to_longest else _LENGTH
        ids, mask = (np.zeros((len(rows), length), np.int64) for _ in range(2))
        for i, row in enumerate(rows):
            ids[i, :len(row)], mask[i, :len(row)] = row.input_ids, 1
        batches.append((torch.tensor(ids), torch.tensor(mask)))

    def score() -> None:
        peer.eval()
        with torch.inference_mode(), autocast(config.precision):
            for ids, mask in batches:
                peer(input_ids=ids, attention_mask=mask).logits.argmax(dim=-1).numpy()

    return score


def report(seconds: dict[str, list[float]], unit: float) -> dict[str, float]:
    """Prints the medians; returns by how much the first is faster than each of the others."""
    first, *others = seconds
    ratios = {name: statistics.median(
        theirs / ours for theirs, ours in zip(seconds[name], seconds[first], strict=True))
        for name in others}
    for name, times in seconds.items():
        ratio = f", ours is {ratios[name]:.2f} x as fast" if name in ratios else ""
        print(f"  {name}: {statistics.median(times) / unit:.3f} s{ratio}", flush=True)
    return ratios


def main() -> None:
    parse_flags_only()
    print("at most ten minutes on two cores", flush=True)
    task = load_task("conll2002_pos")
    config = FinetuningConfig(max_seq_length=_LENGTH, train_batch_size=_BATCH.value,
                              distribution="cpu", precision=_PRECISION.value)
    strategy = set_up_devices(config.for_training(1), TpuAddress())
    with tempfile.TemporaryDirectory() as folder:
        if not _VOCAB.value:
            train_vocabulary(sample.TRAIN_GLOB, f"{folder}/vocabulary", TextConfig(vocab_size=2_000),
                             held_out=sample.VALIDATION_GLOB, workers=1)
        tokenizer = load_tokenizer(_VOCAB.value or f"{folder}/vocabulary")
    settings, labels = model_config({"model_size": _SIZE.value}), len(task.labels)
    finetuner = our_finetuner(task, config, settings, tokenizer, strategy)
    batch = full_batch(_BATCH.value, len(tokenizer.vocab), labels)
    peer, key = peer_model(settings, len(tokenizer.vocab), labels), TrialKeys(1, 1).dropout
    torch_step = peer_step(peer, config, batch)

    def our_steps() -> None:
        for _ in range(_STEPS.value):
            sums = finetuner.train(batch, key)
        sums["loss"].numpy()

    def their_steps() -> None:
        for _ in range(_STEPS.value):
            torch_step()

    print(f"one step, {_SIZE.value}, {_BATCH.value} x {_LENGTH}, {config.precision}:", flush=True)
    ratios = {"step": report(take_turns({"ours": our_steps, "transformers": their_steps}, _TURNS.value,
                                        SECONDS / 2), _STEPS.value)["transformers"]}
    if _CONLL.value:
        examples = list(read_conll(task, _CONLL.value, Rows(False)))[:_SENTENCES.value or None]
        features = tagging_features(tokenizer, examples, task.label_ids, _LENGTH)
        pieces = sum(map(len, features))
        print(f"scoring {len(examples):,} sentences, {len(features):,} windows of "
              f"{pieces / len(features):.1f} tokens:", flush=True)
        found = report(take_turns({
            "ours, by length": lambda: run_forward(task, features, finetuner.forward, config),
            "transformers, padded to 128": peer_scoring(peer, features, config, False),
            "transformers, padded to each batch's longest": peer_scoring(peer, features, config, True),
        }, _TURNS.value, SECONDS / 2), 1)
        ratios["scoring"] = found["transformers, padded to 128"]
    for name, goal in (("step", _STEP_GOAL), ("scoring", _SCORING_GOAL)):
        if config.precision == "float32" and name in ratios and ratios[name] < goal:
            raise CheckFailed(f"{name}: {ratios[name]:.2f} x transformers' speed: expected {goal}")


if __name__ == "__main__":
    run_main(main)
