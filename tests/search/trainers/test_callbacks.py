"""Callbacks of a search: both engines call them alike and leave the same files."""

from __future__ import annotations

import csv

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
from keras import callbacks as C

from kregs.search import PopulationTuner
from kregs.search.storage import TrialRecord

X = np.random.default_rng(3).normal(size=(40, 3))
Y = X @ np.array([1.0, -1.0, 0.5])
FIT = {"x": X[:24], "y": Y[:24], "validation_data": (X[24:], Y[24:]), "batch_size": 8,
       "epochs": 2, "verbose": 0}  # fmt: skip
TRIALS = ("0", "1")


def build(hp):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(inputs), name="net")
    rate = hp.Float("rate", 0.02, 0.3, sampling="log")
    model.compile(keras.optimizers.SGD(rate, momentum=0.5), "mse")
    return model


class Largest(C.Callback):
    """A user's own: logs a number of its own, sets the rate, writes weights, and shares a list."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def __deepcopy__(self, memo):
        return type(self)(self.notes)

    def on_train_begin(self, logs=None):
        self.notes.append(dict(self.params))

    def on_epoch_end(self, epoch, logs=None):
        (layer,) = [layer for layer in self.model.layers if layer.weights]
        logs["val_largest"] = float(np.max(np.abs(layer.kernel)))
        self.model.optimizer.learning_rate *= 0.5
        layer.bias.assign(layer.bias + 0.125)


class Halved(C.SwapEMAWeights):
    """Validates by other weights than it trains, without an optimizer that averages."""

    def _swap_variables(self):
        for variable in self.model.trainable_variables:
            variable.assign(0.5 * variable if not self._ema_weights_in_model else 2.0 * variable)


def search(path, engine, callbacks, objective=None, **options):
    objective = objective or keras_tuner.Objective("val_loss", "min")
    tuner = PopulationTuner(
        build, objective, len(TRIALS), seed=2, engine=engine, directory=path, **options
    )
    tuner.search(**FIT, callbacks=callbacks)
    return tuner


def records(tuner):
    return [TrialRecord.read(tuner.get_trial_dir(number)) for number in TRIALS]


@pytest.mark.usefixtures("double", "eager")
def test_both_engines_call_callbacks_alike_and_leave_the_same_files(tmp_path):
    found = {}
    for engine in ("population", "sequential"):
        folder = tmp_path / f"files of {engine}"
        folder.mkdir()
        notes = []
        tuner = search(
            tmp_path / engine,
            engine,
            [
                Halved(),
                Largest(notes),
                C.CSVLogger(str(folder / "all.csv"), append=True),
                C.CSVLogger(str(folder / "last.csv")),
                C.TensorBoard(str(folder / "logs"), histogram_freq=2),
            ],
            keras_tuner.Objective("val_largest", "max"),
        )
        found[engine] = tuner, folder, notes
    (stacked, mine, notes), (alone, of_fit, expected_notes) = found.values()
    assert notes == expected_notes == [{"verbose": 0, "epochs": 2, "steps": 3}] * 2
    for one, other in zip(records(stacked), records(alone), strict=True):
        (history,), (expected,) = one.histories, other.histories
        assert set(history) == set(expected) >= {"learning_rate", "val_largest"}
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-9, err_msg=name)
        assert one.best_epoch == other.best_epoch
    for trial in TRIALS:  # what is kept is what callbacks left
        for name in ("0", "1"):
            kept = []
            for tuner in (stacked, alone):
                with h5py.File(f"{tuner.get_trial_dir(trial)}/checkpoint.weights.h5") as file:
                    kept.append(file[f"layers/dense/vars/{name}"][()])
            np.testing.assert_allclose(*kept, rtol=1e-9)
    folders = [{p.parent.relative_to(f) for p in f.rglob("events*")} for f in (mine, of_fit)]
    assert folders[0] == folders[1]
    assert len(folders[0]) == 2 * 3
    tables = [
        [
            sorted(csv.reader((f / name).read_text().splitlines()))
            for name in ("all.csv", "last.csv")
        ]
        for f in (mine, of_fit)
    ]
    for one, other, length in zip(*tables, (5, 3), strict=True):
        assert len(one) == len(other) == length
    for one, other in zip(tables[0][0], tables[1][0], strict=True):
        if one[0] == "epoch":
            assert one == other
        else:
            np.testing.assert_allclose([float(v) for v in one], [float(v) for v in other])


class Failing(C.Callback):
    """Raises in trials of a large rate."""

    def on_epoch_end(self, epoch, logs=None):
        if self.model.optimizer.learning_rate > 0.1:
            raise RuntimeError("no patience with large rates")


def test_a_callback_that_raises_fails_its_own_trial(tmp_path):
    tuner = search(tmp_path, "population", [Failing()], max_consecutive_failed_trials=5)
    trials = [tuner.oracle.trials[number] for number in TRIALS]
    failed = [trial.hyperparameters.get("rate") > 0.1 for trial in trials]
    assert [trial.status != "COMPLETED" for trial in trials] == failed
    assert sorted(failed) == [False, True]
    assert "no patience with large rates" in trials[failed.index(True)].message
