"""The model card, `README.md`, made from what a run recorded.

Nothing in it is a promise: configuration and training come from `config.json` and `metrics.jsonl`,
the example and the vocabulary's audit are computed, and what was not measured is said to be so.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from electra_es.errors import UsageError
from electra_es.export.huggingface.names import Part, part_sizes
from electra_es.run_config import Run
from electra_es.text.audit import audit
from electra_es.text.tokenizer import Tokenizer

EXAMPLE = "Estamos desayunando pan rosa con tomate y aceite de oliva."

# Tasks, their metric, and published figures: SELECTRA's first model card (mean ± standard deviation
# of 5 trials), and the downstream table of the BERTIN project's card (POS accuracy and NER F1 on
# CoNLL-2002) for the others; BERTIN is its Gaussian-512.
TASKS = {"pos": "CoNLL-2002 POS (acc)", "ner": "CoNLL-2002 NER (F1)", "pawsx": "PAWS-X (acc)",
         "xnli": "XNLI (acc)"}
PUBLISHED = (
    ("SELECTRA small", "0.9653 ± 0.0007", "0.863 ± 0.004", "0.896 ± 0.002", "0.784 ± 0.002", "22M"),
    ("SELECTRA medium", "0.9677 ± 0.0004", "0.870 ± 0.003", "0.896 ± 0.002", "0.804 ± 0.002", "41M"),
    ("mBERT", "0.9689", "0.8616", "0.8895", "0.7606", "178M"),
    ("BETO", "0.9693", "0.8596", "0.8720", "0.8012", "110M"),
    ("BSC-BNE", "0.9706", "0.8764", "0.8815", "0.7771", "125M"),
    ("BERTIN", "0.9697", "0.8707", "0.8965", "0.7843", "125M"),
)


@dataclass(frozen=True)
class CardOptions:
    """What the run does not know of itself.

    Attributes:
      name: of the model, as in the usage example; a repository of the Hub or a path.
      licence: its identifier at the Hub, such as "apache-2.0"; empty: none is stated.
      datasets: identifiers of the data sets it was trained on.
      watts: mean power of the machine during training; 0: not measured.
      results: paths of fine-tuning results (see `read_results`).
    """

    name: str = ""
    licence: str = ""
    datasets: tuple[str, ...] = ()
    watts: float = 0.0
    results: tuple[str, ...] = ()


def model_card(part: Part, run: Run, tokenizer: Tokenizer, *, options: CardOptions, step: int,
               parameters: int, records: Sequence[dict[str, Any]],
               example: Sequence[tuple[str, float]]) -> str:
    """The text of a part's `README.md`.

    Args:
      part: which of the two models it is about.
      run: configuration.
      tokenizer: its vocabulary is audited.
      options: see `CardOptions`.
      step: of the weights.
      parameters: of this part.
      records: lines of `metrics.jsonl`.
      example: tokens of `EXAMPLE` and their logits; empty without a discriminator.

    Raises:
      UsageError: a file of fine-tuning results is not one.
    """
    name = options.name or f"electra-es-{run.model.model_size}"
    if part == "generator":
        name = f"{name}-generator"
    sections = [
        _metadata(part, options),
        f"# {name}\n\nThe {part} of a Spanish ELECTRA, written by electra-es. The discriminator tells "
        "original tokens from replaced ones and is the model to fine-tune; the generator fills masks "
        "and proposes the replacements.",
        _configuration(part, run, parameters),
        _usage(part, name, example),
        _training(run, step, records, options.watts),
        _vocabulary(run, tokenizer),
    ]
    if part == "discriminator":
        sections.append(_evaluation(name, parameters, read_results(options.results)))
    sections.append(_limits(run))
    return "\n\n".join(sections) + "\n"


def read_metrics(model_dir: str) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; none where there is no such file (an imported model)."""
    try:
        with tf.io.gfile.GFile(os.path.join(model_dir, "metrics.jsonl")) as file:
            return [json.loads(line) for line in file.read().splitlines() if line.strip()]
    except tf.errors.NotFoundError:
        return []
    except ValueError as error:
        raise UsageError(f"{model_dir}/metrics.jsonl: a line is not JSON ({error})") from None


def read_results(paths: Sequence[str]) -> dict[str, str]:
    """Fine-tuning results: task -> "mean ± standard deviation".

    Each file is a JSON object with `task` (one of `TASKS`), `mean` and `std`.

    Raises:
      UsageError: a file cannot be read or is not that.
    """
    results = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                values = json.load(file)
            task = values["task"]
            results[task] = f"{float(values['mean']):.4f} ± {float(values['std']):.4f}"
        except OSError as error:
            raise UsageError(f"--results={path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--results={path}: expected a JSON object with task, mean and std "
                             f"({type(error).__name__}: {error})") from None
        if task not in TASKS:
            raise UsageError(f'--results={path}: task="{task}": expected one of {", ".join(TASKS)}')
    return results


def _metadata(part: Part, options: CardOptions) -> str:
    lines = ["---", "language:", "- es"]
    if options.licence:
        lines.append(f"license: {json.dumps(options.licence)}")
    if options.datasets:
        lines += ["datasets:", *(f"- {json.dumps(name)}" for name in options.datasets)]
    lines += ["library_name: transformers", "tags:", "- electra", "- spanish"]
    if part == "generator":
        lines += ["pipeline_tag: fill-mask", "mask_token: \"[MASK]\""]
    return "\n".join([*lines, "---"])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _configuration(part: Part, run: Run, parameters: int) -> str:
    sizes = part_sizes(part, run.model)
    rows = [
        ("Layers", f"{sizes['num_layers']}"),
        ("Hidden size", f"{sizes['hidden_size']}"),
        ("Embedding size", f"{sizes['embedding_size']}"),
        ("Attention heads", f"{sizes['num_heads']}"),
        ("Feed-forward size", f"{sizes['intermediate_size']}"),
        ("Parameters", f"{parameters:,}"),
        ("Vocabulary", f"{run.text.vocab_size:,} ({run.text.tokenizer})"),
        ("Longest sequence", f"{run.pretraining.max_seq_length}"),
        ("Cased", "no" if run.text.lower_case else "yes"),
        ("Accents", "stripped" if run.text.strip_accents else "kept"),
    ]
    return "## Configuration\n\n" + _table(("", ""), rows)


def _usage(part: Part, name: str, example: Sequence[tuple[str, float]]) -> str:
    if part == "generator":
        return (f'## Usage\n\n```python\nfrom transformers import pipeline\n\n'
                f'fill_mask = pipeline("fill-mask", model="{name}")\n'
                'fill_mask("Estamos desayunando [MASK] con tomate.")\n```')
    code = (
        "from transformers import AutoTokenizer, ElectraForPreTraining\n\n"
        f'discriminator = ElectraForPreTraining.from_pretrained("{name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n\n'
        f'sentence = "{EXAMPLE}"\n'
        'inputs = tokenizer(sentence, return_tensors="pt")\n'
        "logits = discriminator(**inputs).logits.tolist()[0]\n\n"
        "for token, logit in zip(tokenizer.tokenize(sentence), logits[1:-1]):\n"
        '    print(f"{token:<15}{logit:6.2f}")  # above 0: taken for a replaced token\n')
    output = "\n".join(f"{token:<15}{logit:6.2f}" for token, logit in example)
    return f"## Usage\n\n```python\n{code}```\n\nOutput:\n\n```\n{output}\n```"


def _training(run: Run, step: int, records: Sequence[dict[str, Any]], watts: float) -> str:
    train = [record for record in records if record.get("kind") == "train"]
    if not train:
        return (f"## Training\n\nThe weights (step {step:,}) were imported; the run that made them is "
                "not recorded here.")
    p = run.pretraining
    restarts = f", restarts after {list(p.restart_steps)}" if p.restart_steps else ""
    rows = [
        ("Steps", f"{step:,} of {p.num_train_steps:,}"),
        ("Batch", f"{p.train_batch_size} sequences of up to {p.max_seq_length} tokens"),
        ("Learning rate", f"{p.learning_rate:g}, {p.lr_schedule} decay times warm-up of "
                          f"{p.warmup_steps:,} steps{restarts}"),
        ("Objective", f"{run.model.objective}, generator loss × {run.model.generator_weight:g}, "
                      f"discriminator loss × {run.model.discriminator_weight:g}"),
        ("Selected tokens", f"{run.model.mask_prob:.0%} ({run.model.masking})"),
        ("Precision, seed", f"{p.precision}, {p.seed}"),
    ]
    hours = _training_hours(train)
    rows.append(("Training time", f"{hours:.3g} h, validation and restarts left out"))
    rows.append(("Energy", f"{hours * watts / 1000:.3g} kWh at a mean of {watts:g} W" if watts
                 else "not measured"))
    text = "## Training\n\n" + _table(("", ""), rows)
    held_out = [record for record in records if record.get("kind") == "evaluation"]
    if held_out:
        last = held_out[-1]
        measured = [(key, f"{last[key]:.4f}") for key in sorted(last)
                    if isinstance(last[key], float) and key != "time"]
        text += (f"\n\nOn held-out text at step {last['step']:,}:\n\n"
                 + _table(("Metric", "Value"), measured))
    return text


def _training_hours(train: Sequence[dict[str, Any]]) -> float:
    """Sum over the lines of `metrics.jsonl`; of steps that were repeated after a crash the last
    line counts, and so the hours are those of the path that led to the weights."""
    by_step = {record["step"]: record["steps_per_second"] for record in train}
    seconds, previous = 0.0, 0
    for step in sorted(by_step):
        seconds += (step - previous) / by_step[step]
        previous = step
    return seconds / 3600


def _vocabulary(run: Run, tokenizer: Tokenizer) -> str:
    report = audit(tokenizer)
    accents = "stripped from text before tokenising" if run.text.strip_accents else "kept"
    return (f"## Vocabulary\n\nAccents are {accents}. Of {report.vocab_size:,} entries "
            f"{report.num_unreachable:,} can never be produced from text, {report.num_accented:,} of "
            "them with accents (audited with the tokeniser that training used). Text is brought to "
            f"{run.text.unicode_form} first.")


def _evaluation(name: str, parameters: int, results: dict[str, str]) -> str:
    if not results:
        return "## Evaluation\n\nNo fine-tuning results of this model are recorded."
    own = (f"**{name}**", *(results.get(task, "–") for task in TASKS),
           f"{parameters / 1e6:.0f}M" if parameters >= 1e6 else f"{parameters:,}")
    return ("## Evaluation\n\nMean ± standard deviation over trials of fine-tuning.\n\n"
            + _table(("Model", *TASKS.values(), "Parameters"), [own, *PUBLISHED])
            + "\n\nThe other figures are published ones: SELECTRA's from its model card, the rest from "
            "that of the BERTIN project. They were not repeated here, and set-ups differ.")


def _limits(run: Run) -> str:
    return ("## Limits\n\n"
            f"* Text beyond {run.pretraining.max_seq_length} tokens is cut off.\n"
            "* A high score says that a token is unlikely there in the eyes of this model, not that it "
            "is wrong.\n"
            "* The model reflects the texts it was trained on, their gaps and their prejudices "
            "included; it has not been tested for bias.\n"
            "* Trained on Spanish only.")
