"""The tokeniser as Hugging Face's files, and our text configuration from such files.

`tokenizer.json` repeats `text.Tokenizer` step by step. What reads it whole (`AutoTokenizer`, the
`tokenizers` library, transformers 4) gives our tokens. `ElectraTokenizerFast` of transformers 5
takes only the vocabulary from it and builds BERT's normaliser anew from `tokenizer_config.json`:
the same tokens for composed (NFC) text, but it composes nothing, and its limit for a word is 100
characters. It knows no SentencePiece; `AutoTokenizer` serves both.

`tokenizer.json` is written as a dictionary and not through the objects of `tokenizers`: those need
the package, which nothing else of the export does, are as many lines, and make the bytes depend on
its version. The tests read the file into these objects and get the same content back.
"""

import base64
import json
import os
import struct
from typing import Any, NamedTuple

from google.protobuf import empty_pb2, unknown_fields

from electra_es.config import SPECIAL_TOKENS, TextConfig
from electra_es.errors import UsageError, warn
from electra_es.text.tokenizer import DROPPED, MAX_BYTES_PER_WORD, Tokenizer
from electra_es.text.vocabulary import (
    CONTINUATION_PREFIX,
    TEXT_CONFIG_FILE,
    VOCAB_FILES,
    WORD_START,
    save_text_config,
)

_MARKS = r"\p{Mn}"
_WHITESPACE = r"[\t\n\r\p{Z}]"

# Numbers in sentencepiece_model.proto: types of pieces, and of models.
_NORMAL, _UNKNOWN, _BYTE = 1, 2, 6
_UNIGRAM = 1


class SentencePieceModel(NamedTuple):
    """The content of a `spm.model` that matters for tokenising."""

    pieces: list[tuple[str, float, int]]  # piece, score, type; by id
    model_type: int
    split_by_whitespace: bool
    charsmap: bytes  # the compiled normalisation rule; empty: identity
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """Reads a serialised `ModelProto`.

    It goes by field numbers. `sentencepiece.sentencepiece_model_pb2` was generated for a newer protobuf
    than TensorFlow allows, and cannot be imported together with it.
    """
    model = _fields(data)
    pieces = []
    for piece in model[1]:
        fields = _fields(piece)
        score = struct.unpack("<f", struct.pack("<I", fields.get(2, [0])[-1]))[0]
        pieces.append((fields[1][-1].decode("utf-8"), score, fields.get(3, [_NORMAL])[-1]))
    trainer, normalizer = _fields(model[2][-1]), _fields(model[3][-1])
    return SentencePieceModel(
        pieces, trainer.get(3, [_UNIGRAM])[-1], bool(trainer.get(22, [1])[-1]),
        normalizer.get(2, [b""])[-1], bool(normalizer.get(3, [1])[-1]),
        bool(normalizer.get(4, [1])[-1]))


def _fields(data: bytes) -> dict[int, list[Any]]:
    """The values of a serialised message by field number; messages within it stay bytes."""
    message = empty_pb2.Empty.FromString(data)
    found: dict[int, list[Any]] = {}
    for field in unknown_fields.UnknownFieldSet(message):
        found.setdefault(field.field_number, []).append(field.data)
    return found


def tokenizer_json(tokenizer: Tokenizer, vocab_data: bytes) -> dict[str, Any]:
    """Content of `tokenizer.json`; `vocab_data`: the bytes of the vocabulary file."""
    config = tokenizer.config
    normalizers = _normalizers(config)
    if config.tokenizer == "wordpiece":
        # BERT's normaliser only for the spaces around Chinese characters.
        normalizers.append({"type": "BertNormalizer", "clean_text": False, "lowercase": False,
                            "handle_chinese_chars": True, "strip_accents": False})
        pre_tokenizer: dict[str, Any] = {"type": "BertPreTokenizer"}
        decoder: dict[str, Any] = {"type": "WordPiece", "prefix": CONTINUATION_PREFIX, "cleanup": True}
        model: dict[str, Any] = {
            "type": "WordPiece", "unk_token": "[UNK]",
            "continuing_subword_prefix": CONTINUATION_PREFIX,
            "max_input_chars_per_word": MAX_BYTES_PER_WORD,
            "vocab": {piece: i for i, piece in enumerate(tokenizer.vocab)}}
    else:
        spm = read_sentencepiece(vocab_data)
        normalizers += _sentencepiece_normalizers(spm)
        pre_tokenizer = decoder = {
            "type": "Metaspace", "replacement": WORD_START, "split": spm.split_by_whitespace,
            "prepend_scheme": "always" if spm.add_dummy_prefix else "never"}
        model = _sentencepiece_model(spm)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": tokenizer.vocab.index(token), "content": token, "single_word": False,
             "lstrip": False, "rstrip": False, "normalized": False, "special": True}
            for token in SPECIAL_TOKENS],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer,
        "post_processor": _post_processor(tokenizer),
        "decoder": decoder,
        "model": model,
    }


def tokenizer_config(config: TextConfig, max_length: int) -> dict[str, Any]:
    """Content of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": config.lower_case,
        "strip_accents": config.strip_accents,
        "tokenize_chinese_chars": True,
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **{f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS},
    }


def _normalizers(config: TextConfig) -> list[dict[str, Any]]:
    """The steps of `Tokenizer.normalize`, in its order."""
    steps = [_replace(DROPPED, ""), _replace(_WHITESPACE, " ")]
    if config.unicode_form == "NFKC":
        steps.append({"type": "NFKC"})
    if config.lower_case:
        steps.append({"type": "Lowercase"})
    if config.strip_accents:
        steps += [{"type": "NFD"}, _replace(_MARKS, "")]
    return [*steps, {"type": config.unicode_form}]


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _sentencepiece_normalizers(spm: SentencePieceModel) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    if spm.charsmap:
        charsmap = base64.b64encode(spm.charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spm.remove_extra_whitespaces:
        steps += [{"type": "Strip", "strip_left": True, "strip_right": True}, _replace(" {2,}", " ")]
    return steps


def _sentencepiece_model(spm: SentencePieceModel) -> dict[str, Any]:
    types = [kind for _, _, kind in spm.pieces]
    unk_id, byte_fallback = types.index(_UNKNOWN), _BYTE in types
    if spm.model_type == _UNIGRAM:
        return {"type": "Unigram", "unk_id": unk_id, "byte_fallback": byte_fallback,
                "vocab": [[piece, score] for piece, score, _ in spm.pieces]}
    scores = {piece: score for piece, score, kind in spm.pieces if kind == _NORMAL}
    # SentencePiece stores no merges: it joins the neighbours whose union has the best score.
    merges = [(score, piece[:i], piece[i:]) for piece, score in scores.items()
              for i in range(1, len(piece)) if piece[:i] in scores and piece[i:] in scores]
    merges.sort(key=lambda merge: -merge[0])
    return {"type": "BPE", "dropout": None, "unk_token": spm.pieces[unk_id][0],
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": byte_fallback, "ignore_merges": False,
            "vocab": {piece: i for i, (piece, _, _) in enumerate(spm.pieces)},
            "merges": [[left, right] for _, left, right in merges]}


def _post_processor(tokenizer: Tokenizer) -> dict[str, Any]:
    def special(token: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": segment}}

    def sequence(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), special("[SEP]", 1)],
        "special_tokens": {
            token: {"id": token, "ids": [token_id], "tokens": [token]}
            for token, token_id in (("[CLS]", tokenizer.cls_id), ("[SEP]", tokenizer.sep_id))},
    }


def write_vocabulary(files: dict[str, bytes], target: str, where: str) -> None:
    """Writes a vocabulary directory from the files of a Hugging Face folder.

    A `text.json` among them, which our exports have, says how text is treated; else
    `tokenizer_config.json`, and for what that leaves open the normaliser of `tokenizer.json`. BERT's
    tokenisers strip accents if they lower-case, unless they say otherwise; where nothing is said, they do
    both, which a warning tells.

    Args:
      files: name -> content of those files of the folder that exist.
      target: the vocabulary directory, empty.
      where: the folder's name for messages.

    Raises:
      UsageError: no vocabulary, or settings that are not JSON or contradict each other.
    """
    settings = _object(files, "tokenizer_config.json", where)
    for name in (*VOCAB_FILES.values(), TEXT_CONFIG_FILE):
        if name in files:
            with open(os.path.join(target, name), "wb") as file:
                file.write(files[name])
    if TEXT_CONFIG_FILE in files:
        text = _object(files, TEXT_CONFIG_FILE, where)
        for theirs, ours in (("do_lower_case", "lower_case"), ("strip_accents", "strip_accents")):
            if theirs in settings and settings[theirs] != text.get(ours):
                raise UsageError(f"{where}: tokenizer_config.json has {theirs}={settings[theirs]}, "
                                 f"text.json has {ours}={text.get(ours)}: expected the same")
        return
    fast = _object(files, "tokenizer.json", where)
    if "vocab.txt" not in files:
        _write_vocab_txt(fast, target, where)
    normalizer = fast.get("normalizer") or {}
    text = _text_settings(normalizer)
    if "do_lower_case" in settings or "strip_accents" in settings:
        lower = settings.get("do_lower_case", text.get("lower_case", True))
        strip = settings.get("strip_accents", normalizer.get("strip_accents"))
        text |= {"lower_case": lower, "strip_accents": lower if strip is None else strip}
    elif not text:
        warn(f"{where}: neither tokenizer_config.json nor tokenizer.json says how text is treated: taken "
             "to be lower-cased and without accents, as BERT's is by default")
        text = {"lower_case": True, "strip_accents": True}
    save_text_config(target, TextConfig(**text))


def _text_settings(normalizer: dict[str, Any]) -> dict[str, Any]:
    """The settings of a text configuration that the normaliser of a `tokenizer.json` states; empty if
    there is none."""
    if not normalizer:
        return {}
    found: dict[str, Any] = {"lower_case": False, "strip_accents": False}
    for step in normalizer.get("normalizers", [normalizer]):
        kind = step.get("type")
        if kind == "BertNormalizer":
            lower, strip = step.get("lowercase", True), step.get("strip_accents")
            found["lower_case"] |= lower
            found["strip_accents"] |= lower if strip is None else strip
        found["lower_case"] |= kind == "Lowercase"
        found["strip_accents"] |= kind == "StripAccents" or (
            kind == "Replace" and step.get("pattern") == {"Regex": _MARKS})
        if kind == "NFKC":
            found["unicode_form"] = "NFKC"
    return found


def _write_vocab_txt(fast: dict[str, Any], target: str, where: str) -> None:
    model = fast.get("model") or {}
    if model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise UsageError(f"{where}: neither vocab.txt nor a tokenizer.json of type WordPiece: "
                         "expected a vocabulary")
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][piece] for piece in pieces] != list(range(len(pieces))):
        raise UsageError(f"{where}/tokenizer.json: the ids of its vocabulary have gaps: expected "
                         f"0 to {len(pieces) - 1}")
    with open(os.path.join(target, "vocab.txt"), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{piece}\n" for piece in pieces)


def _object(files: dict[str, bytes], name: str, where: str) -> dict[str, Any]:
    """A JSON object among `files`; empty if there is no such file."""
    try:
        values = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise UsageError(f"{where}/{name}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{where}/{name}: expected a JSON object, not {type(values).__name__}")
    return values
