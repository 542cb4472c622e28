"""What is defined inside `build` is each trial's own; the memory of a stacked trainer."""

from __future__ import annotations

import collections
import dataclasses
import functools
import gc
import weakref

import keras
import keras_tuner
import numpy as np
import pytest

from kregs import PopulationTuner
from kregs.population.program import Program
from kregs.search.loop import TrialUnderWay
from kregs.search.runs import RunJob, Split, make_runs
from kregs.search.trainers import TrainerSettings
from kregs.search.trainers import stacked as stacked_module
from kregs.search.trainers.fit import FitTrainer
from kregs.search.trainers.stacked import StackedTrainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
Y = (X.sum(1) > 0).astype("int32")
FIT = {
    "x": X[:40], "y": Y[:40], "validation_data": (X[40:], Y[40:]), "epochs": 6, "batch_size": 40,
    "callbacks": [],
}  # fmt: skip


def trained(trainer, build, values, tmp_path, *, fit=FIT, folds=None):
    """Train one trial a value by a trainer; return its outcomes in this order."""
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=9, seed=1)
    settings = TrainerSettings(
        tuner=PopulationTuner(build, oracle=oracle, directory=tmp_path),
        objective=oracle.objective,
        score_at="last_epoch",
        on_epoch=lambda *told: None,
    )
    jobs: collections.deque[RunJob] = collections.deque()
    for number, value in enumerate(values):
        hp = keras_tuner.HyperParameters()
        hp.values = {"value": value}
        make = dataclasses.make_dataclass("Trial", ["trial_id", "hyperparameters"])

        def fresh(seed, hp=hp):
            keras.utils.set_random_seed(seed)
            return build(hp)

        under_way = TrialUnderWay(make(str(number), hp), fresh)
        jobs += [
            RunJob(
                trial=under_way.trial, run=run, seed=7, epochs=fit["epochs"], first_epoch=0,
                build=functools.partial(under_way.build, 0),
                shared_model=functools.partial(under_way.model, 0),
            )
            for run in make_runs(folds, 1)
        ]  # fmt: skip
    with_folds = {"folds": True} if folds and trainer is StackedTrainer else {}
    trainer = trainer(settings, (), fit, **with_folds)
    outcomes = list(trainer.run(jobs))
    assert [(o.refusal, o.error) for o in outcomes] == [(None, None)] * len(outcomes)
    return sorted(outcomes, key=lambda o: (o.job.trial_id, o.job.run.number)), trainer


def build_with_closures(hp):
    factor = hp.Float("value", 0.5, 5.0)

    def loss(y, prediction):
        error = keras.ops.cast(y[:, None], prediction.dtype) - prediction
        return factor * keras.ops.mean(keras.ops.square(error), -1)

    def share(y, prediction):
        return factor * keras.metrics.binary_accuracy(y, prediction)

    def wave(value):
        return keras.ops.sin(factor * value)

    layers = [keras.Input((4,)), keras.layers.Dense(5, wave), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.2), loss, metrics=[share])
    return model


@pytest.mark.nightly
def test_each_trial_has_its_own_functions(tmp_path):
    values = (3.0, 1.0, 3.0, 0.5)
    stacked, trainer = trained(StackedTrainer, build_with_closures, values, tmp_path / "stacked")
    alone, _ = trained(FitTrainer, build_with_closures, values, tmp_path / "alone")
    for one, other in zip(stacked, alone, strict=True):
        for name in ("loss", "val_loss", "val_share"):
            np.testing.assert_allclose(one.history[name], other.history[name], rtol=1e-4)
    losses = [outcome.history["val_loss"][-1] for outcome in stacked]
    assert len({round(loss, 6) for loss in losses}) == 3
    assert len({outcome.signature for outcome in stacked}) == 3
    assert stacked[0].signature == stacked[2].signature
    assert len(trainer._trainings) == 3


def build_with_accuracy(hp):
    layers = [keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(1, "sigmoid")]
    model = keras.Sequential(layers)
    rate = hp.Float("value", 0.01, 1.0)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def test_the_usual_early_stopping_is_stacked(tmp_path):
    callbacks = [keras.callbacks.EarlyStopping("val_accuracy", patience=3)]
    fit = {**FIT, "epochs": 12, "callbacks": callbacks}
    histories = []
    for trainer in (StackedTrainer, FitTrainer):
        directory = tmp_path / trainer.__name__
        outcomes, _ = trained(trainer, build_with_accuracy, (0.3, 0.05), directory, fit=fit)
        histories.append([outcome.history["val_loss"] for outcome in outcomes])
    for one, other in zip(*histories, strict=True):
        assert len(one) == len(other)
        np.testing.assert_allclose(one, other, rtol=1e-3)
    assert min(map(len, histories[0])) < 12


@pytest.mark.nightly
def test_programs_of_earlier_structures_are_given_back(tmp_path, monkeypatch):
    alive: list[weakref.ref] = []
    most: list[int] = []
    begin = Program.__init__

    def counted(self, *arguments, **named):
        begin(self, *arguments, **named)
        alive.append(weakref.ref(self))
        most.append(sum(reference() is not None for reference in alive))

    monkeypatch.setattr(Program, "__init__", counted)
    # without the collector: what is given back is given back at once
    gc.disable()
    try:
        fit = {**FIT, "epochs": 1}
        _, trainer = trained(StackedTrainer, build_units, range(9, 2, -1), tmp_path, fit=fit)
    finally:
        gc.enable()
    assert len(alive) == 7
    assert max(most) <= stacked_module._COMPILED + 1
    assert sum(reference() is not None for reference in alive) == len(trainer._trainings) < 7


def build_units(hp):
    layers = [keras.Input((4,)), keras.layers.Dense(hp.Int("value", 1, 9)), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    return model


@pytest.mark.nightly
@pytest.mark.parametrize("class_weight", [{1: 4.0}, None])
def test_folds_hold_the_rows_once(tmp_path, class_weight):
    folds = [
        Split(rows.astype("int32"), np.setdiff1d(np.arange(50), rows).astype("int32"))
        for rows in (np.arange(30), np.arange(15, 50))
    ]
    fit = {"x": X, "y": Y, "epochs": 2, "batch_size": 64, "class_weight": class_weight}
    outcomes, trainer = trained(
        StackedTrainer, build_with_accuracy, (0.1,), tmp_path / "stacked", fit=fit, folds=folds
    )
    feed = trainer._feed
    assert (feed.data.x is feed.validation.x, feed.data.y is feed.validation.y) == (True, True)
    on_device = feed.on("CPU:0")
    assert on_device.data.x is on_device.validation.x
    assert feed.validation.weight is None  # class weights are for training
    alone, _ = trained(
        FitTrainer, build_with_accuracy, (0.1,), tmp_path / "alone", fit=fit, folds=folds
    )
    for one, other in zip(outcomes, alone, strict=True):
        for name in ("loss", "val_loss", "val_accuracy"):
            np.testing.assert_allclose(one.history[name], other.history[name], rtol=1e-4)


@pytest.mark.parametrize(("max_time", "first"), [(None, "8"), (600.0, "4")])
def test_where_time_is_limited_the_structure_of_the_first_trial_is_trained_first(
    max_time, first, tmp_path
):
    trained_units = []

    def build(hp):
        units = hp.Choice("units", [4, 8])
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, name="dense")])
        model.compile("sgd", "mse")
        return model

    class Note(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            trained_units.append(str(self.model.get_layer("dense").units))

    class Ordered(keras_tuner.oracles.RandomSearchOracle):
        def populate_space(self, trial_id):
            units = 4 if int(trial_id) == 0 else 8
            return {"status": "RUNNING", "values": {"units": units}}

    tuner = PopulationTuner(
        build, oracle=Ordered("val_loss", max_trials=4, seed=1), directory=tmp_path,
        max_time=max_time,
    )  # fmt: skip
    y = np.zeros((40, 1))
    tuner.search(X[:40], y, validation_data=(X[:8], y[:8]), epochs=1, callbacks=[Note()], verbose=0)
    assert len(trained_units) == 4
    assert trained_units[0] == first
