"""The layers for tables compute what NumPy computes from the formulas of their papers."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kregs.layers import (
    CategoryEmbedding,
    Columns,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    Scale,
    SmoothClip,
    quantile_edges,
)
from kregs.tables.transformers import SmoothClipScaler

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 3)).astype("float32")


def randomize(layer):
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.weights])
    return [np.asarray(w, "float64") for w in layer.weights]


def piecewise_linear(value, edges):
    """Equation 1 of Gorishniy et al. 2022, bin by bin."""
    bins = len(edges) - 1
    encoded = []
    for t in range(1, bins + 1):
        if value < edges[t - 1] and t > 1:
            encoded.append(0.0)
        elif value >= edges[t] and t < bins:
            encoded.append(1.0)
        else:
            encoded.append((value - edges[t - 1]) / (edges[t] - edges[t - 1]))
    return encoded


EDGES = [[-2.0, 0.0, 0.5, 4.0], [-1.0, 1.0], [0.0, 0.1, 0.3]]


@pytest.mark.parametrize("value", [-3.0, -2.0, -0.5, 0.0, 0.05, 0.3, 0.5, 0.9, 2.0, 9.0])
def test_piecewise_linear_encoding_is_the_papers(value):
    layer = PiecewiseLinearEmbedding(None, bins=3, edges=EDGES)
    encoded = np.reshape(layer(np.full((1, 3), value)), (3, 3))
    for ours, edges in zip(encoded, EDGES, strict=True):
        expected = piecewise_linear(value, edges)
        np.testing.assert_allclose(ours, expected + [0.0] * (3 - len(expected)), rtol=1e-5)


def test_piecewise_linear_layer_of_each_column():
    layer = PiecewiseLinearEmbedding(2, bins=3, edges=EDGES, activation="relu")
    layer.build((None, 3))
    layer.embeddings.assign(RNG.normal(size=(3, 3, 2)))
    layer.bias.assign(RNG.normal(size=(3, 2)))
    encoded = PiecewiseLinearEmbedding(None, bins=3, edges=EDGES)(X)
    encoded = np.reshape(encoded, (7, 3, 3))
    expected = [
        encoded[:, f] @ np.asarray(layer.embeddings)[f] + np.asarray(layer.bias)[f]
        for f in range(3)
    ]
    expected = np.maximum(np.concatenate(expected, axis=1), 0)
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-6)
    assert layer.compute_output_shape((None, 3)) == (None, 6)
    assert [w.name for w in layer.trainable_weights] == ["embeddings", "bias"]


def test_adapted_edges_are_quantiles():
    x = np.stack([np.arange(100.0), np.repeat([0.0, 1.0], 50), np.full(100, 3.0)], axis=1)
    x[0, 0] = np.nan
    layer = PiecewiseLinearEmbedding(None, bins=4)
    layer.adapt(x)
    expected = [
        np.nanquantile(x[:, 0], [0, 0.25, 0.5, 0.75, 1]),
        [0.0, 1.0, 1.0, 1.0, 1.0],
        [3.0, 4.0, 4.0, 4.0, 4.0],
    ]
    np.testing.assert_allclose(layer.edges, expected)
    # a bin holds a quarter of the rows
    share = np.reshape(layer(x[1:]), (99, 3, 4))[:, 0]
    assert [int((share[:, t] > 0).sum()) for t in range(4)] == [98, 74, 49, 25]
    assert quantile_edges(np.full((3, 1), np.nan), 2) == [[0.0, 1.0]]


def test_a_value_of_most_rows_takes_one_edge_of_many():
    rng = np.random.default_rng(0)
    spent = np.where(rng.random(4000) < 0.9, 0.0, rng.lognormal(size=4000))
    values = np.where(rng.random(4000) < 0.4, -1.0, rng.normal(size=4000))
    (of_spent, of_values) = quantile_edges(np.stack([spent, values], axis=1), 16)
    others = np.quantile(spent[spent > 0], np.linspace(0, 1, 16))
    np.testing.assert_allclose(of_spent, [0.0, *others])
    others = np.quantile(values[values != -1], np.linspace(0, 1, 16))
    np.testing.assert_allclose(of_values, sorted([-1.0, *others]))


def test_edges_before_data_are_those_of_the_normal_distribution():
    layer = PiecewiseLinearEmbedding(None, bins=4)
    layer.build((None, 1))
    np.testing.assert_allclose(
        layer.edges, [[-3.0902, -0.6745, 0.0, 0.6745, 3.0902]], rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_periodic_embedding_is_the_formula(factor):
    layer = PeriodicEmbedding(4, frequencies=5, learning_rate_factor=factor)
    layer.build((None, 3))
    w, b, kernel, bias = (factor * value for value in randomize(layer))
    expected = []
    for f in range(3):
        cosines = np.cos(2 * np.pi * X[:, f : f + 1] * w[f] + b[f])
        expected += [X[:, f : f + 1], cosines @ kernel[f] + bias[f]]
    np.testing.assert_allclose(layer(X), np.concatenate(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape((None, 3)) == (None, 12)


def test_periodic_weights_begin_as_in_the_paper():
    layer = PeriodicEmbedding(4, frequency_scale=0.1, learning_rate_factor=0.1, seed=0)
    layer.build((None, 200))
    w, b, kernel, bias = (0.1 * np.asarray(v) for v in layer.weights)
    assert w.shape == (200, 16)
    assert abs(w.std() - 0.1) < 0.005
    assert abs(np.abs(b).max() - np.pi) < 0.01
    assert abs(np.abs(kernel).max() - 0.25) < 0.01
    assert not bias.any()


@pytest.mark.parametrize("layer", [Scale, PeriodicEmbedding])
def test_a_rate_factor_makes_a_step_of_adam_longer(layer):
    steps = []
    for factor in (1.0, 6.0):
        made = layer(learning_rate_factor=factor)
        model = keras.Sequential([keras.Input((3,)), made])
        model.set_weights([np.full(w.shape, 0.3 / factor) for w in model.weights])
        model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-12), "mse")
        model.train_on_batch(X, np.full((7, model.output_shape[1]), 9.0, "float32"))
        steps.append([np.asarray(w) * factor - 0.3 for w in model.weights])
    for slow, fast in zip(*steps, strict=True):
        np.testing.assert_allclose(fast, 6 * slow, rtol=1e-3)


def test_scale():
    layer = Scale(learning_rate_factor=6)
    np.testing.assert_allclose(layer(X), X, rtol=1e-6)
    (scale,) = randomize(layer)
    np.testing.assert_allclose(layer(X), X * 6 * scale, rtol=1e-5)


@pytest.mark.parametrize("limit", [3.0, 0.5])
def test_smooth_clip(limit):
    x = np.array([[0.0, 1e-3, -2.0, 40.0], [-1e30, 3e38, 5.0, 7.0]], "float32")
    z = x.astype("float64")
    expected = z / np.hypot(1.0, z / limit)
    np.testing.assert_allclose(SmoothClip(limit)(x), expected, rtol=1e-6)
    np.testing.assert_allclose(SmoothClip(limit, dtype="float64")(z), expected, rtol=1e-11)
    expected[:, 2:] = z[:, 2:]
    np.testing.assert_allclose(SmoothClip(limit, columns=2)(x), expected, rtol=1e-6)
    np.testing.assert_array_equal(SmoothClip(limit, columns=0)(x), x)


def test_smooth_clip_is_what_the_scaler_does():
    x = np.random.default_rng(0).standard_cauchy((50, 2)) * [1.0, 30.0] + [0.0, 5.0]
    scaler = SmoothClipScaler().fit(x)
    z = (x - scaler.center_) * scaler.scale_
    np.testing.assert_allclose(
        SmoothClip(dtype="float64")(z), SmoothClipScaler().fit_transform(x), rtol=1e-11
    )


def test_category_embedding():
    layer = CategoryEmbedding((3, 2), 4)
    layer.build((None, 2))
    (table,) = randomize(layer)
    codes = np.array([[0, 0], [2, 1], [1, 1], [3, 5], [-1, 0]])
    rows = np.array([[0, 3], [2, 4], [1, 4], [0, 3], [0, 3]])  # what is no code counts as 0
    np.testing.assert_allclose(layer(codes), table[rows].reshape(5, 8), rtol=1e-6)
    np.testing.assert_allclose(layer(codes.astype("float32")), layer(codes))


def test_the_gradient_of_a_repeated_category_is_one_sum():
    """Keras's Embedding hands Adam each occurrence by itself."""
    layer = CategoryEmbedding((3,), 1, embeddings_initializer="ones")
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.Adam(0.1, beta_2=0.5), "mse")
    model.train_on_batch(np.array([[0.0], [0.0], [1.0]]), np.zeros((3, 1)))
    moment, velocity = (np.asarray(v).ravel() for v in model.optimizer.variables[-2:])
    gradient = np.array([2 * 2 / 3, 2 / 3, 0.0])
    np.testing.assert_allclose(moment, 0.1 * gradient, rtol=1e-5)
    np.testing.assert_allclose(velocity, 0.5 * gradient**2, rtol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        Columns(1, 3),
        Scale(learning_rate_factor=2.0),
        SmoothClip(2.0, columns=2),
        CategoryEmbedding((3, 2, 2), 2, embeddings_regularizer="l2"),
        PiecewiseLinearEmbedding(2, bins=3, edges=EDGES, bias_regularizer="l1", seed=1),
        PiecewiseLinearEmbedding(None, bins=3, activation="tanh"),
        PeriodicEmbedding(3, frequencies=2, frequency_scale=0.5, learning_rate_factor=0.1, seed=1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_round_trips(layer, tmp_path):
    model = keras.Sequential([keras.Input((3,)), layer])
    if isinstance(layer, PiecewiseLinearEmbedding):
        layer.adapt(X)  # what was adapted is in the file
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    np.testing.assert_allclose(loaded(X), model(X))
    assert layer.compute_output_shape((None, 3)) == tuple(model.output_shape)
    assert model(X).shape[1:] == model.output_shape[1:]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Columns(2, 2), r"`stop` must be an integer >= 3"),
        (lambda: Columns(0, 4)(X), r"`stop` must be at most.*\(7, 3\)"),
        (lambda: Scale(learning_rate_factor=0), r"`learning_rate_factor` must be"),
        (lambda: Scale()(X[0]), r"`Scale` needs an input of shape"),
        (lambda: SmoothClip(0.0), r"`limit` must be"),
        (lambda: SmoothClip(columns=1.5), r"`columns` must be an integer"),
        (lambda: CategoryEmbedding((), 2), r"`cardinalities` must be a sequence"),
        (lambda: CategoryEmbedding((2, 0), 2), r"`cardinalities\[1\]` must be"),
        (lambda: CategoryEmbedding((2, 2), 2)(X), r"`cardinalities` must hold a number for each"),
        (lambda: PeriodicEmbedding(1), r"`units` must be an integer >= 2"),
        (lambda: PeriodicEmbedding(frequency_scale=-1), r"`frequency_scale` must be"),
        (lambda: PiecewiseLinearEmbedding(2, edges=[[0, 0]]), r"`edges` must hold of each feature"),
        (lambda: PiecewiseLinearEmbedding(2, edges=[0, 1]), r"`edges` must hold of each feature"),
        (lambda: PiecewiseLinearEmbedding(2, bins=1, edges=[[0, 1, 2]]), r"2 to 2 ascending"),
        (lambda: PiecewiseLinearEmbedding(2, edges=[[0, 1]])(X), r"1 for 3 features"),
        (lambda: PiecewiseLinearEmbedding(2).adapt(X[0]), r"needs an input of shape"),
        (lambda: quantile_edges(X[:0], 2), r"`x` must hold numbers"),
    ],
)
def test_errors(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
