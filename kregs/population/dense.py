"""Stacked forms of Dense and Embedding: one batched product, one gather."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked


def apply_activation(activation, value: tf.Tensor) -> tf.Tensor:
    """Apply a Keras activation that looks at no axis but the last."""
    return value if activation is None else activation(value)


@register(keras.layers.Dense)
class StackedDense(StackedLayer):
    """K matrix products as one batched product."""

    @classmethod
    def check(cls, layer) -> None:
        if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            raise NotStackable(f"layer {layer.name!r} uses LoRA or quantization")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        kernel = tf.cast(self.weight("kernel"), value.dtype)
        shape = tf.shape(value)
        rows = tf.reshape(value, [self.members, -1, kernel.shape[1]])
        y = tf.matmul(rows, kernel)
        if self.layer.use_bias:
            y = y + tf.cast(self.weight("bias"), y.dtype)[:, None, :]
        if len(value.shape) > 3:
            y = tf.reshape(y, tf.concat([shape[:-1], [kernel.shape[2]]], axis=0))
            y.set_shape([*value.shape[:-1], kernel.shape[2]])
        return self.output(apply_activation(self.layer.activation, y))


@register(keras.layers.Embedding)
class StackedEmbedding(StackedLayer):
    """K look-ups as one batched gather.

    The gradient is dense. Keras hands Adam and RMSprop one gradient for each time a token occurs
    and squares these one by one, so that without a penalty on the embeddings a member differs from
    `fit` in the velocities of tokens that a batch repeats.
    """

    ignored = ("input_length",)

    @classmethod
    def check(cls, layer) -> None:
        if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            raise NotStackable(f"layer {layer.name!r} uses LoRA or quantization")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        indices = tf.cast(x.member_first(), tf.int32)
        rows = tf.gather(self.weight("embeddings"), indices, batch_dims=1)
        return self.output(tf.cast(rows, self.layer.compute_dtype))
