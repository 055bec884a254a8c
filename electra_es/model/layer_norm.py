"""LayerNorm over the last axis, in forms that cost less in training than Keras'."""

from typing import Any

import tensorflow as tf
import tf_keras

from electra_es.model.kept import kept_type


class LayerNorm(tf_keras.layers.LayerNormalization):
    """Keras' layer; in training it is computed here, because the derived gradient is 60 operations, reads
    and writes twice as many arrays, and keeps two arrays of the size of the input instead of one."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 of the shape of `inputs`, [..., H]."""
        if kept_type() is not None:
            return self._in_one_pass(tf.cast(inputs, tf.float32))
        if not training:
            return super().call(inputs)
        return self._normalize(
            tf.cast(inputs, tf.float32), tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta))

    def _in_one_pass(self, x: tf.Tensor) -> tf.Tensor:
        """For an accelerator (`kept_as`): the variance is the mean square less the square of the mean.
        Both sums are computed where the input is, and the input is not read once more."""
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) - tf.square(mean)
        scale = tf.math.rsqrt(tf.maximum(variance, 0.0) + self.epsilon)
        return (x - mean) * scale * self.gamma + self.beta

    @tf.custom_gradient
    def _normalize(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Any]:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        scale = tf.math.rsqrt(variance + self.epsilon)
        normalized = centred * scale

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            rows = list(range(len(x.shape) - 1))
            product = upstream * normalized
            to_gamma, to_beta = tf.reduce_sum(product, axis=rows), tf.reduce_sum(upstream, axis=rows)
            to_normalized = upstream * gamma
            mean = tf.reduce_mean(to_normalized, axis=-1, keepdims=True)
            share = tf.reduce_mean(to_normalized * normalized, axis=-1, keepdims=True)
            return (to_normalized - mean - normalized * share) * scale, to_gamma, to_beta

        return normalized * gamma + beta, gradient
