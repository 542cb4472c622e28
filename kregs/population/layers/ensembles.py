"""Stacked forms of networks that are ensembles themselves: K networks of k members each."""

from __future__ import annotations

import tensorflow as tf

from kregs.layers import BatchEnsembleDense, EnsembleAverage, EnsembleDense
from kregs.population.registry import Context, StackedLayer, register
from kregs.population.stacked import Stacked, batched_product


@register(BatchEnsembleDense)
class StackedBatchEnsembleDense(StackedLayer):
    """K kernels, each shared by the k members of its network."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        layer = self.layer
        value = tf.cast(x.member_first(), layer.compute_dtype)
        if len(value.shape) == 3:
            value = value[:, :, None]
        if layer.use_alpha:
            value = value * tf.cast(self.weight("alpha"), value.dtype)[:, None]
        elif value.shape[2] == 1:
            value = tf.repeat(value, layer.members, axis=2)
        y = batched_product(value, tf.cast(self.weight("kernel"), value.dtype))
        if layer.use_gamma:
            y = y * tf.cast(self.weight("gamma"), y.dtype)[:, None]
        if layer.use_bias:
            y = y + tf.cast(self.weight("bias"), y.dtype)[:, None]
        return self.output(y)


@register(EnsembleDense)
class StackedEnsembleDense(StackedLayer):
    """K times k kernels."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.member_first(), self.layer.compute_dtype)
        kernel = tf.cast(self.weight("kernel"), value.dtype)
        y = tf.einsum("nbki,nkiu->nbku", value, kernel)
        if self.layer.use_bias:
            y = y + tf.cast(self.weight("bias"), y.dtype)[:, None]
        return self.output(y)


@register(EnsembleAverage)
class StackedEnsembleAverage(StackedLayer):
    """The averages of K networks, and what each adds to its loss in training."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        layer = self.layer
        z = tf.cast(x.member_first(), layer.compute_dtype)
        if not context.training:
            return self.output(tf.reduce_mean(layer.activate(z), axis=-2))
        by_row = layer.diversity(z)
        if context.rows is None:
            context.penalties.append(tf.reduce_mean(by_row, axis=1))
        else:
            rows = tf.cast(context.rows, by_row.dtype)
            total = tf.reduce_sum(tf.where(rows > 0, by_row, tf.zeros_like(by_row)), axis=1)
            context.penalties.append(total / tf.maximum(tf.reduce_sum(rows, axis=1), 1.0))
        return self.output(layer.activate(tf.reduce_mean(z, axis=-2)))
