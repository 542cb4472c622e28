"""Rows that depend on each other: copies, groups and order of time, which a random split hides."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kregs.tables.columns import Column, convert, typed_values, without_none
from kregs.tables.dates import find_date_format
from kregs.tables.formats import SHARE, FileFormats

_GROUP_NAME = re.compile(
    r"(^|[_\s.-])(id|patient|subject|person|customer|client|user|participant|household|family"
    r"|session|device|machine|group|batch|site|store|shop|school|hospital)([_\s.-]?(id|no|nr|number"
    r"|code))?$|[a-z]I[dD]$",
)
_TIME_NAME = re.compile(r"(^|[_\s.-])(year|date|time|timestamp|datetime|period|jahr|datum)$")
_FEWEST_REPEATS = 1.5  # rows of a group, in the mean


def split_warnings(
    frame: pd.DataFrame, columns: Sequence[Column], *, groups: str | None, time: str | None
) -> list[str]:
    """Return why a random split of the rows would make the test scores too good.

    Args:
        frame: the rows that are used, with all columns (n, columns).
        columns: what they are.
        groups, time: the columns that rows are divided by, if any.

    Example:

    >>> frame = pd.DataFrame({"x": [1, 1, 2], "y": [0, 0, 1]})
    >>> split_warnings(frame, [], groups=None, time=None)[0][:45]
    '2 of 3 rows stand in the table more than once'
    """
    found = []
    if groups is None and time is None:
        copies = int(frame.astype(str).duplicated(keep=False).sum())
        if copies:
            found.append(
                f"{copies} of {len(frame)} rows stand in the table more than once: a copy of a "
                "test row may be trained on. Take copies out, unless they are rows of their own"
            )
    if time is None:
        found += [_in_order(column.name) for column in columns if _is_in_order(frame, column)][:1]
    if groups is None and time is None:
        repeated = [column for column in columns if _is_group(frame, column)]
        for column in repeated[:1]:
            mean = len(frame) / column.distinct
            found.append(
                f"{column.name!r} looks like a group: each of its {column.distinct} values has "
                f"{mean:.1f} rows, of which some are trained and some tested on. If new rows will "
                f"have new values, use --groups {shlex.quote(column.name)}"
            )
    return found


def _in_order(name: str) -> str:
    return (
        f"the rows are in order of {name!r}: split at random, the test says how well gaps are "
        f"filled, not how well the future is predicted. For that use --time {shlex.quote(name)}"
    )


def _is_in_order(frame: pd.DataFrame, column: Column) -> bool:
    if column.kind == "date":
        values = convert(frame[column.name], "date", date_format=column.date_format)[0]
    elif column.kind in ("number", "dropped") and _TIME_NAME.search(column.name.lower()):
        values = convert(frame[column.name], "number", number_format=column.number_format)[0]
    else:
        return False
    values = values.dropna()
    if values.nunique() < max(3, 0.02 * len(frame)):
        return False
    return values.is_monotonic_increasing or values.is_monotonic_decreasing


def _is_group(frame: pd.DataFrame, column: Column) -> bool:
    if column.distinct < 5 or not _GROUP_NAME.search(column.name.lower()):
        return False
    return column.kind in ("number", "category", "dropped") and (
        len(frame) >= _FEWEST_REPEATS * column.distinct
    )


def row_groups(raw: pd.Series) -> np.ndarray:
    """Return the number of each row's group (n,); a row without one is a group of its own.

    Example:

    >>> row_groups(pd.Series(["b", "a", None, "b", None])).tolist()
    [1, 0, 2, 1, 3]
    """
    names = convert(raw, "category")[0]
    numbers = pd.factorize(names, sort=True)[0]
    missing = numbers < 0
    numbers[missing] = numbers.max(initial=-1) + 1 + np.arange(missing.sum())
    return numbers


def row_times(raw: pd.Series, formats: FileFormats, name: str) -> tuple[pd.Series, list[str]]:
    """Return rows' times as numbers (n,), NaN where missing, and what is to be told of them.

    Raises:
        ValueError: the column holds neither dates nor numbers.
    """
    values = typed_values(raw)
    if values.dtype == object:
        present = without_none(values).dropna()
        form, share, _ = find_date_format(present, day_first=formats.day_first)
        form = formats.options.date.get(name) or form
        if share >= SHARE or name in formats.options.date:
            times = convert(raw, "date", date_format=form)[0]
        else:
            times = convert(raw, "number", number_format=formats.number_format(name, values))[0]
    else:
        dates = pd.api.types.is_datetime64_any_dtype(values.dtype)
        times = convert(raw, "date" if dates else "number")[0]
    missing = int(times.isna().sum())
    if missing > 0.5 * len(times):
        example = raw[times.isna()].iloc[0]
        raise ValueError(
            f"`time` must be a column of dates or numbers. Received: {name!r} with {example!r}"
        )
    if not missing:
        return times, []
    return times, [f"{missing} row{'s' * (missing > 1)} left out: they have no time in {name!r}"]
