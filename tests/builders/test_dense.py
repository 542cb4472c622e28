"""`mlp`: the order of its layers."""

from __future__ import annotations

import keras

import kregs
from kregs import Regularization

ALL = Regularization(
    l2=1e-4,
    activity_l2=1e-4,
    dropout=0.5,
    input_dropout=0.1,
    gaussian_noise=0.1,
    normalization="batch",
)


def names(model):
    return [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def test_mlp_order():
    model = kregs.mlp((4, 2), 3, units=(8,), regularization=ALL)
    assert isinstance(model, keras.Sequential)
    assert names(model) == [
        "flatten",
        "gaussian_noise",
        "input_dropout",
        "dense_1",
        "dense_normalization_1",
        "dense_activation_1",
        "dense_activity_1",
        "dropout_1",
        "head",
    ]
