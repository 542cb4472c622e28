"""BatchEnsemble: k networks in one, by NumPy, and trained by the mean of their own losses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from kregs.layers import BatchEnsembleDense, EnsembleAverage, EnsembleDense, RandomSign

RNG = np.random.default_rng(0)
K = 4
X = RNG.normal(size=(6, 3)).astype("float32")
BY_MEMBER = RNG.normal(size=(6, K, 3)).astype("float32")


def randomize(layer):
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.weights])
    return {w.name: np.asarray(w, "float64") for w in layer.weights}


@pytest.mark.parametrize("x", [X, BY_MEMBER], ids=["shared", "by_member"])
@pytest.mark.parametrize("without", [None, "alpha", "gamma", "bias"])
def test_batch_ensemble_is_k_dense_layers(x, without):
    options = {} if without is None else {f"use_{without}": False}
    layer = BatchEnsembleDense(2, members=K, **options)
    layer.build(x.shape)
    weights = randomize(layer)
    assert set(weights) == {"kernel", "alpha", "gamma", "bias"} - {without}
    y = np.asarray(layer(x))
    for i in range(K):
        rows = x if x.ndim == 2 else x[:, i]
        # the kernel of member i, Wen et al. 2020, equation 1
        kernel = weights["kernel"].copy()
        if without != "alpha":
            kernel = weights["alpha"][i][:, None] * kernel
        if without != "gamma":
            kernel = kernel * weights["gamma"][i]
        bias = 0 if without == "bias" else weights["bias"][i]
        np.testing.assert_allclose(y[:, i], rows @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_ensemble_dense_is_k_dense_layers():
    layer = EnsembleDense(2, members=K)
    layer.build(BY_MEMBER.shape)
    weights = randomize(layer)
    y = np.asarray(layer(BY_MEMBER))
    for i in range(K):
        expected = BY_MEMBER[:, i] @ weights["kernel"][i] + weights["bias"][i]
        np.testing.assert_allclose(y[:, i], expected, rtol=1e-4, atol=1e-5)


def test_heads_begin_as_dense_layers_do():
    layer = EnsembleDense(50, members=8, kernel_initializer=keras.initializers.HeNormal(seed=3))
    layer.build((None, 8, 200))
    kernels = np.asarray(layer.kernel)
    # of one member: Keras would count 8 * 200 inputs
    np.testing.assert_allclose(kernels.std(axis=(1, 2)), np.sqrt(2 / 200), rtol=0.05)
    assert len(np.unique(kernels[:, 0, 0])) == 8
    again = EnsembleDense(50, members=8, kernel_initializer=keras.initializers.HeNormal(seed=3))
    again.build((None, 8, 200))
    np.testing.assert_array_equal(again.kernel, kernels)


def test_random_signs():
    signs = np.asarray(RandomSign(seed=1)((50, 50)))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.06
    np.testing.assert_array_equal(RandomSign(seed=1)((50, 50)), signs)


# ---- the loss of members -------------------------------------------------------------------

CLASSES = np.array([0, 2, 1, 1, 0, 2])
ONE_HOT = np.eye(3)[CLASSES]
SOFT = RNG.dirichlet(np.ones(3), size=6)
NUMBERS = RNG.normal(size=(6, 3))
BINARY = RNG.integers(0, 2, size=(6, 3)).astype(float)


def crossentropy(z, y, smoothing=0.0):
    y = y * (1 - smoothing) + smoothing / y.shape[1]
    return -(y * log_softmax(z, axis=-1)).sum(-1).mean()


def binary_crossentropy(z, y):
    return (np.logaddexp(0, z) - y * z).mean()


def squared_error(z, y):
    return np.square(z - y).mean()


LOSSES = {
    "sparse": ("softmax", "sparse_categorical_crossentropy", CLASSES,
               lambda z: crossentropy(z, ONE_HOT)),
    "one_hot": ("softmax", "categorical_crossentropy", ONE_HOT,
                lambda z: crossentropy(z, ONE_HOT)),
    "soft": ("softmax", "categorical_crossentropy", SOFT, lambda z: crossentropy(z, SOFT)),
    "smoothed": ("softmax", keras.losses.CategoricalCrossentropy(label_smoothing=0.2), ONE_HOT,
                 lambda z: crossentropy(z, ONE_HOT, 0.2)),
    "binary": ("sigmoid", "binary_crossentropy", BINARY,
               lambda z: binary_crossentropy(z, BINARY)),
    "squared": (None, "mse", NUMBERS, lambda z: squared_error(z, NUMBERS)),
}  # fmt: skip


def ensemble(activation):
    """A model of k linear members, and a function of the z that it computes."""
    layer = EnsembleDense(3, members=K, kernel_initializer="random_normal")
    model = keras.Sequential([keras.Input((K, 3)), layer, EnsembleAverage(activation)])
    randomize(layer)
    return model, layer


@pytest.mark.parametrize("name", LOSSES)
def test_training_minimizes_the_mean_of_the_losses(name):
    activation, loss, y, of_member = LOSSES[name]
    model, layer = ensemble(activation)
    model.compile(keras.optimizers.SGD(0.5), loss)
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    by_member = np.stack([BY_MEMBER[:, i] @ kernel[i] + bias[i] for i in range(K)])
    expected = np.mean([of_member(z) for z in by_member])
    probabilities = np.mean(
        [softmax(z, -1) if activation == "softmax" else expit(z) if activation else z
         for z in by_member], axis=0,
    )  # fmt: skip
    # the loss of the average is less, so that the two are told apart
    evaluated = model.evaluate(BY_MEMBER, y, verbose=0)
    assert evaluated < expected - 0.01
    np.testing.assert_allclose(
        model.predict(BY_MEMBER, verbose=0), probabilities, rtol=1e-4, atol=1e-5
    )
    logged = model.train_on_batch(BY_MEMBER, y)
    np.testing.assert_allclose(np.ravel(logged)[0], expected, rtol=1e-5)
    # each member takes the step of its own loss, 1 / k as long, by the slope of its bias
    for i in range(K):
        for unit in range(3):
            shift = np.zeros(3)
            shift[unit] = 1e-5
            slope = (of_member(by_member[i] + shift) - of_member(by_member[i] - shift)) / 2e-5
            step = np.asarray(layer.bias)[i, unit] - bias[i, unit]
            np.testing.assert_allclose(step, -0.5 * slope / K, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_equal_members_add_nothing(activation):
    layer = EnsembleAverage(activation)
    z = np.repeat(RNG.normal(size=(5, 1, 3)), K, axis=1).astype("float32")
    trained, tested = layer(z, training=True), None
    np.testing.assert_allclose(layer.losses[0], 0.0, atol=1e-6)
    tested = layer(z)
    np.testing.assert_allclose(trained, tested, rtol=1e-5)
    assert layer.losses == []


@pytest.mark.parametrize("layer", ["dense", "heads", "average"])
def test_round_trips(layer, tmp_path):
    made = {
        "dense": BatchEnsembleDense(2, K, alpha_initializer=RandomSign(1), kernel_regularizer="l2"),
        "heads": EnsembleDense(2, K, bias_regularizer="l2", kernel_constraint="non_neg"),
        "average": EnsembleAverage("softmax"),
    }[layer]
    model = keras.Sequential([keras.Input((K, 3)), made])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[0].get_config() == made.get_config()
    np.testing.assert_allclose(loaded(BY_MEMBER), model(BY_MEMBER))
    assert made.compute_output_shape((None, K, 3)) == tuple(model.output_shape)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BatchEnsembleDense(0, 2), r"`units` must be an integer >= 1"),
        (lambda: BatchEnsembleDense(2, 0), r"`members` must be an integer >= 1"),
        (lambda: BatchEnsembleDense(2, 2, use_alpha=1), r"`use_alpha` must be"),
        (lambda: BatchEnsembleDense(2, 3)(BY_MEMBER), r"`members` must be the input's second"),
        (lambda: BatchEnsembleDense(2, 3)(X[0]), r"`BatchEnsembleDense` needs an input"),
        (lambda: EnsembleDense(2, 3)(X), r"`EnsembleDense` needs an input of shape"),
        (lambda: EnsembleDense(2, 3)(BY_MEMBER), r"`members` must be the input's second"),
        (lambda: EnsembleAverage("tanh"), r"`activation` must be"),
        (lambda: EnsembleAverage()(X), r"`EnsembleAverage` needs an input of shape"),
        (lambda: RandomSign(-1), r"`seed` must be"),
    ],
)
def test_errors(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
