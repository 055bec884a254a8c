"""A tiny vocabulary and records, and training runs in separate processes that can be killed.

The processes fork from a server that has TensorFlow imported but not started, so that a start costs
a trace of the tiny model and not an import.
"""

import contextlib
import multiprocessing
import os
import pathlib
import re
import time
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.config import SPECIAL_TOKENS, ModelConfig, PretrainingConfig, TextConfig
from electra_es.data import records, tfrecord
from electra_es.text.vocabulary import save_text_config
from electra_es.training.checkpoint_files import checkpoint_path, completed_steps

VOCAB_SIZE, LENGTH = 61, 13
TRAIN_EXAMPLES, VALIDATION_EXAMPLES = (7, 6, 5, 4, 9), (3, 2)
MODEL = dict(embedding_size=12, hidden_size=24, num_layers=1, num_heads=3, intermediate_size=40,
             max_position_embeddings=17, generator_width=1 / 3, generator_heads=2)
RUN = dict(max_seq_length=LENGTH, train_batch_size=4, eval_batch_size=4, data_streams=4,
           num_train_steps=60, learning_rate=1e-2, warmup_steps=5, restart_steps=(40,),
           deterministic=True, distribution="cpu", log_every=20, save_every=60, steps_per_loop=7,
           jit_compile="off", seed=3)

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["electra_es.training.train", "electra_es.training.run_dir"])


class Data(NamedTuple):
    """Directory arguments of `train`."""

    data_dir: str
    vocab_dir: str


def make_data(directory: pathlib.Path, seed: int = 0, vocab_letters: str = "abcdefghijklmn") -> Data:
    """Writes a vocabulary of 61 pieces and records of random ids with one and two segments."""
    vocab_dir, data_dir = directory / "vocabulary", directory / "records"
    vocab_dir.mkdir(parents=True)
    data_dir.mkdir()
    pieces = [*SPECIAL_TOKENS, *vocab_letters, *(f"##{letter}" for letter in vocab_letters)]
    pieces += [f"{a}{b}" for a in vocab_letters for b in vocab_letters][:VOCAB_SIZE - len(pieces)]
    (vocab_dir / "vocab.txt").write_text("\n".join(pieces) + "\n")
    text = save_text_config(vocab_dir, TextConfig())
    counts = {"train": TRAIN_EXAMPLES, "validation": VALIDATION_EXAMPLES}
    rng = np.random.default_rng(seed)
    for split, shards in counts.items():
        for shard, count in enumerate(shards):
            path = data_dir / records.shard_name(split, shard, len(shards))
            with open(path, "wb") as file:
                tfrecord.write_records(file, [_random_example(rng) for _ in range(count)])
    info = records.RecordsInfo(max_seq_length=LENGTH, text=text,
                               examples={split: list(shards) for split, shards in counts.items()})
    (data_dir / records.INFO_FILE).write_text(info.to_json())
    (data_dir / records.COMPLETED_FILE).touch()
    return Data(str(data_dir), str(vocab_dir))


def _random_example(rng: np.random.Generator) -> bytes:
    length = int(rng.integers(6, LENGTH + 1))
    ids = rng.integers(len(SPECIAL_TOKENS), VOCAB_SIZE, length)
    ids[0], ids[-1] = 2, 3
    return tfrecord.encode_example(ids, int(rng.choice([length, length // 2])))


def model_config(**settings: Any) -> ModelConfig:
    return ModelConfig(**{**MODEL, **settings})


def run_config(**settings: Any) -> PretrainingConfig:
    return PretrainingConfig(**{**RUN, **settings})


class TrainingProcess:
    """`train()` in a separate process.

    Attributes:
      process: exits with what `run_pretraining.py` would.
      log: what it prints, a file.
    """

    def __init__(self, data: Data, model_dir: str | os.PathLike, model: dict | None = None,
                 environment: dict[str, str] | None = None, **settings: Any):
        self.model_dir = str(model_dir)
        self.log = pathlib.Path(f"{model_dir}-{time.monotonic_ns()}.log")
        self.log.touch()
        self.process = PROCESSES.Process(target=_train, args=(
            str(self.log), data, self.model_dir, model or {}, settings, environment or {}))
        self.process.start()

    def wait(self, expected: int = 0) -> str:
        """Waits for the end; returns the output."""
        self.process.join(120)
        text = self.log.read_text()
        assert self.process.exitcode == expected, f"exit code {self.process.exitcode}:\n{text}"
        return text

    def wait_for_step(self, step: int) -> None:
        """Waits for a progress line of `step` or of a later step."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            steps = re.findall(r"^step (\d+)/", self.log.read_text(), re.MULTILINE)
            if steps and int(steps[-1]) >= step:
                return
            assert self.process.is_alive(), self.log.read_text()
            time.sleep(0.01)
        raise AssertionError(f"step {step} not reached:\n{self.log.read_text()}")


def _train(log: str, data: Data, model_dir: str, model: dict, settings: dict,
           environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from electra_es.errors import EXIT_STOPPED, run_main
    from electra_es.training.train import train

    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    tf.config.threading.set_intra_op_parallelism_threads(1)

    def main() -> int:
        result = train(model_config(**model), run_config(**settings), model_dir=model_dir,
                       evaluate_at_end=False, **data._asdict())
        return EXIT_STOPPED if result.stopped_by_signal else 0

    run_main(main)


def saved_state(model_dir: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every array of the latest checkpoint: weights, moments and the step."""
    reader = tf.train.load_checkpoint(
        checkpoint_path(str(model_dir), completed_steps(str(model_dir))[-1]))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
            if name.endswith("VARIABLE_VALUE")}


def assert_same_state(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Asserts that two states are the same bit for bit."""
    assert first.keys() == second.keys()
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name


@contextlib.contextmanager
def damaged(path: pathlib.Path, keep_bytes: int):
    """Truncates a file inside the `with`."""
    data = path.read_bytes()
    path.write_bytes(data[:keep_bytes])
    try:
        yield
    finally:
        path.write_bytes(data)


