"""A tiny pretrained model, tiny tasks, and commands in processes of their own.

Words are of the letters a to n, of which the vocabulary of `engine_helpers` has singles and pairs.
"""

import json
import multiprocessing
import os
import pathlib
import re
import time
from typing import Any

import engine_helpers
import numpy as np
import tensorflow as tf

from electra_es.finetuning.data import TaskData, make_features
from electra_es.finetuning.examples import Question, Split, TaggingExample, TextExample
from electra_es.finetuning.finetuner import Finetuner
from electra_es.finetuning.model import load_pretrained
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task
from electra_es.model.pretrainer import build_pretrainer
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.checkpoints import Checkpoints
from electra_es.training.run_dir import prepare_model_dir, vocabulary_facts

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["electra_es.training.train", "electra_es.training.run_dir",
                                   "electra_es.finetuning.finetune", "electra_es.finetuning.report"])

KINDS = ("tagging", "classification", "regression", "question_answering")
NO_DROPOUT = dict(hidden_dropout=0.0, attention_dropout=0.0)
# Not deterministic, because TensorFlow keeps that for the rest of the process: commands ask for it.
QUICK = dict(max_seq_length=16, train_batch_size=4, eval_batch_size=4, learning_rate=1e-2,
             distribution="cpu", jit_compile="off", log_every=1)


def make_model_dir(directory: pathlib.Path, **settings: Any) -> str:
    """A model directory at step 0: 24 wide, one layer unless `settings` say otherwise."""
    data = engine_helpers.make_data(directory / "data")
    config = engine_helpers.model_config(**settings)
    tokenizer = load_tokenizer(data.vocab_dir)
    tf.random.set_seed(5)
    tokenizer = load_tokenizer(data.vocab_dir)  # set_seed forgets what tokenisers made before
    model = build_pretrainer(config, vocabulary_facts(tokenizer))
    model_dir = str(directory / "tiny")
    prepare_model_dir(model_dir, tokenizer, data.vocab_dir, config, engine_helpers.run_config())
    Checkpoints(model_dir, tf.train.Checkpoint(model=model), keep=1, keep_every=0).save(0, 0)
    return model_dir


def task_of(kind: str, **settings: Any) -> Task:
    """A task of a kind, without files."""
    values: dict[str, Any] = {
        "tagging": dict(labels=("O", "B-PER", "I-PER"), scheme="IOB2", metric="entity_f1",
                        metrics=("accuracy",), layout="conll", columns={"word": 0, "label": 1}),
        "classification": dict(labels=("no", "si", "tal"), metric="accuracy", layout="tsv",
                               columns={"text": 0, "label": 1}),
        "regression": dict(score_range=(1.0, 5.0), metric="pearson", layout="tsv",
                           columns={"text": 0, "score": 1}),
        "question_answering": dict(metric="exact_match", layout="squad", unanswerable=True),
    }[kind]
    return Task(name=f"tiny_{kind}", kind=kind, **{**values, **settings})


def examples_of(task: Task, count: int = 8, seed: int = 0) -> list[Any]:
    """Examples that can be learnt: words with an "a" belong together."""
    numbers = np.random.default_rng(seed)

    def words(n: int) -> list[str]:
        return ["".join(numbers.choice(list("abcdefgh"), int(numbers.integers(1, 4))))
                for _ in range(n)]

    examples: list[Any] = []
    for i in range(count):
        text = words(3 + i % 3)
        if task.kind == "tagging":
            labels, before = [], "O"
            for word in text:
                before = ("I-PER" if before != "O" else "B-PER") if "a" in word else "O"
                labels.append(before)
            examples.append(TaggingExample(tuple(text), tuple(labels), f"line {i}"))
        elif task.kind == "classification":
            label = task.labels[i % len(task.labels)]
            examples.append(TextExample((" ".join(text), " ".join(words(2))), label))
        elif task.kind == "regression":
            examples.append(TextExample((" ".join(text),), 1.0 + 4.0 * i / (count - 1)))
        else:
            answer = text[i % len(text)]
            start = sum(len(word) + 1 for word in text[:i % len(text)])
            impossible = i % 4 == 3
            examples.append(Question(str(i), words(1)[0], " ".join(text),
                                     () if impossible else ((answer, start),), impossible))
    return examples


def task_data(task: Task, model_dir: str, config: FinetuningConfig, **splits: list[Any]) -> TaskData:
    tokenizer = load_tokenizer(model_dir)
    return TaskData(task, tokenizer, {name: Split(name, rows) for name, rows in splits.items()},
                    {name: make_features(task, tokenizer, rows, config)
                     for name, rows in splits.items()})


def make_finetuner(model_dir: str, task: Task, config: FinetuningConfig, num_steps: int) -> Finetuner:
    strategy = tf.distribute.OneDeviceStrategy("device:CPU:0")
    with strategy.scope():
        pretrained = load_pretrained(model_dir, model_dir)
    return Finetuner(pretrained, task, config, num_steps, strategy)


def write_task(directory: pathlib.Path, *, test_labels: bool = True) -> tuple[str, str]:
    """Writes a tagging task and its three files; returns the paths of task and data."""
    directory.mkdir(parents=True, exist_ok=True)
    task = task_of("tagging")
    for seed, (split, count) in enumerate([("train", 10), ("dev", 5), ("test", 6)]):
        blocks = ["\n".join(f"{word} {label}" for word, label in zip(e.words, e.labels, strict=True))
                  for e in examples_of(task, count, seed)]
        (directory / f"{split}.txt").write_text("\n\n".join(blocks) + "\n")
    path = directory / "tiny_tagging.json"
    path.write_text(json.dumps({
        "kind": "tagging", "layout": "conll", "columns": {"word": 0, "label": 1},
        "files": {split: f"{split}.txt" for split in ("train", "dev", "test")},
        "labels": list(task.labels), "scheme": "IOB2", "metric": "entity_f1",
        "metrics": ["accuracy"], "recipe": QUICK}))
    return str(path), str(directory)


class CommandProcess:
    """`python -m MODULE ARGUMENTS` in a process of its own, forked with TensorFlow imported."""

    def __init__(self, log: pathlib.Path, module: str, *arguments: str):
        self.log = log
        self.log.touch()
        self.process = _PROCESSES.Process(target=_run, args=(str(log), module, arguments))
        self.process.start()

    def wait(self, expected: int = 0) -> str:
        """Waits for the end; returns what was printed."""
        self.process.join(300)
        text = self.log.read_text()
        assert self.process.exitcode == expected, f"exit code {self.process.exitcode}:\n{text}"
        return text

    def wait_for(self, pattern: str) -> None:
        """Returns as soon as what is printed has the pattern."""
        end = time.monotonic() + 300
        while not re.search(pattern, self.log.read_text(), re.MULTILINE | re.DOTALL):
            assert self.process.is_alive() and time.monotonic() < end, self.log.read_text()
            time.sleep(0.005)


def _run(log: str, module: str, arguments: tuple[str, ...]) -> None:
    import importlib
    import sys

    from electra_es.errors import run_main

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    sys.argv = [module, *arguments]
    run_main(importlib.import_module(module).main)
