"""SWA and snapshots against NumPy, alone and for each member of a population; Keras's own EMA."""

import copy

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import kregs
from kregs.population import Population

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4))
Y = RNG.normal(size=(40, 2))
FIT = {"batch_size": 16, "epochs": 7, "shuffle": False}


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights = []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())


def network(k=0, normalized=True, rate=float):
    keras.utils.set_random_seed(k)
    body = [layers.Dense(5), layers.BatchNormalization(momentum=0.8), layers.ReLU()]
    body = body if normalized else [layers.Dense(5, "relu")]
    model = keras.Sequential([keras.Input((4,)), *body, layers.Dense(2)])
    model.compile(optimizers.SGD(rate((0.1, 0.02, 0.05)[k]), momentum=0.9), "mse")
    return model


@pytest.mark.slow
def test_swa_is_the_mean_of_the_weights_with_statistics_of_its_own(double):
    """Izmailov et al. 2018, algorithm 1, and the pass over the data after it."""
    model, recorder = network(), Recorder()
    swa = kregs.StochasticWeightAveraging([3, 5, 7, 9], x=X, batch_size=16)
    model.fit(X, Y, callbacks=[recorder, swa], verbose=0, **FIT)
    kept = [recorder.weights[epoch - 1] for epoch in (3, 5, 7)]
    kernel, bias, gamma, beta, mean, variance, *head = model.get_weights()
    averages = [np.mean(weights, axis=0) for weights in zip(*kept, strict=True)]
    for ours, expected in zip((kernel, bias, gamma, beta), averages, strict=False):
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
    np.testing.assert_allclose(head[0], averages[6], rtol=1e-9)
    batches = [X[i : i + 16] @ kernel + bias for i in (0, 16, 32)]
    means, variances = [b.mean(0) for b in batches], [b.var(0) for b in batches]
    np.testing.assert_allclose(mean, np.average(means, 0, [16, 16, 8]), rtol=1e-6)
    np.testing.assert_allclose(variance, np.average(variances, 0, [16, 16, 8]), rtol=1e-6)
    assert (swa.averaged, model.layers[1].momentum) == (3, 0.8)


@pytest.mark.slow
def test_swa_that_is_never_reached_changes_nothing():
    ends = []
    for callbacks in ([], [kregs.StochasticWeightAveraging([8], x=X)]):
        model = network()
        model.fit(X, Y, callbacks=callbacks, verbose=0, **FIT)
        ends.append(model.get_weights())
    for one, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_last_batch_of_one_row_counts_as_one_row():
    model = keras.Sequential([keras.Input((1,)), layers.BatchNormalization()])
    x = np.random.default_rng(0).normal(size=(33, 1)).astype("float32")
    kregs.refresh_batch_norm(model, x, batch_size=32)
    mean, variance = (each.numpy() for each in model.layers[0].non_trainable_variables)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, [x[:32].var() * 32 / 33], rtol=1e-5)


@pytest.mark.parametrize("epochs", [[], [4, 5]])
def test_a_count_of_an_earlier_rung_enters_no_average(epochs):
    model = network(normalized=False)
    swa = kregs.StochasticWeightAveraging(range(1, 9))
    swa.set_model(model)
    swa.on_train_begin()
    swa.averaged = 3  # a search carries numbers over, not weights
    kept = []
    for epoch in epochs:
        model.set_weights([weight + 1 for weight in model.get_weights()])
        kept.append(model.get_weights())
        swa.on_epoch_end(epoch)
    expected = [np.mean(weights, 0) for weights in zip(*kept, strict=True)] or model.get_weights()
    swa.on_train_end()
    for one, other in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_a_batch_normalization_needs_the_data():
    with pytest.raises(ValueError, match=r"`x` must be the inputs.*Received: x=None"):
        network().fit(X, Y, callbacks=[kregs.StochasticWeightAveraging([1])], verbose=0)
    network(normalized=False).fit(
        X, Y, callbacks=[kregs.StochasticWeightAveraging([1])], verbose=0, batch_size=40
    )
    swa = kregs.StochasticWeightAveraging([1], x=X)
    assert copy.deepcopy(swa).x is X


@pytest.mark.slow
def test_snapshots_and_their_ensemble():
    model, recorder = network(), Recorder()
    snapshots = kregs.SnapshotEnsemble(kregs.cycle_ends(7, first=1, factor=2))
    model.fit(X, Y, callbacks=[recorder, snapshots], verbose=0, **FIT)
    before = model.get_weights()
    assert len(snapshots.weights) == 3
    predictions = []
    for epoch, snapshot in zip((1, 3, 7), snapshots.models(model), strict=True):
        for ours, expected in zip(snapshot.get_weights(), recorder.weights[epoch - 1], strict=True):
            np.testing.assert_array_equal(ours, expected)
        predictions.append(snapshot.predict(X, verbose=0))
    both = snapshots.ensemble(model, last=2).predict(X, verbose=0)
    np.testing.assert_allclose(both, np.mean(predictions[1:], axis=0), rtol=1e-5, atol=1e-6)
    ensemble = snapshots.ensemble(model)
    np.testing.assert_allclose(
        ensemble.predict(X, verbose=0), np.mean(predictions, 0), rtol=1e-5, atol=1e-6
    )
    assert ensemble.compiled
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="no snapshots: the training did not reach epoch 3"):
        kregs.SnapshotEnsemble([3]).models(model)


def test_cycle_ends_are_those_of_keras_restarts():
    assert kregs.cycle_ends(105, first=15, factor=2) == [15, 45, 105]
    assert kregs.cycle_ends(10, first=3) == [3, 6, 9]
    schedule = optimizers.schedules.CosineDecayRestarts(1.0, 15.0, t_mul=2.0)
    rates = np.array([float(schedule(epoch)) for epoch in range(104)])
    restarts = np.flatnonzero(np.diff(rates) > 0) + 1
    assert restarts.tolist() == [15, 45]


def falling(rate):
    return optimizers.schedules.CosineDecay(rate, 30)


def members_of_a_population(callbacks):
    """Train three members, each with its callbacks, and each alone; return all models.

    They have a schedule of the learning rate, which has no further step when averages are set.
    """
    population = Population.from_models([network(k, rate=falling) for k in range(3)])
    stacked = [callbacks(k) for k in range(3)]
    population.fit(X, Y, callbacks=stacked, **FIT)
    pairs = []
    for k, ours in enumerate(population.unstack()):
        alone, own = network(k, rate=falling), callbacks(k)
        alone.fit(X, Y, callbacks=own, verbose=0, **FIT)
        pairs.append((ours, stacked[k], alone, own))
        for one, other in zip(ours.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)  # rates are float32
    return pairs


@pytest.mark.slow
def test_members_average_and_keep_snapshots_as_alone(double):
    at = ([2, 4, 7], [6, 7], [1, 9])

    def callbacks(k):
        swa = kregs.StochasticWeightAveraging(at[k], x=X, batch_size=16)
        return [kregs.SnapshotEnsemble(at[k][:2]), swa]

    for k, (ours, (snapshots, _), alone, (expected, _)) in enumerate(
        members_of_a_population(callbacks)
    ):
        assert len(snapshots.weights) == len(expected.weights) == (2, 2, 1)[k]
        one, other = (s.ensemble(m) for s, m in ((snapshots, ours), (expected, alone)))
        np.testing.assert_allclose(
            one.predict(X, verbose=0), other.predict(X, verbose=0), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kregs.StochasticWeightAveraging(3), TypeError, "`at` must be a list of epochs"),
        (lambda: kregs.SnapshotEnsemble("12"), TypeError, "`at` must be a list of epochs"),
        (lambda: kregs.SnapshotEnsemble([]), ValueError, "at least one epoch"),
        (lambda: kregs.SnapshotEnsemble([0]), ValueError, "`at` must be"),
        (lambda: kregs.StochasticWeightAveraging([1], batch_size=0), ValueError, "`batch_size`"),
        (lambda: kregs.cycle_ends(0, first=1), ValueError, "`epochs`"),
        (lambda: kregs.cycle_ends(9, first=0), ValueError, "`first`"),
        (lambda: kregs.cycle_ends(9, first=1, factor=0.5), ValueError, "`factor`"),
    ],
    ids=range(8),
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
