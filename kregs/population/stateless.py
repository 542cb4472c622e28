"""Layers without weights: they need no stacked form of their own, only the right layout."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.convolution import activate
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked

_PER_CHANNEL = (
    keras.layers.MaxPooling1D, keras.layers.MaxPooling2D,
    keras.layers.AveragePooling1D, keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D,
    keras.layers.Cropping1D, keras.layers.Cropping2D,
    keras.layers.UpSampling1D, keras.layers.UpSampling2D,
    keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D,
)  # fmt: skip
_PER_ROW = (
    keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute, keras.layers.RepeatVector,
    keras.layers.MaxPooling3D, keras.layers.AveragePooling3D, keras.layers.GlobalMaxPooling3D,
    keras.layers.GlobalAveragePooling3D, keras.layers.ZeroPadding3D, keras.layers.Cropping3D,
    keras.layers.UpSampling3D, keras.layers.UnitNormalization,
)  # fmt: skip


@register(*_PER_CHANNEL)
class StackedPerChannel(StackedLayer):
    """Pooling, padding, resizing: each channel by itself, so more channels are more members."""

    accelerated = False

    @classmethod
    def check(cls, layer) -> None:
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            raise NotStackable(f"layer {layer.name!r} has data_format={layer.data_format!r}")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = tf.cast(x.channels_packed(), self.layer.compute_dtype)
        return Stacked(self.layer.call(value), self.members, packed=True)


@register(*_PER_ROW)
class StackedPerRow(StackedLayer):
    """Each row by itself, so K members are K times the rows."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        shape = tf.shape(value)
        rows = tf.reshape(value, tf.concat([[-1], shape[2:]], axis=0))
        rows.set_shape([None, *value.shape[2:]])
        y = self.layer.call(rows)
        inner = y.shape[1:]
        folded = tf.reshape(y, tf.concat([shape[:2], tf.shape(y)[1:]], axis=0))
        folded.set_shape([self.members, value.shape[1], *inner])
        return self.output(folded)


@register(
    keras.layers.Activation, keras.layers.ReLU, keras.layers.ELU, keras.layers.Softmax,
    keras.layers.Rescaling, keras.layers.Identity,
)  # fmt: skip
class StackedActivation(StackedLayer):
    """Activations; those that treat each number by itself take any layout."""

    @classmethod
    def check(cls, layer) -> None:
        axis = getattr(layer, "axis", -1)
        if axis != -1:
            raise NotStackable(f"layer {layer.name!r} works along axis {axis}, not the last")
        scale = getattr(layer, "scale", 1.0)
        if isinstance(layer, keras.layers.Rescaling) and not isinstance(scale, (int, float)):
            raise NotStackable(f"layer {layer.name!r} has one scale a channel")

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        layer = self.layer
        if isinstance(layer, keras.layers.Identity):
            return x
        if isinstance(layer, keras.layers.Activation):
            return activate(layer.activation, x)
        if isinstance(layer, keras.layers.Softmax):
            return self.output(layer.call(x.member_first()))
        value = tf.cast(x.value, layer.compute_dtype)
        return x.like(layer.call(value))


@register(
    keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply, keras.layers.Average,
    keras.layers.Maximum, keras.layers.Minimum,
)  # fmt: skip
class StackedMerge(StackedLayer):
    """Number by number: any layout that the inputs share."""

    def call(self, *inputs: Stacked, context: Context) -> Stacked:
        if len({len(x.value.shape) - (not x.packed) for x in inputs}) != 1:
            raise NotStackable(f"layer {self.layer.name!r} merges inputs of different ranks")
        if all(x.packed for x in inputs):
            shapes = {tuple(x.value.shape[1:]) for x in inputs}
            if len(shapes) == 1:
                return inputs[0].like(self.layer._merge_function([x.value for x in inputs]))
        return self.output(self.layer._merge_function([x.member_first() for x in inputs]))


@register(keras.layers.Concatenate)
class StackedConcatenate(StackedLayer):
    """Concatenation, member by member."""

    def call(self, *inputs: Stacked, context: Context) -> Stacked:
        axis = self.layer.axis
        values = [x.member_first() for x in inputs]
        return self.output(tf.concat(values, axis if axis < 0 else axis + 1))
