"""A run is judged over both halves of the validation rows, each at the other's best epoch."""

from __future__ import annotations

import collections
import functools
from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pytest

from kregs import PopulationTuner
from kregs.search.loop import TrialUnderWay
from kregs.search.runs import RunJob, make_runs
from kregs.search.trainers import TrainerSettings
from kregs.search.trainers.fit import FitTrainer
from kregs.search.trainers.stacked import StackedTrainer

generator = np.random.default_rng(3)
X = generator.normal(size=(83, 4)).astype("float32")
Y = (X[:, 0] + generator.normal(size=83) > 0).astype("float32")
WEIGHT = generator.uniform(0.2, 3.0, 43).astype("float32")
HALVES = tuple(np.split(generator.permutation(43).astype("int32"), [20]))
EPOCHS = 8
# learning rates that leave the two halves with different best epochs
RATES = {
    StackedTrainer: {"val_auc": 2.0, "val_share": 2.0, "val_loss": 3.0},
    FitTrainer: {"val_auc": 2.0, "val_share": 2.0, "val_loss": 3.0},
}


def build(hp):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile(
        keras.optimizers.SGD(hp.Float("rate", 0.1, 9.0), momentum=0.9),
        "binary_crossentropy",
        metrics=[keras.metrics.AUC(name="auc")],
        weighted_metrics=[keras.metrics.BinaryAccuracy(name="share", threshold=0.4)],
    )
    return model


def outcome_and_weights(trainer, objective, tmp_path, *, weighted, rate):
    """Train a run behind another one; return its outcome and its weights after each epoch."""
    oracle = keras_tuner.oracles.RandomSearchOracle(objective, max_trials=9, seed=1)
    weights = []

    def on_epoch(job, epochs, logs, control):
        if job.trial_id == "1":
            weights.append(control.state().weights)

    settings = TrainerSettings(
        tuner=PopulationTuner(build, oracle=oracle, directory=tmp_path),
        objective=objective,
        score_at="best_epoch",
        on_epoch=on_epoch,
    )
    held_out = (X[40:], Y[40:], *([WEIGHT] if weighted else []))
    fit = {
        "x": X[:40], "y": Y[:40], "validation_data": held_out,
        "epochs": EPOCHS, "batch_size": 8, "callbacks": [],
    }  # fmt: skip
    halves = {"halves": HALVES} if trainer is StackedTrainer else {}
    (run,) = make_runs(None, 1, HALVES)

    def make_job(number, rate):
        hp = keras_tuner.HyperParameters()
        hp.values = {"rate": rate}
        trial = SimpleNamespace(trial_id=str(number), hyperparameters=hp)

        def fresh(seed):
            keras.utils.set_random_seed(seed)
            return build(hp)

        under_way = TrialUnderWay(trial, fresh)
        return RunJob(
            trial=trial, run=run, seed=7, epochs=EPOCHS, first_epoch=0,
            build=functools.partial(fresh, 0), shared_model=functools.partial(under_way.model, 0),
        )  # fmt: skip

    jobs = collections.deque([make_job(0, 0.01), make_job(1, rate)])
    outcomes = {o.job.trial_id: o for o in trainer(settings, (), fit, **halves).run(jobs)}
    assert outcomes["0"].crossed != outcomes["1"].crossed or not outcomes["1"].crossed
    for outcome in outcomes.values():
        assert outcome.error is None
        assert outcome.refusal is None
    return outcomes["1"], weights


def expected(name, direction, weights, *, weighted):
    """Return the metric over both halves by hand, and the mean of those of each half."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    predictions = []
    for epoch_weights in weights:
        model.set_weights(epoch_weights)
        predictions.append(model.predict(X[40:], verbose=0))

    def value(rows, guesses):
        targets = Y[40:][rows][:, None]
        own = WEIGHT[rows] if weighted else np.ones(len(rows))
        if name == "val_auc":
            return float(keras.metrics.AUC()(targets, guesses))
        if name == "val_share":
            return float(np.average((guesses > 0.4) == (targets > 0.5), axis=0, weights=own)[0])
        guesses = guesses.astype("float64").clip(1e-7, 1 - 1e-7)
        losses = -np.where(targets > 0.5, np.log(guesses), np.log(1 - guesses))[:, 0]
        return float((losses * own).sum() / len(rows))

    sign = 1 if direction == "min" else -1
    curves = [[sign * value(rows, p[rows]) for p in predictions] for rows in HALVES]
    best = [int(np.argmin(curve)) for curve in curves]
    assert best[0] != best[1]
    rows = np.concatenate(HALVES)
    guesses = [predictions[best[1]][HALVES[0]], predictions[best[0]][HALVES[1]]]
    by_half = [value(half, guess) for half, guess in zip(HALVES, guesses, strict=True)]
    return value(rows, np.concatenate(guesses)), np.average(by_half, weights=[20, 23])


@pytest.mark.nightly
@pytest.mark.parametrize("trainer", [StackedTrainer, FitTrainer])
@pytest.mark.parametrize(
    ("name", "direction", "weighted", "is_mean"),
    [
        ("val_auc", "max", False, False),
        ("val_share", "max", True, False),  # a half weighs what its rows weigh
        ("val_loss", "min", True, True),
    ],
)
def test_both_halves_are_one_computation(trainer, name, direction, weighted, is_mean, tmp_path):
    objective = keras_tuner.Objective(name, direction)
    outcome, weights = outcome_and_weights(
        trainer, objective, tmp_path, weighted=weighted, rate=RATES[trainer][name]
    )
    together, averaged = expected(name, direction, weights, weighted=weighted)
    assert outcome.crossed[name] == pytest.approx(together, rel=1e-5)
    assert (abs(together - averaged) < 1e-6) == is_mean
    assert set(outcome.crossed) == {key for key in outcome.history if key.startswith("val_")}


@pytest.mark.parametrize("trainer", [StackedTrainer, FitTrainer])
def test_a_metric_of_the_training_rows_has_no_halves(trainer, tmp_path):
    objective = keras_tuner.Objective("auc", "max")
    outcome, _ = outcome_and_weights(trainer, objective, tmp_path, weighted=False, rate=1.0)
    assert outcome.crossed == {}
