"""The model card: numbers computed by hand, and usage whose printed output is the real one."""

import contextlib
import io
import json
import re
import shutil

import pytest
import yaml
from export_helpers import loaded, model_dir

from electra_es.errors import UsageError
from electra_es.export.huggingface.write import export_huggingface
from electra_es.export.model_card import PUBLISHED, CardOptions, model_card, read_results

TRAIN = [
    {"kind": "train", "step": 3600, "steps_per_second": 2.0},
    {"kind": "train", "step": 7200, "steps_per_second": 9.0},  # repeated after a crash: the next line
    {"kind": "train", "step": 7200, "steps_per_second": 1.0},
    {"kind": "evaluation", "step": 7200, "time": 1.5, "disc_auc": 0.91234},
]


def card(part="discriminator", records=(), example=(("Esta", -2.345), ("##mos", 0.5)), **options):
    _, tokenizer, run = loaded("wordpiece_stripped")
    return model_card(part, run, tokenizer, options=CardOptions(**options), step=7200,
                      parameters=1_234_567, records=records, example=example)


def test_metadata_is_what_was_said_and_no_more():
    values = yaml.safe_load(card(licence="apache-2.0", datasets=("oscar", "a: b")).split("---")[1])
    assert values == {"language": ["es"], "license": "apache-2.0", "datasets": ["oscar", "a: b"],
                      "library_name": "transformers", "tags": ["electra", "spanish"]}
    values = yaml.safe_load(card("generator").split("---")[1])
    assert values["pipeline_tag"] == "fill-mask" and "license" not in values and "datasets" not in values


def test_training_time_and_energy_are_those_of_the_path_to_the_weights():
    text = card(records=TRAIN, watts=400.0)
    # 3600 steps at 2/s are half an hour, 3600 at 1/s an hour; 1.5 h at 400 W are 0.6 kWh.
    assert "| Training time | 1.5 h, validation and restarts left out |" in text
    assert "| Energy | 0.6 kWh at a mean of 400 W |" in text
    assert "| disc_auc | 0.9123 |" in text and "step 7,200" in text
    assert "| Energy | not measured |" in card(records=TRAIN)
    assert "the run that made them is not recorded here" in card(records=[])


def test_configuration_vocabulary_and_usage():
    text = card(name="me/electra")
    for line in ("| Layers | 2 |", "| Hidden size | 24 |", "| Parameters | 1,234,567 |",
                 "| Vocabulary | 611 (wordpiece) |", "| Longest sequence | 53 |",
                 "| Accents | stripped |", "Esta            -2.35", "##mos            0.50"):
        assert line in text
    assert 'from_pretrained("me/electra")' in text
    assert "Of 611 entries 0 can never be produced from text, 0 of them with accents" in text
    generator = card("generator", name="me/electra")
    assert "| Hidden size | 8 |" in generator and 'model="me/electra-generator"' in generator


def test_results_stand_beside_the_published_ones(tmp_path):
    assert "No fine-tuning results of this model are recorded." in card()
    path = tmp_path / "ner.json"
    path.write_text(json.dumps({"task": "ner", "mean": 0.86543, "std": 0.00412}))
    rows = [line for line in card(results=(str(path),), name="me/electra").splitlines()
            if line.startswith("| ")][-1 - len(PUBLISHED):]
    assert rows[0] == "| **me/electra** | – | 0.8654 ± 0.0041 | – | – | 1M |"
    assert rows[1] == ("| SELECTRA small | 0.9653 ± 0.0007 | 0.863 ± 0.004 | 0.896 ± 0.002 | "
                       "0.784 ± 0.002 | 22M |")
    assert [row.split(" | ")[0][2:] for row in rows[2:]] == [
        "SELECTRA medium", "mBERT", "BETO", "BSC-BNE", "BERTIN"]


@pytest.mark.parametrize("content, message", [
    ("{", "expected a JSON object with task, mean and std"),
    ('{"task": "ner", "mean": 1}', "KeyError: 'std'"),
    ('{"task": "qa", "mean": 1, "std": 0}', 'task="qa": expected one of pos, ner, pawsx, xnli'),
])
def test_wrong_results_are_one_clear_line(tmp_path, content, message):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=re.escape(message)) as error:
        read_results([str(path)])
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_the_usage_of_an_exported_card_prints_what_the_card_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_huggingface(str(model_dir("wordpiece")), "published", options=CardOptions(name="me/electra"))
    shutil.copytree("published/discriminator", "me/electra")
    text = (tmp_path / "me" / "electra" / "README.md").read_text(encoding="utf-8")
    code, output = re.findall(r"```(?:python)?\n(.*?)```", text, flags=re.DOTALL)[:2]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    assert printed.getvalue() == output
    assert len(output.splitlines()) > 10
