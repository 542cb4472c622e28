"""What each column of a table is (number, boolean, date, category), and its values as such."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any

import numpy as np
import pandas as pd

MISSING_CATEGORY = "(missing)"
BOOLEANS = {"true": 1.0, "false": 0.0}

_MISSING = frozenset({"", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_EXACT = 2.0**53  # integers below are exact as floats
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}.*)?$")
_NUMBER_SHARE = 0.95  # a text column with so many numbers is one of numbers, with a few mistakes
_MOST_CATEGORIES = 50  # of one column
_CATEGORY_SHARE = 0.01  # of the rows: rarer categories are encoded alike


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: its header.
        kind: `"number"`, `"boolean"`, `"date"` (days since 1970), `"category"`, or `"dropped"`.
        missing: how many values are missing.
        distinct: how many different values there are.
        note: why it was dropped, or what was changed in it; may be empty.

    Example:

    >>> Column("age", "number", missing=3, distinct=41)
    Column(name='age', kind='number', missing=3, distinct=41, note='')
    """

    name: str
    kind: str
    missing: int
    distinct: int
    note: str = ""


def typed_values(raw: pd.Series) -> pd.Series:
    """Return numbers and dates as they are, all else as text, `None` where missing.

    Example:

    >>> typed_values(pd.Series([" a ", "?", True])).tolist()
    ['a', None, 'True']
    """
    dtype = raw.dtype
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
        return raw.astype("Float64").astype(float)
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return raw
    return pd.Series([_word(value) for value in raw], index=raw.index, dtype=object, name=raw.name)


def convert(raw: pd.Series, kind: str) -> tuple[pd.Series, int]:
    """Return a column in the form that its kind has, and how many values had another form.

    These, and infinite numbers, become missing.

    Args:
        raw: the column (n,) as a file or a frame gives it.
        kind: the column's, as in `Column`.

    Returns:
        The values (n,): floats, or text for categories; and the count.

    Example:

    >>> values, misfits = convert(pd.Series(["1.5", "?", "old"]), "number")
    >>> values.tolist(), misfits
    ([1.5, nan, nan], 1)
    """
    if kind == "number" and pd.api.types.is_bool_dtype(raw.dtype):
        raw = raw.astype("boolean").astype("Float64")
    raw = typed_values(raw)
    present = raw.notna()
    if kind == "category":
        words = [_category_name(value) for value in raw]
        return pd.Series(words, index=raw.index, dtype=object, name=raw.name), 0
    if kind == "date":
        numbers = _days_since_1970(raw)
    elif kind == "boolean" and raw.dtype == object:
        numbers = raw.map(lambda word: BOOLEANS.get(str(word).lower(), math.nan)).astype(float)
        numbers = numbers.fillna(to_numbers(raw))
    else:
        numbers = to_numbers(raw)
    values = numbers.where(np.isfinite(numbers), math.nan)
    return values, int((present & values.isna()).sum())


def _word(value: Any) -> str | None:
    """Return a value as a file has it, `None` where missing: 3.0 is '3'."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(value)
    word = str(value).strip()
    return None if word in _MISSING else word


def _category_name(value: Any) -> str | None:
    """Return a value as a category's name: '3.0' is '3', 'true' is 'True', as in a DataFrame."""
    word = _word(value)
    if word is None:
        return None
    if word.lower() in BOOLEANS:
        return word.capitalize()
    if _NUMBER.fullmatch(word) and abs(float(word)) < _EXACT:
        return _word(float(word))
    return word


def to_numbers(raw: pd.Series) -> pd.Series:
    """Return the values as floats, NaN for what is no number.

    Example:

    >>> to_numbers(pd.Series(["1e3", None, "x"])).tolist()
    [1000.0, nan, nan]
    """
    return pd.to_numeric(raw, errors="coerce").astype(float)


def _days_since_1970(raw: pd.Series) -> pd.Series:
    if raw.dtype == object:
        raw = raw.where(raw.map(lambda word: word is not None and bool(_DATE.match(word))), None)
    elif pd.api.types.is_numeric_dtype(raw.dtype):  # no dates at all
        return pd.Series(math.nan, index=raw.index)
    dates = pd.to_datetime(raw, errors="coerce", utc=True, format="ISO8601")
    dates = dates.dt.as_unit("us")  # nanoseconds end in the year 2262
    return (dates - pd.Timestamp(0, tz="UTC").as_unit("us")) / pd.Timedelta(days=1).as_unit("us")


def describe_column(name: str, raw: pd.Series, *, coded: bool, unwanted: bool) -> Column:
    """Decide what a column is.

    Args:
        name: its header.
        raw: what `typed_values` made of it (n,).
        coded: whether its numbers are codes of categories.
        unwanted: whether the user left it out.

    Example:

    >>> raw = typed_values(pd.Series(["red", "blue"] * 10))
    >>> describe_column("colour", raw, coded=False, unwanted=False)
    Column(name='colour', kind='category', missing=0, distinct=2, note='')
    """
    present = raw.dropna()
    counts: dict[str, Any] = {
        "name": name,
        "missing": len(raw) - len(present),
        "distinct": int(present.nunique()),
    }
    if unwanted:
        return Column(kind="dropped", note="left out as asked", **counts)
    if counts["distinct"] == 0:
        return Column(kind="dropped", note="dropped: empty", **counts)
    if counts["distinct"] == 1 and not counts["missing"]:
        return Column(kind="dropped", note="dropped: constant", **counts)
    if coded:
        return _category_column(raw, counts)
    if raw.dtype != object:
        if pd.api.types.is_datetime64_any_dtype(raw.dtype):
            return Column(kind="date", **counts)
        return _number_column(to_numbers(raw), counts)
    if are_booleans(present):
        return Column(kind="boolean", **counts)
    numbers = to_numbers(present)
    if numbers.notna().mean() >= _NUMBER_SHARE:
        return _number_column(to_numbers(raw), counts, misfits=present[numbers.isna()])
    if _days_since_1970(present).notna().all():
        return Column(kind="date", **counts)
    return _category_column(raw, counts)


def _number_column(numbers: pd.Series, counts: dict[str, Any], misfits: Any = ()) -> Column:
    finite = np.isfinite(numbers)
    if len(numbers) > 2 and finite.all() and counts["distinct"] == len(numbers):
        integers = bool((numbers == numbers.round()).all())
        evenly_spaced = numbers.diff().dropna().nunique() == 1
        called_id = re.search(r"(^|_| )id$", counts["name"].lower())
        if integers and (evenly_spaced or called_id):
            return Column(kind="dropped", note="dropped: numbers the rows", **counts)
    note = ""
    infinite = int(np.isinf(numbers).sum())
    if len(misfits):
        note = f"{len(misfits)} of {len(numbers)} values are no numbers and count as missing, "
        note += f"such as {misfits.iloc[0]!r}"
    elif infinite:
        note = f"{infinite} infinite values count as missing"
    return Column(kind="number", note=note, **counts)


def _category_column(raw: pd.Series, counts: dict[str, Any]) -> Column:
    present = convert(raw, "category")[0].dropna()
    counts["distinct"] = int(present.nunique())
    hardly_repeat = counts["distinct"] > 20 and counts["distinct"] > len(present) / 2
    if hardly_repeat or not frequent_categories(present):
        return Column(kind="dropped", note="dropped: its values hardly repeat", **counts)
    return Column(kind="category", **counts)


def are_booleans(present: pd.Series) -> bool:
    """Whether the values, none of them missing, are all the words true or false.

    Example:

    >>> are_booleans(pd.Series(["True", "false"], dtype=object))
    True
    """
    return present.dtype == object and bool(present.str.lower().isin(BOOLEANS).all())


def frequent_categories(words: pd.Series) -> list[str]:
    """Return the categories that get a column of their own, sorted; missing may be one of them.

    Example:

    >>> frequent_categories(pd.Series(["b", "a", "b", None, None]))
    ['(missing)', 'b']
    """
    fewest = max(2, math.ceil(_CATEGORY_SHARE * len(words)))
    rows = words.fillna(MISSING_CATEGORY).value_counts()
    return sorted(rows[rows >= fewest].index[:_MOST_CATEGORIES])
