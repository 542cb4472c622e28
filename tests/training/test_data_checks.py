"""Wrong data: each an error that says what is wrong and where."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from kregs.training import check_data

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 4)), RNG.integers(0, 3, 20)


def model_of(loss="sparse_categorical_crossentropy", outputs=3, shape=(4,)):
    model = keras.Sequential([keras.Input(shape), keras.layers.Dense(outputs)])
    if loss is not None:
        model.compile(loss=loss)
    return model


def spoilt(array, *places):
    array = np.array(array, dtype=float)
    for index, value in places:
        array[index] = value
    return array


def batches(*arrays, size=6):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


ONE_HOT = np.eye(3)[Y]
SPARSE = model_of()
GOOD = {
    "arrays": (X, Y, SPARSE),
    "float32 and column": (X.astype("float32"), Y[:, None], SPARSE),
    "integral floats": (X, Y.astype(float), SPARSE),
    "lists": (X.tolist(), Y.tolist(), SPARSE),
    "pandas": (pd.DataFrame(X), pd.Series(Y), SPARSE),
    "tensors": (tf.constant(X), tf.constant(Y), SPARSE),
    "dataset": (batches(X, Y), None, SPARSE),
    "dataset with weights": (batches(X, Y, np.ones(20)), None, SPARSE),
    "endless dataset": (batches(X, Y).repeat(), None, SPARSE),
    "one-hot": (X, ONE_HOT, model_of("categorical_crossentropy")),
    "binary": (X, Y > 1, model_of("binary_crossentropy", 1)),
    "multi-label": (X, ONE_HOT, model_of(keras.losses.BinaryCrossentropy(), 3)),
    "regression": (X, X[:, 0], model_of("mse", 1)),
    "regression column": (X, X[:, :1], model_of("mse", 1)),
    "any loss": (X, X[:, :2], model_of(lambda y_true, y_pred: y_pred - y_true, 1)),
    "keras resolves the loss": (X, Y, model_of("crossentropy")),
    "not compiled": (X, Y, model_of(None)),
    "ignored class": (
        X,
        spoilt(Y, (0, -1)),
        model_of(keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)),
    ),
    "not built": (X, Y, keras.Sequential([keras.layers.Dense(2)])),
    "no model": (X, Y, None),
    "inputs only": (X, None, SPARSE),
    "several inputs": ([X, Y], Y, None),
    "any length": (RNG.normal(size=(5, 7, 2)), Y[:5], model_of(None, shape=(None, 2))),
    "missing channel axis": (RNG.normal(size=(5, 4)), None, model_of(None, shape=(4, 1))),
    "text": (np.array(["a", "b"]), np.zeros(2), None),
}


@pytest.mark.parametrize("case", GOOD)
def test_good_data_pass(case):
    x, y, model = GOOD[case]
    check_data(x, y, model=model)


BAD = {
    "nan": (
        spoilt(X, ((3, 1), np.nan), ((7, 0), np.inf), ((8, 0), np.nan)), Y, None,
        r"`x` must be finite. Received: 2 NaN and 1 infinite of 80 values, the first in row 3",
    ),
    "infinite target": (X, spoilt(Y, (5, -np.inf)), None, "`y` must be finite.* 1 infinite of 20"),
    "nan class": (X, spoilt(Y, (5, np.nan)), SPARSE, "`y` must be finite"),
    "lengths": (X, Y[:-1], None, "`x` and `y` must have the same .* x has 20, y has 19"),
    "several lengths": ([X, X[:3]], Y, None, r"x\[0\] has 20, x\[1\] has 3"),
    "empty": (X[:0], Y[:0], None, r"`x` must not be empty. Received: shape \(0, 4\)"),
    "one value": (3.0, Y, None, "`x` must have one row per sample"),
    "objects": (np.array([None, 1.0]), Y[:2], None, "`x` must be an array of numbers.* None"),
    "ragged": ([[1.0], [1.0, 2.0]], Y[:2], None, "`x` must be an array of numbers"),
    "dates": (pd.Series(pd.date_range("2020-01-01", periods=2)), None, None, "array of numbers"),
    "text labels": (X[:2], np.array(["a", "b"]), None, "`y` must hold numbers"),
    "input width": (X[:, :3], Y, SPARSE, r"the model's input, \(n, 4\). Received: shape \(20, 3\)"),
    "input rank": (RNG.normal(size=(20, 4, 2)), Y, SPARSE, "shape of the model's input"),
    "text for numbers": (np.array([["a"] * 4]), None, model_of(None), "input dtype"),
    "number of inputs": ([X, X], Y, SPARSE, r"must hold 1 input\(s\)"),
    "label too large": (
        X, spoilt(Y, (4, 3), (9, 7)), SPARSE,
        r"class numbers in \[0, 3\): the model has 3 outputs. Received: 2 other value\(s\), "
        r"the first 3.0 in row 4",
    ),
    "label negative": (X, spoilt(Y, (4, -1)), SPARSE, r"the first -1.0 in row 4"),
    "label not whole": (X, spoilt(Y, (4, 0.5)), SPARSE, "whole class numbers.* 0.5 in row 4"),
    "one-hot for sparse": (X, ONE_HOT, SPARSE, "use loss='categorical_crossentropy'"),
    "sparse for one-hot": (
        X, Y, model_of("categorical_crossentropy"), "use loss='sparse_categorical_crossentropy'",
    ),
    "one-hot width": (
        X, np.eye(4)[Y], model_of("categorical_crossentropy"),
        r"model's output, \(n, 3\). Received: shape \(20, 4\)",
    ),
    "one-hot value": (X, ONE_HOT * 2, model_of("CategoricalCrossentropy"), r"labels in \[0, 1\]"),
    "binary value": (X, Y, model_of("bce", 1), r"labels in \[0, 1\] .* the first 2 in row"),
    "regression broadcast": (X, X[:, :3], model_of("mse", 1), r"output, \(n, 1\)"),
    "regression rank": (X, X[:, 0], model_of("mse", 3), r"output, \(n, 3\)"),
    "dataset row": (
        batches(spoilt(X, ((13, 0), np.nan)), Y), None, None, "1 NaN of 80 values, .* row 13",
    ),
    "dataset label": (batches(X, np.where(np.arange(20) == 13, 9, Y)), None, SPARSE, "row 13"),
    "dataset shape": (batches(X[:, :2], Y), None, SPARSE, "shape of the model's input"),
    "dataset of samples": (
        tf.data.Dataset.from_tensor_slices((X, Y[:, None])), None, SPARSE, "in batches",
    ),
    "dataset empty": (batches(X, Y).take(0), None, None, "a dataset without batches"),
    "dataset and y": (batches(X, Y), Y, None, "`y` must be None if `x` is a dataset"),
    "endless dataset": (
        batches(spoilt(X, ((0, 0), np.nan)), Y).repeat(), None, None, "1 NaN of 24 values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_raise(case):
    x, y, model, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        check_data(x, y, model=model)


def test_names_in_the_message():
    with pytest.raises(ValueError, match="`x_val` and `y_val` must have the same"):
        check_data(X, Y[:3], x_name="x_val", y_name="y_val")
