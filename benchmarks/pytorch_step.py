"""The peer of the training step: the same objective with transformers' ELECTRA classes in PyTorch.

    python -m benchmarks.pytorch_step --model_size=small --batch_size=16 --steps=5
    python -m benchmarks.pytorch_step --model_size=small --batch_size=128 --precision=bfloat16 \
        --compile --fused --device=cuda

Same sizes, same generator, same loss, clipping and number of predictions. The prediction head runs at
the selected positions only, which transformers' model does not do by itself. Needs PyTorch,
transformers and this repository, and no TensorFlow.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.speed_table import speed_lines
from benchmarks.turns import take_turns
from electra_es.chips import gpu_peaks
from electra_es.config import ModelConfig, model_config
from electra_es.errors import import_optional, run_main
from electra_es.training.flops import training_flops

_MASK_ID = 4
_FIRST_ID = 5  # of those that are no special token


class Options(NamedTuple):
    """How PyTorch computes."""

    device: str = "cpu"
    precision: str = "float32"
    attention: str = "sdpa"
    compiled: bool = False
    fused: bool = False  # AdamW in one kernel
    selected_only: bool = True  # False: the prediction head at every position, as transformers has it

    def __str__(self) -> str:
        parts = ["PyTorch", self.precision, self.attention, *["compiled"] * self.compiled,
                 *["fused"] * self.fused, *["heads everywhere"] * (not self.selected_only)]
        return " ".join(parts)


def pytorch_steps(config: ModelConfig, batch_size: int, length: int, vocab_size: int, steps: int,
                  options: Options = Options()) -> Callable[[], None]:
    """A function that trains `steps` steps on one batch of random ids and waits for the device."""
    torch = import_optional("torch", "requirements-dev.txt")
    # As TensorFlow and XLA do on GPUs: TF32 for products of float32.
    torch.set_float32_matmul_precision("high")
    generator, discriminator = _models(config, vocab_size, options)
    parameters = list({id(p): p for m in (generator, discriminator) for p in m.parameters()}.values())
    optimizer = torch.optim.AdamW(parameters, lr=5e-4, fused=options.fused or None)
    ids = torch.randint(_FIRST_ID, vocab_size, (batch_size, length), device=options.device)
    loss = _loss(torch, config, generator, discriminator, options)
    if options.compiled:
        loss = torch.compile(loss)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(options.precision, options.device):
            total = loss(ids)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    def run() -> None:
        for _ in range(steps):
            step()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return run


def autocast(precision: str, device: str = "cpu") -> Any:
    """What PyTorch computes in bfloat16 inside the `with`; with float32 it does nothing."""
    torch = import_optional("torch", "requirements-dev.txt")
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")


def _models(config: ModelConfig, vocab_size: int, options: Options) -> tuple[Any, Any]:
    """Generator and discriminator with common embeddings, to which the output layer is tied too."""
    transformers = import_optional("transformers", "requirements-dev.txt")

    def shape(hidden: int, layers: int, heads: int, inner: int) -> Any:
        return transformers.ElectraConfig(
            vocab_size=vocab_size, embedding_size=config.embedding_size, hidden_size=hidden,
            num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
            max_position_embeddings=config.max_position_embeddings,
            attn_implementation=options.attention)

    discriminator = transformers.ElectraForPreTraining(shape(
        config.hidden_size, config.num_layers, config.num_heads, config.intermediate_size))
    generator = transformers.ElectraForMaskedLM(shape(
        config.generator_hidden_size, config.generator_num_layers, config.generator_num_heads,
        config.generator_intermediate_size))
    generator.electra.embeddings = discriminator.electra.embeddings
    generator.generator_lm_head.weight = discriminator.electra.embeddings.word_embeddings.weight
    return tuple(model.to(options.device).train() for model in (generator, discriminator))


def _loss(torch: Any, config: ModelConfig, generator: Any, discriminator: Any, options: Options
          ) -> Callable[[Any], Any]:
    """ids [B, L] -> the loss of both models."""
    def loss(ids: Any) -> Any:
        k = config.predictions_per_sequence(ids.shape[1])
        positions = torch.rand(ids.shape, device=ids.device).topk(k).indices
        originals = ids.gather(1, positions)
        masked = ids.scatter(1, positions, _MASK_ID)
        hidden = generator.electra(masked).last_hidden_state
        if options.selected_only:
            hidden = hidden.gather(1, positions[..., None].expand(-1, -1, hidden.shape[-1]))
        logits = generator.generator_lm_head(generator.generator_predictions(hidden))
        if not options.selected_only:
            logits = logits.gather(1, positions[..., None].expand(-1, -1, logits.shape[-1]))
        logits = logits.float()
        mlm = torch.nn.functional.cross_entropy(logits.flatten(0, 1), originals.flatten())
        with torch.no_grad():  # a maximum of Gumbel variables, as the original samples
            sampled = (logits - torch.empty_like(logits).exponential_().log()).argmax(-1)
        corrupted = ids.scatter(1, positions, sampled)
        verdict = discriminator(corrupted, labels=(corrupted != ids).long()).loss
        return config.generator_weight * mlm + config.discriminator_weight * verdict

    return loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_size", default="small", help="row of the table of model sizes")
    for name, default in (("batch_size", 16), ("max_seq_length", 128), ("vocab_size", 50_000),
                          ("steps", 5), ("turns", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peak_tflops", type=float, default=0.0, help="of the device, if not known")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--compile", action="store_true", help="torch.compile of both models and losses")
    parser.add_argument("--fused", action="store_true", help="AdamW in one kernel")
    parser.add_argument("--heads_everywhere", action="store_true", help="as transformers has it")
    values = parser.parse_args()
    options = Options(values.device, values.precision, values.attention, values.compile, values.fused,
                      not values.heads_everywhere)
    config = model_config({"model_size": values.model_size})
    seconds = take_turns({str(options): pytorch_steps(
        config, values.batch_size, values.max_seq_length, values.vocab_size, values.steps, options)},
        values.turns)
    flops = values.batch_size * training_flops(config, values.vocab_size, values.max_seq_length)
    for line in speed_lines(seconds, steps=values.steps, batch_size=values.batch_size, flops=flops,
                            peak_tflops=values.peak_tflops or peak_of_gpu(options)):
        print(line)


def peak_of_gpu(options: Options) -> float:
    """TFLOP/s of the GPU that PyTorch uses; 0 if it is not known."""
    if options.device != "cuda":
        return 0.0
    torch = import_optional("torch", "requirements-dev.txt")
    peaks = gpu_peaks(torch.cuda.get_device_name())
    return peaks[options.precision == "float32"] if peaks else 0.0


if __name__ == "__main__":
    run_main(main)
