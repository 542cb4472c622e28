"""Stacked Dense: the matrix products of K members as one batched product."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.layers.activations import apply_activation
from kregs.population.layers.checks import check_plain_weights
from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked, batched_product


@register(keras.layers.Dense)
class StackedDense(StackedLayer):
    """K matrix products as one batched product."""

    @classmethod
    def check(cls, layer) -> None:
        check_plain_weights(layer)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        bias = self.weight("bias") if self.layer.use_bias else None
        y = batched_product(value, tf.cast(self.weight("kernel"), value.dtype), bias)
        return self.output(apply_activation(self.layer.activation, y))
