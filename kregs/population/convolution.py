"""Stacked convolutions: one grouped convolution over K times the channels, or K separate ones.

Grouped ones are faster where a member has few channels, separate ones where it has many; both are
in one graph and give the same. `tf.nn.conv2d` is called directly: `keras.ops.conv` forces XLA for
grouped convolution, which is two orders of magnitude slower on a CPU.
"""

from __future__ import annotations

import functools
import math
import time

import keras
import tensorflow as tf

from kregs.population.dense import apply_activation
from kregs.population.registry import Context, NotStackable, StackedLayer, register
from kregs.population.stacked import Stacked, per_member

_ELEMENTWISE = frozenset(
    keras.activations.get(name)
    for name in (
        "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh",
        "sigmoid", "softplus", "softsign", "exponential", "linear", "hard_sigmoid", "hard_silu",
        "hard_tanh", "hard_shrink", "tanh_shrink", "soft_shrink", "threshold", "squareplus",
        "log_sigmoid", "sparse_plus",
    )
)  # fmt: skip


def is_elementwise(activation) -> bool:
    """Whether an activation treats each number by itself, so that any layout will do."""
    return activation is None or activation in _ELEMENTWISE


def activate(activation, x: Stacked) -> Stacked:
    """Apply an activation in the layout that it needs."""
    if is_elementwise(activation):
        return x.like(apply_activation(activation, x.value))
    return Stacked(apply_activation(activation, x.member_first()), x.members)


@functools.cache
def grouped_gradients_work(dtype: tf.DType) -> bool:
    """Probe once a type whether grouped convolution has right gradients (oneDNN: in float32)."""

    def gradients(groups: int) -> list[tf.Tensor]:
        x, w = tf.reshape(tf.range(96.0), [2, 4, 4, 3]), tf.reshape(tf.range(54.0), [3, 3, 1, 6])
        x, w = tf.cast(x, dtype) / 96, tf.cast(w, dtype) / 54
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            parts = zip(tf.split(x, groups, -1), tf.split(w, groups, -1), strict=True)
            y = tf.concat([tf.nn.conv2d(own, kernel, 1, "SAME") for own, kernel in parts], -1)
            loss = tf.reduce_sum(y * y)
        return tape.gradient(loss, [x, w])

    try:
        pairs = zip(gradients(1), gradients(3), strict=True)
        return all(
            bool(tf.reduce_all(tf.abs(a - b) <= 0.05 * tf.reduce_max(tf.abs(b)))) for a, b in pairs
        )
    except (tf.errors.OpError, ValueError):
        return False


# from so many input channels and products a row on, a member's convolution is faster by itself on a
# CPU (tests/benchmarks/convolutions.py); no measurement, so that a run repeats to the last bit
_MANY_CHANNELS, _MANY_PRODUCTS = 32, 3e6


def grouped_is_faster(images: tf.Tensor, kernel: tf.Tensor, geometry: dict) -> bool:
    """Whether to convolve as one: by a rule on a CPU, by measuring each geometry once on a GPU."""
    known = tuple(size or 32 for size in images.shape[:3])
    if not tf.config.list_logical_devices("GPU"):
        products = math.prod(kernel.shape[1:]) * known[1] * known[2]
        return kernel.shape[3] < _MANY_CHANNELS or products < _MANY_PRODUCTS
    shapes = known, tuple(kernel.shape), tuple(sorted(geometry.items()))
    with tf.init_scope():  # outside of the graph that is being traced
        grouped, separate = measure(*shapes, images.dtype)
    return grouped < separate


@functools.cache
def measure(
    batch_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    geometry: tuple,
    dtype: tf.DType,
    members: int = 4,
    repeats: int = 5,
) -> tuple[float, float]:
    """Return the seconds of a grouped and of separate convolutions, gradients included.

    Args:
        batch_shape: rows, height, width.
        kernel_shape: `(K, height, width, in, out)`; a few members stand for all.
        geometry: strides, padding and dilations, as pairs.
        dtype: of images and kernels.
    """
    members = min(members, kernel_shape[0])
    images = tf.ones([*batch_shape, members * kernel_shape[3]], dtype)
    kernel = tf.ones([members, *kernel_shape[1:]], dtype)

    def seconds(grouped: bool) -> float:
        @functools.partial(tf.function, autograph=False)
        def step(x: tf.Tensor, w: tf.Tensor) -> list[tf.Tensor]:
            # no tape records anything inside of `tf.init_scope`
            return tf.gradients(convolve(x, w, dict(geometry), grouped=grouped), [x, w])

        def once() -> float:
            began = time.perf_counter()
            for gradient in step(images, kernel):
                gradient.numpy()  # waits for a GPU
            return time.perf_counter() - began

        once()
        return min(once() for _ in range(repeats))

    return seconds(True), seconds(False)


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
        if layer.data_format != "channels_last":
            raise NotStackable(f"layer {layer.name!r} has data_format={layer.data_format!r}")
        if getattr(layer, "groups", 1) != 1:
            raise NotStackable(f"layer {layer.name!r} has groups={layer.groups}")
        if getattr(layer, "lora_enabled", False):
            raise NotStackable(f"layer {layer.name!r} uses LoRA")

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


def convolve(images: tf.Tensor, kernel: tf.Tensor, geometry: dict, *, grouped: bool) -> tf.Tensor:
    """Convolve packed images with the kernels `(K, height, width, in, out)` of K members."""
    members = kernel.shape[0]
    if grouped:
        packed = tf.transpose(kernel, [1, 2, 3, 0, 4])
        packed = tf.reshape(packed, [*kernel.shape[1:4], members * kernel.shape[4]])
        return tf.nn.conv2d(images, packed, geometry["strides"], geometry["padding"])
    parts = zip(tf.split(images, members, axis=-1), tf.unstack(kernel), strict=True)
    strides = geometry["strides"][1:3]
    return tf.concat(
        [
            tf.nn.convolution(
                part, own, strides, geometry["padding"], dilations=geometry["dilations"]
            )
            for part, own in parts
        ],
        axis=-1,
    )


def _depthwise(images: tf.Tensor, kernel: tf.Tensor, geometry: dict) -> tf.Tensor:
    """Convolve each channel of each member with its own kernels `(K, h, w, in, multiplier)`."""
    packed = tf.transpose(kernel, [1, 2, 0, 3, 4])
    shape = kernel.shape
    packed = tf.reshape(packed, [shape[1], shape[2], shape[0] * shape[3], shape[4]])
    strides = geometry["strides"]
    if strides[1] == strides[2]:
        return tf.nn.depthwise_conv2d(images, packed, **geometry)
    # TensorFlow's kernel wants equal strides: take the larger step by leaving rows out
    raise NotStackable(f"a depthwise convolution with unequal strides {strides[1:3]}")


@register(keras.layers.DepthwiseConv2D)
class StackedDepthwiseConv(_Convolution):
    """Depthwise convolution knows no members: K times the channels is all."""

    @classmethod
    def check(cls, layer) -> None:
        super().check(layer)
        _check_depthwise(layer)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        kernel = self._kernel("kernel")
        images = _depthwise(self._images(x), kernel, self._geometry())
        return self._finish(images, kernel.shape[3] * kernel.shape[4])


@register(keras.layers.SeparableConv2D)
class StackedSeparableConv(_Convolution):
    """A depthwise convolution and a grouped 1x1 convolution."""

    @classmethod
    def check(cls, layer) -> None:
        super().check(layer)
        _check_depthwise(layer)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        images = _depthwise(self._images(x), self._kernel("depthwise_kernel"), self._geometry())
        pointwise = self._kernel("pointwise_kernel")
        plain = {"strides": (1, 1, 1, 1), "padding": "VALID", "dilations": (1, 1)}
        images = self._convolve(images, pointwise, plain)
        return self._finish(images, pointwise.shape[-1])


def _check_depthwise(layer) -> None:
    if layer.strides[0] != layer.strides[1]:
        raise NotStackable(f"layer {layer.name!r} has unequal strides {layer.strides}")


@register(keras.layers.PReLU)
class StackedPReLU(StackedLayer):
    """ReLU with a learned slope for each member."""

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        slope = tf.cast(self.weight("alpha"), value.dtype)[:, None]
        return self.output(tf.nn.relu(value) - slope * tf.nn.relu(-value))


@register(keras.layers.LeakyReLU)
class StackedLeakyReLU(StackedLayer):
    """The slope is a mere number, so it may differ between members."""

    numbers = ("negative_slope",)

    def call(self, x: Stacked, *, context: Context) -> Stacked:
        value = x.member_first()
        slope = tf.cast(per_member(self.number("negative_slope"), len(value.shape)), value.dtype)
        return self.output(tf.where(value > 0, value, slope * value))
