"""Export of a fine-tuned model as ONNX: ids in, logits out."""

import os
from typing import Any

import numpy as np

from electra_es import files
from electra_es.export.compare import PROBES, Comparison, Probes, tokenized
from electra_es.export.huggingface.write import tokenizer_files
from electra_es.export.onnx_model.write import (
    INPUTS,
    MODEL_FILE,
    convert,
    import_packages,
)
from electra_es.export.output import Exported, new_directory, origin_of
from electra_es.finetuning.export.transformers_form import (
    config_json,
    encoder_arrays,
    expected_outputs,
    head_layer,
)
from electra_es.finetuning.heads import PER_TOKEN
from electra_es.finetuning.saved import FINETUNED_FILE, Finetuned, load_finetuned
from electra_es.run_config import CONFIG_FILE


def export_finetuned_onnx(model_dir: str, output: str, *, overwrite: bool = False) -> Exported:
    """Writes a fine-tuned model and compares onnxruntime's outputs with ours.

    The outputs, float32: `logits` [B, L, C] (tagging) or [B, C] (classification), `scores` [B] in
    the task's range (regression), `start_logits` and `end_logits` [B, L] (questions).

    Raises:
      UsageError: no such model, a package is missing, or `output` exists or cannot be written.
      CheckFailed: the outputs differ; nothing is left behind.
    """
    onnxruntime = import_packages()
    finetuned = load_finetuned(model_dir)
    config, length = config_json(finetuned), finetuned.config.max_seq_length
    with new_directory(output, overwrite=overwrite, recognised_by=MODEL_FILE) as scratch:
        path = os.path.join(scratch, MODEL_FILE)
        convert(_peer(finetuned, config), config, path, outputs_of(finetuned.task.kind))
        files.write_json(os.path.join(scratch, CONFIG_FILE), config)
        for name, data in tokenizer_files(model_dir, finetuned.tokenizer, length).items():
            files.write_bytes(os.path.join(scratch, name), data)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        compared = Comparison("onnxruntime")
        _compare(compared, finetuned, tokenized(PROBES, finetuned.tokenizer, length), session)
        origin = origin_of(model_dir, finetuned.step, FINETUNED_FILE)
        origin.write(scratch)
    return Exported([finetuned.task.name], origin, compared.lines)


def outputs_of(kind: str) -> list[str]:
    """Names of the outputs."""
    return {"question_answering": ["start_logits", "end_logits"], "regression": ["scores"]}.get(
        kind, ["logits"])


def _peer(finetuned: Finetuned, config: dict[str, Any]) -> Any:
    """transformers' encoder with our head: one dense layer, whatever the kind."""
    import torch
    from transformers import ElectraConfig, ElectraModel

    encoder = ElectraModel(ElectraConfig(**config))
    encoder.load_state_dict({name.removeprefix("electra."): torch.tensor(array)
                             for name, array in encoder_arrays(finetuned).items()}, strict=True)
    kernel, bias = head_layer(finetuned)
    kind = finetuned.task.kind

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.head = torch.nn.Linear(*kernel.shape)
            self.head.load_state_dict(
                {"weight": torch.tensor(kernel.T.copy()), "bias": torch.tensor(bias)})

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor,
                    token_type_ids: torch.Tensor) -> Any:
            sequence = self.encoder(input_ids=input_ids, attention_mask=attention_mask,
                                    token_type_ids=token_type_ids).last_hidden_state
            logits = self.head(sequence if kind in PER_TOKEN else sequence[:, 0])
            if kind == "question_answering":
                return logits[..., 0], logits[..., 1]
            return logits[..., 0] if kind == "regression" else logits

    return Outputs().eval()


def _compare(compared: Comparison, finetuned: Finetuned, probes: Probes, session: Any) -> None:
    """Compares with one segment and with two, all probes at once and one alone."""
    kind = finetuned.task.kind
    for name, segments in (("one segment", np.zeros_like(probes.ids)), ("two segments", probes.segments)):
        logits = finetuned.model(probes.ids, probes.input_mask, segments).numpy()
        columns = np.moveaxis(logits, -1, 0) if kind in ("question_answering", "regression") else [logits]
        for rows in (slice(None), slice(1, 2)):
            arrays = [array[rows].astype(np.int64) for array in (probes.ids, probes.input_mask, segments)]
            found = session.run(outputs_of(kind), dict(zip(INPUTS, arrays, strict=True)))
            real = arrays[1] > 0 if kind in PER_TOKEN else slice(None)  # padding is not compared
            for output, one, column in zip(outputs_of(kind), found, columns, strict=True):
                compared.close(f"{output} of {len(arrays[0])} texts of {name}", one[real],
                               expected_outputs(finetuned, column)[rows][real])
