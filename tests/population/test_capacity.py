"""How much memory members are taken to need."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kregs.population.capacity import members_at_once
from kregs.population.layout import Layout
from kregs.population.signature import read_member


def member(body, shape=(6,)):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, body(inputs))
    model.compile("sgd", "mse")
    return model


def bytes_of_activations(monkeypatch, body, shape, batch):
    """How many bytes a member is taken to need beyond its weights."""
    one = read_member(member(body, shape))
    weights = 5 * 4 * sum(variable.value.numpy().size for variable in one.weights)
    monkeypatch.setattr("kregs.population.capacity._CPU_MEMBERS", 10**9)
    monkeypatch.setattr("kregs.population.capacity._memory_bytes", lambda _: 4 * 1e12)
    return 1e12 / members_at_once(Layout([one]), batch, None) - weights


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
def test_memory_is_that_of_all_steps(monkeypatch, layer, numbers):
    activations = bytes_of_activations(monkeypatch, lambda x: layer()(x), (20, 3), 32)
    assert activations == pytest.approx(4 * 3 * 32 * numbers, rel=1e-3)
