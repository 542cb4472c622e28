"""The target column of a table: the task it sets, its classes or numbers, what is unfit in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from kregs.tables.columns import BOOLEANS, NONE, are_booleans, to_numbers, without_none
from kregs.tables.numerals import NumberFormat

_MOST_CLASSES = 20  # a target of integers with more values is a regression's
FEWEST_ROWS_OF_CLASS = 3  # one for the test part, two for different folds
_FEWEST_ROWS = 20
_NUMBER_SHARE = 0.95  # of a target's text: so many numbers make it one of numbers, with mistakes
_FAR = 30  # interquartile ranges from the median: farther numbers are told


def read_target(
    raw: pd.Series, name: str, task: str | None, number_format: NumberFormat | None = None
) -> tuple[str, pd.Series, list[str]]:
    """Return the task, the labels or numbers (missing where they are), and notes.

    Args:
        raw: what `typed_values` made of the column (n,).
        name: its header, for messages.
        task: `"classification"`, `"regression"`, or `None` to decide by the values.
        number_format: of numbers that are text.

    Raises:
        ValueError: the column holds dates or nothing, or what is no finite number in a regression.

    Example:

    >>> task, labels, notes = read_target(pd.Series(["yes", None, "no"]), "bought", None)
    >>> task, labels.dropna().tolist(), notes[0]
    ('classification', ['yes', 'no'], "1 of 3 rows left out: they have no 'bought'")
    >>> read_target(pd.Series(["$1,000", "$7.5"]), "cost", None, NumberFormat(".", ","))[1].tolist()
    [1000.0, 7.5]
    """
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        raise ValueError(f"`target` must hold classes or numbers. Received: dates in {name!r}")
    notes: list[str] = []
    rows = len(raw)
    others = without_none(raw).dropna()
    numbers = to_numbers(others, number_format)
    nearly = len(others) > 0 and numbers.notna().mean() >= _NUMBER_SHARE
    if nearly and numbers.isna().any() and (task == "regression" or _many(others)):
        word = others[numbers.isna()].iloc[0]
        notes.append(
            f"{numbers.isna().sum()} of {rows} rows left out: their {name!r} is no number, such as "
            f"{word!r}"
        )
        raw = others = others[numbers.notna()]
        rows = len(raw)
        numbers = numbers.dropna()
    if raw.dtype == object and (raw == NONE).any():
        if numbers.notna().all():
            raw = without_none(raw)
        else:
            notes.append(f"'None' is a class of {name!r}; rows without one have an empty field")
    missing = int(raw.isna().sum())
    if missing == rows:
        raise ValueError(f"`target` must hold values. Received: {name!r}, which has none")
    if missing:
        notes.append(f"{missing} of {rows} rows left out: they have no {name!r}")
    present = raw.dropna()
    boolean = are_booleans(present)
    if boolean:
        present = present.str.lower().map(BOOLEANS)
    numbers = to_numbers(present, number_format)
    numeric = bool(numbers.notna().all())
    integers = numeric and bool((numbers == numbers.round()).all())
    if task is None:
        few = present.nunique() <= _MOST_CLASSES
        task = "classification" if not numeric or (integers and few) else "regression"
        why = "text" if not numeric else "true and false" if boolean else ""
        if not why:
            why = f"{'whole ' * integers}numbers of {present.nunique()} values"
        other = "regression" if task == "classification" else "classification"
        option = "" if not numeric else f"; --task {other} makes it the other"
        notes.append(f"task: {task}, by the look of {name!r}: {why}{option}")
    if task == "regression":
        if not numeric:
            word = present[numbers.isna()].iloc[0]
            raise ValueError(
                f"`target` must hold numbers for a regression. Received: {word!r} in {name!r}"
            )
        if np.isinf(numbers).any():
            raise ValueError(f"`target` must be finite. Received: infinite values in {name!r}")
        hint = outlier_hint(numbers, name)
        return task, numbers, notes + ([hint] if hint else [])
    if integers:
        labels = numbers.astype(bool if boolean else int)
    elif numeric:
        labels = numbers
    else:
        labels = present
    return task, labels.astype(object), notes


def _many(present: pd.Series) -> bool:
    return present.nunique() > _MOST_CLASSES


def outlier_hint(numbers: pd.Series, name: str) -> str:
    """Return what to know of a regression's target with numbers far from all others, or `""`.

    Args:
        numbers: the target (n,).
        name: its header.

    Example:

    >>> outlier_hint(pd.Series([*range(50), 1e7]), "price")[:51]
    "1 value of 'price' is far from the others (1e+07, w"
    """
    low, median, high = np.quantile(numbers, [0.25, 0.5, 0.75])
    if high == low:
        low, high = np.quantile(numbers, [0.05, 0.95])
    far = (numbers - median).abs() > _FAR * (high - low)
    count = int(far.sum())
    if not count or high == low:
        return ""
    farthest = numbers.loc[(numbers - median).abs().idxmax()]
    verb = "values" if count > 1 else "value"
    return (
        f"{count} {verb} of {name!r} {'are' if count > 1 else 'is'} far from the others "
        f"({farthest:.6g}, where half of all lie between {low:.6g} and {high:.6g}): squared errors "
        "and R² then speak of little else. If they are mistakes, take the rows out; if not, "
        "predict the logarithm"
    )


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
