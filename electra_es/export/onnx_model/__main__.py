"""Writes the discriminator, or a fine-tuned model, as ONNX, through PyTorch's exporter.

    pip install -r requirements-onnx.txt
    python -m electra_es.export.onnx_model --model_dir=runs/sample/model --output=runs/onnx
    python -m electra_es.export.onnx_model --model_dir=runs/pos/trial-1/model --output=runs/onnx-pos

The folder holds model.onnx (input_ids, attention_mask and token_type_ids int64 [B, L] -> logits
float32 [B, L], any B and L up to the model's length) and the files of the tokeniser. The logits of a
fine-tuned model: docs/export.md.
"""

from electra_es.errors import run_main
from electra_es.export.onnx_model.write import export_onnx
from electra_es.export.output import run_export
from electra_es.finetuning.export.onnx_model import export_finetuned_onnx
from electra_es.finetuning.saved import is_finetuned


def main() -> None:
    run_export(lambda model_dir: export_finetuned_onnx if is_finetuned(model_dir) else export_onnx,
               "ONNX export", "run with onnxruntime")


if __name__ == "__main__":
    run_main(main)
