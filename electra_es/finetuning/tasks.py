"""Tasks: what is to be learnt from which files. One JSON file each, in `hparams/tasks/`.

A user adds a task by writing such a file and giving its path; docs/tasks.md lists the settings.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import electra_es
from electra_es import sample
from electra_es.config import from_dict
from electra_es.errors import UsageError, nearest_hint

SPLITS = ("train", "dev", "test")

# Which metrics fit which kind; electra_es/finetuning/scoring.py says what each computes.
METRICS = {
    "tagging": ("accuracy", "entity_f1", "entity_f1_strict", "seqeval_f1_untyped", "macro_f1"),
    "classification": ("accuracy", "macro_f1", "binary_f1", "mcc"),
    "regression": ("pearson", "spearman", "combined"),
    "question_answering": ("exact_match", "f1"),
}
LAYOUTS = {
    "tagging": ("conll", "conllu", "tsv", "csv", "jsonl", "parquet", "table"),
    "classification": ("tsv", "csv", "jsonl", "parquet", "table"),
    "regression": ("tsv", "csv", "jsonl", "parquet", "table"),
    "question_answering": ("squad",),
}
COLUMNS = {
    "tagging": ("word", "label"),
    "classification": ("text", "text_pair", "label"),
    "regression": ("text", "text_pair", "score"),
    "question_answering": (),
}
# Scheme -> first letters of its labels ("B-LOC") beside O.
SCHEMES = {"none": "", "IOB2": "BI", "IOBES": "BIES"}
ENCODINGS = ("utf-8", "latin-1")
# Settings that one split's files may have otherwise.
_PER_SPLIT = ("layout", "columns", "separator", "header", "encoding", "filter", "drop_texts")


@dataclass(frozen=True)
class Task:
    """A task. Every setting is a key of its JSON file, but for the name, which is the file's.

    Attributes:
      name: of the JSON file, without `.json`.
      kind: tagging, classification, regression or question_answering.
      title: for people.
      files: split -> glob below the data directory. A split that is missing here does not exist.
      layout: conll, conllu, squad, tsv, csv, jsonl, parquet, or table: one of the last four, by the
        ending of each file's name.
      columns: role -> name or number (from 0; -1 is the last) of a column, or a list of names of
        which a file has one. Roles: word and label; text, text_pair and label; text, text_pair and
        score. Tagging tables (jsonl, parquet) have lists in both columns.
      separator: between columns. conll without one: any run of spaces and tabs.
      header: whether tsv and csv begin with a line of names.
      encoding: utf-8 or latin-1.
      filter: column -> value; other rows belong to another task (another language, say).
      split_column: column that holds the name of the split, where one file has all three.
      overrides: split -> those of the settings from layout to drop_texts that its files have otherwise.
      labels: names of the classes in their fixed order: that of ids, outputs and `id2label`.
      label_aliases: other spelling -> name.
      metric: the headline. metrics: further ones.
      scheme: how entities are written: IOB2, IOBES, or none where labels are single tags.
      symmetric: training pairs are there a second time with the order swapped.
      drop_texts: rows with such a text are left out, and counted.
      conllu_multiword: keep rows 15-16 and empty nodes 8.1, with the label they have.
      unanswerable: some questions have no answer (SQuAD 2.0).
      score_range: lowest and highest score of a regression.
      dev_share: where there is no dev split, one in so many groups of training examples (those
        with the same first text) is it; 0: none.
      recipe: settings of fine-tuning that differ from the default recipe.
      source, licence, how_to_get: for people.
      download: what data_prep.download_tasks fetches; empty: nothing can be fetched.
      bundled: the files are inside the package.
    """

    name: str
    kind: str = ""
    title: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    layout: str = "table"
    columns: Mapping[str, Any] = field(default_factory=dict)
    separator: str = ""
    header: bool = True
    encoding: str = "utf-8"
    filter: Mapping[str, str] = field(default_factory=dict)
    split_column: str = ""
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    label_aliases: Mapping[str, str] = field(default_factory=dict)
    metric: str = ""
    metrics: tuple[str, ...] = ()
    scheme: str = "none"
    symmetric: bool = False
    drop_texts: tuple[str, ...] = ()
    conllu_multiword: bool = False
    unanswerable: bool = False
    score_range: tuple[float, float] = (0.0, 1.0)
    dev_share: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    how_to_get: str = ""
    download: tuple[Mapping[str, Any], ...] = ()
    bundled: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        _one_of(self.kind, METRICS, "kind")
        _one_of(self.layout, LAYOUTS[self.kind], "layout")
        _one_of(self.scheme, SCHEMES, "scheme")
        _one_of(self.encoding, ENCODINGS, "encoding")
        for metric in self.all_metrics:
            _one_of(metric, METRICS[self.kind], "metric")
        for role in self.columns:
            _one_of(role, COLUMNS[self.kind], "columns")
        for split in (*self.files, *self.overrides):
            _one_of(split, SPLITS, "files and overrides")
        for split, settings in self.overrides.items():
            for key in settings:
                _one_of(key, _PER_SPLIT, "overrides")
            self.of_split(split)
        self._check_columns()
        self._check_labels()
        if self.symmetric and "text_pair" not in self.columns:
            raise UsageError("symmetric=true: expected two texts (a column text_pair)")
        if self.kind == "regression" and not (
                len(self.score_range) == 2 and self.score_range[0] < self.score_range[1]):
            raise UsageError(f"score_range={list(self.score_range)}: expected [lowest, highest]")

    def _check_columns(self) -> None:
        for role in COLUMNS[self.kind]:
            if role not in self.columns and role != "text_pair":
                raise UsageError(f'columns={dict(self.columns)}: expected one for "{role}"')
        for role, column in self.columns.items():
            names = column if isinstance(column, tuple) else (column,)
            if not names or not all(type(name) in (str, int) for name in names):
                raise UsageError(f'columns: "{role}": {column!r}: expected a name or a number')

    def _check_labels(self) -> None:
        if self.kind not in ("tagging", "classification"):
            return
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise UsageError(f"labels={list(self.labels)}: expected two or more different names")
        for alias, label in self.label_aliases.items():
            if label not in self.labels:
                raise UsageError(f'label_aliases: "{alias}" stands for "{label}", which is no label'
                                 f"{nearest_hint(label, self.labels)}")
        if self.scheme != "none":
            if "O" not in self.labels:
                raise UsageError(f"scheme={self.scheme}: expected a label O")
            for label in self.labels:
                if label != "O" and (label[:1] not in SCHEMES[self.scheme] or label[1:2] != "-"):
                    raise UsageError(f'scheme={self.scheme}: label "{label}": expected O or '
                                     f"{', '.join(f'{c}-…' for c in SCHEMES[self.scheme])}")
        elif {"entity_f1", "entity_f1_strict"} & set(self.all_metrics):
            raise UsageError(f"metric={self.metric}: expected a scheme of entities, IOB2 or IOBES")
        if "binary_f1" in self.all_metrics and len(self.labels) != 2:
            raise UsageError("metric=binary_f1: expected two labels")

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """The headline, then the others."""
        return (self.metric, *(name for name in self.metrics if name != self.metric))

    @property
    def label_ids(self) -> dict[str, int]:
        return {label: i for i, label in enumerate(self.labels)}

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that can be read, `dev` out of `train` included."""
        return tuple(split for split in SPLITS
                     if split in self.files or (split == "dev" and self.dev_share))

    def of_split(self, split: str) -> "Task":
        """The task with the settings that the files of `split` have."""
        return dataclasses.replace(self, **self.overrides.get(split, {}), overrides={})


def tasks_dir() -> str:
    """The folder of the shipped tasks: inside an installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.abspath(electra_es.__file__))
    inside = os.path.join(package, "hparams", "tasks")
    return inside if os.path.isdir(inside) else os.path.join(
        os.path.dirname(package), "hparams", "tasks")


def task_names() -> list[str]:
    """Names of the shipped tasks."""
    return sorted(name.removesuffix(".json") for name in os.listdir(tasks_dir())
                  if name.endswith(".json"))


def load_task(name_or_path: str) -> Task:
    """Loads a shipped task by name, or any by the path of its JSON file.

    Raises:
      UsageError: no such task (the nearest name is given), no JSON, an unknown or wrong setting.
    """
    path = name_or_path
    if not path.endswith(".json"):
        path = os.path.join(tasks_dir(), f"{name_or_path}.json")
        if name_or_path not in task_names():
            raise UsageError(f"task={name_or_path}: expected a JSON file or one of "
                             f"{', '.join(task_names())}{nearest_hint(name_or_path, task_names())}")
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except OSError as error:
        raise UsageError(f"task={path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path}: expected a JSON object, not {type(values).__name__}")
    values = {key: value for key, value in values.items() if not key.startswith("_")}
    if "name" in values:
        raise UsageError(f'{path}: unknown setting "name": a task has the name of its file')
    if not values.get("files"):
        raise UsageError(f'{path}: files={{}}: expected a name or pattern for "train", "dev" or "test"')
    values["name"] = os.path.basename(path).removesuffix(".json")
    try:
        return task_from_json(values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def task_from_json(values: Mapping[str, Any]) -> Task:
    """The task of JSON values: of a task's file with its name, or of `dataclasses.asdict`.

    Raises:
      UsageError: an unknown or wrong setting.
    """
    frozen = {key: _frozen(value) for key, value in values.items()}
    return from_dict(Task, frozen)  # type: ignore[type-var]


def default_data_dir(task: Task) -> str:
    """Where the files of a bundled task are; an empty string for the others."""
    return sample.TAGGING_DIR if task.bundled else ""


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    if isinstance(value, dict):
        return {key: _frozen(part) for key, part in value.items()}
    return value


def _one_of(value: str, known: Any, name: str) -> None:
    if value not in known:
        raise UsageError(f'{name}: "{value}": expected one of {", ".join(known)}'
                         f"{nearest_hint(value, known)}")


def _check_types(task: Task) -> None:
    """JSON may hold anything: a list where a name is expected, say."""
    for item in dataclasses.fields(Task):
        value = getattr(task, item.name)
        default = "" if item.name == "name" else item.default
        expected: Any = dict if default is dataclasses.MISSING else type(default)
        if (expected is tuple and isinstance(value, str)) or not isinstance(value, expected):
            raise UsageError(f"{item.name}={value!r}: expected {_JSON_NAMES[expected]}")
    for name in ("files", "filter", "label_aliases"):
        for key, value in getattr(task, name).items():
            if not isinstance(value, str):
                raise UsageError(f'{name}: "{key}": {value!r}: expected a text')
    for split, settings in task.overrides.items():
        if not isinstance(settings, dict):
            raise UsageError(f'overrides: "{split}": {settings!r}: expected an object')
    for name in ("labels", "metrics", "drop_texts"):
        for value in getattr(task, name):
            if not isinstance(value, str):
                raise UsageError(f"{name}: {value!r}: expected a text")


_JSON_NAMES = {str: "a text", bool: "true or false", int: "a whole number", tuple: "a list",
               dict: "an object"}
