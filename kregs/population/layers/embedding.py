"""Stacked Embedding: the look-ups of K members as one batched gather."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.layers.checks import check_plain_weights
from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked


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
        check_plain_weights(layer)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        indices = tf.cast(x.member_first(), tf.int32)
        rows = tf.gather(self.weight("embeddings"), indices, batch_dims=1)
        return self.output(tf.cast(rows, self.layer.compute_dtype))
