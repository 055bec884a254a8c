"""The model card, `README.md` of an export, made from what a run recorded.

It states what `config.json`, `metrics.jsonl` and the tokeniser say, and what the publisher adds with
`CardOptions`. What nobody recorded is said to be unknown.
"""

from electra_es.export.model_card.card import EXAMPLE, CardOptions, model_card
from electra_es.export.model_card.results import PUBLISHED, TASKS, read_results

__all__ = ["EXAMPLE", "PUBLISHED", "TASKS", "CardOptions", "model_card", "read_results"]
