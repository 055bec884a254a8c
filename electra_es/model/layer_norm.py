"""LayerNorm over the last axis."""

import tensorflow as tf
import tf_keras

from electra_es.model.kept import kept_type


class LayerNorm(tf_keras.layers.LayerNormalization):
    """Keras' layer. For an accelerator (`kept_as`) the variance is the mean square less the square of the
    mean: both sums are computed where the input is, and the input is not read once more."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """float32 of the shape of `x`, [..., H]."""
        if kept_type() is None:
            return super().call(x)
        x = tf.cast(x, tf.float32)
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) - tf.square(mean)
        scale = tf.math.rsqrt(tf.maximum(variance, 0.0) + self.epsilon)
        return (x - mean) * scale * self.gamma + self.beta
