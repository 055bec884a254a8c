"""The text of a model card, from its templates."""

import json
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from electra_es import __version__
from electra_es.errors import UsageError
from electra_es.export.huggingface.names import Part, parts_of
from electra_es.export.model_card import facts
from electra_es.export.model_card.results import read_results, results_table
from electra_es.monitoring.metrics_log import RunLog
from electra_es.run_config import Run
from electra_es.text.audit import audit
from electra_es.text.tokenizer import Tokenizer

EXAMPLE = "Estamos desayunando pan rosa con tomate y aceite de oliva."
TEMPLATES = pathlib.Path(__file__).parent / "templates"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class CardOptions:
    """Facts that a run does not know.

    Attributes:
      name: of the model, as in the usage example; a repository of the Hub or a path.
      licence: its identifier at the Hub, such as "apache-2.0"; empty: none is stated.
      datasets: identifiers of the data sets it was trained on.
      watts: mean power of the machine during training; 0: not measured.
      results: paths of fine-tuning results (see `read_results`).
      notes: path of a Markdown file: authors, contact, funding, acknowledgements.
    """

    name: str = ""
    licence: str = ""
    datasets: tuple[str, ...] = ()
    watts: float = 0.0
    results: tuple[str, ...] = ()
    notes: str = ""


def model_card(part: Part, run: Run, tokenizer: Tokenizer, *, options: CardOptions, step: int,
               parameters: int, log: RunLog, example: Sequence[tuple[str, float]]) -> str:
    """The text of a part's `README.md`.

    Args:
      part: which of the two models it is about.
      run: configuration.
      tokenizer: its vocabulary is audited.
      options: see `CardOptions`.
      step: of the weights.
      parameters: of this part.
      log: of the run; lines of later steps are ignored.
      example: tokens of `EXAMPLE` and their logits; empty without a discriminator.

    Raises:
      UsageError: a file of fine-tuning results or notes cannot be read or has another format.
    """
    log = log.up_to(step)
    names = _names(options.name or f"electra-es-{run.model.model_size}")
    results = read_results(options.results) if part == "discriminator" else {}
    evaluation = log.evaluations[-1] if log.evaluations else None
    return render(
        "card.md", part=part, name=names[part], run=run, options=options, quoted=json.dumps, step=step,
        other=_other(part, run, names), audit=audit(tokenizer), example_text=EXAMPLE,
        example="\n".join(f"{token:<15}{logit:6.2f}" for token, logit in example),
        configuration=facts.configuration(part, run, parameters),
        corpora=facts.corpora(log), preprocessing=facts.preprocessing(run),
        is_recorded=bool(log.training),
        pretraining=facts.pretraining(run, log, step, options.watts),
        evaluation=evaluation, measured=facts.measured(part, evaluation) if evaluation else [],
        exam=facts.exam(part, log),
        results=results_table(names[part], parameters, results) if results else [],
        notes=read_notes(options.notes), version=__version__)


def render(template: str, folders: Sequence[pathlib.Path] = (), **values: Any) -> str:
    """The Markdown of a template in one of `folders` or in this package's.

    Nothing is escaped, because Markdown is not HTML. huggingface_hub.ModelCardData is not used for the
    metadata: then every export would need the packages of the Hub, and not only --push_to_hub.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, TEMPLATES]), trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    text = environment.get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _names(name: str) -> dict[Part, str]:
    return {"discriminator": name, "generator": f"{name}-generator"}


def _other(part: Part, run: Run, names: dict[Part, str]) -> dict[str, str]:
    """Part, name and link of the other exported model; empty if there is none."""
    others = [other for other in parts_of(run.model) if other != part]
    if not others:
        return {}
    name = names[others[0]]
    link = f"https://huggingface.co/{name}" if _REPOSITORY.fullmatch(name) else f"../{others[0]}"
    return {"part": others[0], "name": name, "link": link}


def read_notes(path: str) -> str:
    """The publisher's Markdown; empty without a path."""
    if not path:
        return ""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"--notes={path}: cannot be read as text ({error})") from None
