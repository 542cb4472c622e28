"""Parts of a page: tables whose cells are text, and figures as pictures within the page."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.tables import format_value

_DPI = 160


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell: what is shown, and the number by which rows are sorted, if it is another."""

    text: str
    value: str | None = None


@dataclasses.dataclass(frozen=True)
class PageTable:
    """A table: the names of its columns, and rows of as many cells."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure as an address that holds it, what it shows in words, and what stands below it."""

    address: str
    alt: str
    caption: str = ""


def table_of(rows: Iterable[Mapping[str, Any]]) -> PageTable | None:
    """Return rows, all with the same names, as a table; `None` without any."""
    rows = list(rows)
    if not rows:
        return None
    return table_of_columns({name: [row[name] for row in rows] for name in rows[0]})


def table_of_columns(columns: Mapping[str, Sequence[Any]]) -> PageTable:
    """Return columns of values as a table.

    Example:

    >>> table_of_columns({"trial": [3], "score": [0.123456]}).rows
    ((Cell(text='3', value=None), Cell(text='0.1235', value='0.123456')),)
    """
    cells = [[_cell(value) for value in values] for values in columns.values()]
    return PageTable(tuple(map(str, columns)), tuple(zip(*cells, strict=True)))


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    text = format_cell(value)
    # what was rounded to be shown is sorted by what it is
    return Cell(text, repr(float(value)) if isinstance(value, float) and text != "–" else None)


def format_cell(value: Any) -> str:
    """Return a value as a table shows it; what is absent is a dash.

    Example:

    >>> format_cell([1, 2]), format_cell(float("nan")), format_cell("<b>")
    ('1, 2', '–', '<b>')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_cell, value)) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {format_cell(part)}" for name, part in value.items()) or "none"
    return "–" if pd.isna(value) else format_value(value)


def picture_of(figure: Figure, alt: str, caption: str = "") -> Picture:
    """Draw a figure as PNG.

    Args:
        figure: drawn now, and not needed any more.
        alt: what it shows, for those who do not see it.
        caption: below it.
    """
    buffer = io.BytesIO()
    # without the version of matplotlib, so that one result gives one page
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    code = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Picture(f"data:image/png;base64,{code}", alt, caption)
