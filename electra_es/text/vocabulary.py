"""Vocabulary directories: `vocab.txt` (one piece a line) or `spm.model`, and `text.json`, which says
how text is treated before it reaches the vocabulary. Imports no TensorFlow.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import sentencepiece

from electra_es import files
from electra_es.config import SPECIAL_TOKENS, TextConfig, from_dict
from electra_es.errors import UsageError

# SentencePiece would tell on stderr of every model without a normalisation of its own, as ours are.
sentencepiece.set_min_log_level(1)

TEXT_CONFIG_FILE = "text.json"
VOCAB_FILES = {"wordpiece": "vocab.txt", "sentencepiece": "spm.model"}

CONTINUATION_PREFIX = "##"
WORD_START = "\u2581"


def vocab_path(directory: str | os.PathLike, config: TextConfig) -> str:
    return os.path.join(directory, VOCAB_FILES[config.tokenizer])


def save_text_config(directory: str | os.PathLike, config: TextConfig) -> TextConfig:
    """Writes `text.json` beside the vocabulary file that is already in `directory`.

    Returns:
      `config` with `vocab_size` and `vocab_sha256` of that file, which is what was written.

    Raises:
      UsageError: no vocabulary file, or one without the special tokens.
    """
    path = vocab_path(directory, config)
    data = files.read_bytes(path)
    vocab = parse_vocab(data, config.tokenizer, path)
    config = dataclasses.replace(
        config, vocab_size=len(vocab), vocab_sha256=hashlib.sha256(data).hexdigest())
    files.write_json(os.path.join(directory, TEXT_CONFIG_FILE),
                     {**dataclasses.asdict(config), "special_tokens": special_ids(vocab, path)})
    return config


def save_vocabulary(directory: str | os.PathLike, data: bytes, config: TextConfig) -> TextConfig:
    """Makes a vocabulary directory of the bytes of a vocabulary file; replaces what is there.

    Returns:
      As `save_text_config`.

    Raises:
      UsageError: a vocabulary that is refused (nothing is written), or an unwritable directory.
    """
    path = vocab_path(directory, config)
    parse_vocab(data, config.tokenizer, path)
    files.make_directory(os.fspath(directory))
    # text.json goes first: until the new one is there, the directory is not a vocabulary.
    for name in (TEXT_CONFIG_FILE, *VOCAB_FILES.values()):
        old = os.path.join(directory, name)
        if old != path:
            files.remove(old)
    files.write_bytes(path, data)
    return save_text_config(directory, config)


def load_text_config(directory: str | os.PathLike) -> TextConfig:
    """Reads `text.json` and checks the vocabulary file beside it against it.

    Raises:
      UsageError: a missing or malformed file, a vocabulary other than that for which `text.json`
        was written, or a vocabulary without the special tokens.
    """
    return load_vocabulary(directory)[0]


def load_vocabulary(directory: str | os.PathLike) -> tuple[TextConfig, bytes]:
    """As `load_text_config`, with the bytes of the vocabulary file."""
    path = os.path.join(directory, TEXT_CONFIG_FILE)
    if not files.exists(path):
        raise UsageError(
            f"{path}: no such file; a vocabulary from elsewhere gets one by "
            "python -m data_prep.train_vocabulary --from_vocab=FILE --output=DIR")
    values = files.read_json(path)
    written_ids = values.pop("special_tokens", None)
    try:
        config = from_dict(TextConfig, values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None

    file = vocab_path(directory, config)
    data = files.read_bytes(file)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != config.vocab_sha256:
        raise UsageError(f"{file}: sha256 {sha256[:12]}… is not {config.vocab_sha256[:12]}…, which "
                         f"{path} was written for: the vocabulary was exchanged or changed")
    vocab = parse_vocab(data, config.tokenizer, file)
    if len(vocab) != config.vocab_size:
        raise UsageError(f"{path}: vocab_size={config.vocab_size}, but {file} has {len(vocab)}")
    if written_ids != special_ids(vocab, file):
        raise UsageError(f"{path}: special_tokens={written_ids}: expected the ids in {file}, "
                         f"{special_ids(vocab, file)}")
    return config, data


def parse_vocab(data: bytes, kind: str, path: str) -> list[str]:
    """Pieces by id of the bytes of a vocabulary file; `path` is for messages only.

    Raises:
      UsageError: no text or model, an empty line, a piece that is there twice, no special tokens.
    """
    if kind == "sentencepiece":
        try:
            model = sentencepiece.SentencePieceProcessor(model_proto=data)
        except RuntimeError:
            raise UsageError(f"{path}: not a SentencePiece model") from None
        vocab = [model.id_to_piece(i) for i in range(model.get_piece_size())]
        special_ids(vocab, path)
        return vocab
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8") from None
    # Only at line feeds: splitlines() would also split at characters that may be pieces.
    vocab = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    lines: dict[str, int] = {}
    for number, piece in enumerate(vocab, start=1):
        if not piece:
            raise UsageError(f"{path}:{number}: empty line: expected a piece")
        if lines.setdefault(piece, number) != number:
            raise UsageError(f'{path}:{number}: "{piece}" is on line {lines[piece]} already')
    special_ids(vocab, path)
    return vocab


def check_agrees(config: TextConfig, given: dict[str, Any], where: str) -> None:
    """Checks settings that a user gave against those of a vocabulary.

    Args:
      config: what `text.json` says.
      given: settings by name; names that `TextConfig` does not have are ignored.
      where: names the source of `config` in the message, usually the path of its `text.json`.

    Raises:
      UsageError: the first contradiction, with both values.
    """
    for name, value in given.items():
        if name in TextConfig.__dataclass_fields__ and value != getattr(config, name):
            raise UsageError(
                f"{name}={value} contradicts {name}={getattr(config, name)} in {where}: "
                "leave the flag out or use another vocabulary")


def special_ids(vocab: Sequence[str], path: str) -> dict[str, int]:
    """Token -> id of the special tokens; UsageError where one is missing."""
    places = {piece: i for i, piece in enumerate(vocab)}
    missing = [token for token in SPECIAL_TOKENS if token not in places]
    if missing:
        raise UsageError(f"{path}: special tokens missing: {', '.join(missing)}")
    return {token: places[token] for token in SPECIAL_TOKENS}
