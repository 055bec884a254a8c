"""The comparison of every export with its source, and the lines that the command prints about it."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from electra_es.errors import CheckFailed
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.model.variables import get_weights
from electra_es.text.tokenizer import Tokenizer

MAX_DIFFERENCE = 1e-4

# Composed and decomposed accents, upper case, numbers, unknown characters, special tokens as text, an
# empty text, and a text that is longer than any model reads.
PROBES = (
    "Estamos desayunando pan rosa con tomate y aceite de oliva.",
    "¿Cuándo volverá el pingüino a la montaña? ¡Mañana, a las 7:45!",
    "El an\u0303o pasado AU\u0301N llovi\u0301a en «Logroño»…",
    "Un 字 raro, un \u200bespacio sin ancho y [SEP] como texto.",
    "",
    "La corriente del río arrastraba hojas. " * 150,
)
# For the generator: one mask, two in a row, masks at both ends, none, and one that is cut off.
MASK_PROBES = (
    "Estamos desayunando [MASK] con tomate.",
    "[MASK] volverá [MASK] [MASK] a la montaña? [MASK]",
    "No falta ninguna.",
    "La corriente del río arrastraba hojas. " * 150 + "[MASK]",
)


class Probes(NamedTuple):
    """Probes, tokenised as in training."""

    ids: np.ndarray  # int32 [B, L], padded with [PAD]
    input_mask: np.ndarray  # int32 [B, L], 1 for tokens, 0 for padding
    segments: np.ndarray  # int32 [B, L], 1 in the second half of each text


def tokenized(texts: tuple[str, ...], tokenizer: Tokenizer, max_length: int) -> Probes:
    """Encodes probes without the exported code; "[MASK]" in them becomes the special token."""
    rows = []
    for text in texts:
        first, *others = (list(ids) for ids in tokenizer.encode_batch(text.split("[MASK]")))
        inner = first + [token for part in others for token in (tokenizer.mask_id, *part)]
        rows.append([tokenizer.cls_id, *inner[:max_length - 2], tokenizer.sep_id])
    lengths = np.array([[len(row)] for row in rows])
    places = np.arange(lengths.max())
    ids = np.array([row + [tokenizer.pad_id] * (len(places) - len(row)) for row in rows], np.int32)
    mask = (places < lengths).astype(np.int32)
    return Probes(ids, mask, mask * (places >= lengths // 2).astype(np.int32))


def mask_logits(model: ElectraPretrainer, probes: Probes, segments: np.ndarray) -> np.ndarray:
    """float32 [masks, V]: the generator's logits for every [MASK]; `segments`: int32 [B, L]."""
    assert model.mlm_head is not None, "a model without a generator"
    sequence = model.generator_sequence(
        tf.constant(probes.ids), tf.constant(probes.input_mask), tf.constant(segments))
    at_masks = tf.boolean_mask(sequence, probes.ids == model.vocab.mask_id)[:, tf.newaxis]
    return model.mlm_head(at_masks, model.generator_embeddings.word_table).numpy()[:, 0]


class Comparison:
    """Compares an export that was read back with its source, and collects lines for the command."""

    def __init__(self, form: str):
        """`form`: what was read back, such as "the reloaded SavedModel"."""
        self.form = form
        self.lines: list[str] = []

    def equal(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        """Raises CheckFailed unless both are the same."""
        if not np.array_equal(found, expected):
            raise CheckFailed(f"{self.form} has other {name} than its source")
        self.lines.append(f"{name} ({np.size(expected):,}): the same")

    def close(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        """Raises CheckFailed unless no number differs by more than MAX_DIFFERENCE."""
        found, expected = np.asarray(found), np.asarray(expected)
        if found.shape != expected.shape:
            raise CheckFailed(f"{self.form}'s {name} have shape {list(found.shape)}: expected "
                              f"{list(expected.shape)}")
        difference = float(np.max(np.abs(found - expected), initial=0.0))
        if not difference <= MAX_DIFFERENCE:
            raise CheckFailed(f"{self.form}'s {name} differ by {difference:.2g} from its source's: "
                              f"expected at most {MAX_DIFFERENCE:g}")
        self.lines.append(f"{name} ({expected.size:,}): differ by at most {difference:.1g}")


def check_weights(written: ElectraPretrainer, expected: ElectraPretrainer, where: str) -> None:
    """Raises CheckFailed unless both models have the same bytes in every variable."""
    found, source = get_weights(written), get_weights(expected)
    for name, array in source.items():
        if name not in found or found[name].tobytes() != array.tobytes():
            raise CheckFailed(f"{where}: {name}, read back, differs from its source")
