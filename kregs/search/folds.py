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
    train_test_split,
)

from kregs.search.runs import Halves, Split, disjoint_folds
from kregs.training.data_checks import check_row_numbers
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
    groups = check_groups(groups, rows)
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
        train, validation = (
            check_row_numbers("folds", part, rows, number) for part in (train, validation)
        )
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
        splits.append(Split(train, validation))
    return splits, " ".join(str(splitter).split())


def check_groups(groups: Any, rows: int) -> np.ndarray | None:
    """Return labels of rows as an array, or raise if there is not one a row."""
    if groups is None:
        return None
    groups = np.asarray(groups)
    if groups.dtype == object and not all(isinstance(label, str) for label in groups.flat):
        raise TypeError(
            "`groups` must be labels that can be sorted: numbers or words. "
            f"Received: dtype object, the first {next(iter(groups.flat), None)!r}"
        )
    if groups.shape != (rows,):
        raise ValueError(
            f"`groups` must have one label a row, shape ({rows},). Received: shape {groups.shape}"
        )
    return groups


def with_halves(
    splits: Sequence[Split],
    *,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> list[Split]:
    """Cut each fold's validation rows in two where other folds cannot choose its epoch.

    They cannot if some fold shares judged rows with all others, as with `ShuffleSplit`, nor in
    order of time, where each fold is trained on another length of the past (`TimeSeriesSplit`).

    Args:
        splits: the folds.
        labels: the rows' classes, or `None` if the targets are no classes.
        groups: one label a row; a group is in one half.
        seed: of the halves.

    Returns:
        The folds, all of them with halves or none. In order of time a half is the earlier or the
        later rows, else the rows are mixed, with equal shares of the classes.
    """
    in_time = all(split.train.max() < split.validation.min() for split in splits)
    if not in_time and all(disjoint_folds(splits)):
        return list(splits)
    halves = [
        halves_of(
            len(split.validation),
            labels=None if labels is None else labels[split.validation],
            groups=None if groups is None else groups[split.validation],
            order=split.validation if in_time else None,
            seed=seed,
        )
        for split in splits
    ]
    if any(pair is None for pair in halves):
        return list(splits)
    return [
        dataclasses.replace(split, halves=pair) for split, pair in zip(splits, halves, strict=True)
    ]


def halves_of(
    rows: int,
    *,
    labels: np.ndarray | None = None,
    groups: Any = None,
    order: np.ndarray | None = None,
    seed: int = 0,
) -> Halves | None:
    """Cut rows in two: by time, by groups, or mixed with equal shares of the classes.

    Args:
        rows: how many there are.
        labels: their classes, or `None` if the targets are no classes.
        groups: one label a row; a group is in one half.
        order: the rows' times: all rows of the first half are earlier than those of the second. A
            group across the middle goes with its earliest row.
        seed: of the mixing.

    Returns:
        Places of the rows, or `None` if there are fewer than two rows or groups.

    Example:

    >>> import numpy as np
    >>> [half.tolist() for half in halves_of(5, order=np.array([9, 8, 2, 3, 5]))]
    [[2, 3], [4, 1, 0]]
    """
    if groups is not None:
        _, group_numbers = np.unique(groups, return_inverse=True)
        if group_numbers.max(initial=0) < 1:
            return None
    elif rows < 2:
        return None
    if order is not None:
        times = np.asarray(order)
        if groups is not None:
            first_times = np.full(group_numbers.max() + 1, np.inf)
            np.minimum.at(first_times, group_numbers, times)
            times = first_times[group_numbers]
        places = np.argsort(times, kind="stable")
        cut = rows // 2
        while groups is not None and 0 < cut < rows and _together(times[places], cut):
            cut += 1
        if cut == rows:  # one group is all of the later half
            cut = int(np.flatnonzero(times[places] == times[places][-1])[0])
        return places[:cut], places[cut:]
    if groups is not None:
        splitter = GroupKFold(2)
        if labels is not None and np.unique(labels, return_counts=True)[1].min() > 1:
            splitter = StratifiedGroupKFold(2, shuffle=True, random_state=seed)
        a, b = next(iter(splitter.split(np.zeros(rows), labels, groups)))
        return (a, b) if len(a) and len(b) else None
    a, b, _ = shuffled_split(rows, rows // 2, labels=labels, seed=seed)
    return a, b


def _together(times: np.ndarray, cut: int) -> bool:
    """Whether a cut would be within one group."""
    return bool(times[cut - 1] == times[cut])


def shuffled_split(
    rows: int, held: int, *, labels: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return rows left over, rows held out, and whether both have their shares of the classes."""
    if labels is not None:
        _, sizes = np.unique(labels, return_counts=True)
        # scikit-learn refuses classes of one row, and fewer rows than classes on a side
        if sizes.min() < 2 or len(sizes) > min(held, rows - held):
            labels = None
    left, out = train_test_split(
        np.arange(rows), test_size=held, random_state=seed, shuffle=True, stratify=labels
    )
    return left, out, labels is not None


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
        splits: as before, with the places of their rows in `x`.
        fitted: each fold's transformer.
    """

    x: np.ndarray
    rows: np.ndarray
    splits: list[Split]
    fitted: list[Any]


def transform_folds(preprocess: Any, x: Any, y: np.ndarray, splits: Sequence[Split]) -> Prepared:
    """Fit a clone of a scikit-learn transformer on each fold's training rows, and transform.

    Raises:
        TypeError: `preprocess` is no transformer.
        ValueError: it makes other columns in one fold than in another.
    """
    parts: list[np.ndarray] = []
    new_splits, numbers = [], []
    transformers = []
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
        transformers.append(fitted)
        offset = sum(len(earlier) for earlier in parts)
        new_splits.append(dataclasses.replace(split, offset=offset))
        parts.append(part)
        numbers.append(used)
    return Prepared(np.concatenate(parts), np.concatenate(numbers), new_splits, transformers)


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
