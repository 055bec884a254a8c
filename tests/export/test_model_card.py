"""The model card: numbers are computed by hand, and the usage example shows its real output."""

import contextlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile

import pytest
import yaml
from export_helpers import loaded, model_dir

from electra_es.errors import UsageError
from electra_es.export.huggingface.read import import_folder
from electra_es.export.huggingface.write import export_huggingface
from electra_es.export.model_card import PUBLISHED, CardOptions, model_card, read_results
from electra_es.monitoring.metrics_log import read_log

TRAIN = [
    {"kind": "train", "step": 3600, "steps_per_second": 2.0},
    {"kind": "train", "step": 7200, "steps_per_second": 9.0},  # repeated after a crash: the next line
    {"kind": "train", "step": 7200, "steps_per_second": 1.0},
    {"kind": "evaluation", "step": 7200, "time": 1.5, "disc_auc": 0.91234},
]


def card(part="discriminator", records=(), example=(("Esta", -2.345), ("##mos", 0.5)), **options):
    _, tokenizer, run = loaded("wordpiece_stripped")
    with tempfile.TemporaryDirectory() as directory:
        with open(f"{directory}/metrics.jsonl", "w") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        log = read_log(directory)
    return model_card(part, run, tokenizer, options=CardOptions(**options), step=7200,
                      parameters=1_234_567, log=log, example=example)


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
    assert "| Area under the ROC curve (0.5 is chance) | 0.9123 |" in text and "step 7,200" in text
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
    path.write_text(json.dumps({"task": "conll2002_ner", "mean": 0.86543, "std": 0.00412}))
    rows = [line for line in card(results=(str(path),), name="me/electra").splitlines()
            if line.startswith("| ")][-1 - len(PUBLISHED):]
    assert rows[0] == "| **me/electra** | – | 0.8654 ± 0.0041 | – | – | 1M |"
    assert rows[1] == ("| SELECTRA small | 0.9653 ± 0.0007 | 0.863 ± 0.004 | 0.896 ± 0.002 | "
                       "0.784 ± 0.002 | 22M |")
    assert [row.split(" | ")[0][2:] for row in rows[2:]] == [
        "SELECTRA medium", "mBERT", "BETO", "BSC-BNE", "BERTIN"]


@pytest.mark.parametrize("content, message", [
    ("{", "expected a JSON object with task, mean and std"),
    ('{"task": "conll2002_ner", "mean": 1}', "KeyError: 'std'"),
    ('{"task": "qa", "mean": 1, "std": 0}',
     'task="qa": expected one of conll2002_pos, conll2002_ner, pawsx_es, xnli_es'),
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
    fine_tuning = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    variables: dict = {}
    exec(fine_tuning, variables)
    assert variables["loss"].item() > 0 and variables["model"].num_labels == 2


# ---- Of what real runs wrote.

def export(model_dir, output, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "electra_es.export.huggingface", f"--model_dir={model_dir}",
         f"--output={output}", *options], capture_output=True, text=True, umask=0o022)


@pytest.fixture(scope="module")
def published(real_run, tmp_path_factory):
    """Exports of the real run. Afterwards its log gets half a line, as after a kill."""
    directory = tmp_path_factory.mktemp("published")
    shutil.copytree(real_run.model_dir, directory / "killed")
    with open(directory / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    notes = directory / "notes.md"
    notes.write_text("### Authors\n\nAna y Luis, de la Universidad.\n")
    result = export(directory / "killed", directory / "hub", "--licence=apache-2.0",
                    f"--notes={notes}", "--name=me/electra", "--watts=300")
    assert result.returncode == 0, result.stderr
    return directory / "hub"


def read_card(published, part: str) -> str:
    return (published / part / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE))


def test_card_of_a_real_run(published, real_run):
    """Its first line has no speed, and its log ends in half a line."""
    log = read_log(str(real_run.model_dir))
    found = rows(read_card(published, "discriminator"))
    assert found["Steps"] == "60 of 60"
    assert found["Tokens seen"] == f"{log.tokens():,.0f} (padding left out, repeated epochs counted)"
    assert found["Training time"].startswith(f"{log.training_seconds() / 60:.3g} min")
    assert found["Hardware"].startswith("CPU") and "TensorFlow 2." in found["Hardware"]
    data = log.starts[0]["data"]
    assert found["Examples"].startswith(f"{data['examples']['train']:,} for training, ")
    assert found["Epochs"] == f"{60 * 4 / data['examples']['train']:.3g}"


def test_card_shows_what_counting_reaches(published, real_run):
    evaluation = read_log(str(real_run.model_dir)).evaluations[-1]
    found = rows(read_card(published, "discriminator"))
    for label, name in (("Area under the curve of counting: each token scored by how rare it is in the "
                         "training text", "floor_disc_auc"),
                        ("Area above that of counting; what it has learnt beyond counts",
                         "disc_auc_above_floor")):
        assert found[label] == f"{evaluation[name]:.4f}"
    found = rows(read_card(published, "generator"))
    assert found["Loss of counting: [MASK] predicted by shares of the training text"] == (
        f"{evaluation['floor_masked_lm_loss']:.4f}")


def test_card_says_what_the_corpus_is_and_what_was_dropped(published, real_run):
    with open(f"{real_run.data.data_dir}/stats.json") as file:
        stats = json.load(file)
    found = rows(read_card(published, "generator"))
    assert found["Files"].startswith("3 (") and found["Files"].endswith("a.txt, b.jsonl.gz, c.jsonl")
    assert found["Documents kept"].startswith(f"{stats['documents']:,},")
    assert stats["dropped_documents"]["too_short"] > 0
    dropped = sum(stats["dropped_documents"].values())
    assert found["Documents dropped"].startswith(f"{dropped} (") and "too short" in found[
        "Documents dropped"]
    assert found["Tokens"].startswith(f"{stats['tokens']:,}, ")
    assert found["Filter"] == "at least 20 characters"
    assert found["Duplicates"] == "dropped where the text is the same"


def test_each_part_shows_its_own_metrics_and_the_way_to_the_other(published):
    discriminator, generator = (read_card(published, part) for part in ("discriminator", "generator"))
    assert "(https://huggingface.co/me/electra-generator)" in discriminator
    assert "(https://huggingface.co/me/electra)" in generator
    tables = [set(rows(text[text.index("## Evaluation"):])) for text in (discriminator, generator)]
    assert tables[0] & tables[1] == {"Metric", "---"} and all(len(names) > 4 for names in tables)
    for text in (discriminator, generator):
        assert "Ana y Luis" in text and "not stated" not in text and "clark2020electra" in text
        assert not re.search(r"disc_|masked_lm_|_share|\n\n\n|None|Undefined", text)


def test_no_folder_of_this_machine_is_published(published, real_run):
    for text in (read_card(published, part) for part in ("discriminator", "generator")):
        assert "/tmp" not in text and str(real_run.model_dir.parent) not in text


def test_card_of_imported_weights_says_nothing_of_their_training(published, tmp_path):
    import_folder(str(published / "discriminator"), str(tmp_path / "imported"))
    export_huggingface(str(tmp_path / "imported"), str(tmp_path / "again"))
    text = read_card(tmp_path / "again", "discriminator")
    assert "the run that made them is not recorded here" in text
    assert "pretrained with electra-es" not in text and "### Pretraining" not in text
    assert "Its size, its sources and its cleaning are not recorded." in text
    assert "No evaluation on held-out text is recorded." in text and "SELECTRA" not in text


def test_files_of_an_export_have_the_modes_that_the_umask_leaves(published):
    modes = {path: stat.S_IMODE(os.stat(path).st_mode) for path in published.rglob("*")
             if path.is_file()}
    assert set(modes.values()) == {0o644}, modes


def test_notes_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="--notes=.*nothing.md: cannot be read"):
        card(notes=str(tmp_path / "nothing.md"))
