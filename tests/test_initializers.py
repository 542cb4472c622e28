from __future__ import annotations

import random

import keras
import numpy as np
import pytest

from kregs import initializer_for

FAMILIES = {
    "HeNormal": ["relu", "leaky_relu", "elu", "gelu", "silu", "swish", "relu6", "mish"],
    "LecunNormal": ["selu"],
    "GlorotUniform": ["tanh", "sigmoid", "softmax", "linear", None, "softplus"],
}
PAIRS = [(family, name) for family, names in FAMILIES.items() for name in names]


@pytest.mark.parametrize(("family", "activation"), PAIRS)
def test_family(family, activation):
    assert type(initializer_for(activation)).__name__ == family
    if activation is not None:
        function = keras.activations.get(activation)
        assert type(initializer_for(function)).__name__ == family


@pytest.mark.parametrize(
    ("layer", "family"),
    [
        (keras.layers.ReLU, "HeNormal"),
        (keras.layers.LeakyReLU, "HeNormal"),
        (keras.layers.PReLU, "HeNormal"),
        (lambda: keras.layers.Activation("selu"), "LecunNormal"),
        (lambda: keras.layers.Activation("tanh"), "GlorotUniform"),
    ],
)
def test_activation_layer(layer, family):
    assert type(initializer_for(layer())).__name__ == family


def test_unknown_function_gives_glorot():
    assert type(initializer_for(lambda x: x)).__name__ == "GlorotUniform"


def test_fresh_and_seeded():
    one, two = initializer_for("relu", seed=1), initializer_for("relu", seed=1)
    assert one is not two
    np.testing.assert_array_equal(one((4, 4)), two((4, 4)))
    assert not np.array_equal(one((4, 4)), initializer_for("relu", seed=2)((4, 4)))
    assert not np.array_equal(initializer_for("relu")((4, 4)), initializer_for("relu")((4, 4)))


def test_a_seed_leaves_the_global_generator_alone():
    before = random.getstate()
    initializer_for("relu", seed=1)
    assert random.getstate() == before


@pytest.mark.parametrize("activation", ["relu", "selu", "tanh"])
def test_keeps_the_variance_through_ten_layers(activation):
    x = np.random.default_rng(0).normal(size=(512, 256)).astype("float32")
    start = np.mean(np.square(x))
    function = keras.activations.get(activation)
    for layer in range(10):
        x = function(x @ initializer_for(activation, seed=layer)((256, 256)))
    ratio = float(np.mean(np.square(x)) / start)
    # relu keeps half of 2, selu goes to its fixed point 1, tanh shrinks slowly
    low = {"relu": 0.25, "selu": 0.8, "tanh": 0.02}[activation]
    assert low < ratio < 1.6


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"activation": "rleu"}, ValueError, r"`activation`.*'rleu'.*Did you mean 'relu'"),
        ({"activation": 3}, TypeError, r"`activation` must be a name"),
        ({"activation": "relu", "seed": 1.5}, TypeError, r"`seed` must be an integer"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        initializer_for(**arguments)
