"""What the builders share."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization
from kregs.builders.layer_factory import Seeds
from kregs.layers import DropBlock2D

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("normalization", "use_bias"),
    [
        (None, None), (None, True), (None, False),
        ("batch", None), ("layer", None), ("group", None), ("batch", True), ("layer", False),
    ],
)  # fmt: skip
def test_bias_only_where_nothing_normalizes(normalization, use_bias):
    r = Regularization(normalization=normalization)
    for model in (
        kregs.mlp((4,), 3, units=(8,), regularization=r, use_bias=use_bias),
        kregs.convnet((8, 8, 1), 3, regularization=r, use_bias=use_bias),
        kregs.resnet((8, 8, 1), 3, filters=(4,), regularization=r, use_bias=use_bias),
        kregs.autoencoder((4,), units=(2, 2), regularization=r, use_bias=use_bias),
        kregs.autoencoder((4,), units=(2, 2), regularization=r, use_bias=use_bias, tied=True),
    ):
        expected = normalization is None if use_bias is None else use_bias
        hidden = [
            layer.use_bias
            for layer in model.layers
            if hasattr(layer, "use_bias") and layer.name != "head"
        ]
        assert set(hidden) == {expected}
        if not any("TiedDense" in type(layer).__name__ for layer in model.layers):
            assert model.get_layer("head").use_bias
        else:
            assert model.get_layer("encoder_dense_1").use_reverse_bias
            assert model.get_layer("encoder_dense_2").use_reverse_bias == expected


@pytest.mark.parametrize("rescaling", [1 / 255, 0.5, None])
@pytest.mark.parametrize("build", [kregs.convnet, kregs.resnet])
def test_rescaling(build, rescaling):
    x = RNG.uniform(0, 2, size=(2, 8, 8, 1)).astype("float32")
    model = build((8, 8, 1), 3, rescaling=rescaling, seed=0)
    plain = build((8, 8, 1), 3, rescaling=None, seed=0)
    np.testing.assert_allclose(
        model(x), plain(x * (1 if rescaling is None else rescaling)), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("build", [kregs.convnet, kregs.resnet])
def test_block_size_drops_squares(build, tmp_path):
    r = Regularization(spatial_dropout=0.2)
    model = build((8, 8, 1), 3, regularization=r, block_size=2, seed=0)
    blocks = [layer for layer in model.layers if isinstance(layer, DropBlock2D)]
    assert blocks
    assert {(b.rate, b.block_size) for b in blocks} == {(0.2, 2)}
    assert len({b.seed for b in blocks}) == len(blocks)
    assert not any(isinstance(layer, keras.layers.SpatialDropout2D) for layer in model.layers)
    model.save(tmp_path / "m.keras")
    x = RNG.uniform(0, 255, size=(2, 8, 8, 1)).astype("float32")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5, atol=1e-6)


def test_an_activation_layer_is_copied():
    model = kregs.mlp((4,), 3, units=(8, 8), activation=keras.layers.LeakyReLU(negative_slope=0.25))
    copies = [layer for layer in model.layers if isinstance(layer, keras.layers.LeakyReLU)]
    assert [layer.negative_slope for layer in copies] == [0.25, 0.25]
    assert [layer.name for layer in copies] == ["dense_activation_1", "dense_activation_2"]


@pytest.mark.parametrize(("activation", "family"), [("relu", "HeNormal"), ("selu", "LecunNormal")])
def test_auto_initializer(activation, family):
    model = kregs.mlp((4,), 3, units=(8,), activation=activation)
    kinds = [type(layer.kernel_initializer).__name__ for layer in model.layers if layer.weights]
    assert kinds == [family, "GlorotUniform"]


@pytest.mark.parametrize(("outputs", "activation"), [(1, "sigmoid"), (1, None), (2, "softmax")])
def test_heads(outputs, activation):
    model = kregs.mlp((4,), outputs, units=(8,), head_activation=activation)
    y = np.asarray(model(100 * RNG.normal(size=(50, 4)).astype("float32")))
    assert y.shape == (50, outputs)
    assert y.std() > 0
    assert (activation is None) == bool((y < 0).any() or (y > 1).any())


def test_seeds_are_stable_and_spread():
    # the values themselves are a promise: a seed gives the same model in the next version
    assert [Seeds(0)("dense_1"), Seeds(1)("dense_1")] == [1857200898, 674292645]
    seeds = {Seeds(s)(f"layer_{i}") for s in range(100) for i in range(100)}
    assert len(seeds) > 9990
    assert all(0 <= s < 2**31 for s in seeds)
