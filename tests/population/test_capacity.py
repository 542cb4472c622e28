"""How many members train at once: how much memory and arithmetic they are taken to need."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kregs.population.capacity import member_bytes, member_flops, members_at_once
from kregs.population.layout import Layout
from kregs.population.signature import read_member


def member(body, shape=(6,)):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, body(inputs))
    model.compile("sgd", "mse")
    return model


def read_layout(body, shape=(6,)):
    return Layout([read_member(member(body, shape))])


def bytes_of_activations(body, shape, batch):
    """How many bytes a member is taken to need beyond its weights."""
    layout = read_layout(body, shape)
    weights = 5 * 4 * sum(variable.value.numpy().size for variable in layout.weights)
    return member_bytes(layout, batch) - weights


@pytest.mark.parametrize(
    ("layer", "numbers"),
    [
        (lambda: layers.Dense(5), 20 * 5),
        # per step: the gates twice, before and after their activation, and the states
        (lambda: layers.SimpleRNN(5), 20 * 5 * 3),
        (lambda: layers.GRU(5), 20 * 5 * 7),
        (lambda: layers.LSTM(5), 20 * 5 * 10),
        (lambda: layers.LSTM(5, return_sequences=True), 20 * 5 * 10),
        (lambda: layers.Bidirectional(layers.LSTM(5)), 2 * 20 * 5 * 10 + 10),
    ],
)
def test_memory_is_that_of_all_steps(layer, numbers):
    activations = bytes_of_activations(lambda x: layer()(x), (20, 3), 32)
    assert activations == pytest.approx(4 * 3 * 32 * numbers, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "shape", "multiplications"),
    [
        (lambda: layers.Dense(5), (7,), 7 * 5),
        (lambda: layers.Dense(5), (3, 7), 3 * 7 * 5),
        (lambda: layers.Conv2D(4, 3), (8, 8, 2), 6 * 6 * 3 * 3 * 2 * 4),
        (lambda: layers.Conv2D(4, 3, strides=2, padding="same"), (8, 8, 2), 4 * 4 * 9 * 2 * 4),
        (lambda: layers.SimpleRNN(5), (10, 3), 10 * (3 * 5 + 5 * 5)),
        (lambda: layers.Embedding(100, 5), (10,), 0),
        (lambda: layers.BatchNormalization(), (7,), 0),
    ],
)
def test_arithmetic_is_that_of_the_products(layer, shape, multiplications):
    layout = read_layout(lambda x: layer()(x), shape)
    # a product is an addition, too; it is taken forward, to the input and to the kernel
    assert member_flops(layout, 32) == 3 * 2 * 32 * multiplications


def test_large_members_are_fewer_at_once():
    small = read_layout(lambda x: layers.Dense(5)(x))
    large = read_layout(lambda x: layers.Conv2D(64, 3)(x), (32, 32, 16))
    assert members_at_once(small, 32, None) == 32
    assert members_at_once(large, 32, None) == 4
    middle = read_layout(lambda x: layers.Conv2D(64, 3)(x), (8, 8, 16))
    assert members_at_once(middle, 32, None) == 8  # of 0.064 GFLOP each
