"""The training step on a machine that has JAX, but no TensorFlow."""
