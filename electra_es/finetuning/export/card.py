"""The model card of a fine-tuned model."""

import dataclasses
import json
import os
import pathlib
import re
from typing import Any

from electra_es import __version__, files
from electra_es.errors import UsageError
from electra_es.export.model_card import CardOptions
from electra_es.export.model_card.card import read_notes, render
from electra_es.finetuning.export.transformers_form import ARCHITECTURES
from electra_es.finetuning.results import TRIAL_FILE
from electra_es.finetuning.saved import Finetuned

TEMPLATES = pathlib.Path(__file__).parent / "templates"
PIPELINES = {"tagging": "token-classification", "classification": "text-classification",
             "regression": "text-classification", "question_answering": "question-answering"}
# Settings of fine-tuning that its card shows.
_SHOWN = ("epochs", "train_batch_size", "learning_rate", "warmup_fraction", "lr_schedule", "layer_decay",
          "weight_decay", "head_dropout", "max_seq_length", "seed", "protocol", "keep")


def finetuned_card(finetuned: Finetuned, model_dir: str, *, options: CardOptions, parameters: int
                   ) -> str:
    """The text of `README.md`.

    Args:
      finetuned: the model.
      model_dir: its directory; scores are those of `trial.json` beside it, if it is there.
      options: see `CardOptions`.
      parameters: of the exported model.

    Raises:
      UsageError: the notes cannot be read.
    """
    task, trial = finetuned.task, _trial(model_dir)
    settings = dataclasses.asdict(finetuned.config)
    return render(
        "finetuned_card.md", [TEMPLATES], name=options.name or f"electra-es-{task.name}",
        options=options, quoted=json.dumps, task=task,
        kind=task.kind.replace("_", " "), architecture=ARCHITECTURES[task.kind],
        pipeline=PIPELINES[task.kind], pairs="text_pair" in task.columns,
        pretrained=_without_folders(finetuned.pretrained), parameters=parameters,
        settings=[(name, str(settings[name])) for name in _SHOWN], length=finetuned.config.max_seq_length,
        metrics=[(name, f"{value:.4f}") for name, value in trial.get("metrics", {}).items()],
        one_class=trial.get("one_class", []), threshold=trial.get("threshold"),
        notes=read_notes(options.notes), version=__version__, is_recorded=True, part="finetuned")


def _trial(model_dir: str) -> dict[str, Any]:
    path = os.path.join(os.path.dirname(os.path.abspath(model_dir)), TRIAL_FILE)
    try:
        values = files.read_json(path) if files.exists(path) else {}
    except UsageError:
        return {}
    return values if isinstance(values, dict) else {}


def _without_folders(origin: str) -> str:
    """Folders of this machine are left out, because a card is published; a name on the hub stays."""
    path, comma, rest = origin.partition(", ")
    return (path if re.fullmatch(r"[\w.-]+/[\w.-]+", path) else os.path.basename(path)) + comma + rest
