"""Stacked masks of sequences: the Masking layer, and the operations that compute masks.

A mask is a value of the graph like any other: Keras computes it by operations of its own.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.keras_internals import AnyOperation, NotEqualOperation
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked


@register(NotEqualOperation)
class StackedNotEqual(StackedLayer):
    """The mask of an Embedding: where the token is not 0."""

    arguments = ("x2",)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        return self.output(value != tf.cast(self.set_arguments["x2"], value.dtype))


@register(AnyOperation)
class StackedAny(StackedLayer):
    """The mask of a Masking layer: where any channel is not the mask's value."""

    @classmethod
    def check(cls, layer) -> None:
        if layer.axis not in (-1, [-1], (-1,)) or layer.keepdims:
            raise NotStackable(f"operation {layer.name!r} works along axis {layer.axis}")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        return self.output(tf.reduce_any(x.member_first(), -1))


@register(keras.layers.Masking)
class StackedMasking(StackedLayer):
    """Zeros in place of the steps that are masked."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        kept = value != tf.cast(self.layer.mask_value, value.dtype)
        kept = tf.reduce_any(kept, -1, keepdims=True)
        return self.output(tf.where(kept, value, tf.zeros([], value.dtype)))
