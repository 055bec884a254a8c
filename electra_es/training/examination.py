"""The exam of minimal pairs during a run, with the current weights."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.minimal_pairs.pairs import load_pairs
from electra_es.minimal_pairs.scoring import make_exam
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.monitoring.progress import ProgressLog
from electra_es.text.tokenizer import Tokenizer
from electra_es.training.interruption import Interrupted


def make_examination(
    model: ElectraPretrainer, tokenizer: Tokenizer, model_config: ModelConfig,
    config: PretrainingConfig, strategy: tf.distribute.Strategy, id_counts: np.ndarray | None,
) -> Callable[[ProgressLog, int, Callable[[], bool]], bool]:
    """Returns `examine(log, step, stopped)`, which examines the model and reports it; with exam_every=0
    it does nothing. `stopped` is called before each batch. If it returns True, the exam ends without a
    report, and `examine` returns False.

    Every worker computes the same, and the chief reports it. Nothing random is drawn and nothing of the
    run's state changes, so that a run ends with the same weights with and without an exam.
    """
    if not config.exam_every:
        return lambda log, step, stopped: True
    exam = make_exam(
        model, tokenizer, load_pairs(), strategy=strategy,
        max_length=min(config.max_seq_length, model_config.max_position_embeddings),
        id_counts=id_counts)

    def examine(log: ProgressLog, step: int, stopped: Callable[[], bool]) -> bool:
        def tell(line: str) -> None:
            if stopped():
                raise Interrupted
            log.meanwhile(line)

        try:
            log.exam(step, exam(tell))
        except Interrupted:
            return False
        return True

    return examine
