from __future__ import annotations

import keras
import numpy as np
import pytest

from kregs.layers import TiedDense

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 3)).astype("float32")


def randomize(layer):
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.weights])
    return [np.asarray(w) for w in layer.weights]


def make_model(**options):
    layer = TiedDense(2, name="tied", **options)
    inputs = keras.Input((3,))
    return keras.Model(inputs, layer(layer(inputs), reverse=True)), layer


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("use_reverse_bias", [True, False])
def test_both_directions(use_bias, use_reverse_bias):
    layer = TiedDense(2, use_bias=use_bias, use_reverse_bias=use_reverse_bias)
    layer.build((None, 3))
    kernel, *biases = randomize(layer)
    assert len(biases) == use_bias + use_reverse_bias
    code = X @ kernel + (biases[0] if use_bias else 0)
    np.testing.assert_allclose(layer(X), code, rtol=1e-5, atol=1e-6)
    back = code @ kernel.T + (biases[-1] if use_reverse_bias else 0)
    np.testing.assert_allclose(layer(code, reverse=True), back, rtol=1e-5, atol=1e-6)


def test_the_kernel_is_counted_and_penalized_once():
    model, layer = make_model(
        kernel_regularizer=keras.regularizers.L1L2(l1=0.1, l2=0.2), bias_regularizer="l2"
    )
    kernel, bias, reverse_bias = randomize(layer)
    model(X)
    assert model.count_params() == 3 * 2 + 2 + 3
    expected = 0.1 * np.abs(kernel).sum() + 0.2 * (kernel**2).sum()
    expected += 0.01 * ((bias**2).sum() + (reverse_bias**2).sum())
    np.testing.assert_allclose(sum(float(v) for v in model.losses), expected, rtol=1e-5)


def test_the_gradient_is_the_sum_over_both_uses():
    model, layer = make_model(use_bias=False, use_reverse_bias=False)
    (kernel,) = randomize(layer)
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.train_on_batch(X, X)
    # d/dW of mean((X W Wᵀ - X)²)
    error = 2 * (X @ kernel @ kernel.T - X) / X.size
    gradient = X.T @ error @ kernel + error.T @ X @ kernel
    np.testing.assert_allclose(layer.kernel, kernel - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_max_norm():
    model, layer = make_model(kernel_constraint=keras.constraints.MaxNorm(0.5, axis=0))
    randomize(layer)
    model.compile("sgd", loss="mse")
    model.train_on_batch(X, X)
    np.testing.assert_array_less(np.linalg.norm(layer.kernel, axis=0), 0.5 + 1e-5)


@pytest.mark.parametrize("way", ["file", "config", "clone"])
def test_round_trips_keep_the_sharing(way, tmp_path):
    model, layer = make_model(kernel_regularizer="l2", kernel_initializer="he_normal")
    randomize(layer)
    if way == "file":
        model.save(tmp_path / "m.keras")
        other = keras.saving.load_model(tmp_path / "m.keras")
    else:
        other = (
            keras.Model.from_config(model.get_config())
            if way == "config"
            else keras.models.clone_model(model)
        )
        other.set_weights(model.get_weights())
    assert other.count_params() == model.count_params()
    assert other.get_layer("tied").get_config() == layer.get_config()
    np.testing.assert_allclose(other(X), model(X), rtol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"`units` must be an integer >= 1"):
        TiedDense(0)
    layer = TiedDense(2)
    layer(X)
    with pytest.raises(ValueError, match=r"expected 2 inputs backwards.*\(5, 3\)"):
        layer(X, reverse=True)
    with pytest.raises(ValueError, match=r"expected 3 inputs forwards"):
        layer(X[:, :2])
    with pytest.raises(ValueError, match=r"expected 2 inputs backwards"):
        TiedDense(2)(X, reverse=True)
