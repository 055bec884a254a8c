"""The model card, `README.md` of an export, made from what a run recorded.

It contains facts from `config.json`, `metrics.jsonl` and the tokeniser, and what the publisher adds
with `CardOptions`. It says so where a fact was not recorded.
"""

from electra_es.export.model_card.card import EXAMPLE, CardOptions, model_card
from electra_es.export.model_card.results import PUBLISHED, TASKS, read_results

__all__ = ["EXAMPLE", "PUBLISHED", "TASKS", "CardOptions", "model_card", "read_results"]
