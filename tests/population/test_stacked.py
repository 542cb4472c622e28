"""Sums of each member's numbers, as XLA runs them well."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kregs.population.layout import Layout
from kregs.population.program import Program
from kregs.population.signature import read_member
from kregs.population.stacked import sum_by_member

MANY = (3, 32, 24)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("shape", [MANY, (3, 2, 2, 128), (3, 600), (3, 31, 33), (3, 8), (3,)])
def test_sums_and_gradients(shape, compiled):
    values = np.random.default_rng(0).normal(size=shape)
    factors = np.array([2.0, -1.0, 0.5])

    @tf.function(jit_compile=compiled)
    def sums_and_gradient(value):
        with tf.GradientTape() as tape:
            tape.watch(value)
            sums = sum_by_member(value, compiled=compiled)
            total = tf.reduce_sum(factors * sums)
        return sums, tape.gradient(total, value)

    sums, gradient = sums_and_gradient(tf.constant(values))
    inner = tuple(range(1, len(shape)))
    np.testing.assert_allclose(sums, values.sum(axis=inner), rtol=1e-12)
    expected = np.broadcast_to(factors.reshape(-1, *[1] * len(inner)), shape)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("compiled", [True, False])
def test_penalties_and_norms_are_summed_so(compiled):
    """On a CPU, XLA reduces many numbers to one at a time, but adds vectors as such."""
    model = keras.Sequential([keras.Input((32,)), layers.Dense(24, kernel_regularizer="l2")])
    model.compile(keras.optimizers.SGD(clipnorm=1.0), "mse")
    y = np.zeros((2, 24), "float32")
    program = Program(Layout([read_member(model)]), 3, y, accelerate=compiled)

    def clipped_step(gradients):
        program.optimizer.apply(gradients, tf.zeros(3), program.steps, None)

    def graph(function, *arguments):
        function = tf.function(function, jit_compile=True)
        return function.experimental_get_compiler_ir(*arguments)(stage="hlo")

    gradients = [tf.ones_like(weight) for weight in program.weights]
    for text in (graph(program.model.weight_penalties), graph(clipped_step, gradients)):
        assert ("reduce(f32[3,32,24]" in text) == (not compiled)
        assert ("reduce(f32[3,96]" in text) == compiled
