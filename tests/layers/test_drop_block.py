from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kregs.layers import DropBlock2D


def ones(*shape):
    return np.ones(shape, "float32")


def test_is_the_identity_outside_of_training():
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")
    np.testing.assert_array_equal(DropBlock2D(0.5, block_size=3)(x), x)
    np.testing.assert_array_equal(DropBlock2D(0.0, block_size=3)(x, training=True), x)


@pytest.mark.parametrize("block_size", [1, 3, 4])
def test_drops_whole_squares_inside_the_map(block_size):
    dropped = DropBlock2D(0.1, block_size=block_size, seed=0)(ones(64, 9, 7, 2), training=True)
    dropped = np.asarray(dropped) == 0
    # oracle: every dropped pixel must lie in some fully dropped square
    covered = np.zeros_like(dropped)
    for i in range(9 - block_size + 1):
        for j in range(7 - block_size + 1):
            square = dropped[:, i : i + block_size, j : j + block_size]
            full = square.all(axis=(1, 2), keepdims=True)
            covered[:, i : i + block_size, j : j + block_size] |= full
    np.testing.assert_array_equal(covered, dropped)
    assert dropped.any()
    assert not np.array_equal(dropped[..., 0], dropped[..., 1])  # each channel has its own


@pytest.mark.parametrize(("block_size", "low"), [(1, 0.095), (3, 0.085), (5, 0.08)])
def test_rate_and_mean(block_size, low):
    y = np.asarray(
        DropBlock2D(0.1, block_size=block_size, seed=0)(ones(256, 20, 20, 4), training=True)
    )
    # squares overlap, which the paper's equation 1 leaves out: a little less than the rate
    assert low < np.mean(y == 0) < 0.105
    np.testing.assert_allclose(y.mean(), 1.0, rtol=1e-4)
    np.testing.assert_allclose(y[y != 0], y.max())


def test_a_block_larger_than_the_map_drops_the_whole_channel():
    y = np.asarray(DropBlock2D(0.5, block_size=9, seed=0)(ones(200, 4, 6, 2), training=True))
    rows = y.reshape(200, 4, 6, 2) == 0
    # 4 is the largest square: it spans the height, so every column is dropped as one
    np.testing.assert_array_equal(rows.all(axis=1), rows.any(axis=1))
    assert rows.any()


def test_same_seed_same_mask():
    x = ones(2, 8, 8, 3)
    one = DropBlock2D(0.3, block_size=2, seed=5)(x, training=True)
    two = DropBlock2D(0.3, block_size=2, seed=5)(x, training=True)
    np.testing.assert_array_equal(one, two)
    other = DropBlock2D(0.3, block_size=2, seed=6)(x, training=True)
    assert not np.array_equal(one, other)


def test_in_a_graph_with_gradients_and_float16():
    layer = DropBlock2D(0.3, block_size=2, seed=0, dtype="mixed_float16")

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)])
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x)

    y, gradient = run(tf.ones((4, 8, 8, 3)))
    assert y.dtype == tf.float16
    np.testing.assert_allclose(gradient, tf.cast(y, tf.float32), rtol=1e-3)


def test_save_and_load(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, DropBlock2D(0.25, block_size=3, seed=7)(inputs))
    model.save(tmp_path / "m.keras")
    layer = keras.saving.load_model(tmp_path / "m.keras").layers[-1]
    assert (layer.rate, layer.block_size, layer.seed) == (0.25, 3, 7)
    assert layer.get_config() == model.layers[-1].get_config()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rate": 1.0}, ValueError, r"`rate` must be .* < 1"),
        ({"rate": -0.1}, ValueError, r"`rate` must be .*>= 0"),
        ({"rate": 0.1, "block_size": 0}, ValueError, r"`block_size` must be an integer >= 1"),
        ({"rate": 0.1, "block_size": 2.0}, TypeError, r"`block_size` must be an integer >= 1"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        DropBlock2D(**arguments)


def test_unknown_size_and_wrong_rank():
    with pytest.raises(ValueError, match=r"needs .batch, height, width, channels.*\(2, 8\)"):
        DropBlock2D(0.1)(ones(2, 8))
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"needs .batch, height, width, channels.* None, None, 3"):
        DropBlock2D(0.1)(inputs)
