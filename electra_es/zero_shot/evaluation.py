"""Labels of a model against those that people gave: accuracy and macro F1, beside the best constant.

The label of a text is the one with the highest score, also where several may be true.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import sklearn.metrics


class Evaluation(NamedTuple):
    """Scores from 0 to 1.

    Attributes:
      texts: how many were classified.
      accuracy: share of texts with the right label.
      macro_f1: mean of the F1 of each label that is in the data or in the predictions.
      most_frequent: the label that most texts have.
      constant_accuracy, constant_macro_f1: the scores of always saying that.
      by_label: label -> texts (with it), predicted (times), precision, recall and f1.
    """

    texts: int
    accuracy: float
    macro_f1: float
    most_frequent: str
    constant_accuracy: float
    constant_macro_f1: float
    by_label: dict[str, dict[str, Any]]


def evaluate(truth: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> Evaluation:
    """Compares the labels of the data with those of the model, text by text."""
    most_frequent = Counter(truth).most_common(1)[0][0]
    report = sklearn.metrics.classification_report(
        truth, predictions, labels=list(labels), output_dict=True, zero_division=0)
    times = Counter(predictions)
    by_label = {label: {
        "texts": int(report[label]["support"]), "predicted": times[label],
        "precision": float(report[label]["precision"]), "recall": float(report[label]["recall"]),
        "f1": float(report[label]["f1-score"])} for label in labels}
    return Evaluation(
        len(truth), *_scores(truth, predictions), most_frequent,
        *_scores(truth, [most_frequent] * len(truth)), by_label)


def _scores(truth: Sequence[str], predictions: Sequence[str]) -> tuple[float, float]:
    return (float(sklearn.metrics.accuracy_score(truth, predictions)),
            float(sklearn.metrics.f1_score(truth, predictions, average="macro", zero_division=0)))


def to_table(found: Evaluation) -> str:
    """The scores in two lines, and a line for each label."""
    width = max(map(len, ["label", *found.by_label]))
    lines = [f"{found.texts:,} texts: accuracy {found.accuracy:.4f}, macro F1 {found.macro_f1:.4f}",
             f'always "{found.most_frequent}": accuracy {found.constant_accuracy:.4f}, '
             f"macro F1 {found.constant_macro_f1:.4f}", "",
             f"{'label':{width}}   texts  predicted  precision  recall      F1"]
    lines += [f"{label:{width}}  {row['texts']:6,}  {row['predicted']:9,}  {row['precision']:9.4f}  "
              f"{row['recall']:6.4f}  {row['f1']:6.4f}" for label, row in found.by_label.items()]
    return "\n".join(lines)


def to_json(found: Evaluation) -> str:
    """The same as a JSON object."""
    return json.dumps(found._asdict(), ensure_ascii=False, indent=2)
