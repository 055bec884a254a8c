"""The exam of a model in any form: model directory, Hugging Face folder, SavedModel, ONNX folder."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from electra_es import files
from electra_es.data.records import read_id_counts
from electra_es.detect.scoring import hugging_face_folder, load_detector
from electra_es.errors import UsageError, warn
from electra_es.export.huggingface.read import load_folder, read_source_configs
from electra_es.export.output import read_origin
from electra_es.export.saved_model.text_model import usable_length
from electra_es.minimal_pairs.detector import examine_detector
from electra_es.minimal_pairs.pairs import Pair
from electra_es.minimal_pairs.results import ExamResult
from electra_es.minimal_pairs.scoring import make_exam
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.run_config import CONFIG_FILE, Run
from electra_es.text.tokenizer import Tokenizer
from electra_es.training.checkpoint_files import completed_steps
from electra_es.training.checkpoints import restore_weights
from electra_es.training.run_dir import load_model


class Examined(NamedTuple):
    """The exam of one set of weights; `step` is None where it is not known."""

    step: int | None
    result: ExamResult

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, **self.result.to_json()}


def examine(path: str, pairs: Sequence[Pair], *, records: str = "", every_step: bool = False
            ) -> list[Examined]:
    """Examines the model at `path`.

    Args:
      path: a model directory, a Hugging Face folder, a SavedModel or an ONNX folder. The last two have no
        generator that can be asked for any word, and no ids that could be counted.
      pairs: see `load_pairs`.
      records: a records directory (or a model directory) with the counts of ids; empty: the model
        directory's own, if it has them.
      every_step: whether to examine each checkpoint of a model directory, in order; else the newest.

    Raises:
      UsageError: no such model, or what was asked for has no effect on this form of it.
    """
    is_graph = any(files.exists(os.path.join(path, name)) for name in ("saved_model.pb", "model.onnx"))
    is_folder = not is_graph and hugging_face_folder(path) is not None
    is_run = not (is_graph or is_folder) and files.exists(os.path.join(path, CONFIG_FILE))
    if every_step and not is_run:
        raise UsageError(f"--steps=all: {path} has no checkpoints: expected a model directory")
    if is_run:
        return _examine_run(path, pairs, records, every_step)
    if is_folder:
        source = load_folder(path)
        exam = _exam(source.model, source.tokenizer, source.run, pairs, records,
                     has_generator="generator" in source.configs)
        return [Examined(_step_of(path), exam())]
    if records:
        raise UsageError(f"--records={records}: {path} does not tell the ids of its tokens: expected a "
                         "model directory or a Hugging Face folder")
    detector = load_detector(path)
    return [Examined(detector.step, examine_detector(detector, pairs))]


def _examine_run(model_dir: str, pairs: Sequence[Pair], records: str, every_step: bool) -> list[Examined]:
    model, tokenizer, run, newest = load_model(model_dir)
    # An imported discriminator has a new generator beside it, which has not learnt anything yet.
    configs = read_source_configs(model_dir)
    exam = _exam(model, tokenizer, run, pairs, records or model_dir,
                 has_generator=not configs or "generator" in configs or newest > 0)
    if not every_step:
        return [Examined(newest, exam())]
    examined = []
    for step in completed_steps(model_dir):
        try:
            restore_weights(model_dir, model, step)
        except UsageError as error:  # damaged, or deleted by a run that goes on meanwhile
            warn(f"{error}: left out")
            continue
        examined.append(Examined(step, exam()))
    if not examined:
        raise UsageError(f"{model_dir}/checkpoints: expected at least one that can be read")
    return examined


def _exam(model: ElectraPretrainer, tokenizer: Tokenizer, run: Run, pairs: Sequence[Pair], records: str,
          has_generator: bool) -> Callable[[], ExamResult]:
    counts = read_id_counts(records, len(tokenizer.vocab)) if records else None
    return make_exam(model, tokenizer, pairs, max_length=usable_length(run), id_counts=counts,
                     has_generator=has_generator)


def _step_of(folder: str) -> int | None:
    origin = read_origin(folder) or read_origin(os.path.join(folder, "discriminator"))
    return origin.step if origin else None
