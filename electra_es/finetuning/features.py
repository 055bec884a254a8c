"""What a model gets: ids with what is to be predicted at them."""

from dataclasses import dataclass

import numpy as np

# A position without a label, or without a word.
NONE = -1


@dataclass(frozen=True)
class Features:
    """One input, not padded. n is its length, [CLS] and [SEP] included, and at most L.

    Attributes:
      input_ids: int32 [n].
      segment_ids: int32 [n], 0 for the first text and 1 for the second.
      example: number of the example; a long one has several features, one a window.
      labels: what is to be learnt. Tagging: int32 [n], a class at the first piece of each word that
        belongs to this window and NONE elsewhere. Classification: int32 [] (one number).
        Regression: float32 []. Question answering: int32 [2], first and last piece of the answer;
        both 0, which is [CLS], where this window has none.
      words: tagging only: int32 [n], the word whose prediction is taken here, NONE elsewhere. Each
        word of an example is in exactly one of its features.
      spans: question answering only: int32 [n, 2], first character and end of each piece in the
        context as it was given; NONE outside of the context.
      max_context: question answering only: bool [n], whether no other window has more context
        around this piece.
    """

    input_ids: np.ndarray
    segment_ids: np.ndarray
    example: int
    labels: np.ndarray
    words: np.ndarray | None = None
    spans: np.ndarray | None = None
    max_context: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.input_ids)
