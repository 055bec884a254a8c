"""Scores of tokens (how much each looks replaced), and their output as text or JSON."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es import files
from electra_es.errors import UsageError, quiet_libraries
from electra_es.export.output import read_origin
from electra_es.export.saved_model.text_model import Tensors, TextModel, usable_length
from electra_es.run_config import CONFIG_FILE
from electra_es.text.offsets import character_map, find_normalizer
from electra_es.text.tokenizer import Tokenizer
from electra_es.training.run_dir import load_model

BATCH_SIZE = 32
COLUMNS = ("sentence", "word", "token", "start", "end", "logit", "probability")


class ScoredToken(NamedTuple):
    """A token and how much it looks replaced."""

    token: str
    word: int  # number of its word in the sentence, from 0
    start: int  # characters of the sentence as it was given, end exclusive
    end: int
    logit: float  # above 0: classified as replaced
    probability: float


class ScoredSentence(NamedTuple):
    """A sentence and its tokens."""

    text: str  # as it was given; U+FFFD for what is no Unicode
    tokens: list[ScoredToken]  # without [CLS] and [SEP]
    truncated: bool  # whether it was longer than the model reads, and cut off


Detector = Callable[[Sequence[str]], list[ScoredSentence]]


@dataclass(frozen=True)
class LoadedDetector:
    """A discriminator that was loaded; a call with sentences scores their tokens."""

    function: Callable[..., Tensors]  # `detect` of a TextModel
    step: int | None  # of its checkpoint; None: not known

    def __call__(self, sentences: Sequence[str]) -> list[ScoredSentence]:
        return _score(self.function, sentences)


def load_detector(path: str) -> LoadedDetector:
    """Loads a discriminator.

    Args:
      path: a model directory, a SavedModel, an ONNX folder or a Hugging Face folder (of the
        discriminator, or one with `discriminator/` in it).

    Raises:
      UsageError: `path` is none of these, or has no discriminator.

    Example, after `make demo`:

        >>> from electra_es import load_detector
        >>> detector = load_detector("runs/sample/saved_model")
        >>> sentence, = detector(["El niño comió piña."])
        >>> [token.token for token in sentence.tokens]
        ['El', 'ni', '##ño', 'com', '##ió', 'pi', '##ña', '.']
        >>> all(0 <= token.probability <= 1 for token in sentence.tokens)
        True
    """
    origin = read_origin(path) or read_origin(os.path.join(path, "discriminator"))
    step = origin.step if origin else None
    if files.exists(os.path.join(path, "saved_model.pb")):
        # Quiet as for `SentencePieceTokenizer`.
        with quiet_libraries(), files.no_pattern(path) as opened:
            signatures = tf.saved_model.load(opened).signatures
        if "detect" not in signatures:
            raise UsageError(f"--model={path}: a SavedModel without the signature detect: expected "
                             "one of electra_es.export.saved_model with a discriminator")
        return LoadedDetector(signatures["detect"], step)
    if files.exists(os.path.join(path, "model.onnx")):
        from electra_es.export.onnx_model.write import load_onnx

        return LoadedDetector(load_onnx(path).detect, step)
    if folder := hugging_face_folder(path):
        from electra_es.export.huggingface.read import load_folder

        source = load_folder(folder)
        model, tokenizer, run = source.model, source.tokenizer, source.run
    elif files.exists(os.path.join(path, CONFIG_FILE)):
        model, tokenizer, run, step = load_model(path)
    else:
        raise UsageError(f"--model={path}: expected a model directory, a SavedModel, a Hugging Face "
                         "folder or an ONNX folder")
    if model.discriminator_head is None:
        raise UsageError(f"--model={path}: objective={run.model.objective} has no discriminator: "
                         "expected a model with one")
    text_model = TextModel(model, tokenizer, usable_length(run))
    return LoadedDetector(text_model.functions["detect"], step)


def detect(path: str, sentences: Sequence[str]) -> list[ScoredSentence]:
    """Scores every token of `sentences` with the model at `path`; see `load_detector`."""
    return load_detector(path)(sentences)


def hugging_face_folder(path: str) -> str | None:
    """The folder to load: the discriminator's, which needs no generator, where there are both."""
    folder = os.path.join(path, "discriminator")
    if files.exists(os.path.join(folder, CONFIG_FILE)):
        return folder
    if files.exists(os.path.join(path, "generator", CONFIG_FILE)):
        return path
    try:
        return path if "model_type" in files.read_json(os.path.join(path, CONFIG_FILE)) else None
    except UsageError:
        return None


def _score(function: Callable[..., Tensors], sentences: Sequence[str]) -> list[ScoredSentence]:
    scored: list[ScoredSentence] = []
    for first in range(0, len(sentences), BATCH_SIZE):
        batch = sentences[first:first + BATCH_SIZE]
        # "ignore": Python strings may hold lone surrogates, which have no UTF-8 form.
        texts = [s.encode("utf-8", "ignore") for s in batch]
        outputs = {name: value.numpy() for name, value in function(texts=tf.constant(texts)).items()}
        normalizer = find_normalizer(batch, outputs["normalized"].tolist())
        for row, sentence in enumerate(batch):
            values = {name: value[row] for name, value in outputs.items()}
            scored.append(_sentence(values, sentence, normalizer))
    return scored


def _sentence(row: dict, given: str, normalizer: Tokenizer | None) -> ScoredSentence:
    """The tokens with their places in the text as it was given; without `normalizer`, in `normalized`."""
    if normalizer is None:
        given = row["normalized"].decode("utf-8")
        sizes = [len(character.encode()) for character in given]
        first = np.repeat(np.arange(len(given)), sizes)
        last = first + 1
    else:
        first, last = character_map(normalizer, given)

    def characters(start: int, end: int) -> tuple[int, int]:
        if end > start:
            return int(first[start]), int(last[end - 1])
        at = int(first[start]) if start < len(first) else len(given)  # a mark of SentencePiece
        return at, at

    tokens = [
        ScoredToken(token.decode("utf-8"), int(word), *characters(start, end), float(logit),
                    float(probability))
        for token, word, (start, end), logit, probability in zip(
            row["tokens"], row["words"], row["offsets"], row["logits"], row["probabilities"],
            strict=True)
        if word >= 0]
    return ScoredSentence(given.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), tokens,
                          bool(row["truncated"]))


def to_json(sentences: Sequence[ScoredSentence]) -> str:
    """A JSON list with one object per sentence; its tokens are objects too."""
    values = [{"text": s.text, "truncated": s.truncated, "tokens": [t._asdict() for t in s.tokens]}
              for s in sentences]
    return json.dumps(values, ensure_ascii=False, indent=2)


def to_table(sentences: Sequence[ScoredSentence]) -> str:
    """Tab-separated lines, one per token; sentences are numbered from 1."""
    lines = ["\t".join(COLUMNS)]
    for number, sentence in enumerate(sentences, start=1):
        lines += [f"{number}\t{t.word}\t{t.token}\t{t.start}\t{t.end}\t{t.logit:.4f}\t"
                  f"{t.probability:.4f}" for t in sentence.tokens]
    return "\n".join(lines)


def to_terminal(sentences: Sequence[ScoredSentence], width: int, colour: bool) -> str:
    """Tokens with their logits below, in columns that keep the pieces of a word together.

    Args:
      sentences: what to show.
      width: characters a line may have.
      colour: whether to colour tokens: red above a probability of 0.5, yellow above 0.25.
    """
    lines: list[str] = []
    for sentence in sentences:
        upper, lower, used = "", "", 0
        for word in _words(sentence.tokens):
            cells = [(t, max(len(t.token), len(f"{t.logit:.2f}"))) for t in word]
            size = sum(cell_width + 1 for _, cell_width in cells) + 1
            if used and used + size > width:
                lines += [upper.rstrip(), lower.rstrip(), ""]
                upper, lower, used = "", "", 0
            for token, cell_width in cells:
                upper += _paint(token, cell_width, colour) + " "
                lower += f"{token.logit:.2f}".ljust(cell_width) + " "
            upper, lower, used = upper + " ", lower + " ", used + size
        lines += [upper.rstrip(), lower.rstrip()]
        if sentence.truncated:
            lines.append("(the end of this sentence was left out: it is longer than the model reads)")
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def _words(tokens: Sequence[ScoredToken]) -> list[list[ScoredToken]]:
    words: list[list[ScoredToken]] = []
    for token in tokens:
        if words and words[-1][0].word == token.word:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _paint(token: ScoredToken, width: int, colour: bool) -> str:
    padding = " " * (width - len(token.token))
    code = "1;31" if token.probability > 0.5 else "33" if token.probability > 0.25 else ""
    return (f"\033[{code}m{token.token}\033[0m" if colour and code else token.token) + padding


def read_sentences(path: str) -> list[str]:
    """The lines of a UTF-8 file that are not blank; "-": standard input.

    Raises:
      UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        raise UsageError(f"--input={path}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"--input={path}:{number}: byte {error.start} of the line is not "
                             "UTF-8: expected UTF-8 text") from None
    return [line.strip() for line in data.decode("utf-8").split("\n") if line.strip()]
