"""Targets of classifications: which classes the rows have, and the weights of classes."""

from __future__ import annotations

import contextlib
import inspect
import numbers
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from kregs.training.compilation import loss_object
from kregs.training.wrapped_loss import unwrapped_loss
from kregs.validation import check_number, suggestion

REGRESSION = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Huber,
    keras.losses.LogCosh,
    keras.losses.Poisson,
)
SPARSE = (keras.losses.SparseCategoricalCrossentropy,)
CATEGORICAL = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.CategoricalGeneralizedCrossEntropy,
)
BINARY = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)


class DoubtfulInput(UserWarning):
    """An argument that has a meaning, but hardly the one that was meant."""


@contextlib.contextmanager
def said_before() -> Iterator[None]:
    """Say nothing of doubtful inputs: of what is repeated with the same arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DoubtfulInput)
        yield


def compiled_loss(model: keras.Model) -> keras.losses.Loss | Callable | None:
    """Return the model's one loss as an object, or `None` if there is none or it is not known."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        loss = loss[0]
    loss = unwrapped_loss(loss)
    if isinstance(loss, str) or callable(loss) or inspect.isclass(loss):
        try:
            return loss_object(loss)
        except (ValueError, TypeError):  # "crossentropy", which Keras resolves from shapes
            return None
    return None


def class_numbers(y: Any, model: keras.Model) -> np.ndarray | None:
    """Return the class of each row, or `None` if the model's loss knows no classes.

    Args:
        y: targets: class numbers (n, ...), one-hot rows (n, classes), or numbers in [0, 1], (n,) or
            (n, 1).
        model: a compiled model.

    Returns:
        An array without the labels that the loss ignores. As in `keras.Model.fit`, a one-hot row
        is of the class with the largest entry, and a number in [0, 1] of the nearer class.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile(loss="categorical_crossentropy")
    >>> class_numbers(np.eye(3)[[0, 2]], model)
    array([0, 2])
    """
    loss, outputs = compiled_loss(model), getattr(model, "outputs", None)
    labels = np.asarray(y)
    if not outputs or len(outputs) != 1 or labels.dtype.kind not in "biuf" or not labels.size:
        return None
    if isinstance(loss, SPARSE):
        labels = labels.reshape(-1)
        ignored = getattr(loss, "ignore_class", None)
        return labels if ignored is None else labels[labels != ignored]
    if isinstance(loss, CATEGORICAL) and labels.ndim == 2 and labels.shape[1] > 1:
        return labels.argmax(axis=1)
    if isinstance(loss, BINARY) and labels.size == len(labels):
        return labels.reshape(-1).round()
    return None


def row_classes(y: Any, model: keras.Model) -> np.ndarray | None:
    """Return the class of each row, by which rows are divided in equal shares, or `None`.

    Where the loss does not tell whether the targets are classes, integers are, one a row, if the
    model gives several numbers a row or there are at most two values; else they are counts.

    Args:
        y: targets, as in `class_numbers`, or a structure of them for several outputs.
        model: a compiled model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> model.compile(loss="categorical_crossentropy")
    >>> row_classes(np.eye(3)[[0, 2, 2]], model)
    array([0, 2, 2])
    >>> row_classes({"a": np.array([0, 1]), "b": np.array([0, 1])}, model)
    """
    if not isinstance(y, np.ndarray):
        return None
    labels = class_numbers(y, model)
    if labels is not None:
        return labels if len(labels) == len(y) else None
    if y.dtype.kind not in "iub" or y.size != len(y):
        return None
    labels = y.reshape(-1)
    several_numbers = isinstance(model.output_shape, tuple) and model.output_shape[-1] != 1
    return labels if several_numbers or len(np.unique(labels)) <= 2 else None


def check_classes(name: str, y: Any, model: keras.Model, *, rows: str = "") -> None:
    """Raise `ValueError` if the targets of a classification are all of one class.

    Args:
        name: what the message calls the targets.
        y: targets, as in `class_numbers`.
        model: a compiled model.
        rows: which rows these are, for the message.
    """
    labels = class_numbers(y, model)
    if labels is None or not len(labels):
        return
    # a label of 0.4 is of class 0, but tells something else than a label of 0.1
    values = labels if isinstance(compiled_loss(model), CATEGORICAL) else np.asarray(y).reshape(-1)
    if labels.min() == labels.max() and values.min() == values.max():
        raise ValueError(
            f"`{name}` must hold rows of at least two classes to train on{rows}. "
            f"Received: one class, {labels[0].item():g}, in all {len(labels)} rows"
        )


def warn_of_many_classes(y: Any, model: keras.Model) -> None:
    """Warn if a classification has more classes than rows."""
    loss = compiled_loss(model)
    if not isinstance(loss, (*SPARSE, *CATEGORICAL)):
        return
    rows, classes = len(y), model.output_shape[-1]
    if classes is not None and classes > rows:
        warnings.warn(
            f"`y` has {rows} rows, fewer than the {classes} classes of the model: most classes "
            "have no row. Are these numbers to be predicted, with loss='mse'?",
            DoubtfulInput,
            stacklevel=2,
        )


def check_class_weight(class_weight: Any) -> str | dict[int, float] | None:
    """Return `class_weight`, or raise unless it is `None`, `"balanced"` or weights by class number.

    Raises:
        TypeError: it is none of these, or a label is no integer.
        ValueError: another word than `"balanced"`, or a weight is negative or not finite.

    Example:

    >>> check_class_weight({0: 1, 1: 2.5})
    {0: 1.0, 1: 2.5}
    """
    expected = (
        "`class_weight` must be None, 'balanced', or a dictionary of class numbers and weights"
    )
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"{expected}. Received: class_weight={class_weight!r}."
                f"{suggestion(class_weight, ['balanced'])}"
            )
        return class_weight
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"{expected}. Received: class_weight={class_weight!r}")
    for label in class_weight:
        if isinstance(label, bool) or not isinstance(label, numbers.Integral):
            raise TypeError(f"{expected}. Received: the label {label!r}")
    return {
        int(label): check_number(f"class_weight[{label}]", weight, minimum=0.0)
        for label, weight in class_weight.items()
    }


def resolve_class_weight(
    class_weight: str | Mapping[int, float] | None, y: Any, model: keras.Model
) -> dict[int, float] | None:
    """Return weights by class number for these rows, or warn of those that have no row.

    Args:
        class_weight: what `check_class_weight` returned. `"balanced"` is
            `n / (classes * rows of the class)`, so that each class counts the same.
        y: the targets that are trained on.
        model: a compiled model, whose loss tells the kind of the targets.

    Raises:
        ValueError: there are weights, and the targets are no classes.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    >>> model.compile(loss="sparse_categorical_crossentropy")
    >>> resolve_class_weight("balanced", np.array([0, 0, 0, 1]), model)
    {0: 0.6666666666666666, 1: 2.0}

    References:
        King, Zeng, "Logistic regression in rare events data", 2001; scikit-learn's
        `compute_class_weight`, which computes it.
    """
    if class_weight is None:
        return None
    labels, balanced = class_numbers(y, model), isinstance(class_weight, str)
    if labels is None and not isinstance(class_weight, str) and _may_be_classes(y, model):
        return dict(class_weight)
    if labels is None or (
        balanced
        and np.ndim(y) > 1
        and isinstance(compiled_loss(model), SPARSE)
        and np.size(y) != len(y)
    ):
        raise ValueError(
            "`class_weight` needs targets that are classes, one a row, and a loss of classes. "
            f"Received: class_weight={class_weight!r}, targets of shape {np.shape(y)}, "
            f"loss={getattr(model, 'loss', None)!r}"
        )
    present = np.unique(labels)
    if isinstance(class_weight, str):
        weights = compute_class_weight("balanced", classes=present, y=labels)
        return {int(label): float(weight) for label, weight in zip(present, weights, strict=True)}
    absent = sorted({*class_weight} - {int(label) for label in present})
    if absent:
        warnings.warn(
            f"`class_weight` has weights for classes without a row: {', '.join(map(str, absent))}. "
            f"The rows are of the classes {_listed(present)}",
            DoubtfulInput,
            stacklevel=2,
        )
    return dict(class_weight)


def _may_be_classes(y: Any, model: keras.Model) -> bool:
    """Whether a loss that is not known to be of classes, nor of numbers, has one label a row."""
    labels = np.asarray(y)
    of_numbers = isinstance(compiled_loss(model), (*REGRESSION, keras.losses.CosineSimilarity))
    if of_numbers or labels.dtype.kind not in "biuf":
        return False
    return labels.size == len(labels) and bool((labels == labels.round()).all())


def _listed(labels: np.ndarray) -> str:
    words = [f"{label:g}" for label in labels[:10].tolist()]
    return ", ".join(words) + (", ..." if len(labels) > len(words) else "")
