"""Folds: which rows train and which validate, and preprocessing that is fitted in each."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    LeavePGroupsOut,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)

from kregs.search.runs import Split
from kregs.validation import check_integer

# splitters of scikit-learn that need groups
_GROUPED = (GroupKFold, StratifiedGroupKFold, GroupShuffleSplit, LeaveOneGroupOut, LeavePGroupsOut)


def make_splits(
    folds: Any, y: np.ndarray, *, labels: np.ndarray | None, groups: Any = None, seed: int = 0
) -> tuple[list[Split], str]:
    """Divide rows into folds.

    Args:
        folds: how many, or a scikit-learn splitter. A number means folds of shuffled rows: of equal
            shares of the classes if there are `labels` (`StratifiedKFold`), and with no group in
            two folds if there are `groups`.
        y: targets, rows first.
        labels: the rows' classes, `(n,)`, or `None` if the targets are no classes.
        groups: one label a row, for splitters that keep groups together.
        seed: of the shuffling.

    Returns:
        The splits, and the splitter in words.

    Raises:
        TypeError: `folds` is neither a number nor a splitter.
        ValueError: there are fewer rows, groups or rows of a class than the folds need; `groups`
            has another length than `y`; a fold would be trained without a class that it is judged
            on.
    """
    rows = len(y)
    if groups is not None:
        groups = np.asarray(groups)
        if groups.dtype == object and not all(isinstance(label, str) for label in groups.flat):
            raise TypeError(
                "`groups` must be labels that can be sorted: numbers or words. "
                f"Received: dtype object, the first {next(iter(groups.flat), None)!r}"
            )
        if groups.shape != (rows,):
            raise ValueError(
                f"`groups` must have one label a row, shape ({rows},). "
                f"Received: shape {groups.shape}"
            )
    splitter = _splitter(folds, labels, groups, rows, seed)
    takes_groups = "groups" in inspect.signature(splitter.split).parameters
    stock = type(splitter).__module__.startswith("sklearn.")
    if groups is not None and stock and "Group" not in type(splitter).__name__:
        raise ValueError(
            f"`groups` are not used by {type(splitter).__name__}: pass a splitter that keeps "
            "groups together, such as GroupKFold, or a number"
        )
    if stock and groups is None and isinstance(splitter, _GROUPED):
        raise ValueError(
            f"`folds`: {type(splitter).__name__} cannot divide the rows: it needs groups=. "
            "Received: groups=None"
        )
    try:
        with warnings.catch_warnings():
            # a class with fewer rows than folds is not in all of them: nothing is lost by that
            warnings.filterwarnings("ignore", "The least populated class")
            labels_of_groups = {"groups": groups} if takes_groups else {}
            pairs = list(
                splitter.split(np.zeros(rows), y if labels is None else labels, **labels_of_groups)
            )
    except ValueError as error:
        raise ValueError(
            f"`folds`: {type(splitter).__name__} cannot divide the rows: {error} "
            f"Received: {rows} rows"
        ) from None
    if len(pairs) < 2:
        raise ValueError(
            f"`folds` must make at least 2 folds. Received: {len(pairs)} of {splitter}"
        )
    splits = []
    for number, (train, validation) in enumerate(pairs):
        train, validation = (_row_numbers(part, rows, number) for part in (train, validation))
        for part, taken in (("train", train), ("judge", validation)):
            if len(taken) == 0:
                raise ValueError(
                    f"`folds` must have rows to {part} on in every fold. "
                    f"Received: none in fold {number}"
                )
        if labels is not None:
            missing = sorted(set(labels[validation]) - set(labels[train]))
            if missing:
                raise ValueError(
                    f"`folds`: fold {number} would be trained without class {missing[0]}, which "
                    f"it is judged on; the class has {(labels == missing[0]).sum()} of {rows} rows"
                )
        splits.append(Split(train.astype(np.int32), validation.astype(np.int32)))
    return splits, " ".join(str(splitter).split())


def _row_numbers(part: Any, rows: int, fold: int) -> np.ndarray:
    """Return the row numbers of a fold, or raise if there are no such rows."""
    try:
        numbers = np.asarray(part)
    except ValueError:
        numbers = np.asarray(None)
    if numbers.dtype == bool and numbers.shape == (rows,):
        numbers = np.flatnonzero(numbers)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(
            f"`folds` must be pairs of lists of row numbers. Received: {part!r} in fold {fold}"
        )
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < rows):
        raise ValueError(
            f"`folds` must hold row numbers in [0, {rows}). "
            f"Received: {numbers.min()} to {numbers.max()} in fold {fold}"
        )
    return numbers.astype(np.int32)


def _splitter(folds: Any, labels: Any, groups: Any, rows: int, seed: int) -> Any:
    if isinstance(folds, (list, tuple)):
        for pair in folds:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise TypeError(
                    "`folds` as a list must hold pairs (rows to train on, rows to judge on). "
                    f"Received: {pair!r}"
                )
        return check_cv(folds)  # pairs of row numbers
    if not isinstance(folds, (int, np.integer)) or isinstance(folds, bool):
        if not hasattr(folds, "split") or isinstance(folds, (str, bytes, type)):
            raise TypeError(
                "`folds` must be a number or a scikit-learn splitter such as StratifiedKFold(5). "
                f"Received: {folds!r} of type {type(folds).__name__}"
            )
        return folds
    folds = check_integer("folds", folds, minimum=2)
    if rows < folds:
        raise ValueError(f"`folds` must be at most the number of rows, {rows}. Received: {folds}")
    if groups is not None:
        count = len(np.unique(groups))
        if count < folds:
            raise ValueError(
                f"`folds` must be at most the number of groups, {count}, in `groups`. "
                f"Received: {folds}"
            )
        if labels is None:
            return GroupKFold(folds)
        return StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    if labels is not None:
        return StratifiedKFold(folds, shuffle=True, random_state=seed)
    return KFold(folds, shuffle=True, random_state=seed)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Rows after a transformer that was fitted once per fold.

    Args:
        x: all folds' transformed rows, one fold after the other.
        rows: for each of these, which row of the data it is.
        splits: as before, in numbers of these rows.
        fitted: the last fold's transformer.
    """

    x: np.ndarray
    rows: np.ndarray
    splits: list[Split]
    fitted: Any


def transform_folds(preprocess: Any, x: Any, y: np.ndarray, splits: Sequence[Split]) -> Prepared:
    """Fit a clone of a scikit-learn transformer on each fold's training rows, and transform.

    Raises:
        TypeError: `preprocess` is no transformer.
        ValueError: it makes other columns in one fold than in another.
    """
    parts: list[np.ndarray] = []
    new_splits, numbers = [], []
    fitted: Any = None
    for fold, split in enumerate(splits):
        fitted, train = fit_transform(preprocess, take_rows(x, split.train), y[split.train])
        part = np.concatenate([train, transformed(fitted, take_rows(x, split.validation))])
        used = np.concatenate([split.train, split.validation])
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"`preprocess` makes rows of shape {part.shape[1:]} in fold {fold} and of "
                f"{parts[0].shape[1:]} in fold 0; models of one structure need one shape. Name "
                "all categories (OneHotEncoder(categories=...)) or group rare ones"
            )
        first = sum(len(earlier) for earlier in parts)
        cut = first + len(split.train)
        new_splits.append(
            Split(
                np.arange(first, cut, dtype=np.int32),
                np.arange(cut, first + len(used), dtype=np.int32),
            )
        )
        parts.append(part)
        numbers.append(used)
    return Prepared(np.concatenate(parts), np.concatenate(numbers), new_splits, fitted)


def fit_transform(preprocess: Any, x: Any, y: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return a fitted clone of a scikit-learn transformer, and its training rows.

    As in scikit-learn's pipelines by `fit_transform`, which is not always `fit` and `transform`:
    `TargetEncoder` cross-fits, so that rows do not see their own targets.
    """
    instance = not isinstance(preprocess, type)
    if not (instance and hasattr(preprocess, "fit") and hasattr(preprocess, "transform")):
        raise TypeError(
            "`preprocess` must be a scikit-learn transformer, with `fit` and `transform`. "
            f"Received: {preprocess!r} of type {type(preprocess).__name__}"
        )
    fitted = clone(preprocess)
    try:
        if hasattr(fitted, "fit_transform"):
            return fitted, _dense(fitted.fit_transform(x, y))
        fitted.fit(x, y)
        return fitted, transformed(fitted, x)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`preprocess` cannot be fitted on the rows of `x`: {error}. "
            f"Received: preprocess={type(preprocess).__name__}, x of {type(x).__name__}"
        ) from error


def transformed(fitted: Any, x: Any) -> np.ndarray:
    """Return rows after a fitted transformer as a dense float32 array."""
    return _dense(fitted.transform(x))


def _dense(rows: Any) -> np.ndarray:
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    return np.asarray(rows, "float32")


def take_rows(x: Any, rows: np.ndarray) -> Any:
    """Return some rows of an array or a pandas object."""
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]
