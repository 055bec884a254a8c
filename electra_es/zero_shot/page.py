"""What the page of `electra_es.detect --serve` asks of a classifier."""

from typing import Any

from electra_es.errors import UsageError
from electra_es.zero_shot.classifier import ZeroShotClassifier
from electra_es.zero_shot.labels import parse_labels

MAX_LABELS = 64

_KINDS = {"text": str, "labels": str, "template": str, "multi_label": bool}


def answer(classifier: ZeroShotClassifier, values: dict[str, Any]) -> dict[str, Any]:
    """Scores of one text.

    Args:
      values: `text`, `labels` (separated by commas), `template` and `multi_label`.

    Returns:
      `labels`, the most likely first, their `scores`, and `multi_label`.

    Raises:
      UsageError: another value, or one that the classifier refuses.
    """
    for name, kind in _KINDS.items():
        if not isinstance(values.get(name), kind):
            raise UsageError(f"{name}: expected {'a text' if kind is str else 'true or false'}")
    try:
        labels = parse_labels([values["labels"]])
        if len(labels) > MAX_LABELS:
            raise UsageError(f"{len(labels)} labels: expected at most {MAX_LABELS}")
        result, = classifier([values["text"]], labels, template=values["template"],
                             multi_label=values["multi_label"])
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--")) from None  # there are no flags on a page
    return {"labels": result.labels, "scores": result.scores, "multi_label": values["multi_label"]}
