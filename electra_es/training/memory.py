"""How much memory a run takes, compared with what there is before anything is built.

The estimate counts arrays that live at the same time, at the end of the forward pass:

* for each parameter 16 bytes: weight, gradient and two moments; 12 more for the copy from which a
  checkpoint is written in the background, 4 more with micro-batches, whose gradients are added up, and 4
  for each part of a batch that a core computes (`model/parts.py`);
* for each token and layer what the backward pass needs, see `_kept_per_token`;
* for each position that the generator predicts `_LOGITS` arrays of the vocabulary: the logits, and what
  the gradient of the softmax makes of them before it is multiplied with the table.

Shapes: B examples of a micro-batch, L length, K predictions, N heads, V vocabulary.
"""

from collections.abc import Callable

import tensorflow as tf

from electra_es.chips import TPUS
from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.errors import UsageError
from electra_es.hardware import Memory, host_memory, local_tpu
from electra_es.model.parts import cores_for_parts

_LOGITS = 4
# Estimates lie within this share of what was measured (tests/training/test_memory.py). Where TensorFlow
# does not use oneDNN (on processors without AVX512-VNNI) a step took up to 1.5 times the estimate. A run
# is refused only if the least that it may take is more than the whole machine has.
TOLERANCE = 0.3
# On an accelerator XLA computes cheap arrays anew and works in place; `preflight` shows this share.
_XLA_SHARE = 0.45


def check_memory(model: ModelConfig, config: PretrainingConfig, vocab_size: int,
                 strategy: tf.distribute.Strategy) -> str:
    """Compares the estimate with the memory of this machine, of the container, and of its devices.

    Weights, gradients and moments pass through the host's memory on every kind of device, as
    checkpoints do. Activations are in the host's memory only if the CPU computes.

    Returns:
      a warning if less is free than the run takes; empty if it fits, or if nobody knows.

    Raises:
      UsageError: the run takes more than there is. On a CPU TensorFlow could not say so: the kernel ends
        the process without a word.
    """
    host = host_memory()
    weights = 16 * parameters(model, vocab_size)
    if weights > host.total:
        raise UsageError(
            f"hidden_size={model.hidden_size}, num_layers={model.num_layers}, vocabulary of "
            f"{vocab_size}: training takes at least {_gb(weights)}, this machine has "
            f"{_gb(host.total)}: expected a smaller model")
    replicas = strategy.num_replicas_in_sync
    on_host = all("CPU" in device for device in strategy.extended.worker_devices)
    there = host if on_host else _device_memory(strategy)
    if there is None:
        return ""

    def needed(parts: int) -> float:
        """Bytes of a replica on a device, or of all replicas on a host, with `parts` micro-batches."""
        state = state_bytes(model, config, vocab_size, parts)
        examples = config.train_batch_size / replicas / parts
        activations = activation_bytes(model, config, vocab_size, examples)
        if not on_host:
            return state + _XLA_SHARE * activations
        cores = cores_for_parts()
        of_parts = 4 * cores * parameters(model, vocab_size) if cores > 1 else 0
        return replicas * (state + activations) + of_parts

    now = needed(config.accumulation_steps)
    if now <= there.free:
        return ""
    what = f"train_batch_size={config.train_batch_size}, max_seq_length={config.max_seq_length}"
    if config.accumulation_steps > 1:
        what += f", accumulation_steps={config.accumulation_steps}"
    way_out = _way_out(config, replicas, there, needed)
    if on_host and now * (1 - TOLERANCE) > there.total:
        raise UsageError(f"{what}: a step takes at least {_gb(now * (1 - TOLERANCE))}, this machine has "
                         f"{_gb(there.total)}: expected {way_out}")
    return (f"{what}: a step takes about {_gb(now)}, and {_gb(there.free)} of {_gb(there.total)} are "
            f"free; if the process is killed or runs out of memory: {way_out}")


def _way_out(config: PretrainingConfig, replicas: int, there: Memory,
             needed: Callable[[int], float]) -> str:
    """The fewest micro-batches with which the run fits."""
    most = config.train_batch_size // replicas
    for parts in range(config.accumulation_steps + 1, most + 1):
        if most % parts == 0 and needed(parts) <= there.free:
            return (f"--accumulation_steps={parts}, which takes about {_gb(needed(parts))} and trains "
                    f"the same, or --train_batch_size={config.train_batch_size // parts}")
    return "shorter examples, a smaller model or a larger machine"


def _device_memory(strategy: tf.distribute.Strategy) -> Memory | None:
    """Of one GPU what TensorFlow may take, of a TPU what its data sheet says; None if it is not known."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        chip = TPUS.get(local_tpu())
        return Memory(int(chip.memory_gb * 1e9), int(chip.memory_gb * 1e9)) if chip else None
    from tensorflow.python.client import device_lib

    limits = [device.memory_limit for device in device_lib.list_local_devices()
              if device.device_type == "GPU"]
    return Memory(min(limits), min(limits)) if limits else None


def _gb(size: float) -> str:
    return f"{size / 1e9:,.{0 if size >= 1e10 else 1}f} GB"


def parameters(model: ModelConfig, vocab_size: int) -> int:
    """Weights of the matrices: word embeddings, all towers."""
    def tower(width: int, layers: int, inner: int) -> int:
        return layers * (4 * width**2 + 2 * width * inner)

    total = vocab_size * model.embedding_size + tower(
        model.hidden_size, model.num_layers, model.intermediate_size)
    if model.generator_kind in ("masked_lm", "two_tower") and not model.uses_full_size_generator:
        total += (2 if model.generator_kind == "two_tower" else 1) * tower(
            model.generator_hidden_size, model.generator_num_layers, model.generator_intermediate_size)
        if model.embedding_sharing != "tied":
            total += vocab_size * model.embedding_size
    return total


def state_bytes(model: ModelConfig, config: PretrainingConfig, vocab_size: int, parts: int) -> int:
    """Weights, gradients, moments, and copies of them, with `parts` micro-batches."""
    each = 16 + (12 if config.async_checkpoints else 0) + (4 if parts > 1 else 0)
    return each * parameters(model, vocab_size)


def activation_bytes(model: ModelConfig, config: PretrainingConfig, vocab_size: int, examples: float
                     ) -> float:
    """What is kept of a micro-batch of so many examples for its backward pass."""
    length, tokens = config.max_seq_length, examples * config.max_seq_length
    total = 0.0
    if model.objective != "mlm":
        total += tokens * model.num_layers * _kept_per_token(
            model.hidden_size, model.intermediate_size, model.num_heads, config)
    if model.generator_kind != "uniform":
        towers = 2 if model.generator_kind == "two_tower" else 1
        total += towers * tokens * model.generator_num_layers * _kept_per_token(
            model.generator_hidden_size, model.generator_intermediate_size,
            model.generator_num_heads, config)
        predicted = tokens if towers == 2 else examples * model.predictions_per_sequence(length)
        total += 4 * _LOGITS * predicted * vocab_size
    # Embeddings of each pass, and three arrays that the gradient of the widest part makes and drops.
    widest = max(model.intermediate_size, model.num_heads * length)
    return total + 4 * tokens * (8 * model.embedding_size + 3 * widest)


def _kept_per_token(hidden: int, inner: int, heads: int, config: PretrainingConfig) -> float:
    """Bytes that a layer keeps of a token, on a CPU in float32: eight arrays of its width (query, key,
    value, what attention makes of them; of each LayerNorm its output and the normalised input), three of
    the inner width (what GELU takes and gives, and by measurement one more; without fused work two), the
    probabilities of attention with dropout's mask as their sign, and those after dropout; and a byte each
    for the masks of the other two."""
    of_gelu = 4 if config.jit_compile == "off" else 3
    return 4 * (8 * hidden + of_gelu * inner + 2 * heads * config.max_seq_length) + 2 * hidden
