"""What a person said about the columns of a table, which comes before what they look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from kregs.tables.dates import check_date_format
from kregs.tables.numerals import DECIMALS, THOUSANDS
from kregs.validation import check_choice, suggestion


@dataclasses.dataclass(frozen=True)
class ColumnOptions:
    """What somebody said about columns.

    Args:
        number, categorical: the columns that are such.
        date: the columns of dates, with their formats or `""`.
        keep: the columns that are not to be dropped, whatever they look like.
        drop: those to be left out.
        decimal, thousands: the marks of numbers that are text; `None` to find out.
        encoding: of the file.

    Example:

    >>> ColumnOptions(number=("zip",)).kind("zip")
    'number'
    """

    number: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    date: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None

    def kind(self, name: str) -> str | None:
        """Return the kind that somebody said a column is, `"dropped"` too; else `None`."""
        kinds = {"number": self.number, "category": self.categorical, "date": self.date}
        kinds["dropped"] = self.drop
        return next((kind for kind, names in kinds.items() if name in names), None)


def column_options(
    *,
    number: Iterable[str] = (),
    categorical: Iterable[str] = (),
    date: Iterable[str] | Mapping[str, str] = (),
    keep: Iterable[str] = (),
    drop: Iterable[str] = (),
    decimal: str | None = None,
    thousands: str | None = None,
    encoding: str | None = None,
) -> ColumnOptions:
    """Check the arguments of `kregs.read_table` that speak of columns, before a file is read.

    Raises:
        TypeError: a list of columns is none, or `encoding` is no word.
        ValueError: a mark is none that numbers have; both are the same; Python knows no such
            encoding.

    Example:

    >>> column_options(date={"since": "%d/%m/%Y"}).date
    {'since': '%d/%m/%Y'}
    """
    check_choice("decimal", decimal, (None, *DECIMALS))
    check_choice("thousands", thousands, (None, *THOUSANDS))
    if decimal is not None and decimal == thousands:
        raise ValueError(
            f"`decimal` and `thousands` must be different marks. Received: {decimal!r} for both"
        )
    if encoding is not None:
        _check_encoding(encoding)
    formats = dict(date) if isinstance(date, Mapping) else dict.fromkeys(_names("date", date), "")
    return ColumnOptions(
        number=_names("number", number),
        categorical=_names("categorical", categorical),
        date=formats,
        keep=_names("keep", keep),
        drop=_names("drop", drop),
        decimal=decimal,
        thousands=thousands,
        encoding=encoding,
    )


def check_columns(
    options: ColumnOptions,
    names: list[str],
    target: str,
    *,
    groups: str | None = None,
    time: str | None = None,
) -> ColumnOptions:
    """Raise if columns that somebody spoke of are not there, or were said to be two things.

    Returns:
        The options, dates given as `"column=format"` taken apart.

    Raises:
        ValueError: as said.

    Example:

    >>> check_columns(ColumnOptions(date={"since=%d/%m/%Y": ""}), ["since", "y"], "y").date
    {'since': '%d/%m/%Y'}
    """
    options = dataclasses.replace(
        options, date=dict(_date_format(*item, names) for item in options.date.items())
    )
    for name, form in options.date.items():
        check_date_format(name, form)
    asked: dict[str, Iterable[str]] = {
        "target": [target],
        "number": options.number,
        "categorical": options.categorical,
        "date": options.date,
        "keep": options.keep,
        "drop": options.drop,
        "groups": [] if groups is None else [groups],
        "time": [] if time is None else [time],
    }
    said: dict[str, str] = {}
    for argument, columns in asked.items():
        for name in columns:
            if name not in names:
                raise ValueError(
                    f"`{argument}` must be a column of the table: {', '.join(names)}. "
                    f"Received: {name!r}.{suggestion(name, names)}"
                )
            if name == target and argument != "target":
                kinds = ("number", "categorical", "date")
                hint = ": say what it is with `task`" if argument in kinds else ""
                raise ValueError(f"`{argument}` may not hold the target{hint}. Received: {name!r}")
            if argument in ("keep", "target", "groups", "time"):
                continue
            if name in said:
                raise ValueError(
                    f"column {name!r} must be one thing. Received: it in `{said[name]}` and in "
                    f"`{argument}`"
                )
            said[name] = argument
    if groups is not None and time is not None:
        raise ValueError(
            f"`groups` and `time` are two ways to divide rows: give one. "
            f"Received: {groups!r} and {time!r}"
        )
    for name in options.keep:
        if name in options.drop:
            raise ValueError(
                f"column {name!r} must be one thing. Received: it in `drop` and in `keep`"
            )
    return options


def _date_format(word: str, form: Any, names: list[str]) -> tuple[str, Any]:
    if word not in names and "=" in word and not form:
        name, _, form = word.partition("=")
        # a name may have an equals sign, too
        if name not in names and "%" in form:
            name = word[: word.index("%")].removesuffix("=")
            form = word[word.index("%") :]
        return name, form
    return word, form


def _names(argument: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"`{argument}` must be a list of columns. Received: {names!r}")
    return tuple(str(name) for name in names)


def _check_encoding(encoding: Any) -> None:
    if not isinstance(encoding, str):
        raise TypeError(f"`encoding` must be a name such as 'cp1252'. Received: {encoding!r}")
    try:
        "".encode(encoding)
    except LookupError:
        raise ValueError(
            f"`encoding` must be one that Python knows, such as 'cp1252' or 'utf-16'. "
            f"Received: {encoding!r}"
        ) from None
