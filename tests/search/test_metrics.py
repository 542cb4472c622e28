"""Trials are scored by any metric as the best model's own `evaluate` gives it."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest
from keras import layers, losses, metrics, ops

import kregs

pytestmark = pytest.mark.nightly

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 5)).astype("float32")
LABELS = (X @ RNG.normal(size=(5, 3))).argmax(1)
Y = np.eye(3, dtype="float32")[LABELS]
TRAIN, HELD_OUT = slice(0, 55), slice(55, 90)  # the last batches are short


def spread(y_true, y_pred):
    """One number for a batch, which is no mean over rows."""
    return ops.max(ops.abs(y_true - y_pred))


class WorstBatch(metrics.Metric):
    def __init__(self, scale):
        super().__init__(name="worst")
        self.scale = scale
        self.worst = self.add_weight(shape=(), initializer="zeros", name="worst")

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.mean(ops.square(y_true - y_pred))
        self.worst.assign(ops.maximum(self.worst, self.scale * error))

    def result(self):
        return self.worst


def build(hp):
    metrics.AUC()  # so that Keras counts names up within a build, too

    def scaled(y_true, y_pred):
        return 2.0 * ops.mean(ops.abs(y_true - y_pred), axis=-1)

    regularizer = keras.regularizers.L2(hp.Float("l2", 1e-3, 0.1, sampling="log"))
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(3, "softmax", kernel_regularizer=regularizer)]
    )
    smoothing = hp.Choice("label_smoothing", [0.3, 0.0])
    return kregs.compile_model(
        model, losses.CategoricalCrossentropy(label_smoothing=smoothing), learning_rate=0.05,
        metrics=[
            metrics.AUC(name="auc"), metrics.F1Score(average="macro", name="f1"),
            metrics.F1Score(name="f1_of"), metrics.R2Score(name="r2"), spread, scaled,
            WorstBatch(3.0), losses.dice, metrics.Precision(), metrics.Precision(0.3),
            metrics.Recall(name="recall_7"),
        ],
    )  # fmt: skip


OBJECTIVES = {"val_f1": "max", "val_f1_of_1": "max", "val_spread": "min", "val_worst": "min"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A search for each engine, told to take the last epoch: no half is scored by itself."""
    made = {}
    for engine in ("population", "sequential"):
        made[engine] = kregs.tune(
            build, X[TRAIN], Y[TRAIN], validation_data=(X[HELD_OUT], Y[HELD_OUT]),
            objective="val_data_loss", max_trials=3, epochs=2, score_at="last_epoch",
            engine=engine, directory=tmp_path_factory.mktemp(engine), verbose=0,
        )  # fmt: skip
    return made


def test_metrics_without_a_name_have_the_same_one_in_every_trial(results):
    """As in a process that has built nothing yet; a name that was given stays."""
    for result in results.values():
        for trial in result.trials()["trial"]:
            names = {name for name in result.history(trial) if "precision" in name}
            assert names == {f"{s}precision{n}" for s in ("", "val_") for n in ("", "_1")}
            assert "val_recall_7" in result.history(trial)


def evaluated(result):
    logs = result.best_model().evaluate(X[HELD_OUT], Y[HELD_OUT], verbose=0, return_dict=True)
    parts = {f"f1_of_{i}": value for i, value in enumerate(np.asarray(logs.pop("f1_of")))}
    return logs | parts


@pytest.mark.parametrize("engine", ["population", "sequential"])
def test_all_metrics_of_the_best_trial_are_those_of_its_model(results, engine):
    result = results[engine]
    logs = evaluated(result)
    history = result.history(result.best_trial).iloc[-1]
    for name, value in logs.items():
        assert history[f"val_{name}"] == pytest.approx(value, rel=1e-4), name
    assert {"val_f1_of_0", "val_f1_of_1", "val_f1_of_2"} < set(result.history(result.best_trial))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_score_is_what_evaluate_gives(objective, tmp_path):
    result = kregs.tune(
        build, X[TRAIN], Y[TRAIN], validation_data=(X[HELD_OUT], Y[HELD_OUT]),
        objective=keras_tuner.Objective(objective, OBJECTIVES[objective]), max_trials=3, epochs=2,
        score_at="last_epoch", directory=tmp_path, verbose=0,
    )  # fmt: skip
    expected = evaluated(result)[objective.removeprefix("val_")]
    assert result.best_score == pytest.approx(expected, rel=1e-4)
    assert result.trials()["score"].nunique() > 1 or objective.startswith("val_f1")


def test_an_array_is_no_objective(tmp_path):
    with pytest.raises(ValueError, match=r"val_f1_of_0, .*Received: objective='val_f1_of'"):
        kregs.tune(
            build, X[TRAIN], Y[TRAIN], validation_data=(X[HELD_OUT], Y[HELD_OUT]),
            objective=keras_tuner.Objective("val_f1_of", "max"), max_trials=1, epochs=1,
            directory=tmp_path, verbose=0,
        )  # fmt: skip
