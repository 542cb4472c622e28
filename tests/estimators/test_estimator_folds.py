"""Estimators of several networks, one for each fold: their mean, what stops them, their scale."""

from __future__ import annotations

import itertools
import pickle

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_score,
    train_test_split,
)

import kregs
from kregs.search.randomness import derived_seed


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def small(**parameters):
    defaults = {"network": kregs.mlp, "folds": 3, "epochs": 4, "batch_size": 50, "random_state": 1,
                "learning_rate": 0.05}  # fmt: skip
    return kregs.KregsClassifier((8,), **defaults | parameters)


def networks_of(estimator):
    """Return the networks inside, of which the mean is taken."""
    layers = estimator.model_.get_layer("ensemble").layers
    return [layer for layer in layers if isinstance(layer, keras.Model)]


@pytest.mark.slow
def test_predictions_are_the_mean_of_what_fit_makes_of_each_fold(iris):
    x, y = iris
    estimator = small(
        early_stopping=False, folds=StratifiedKFold(3), batch_size=200, random_state=5
    )
    estimator.fit(x, y)
    standardized = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    seed = int(np.random.RandomState(5).randint(2**31 - 1))
    outputs = []
    for number, (train, _) in enumerate(StratifiedKFold(3).split(x, y)):
        network = kregs.mlp(
            (4,), 3, units=(8,), head_activation="softmax", seed=derived_seed(seed, number)
        )
        network.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
        network.fit(standardized[train], y[train], epochs=4, batch_size=200, verbose=0)
        outputs.append(network.predict(standardized, verbose=0))
    np.testing.assert_allclose(estimator.predict_proba(x), np.mean(outputs, axis=0), atol=1e-5)
    assert len(estimator.history_) == 3
    assert all("val_loss" not in history for history in estimator.history_)
    assert estimator.n_iter_ == 4


@pytest.mark.slow
def test_each_network_is_stopped_by_the_rows_that_it_leaves_out(iris):
    x, y = iris
    estimator = small(epochs=40, learning_rate=0.3, n_iter_no_change=1, metric="accuracy").fit(x, y)
    epochs = [len(history["loss"]) for history in estimator.history_]
    assert estimator.n_iter_ == max(epochs) < 40
    for history in estimator.history_:  # the first that is no better ends it
        scores = history["val_accuracy"]
        assert all(later > earlier for earlier, later in itertools.pairwise(scores[:-1]))
        assert len(scores) == 40 or scores[-1] <= scores[-2]


@pytest.mark.slow
def test_the_temperature_fits_the_rows_that_were_left_out(iris):
    x, y = iris
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 3, len(y)), y)
    estimator = small(epochs=60, n_iter_no_change=60, calibrate=True)
    estimator.fit(x, noisy)
    found = estimator.calibration_
    assert found["rows"] == len(y)
    assert found["log_loss_after"] < found["log_loss_before"]
    assert estimator.model_.get_layer("ensemble").get_layer("temperature").scale == pytest.approx(
        1 / found["temperature"]
    )
    # before it is scaled, it is the model of the same call without
    plain = clone(estimator).set_params(calibrate=False).fit(x, noisy)
    powers = plain.predict_proba(x) ** (1 / found["temperature"])
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(estimator.predict_proba(x), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "rows", "networks"),
    [
        ({}, 90, 5),
        ({"folds": 3}, 90, 3),
        ({"folds": None}, 90, 1),
        ({"validation_fraction": 0.2}, 90, 1),
        ({"early_stopping": False}, 90, 1),
        ({"early_stopping": False, "folds": 2}, 90, 2),
        ({"network": kregs.mlp}, 90, 1),
        ({"network": kregs.mlp, "folds": ShuffleSplit(4)}, 90, 4),
        ({}, 2001, 1),
    ],
)
@pytest.mark.parametrize("make", [kregs.KregsClassifier, kregs.KregsRegressor])
def test_how_many_networks_there_are(make, parameters, rows, networks):
    x = np.random.default_rng(0).normal(size=(rows, 3))
    estimator = make((4,), epochs=1, batch_size=rows, random_state=0, **parameters)
    estimator.fit(x, (x[:, 0] > 0).astype(int))
    if networks == 1:
        assert isinstance(estimator.history_, dict)
    else:
        assert len(networks_of(estimator)) == len(estimator.history_) == networks


@pytest.mark.slow
def test_a_class_of_few_rows_is_left_to_one_network():
    x = np.random.default_rng(0).normal(size=(60, 3))
    y = np.array(["a"] * 30 + ["b"] * 26 + ["c"] * 4)
    estimator = kregs.KregsClassifier((4,), epochs=1, batch_size=60).fit(x, y)
    assert isinstance(estimator.history_, dict)
    with pytest.raises(ValueError, match=r"`folds`: fold \d would be trained without class b"):
        kregs.KregsClassifier((4,), epochs=1, folds=5).fit(x, np.array(["a"] * 59 + ["b"]))


@pytest.mark.slow
def test_the_same_seed_is_the_same_model_and_leaves_no_trace(iris):
    x, y = iris
    keras.utils.set_random_seed(3)
    expected = keras.random.uniform((3,)).numpy(), np.random.rand(3)  # noqa: NPY002
    keras.utils.set_random_seed(3)
    first, second = (small().fit(x, y) for _ in range(2))
    found = keras.random.uniform((3,)).numpy(), np.random.rand(3)  # noqa: NPY002
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(first.predict_proba(x), second.predict_proba(x))
    other = small(random_state=2).fit(x, y)
    assert not np.array_equal(first.predict_proba(x), other.predict_proba(x))
    restored = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(restored.predict_proba(x), first.predict_proba(x))


@pytest.mark.slow
def test_weights_and_words(iris):
    x, y = iris
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(x).assign(word=rng.choice(["p", "q", None], len(y)))
    frame.columns = frame.columns.astype(str)
    labels = np.array(["seta", "vers", "virg"])[y]
    weights = rng.integers(0, 3, len(y)).astype(float)
    estimator = kregs.KregsClassifier(
        (8,), folds=3, epochs=3, batch_size=64, random_state=0, class_weight="balanced"
    ).fit(frame, labels, sample_weight=weights)
    assert estimator.predict(frame).dtype == labels.dtype
    # a row of weight 0 is absent, and its fold with it
    counted = weights > 0
    absent = clone(estimator).fit(frame[counted], labels[counted], sample_weight=weights[counted])
    np.testing.assert_allclose(
        absent.predict_proba(frame), estimator.predict_proba(frame), atol=1e-6
    )


@pytest.mark.slow
def test_several_targets(iris):
    x, _ = iris
    estimator = kregs.KregsRegressor((8,), folds=2, epochs=20, batch_size=75, random_state=0,
                                     learning_rate=0.05)  # fmt: skip
    estimator.fit(x[:, :2], x[:, 2:])
    assert estimator.predict(x[:3, :2]).shape == (3, 2)
    assert estimator.score(x[:, :2], x[:, 2:]) > 0.5


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"folds": "five"}, ValueError, r"`folds` must be 'auto', None, .*Received: folds='five'"),
        ({"folds": np.array([1, 2])}, TypeError, r"`folds` must be "),
        ({"folds": 1}, ValueError, r"`folds` must be .*Received: (folds=)?1"),
        ({"folds": 3.5}, TypeError, r"`folds` must be .*Received: .*3\.5"),
        (
            {"folds": 3, "validation_fraction": 0.2}, ValueError,
            r"`validation_fraction` is of one network.*folds=3, validation_fraction=0\.2",
        ),
    ],
)  # fmt: skip
def test_wrong_folds(iris, parameters, error, message):
    with pytest.raises(error, match=message):
        small(**parameters).fit(*iris)


@pytest.mark.slow
def test_columns_of_few_values_have_one_structure_in_all_folds():
    """Quantiles of a fold's rows would say of each fold how many bins there are."""
    x = np.random.default_rng(1).poisson(3, size=(120, 2)).astype(float)
    x = np.column_stack([x, np.r_[np.arange(119) % 2, [5]]])
    estimator = kregs.KregsRegressor((8,), epochs=1, batch_size=120, random_state=0)
    assert len(estimator.fit(x, x[:, 0] + x[:, 2]).history_) == 5
    few = kregs.KregsRegressor((8,), epochs=1).fit(x[:6], x[:6, 0])
    assert np.isfinite(few.predict(x)).all()


def test_each_network_s_schedule_is_of_its_own_rows(monkeypatch):
    seen = []
    build = kregs.presets.TablePreset.build

    def spied(preset, *arguments, rows, **options):
        seen.append((rows, options["batch_size"]))
        return build(preset, *arguments, rows=rows, **options)

    monkeypatch.setattr(kregs.presets.TablePreset, "build", spied)
    x = np.random.default_rng(0).normal(size=(90, 2))
    kregs.KregsRegressor((4,), epochs=1, folds=TimeSeriesSplit(2)).fit(x, x[:, 0])
    assert seen == [(30, 64), (60, 64)]


@pytest.mark.slow
def test_networks_of_unequal_folds_have_as_many_bins():
    x = np.random.default_rng(0).normal(size=(1000, 1))
    estimator = kregs.KregsRegressor((4,), epochs=1, folds=TimeSeriesSplit(4), random_state=0)
    assert len(estimator.fit(x, x[:, 0]).history_) == 4  # of 200 to 800 rows


@pytest.mark.slow
def test_a_splitter_without_a_seed_has_the_estimator_s(iris):
    first, second = (small(folds=ShuffleSplit(2)).fit(*iris) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(iris[0]), second.predict_proba(iris[0]))


def test_a_list_of_pairs_is_folds(iris):
    x, y = iris
    pairs = [(np.arange(150) % 3 != k, np.arange(150) % 3 == k) for k in range(3)]
    assert len(small(folds=pairs).fit(x, y).history_) == 3


@pytest.mark.slow
def test_a_scaled_loss_is_left_to_one_network(iris):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = kregs.KregsClassifier((8,), epochs=1, batch_size=150, random_state=0).fit(*iris)
    finally:
        keras.config.set_dtype_policy(policy)
    assert isinstance(model.history_, dict)


@pytest.mark.slow
def test_few_noisy_rows():
    """One network chooses its epoch by 29 rows; five leave fewer of the choices to luck."""
    x, y = load_diabetes(return_X_y=True)
    by_ridge = cross_val_score(RidgeCV(np.logspace(-3, 3, 13)), x, y, cv=3).mean()
    by_folds = cross_val_score(kregs.KregsRegressor(random_state=0), x, y, cv=3).mean()
    assert by_folds > by_ridge - 0.05


@pytest.mark.slow
def test_calibrated_folds_are_as_sure_as_they_are_right():
    from sklearn.datasets import load_breast_cancer

    x, test, y, labels = train_test_split(*load_breast_cancer(return_X_y=True), random_state=0)
    model = kregs.KregsClassifier(random_state=0, calibrate=True).fit(x, y)
    assert log_loss(labels, model.predict_proba(test)) < 0.12
