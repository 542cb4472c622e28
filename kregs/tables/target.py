"""The target column of a table: the task it sets, its classes or numbers, what is unfit in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kregs.tables.columns import BOOLEANS, are_booleans, to_numbers

_MOST_CLASSES = 20  # a target of integers with more values is a regression's
FEWEST_ROWS_OF_CLASS = 3  # one for the test part, two for different folds
_FEWEST_ROWS = 20


def read_target(raw: pd.Series, name: str, task: str | None) -> tuple[str, pd.Series, list[str]]:
    """Return the task, the labels or numbers (missing where they are), and notes.

    Args:
        raw: what `typed_values` made of the column (n,).
        name: its header, for messages.
        task: `"classification"`, `"regression"`, or `None` to decide by the values.

    Raises:
        ValueError: the column holds dates or nothing, or what is no finite number in a regression.

    Example:

    >>> task, labels, notes = read_target(pd.Series(["yes", None, "no"]), "bought", None)
    >>> task, labels.dropna().tolist(), notes[0]
    ('classification', ['yes', 'no'], "1 of 3 rows left out: they have no 'bought'")
    """
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        raise ValueError(f"`target` must hold classes or numbers. Received: dates in {name!r}")
    notes = []
    missing = int(raw.isna().sum())
    if missing == len(raw):
        raise ValueError(f"`target` must hold values. Received: {name!r}, which has none")
    if missing:
        notes.append(f"{missing} of {len(raw)} rows left out: they have no {name!r}")
    present = raw.dropna()
    boolean = are_booleans(present)
    if boolean:
        present = present.str.lower().map(BOOLEANS)
    numbers = to_numbers(present)
    numeric = bool(numbers.notna().all())
    integers = numeric and bool((numbers == numbers.round()).all())
    if task is None:
        few = present.nunique() <= _MOST_CLASSES
        task = "classification" if not numeric or (integers and few) else "regression"
        notes.append(f"task: {task}, by the look of {name!r}")
    if task == "regression":
        if not numeric:
            word = present[numbers.isna()].iloc[0]
            raise ValueError(
                f"`target` must hold numbers for a regression. Received: {word!r} in {name!r}"
            )
        if np.isinf(numbers).any():
            raise ValueError(f"`target` must be finite. Received: infinite values in {name!r}")
        return task, numbers.reindex(raw.index), notes
    if integers:
        labels = numbers.astype(bool if boolean else int)
    elif numeric:
        labels = numbers
    else:
        labels = present
    return task, labels.astype(object).reindex(raw.index), notes


def rare_classes(labels: pd.Series) -> list[Any]:
    """Return the classes, sorted, that have too few rows (n,) to train and to test on.

    Example:

    >>> rare_classes(pd.Series(["a", "a", "a", "b"]))
    ['b']
    """
    sizes = labels.value_counts()
    return sorted(sizes[sizes < FEWEST_ROWS_OF_CLASS].index.tolist())


def check_target(labels: pd.Series, name: str, task: str, notes: list[str]) -> None:
    """Raise if the labels or numbers left are too few or all alike.

    Args:
        labels: those of the rows that are kept (n,).
        name: the target's header.
        task: `"classification"` or `"regression"`.
        notes: what was left out, for the message.

    Raises:
        ValueError: there is nothing to learn, or too little.

    Example:

    >>> check_target(pd.Series([1.0, 2.0] * 10), "price", "regression", [])
    """
    remarks = f" ({'; '.join(notes)})" if notes else ""
    if labels.nunique() < 2:
        only = f"only {labels.tolist()[0]!r}" if len(labels) else "no row"
        raise ValueError(
            f"`target` must hold at least two {'classes' if task == 'classification' else 'values'}"
            f": there is nothing to learn from {name!r}, which holds {only}{remarks}"
        )
    if len(labels) < _FEWEST_ROWS:
        raise ValueError(
            f"the table must have at least {_FEWEST_ROWS} rows to train and to test on. "
            f"Received: {len(labels)}{remarks}"
        )
