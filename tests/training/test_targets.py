"""Classes of targets, and their weights, against scikit-learn and by hand."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from kregs.training import check_data
from kregs.training.targets import (
    DoubtfulInput,
    check_class_weight,
    class_numbers,
    resolve_class_weight,
    warn_of_many_classes,
)

NUMBERS = np.array([2, 0, 0, 2, 2, 2, 1, 2])


def model_of(loss, outputs=3):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs)])
    model.compile(loss=loss)
    return model


TARGETS = {
    "one-hot": (np.eye(3)[NUMBERS], model_of("categorical_crossentropy"), NUMBERS),
    "class numbers": (NUMBERS, model_of("sparse_categorical_crossentropy"), NUMBERS),
    "a column of floats": (
        NUMBERS[:, None].astype("float32"), model_of("sparse_categorical_crossentropy"), NUMBERS,
    ),
    "an ignored class": (
        np.append(NUMBERS, -1),
        model_of(keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)), NUMBERS,
    ),
    "two classes": (NUMBERS > 1, model_of("binary_crossentropy", 1), NUMBERS > 1),
}  # fmt: skip


@pytest.mark.parametrize("case", TARGETS)
def test_balanced_weights_are_those_of_scikit_learn(case):
    y, model, labels = TARGETS[case]
    np.testing.assert_array_equal(class_numbers(y, model), labels)
    weights = resolve_class_weight("balanced", y, model)
    present = np.unique(labels)
    expected = compute_class_weight("balanced", classes=present, y=labels)
    assert weights == {int(label): w for label, w in zip(present, expected, strict=True)}


def test_weights_of_classes_without_a_row_are_warned_of_once():
    model = model_of("sparse_categorical_crossentropy")
    with pytest.warns(DoubtfulInput, match="without a row: 3, 7. The rows are of the classes 0"):
        weights = resolve_class_weight({0: 1.0, 7: 2.0, 3: 1.0}, NUMBERS, model)
    assert weights == {0: 1.0, 7: 2.0, 3: 1.0}
    assert resolve_class_weight({2: 3.0}, NUMBERS, model) == {2: 3.0}  # others weigh 1


def test_weights_of_no_classes_are_an_error():
    with pytest.raises(ValueError, match="`class_weight` needs targets that are classes"):
        resolve_class_weight("balanced", np.linspace(0, 1, 8), model_of("mse", 1))
    assert check_class_weight({np.int64(1): np.float32(2)}) == {1: 2.0}


@pytest.mark.parametrize(
    ("y", "loss", "outputs"),
    [
        (np.ones(8, int), "sparse_categorical_crossentropy", 3),
        (np.eye(3)[np.ones(8, int)], "categorical_crossentropy", 3),
        (np.zeros(8), "binary_crossentropy", 1),
    ],
)
def test_one_class_cannot_be_trained_on_but_evaluated(y, loss, outputs):
    x, model = np.zeros((8, 4)), model_of(loss, outputs)
    check_data(x, y, model=model)
    with pytest.raises(ValueError, match=r"`y` must hold rows of at least two classes.* all 8 row"):
        check_data(x, y, model=model, training=True)


def test_soft_labels_and_regression_targets_may_be_of_one_class():
    x = np.zeros((8, 4))
    check_data(x, np.linspace(0.1, 0.4, 8), model=model_of("bce", 1), training=True)
    check_data(x, np.ones(8), model=model_of("mse", 1), training=True)
    check_data(x, np.zeros((8, 3)), model=model_of("bce"), training=True)  # several labels a row


def test_more_classes_than_rows_are_warned_of():
    model = model_of("sparse_categorical_crossentropy", 9)
    with pytest.warns(DoubtfulInput, match="`y` has 8 rows, fewer than the 9 classes"):
        warn_of_many_classes(NUMBERS, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_many_classes(np.zeros(9), model)


def test_weights_of_classes_for_a_loss_of_ones_own():
    """As Keras's `fit`, which weights rows by their labels whatever the loss."""

    def loss(y, prediction):
        return keras.ops.mean((y - prediction) ** 2, axis=-1)

    labels = np.array([0, 1, 1, 0])
    for given in (loss, "hinge"):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", given)
        assert resolve_class_weight({0: 1.0, 1: 5.0}, labels, model) == {0: 1.0, 1: 5.0}
        with pytest.raises(ValueError, match="class_weight"):
            resolve_class_weight({0: 1.0, 1: 5.0}, labels + 0.5, model)
        with pytest.raises(ValueError, match="class_weight"):
            resolve_class_weight("balanced", labels, model)


def test_classes_are_not_balanced_over_several_labels_a_row():
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="one a row"):
        resolve_class_weight("balanced", np.zeros((4, 3), int), model)
