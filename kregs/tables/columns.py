"""The columns of a table: their values as numbers, dates, booleans or categories."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from kregs.tables.dates import ISO, days_since_1970
from kregs.tables.numerals import NumberFormat

MISSING_CATEGORY = "(missing)"
BOOLEANS = {"true": 1.0, "false": 0.0}

_MISSING = frozenset({"", "?", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "<NA>"})
NONE = "None"  # missing where the others are numbers or dates, else a word like any other
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_EXACT = 2.0**53  # integers below are exact as floats


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: its header.
        kind: `"number"`, `"boolean"`, `"date"` (days since 1970), `"category"`, or `"dropped"`.
        missing: how many values are missing.
        distinct: how many different values there are.
        note: why it is of this kind, and what was changed in it.
        override: the option of `kregs tune table` that makes something else of it.
        decimal, thousands: the marks of its numbers where they are text.
        date_format: of its dates where they are text: `"ISO"`, or as in `strftime`.

    Example:

    >>> Column("age", "number", missing=3, distinct=41)
    Column(name='age', kind='number', missing=3, distinct=41, note='')
    """

    name: str
    kind: str
    missing: int
    distinct: int
    note: str = ""
    override: str = dataclasses.field(default="", repr=False)
    decimal: str = dataclasses.field(default=".", repr=False)
    thousands: str = dataclasses.field(default="", repr=False)
    date_format: str = dataclasses.field(default=ISO, repr=False)

    @property
    def number_format(self) -> NumberFormat:
        """How its numbers are written where they are text."""
        return NumberFormat(self.decimal, self.thousands)


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
    return _mapped(raw, _word)


def convert(
    raw: pd.Series,
    kind: str,
    *,
    number_format: NumberFormat | None = None,
    date_format: str = ISO,
) -> tuple[pd.Series, int]:
    """Return a column in the form that its kind has, and how many values had another form.

    These, and infinite numbers, become missing.

    Args:
        raw: the column (n,) as a file or a frame gives it.
        kind: the column's, as in `Column`.
        number_format, date_format: of what is text.

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
    if kind == "category":
        return _mapped(raw, _category_name), 0
    raw = without_none(raw)
    present = raw.notna()
    if kind == "date":
        numbers = days_since_1970(raw, date_format)
    elif kind == "boolean" and raw.dtype == object:
        numbers = raw.map(lambda word: BOOLEANS.get(str(word).lower(), math.nan)).astype(float)
        numbers = numbers.fillna(to_numbers(raw))
    else:
        numbers = to_numbers(raw, number_format)
    values = numbers.where(np.isfinite(numbers), math.nan)
    return values, int((present & values.isna()).sum())


def without_none(raw: pd.Series) -> pd.Series:
    """Return what `typed_values` made, the word None counted as missing.

    Example:

    >>> without_none(pd.Series(["1", "None"], dtype=object)).tolist()
    ['1', None]
    """
    return raw if raw.dtype != object else raw.where(raw != NONE, None)


def _mapped(raw: pd.Series, function: Callable[[Any], str | None]) -> pd.Series:
    """Apply a function to every value, to a word that repeats once only."""
    words: dict[str, str | None] = {}
    values = []
    for value in raw:
        if type(value) is str:
            if value not in words:
                words[value] = function(value)
            values.append(words[value])
        else:  # 1, 1.0 and True would be one key
            values.append(function(value))
    return pd.Series(values, index=raw.index, dtype=object, name=raw.name)


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
    if _PLAIN_NUMBER.fullmatch(word) and abs(float(word)) < _EXACT:
        return _word(float(word))
    return word


def to_numbers(raw: pd.Series, number_format: NumberFormat | None = None) -> pd.Series:
    """Return the values as floats, NaN for what is no number.

    Args:
        raw: numbers, or text (n,).
        number_format: of text. Default: as Python writes numbers.

    Example:

    >>> to_numbers(pd.Series(["1e3", None, "x"])).tolist()
    [1000.0, nan, nan]
    >>> to_numbers(pd.Series(["$1,000", "x"]), NumberFormat(".", ",")).tolist()
    [1000.0, nan]
    """
    if number_format is None or pd.api.types.is_numeric_dtype(raw.dtype):
        return pd.to_numeric(raw, errors="coerce").astype(float)
    numbers = {word: number_format.parse(word) for word in raw.dropna().unique()}
    return raw.map(numbers).astype(float)


def are_booleans(present: pd.Series) -> bool:
    """Whether the values, none of them missing, are all the words true or false.

    Example:

    >>> are_booleans(pd.Series(["True", "false"], dtype=object))
    True
    """
    return present.dtype == object and bool(present.str.lower().isin(BOOLEANS).all())
