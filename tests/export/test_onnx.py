"""The ONNX discriminator, checked with onnxruntime on the ids of Hugging Face's tokeniser."""

import numpy as np
import pytest
from export_helpers import model_dir, our_scores, sentences, write_model_dir

onnxruntime = pytest.importorskip("onnxruntime", reason="requirements-onnx.txt is not installed")
pytest.importorskip("onnxscript", reason="requirements-onnx.txt is not installed")

import transformers

from electra_es.detect.scoring import detect
from electra_es.errors import UsageError
from electra_es.export.onnx_model.write import INPUTS, export_onnx


@pytest.mark.parametrize("variant", ["wordpiece", "sentencepiece"])
def test_same_logits_on_200_sentences(tmp_path, variant):
    export_onnx(str(model_dir(variant)), str(tmp_path / "onnx"))
    ours = our_scores(variant)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "onnx"))
    batch = tokenizer(sentences(), padding=True, truncation=True, return_tensors="np")
    np.testing.assert_array_equal(batch["input_ids"], ours["token_ids"])
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    assert [tensor.name for tensor in session.get_inputs()] == list(INPUTS)
    for first, last in ((0, 200), (3, 4)):  # any batch size
        logits, = session.run(None, {name: batch[name][first:last] for name in INPUTS})
        mask = ours["mask"][first:last] > 0
        assert np.max(np.abs(logits - ours["logits"][first:last])[mask]) <= 1e-4
    found, expected = (detect(str(path), sentences()[:3])
                       for path in (tmp_path / "onnx", model_dir(variant)))
    for one, other in zip(found, expected, strict=True):
        assert [token[:4] for token in one.tokens] == [token[:4] for token in other.tokens]
        np.testing.assert_allclose([token.logit for token in one.tokens],
                                   [token.logit for token in other.tokens], atol=1e-4)
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {
        "model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "text.json",
        "export.json", "vocab.txt" if variant == "wordpiece" else "spm.model"}


def test_a_model_without_discriminator_is_refused(tmp_path):
    source = write_model_dir(tmp_path / "model", "wordpiece", objective="mlm")
    with pytest.raises(UsageError, match="objective=mlm has no discriminator"):
        export_onnx(str(source), str(tmp_path / "onnx"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
