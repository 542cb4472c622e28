"""Stacked pooling, padding, cropping, upsampling, reshaping: Keras's layer in the right layout."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.layers.checks import check_channels_last
from kregs.population.registry import Context, StackedLayer, register
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
        check_channels_last(layer)

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
        by_member = tf.reshape(y, tf.concat([shape[:2], tf.shape(y)[1:]], axis=0))
        by_member.set_shape([self.members, value.shape[1], *y.shape[1:]])
        return self.output(by_member)
