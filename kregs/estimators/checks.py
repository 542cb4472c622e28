"""What `fit` and `predict` are given: rows, labels and weights, checked as scikit-learn does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, check_X_y
from sklearn.utils.validation import _check_sample_weight, validate_data

from kregs.estimators.parameters import PRESET
from kregs.tables.frames import frame_encoder, word_columns
from kregs.validation import check_number, suggestion


def checked_rows(estimator: BaseEstimator, *data: Any, **options: Any) -> Any:
    """Return what scikit-learn's `validate_data` makes of X, or of X and y, X in float64."""
    if len(data) > 1 and getattr(getattr(data[1], "dtype", None), "kind", "") == "c":
        raise ValueError("Complex data not supported: `y` must be real. Received: complex numbers")
    if getattr(data[-1], "ndim", 1) > 2 and len(data) > 1:
        raise ValueError(
            "`y` must have the shape (n,), or (n, outputs) of a regression. "
            f"Received: shape {data[-1].shape}"
        )
    if options.get("reset", True):
        # lists have no shape
        shape = getattr(data[1], "shape", None) or np.asarray(data[1], dtype=object).shape
        several_targets = len(shape) == 2 and shape[1] > 1
        codes = estimator.network == PRESET and not several_targets
        estimator.encoder_ = frame_encoder(data[0], codes=codes)
    try:
        if estimator.encoder_ is None:
            return validate_data(estimator, *data, dtype=np.float64, **options)
        return encoded_rows(estimator, *data, **options)
    except ValueError as error:
        if not str(error).startswith("could not convert"):
            raise
        names = ", ".join(map(repr, word_columns(data[0])))
        where = f", in column {names}" if names else ""
        raise ValueError(f"`X` must hold numbers. Received: {error}{where}") from error


def check_targets_are_numbers(y: Any) -> None:
    """Raise `ValueError` if the targets of a regression are words."""
    targets = np.asarray(y)
    are_words = targets.dtype.kind in "US"
    if targets.dtype == object and targets.ndim:
        are_words = any(isinstance(target, str) for target in targets.flat)
    if are_words:
        raise ValueError(
            "`y` must hold numbers. Received: words, for which there is KregsClassifier"
        )


def encoded_rows(estimator: Any, x: Any, *y: Any, reset: bool = True, **options: Any) -> Any:
    """Return what `validate_data` would of a frame with words, after its encoder."""
    if not hasattr(x, "columns"):
        raise ValueError(
            "`X` must be a DataFrame, as in `fit`: it has columns of words. "
            f"Received: {type(x).__name__}"
        )
    validate_data(estimator, x, reset=reset, skip_check_array=True)
    if reset:
        estimator.encoder_.fit(x)
    numbers = estimator.encoder_.transform(x)
    if not y:
        return check_array(numbers, dtype=np.float64, estimator=estimator)
    return check_X_y(numbers, *y, dtype=np.float64, estimator=estimator, **options)


def check_class_weight(class_weight: Any, classes: np.ndarray) -> None:
    expected = "`class_weight` must be None, 'balanced' or a dict of labels and weights"
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            guess = suggestion(class_weight, ["balanced"])
            raise ValueError(f"{expected}. Received: {class_weight!r}.{guess}")
    elif not isinstance(class_weight, Mapping):
        raise TypeError(f"{expected}. Received: {class_weight!r}")
    else:
        for label, weight in class_weight.items():
            check_number(f"class_weight[{label!r}]", weight, minimum=0.0)


def row_weights(sample_weight: Any, x: np.ndarray) -> np.ndarray | None:
    """Return the weights as float64, or raise if they are negative, or all 0."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(sample_weight, x, dtype=np.float64)
    if (weights < 0).any():
        raise ValueError(f"`sample_weight` must be >= 0. Received: {weights.min()}")
    if not weights.any():
        raise ValueError("`sample_weight` must have a weight above 0. Received: all weights zero")
    return weights
