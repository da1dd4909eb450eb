"""`.tflite` files whose answers one can check by eye, made in a tenth of a second each."""

import functools

import tensorflow as tf

WEIGHTS = [[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]


@functools.cache
def matmul(batch: int | None = None) -> bytes:
    """(n, 2) -> (n, 3): a, b, 2a - b. The batch is dynamic, or as given."""
    return _file(lambda x: tf.matmul(x, tf.constant(WEIGHTS)), tf.TensorSpec([batch, 2]))


@functools.cache
def minus_mean() -> bytes:
    """(n, 2) -> (n, 2): each sample less the mean of its batch, so a batch of one gives zeros."""
    return _file(lambda x: x - tf.reduce_mean(x, 0, keepdims=True), tf.TensorSpec([None, 2]))


@functools.cache
def one_by_one() -> bytes:
    """(n, 2) -> (1, 2): doubled, and a reshape in it that takes one sample only, whatever the input's shape says."""
    return _file(lambda x: tf.reshape(x, [1, 2]) * 2.0, tf.TensorSpec([None, 2]))


@functools.cache
def total() -> bytes:
    """(n, 1500000) -> (n, 1): the sum of each sample."""
    return _file(lambda x: tf.reduce_sum(x, 1, keepdims=True), tf.TensorSpec([None, 1_500_000]))


@functools.cache
def two_outputs() -> bytes:
    """(n, 2) -> a, b, 2a - b, (n, 3), and root, the square roots (n, 2)."""
    return _file(lambda x: {"a": tf.matmul(x, tf.constant(WEIGHTS)), "root": tf.sqrt(x)}, tf.TensorSpec([None, 2]))


@functools.cache
def number() -> bytes:
    """A single number in, its double out: no batch at all."""
    return _file(lambda x: x * 2.0, tf.TensorSpec([]))


@functools.cache
def square_root() -> bytes:
    """(n, 2) -> (n, 2): NaN below zero."""
    return _file(tf.sqrt, tf.TensorSpec([None, 2]))


def _file(function, *inputs) -> bytes:
    concrete = tf.function(function).get_concrete_function(*inputs)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
