from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.model_selection import TimeSeriesSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from kregs.search.data import prepare_data

ROWS = 100


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture(scope="module")
def x():
    return np.arange(2 * ROWS, dtype="float32").reshape(ROWS, 2)


@pytest.fixture(scope="module")
def y():
    return np.repeat([0, 1, 2], [50, 40, 10])


def prepare(x, y, model, **changes):
    arguments = {
        "validation_data": None,
        "validation_split": 0.2,
        "sample_weight": None,
        "seed": 0,
        "model": model,
    }
    return prepare_data(x, y, **arguments | changes)


def test_labels_are_stratified_and_no_row_is_lost(x, y, model):
    data = prepare(x, y, model, sample_weight=x[:, 0])
    x_val, y_val, weights_val = data.fit["validation_data"]
    assert np.bincount(y_val).tolist() == [10, 8, 2]
    assert np.bincount(data.fit["y"]).tolist() == [40, 32, 8]
    rows = np.concatenate([data.fit["x"][:, 0], x_val[:, 0]])
    assert sorted(rows) == x[:, 0].tolist()
    # rows stay together
    assert (data.fit["sample_weight"] == data.fit["x"][:, 0]).all()
    assert (weights_val == x_val[:, 0]).all()
    assert (y[(x_val[:, 0] / 2).astype(int)] == y_val).all()
    assert data.summary.validation == "stratified split"
    assert (data.summary.rows, data.summary.validation_rows) == (80, 20)


def test_the_split_is_shuffled_and_seeded(x, y, model):
    held = [prepare(x, y, model, seed=s).fit["validation_data"][0][:, 0] for s in (0, 0, 1)]
    assert held[0].tolist() == held[1].tolist()
    assert set(held[0]) != set(held[2])
    assert held[0].min() < 60  # Keras takes the last rows


def test_what_cannot_be_stratified_is_only_shuffled(x, model):
    regression = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    regression.compile("sgd", "mse")
    assert prepare(x, x[:, 0], regression).summary.validation == "shuffled split"
    one_of_a_kind = np.zeros(ROWS, dtype=int)
    one_of_a_kind[3] = 1
    assert prepare(x, one_of_a_kind, model).summary.validation == "shuffled split"


def test_several_inputs_are_split_alike(x):
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((1,), name="b")}
    outputs = keras.layers.Dense(1)(keras.layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    data = prepare({"a": x, "b": x[:, :1]}, x[:, 1], model)
    held = data.fit["validation_data"][0]
    assert held["a"].shape == (20, 2)
    assert (held["a"][:, :1] == held["b"]).all()


def test_given_validation_data_are_used(x, y, model):
    data = prepare(x, y, model, validation_data=(x[:7], y[:7]))
    assert len(data.fit["x"]) == ROWS
    assert len(data.fit["validation_data"][0]) == 7
    assert data.summary.validation == "given"


def test_halves_of_the_validation_rows(x, y, model):
    data = prepare(x, y, model)
    y_val = data.fit["validation_data"][1]
    assert sorted(np.concatenate(data.halves)) == list(range(20))
    assert [np.bincount(y_val[half]).tolist() for half in data.halves] == [[5, 4, 1]] * 2
    given = prepare(x, y, model, validation_data=(x[:7], y[:7]))
    assert sorted(map(len, given.halves)) == [3, 4]
    assert prepare(x, y, model, validation_data=(x[:1], y[:1])).halves is None
    assert prepare(x, y, model, folds=2).halves is None


def test_groups_of_a_single_split(x, y, model):
    groups = np.random.default_rng(5).permutation(np.arange(ROWS) // 7)
    data = prepare(x, y, model, groups=groups, validation_split=0.4)
    held, trained = (part[:, 0].astype(int) // 2 for part in (data.fit["validation_data"][0],
                                                             data.fit["x"]))  # fmt: skip
    assert sorted([*held, *trained]) == list(range(ROWS))
    assert len(set(groups[held])) == 6  # of 15
    assert not set(groups[held]) & set(groups[trained])
    a, b = (set(groups[held[half]]) for half in data.halves)
    assert not a & b
    assert a | b == set(groups[held])
    assert data.summary.validation == "group split"
    other = prepare(x, y, model, groups=np.roll(groups, 1), validation_split=0.4).summary
    assert data.summary.folds_checksum != other.folds_checksum
    with pytest.raises(ValueError, match="leave groups"):
        prepare(x, y, model, groups=groups > 3, validation_split=0.2)
    with pytest.raises(ValueError, match="`groups` and `validation_data`"):
        prepare(x, y, model, groups=groups, validation_data=(x, y))


def test_one_hot_targets_are_divided_as_their_classes(x, y):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    one_hot = np.eye(3)[y]
    data = prepare(x, one_hot, model)
    assert data.summary.validation == "stratified split"
    held = data.fit["validation_data"][1]
    assert held.sum(axis=0).tolist() == [10, 8, 2]
    assert [held[half].sum(axis=0).tolist() for half in data.halves] == [[5, 4, 1]] * 2
    splits = prepare(x, one_hot, model, folds=5).splits
    assert all(one_hot[s.validation].sum(axis=0).tolist() == [10, 8, 2] for s in splits)
    model.compile("sgd", "mse")  # three numbers, not a class
    assert prepare(x, one_hot, model).summary.validation == "shuffled split"


def test_the_checksum_tells_data_apart(x, y, model):
    changed = x.copy()
    changed[50, 1] += 1
    checksums = [prepare(d, y, model).summary.checksum for d in (x, x.copy(), changed)]
    assert checksums[0] == checksums[1] != checksums[2]


def test_datasets(x, y, model):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    data = prepare(dataset, None, model, validation_data=dataset)
    assert data.fit == {"x": dataset, "validation_data": dataset}
    assert data.halves is None


def bad_cases():
    x = np.zeros((ROWS, 2), dtype="float32")
    y = np.arange(ROWS) % 2
    nan = x.copy()
    nan[4, 1] = np.nan
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    nan_set = tf.data.Dataset.from_tensor_slices((nan, y)).batch(10)
    given = {"validation_data": dataset}
    return [
        (nan, y, {}, ValueError, "`x` must be finite"),
        (x, y[:-1], {}, ValueError, "same number of rows"),
        (x, y + 3, {}, ValueError, r"class numbers in \[0, 3\)"),
        (x[:, :1], y, {}, ValueError, "shape of the model's input"),
        (x[:0], y[:0], {}, ValueError, "must not be empty"),
        (x, None, {}, ValueError, "`y` must be given"),
        (x, y, {"validation_split": 0.0}, ValueError, "validation_split"),
        (x, y, {"validation_split": 1.0}, ValueError, "validation_split"),
        (x, y, {"validation_split": 0.001}, ValueError, "must leave rows"),
        (x, y, {"validation_split": "a"}, TypeError, "validation_split"),
        (x, y, {"validation_data": x}, TypeError, "`validation_data` must be"),
        (x, y, {"validation_data": (nan, y)}, ValueError, r"validation_data\[0\].* finite"),
        (x, y, {"validation_data": nan_set}, ValueError, "`validation_data` must be finite"),
        (x, y, {"sample_weight": np.ones(3)}, ValueError, "`sample_weight` must have 100 rows"),
        (dataset, None, {}, ValueError, "`validation_data` must be given"),
        (dataset, y, given, ValueError, "`y` must be None"),
        (dataset, None, {**given, "sample_weight": y}, ValueError, "`sample_weight` must be None"),
        (dataset.repeat(), None, given, ValueError, "must end"),
        ((row for row in x), y, {}, TypeError, "read again"),
    ]


@pytest.mark.parametrize("case", range(len(bad_cases())))
def test_bad_data(case, model):
    x, y, changes, error, words = bad_cases()[case]
    with pytest.raises(error, match=words):
        prepare(x, y, model, **changes)


@pytest.mark.parametrize("preprocess", [None, StandardScaler()])
def test_balanced_classes_count_each_row_once(x, y, model, preprocess):
    """In folds by time the early rows train several times, and are prepared for each."""
    folds, y = TimeSeriesSplit(3), np.random.default_rng(0).permutation(y)
    data = prepare(x, y, model, folds=folds, preprocess=preprocess, class_weight="balanced")
    expected = compute_class_weight("balanced", classes=np.unique(y), y=y)
    assert list(data.class_weight.values()) == pytest.approx(expected.tolist())
