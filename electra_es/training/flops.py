"""Floating-point operations of the model, and what devices can do: for the utilisation.

Counted are the matrix products that the mathematics asks for (2 m n k each; the backward pass
twice the forward one), as in PaLM (Chowdhery et al. 2022, appendix B): no recomputation, no
padding skipped, no element-wise work, no embedding look-ups.

Shapes: L length, K predictions, E embedding, H hidden, F feed-forward, V vocabulary.
"""

import os

import tensorflow as tf

from electra_es.config import ModelConfig, PretrainingConfig

# bfloat16 TFLOP/s of one replica: of a core (v2, v3) or a chip. TPUs multiply float32 in bfloat16
# unless told otherwise. Google Cloud's system architecture pages.
TPU_PEAKS = {"v2": 22.5, "v3": 61.5, "v4": 275.0, "v5litepod": 197.0, "v5p": 459.0, "v6e": 918.0}
# TFLOP/s without sparsity in bfloat16, and in float32 (as TF32, TensorFlow's default there), from
# NVIDIA's data sheets. The first name that occurs in the device's own wins.
GPU_PEAKS = {"H100 PCIe": (756.0, 378.0), "H100": (989.0, 494.0), "H200": (989.0, 494.0),
             "A100": (312.0, 156.0), "L4": (121.0, 60.0)}


def training_flops(config: ModelConfig, vocab_size: int, length: int) -> float:
    """Operations of forward and backward pass on one example of `length` tokens."""
    k = config.predictions_per_sequence(length)
    embedding, hidden = config.embedding_size, config.hidden_size
    total = 0.0
    if config.objective != "mlm":
        total += _tower(length, embedding, hidden, config.intermediate_size, config.num_layers)
        total += 2 * length * (hidden * hidden + hidden)
    if config.generator_kind != "uniform":
        if config.embedding_sharing == "untied" and not config.uses_full_size_generator:
            embedding = config.generator_hidden_size
        towers = 2 if config.generator_kind == "two_tower" else 1
        predicted = length if towers == 2 else k
        total += towers * _tower(length, embedding, config.generator_hidden_size,
                                 config.generator_intermediate_size, config.generator_num_layers)
        total += 2 * predicted * embedding * (towers * config.generator_hidden_size + vocab_size)
    return 3 * total


def _tower(length: int, embedding: int, hidden: int, feed_forward: int, layers: int) -> float:
    """Forward operations: projection; per layer q, k, v, output, feed-forward, L x L attention."""
    projection = 2 * length * embedding * hidden if embedding != hidden else 0
    layer = 2 * length * (4 * hidden**2 + 2 * hidden * feed_forward) + 4 * length**2 * hidden
    return projection + layers * layer


def peak_flops(config: PretrainingConfig, strategy: tf.distribute.Strategy) -> float:
    """Operations per second that all replicas could do; 0 where the device is not known.

    Named TPUs do not tell their kind: give --peak_tflops.
    """
    tflops = config.peak_tflops
    if not tflops and isinstance(strategy, tf.distribute.TPUStrategy):
        kind = os.environ.get("TPU_ACCELERATOR_TYPE", "").partition("-")[0]
        tflops = TPU_PEAKS.get(kind, 0.0)
    elif not tflops and "GPU" in strategy.extended.worker_devices[0]:
        details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
        peaks = [both for name, both in GPU_PEAKS.items() if name in details.get("device_name", "")]
        if peaks:
            tflops = peaks[0][0 if config.precision == "bfloat16" else 1]
    return tflops * 1e12 * strategy.num_replicas_in_sync
