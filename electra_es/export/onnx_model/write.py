"""The discriminator as ONNX, through PyTorch's exporter, and such a folder as a model."""

import logging
import os
import warnings
from typing import Any, cast

import numpy as np
import tensorflow as tf

from electra_es import files
from electra_es.errors import UsageError, import_optional
from electra_es.export.compare import PROBES, Comparison, Probes, tokenized
from electra_es.export.huggingface.names import hub_config
from electra_es.export.huggingface.write import published_arrays, tokenizer_files
from electra_es.export.output import Exported, new_directory, origin_of
from electra_es.export.saved_model.text_model import TextModel, usable_length
from electra_es.model.pretrainer import ElectraPretrainer
from electra_es.model.variables import get_resolved_weights
from electra_es.run_config import CONFIG_FILE
from electra_es.text.tokenizer import load_tokenizer
from electra_es.training.run_dir import load_model

MODEL_FILE = "model.onnx"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_REQUIREMENTS = "requirements-onnx.txt"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def export_onnx(model_dir: str, output: str, *, overwrite: bool = False) -> Exported:
    """Writes the discriminator of `model_dir` and compares onnxruntime's logits with ours.

    Raises:
      UsageError: no such model or one without a discriminator, a package is missing, or `output`
        exists or cannot be written.
      CheckFailed: the logits differ; nothing is left behind.
    """
    onnxruntime = import_packages()
    model, tokenizer, run, step = load_model(model_dir)
    if model.discriminator_head is None:
        raise UsageError(f"--model_dir={model_dir}: objective={run.model.objective} has no "
                         "discriminator: expected a model with one")
    config = hub_config("discriminator", run.model, len(tokenizer.vocab), tokenizer.pad_id)
    arrays = published_arrays(get_resolved_weights(model), "discriminator", run.model)
    with new_directory(output, overwrite=overwrite, recognised_by=MODEL_FILE) as scratch:
        path = os.path.join(scratch, MODEL_FILE)
        convert(_peer(config, arrays), config, path, ["logits"])
        files.write_json(os.path.join(scratch, CONFIG_FILE), config)
        for name, data in tokenizer_files(
                model_dir, tokenizer, usable_length(run)).items():
            files.write_bytes(os.path.join(scratch, name), data)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        compared = Comparison("onnxruntime")
        _compare(compared, model, tokenized(PROBES, tokenizer, usable_length(run)), session)
        origin = origin_of(model_dir, step)
        origin.write(scratch)
    return Exported(["discriminator"], origin, compared.lines)


def import_packages() -> Any:
    """onnxruntime, once all packages are there: the exporter asks for some only after half of its
    work."""
    onnxruntime, *_ = (import_optional(module, _REQUIREMENTS) for module in (
        "onnxruntime", "onnx", "onnxscript", "torch", "transformers"))
    return onnxruntime


class OnnxDiscriminator:
    """An ONNX file with the methods and attributes that `TextModel` needs of a model."""

    variables: tuple = ()
    discriminator_head = True
    mlm_head = None

    def __init__(self, session: Any):
        self.session = session

    def discriminator_logits(self, input_ids: tf.Tensor, input_mask: tf.Tensor, segment_ids: tf.Tensor
                   ) -> tf.Tensor:
        """int32 [B, L] -> float32 [B, L]; works only outside a graph."""
        arrays = (np.asarray(array, np.int64) for array in (input_ids, input_mask, segment_ids))
        logits, = self.session.run(None, dict(zip(INPUTS, arrays, strict=True)))
        return tf.constant(logits)


def load_onnx(folder: str) -> TextModel:
    """The model of an ONNX folder as a `TextModel`; only its method `detect` works.

    Raises:
      UsageError: a file is missing or cannot be read, or onnxruntime is not installed.
    """
    onnxruntime = import_optional("onnxruntime", _REQUIREMENTS)
    path = os.path.join(folder, MODEL_FILE)
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        max_length = int(files.read_json(os.path.join(folder, TOKENIZER_CONFIG_FILE))["model_max_length"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise UsageError(f"{folder}: not an ONNX folder that can be read ({str(error).splitlines()[0]})"
                         ) from None
    return TextModel(cast(Any, OnnxDiscriminator(session)), load_tokenizer(folder), max_length)


def _peer(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """transformers' discriminator, which returns its logits alone."""
    import torch
    from transformers import ElectraConfig, ElectraForPreTraining

    peer = ElectraForPreTraining(ElectraConfig(**config)).eval()
    peer.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()}, strict=True)

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.peer = peer

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor,
                    token_type_ids: torch.Tensor) -> torch.Tensor:
            return self.peer(input_ids=input_ids, attention_mask=attention_mask,
                             token_type_ids=token_type_ids).logits

    return Logits()


def convert(module: Any, config: dict[str, Any], path: str, outputs: list[str]) -> None:
    """Writes a PyTorch module as ONNX.

    Args:
      module: takes `INPUTS`, int64 [B, L], and returns tensors.
      config: its `config.json`.
      path: of the file.
      outputs: names of the tensors.
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    # Sizes are neither 1 nor equal: the exporter would fix a size of 1 and would merge equal sizes.
    example = torch.full((2, 7), config["pad_token_id"])
    example[:, :5] = 1
    axes = {0: torch.export.Dim("batch"),
            1: torch.export.Dim("length", max=config["max_position_embeddings"])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shared names of axes
        torch.onnx.export(
            module, (example, (example == 1).long(), torch.zeros_like(example)), path,
            input_names=list(INPUTS), output_names=outputs, dynamo=True, verbose=False,
            dynamic_shapes=dict.fromkeys(INPUTS, axes), external_data=False)


def _compare(compared: Comparison, model: ElectraPretrainer, probes: Probes, session: Any) -> None:
    """Compares with one segment and with two, all probes at once and one alone."""
    for name, segments in (("one segment", np.zeros_like(probes.ids)), ("two segments", probes.segments)):
        expected = model.discriminator_logits(probes.ids, probes.input_mask, segments).numpy()
        for rows in (slice(None), slice(1, 2)):
            ids, mask, types = (array[rows].astype(np.int64)
                                for array in (probes.ids, probes.input_mask, segments))
            logits, = session.run(None, dict(zip(INPUTS, (ids, mask, types), strict=True)))
            # Padding is not compared.
            compared.close(f"logits of {len(ids)} texts of {name}", logits[mask > 0],
                           expected[rows][mask > 0])
