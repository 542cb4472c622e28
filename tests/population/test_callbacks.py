"""Callbacks of members: Keras infers their direction, and each keeps weights of its own."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest
from keras import layers

from kregs.population import Population

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
Y = (X @ RNG.normal(size=5) + RNG.normal(size=60) > 0).astype("int32")
RATES = (0.3, 0.03, 0.002)
FIT = {"validation_data": (X[:25], Y[:25]), "epochs": 9, "batch_size": 15, "shuffle": False}


def build(rate, metrics=("accuracy",)):
    body = [layers.Dense(6, "tanh"), layers.Dense(1, "sigmoid")]
    model = keras.Sequential([keras.Input((5,)), *body])
    metrics = [metric() if callable(metric) else metric for metric in metrics]
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=metrics)
    return model


class Share(keras.metrics.MeanMetricWrapper):
    """Of right answers, by a name of its own."""

    def __init__(self):
        super().__init__(keras.metrics.binary_accuracy, name="share")
        self._direction = "up"


def check_against_keras(callbacks, metrics=("accuracy",)):
    """Train by both; return how many epochs each member took."""
    models = [build(rate, metrics) for rate in RATES]
    starts = [model.get_weights() for model in models]
    population = Population.from_models(models)
    histories = population.fit(X, Y, callbacks=callbacks, accelerate=False, **FIT)
    ends = [(m.get_weights(), float(m.optimizer.learning_rate)) for m in population.unstack()]
    for rate, start, history, (weights, learning_rate) in zip(
        RATES, starts, histories, ends, strict=True
    ):
        reference = build(rate, metrics)
        reference.set_weights(start)
        expected = reference.fit(X, Y, callbacks=copy.deepcopy(callbacks), verbose=0, **FIT).history
        assert len(expected["loss"]) == len(history["loss"])
        for name, values in expected.items():
            if name == "area":  # of all rows after the epoch, not batch by batch
                continue
            np.testing.assert_allclose(history[name], values, rtol=1e-7, atol=1e-9, err_msg=name)
        assert learning_rate == float(reference.optimizer.learning_rate)
        for one, other in zip(weights, reference.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)
    return [len(history["loss"]) for history in histories]


STOPPING = keras.callbacks.EarlyStopping
DIRECTIONS = {
    "accuracy": (("accuracy",), {"monitor": "val_accuracy"}),
    "auc": ((lambda: keras.metrics.AUC(name="area"), "accuracy"), {"monitor": "val_area"}),
    "own metric": ((Share,), {"monitor": "val_share"}),
    "training metric": (("mae", "accuracy"), {"monitor": "accuracy", "min_delta": 0.03}),
    "lower is better": (("mae",), {"monitor": "val_mae", "min_delta": 0.004}),
    "loss": (("accuracy",), {"monitor": "val_loss", "min_delta": 0.01}),
}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_direction_is_inferred_as_keras_does(double, eager, name):
    metrics, arguments = DIRECTIONS[name]
    if name == "lower is better":  # Keras knows the direction of metrics that have one
        metrics = (lambda: directed(keras.metrics.MeanAbsoluteError(name="mae"), "down"),)
    stopping = STOPPING(patience=2, restore_best_weights=True, **arguments)
    assert min(check_against_keras([stopping], metrics)) < FIT["epochs"]


def directed(metric, direction):
    metric._direction = direction
    return metric


@pytest.mark.slow
def test_plateaus_of_a_metric_are_inferred(double, eager):
    plateau = keras.callbacks.ReduceLROnPlateau("val_accuracy", factor=0.3, patience=1)
    check_against_keras([plateau])


def test_a_direction_that_keras_cannot_infer_is_its_error():
    def distance(y, prediction):
        return keras.ops.mean(keras.ops.abs(keras.ops.cast(y, "float32") - prediction), -1)

    model = build(0.1, (lambda: keras.metrics.MeanMetricWrapper(distance, name="distance"),))
    with pytest.raises(ValueError, match="isn't able to automatically determine"):
        Population.from_models([model]).fit(X, Y, callbacks=[STOPPING("distance")])


@pytest.mark.slow
@pytest.mark.parametrize("last", ["val_loss", "val_accuracy"])
def test_two_that_restore_keep_apart(double, eager, last):
    """Each has its own best epoch; the one that restores last has the last word."""
    monitors = ["val_accuracy", "val_loss"]
    monitors.sort(key=last.__eq__)
    callbacks = [STOPPING(monitor, patience=6, restore_best_weights=True) for monitor in monitors]
    check_against_keras(callbacks)


@pytest.mark.slow
def test_one_that_never_improves_restores_its_first_epoch(double, eager):
    callbacks = [
        STOPPING("val_loss", patience=8, restore_best_weights=True),
        STOPPING("val_loss", mode="max", patience=8, min_delta=9, restore_best_weights=True),
        STOPPING("loss", patience=8),
    ]
    check_against_keras(callbacks)
