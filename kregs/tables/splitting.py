"""Divides a table's rows for training and test: at random, by groups, by time, or by files."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import numpy as np
import pandas as pd

from kregs.tables.budget import fold_count
from kregs.tables.columns import typed_values
from kregs.tables.holdout import split_rows
from kregs.tables.prediction import read_rows
from kregs.tables.reading import read_frame
from kregs.tables.table import Table
from kregs.tables.target import read_target

_GROUP_SPLITS = 50  # are tried, and the one nearest to the wanted part and classes is taken


@dataclasses.dataclass(frozen=True, eq=False)
class RowSplit:
    """A table's rows, divided.

    Args:
        features, target: of all rows, also those of a test file, as in `Table`.
        train, test: numbers of rows; in order of time, if time divides them.
        folds: as in `kregs.tune`, for the rows to train on.
        groups: the groups of the rows to train on, if groups divide them.
        words: how they were divided.

    Example: see `divide`, which makes it.
    """

    features: pd.DataFrame
    target: np.ndarray
    train: np.ndarray
    test: np.ndarray
    folds: Any
    groups: np.ndarray | None
    words: str


def divide(
    table: Table, *, test_share: float, test_file: Any = None, folds: Any = "auto", seed: int = 0
) -> RowSplit:
    """Divide a table's rows as it asks for: by its groups, by its times, or at random.

    Args:
        table: as `kregs.read_table` made it.
        test_share: the part of the rows for the test, in (0, 1); not used with a test file.
        test_file: rows for the test: a file or a `DataFrame` with the table's columns.
        folds: as in `kregs.tune`; `"auto"`: see `kregs.tables.budget`. A number becomes a
            `TimeSeriesSplit` if time divides the rows.
        seed: of what is random.

    Raises:
        ValueError: too few rows or groups are left to train on, or a class is not in both parts.

    Example:

    >>> frame = pd.DataFrame({"x": np.cos(range(40)), "day": range(40), "y": [0, 1] * 20})
    >>> from kregs.tables import read_table
    >>> split = divide(read_table(frame, "y", time="day"), test_share=0.1)
    >>> split.test.tolist(), split.words
    ([36, 37, 38, 39], "the latest rows by 'day'")
    """
    features, target = table.features, table.target
    rows = np.arange(len(target))
    groups, words = table.groups, "at random"
    if test_file is not None:
        test_features, test_target, note = labelled_rows(test_file, table)
        features = pd.concat([features, test_features], ignore_index=True)
        target = np.concatenate([target, test_target])
        train, test = rows, len(rows) + np.arange(len(test_target))
        copies = _copies(table.features, table.target, test_features, test_target)
        words = f"the rows of the test file{note}"
        if copies:
            words += f", {copies} of them copies of rows that are trained on"
    elif table.times is not None:
        train, test = _by_time(table, table.times, test_share)
        words = f"the latest rows by {table.time_name!r}"
    elif groups is not None:
        train, test = _by_groups(table, groups, test_share, seed)
        words = f"whole groups by {table.groups_name!r}, at random"
    else:
        train, test = split_rows(target, len(table.classes or []), test_share, seed)
    if isinstance(folds, str):
        if folds != "auto":
            raise TypeError(
                "`folds` must be 'auto', an integer >= 2, a scikit-learn splitter, folds in a list "
                f"or None. Received: folds={folds!r}"
            )
        folds = fold_count(len(train))
    if table.times is not None:
        train = train[np.argsort(table.times[train], kind="stable")]
        folds = _folds_by_time(table.times[train], folds)
    return RowSplit(
        features=features,
        target=target,
        train=train,
        test=test,
        folds=folds,
        groups=None if groups is None else groups[train],
        words=words,
    )


def _folds_by_time(times: np.ndarray, folds: Any) -> Any:
    """Return folds each of which is later than what is trained on, rows of one time together.

    Args:
        times: of the rows to train on, in order (n,).
        folds: as `divide` was given them.
    """
    from sklearn.model_selection import TimeSeriesSplit

    if folds is None:
        raise ValueError(
            "`folds` must be a number where rows are divided by `time`: a single split is at "
            "random. Received: None"
        )
    if isinstance(folds, bool) or not isinstance(folds, numbers.Integral):
        return folds
    folds = int(folds)
    distinct, moments = np.unique(times, return_inverse=True)
    if len(distinct) == len(times):
        return TimeSeriesSplit(folds)
    if len(distinct) <= folds:
        raise ValueError(
            f"`folds` must be fewer than the {len(distinct)} different times of the rows to train "
            f"on. Received: folds={folds!r}"
        )
    return [
        tuple(np.flatnonzero(np.isin(moments, part)) for part in parts)
        for parts in TimeSeriesSplit(folds).split(distinct)
    ]


def labelled_rows(data: Any, table: Table) -> tuple[pd.DataFrame, np.ndarray, str]:
    """Read rows with a target, in the form of a table's.

    Rows without a target, and of classes that the table lacks, are left out.

    Args:
        data: a file or a `DataFrame`.
        table: whose columns, classes and formats they have.

    Returns:
        Features (m, columns), targets (m,), and in words what was left out.

    Raises:
        ValueError: the target or a column is missing, or no row is left.

    Example:

    >>> from kregs.tables import read_table
    >>> frame = pd.DataFrame({"x": np.cos(range(40)), "y": ["no", "yes"] * 20})
    >>> rows = pd.DataFrame({"x": [1, 2], "y": ["yes", "perhaps"]})
    >>> labelled_rows(rows, read_table(frame, "y"))[1:]
    (array([1]), ', 1 of 2 left out')
    """
    frame = read_frame(data, table.options.encoding, argument="test_file").reset_index(drop=True)
    if table.target_name not in frame:
        raise ValueError(f"`test_file` must have the target, {table.target_name!r}")
    raw = typed_values(frame[table.target_name])
    if table.classes is not None and isinstance(table.classes[0], str):
        labels = _as_class_names(raw.dropna())  # which may look like numbers where some are missing
    else:
        labels = read_target(raw, table.target_name, table.task, table.target_format)[1].dropna()
    if table.classes is not None:
        numbers = {label: number for number, label in enumerate(table.classes)}
        labels = labels.map(numbers).dropna().astype(int)
    if labels.empty:
        known = "known" if table.classes is None else f"one of {table.classes[:10]}"
        raise ValueError(
            f"`test_file` must have rows whose {table.target_name!r} is {known}. Received: none"
        )
    features = read_rows(frame, table.columns, options=table.options).loc[labels.index]
    left_out = len(frame) - len(labels)
    note = f", {left_out} of {len(frame)} left out" if left_out else ""
    return features.reset_index(drop=True), labels.to_numpy(), note


def _as_class_names(values: pd.Series) -> pd.Series:
    def name(value: Any) -> str:
        whole = isinstance(value, float) and value.is_integer()
        return str(int(value)) if whole else str(value)

    return values.map(name)


def _copies(x: pd.DataFrame, y: np.ndarray, x_test: pd.DataFrame, y_test: np.ndarray) -> int:
    """Return how many test rows are rows to train on, too."""
    rows, test_rows = (
        pd.util.hash_pandas_object(part.assign(**{"the target": labels}), index=False)
        for part, labels in ((x, y), (x_test, y_test))
    )
    return int(test_rows.isin(rows).sum())


def _by_time(table: Table, times: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(times, kind="stable")
    first = times[order[-max(round(len(times) * share), 2)]]
    # rows of one time are on one side
    train, test = order[times[order] < first], order[times[order] >= first]
    _check_parts(table, train, test, f"`time`: {table.time_name!r}")
    return train, test


def _by_groups(
    table: Table, groups: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import GroupShuffleSplit

    count = len(np.unique(groups))
    if count < 3:
        raise ValueError(
            f"`groups` must be a column of at least 3 groups. Received: {table.groups_name!r}, "
            f"which has {count}"
        )
    splitter = GroupShuffleSplit(_GROUP_SPLITS, test_size=share, random_state=seed)
    splits = splitter.split(groups, groups=groups)
    train, test = min(splits, key=lambda parts: _distance(table, parts[1], share))
    _check_parts(table, train, test, f"`groups`: {table.groups_name!r}")
    return train, test


def _distance(table: Table, test: np.ndarray, share: float) -> float:
    """Return how far a split is from the wanted part of the rows, and of every class."""
    far = abs(len(test) / len(table.target) - share)
    if table.classes is not None:
        rows, tested = (
            np.bincount(table.target[part], minlength=len(table.classes))
            for part in (slice(None), test)
        )
        far += np.abs(tested / rows - share).mean() + 10.0 * np.mean(
            (tested == 0) | (tested == rows)
        )
    return float(far)


def _check_parts(table: Table, train: np.ndarray, test: np.ndarray, what: str) -> None:
    if len(train) < 10 or len(test) < 2:
        raise ValueError(
            f"{what} must leave rows to train and to test on. Received: {len(train)} and "
            f"{len(test)}"
        )
    if table.classes is None:
        return
    for number, label in enumerate(table.classes):
        if not (table.target[train] == number).any():
            raise ValueError(
                f"{what} leaves no row of class {label!r} to train on: all are in the test part. "
                "Take its rows out, or change test_share (--test-share)"
            )
