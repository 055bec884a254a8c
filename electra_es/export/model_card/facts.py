"""What a run recorded, as rows (name, value) for the tables of the model card."""

import os
from collections.abc import Iterable
from typing import Any

from electra_es.export.huggingface.names import Part, part_sizes
from electra_es.monitoring.metrics_log import Line, RunLog
from electra_es.run_config import Run

Rows = list[tuple[str, str]]

_OBJECTIVES = {"electra": "replaced-token detection (ELECTRA)",
               "mlm": "masked language model (BERT)",
               "electric": "noise-contrastive estimation (Electric)"}
_KINDS = {"wordpiece": "WordPiece", "sentencepiece": "SentencePiece"}
_PACKING = {"documents": "short documents are joined, with [SEP] between",
            "none": "each example is from one document"}
_DETECTION = {
    "disc_auc": "Area under the ROC curve (0.5 is chance)",
    "floor_disc_auc": "Area under the curve of counting: each token scored by how rare it is in the "
                      "training text",
    "disc_auc_above_floor": "Area above that of counting; what it has learnt beyond counts",
    "disc_accuracy": "Accuracy over all tokens",
    "always_original": "Accuracy if it took every token for original",
    "disc_precision": "Precision: share of the tokens it flags that are replaced",
    "disc_recall": "Recall: share of the replaced tokens that it flags",
    "disc_loss": "Loss (binary cross-entropy per token)",
}
_MASKED_LM = {
    "masked_lm_accuracy": "Accuracy of the best guess for a masked token",
    "sampled_masked_lm_accuracy": "Accuracy of a token sampled from its distribution",
    "masked_lm_loss": "Loss (cross-entropy per masked token)",
    "floor_masked_lm_loss": "Loss of counting: [MASK] predicted by shares of the training text",
}


def configuration(part: Part, run: Run, parameters: int) -> Rows:
    sizes = part_sizes(part, run.model)
    return [
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


def corpora(log: RunLog) -> list[Rows]:
    """One table for each data set that the run has trained on, in their order."""
    by_fingerprint: dict[str, dict[str, Any]] = {}
    for line in log.starts:
        data = line.get("data") or {}
        by_fingerprint[data.get("fingerprint", "")] = data
    return [rows for data in by_fingerprint.values() if (rows := _corpus(data))]


def _corpus(data: dict[str, Any]) -> Rows:
    rows: Rows = []
    if source := data.get("input"):
        names = ", ".join(source["names"][:3]) + (", …" if source["files"] > 3 else "")
        rows.append(("Files", f"{source['files']:,} ({_size(source['bytes'])}): {names}"))
    if digest := data.get("sources_sha256"):
        rows.append(("Hash of the files", f"`{digest}`: SHA-256 over the checksums in `info.json` of the "
                     "records"))
    if "documents" in data:
        rows += [
            ("Documents kept", f"{data['documents']:,}, held-out ones included"),
            ("Documents dropped", _counts(data["dropped_documents"])),
            ("Documents that could not be read", _counts(data["bad_input"])),
            ("Text", f"{_size(data['text_bytes'])} of UTF-8"),
            ("Tokens", f"{data['tokens']:,}, of which {data['dropped_tokens']:,} are in no example"),
            ("Unknown tokens", f"{100 * data['unk_fraction']:.3g} %"),
        ]
    if settings := data.get("settings"):
        rows += _cleaning(settings)
    if examples := data.get("examples"):
        rows.append(("Examples", f"{examples.get('train', 0):,} for training, "
                                 f"{examples.get('validation', 0):,} held out"))
    return rows


def _cleaning(settings: dict[str, Any]) -> Rows:
    kept = []
    if settings["language"]:
        how = "as its corpus says" if settings["language_detector"] == "none" else (
            f"as its corpus or {settings['language_detector']} says")
        kept.append(f'language "{settings["language"]}" ({how}; probability at least '
                    f'{settings["min_language_probability"]:g})')
    if settings["min_chars"]:
        kept.append(f"at least {settings['min_chars']:,} characters")
    if settings["drop_quality_warnings"]:
        kept.append(f"without the warnings {', '.join(settings['drop_quality_warnings'])}")
    if quality := settings.get("quality"):
        kept.append(f"by the rules {quality} on repetition and quality")
    if settings.get("decontaminated"):
        kept.append("without a run of 13 words of the task files given")
    duplicates = {"none": "kept", "exact": "dropped where the text is the same",
                  "near": "dropped where the Jaccard similarity of word 5-grams is "
                          f"{settings['near_duplicate_threshold']:g} or more"}
    if settings.get("max_copies", 1) > 1 and settings["dedup"] != "none":
        duplicates[settings["dedup"]] += f", except for {settings['max_copies']:,} copies"
    packing = _PACKING.get(settings["packing"], settings["packing"])
    return [("Filter", "; ".join(kept) or "none but for empty documents"),
            ("Duplicates", duplicates[settings["dedup"]]),
            ("Packing", packing if settings["scheme"] == "carry_over" else "as Google's builder")]


def preprocessing(run: Run) -> Rows:
    text = run.text
    return [
        ("Normal form", text.unicode_form),
        ("Letter case", "lower-cased" if text.lower_case else "kept"),
        ("Accents", "stripped from text before tokenising" if text.strip_accents else "kept"),
        ("Tokeniser", f"{_KINDS[text.tokenizer]} with {text.vocab_size:,} entries"),
    ]


def pretraining(run: Run, log: RunLog, step: int, watts: float) -> Rows:
    """How the weights of `step` were trained; `log` ends at that step."""
    p, model = run.pretraining, run.model
    restarts = f", restarts after {list(p.restart_steps)}" if p.restart_steps else ""
    rows: Rows = [("Objective", _OBJECTIVES[model.objective])]
    if model.objective != "mlm":
        rows.append(("Loss", f"generator × {model.generator_weight:g} + discriminator × "
                             f"{model.discriminator_weight:g}"))
    rows += [
        ("Selected tokens", f"{model.mask_prob:.0%} ({model.masking})"),
        ("Steps", f"{step:,} of {p.num_train_steps:,}"),
        ("Batch", f"{p.train_batch_size} sequences of up to {p.max_seq_length} tokens"),
        ("Tokens seen", _tokens_seen(run, log, step)),
        *_epochs(run, log, step),
        ("Learning rate", f"{p.learning_rate:g}, {p.lr_schedule} decay times warm-up of "
                          f"{p.warmup_steps:,} steps{restarts}"),
        ("Adam", f"β1 {p.adam_beta1:g}, β2 {p.adam_beta2:g}, ε {p.adam_epsilon:g}, weight decay "
                 f"{p.weight_decay:g}"),
        ("Precision, seed", f"{p.precision}, {p.seed}"),
    ]
    if origins := _distinct(line.get("initial_weights", "") for line in log.starts):
        rows.append(("Initial weights", "; ".join(map(_without_folders, origins))))
    devices = _distinct(line.get("devices", "") for line in log.starts)
    rows.append(("Hardware", "; then ".join(devices) or "not recorded"))
    hours = (log.training_seconds() or 0.0) / 3600
    time = f"{hours:.3g} h" if hours >= 0.1 else f"{60 * hours:.3g} min"
    rows.append(("Training time", f"{time}, validation and restarts left out" if hours
                 else "not measured"))
    rows.append(("Energy", f"{hours * watts / 1000:.3g} kWh at a mean of {watts:g} W"
                 if watts and hours else "not measured"))
    return rows


def measured(part: Part, evaluation: Line) -> Rows:
    """The part's own metrics of an evaluation, with labels for readers."""
    names = _DETECTION if part == "discriminator" else _MASKED_LM
    values = dict(evaluation)
    if "replaced_share" in values:
        values["always_original"] = 1 - values["replaced_share"]
    return [(label, f"{values[name]:.4f}") for name, label in names.items() if name in values]


def exam(part: Part, log: RunLog) -> Rows:
    """The part's last exam of minimal pairs, and what counting reaches; empty without one."""
    if not log.exams or not (share := log.exams[-1]["all"][part]):
        return []
    step, every = log.exams[-1]["step"], log.exams[-1]["all"]
    rows = [(f"Share of {every['pairs']:,} pairs in which it prefers the right word, at step {step:,} "
             "(0.5 is chance)", _share(share))]
    if counting := every["frequency"]:
        rows.append(("Share in which the right word is the more frequent one in the training text",
                     _share(counting)))
    return rows


def _share(share: dict[str, float]) -> str:
    return f"{share['accuracy']:.4f} ({share['low']:.3f} to {share['high']:.3f})"


def _tokens_seen(run: Run, log: RunLog, step: int) -> str:
    counted = log.tokens()
    if counted is None:
        p = run.pretraining
        return f"at most {step * p.train_batch_size * p.max_seq_length:,} (padding counted)"
    return f"{counted:,.0f} (padding left out, repeated epochs counted)"


def _epochs(run: Run, log: RunLog, step: int) -> Rows:
    """Empty if the number of examples is unknown or has changed."""
    numbers = {line["data"]["examples"].get("train", 0) for line in log.starts
               if line.get("data", {}).get("examples")}
    if len(numbers) != 1 or not (examples := numbers.pop()):
        return []
    return [("Epochs", f"{step * run.pretraining.train_batch_size / examples:.3g}")]


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _without_folders(line: str) -> str:
    """Removes folders of this machine, because a card is published."""
    return " ".join(os.path.basename(word) or word for word in line.split(" "))


def _counts(by_reason: dict[str, int]) -> str:
    total = sum(by_reason.values())
    if not total:
        return "0"
    reasons = ", ".join(f"{reason.replace('_', ' ')} {count:,}"
                        for reason, count in by_reason.items())
    return f"{total:,} ({reasons})"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
