"""Grouped and separate convolutions: the same numbers, and which is chosen."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kregs.population.layers import grouped_convolution
from kregs.population.layers.grouped_convolution import (
    convolve,
    grouped_gradients_work,
    grouped_is_faster,
    measure,
)

PLAIN = {"strides": (1, 1, 1, 1), "padding": "SAME", "dilations": (1, 1)}
RNG = np.random.default_rng(0)


def images_and_kernel(before, after=5, members=3, size=6):
    images = RNG.normal(size=(4, size, size, members * before)).astype("float32")
    kernel = RNG.normal(size=(members, 3, 3, before, after)).astype("float32")
    return tf.constant(images), tf.constant(kernel)


needs_grouped_gradients = pytest.mark.skipif(
    not grouped_gradients_work(tf.float32),
    reason="TensorFlow has no gradient of grouped convolution on this CPU (without oneDNN)",
)


@needs_grouped_gradients
@pytest.mark.parametrize("before", [1, 2, 16])
@pytest.mark.parametrize("strides", [1, 2])
def test_both_ways_are_the_same(before, strides):
    images, kernel = images_and_kernel(before)
    geometry = {**PLAIN, "strides": (1, strides, strides, 1), "padding": "VALID"}
    results = []
    for grouped in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            y = convolve(images, kernel, geometry, grouped=grouped)
            loss = tf.reduce_sum(y * y)
        results.append([y, *tape.gradient(loss, [images, kernel])])
    for one, other in zip(*results, strict=True):
        scale = float(tf.reduce_max(tf.abs(one)))
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-5)


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="the rule is for CPUs")
def test_on_a_cpu_large_convolutions_are_convolved_apart():
    assert grouped_is_faster(*images_and_kernel(1, 64, size=28), PLAIN)
    assert grouped_is_faster(*images_and_kernel(64, 64, size=4), PLAIN)
    assert not grouped_is_faster(*images_and_kernel(64, 64, size=14), PLAIN)


@needs_grouped_gradients
def test_on_a_gpu_each_geometry_is_measured_once(monkeypatch):
    real, measured = measure, []
    monkeypatch.setattr(
        grouped_convolution.tf.config, "list_logical_devices", lambda kind=None: ["GPU"]
    )

    def fake(*arguments):
        times = real(*arguments, repeats=1)
        measured.append(times)
        return measured[-1][::-1] if len(measured) == 2 else measured[-1]

    monkeypatch.setattr(grouped_convolution, "measure", fake)
    images, kernel = images_and_kernel(2)
    chosen = []

    @tf.function(autograph=False)
    def traced(value):
        chosen.append(grouped_is_faster(value, kernel, PLAIN))  # measured outside of this graph
        return value

    traced(images)
    traced.get_concrete_function(tf.TensorSpec([None, 6, 6, 6]))
    assert all(type(seconds) is float and seconds > 0 for pair in measured for seconds in pair)
    (a, b), (c, d) = measured
    assert chosen == [a < b, d < c]
    before = real.cache_info()
    real((4, 6, 6), (3, 3, 3, 2, 5), tuple(sorted(PLAIN.items())), tf.float32, repeats=1)
    assert real.cache_info().hits == before.hits + 1
