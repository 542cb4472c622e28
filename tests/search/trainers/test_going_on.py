"""A training in two halves is the whole: both engines, gone on with at once and from disk."""

from __future__ import annotations

import keras
import keras_tuner
import numpy as np
import pytest

from kregs.population.rows import epoch_order
from kregs.search import PopulationTuner
from kregs.search.storage import TrialRecord, outcome_file
from kregs.search.trainers.batches import OrderedBatches

pytestmark = [pytest.mark.nightly, pytest.mark.usefixtures("double")]

GENERATOR = np.random.default_rng(4)
X, Y = GENERATOR.normal(size=(50, 3)), GENERATOR.normal(size=50)
FIT = {
    "x": X[:33], "y": Y[:33], "validation_data": (X[33:], Y[33:]), "batch_size": 8, "verbose": 0,
}  # fmt: skip
EPOCHS, HALF = 8, 4


class Scripted(keras_tuner.Oracle):
    """Trial 0 trains one half, trial 1 the other, trial 2 the whole."""

    scripts = (
        {"tuner/epochs": HALF, "tuner/initial_epoch": 0},
        {"tuner/epochs": EPOCHS, "tuner/initial_epoch": HALF, "tuner/trial_id": "0"},
        {"tuner/epochs": EPOCHS, "tuner/initial_epoch": 0},
    )

    def populate_space(self, trial_id):
        values = self.scripts[int(trial_id)]
        if "tuner/trial_id" in values and self.trials["0"].status != "COMPLETED":
            return {"status": "IDLE"}
        return {"status": "RUNNING", "values": dict(values)}


class EveryThird(keras.callbacks.Callback):
    """Changes the learning rate by a count of its own, and says nothing of it."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1
        self.seen.append(float(logs["loss"]))
        if self.count % 3 == 0:
            self.model.optimizer.learning_rate *= 0.3 if self.seen[-3] > self.seen[-1] else 0.7


def network(optimizer):
    def build(hp):
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(6, "tanh")(inputs)
        hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.3)(hidden))
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile(optimizer(), "mse")
        return model

    return build


def watching():
    return [
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=2, min_delta=0.5),
        keras.callbacks.EarlyStopping("val_loss", patience=6, min_delta=0.5),
    ]


def averaging():
    return [keras.callbacks.SwapEMAWeights(swap_on_epoch=True), EveryThird()]


CASES = {
    "population": ("population", lambda: keras.optimizers.Adam(0.05), watching),
    "sequential": ("sequential", lambda: keras.optimizers.Adam(0.05), watching),
    "own": ("population", lambda: keras.optimizers.Adam(0.05), lambda: [EveryThird()]),
    "schedule": (
        "population",
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.02, 40), 0.9),
        list,
    ),
    "averages": (
        "sequential",
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.8),
        averaging,
    ),
}


def search(path, case, max_trials):
    engine, optimizer, callbacks = CASES[case]
    objective = keras_tuner.Objective("val_loss", "min")
    tuner = PopulationTuner(
        network(optimizer),
        oracle=Scripted(objective, max_trials=max_trials, seed=5),
        engine=engine,
        directory=path,
    )
    tuner.search(**FIT, callbacks=callbacks())
    return tuner


@pytest.mark.parametrize("resumed", [False, True], ids=["at once", "resumed"])
@pytest.mark.parametrize("case", CASES)
def test_two_halves_are_the_whole(tmp_path, case, resumed):
    if resumed:
        search(tmp_path, case, 1)
    tuner = search(tmp_path, case, 3)
    trials = [tuner.oracle.trials[number] for number in "012"]
    assert [trial.status for trial in trials] == ["COMPLETED"] * 3
    folders = [tuner.get_trial_dir(number) for number in "012"]
    (first,), (second,), (whole,) = (TrialRecord.read(folder).histories for folder in folders)
    assert len(first["loss"]) == HALF
    for name, values in whole.items():
        np.testing.assert_allclose(first[name] + second[name], values, rtol=1e-9, err_msg=name)
    if case in ("population", "sequential"):
        # both halves count: the rate falls in each, and the waiting of the first ends the second
        assert whole["learning_rate"][0] > whole["learning_rate"][HALF] > 0
        assert len(whole["loss"]) < EPOCHS
    # what is kept is the best of its own epochs, which is not the last
    best = int(np.argmin(second["val_loss"]))
    assert TrialRecord.read(folders[1]).best_epoch == HALF + best + 1
    loss = tuner.load_model(trials[1]).evaluate(X[33:], Y[33:], verbose=0)
    assert loss == pytest.approx(second["val_loss"][best])


def test_a_lost_state_fails_the_trial_that_needs_it(tmp_path):
    tuner = search(tmp_path, "sequential", 1)
    outcome_file(tuner.get_trial_dir("0"), tuner.runs[0]).unlink()
    tuner = search(tmp_path, "sequential", 3)
    assert [tuner.oracle.trials[number].status for number in "012"] == [
        "COMPLETED", "FAILED", "COMPLETED",
    ]  # fmt: skip
    record = TrialRecord.read(tuner.get_trial_dir("1"))
    assert "was to go on from trial 0" in record.message


class Spy(keras.Model):
    """Keeps the rows of each batch."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.batches = []

    def call(self, x):
        return self.out(x[0] if isinstance(x, (list, tuple)) else x)

    def train_step(self, data):
        self.batches.append([part.numpy() for part in keras.tree.flatten(data)])
        return {"loss": 0.0}


@pytest.mark.parametrize("several", [False, True])
def test_the_order_of_an_epoch_is_that_of_its_number(several):
    x = np.arange(10.0)[:, None]
    rows = {"x": [x, x + 1] if several else x, "y": np.arange(10) % 3, "batch_size": 4}
    halves = []
    for epochs in ([0, 5], [0, 2], [2, 5]):
        model, batches = Spy(), OrderedBatches(seed=7)
        model.compile("sgd", "mse", run_eagerly=True)
        fit = batches.arguments({**rows, "class_weight": {2: 5.0}, "validation_split": 0.1})
        model.fit(**fit, initial_epoch=epochs[0], epochs=epochs[1], callbacks=[batches], verbose=0)
        halves.append(model.batches)
    whole, first, second = halves
    assert [len(batch[0]) for batch in whole] == [4, 4, 1] * 5  # the last of 10 rows validates
    for one, other in zip(whole, first + second, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
    order = np.concatenate([batch[0][:, 0] for batch in whole[6:9]])
    np.testing.assert_array_equal(order, epoch_order(7, 2, 9))
    for batch in whole:
        *inputs, y, weight = batch
        assert len(inputs) == 1 + several
        np.testing.assert_array_equal(y, batch[0][:, 0] % 3)
        np.testing.assert_array_equal(weight, np.where(y == 2, 5.0, 1.0))
        if several:
            np.testing.assert_array_equal(inputs[1], inputs[0] + 1)
    given = {**rows, "shuffle": False}
    assert OrderedBatches(seed=7).arguments(given) == given
