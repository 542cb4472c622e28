"""Stacked batch, layer and group normalization, and fixed statistics of the data.

Batch norm over K times the channels is K batch norms, exactly.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.keras_internals import broadcast_shape
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked


def _at_least_single(value: tf.Tensor) -> tf.Tensor:
    """As Keras: half precision overflows the variance."""
    return tf.cast(value, tf.float32) if value.dtype in (tf.float16, tf.bfloat16) else value


@register(keras.layers.BatchNormalization)
class StackedBatchNormalization(StackedLayer):
    """Batch statistics of each member's channels, over the rows that are real."""

    numbers = ("momentum",)
    ignored = ("synchronized",)

    @classmethod
    def check(cls, layer) -> None:
        rank = layer.input_spec.ndim if layer.input_spec else None
        if layer.axis != -1 and (rank is None or layer.axis != rank - 1):
            raise NotStackable(f"layer {layer.name!r} normalizes axis {layer.axis}, not the last")
        if getattr(layer, "renorm", False):
            raise NotStackable(f"layer {layer.name!r} uses renorm")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        layer = self.layer
        dtype = x.value.dtype
        value = _at_least_single(x.value)
        rank = len(value.shape)
        # a (K, 1, ..., channels) or (1, ..., K * channels) view of a (K, channels) statistic
        view = (
            [1] * (rank - 1) + [-1]
            if x.packed
            else [self.members, *[1] * (rank - 2), value.shape[-1]]
        )
        axes = list(range(rank - 1)) if x.packed else list(range(1, rank - 1))
        moving_mean = self.weight("moving_mean")
        moving_variance = self.weight("moving_variance")
        if context.training and layer.trainable:
            if x.packed and rank == 4 and context.rows is None and value.dtype == tf.float32:
                return self._fused(x, value, dtype, context)
            mean, variance = self._moments(value, axes, x.packed, context.rows)
            self._move(mean, variance, context)
        else:
            mean = tf.reshape(tf.cast(moving_mean, value.dtype), view)
            variance = tf.reshape(tf.cast(moving_variance, value.dtype), view)
        scale = tf.math.rsqrt(variance + layer.epsilon)
        if layer.scale:
            scale = scale * tf.reshape(tf.cast(self.weight("gamma"), value.dtype), view)
        shift = -mean * scale
        if layer.center:
            shift = shift + tf.reshape(tf.cast(self.weight("beta"), value.dtype), view)
        return x.like(tf.cast(value * scale + shift, dtype))

    def _move(self, mean: tf.Tensor, variance: tf.Tensor, context: Context) -> None:
        """Note the update of the moving statistics."""
        for name, batch in (("moving_mean", mean), ("moving_variance", variance)):
            moving = self.weight(name)
            momentum = tf.cast(self.number("momentum"), moving.dtype)[:, None]
            now = tf.cast(tf.reshape(batch, moving.shape), moving.dtype)
            # a layer that is called twice moves them twice
            before = context.value_of(moving)
            context.updates.append((moving, before * momentum + now * (1.0 - momentum)))

    def _fused(self, x: Stacked, value: tf.Tensor, dtype: tf.DType, context: Context) -> Stacked:
        """TensorFlow's fused kernel: a third of the memory traffic, for images."""
        channels = value.shape[-1]
        ones, zeros = tf.ones([channels], tf.float32), tf.zeros([channels], tf.float32)
        scale = tf.reshape(self.weight("gamma"), [channels]) if self.layer.scale else ones
        offset = tf.reshape(self.weight("beta"), [channels]) if self.layer.center else zeros
        y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=value, scale=scale, offset=offset, mean=[], variance=[],
            epsilon=self.layer.epsilon, is_training=True,
        )  # fmt: skip
        # the kernel returns the sample variance, Keras moves the population variance
        points = tf.cast(tf.reduce_prod(tf.shape(value)[:-1]), tf.float32)
        self._move(mean, variance * ((points - 1.0) / points), context)
        return x.like(tf.cast(y, dtype))

    def _moments(
        self, value: tf.Tensor, axes: list[int], packed: bool, rows: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if rows is None:
            return tf.nn.moments(value, axes, keepdims=True)
        rank = len(value.shape)
        weight = tf.cast(rows, value.dtype)
        if packed:
            channels = value.shape[-1] // self.members
            weight = tf.repeat(tf.transpose(weight), channels, axis=1)
            weight = tf.reshape(weight, [-1, *[1] * (rank - 2), value.shape[-1]])
        else:
            weight = tf.reshape(weight, [self.members, -1, *[1] * (rank - 2)])
        inner = [axis for axis in axes if axis != (0 if packed else 1)]
        points = tf.cast(tf.reduce_prod([tf.shape(value)[axis] for axis in inner]), value.dtype)
        count = tf.reduce_sum(weight, axes, keepdims=True) * points
        count = tf.maximum(count, 1.0)
        mean = tf.reduce_sum(value * weight, axes, keepdims=True) / count
        centred = (value - mean) * weight
        return mean, tf.reduce_sum(centred * (value - mean), axes, keepdims=True) / count


class _RowNormalization(StackedLayer):
    """Normalizations that look at one row at a time and have a scale and an offset."""

    def _affine(self, value: tf.Tensor) -> tf.Tensor:
        rank = len(value.shape)
        for name, combine in (("gamma", tf.multiply), ("beta", tf.add)):
            if getattr(self.layer, name, None) is not None:
                weight = tf.cast(self.weight(name), value.dtype)
                shape = weight.shape
                view = [self.members, *[1] * (rank - len(shape)), *shape[1:]]
                value = combine(value, tf.reshape(weight, view))
        return value


@register(keras.layers.LayerNormalization)
class StackedLayerNormalization(_RowNormalization):
    """Each row by its own mean and variance; the member axis only batches it."""

    @classmethod
    def check(cls, layer) -> None:
        axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
        if list(axes) != [-1]:
            raise NotStackable(f"layer {layer.name!r} normalizes axes {layer.axis}, not the last")
        if getattr(layer, "rms_scaling", False):
            raise NotStackable(f"layer {layer.name!r} uses rms_scaling")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        dtype = x.value.dtype
        value = _at_least_single(x.member_first())
        mean, variance = tf.nn.moments(value, [-1], keepdims=True)
        value = (value - mean) * tf.math.rsqrt(variance + self.layer.epsilon)
        return self.output(tf.cast(self._affine(value), dtype))


@register(keras.layers.GroupNormalization)
class StackedGroupNormalization(_RowNormalization):
    """Each row's groups of channels by their own mean and variance."""

    @classmethod
    def check(cls, layer) -> None:
        if layer.axis != -1:
            raise NotStackable(f"layer {layer.name!r} normalizes axis {layer.axis}, not the last")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        dtype = x.value.dtype
        value = _at_least_single(x.member_first())
        rank = len(value.shape)
        channels = value.shape[-1]
        groups = channels if self.layer.groups == -1 else self.layer.groups
        shape = tf.shape(value)
        grouped = tf.reshape(value, tf.concat([shape[:-1], [groups, channels // groups]], axis=0))
        mean, variance = tf.nn.moments(grouped, [*range(2, rank - 1), rank], keepdims=True)
        grouped = (grouped - mean) * tf.math.rsqrt(variance + self.layer.epsilon)
        return self.output(tf.cast(self._affine(tf.reshape(grouped, shape)), dtype))


@register(keras.layers.Normalization)
class StackedNormalization(StackedLayer):
    """Fixed statistics of the data, which may differ between members (fitted per fold)."""

    @classmethod
    def check(cls, layer) -> None:
        if not layer.built:
            raise NotStackable(f"layer {layer.name!r} is not built")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        layer = self.layer
        value = tf.cast(x.member_first(), layer.compute_dtype)
        if layer.input_mean is None:
            view = [self.members, *broadcast_shape(layer)]
            mean, variance = (
                tf.reshape(self.weight(name), view) for name in ("adapt_mean", "adapt_variance")
            )
        else:
            mean, variance = layer.mean, layer.variance
        deviation = tf.maximum(
            tf.sqrt(tf.cast(variance, value.dtype)), tf.cast(keras.config.epsilon(), value.dtype)
        )
        mean = tf.cast(mean, value.dtype)
        if layer.invert:
            return self.output(mean + value * deviation)
        return self.output((value - mean) / deviation)
