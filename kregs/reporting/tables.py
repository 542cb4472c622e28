"""Numbers, durations and tables as text."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from kregs.reporting.console import make_console


def format_value(value: Any) -> str:
    """Return a hyperparameter or score in few characters.

    Example:

    >>> format_value(0.000123456), format_value(0.25), format_value(64), format_value(True)
    ('1.23e-04', '0.25', '64', 'yes')
    """
    if value is None:
        return "-"
    if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool"):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if not isinstance(value, numbers.Real):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return "-"
    if number != 0 and not 1e-3 <= abs(number) < 1e5:
        return f"{number:.2e}"
    return f"{number:.4g}"


def format_values(values: Mapping[str, Any]) -> str:
    """Return named values in one line.

    Example:

    >>> format_values({"l2": 1e-5, "dropout": 0.5})
    'l2=1.00e-05, dropout=0.5'
    """
    return ", ".join(f"{name}={format_value(value)}" for name, value in values.items())


def format_duration(seconds: float) -> str:
    """Return a duration in its two largest units.

    Example:

    >>> format_duration(0.4), format_duration(75), format_duration(7300)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def make_table(frame: pd.DataFrame, *, title: str | None = None, rows: int | None = None) -> Table:
    """Return a DataFrame as a table for `rich.print`.

    Args:
        frame: one table row per row, one column per column; the index is left out.
        title: above the table.
        rows: show only so many of the first rows; `None` for all.

    Returns:
        A `rich.table.Table`; numbers are right-aligned. Names and values are text, no markup.

    Example:

    >>> table = make_table(pd.DataFrame({"trial": [3, 1], "score": [0.1, 0.25]}), rows=1)
    >>> len(table.columns), table.row_count
    (2, 1)
    """
    table = Table(title=None if title is None else Text(title), title_justify="left")
    for name, kind in frame.dtypes.items():
        is_number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
        table.add_column(Text(str(name)), justify="right" if is_number else "left")
    for row in frame.head(len(frame) if rows is None else rows).itertuples(index=False):
        table.add_row(*(Text(format_value(value)) for value in row))
    return table


def print_table(frame: pd.DataFrame, *, title: str | None = None) -> None:
    """Print a DataFrame as `make_table` lays it out.

    Example:

    >>> print_table(pd.DataFrame({"l2[0]": [1]}))
    ┏━━━━━━━┓
    ┃ l2[0] ┃
    ┡━━━━━━━┩
    │     1 │
    └───────┘
    """
    make_console(highlight=False).print(make_table(frame, title=title))
