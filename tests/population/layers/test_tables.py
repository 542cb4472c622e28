"""Layers for tables and ensembles within a network: each member ends where it would end alone."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers, regularizers

import kregs
from kregs.layers import (
    BatchEnsembleDense,
    CategoryEmbedding,
    Columns,
    EnsembleAverage,
    EnsembleDense,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    RandomSign,
    Scale,
    SmoothClip,
)
from kregs.population import Context, Population, Stacked
from kregs.population.layers.by_member import ByMember
from kregs.population.registry import form_of

ROWS = 50  # the last batch of 8 is smaller
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(ROWS, 3))
CODES = RNG.integers(-1, 4, size=(ROWS, 2))
X = np.concatenate([NUMBERS, CODES], axis=1)
K = 3


def alone(model, compiled, x, y, **fit):
    """Weights, history and predictions of a copy after Keras's `fit`."""
    copy = compiled(keras.models.clone_model(model))
    copy.set_weights(model.get_weights())
    history = copy.fit(x, y, verbose=0, **fit).history
    return copy.get_weights(), history, copy.predict(x, verbose=0)


def check(models, compiled, x, y, tolerance=1e-8, accelerate=None, **fit):
    """Compare members with models that are trained alone.

    Args:
        compiled: of each model, a function that compiles it.
    """
    fit = {"epochs": 1, "batch_size": 8, "shuffle": False, **fit}
    pairs = list(zip(models, compiled, strict=True))
    expected = [alone(model, compile_it, x, y, **fit) for model, compile_it in pairs]
    population = Population.from_models([compile_it(model) for model, compile_it in pairs])
    histories = population.fit(x, y, accelerate=accelerate, **fit)
    predictions = population.predict(x)
    close = {"rtol": tolerance, "atol": tolerance}
    ends = zip(population.unstack(), histories, predictions, expected, strict=True)
    for model, history, prediction, (weights, logged, predicted) in ends:
        assert set(history) == set(logged)
        for name, values in logged.items():
            np.testing.assert_allclose(history[name], values, err_msg=name, **close)
        for ours, theirs in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, **close)
        np.testing.assert_allclose(prediction, predicted, **close)


def piecewise(n, units):
    # each member has bins of its own rows
    layer = PiecewiseLinearEmbedding(units, bins=4, embeddings_regularizer=regularizers.L2(n))
    layer.adapt(NUMBERS[: 30 + int(40 * n)])
    return layer


def ensemble(n, activation, **options):
    return [
        BatchEnsembleDense(
            5, K, alpha_initializer=RandomSign(seed=1), kernel_regularizer=regularizers.L2(n),
            bias_regularizer="l2", **options,
        ),
        layers.Activation("tanh"),
        BatchEnsembleDense(4, K, **options),
        EnsembleDense(3, K, kernel_regularizer=regularizers.L1(n)),
        EnsembleAverage(activation),
    ]  # fmt: skip


NETWORKS = {
    "categories": lambda n: [
        Columns(3, 5), CategoryEmbedding((4, 3), 2, embeddings_regularizer=regularizers.L2(n)),
        layers.Dense(3),
    ],
    "piecewise": lambda n: [
        Columns(0, 3), SmoothClip(0.5, columns=2), piecewise(n, 2), layers.Dense(3)
    ],
    "periodic": lambda n: [
        Columns(0, 3),
        PeriodicEmbedding(4, frequencies=5, frequency_scale=0.1 + n, learning_rate_factor=0.1),
        Scale(learning_rate_factor=6.0), layers.Dense(3),
    ],
    "softmax": lambda n: ensemble(n, "softmax"),
    "sigmoid": lambda n: ensemble(n, "sigmoid", use_alpha=False),
    "linear": lambda n: ensemble(n, None, use_gamma=False, use_bias=False)[2:],
}  # fmt: skip
LOSS = {"softmax": "categorical_crossentropy", "sigmoid": "binary_crossentropy"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_each_member_ends_where_it_would_end_alone(double, name):
    def compiled(number, model):
        model.compile(optimizers.Adam(number / 10), LOSS.get(name, "mse"))
        return model

    numbers = (0.01, 0.2)
    models = [keras.Sequential([keras.Input((5,)), *NETWORKS[name](number)]) for number in numbers]
    assert not any(form_of(layer) is ByMember for layer in models[0].layers)
    y = np.eye(3)[RNG.integers(0, 3, ROWS)]
    check(models, [partial(compiled, number) for number in numbers], X, y, accelerate=False)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_what_members_add_to_the_loss_is_the_mean_over_their_real_rows(activation):
    layer = EnsembleAverage(activation)
    z = RNG.normal(size=(2, 5, K, 3)).astype("float32")
    rows = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], "float32")
    z[0, 3:] = np.nan  # what is no row may hold anything
    context = Context(True, None, tf.constant(rows))
    form = form_of(layer)(layer, 2, {}, {}, 1)
    form.call(Stacked(tf.constant(z), 2), context=context)
    (added,) = context.penalties
    for member, count in enumerate((3, 5)):
        layer(z[member, :count], training=True)
        np.testing.assert_allclose(added[member], layer.losses[0], rtol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize(
    "options",
    [
        {"embedding": "periodic", "ensemble": 4},
        {"embedding": "piecewise"},
        {"embedding": "piecewise", "ensemble": 2},
    ],
    ids=["periodic_ensemble", "piecewise", "piecewise_ensemble"],
)
def test_table_mlp(double, options):
    def compiled(number, model):
        return kregs.compile_model(
            model, "categorical_crossentropy", learning_rate=number, label_smoothing=10 * number,
            optimizer="adamw", weight_decay=1.0, metrics=["accuracy"],
        )  # fmt: skip

    def built(number):
        r = kregs.Regularization(l2=number, normalization="layer", max_norm=1.5)
        return kregs.table_mlp(
            3, 3, categories=(4, 3), units=(6, 6), scaling=True, skip_connections=True,
            regularization=r, seed=0, **options,
        )  # fmt: skip

    numbers = (0.001, 0.01)
    y = np.eye(3)[RNG.integers(0, 3, ROWS)]
    check(
        [built(number) for number in numbers], [partial(compiled, number) for number in numbers],
        X, y, epochs=2, validation_data=(X[:20], y[:20]),
    )  # fmt: skip
