"""`convnet`: the order of its layers, and how it pools."""

from __future__ import annotations

import keras
import numpy as np
import pytest

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
RNG = np.random.default_rng(0)


def names(model):
    return [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def test_convnet_order():
    model = kregs.convnet(
        (8, 8, 1),
        3,
        filters=(4,),
        convolutions_per_block=2,
        dense_units=(8,),
        regularization=ALL.replace(spatial_dropout=0.2),
    )
    assert isinstance(model, keras.Sequential)
    convolutions = [
        f"block1_{word}{c}"
        for c in (1, 2)
        for word in ("convolution", "normalization", "activation", "activity")
    ]
    assert names(model) == [
        "rescaling",
        "gaussian_noise",
        "input_dropout",
        *convolutions,
        "block1_spatial_dropout",
        "block1_pooling",
        "flatten",
        "dropout_0",
        "dense_1",
        "dense_normalization_1",
        "dense_activation_1",
        "dense_activity_1",
        "dropout_1",
        "head",
    ]


@pytest.mark.parametrize("pooling", ["flatten", "average", "max"])
def test_convnet_pooling(pooling):
    model = kregs.convnet((8, 8, 1), 3, filters=(4,), pooling=pooling, seed=0)
    x = RNG.uniform(0, 255, size=(2, 8, 8, 1)).astype("float32")
    block = keras.Model(model.inputs[0], model.get_layer("block1_pooling").output)
    features = np.asarray(block(x))
    features = {
        "flatten": features.reshape(2, -1),
        "average": features.mean(axis=(1, 2)),
        "max": features.max(axis=(1, 2)),
    }[pooling]
    head = model.get_layer("head")
    np.testing.assert_allclose(head(features), model(x), rtol=1e-5, atol=1e-6)
