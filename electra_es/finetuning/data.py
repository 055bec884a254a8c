"""What a run reads: the examples of each split and their features."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from electra_es.errors import UsageError
from electra_es.finetuning.alignment import tagging_features, text_features
from electra_es.finetuning.examples import Split
from electra_es.finetuning.features import Features
from electra_es.finetuning.questions import question_features
from electra_es.finetuning.readers import read_split
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import Task
from electra_es.text.tokenizer import Tokenizer


class TaskData(NamedTuple):
    """A task, its splits, and these as the model takes them."""

    task: Task
    tokenizer: Tokenizer
    splits: dict[str, Split]
    features: dict[str, list[Features]]

    def fingerprint(self, split: str) -> str:
        """Of the examples of a split: the same only for the same examples in the same order."""
        digest = hashlib.sha256()
        for example in self.splits[split].examples:
            digest.update(repr(example).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]

    def counts(self) -> dict[str, dict[str, Any]]:
        """For each split its examples, its windows and what was dropped, by reason."""
        return {name: {"examples": len(split.examples), "windows": len(self.features[name]),
                       "dropped": dict(split.dropped), "fingerprint": self.fingerprint(name)}
                for name, split in self.splits.items()}


def load_task_data(task: Task, tokenizer: Tokenizer, config: FinetuningConfig, data_dir: str,
                   names: Sequence[str], *, skip_bad_rows: bool = False) -> TaskData:
    """Reads the splits `names` and makes their features.

    Raises:
      UsageError: as `read_split` and `make_features`.
    """
    splits = {name: read_split(task, name, data_dir, skip_bad_rows) for name in names}
    features = {name: make_features(task, tokenizer, split.examples, config)
                for name, split in splits.items()}
    return TaskData(task, tokenizer, splits, features)


def make_features(task: Task, tokenizer: Tokenizer, examples: Sequence[Any],
                  config: FinetuningConfig) -> list[Features]:
    """Raises UsageError where the settings leave a question no room for its text."""
    length = config.max_seq_length
    if task.kind == "tagging":
        return tagging_features(tokenizer, examples, task.label_ids, length)
    if task.kind == "question_answering":
        try:
            return question_features(tokenizer, examples, length, stride=config.stride,
                                     max_question_length=config.max_question_length)
        except ValueError as error:
            raise UsageError(str(error)) from None
    return text_features(
        tokenizer, examples, task.label_ids if task.kind == "classification" else None, length)
