"""Export of a fine-tuned model as a SavedModel that takes strings."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from electra_es import files
from electra_es.errors import quiet_libraries
from electra_es.export.compare import PROBES, Comparison, tokenized
from electra_es.export.output import Exported, new_directory, origin_of
from electra_es.export.saved_model.write import save
from electra_es.finetuning.examples import Question, TaggingExample, TextExample
from electra_es.finetuning.export.graph import TaskModel, Tensors, WholeTextModel
from electra_es.finetuning.export.questions_graph import QuestionModel
from electra_es.finetuning.export.tagging_graph import TaggingModel
from electra_es.finetuning.predict import outputs_for
from electra_es.finetuning.saved import FINETUNED_FILE, Finetuned, load_finetuned

Signatures = Mapping[str, Callable[..., Tensors]]

_TEXTS = tuple(text for text in PROBES if text)


def export_finetuned_saved_model(model_dir: str, output: str, *, overwrite: bool = False) -> Exported:
    """Writes a fine-tuned model as a SavedModel and compares it, reloaded, with its source.

    Args:
      model_dir: a fine-tuned model, the directory model/ of a trial.
      output: the directory to write; it appears when it is whole and checked.
      overwrite: whether an earlier SavedModel there may be replaced.

    Raises:
      UsageError: no such model, or `output` exists or cannot be written.
      CheckFailed: the reloaded SavedModel differs from the model; nothing is left behind.
    """
    finetuned = load_finetuned(model_dir)
    with new_directory(output, overwrite=overwrite, recognised_by="saved_model.pb") as scratch:
        module = task_model(finetuned)
        save(module, scratch)
        # Quiet as for `SentencePieceTokenizer`.
        with quiet_libraries(), files.no_pattern(scratch) as opened:
            signatures = tf.saved_model.load(opened).signatures
        compared = Comparison("the reloaded SavedModel")
        _compare(compared, finetuned, module, signatures)
        origin = origin_of(model_dir, finetuned.step, FINETUNED_FILE)
        origin.write(scratch)
    return Exported(list(module.functions), origin, compared.lines)


def task_model(finetuned: Finetuned) -> TaskModel:
    """The model in a graph, of the class for its kind."""
    return {"tagging": TaggingModel, "question_answering": QuestionModel}.get(
        finetuned.task.kind, WholeTextModel)(finetuned)


def _compare(compared: Comparison, finetuned: Finetuned, module: TaskModel, signatures: Signatures
             ) -> None:
    """Compares with the eager model, and with what `predict` makes of texts."""
    probes = tokenized(PROBES, finetuned.tokenizer, module.max_length)
    inputs = dict(zip(("input_ids", "input_mask", "segment_ids"), map(tf.constant, probes), strict=True))
    real = slice(None) if finetuned.task.kind in ("classification", "regression") else (
        probes.input_mask > 0)  # padding is not compared
    found, eager = signatures["score_ids"](**inputs), module.score_ids(**inputs)
    for name, values in eager.items():
        compared.close(f"{name} of score_ids", found[name].numpy()[real], values.numpy()[real])
    # Few rows a batch: there are few probes.
    few = finetuned._replace(config=dataclasses.replace(finetuned.config, eval_batch_size=4))
    {"tagging": _compare_words, "question_answering": _compare_answers}.get(
        finetuned.task.kind, _compare_texts)(compared, few, signatures)


def _compare_words(compared: Comparison, finetuned: Finetuned, signatures: Signatures) -> None:
    """Text to words is the graph's own; words to labels is `predict`'s as well."""
    texts = [text.encode() for text in _TEXTS]
    found = {name: value.numpy() for name, value in signatures["tag"](texts=tf.constant(texts)).items()}
    real = found["words"] != b""
    rows, _ = np.nonzero(real)
    cut = [texts[row][start:end] for row, (start, end) in zip(rows, found["offsets"][real], strict=True)]
    compared.equal("words of tag", found["words"][real], np.array(cut, object))
    label = finetuned.task.labels[0]
    sentences = [tuple(word.decode() for word in row[row != b""]) for row in found["words"]]
    expected = np.concatenate(outputs_for(finetuned, [
        TaggingExample(words, (label,) * len(words)) for words in sentences]))
    of_words = {name: value.numpy() for name, value in
                signatures["tag_words"](words=tf.constant(found["words"])).items()}
    for name, outputs in (("tag", found), ("tag_words", of_words)):
        compared.close(f"probabilities of {name}", outputs["probabilities"][real], expected)
        compared.equal(f"labels of {name}", outputs["labels"][real], _names(
            finetuned, outputs["probabilities"][real]))


def _compare_texts(compared: Comparison, finetuned: Finetuned, signatures: Signatures) -> None:
    texts = {"texts": _TEXTS}
    if "text_pair" in finetuned.task.columns:
        texts["text_pairs"] = _TEXTS[::-1]
    name = "classify" if finetuned.task.kind == "classification" else "rate"
    found = {key: value.numpy() for key, value in signatures[name](
        **{key: tf.constant(part) for key, part in texts.items()}).items()}
    label = finetuned.task.labels[0] if finetuned.task.labels else 0.0
    expected = np.array(outputs_for(finetuned, [
        TextExample(row, label) for row in zip(*texts.values(), strict=True)]))
    if name == "rate":
        compared.close("scores of rate", found["scores"], expected)
        return
    compared.close("probabilities of classify", found["probabilities"], expected)
    compared.equal("labels of classify", found["labels"], _names(finetuned, found["probabilities"]))


def _compare_answers(compared: Comparison, finetuned: Finetuned, signatures: Signatures) -> None:
    questions = [" ".join(text.split()[:4]) for text in _TEXTS]
    found = {name: value.numpy() for name, value in signatures["answer"](
        questions=tf.constant(questions), contexts=tf.constant(_TEXTS)).items()}
    expected = outputs_for(finetuned, [Question(str(i), question, text, ())
                                       for i, (question, text) in enumerate(
                                           zip(questions, _TEXTS, strict=True))])
    compared.close("scores of answer", found["scores"], np.array([one.score for one in expected]))
    compared.close("null_differences of answer", found["null_differences"],
                   np.array([one.null_difference for one in expected]))
    compared.equal("answers", found["answers"], np.array([
        text[start:end] for text, (start, end) in zip(found["normalized"], found["offsets"],
                                                      strict=True)], object))


def _names(finetuned: Finetuned, probabilities: np.ndarray) -> np.ndarray:
    names = np.array([label.encode() for label in finetuned.task.labels], object)
    return names[probabilities.argmax(axis=-1)]
