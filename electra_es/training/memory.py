"""Whether this machine has enough memory for a run; checked before anything is built."""

import os

import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.errors import UsageError


def check_memory(model: ModelConfig, config: PretrainingConfig, vocab_size: int,
                 strategy: tf.distribute.Strategy) -> None:
    """Compares lower bounds of what a run needs with the memory of this machine.

    Weights, gradients and moments pass through the host's memory on every kind of device, as
    checkpoints do. Activations are in the host's memory only if the CPU computes.

    Raises:
      UsageError: the run needs more than there is.
    """
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    weights = 16 * parameters(model, vocab_size)  # float32: weight, gradient and two moments
    if weights > available:
        raise UsageError(
            f"hidden_size={model.hidden_size}, num_layers={model.num_layers}, vocabulary of "
            f"{vocab_size}: training takes at least {weights / 1e9:,.0f} GB, this machine has "
            f"{available / 1e9:,.0f} GB: expected a smaller model")
    if not all("CPU" in device for device in strategy.extended.worker_devices):
        return
    activations = weights + activation_bytes(model, config)
    if activations > available:
        raise UsageError(
            f"train_batch_size={config.train_batch_size}, max_seq_length={config.max_seq_length}: a "
            f"step takes at least {activations / 1e9:,.0f} GB, this machine has "
            f"{available / 1e9:,.0f} GB: expected fewer or shorter examples, or more accumulation_steps")


def parameters(model: ModelConfig, vocab_size: int) -> int:
    """Weights of the matrices: word embeddings, both towers."""
    def tower(width: int, layers: int, inner: int) -> int:
        return layers * (4 * width**2 + 2 * width * inner)

    total = vocab_size * model.embedding_size + tower(
        model.hidden_size, model.num_layers, model.intermediate_size)
    if model.generator_kind == "masked_lm" and not model.uses_full_size_generator:
        total += tower(model.generator_hidden_size, model.generator_num_layers,
                       model.generator_intermediate_size)
    return total


def activation_bytes(model: ModelConfig, config: PretrainingConfig) -> int:
    """Activations that the discriminator keeps of one micro-batch for the backward pass, each once."""
    examples = config.train_batch_size // config.accumulation_steps
    per_token = (4 * model.hidden_size + model.intermediate_size
                 + model.num_heads * config.max_seq_length)
    size = 2 if config.precision == "bfloat16" else 4
    return size * examples * config.max_seq_length * model.num_layers * per_token
