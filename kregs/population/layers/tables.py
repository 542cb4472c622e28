"""Stacked forms of the layers for tables: columns, factors, embeddings of numbers and codes."""

from __future__ import annotations

import tensorflow as tf

from kregs.layers import (
    CategoryEmbedding,
    Columns,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    Scale,
    SmoothClip,
)
from kregs.population.layers.activations import apply_activation, is_elementwise
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked


@register(Columns, SmoothClip)
class StackedWithoutWeights(StackedLayer):
    """The same columns of every member's rows, or the same numbers of them clipped."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        return self.output(self.layer.call(tf.cast(x.member_first(), self.layer.compute_dtype)))


@register(Scale)
class StackedScale(StackedLayer):
    """Each member's own factors."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        scale = tf.cast(self.weight("scale"), value.dtype)
        return self.output(value * self.layer.factors(scale)[:, None])


@register(CategoryEmbedding)
class StackedCategoryEmbedding(StackedLayer):
    """K look-ups as one batched gather, whose gradient is dense as the layer's."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        rows = self.layer.rows(x.member_first())
        table = tf.cast(self.weight("embeddings"), self.layer.compute_dtype)
        return self.output(_flat(tf.gather(table, rows, batch_dims=1)))


@register(PiecewiseLinearEmbedding)
class StackedPiecewiseLinearEmbedding(StackedLayer):
    """Each member's own bins, which may have been adapted to other rows, and linear layers."""

    ignored = ("edges", "seed")

    @classmethod
    def check(cls, layer) -> None:
        if not is_elementwise(layer.activation):
            raise NotStackable(f"layer {layer.name!r} has an activation that mixes numbers")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        edges = tf.cast(self.weight("edges"), value.dtype)
        y = self.layer.encode(value, edges[:, None])
        if self.layer.units is not None:
            y = tf.einsum("kbft,kftu->kbfu", y, tf.cast(self.weight("embeddings"), y.dtype))
            y = y + tf.cast(self.weight("bias"), y.dtype)[:, None]
        return self.output(_flat(apply_activation(self.layer.activation, y)))


@register(PeriodicEmbedding)
class StackedPeriodicEmbedding(StackedLayer):
    """Each member's own frequencies, phases and linear layers."""

    ignored = ("frequency_scale", "seed")  # of the initial weights

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        frequencies, phases, kernel, bias = (
            tf.cast(self.weight(name), value.dtype)
            for name in ("frequencies", "phases", "embeddings", "bias")
        )
        cosines = self.layer.cosines(value, frequencies[:, None], phases[:, None])
        linear = tf.einsum("kbfm,kfmu->kbfu", cosines, kernel) + bias[:, None]
        linear = linear * self.layer.learning_rate_factor
        return self.output(_flat(tf.concat([value[..., None], linear], axis=-1)))


def _flat(value: tf.Tensor) -> tf.Tensor:
    """Put the vectors of all columns one behind the other, `(K, batch, columns * units)`."""
    shape = tf.shape(value)
    columns, units = value.shape[2:]
    flat = tf.reshape(value, [shape[0], shape[1], columns * units])
    flat.set_shape([*value.shape[:2], columns * units])
    return flat
