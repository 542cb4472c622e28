"""`Stacked`: the tensors of K members as one tensor, in one of two layouts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Stacked:
    """One tensor that holds the same activation of every member.

    Args:
        value: of shape `(K, batch, ...)`, or `(batch, ..., K * channels)` if `packed`.
        members: K.
        packed: whether the members lie side by side on the channel axis, as a grouped convolution
            wants them, each member's channels together.
    """

    value: tf.Tensor
    members: int
    packed: bool = False

    def member_first(self) -> tf.Tensor:
        """Return the tensor as `(K, batch, ..., channels)`."""
        if not self.packed:
            return self.value
        shape = tf.shape(self.value)
        rank = len(self.value.shape)
        channels = self.value.shape[-1] // self.members
        split = tf.reshape(self.value, tf.concat([shape[:-1], [self.members, channels]], axis=0))
        return tf.transpose(split, [rank - 1, *range(rank - 1), rank])

    def channels_packed(self) -> tf.Tensor:
        """Return the tensor as `(batch, ..., K * channels)`."""
        if self.packed:
            return self.value
        rank = len(self.value.shape)
        channels = self.value.shape[-1]
        moved = tf.transpose(self.value, [*range(1, rank - 1), 0, rank - 1])
        shape = tf.shape(moved)
        return tf.reshape(moved, tf.concat([shape[:-2], [self.members * channels]], axis=0))

    def like(self, value: tf.Tensor) -> Stacked:
        """Return `value` in this one's layout."""
        return dataclasses.replace(self, value=value)


def per_member(vector: tf.Tensor, rank: int) -> tf.Tensor:
    """Reshape a vector of K so that it broadcasts over member-first tensors of this rank."""
    return tf.reshape(vector, [-1] + [1] * (rank - 1))


def sum_by_member(value: tf.Tensor, *, compiled: bool) -> tf.Tensor:
    """Return the sum of each member's numbers, `(K,)`.

    Args:
        value: `(K, ...)`.
        compiled: whether it is compiled with XLA, which takes a CPU seven times as long to reduce
            many numbers to one as to add vectors: then their eighths are added first.
    """
    shape = value.shape[1:]
    if compiled and shape.is_fully_defined() and _are_folded(math.prod(shape)):
        return _folded_sum(value)
    return tf.reduce_sum(value, list(range(1, len(value.shape))))


def _are_folded(count: int) -> bool:
    return count >= 512 and count % 8 == 0


@tf.custom_gradient
def _folded_sum(value: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    shape = value.shape

    def gradient(upstream: tf.Tensor) -> tf.Tensor:  # TensorFlow's would pad each eighth with zeros
        return tf.broadcast_to(per_member(upstream, len(shape)), shape)

    eighths = tf.unstack(tf.reshape(value, [shape[0], 8, -1]), axis=1)
    return tf.reduce_sum(tf.add_n(eighths), 1), gradient


def per_channel(vector: tf.Tensor, channels: int, rank: int) -> tf.Tensor:
    """Repeat a vector of K so that it broadcasts over channel-packed tensors of this rank."""
    return tf.reshape(tf.repeat(vector, channels), [1] * (rank - 1) + [-1])


def batched_product(
    value: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None = None
) -> tf.Tensor:
    """Multiply each member's rows with its kernel.

    Args:
        value: `(K, batch, ..., size)`.
        kernel: `(K, size, units)`.
        bias: `(K, units)`, added to the product.

    Returns:
        `(K, batch, ..., units)`.
    """
    flat = len(value.shape) == 3
    rows = value if flat else tf.reshape(value, [kernel.shape[0], -1, kernel.shape[1]])
    y = tf.matmul(rows, kernel)
    if bias is not None:
        y = y + tf.cast(bias, y.dtype)[:, None, :]
    if flat:
        return y
    y = tf.reshape(y, tf.concat([tf.shape(value)[:-1], [kernel.shape[2]]], axis=0))
    y.set_shape([*value.shape[:-1], kernel.shape[2]])
    return y
