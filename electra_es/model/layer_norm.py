"""LayerNorm over the last axis, in forms that cost less in training than Keras'."""

import tensorflow as tf
import tf_keras

from electra_es.model.dropout import Draws, Dropout, dropped, kept_entries, shape_of
from electra_es.model.fused import fused, is_fusing
from electra_es.model.kept import kept_type
from electra_es.model.products import Gradients, sum_of_rows


class LayerNorm(tf_keras.layers.LayerNormalization):
    """Keras' layer; in training it is computed here, because the derived gradient is 60 operations, reads
    and writes twice as many arrays, and keeps two arrays of the size of the input instead of one."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 of the shape of `inputs`, [..., H]."""
        if kept_type() is not None:
            return self._in_one_pass(tf.cast(inputs, tf.float32))
        if not training:
            return super().call(inputs)
        return _layer_norm(tf.cast(inputs, tf.float32), tf.convert_to_tensor(self.gamma),
                           tf.convert_to_tensor(self.beta), self.epsilon)

    def of_sum(self, x: tf.Tensor, y: tf.Tensor, bias: tf.Tensor, dropout: Dropout, training: bool
               ) -> tf.Tensor:
        """float32 [B, ..., H]: the norm of `x` plus (`y` plus `bias` [H]) after dropout."""
        if not (training and is_fusing()):
            y = dropout(y + tf.cast(bias, y.dtype), training=training)
            return self(x + tf.cast(y, x.dtype), training=training)
        bias, gamma, beta = map(tf.convert_to_tensor, (bias, self.gamma, self.beta))
        return _layer_norm_of_sum(
            x, y, bias, gamma, beta, dropout.draws(shape_of(y)), dropout.scale, self.epsilon)

    def _in_one_pass(self, x: tf.Tensor) -> tf.Tensor:
        """For an accelerator (`kept_as`): the variance is the mean square less the square of the mean.
        Both sums are computed where the input is, and the input is not read once more."""
        mean = tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) - tf.square(mean)
        scale = tf.math.rsqrt(tf.maximum(variance, 0.0) + self.epsilon)
        return (x - mean) * scale * self.gamma + self.beta


def _layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
    @tf.custom_gradient
    def norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        normalized, deviation = _normalize(x, epsilon)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            to_x, product = _gradients(upstream, normalized, deviation, gamma)
            return to_x, sum_of_rows(product), sum_of_rows(upstream)

        return normalized * gamma + beta, gradient

    return norm(x, gamma, beta)


def _layer_norm_of_sum(x: tf.Tensor, y: tf.Tensor, bias: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor,
                       draws: Draws | None, scale: float, epsilon: float) -> tf.Tensor:
    @tf.custom_gradient
    def norm(x: tf.Tensor, y: tf.Tensor, bias: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor
             ) -> tuple[tf.Tensor, Gradients]:
        result, normalized, deviation = _norm_of_sum(x, y, bias, gamma, beta, draws, scale, epsilon)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            to_sum, to_y, product = _gradients_of_sum(
                upstream, normalized, deviation, gamma, draws, scale, y.dtype)
            return (tf.cast(to_sum, x.dtype), to_y, tf.cast(sum_of_rows(to_y), bias.dtype),
                    sum_of_rows(product), sum_of_rows(upstream))

        return result, gradient

    return norm(x, y, bias, gamma, beta)


@fused
def _norm_of_sum(x: tf.Tensor, y: tf.Tensor, bias: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor,
                 draws: Draws | None, scale: float, epsilon: float) -> tuple[tf.Tensor, ...]:
    """The norm of the sum; what `_normalize` gives for it."""
    y = _dropped(y + tf.cast(bias, y.dtype), draws, scale)
    normalized, deviation = _normalize(tf.cast(x + tf.cast(y, x.dtype), tf.float32), epsilon)
    return normalized * gamma + beta, normalized, deviation


@fused
def _gradients_of_sum(upstream: tf.Tensor, normalized: tf.Tensor, deviation: tf.Tensor, gamma: tf.Tensor,
                      draws: Draws | None, scale: float, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
    """Gradients of the sum and of y (of `dtype`), and for each row that of gamma."""
    to_sum, product = _gradients(upstream, normalized, deviation, gamma)
    return to_sum, _dropped(tf.cast(to_sum, dtype), draws, scale), product


def _dropped(y: tf.Tensor, draws: Draws | None, scale: float) -> tf.Tensor:
    return dropped(y, kept_entries(draws, y.shape[0] or tf.shape(y)[0]), scale)


def _normalize(x: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, tf.Tensor]:
    """`x` with mean 0 and variance 1 over the last axis, and 1 / its standard deviation [..., 1]."""
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    deviation = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + epsilon)
    return centred * deviation, deviation


def _gradients(upstream: tf.Tensor, normalized: tf.Tensor, deviation: tf.Tensor, gamma: tf.Tensor
               ) -> tuple[tf.Tensor, ...]:
    """Gradients of the argument, and for each row that of gamma."""
    to_normalized = upstream * gamma
    mean = tf.reduce_mean(to_normalized, axis=-1, keepdims=True)
    share = tf.reduce_mean(to_normalized * normalized, axis=-1, keepdims=True)
    return (to_normalized - mean - normalized * share) * deviation, upstream * normalized
