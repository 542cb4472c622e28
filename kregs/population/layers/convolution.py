"""Stacked convolutions: Conv1D, Conv2D, DepthwiseConv2D, SeparableConv2D on packed channels."""

from __future__ import annotations

import keras
import tensorflow as tf

from kregs.population.layers.activations import activate
from kregs.population.layers.checks import check_channels_last, check_plain_weights
from kregs.population.layers.grouped_convolution import (
    convolve,
    grouped_gradients_work,
    grouped_is_faster,
)
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked


class _Convolution(StackedLayer):
    """What the convolutions share: the checks, the padding, bias and activation."""

    accelerated = False

    def __init__(self, layer, *args) -> None:
        super().__init__(layer, *args)
        # probed here, outside of any graph
        self._can_group = self.members == 1 or (
            grouped_gradients_work(tf.as_dtype(layer.compute_dtype))
            and max(layer.dilation_rate) == 1  # no gradient of its own for dilated groups
        )

    @classmethod
    def check(cls, layer) -> None:
        check_channels_last(layer)
        if getattr(layer, "groups", 1) != 1:
            raise NotStackable(f"layer {layer.name!r} has groups={layer.groups}")
        check_plain_weights(layer)

    def _convolve(self, images: tf.Tensor, kernel: tf.Tensor, geometry: dict) -> tf.Tensor:
        grouped = self._can_group and (
            self.members == 1 or grouped_is_faster(images, kernel, geometry)
        )
        return convolve(images, kernel, geometry, grouped=grouped)

    def _finish(self, packed: tf.Tensor, channels: int) -> Stacked:
        if self.layer.use_bias:
            bias = tf.cast(self.weight("bias"), packed.dtype)
            packed = packed + tf.reshape(bias, [self.members * channels])
        return activate(self.layer.activation, Stacked(packed, self.members, packed=True))

    def _images(self, x: Stacked) -> tf.Tensor:
        """The packed input as (batch, height, width, K * channels), with Keras's padding done."""
        value = tf.cast(x.channels_packed(), self.layer.compute_dtype)
        if self.layer.rank == 1:
            if self.layer.padding == "causal":
                left = self.layer.dilation_rate[0] * (self.layer.kernel_size[0] - 1)
                value = tf.pad(value, [[0, 0], [left, 0], [0, 0]])
            value = value[:, None]
        return value

    def _geometry(self) -> dict:
        ones = (1,) * (2 - self.layer.rank)
        return {
            "strides": (1, *ones, *self.layer.strides, 1),
            "padding": "SAME" if self.layer.padding == "same" else "VALID",
            "dilations": (*ones, *self.layer.dilation_rate),
        }

    def _drop_height(self, images: tf.Tensor) -> tf.Tensor:
        return images[:, 0] if self.layer.rank == 1 else images

    def _kernel(self, name: str) -> tf.Tensor:
        kernel = tf.cast(self.weight(name), self.layer.compute_dtype)
        return kernel[:, None] if self.layer.rank == 1 else kernel


@register(keras.layers.Conv1D, keras.layers.Conv2D)
class StackedConv(_Convolution):
    """K convolutions as one grouped convolution."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        kernel = self._kernel("kernel")
        images = self._convolve(self._images(x), kernel, self._geometry())
        return self._finish(self._drop_height(images), kernel.shape[-1])


class _Depthwise(_Convolution):
    """Depthwise convolution knows no members: K times the channels is all."""

    @classmethod
    def check(cls, layer) -> None:
        super().check(layer)
        if layer.strides[0] != layer.strides[1]:  # TensorFlow's kernel wants equal ones
            raise NotStackable(f"layer {layer.name!r} has unequal strides {layer.strides}")

    def _depthwise(self, x: Stacked, name: str) -> tf.Tensor:
        """Convolve each channel of each member with its own kernels."""
        kernel = self._kernel(name)
        members, height, width, channels, multiplier = kernel.shape
        packed = tf.transpose(kernel, [1, 2, 0, 3, 4])
        packed = tf.reshape(packed, [height, width, members * channels, multiplier])
        return tf.nn.depthwise_conv2d(self._images(x), packed, **self._geometry())


@register(keras.layers.DepthwiseConv2D)
class StackedDepthwiseConv(_Depthwise):
    """Each channel with kernels of its own."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        channels, multiplier = self.weight("kernel").shape[-2:]
        return self._finish(self._depthwise(x, "kernel"), channels * multiplier)


@register(keras.layers.SeparableConv2D)
class StackedSeparableConv(_Depthwise):
    """A depthwise convolution and a grouped 1x1 convolution."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        images = self._depthwise(x, "depthwise_kernel")
        pointwise = self._kernel("pointwise_kernel")
        plain = {"strides": (1, 1, 1, 1), "padding": "VALID", "dilations": (1, 1)}
        images = self._convolve(images, pointwise, plain)
        return self._finish(images, pointwise.shape[-1])
