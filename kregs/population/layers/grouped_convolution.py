"""How K convolutions are computed: as one grouped convolution over K times the channels, or apart.

Grouped ones are faster where a member has few channels, separate ones where it has many; both are
in one graph and give the same. `tf.nn.conv2d` is called directly: `keras.ops.conv` forces XLA for
grouped convolution, which is two orders of magnitude slower on a CPU.
"""

from __future__ import annotations

import functools
import math
import time

import tensorflow as tf


def convolve(images: tf.Tensor, kernel: tf.Tensor, geometry: dict, *, grouped: bool) -> tf.Tensor:
    """Convolve the images of K members with their kernels.

    Args:
        images: packed, `(batch, height, width, K * in)`.
        kernel: `(K, height, width, in, out)`.
        geometry: strides `(1, y, x, 1)`, padding and dilations `(y, x)`, as `tf.nn` takes them.
        grouped: as one grouped convolution, which has no dilations, or K separate ones.

    Returns:
        Packed images, `(batch, height, width, K * out)`.
    """
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
                member_images,
                member_kernel,
                strides,
                geometry["padding"],
                dilations=geometry["dilations"],
            )
            for member_images, member_kernel in parts
        ],
        axis=-1,
    )


@functools.cache
def grouped_gradients_work(dtype: tf.DType) -> bool:
    """Probe once a type whether grouped convolution has right gradients (oneDNN: in float32)."""

    def gradients(groups: int) -> list[tf.Tensor]:
        x, w = tf.reshape(tf.range(96.0), [2, 4, 4, 3]), tf.reshape(tf.range(54.0), [3, 3, 1, 6])
        x, w = tf.cast(x, dtype) / 96, tf.cast(w, dtype) / 54
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            parts = zip(tf.split(x, groups, -1), tf.split(w, groups, -1), strict=True)
            y = tf.concat([tf.nn.conv2d(images, kernel, 1, "SAME") for images, kernel in parts], -1)
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
    """Return whether to convolve as one: by a rule on a CPU, measured once a geometry on a GPU.

    Args:
        images, kernel, geometry: see `convolve`.
    """
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
