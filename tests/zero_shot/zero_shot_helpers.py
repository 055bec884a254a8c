"""A tiny model that was really fine-tuned for inference, and its Hugging Face folder."""

import functools
import json
import pathlib
import tempfile

from export_helpers import sentences, write_model_dir

from electra_es.config import from_dict
from electra_es.finetuning.export.huggingface import export_finetuned_huggingface
from electra_es.finetuning.finetune import finetune
from electra_es.finetuning.settings import FinetuningConfig
from electra_es.finetuning.tasks import load_task

LENGTH = 37  # some of the sentences are longer
CLASSES = ("entailment", "neutral", "contradiction")
SETTINGS = dict(max_seq_length=LENGTH, epochs=1, train_batch_size=12, learning_rate=1e-3,
                distribution="cpu", jit_compile="off", log_every=100)

_folder = tempfile.TemporaryDirectory(prefix="electra-es-tests-")


def texts() -> list[str]:
    """50 sentences of the sample."""
    return sentences()[::4]


@functools.cache
def model_dir(*, pair: bool = True) -> str:
    """The directory of a model that was fine-tuned on 36 lines; with one text instead of two, it is
    none of inference. Tests must not write into it."""
    root = pathlib.Path(_folder.name) / ("pair" if pair else "single")
    root.mkdir()
    pretrained = write_model_dir(root / "pretrained", "wordpiece")
    lines = []
    for i, text in enumerate(sentences()[:36]):
        words = text.split()
        hypothesis = [words[:3], words[::-1], sentences()[i + 40].split()][i % 3]
        lines.append("\t".join([text, " ".join(hypothesis), CLASSES[i % 3]]) + "\n")
    (root / "all.tsv").write_text("".join(lines), encoding="utf-8")
    columns = {"text": 0, "text_pair": 1, "label": 2} if pair else {"text": 0, "label": 2}
    (root / "tiny_inference.json").write_text(json.dumps({
        "kind": "classification", "files": {"train": "all.tsv", "dev": "all.tsv"}, "header": False,
        "columns": columns, "labels": CLASSES, "metric": "accuracy"}))
    finetune(load_task(str(root / "tiny_inference.json")), from_dict(FinetuningConfig, SETTINGS),
             model=str(pretrained), data_dir=str(root), output=str(root / "run"))
    return str(root / "run" / "trial-1" / "model")


@functools.cache
def published() -> pathlib.Path:
    """The Hugging Face folder of `model_dir()`. Tests must not write into it."""
    folder = pathlib.Path(_folder.name) / "published"
    export_finetuned_huggingface(model_dir(), str(folder))
    return folder
