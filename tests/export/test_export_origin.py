"""`export.json`: an export records its origin, and is reused only for the same origin."""

import hashlib
import json

import pytest
from export_helpers import model_dir, write_model_dir

from data_prep.sample_records import prepare_sample
from electra_es import __version__
from electra_es.config import PretrainingConfig
from electra_es.errors import UsageError
from electra_es.export.huggingface.write import export_huggingface
from electra_es.export.output import origin_of, read_origin
from electra_es.export.saved_model.write import export_saved_model


def test_every_export_says_what_it_was_made_of(tmp_path):
    source = model_dir("wordpiece")
    export_saved_model(str(source), str(tmp_path / "saved_model"))
    export_huggingface(str(source), str(tmp_path / "published"))
    config = hashlib.sha256((source / "config.json").read_bytes()).hexdigest()
    index = hashlib.sha256((source / "checkpoints/step-00000007/ckpt.index").read_bytes()).hexdigest()
    for folder in ("saved_model", "published/discriminator", "published/generator"):
        values = json.loads((tmp_path / folder / "export.json").read_text())
        assert values == {"step": 7, "config_sha256": config, "checkpoint_sha256": index,
                          "version": __version__}
        assert read_origin(str(tmp_path / folder)) == origin_of(str(source), 7)
    with pytest.raises(UsageError, match="exists already, an export of step 7: expected a new path"):
        export_saved_model(str(source), str(tmp_path / "saved_model"))


def test_other_weights_of_the_same_step_are_another_origin(tmp_path):
    other = write_model_dir(tmp_path / "model", "wordpiece", seed=21)
    assert origin_of(str(other), 7) != origin_of(str(model_dir("wordpiece")), 7)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"step": "7"}', '{"step": 7}'])
def test_what_does_not_say_it_has_no_origin(tmp_path, text):
    if text is not None:
        (tmp_path / "export.json").write_text(text)
    assert read_origin(str(tmp_path)) is None


TEXT = {"vocab_size": 300}
SHORT = PretrainingConfig(max_seq_length=32)


def test_a_sample_made_of_something_else_is_refused(tmp_path, monkeypatch, capsys):
    root = str(tmp_path / "sample")
    prepare_sample(root, TEXT, SHORT)
    assert "already" not in capsys.readouterr().out
    prepare_sample(root, TEXT, SHORT)
    assert capsys.readouterr().out.count("there already") == 2
    for text, config, message in (
            ({}, SHORT, "vocab_size=300, this run has vocab_size=50000"),
            ({"vocab_size": 299}, SHORT, "vocab_size=300, this run has vocab_size=299"),
            ({**TEXT, "lower_case": True}, SHORT, "lower_case=False, this run has lower_case=True"),
            (TEXT, PretrainingConfig(max_seq_length=33), "max_seq_length=32, this run"),
            (TEXT, PretrainingConfig(max_seq_length=32, seed=7), "seed=42, this run has seed=7")):
        with pytest.raises(UsageError, match=f"was made with {message}.*another --sample_dir"):
            prepare_sample(root, text, config)
    other = tmp_path / "other.txt"
    other.write_text("Otro texto.")
    with monkeypatch.context() as patch:
        patch.setattr("electra_es.sample.VALIDATION_GLOB", str(other))
        with pytest.raises(UsageError, match="text_sha256"):
            prepare_sample(root, TEXT, SHORT)
    (tmp_path / "sample" / "sample.json").unlink()
    with pytest.raises(UsageError, match="does not say what"):
        prepare_sample(root, TEXT, SHORT)
