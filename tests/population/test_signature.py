"""In what models differ when they cannot be stacked."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from kregs.population import NotStackable, Population


def member(body):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, body(inputs))
    model.compile("sgd", "mse")
    return model


def shared(x):
    layer = layers.Dense(6)
    return layer(layer(x))


def apart(x):
    return layers.Dense(6)(layers.Dense(6)(x))


def test_shared_weights_are_a_difference_by_themselves():
    with pytest.raises(NotStackable, match=r"'dense.*' shares its weights with another"):
        Population.from_models([member(shared), member(apart)])
    assert len(Population.from_models([member(shared), member(shared)])) == 2
