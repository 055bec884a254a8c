"""Floating-point operations of the model and of the devices of a run, for the utilisation.

As in PaLM (Chowdhery et al. 2022, appendix B), only matrix products are counted (2 m n k each; the
backward pass counts twice the forward pass). Recomputation, element-wise operations and embedding
look-ups are not counted; padding is.

Shapes: L length, K predictions, E embedding, H hidden, F feed-forward, V vocabulary.
"""

from typing import TYPE_CHECKING

from electra_es.chips import TPUS, gpu_peaks
from electra_es.config import ModelConfig, PretrainingConfig
from electra_es.hardware import local_tpu

if TYPE_CHECKING:
    import tensorflow as tf


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


def peak_flops(config: PretrainingConfig, strategy: "tf.distribute.Strategy") -> float:
    """Operations per second that all replicas could do; 0 if the device is not known.

    A named TPU does not report its version: --peak_tflops is needed there.
    """
    # Imported here: benchmarks count operations on machines without TensorFlow.
    import tensorflow as tf

    from electra_es.training.devices import gpu_names

    tflops = config.peak_tflops
    if not tflops and isinstance(strategy, tf.distribute.TPUStrategy):
        tflops = TPUS[local_tpu()].peak_tflops if local_tpu() in TPUS else 0.0
    elif not tflops and "GPU" in strategy.extended.worker_devices[0]:
        names = set(gpu_names(tf.config.list_physical_devices("GPU")))
        peaks = gpu_peaks(names.pop()) if len(names) == 1 else None
        if peaks:
            tflops = peaks[0 if config.precision == "bfloat16" else 1]
    return tflops * 1e12 * strategy.num_replicas_in_sync
