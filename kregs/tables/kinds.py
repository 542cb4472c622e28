"""Decides what each column of a table is, with the reason and the option that overrides it."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
from typing import Any

import numpy as np
import pandas as pd

from kregs.tables.columns import (
    Column,
    are_booleans,
    convert,
    to_numbers,
    typed_values,
    without_none,
)
from kregs.tables.dates import ISO, find_date_format, format_in_words
from kregs.tables.formats import SHARE, FileFormats
from kregs.tables.numerals import NumberFormat

_ID_NAME = re.compile(r"(^|[_\s.-])(id|uuid|guid)$|[a-z]I[dD]$|^(index|row|rownum|unnamed: 0)$")
_TIME_NAME = re.compile(r"(^|[_\s.-])(year|month|week|day|date|time|hour|quarter|period)s?$|^jahr$")
_ZIP_NAME = re.compile(r"(^|[_\s.-])(zip|plz|zip[_\s-]?code|post(al)?[_\s-]?code)$")
_YEARS = (1800, 2100)


class ColumnReader:
    """Decides what columns are, by what somebody said, by their values and by the whole file.

    Args:
        formats: how the file's numbers and dates are written, and what somebody said.

    Example:

    >>> frame = pd.DataFrame({"colour": ["red", "blue"] * 10})
    >>> ColumnReader(FileFormats(frame)).column("colour", frame["colour"])
    Column(name='colour', kind='category', missing=0, distinct=2, note='text of 2 values')
    """

    def __init__(self, formats: FileFormats) -> None:
        self.formats = formats
        self.options = formats.options

    def column(self, name: str, raw: pd.Series) -> Column:
        """Decide what a column is.

        Args:
            name: its header.
            raw: its values (n,), as a file or a frame gives them.

        Raises:
            ValueError: its numbers are ambiguous, or it is nothing of what somebody said.
        """
        column = self._column(name, raw)
        if name in self.options.keep and self.options.kind(name) is None:
            return dataclasses.replace(column, note=f"{column.note}; kept as asked")
        return column

    def _column(self, name: str, raw: pd.Series) -> Column:
        coded = isinstance(raw.dtype, pd.CategoricalDtype)
        raw = convert(raw, "category")[0] if coded else typed_values(raw)
        present = raw.dropna()
        asked = self.options.kind(name)
        counts: dict[str, Any] = {
            "name": name,
            "missing": len(raw) - len(present),
            "distinct": int(present.nunique()),
        }
        keep, option = f"--keep {shlex.quote(name)}", shlex.quote(name)
        if asked == "dropped":
            return Column(kind="dropped", note="left out as asked", **counts)
        if asked == "number" and are_booleans(without_none(raw).dropna()):
            return Column(kind="boolean", note="true and false are 1 and 0, as asked", **counts)
        if asked == "number":
            return self._number(name, raw, counts, asked=True)
        if asked == "date":
            return self._date(raw, counts, self.options.date[name])
        if asked == "category":
            return _categories(raw, counts, "categories, as asked", "")
        kept = name in self.options.keep
        if not kept and counts["distinct"] == 0:
            note = "dropped: empty"
            return Column(kind="dropped", note=note, override=keep, **counts)
        if not kept and counts["distinct"] == 1 and not counts["missing"]:
            note = f"dropped: constant, {_shown(present.iloc[0])} in every row"
            return Column(kind="dropped", note=note, override=keep, **counts)
        if coded:
            return _categories(raw, counts, "categories in the DataFrame", f"--number {option}")
        if pd.api.types.is_datetime64_any_dtype(raw.dtype):
            drop = f"--drop {option}"
            return Column(kind="date", note="dates in the DataFrame", override=drop, **counts)
        whole = raw.dtype != object and _is_whole(raw)
        if raw.dtype == object and _ZIP_NAME.search(name.lower()):
            whole = bool(present.map(str.isdigit).all())
        if whole and counts["distinct"] > 1 and _ZIP_NAME.search(name.lower()):
            return _categories(raw, counts, "codes, by its name", f"--number {option}")
        if raw.dtype != object or counts["distinct"] == 0:
            return self._number(name, raw, counts, asked=False)
        if are_booleans(without_none(raw).dropna()):
            override = f"--categorical {option}"
            return Column(kind="boolean", note="true or false", override=override, **counts)
        return self._text(name, raw, counts)

    def _text(self, name: str, raw: pd.Series, counts: dict[str, Any]) -> Column:
        option = shlex.quote(name)
        evidence = self.formats.evidence(name, raw)
        present = without_none(raw).dropna()
        reason = ""
        if evidence.share >= SHARE:
            units = evidence.units
            form = None
            if evidence.leading_zeros:
                reason = "codes: digits with zeros in front"
            elif len(units) > 1:
                reason = f"its numbers have different units: {', '.join(units)}"
            else:
                form = self.formats.number_format(name, raw)
            if form is not None:
                share = to_numbers(present, form).notna().mean()
                if share >= SHARE:
                    return self._number(name, raw, counts, asked=False)
                reason = (
                    f"only {_percent(share)} of its values are numbers such as {form.example()}"
                )
            elif not reason:
                reason = "its numbers are written in different ways"
        elif evidence.share >= 0.5:
            reason = f"only {_percent(evidence.share)} of its values are numbers"
        date_format, share, rival = find_date_format(present, day_first=self.formats.day_first)
        if share >= SHARE:
            return self._date(raw, counts, date_format, rival=rival, guessed=True)
        if share >= 0.5:
            words = format_in_words(date_format)
            reason = f"only {_percent(share)} of its values are dates in the order {words}"
        override = f"--drop {option}" if not reason else f"--number {option}"
        if "dates" in reason:
            override = f"--date {option}"
        distinct = int(convert(raw, "category")[0].nunique())
        known = len(raw) - counts["missing"]
        if name not in self.options.keep and distinct > 20 and distinct > known / 2:
            note = f"dropped: {distinct} different values in {known} rows: they hardly repeat"
            note += f"; {reason}" if reason else ""
            override = f"--keep {option}" if not reason else override
            return Column(kind="dropped", note=note, override=override, **counts)
        note = f"text of {distinct} values" + (f"; {reason}" if reason else "")
        return _categories(raw, counts, note, override)

    def _number(self, name: str, raw: pd.Series, counts: dict[str, Any], *, asked: bool) -> Column:
        option = shlex.quote(name)
        form, is_text = NumberFormat(), raw.dtype == object
        if is_text:
            form = self.formats.number_format(name, raw) or form
        elif pd.api.types.is_datetime64_any_dtype(raw.dtype):
            raise ValueError(f"`number` may not hold dates. Received: {name!r}")
        values = without_none(raw)
        numbers = to_numbers(values, form)
        counts["missing"] = int(values.isna().sum())
        counts["distinct"] = int(numbers.nunique())
        misfits = values[values.notna() & numbers.isna()]
        if asked and numbers.notna().sum() == 0:
            example = f": {values.dropna().iloc[0]!r}" if values.notna().any() else ", it is empty"
            raise ValueError(f"`number`: column {name!r} holds no number{example}")
        notes = ["numbers, as asked" if asked else "numbers"]
        override = "" if asked else f"--categorical {option}"
        if not asked and name not in self.options.keep:
            reason = _numbers_the_rows(name, numbers)
            if reason:
                note = f"dropped: {reason}"
                return Column(kind="dropped", note=note, override=f"--keep {option}", **counts)
        if is_text:
            notes += self.formats.writing(name, raw, form)
        if len(misfits):
            notes.append(
                f"{len(misfits)} of {len(values)} values are no numbers and count as missing, "
                f"such as {misfits.iloc[0]!r}"
            )
        infinite = int(np.isinf(numbers).sum())
        if infinite:
            notes.append(f"{infinite} infinite values count as missing")
        return Column(
            kind="number",
            note="; ".join(notes),
            override=override,
            decimal=form.decimal,
            thousands=form.thousands,
            **counts,
        )

    def _date(
        self,
        raw: pd.Series,
        counts: dict[str, Any],
        form: str,
        *,
        rival: str = "",
        guessed: bool = False,
    ) -> Column:
        name = counts["name"]
        option = shlex.quote(name)
        values = without_none(raw)
        notes = ["dates" if guessed else "dates, as asked"]
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            return Column(kind="date", note=notes[0], **counts)
        texts = values.dropna()
        if values.dtype != object:
            texts = texts.map(lambda number: f"{number:.0f}").astype(object)
        order = f" in the order {format_in_words(form)}" if form else ""
        if not form:
            form, _, rival = find_date_format(texts, asked=True, day_first=self.formats.day_first)
        if values.dtype != object and form == ISO:
            form = "%Y%m%d"
        days, wrong = convert(values, "date", date_format=form)
        if days.notna().sum() == 0:
            example = f": {texts.iloc[0]!r}" if len(texts) else ", it is empty"
            raise ValueError(
                f"`date`: column {name!r} holds no date{order}{example}. "
                f"Give the format: --date {shlex.quote(name + '=%d/%m/%Y')}"
            )
        notes[0] += f", {format_in_words(form)}"
        override = f"--categorical {option}" if guessed else ""
        if rival:
            override = f"--date {shlex.quote(f'{name}={rival}')}"
            notes.append(f"no value tells it from {format_in_words(rival)}")
        if wrong:
            example = values[values.notna() & days.isna()].iloc[0]
            notes.append(
                f"{wrong} of {len(values)} values are no such dates and count as missing, such as "
                f"{example!r}"
            )
        counts["missing"] = int(values.isna().sum())
        return Column(
            kind="date", note="; ".join(notes), override=override, date_format=form, **counts
        )


def _categories(raw: pd.Series, counts: dict[str, Any], note: str, override: str) -> Column:
    distinct = int(convert(raw, "category")[0].nunique())
    return Column(kind="category", note=note, override=override, **{**counts, "distinct": distinct})


def _is_whole(raw: pd.Series) -> bool:
    numbers = raw.dropna().to_numpy(dtype=float)
    return bool((numbers == np.round(numbers)).all())


def _numbers_the_rows(name: str, numbers: pd.Series) -> str:
    """Return why a column is a number of the rows, or `""`."""
    if len(numbers) <= 2 or not np.isfinite(numbers).all() or numbers.nunique() < len(numbers):
        return ""
    if not (numbers == numbers.round()).all():
        return ""
    if _ID_NAME.search(name) or _ID_NAME.search(name.lower()):
        return "numbers the rows: another whole number in each, and called an id"
    if _TIME_NAME.search(name.lower()) or numbers.between(*_YEARS).all():
        return ""  # a year
    if set(numbers.diff().dropna()) in ({1.0}, {-1.0}):
        return "numbers the rows, one after the other"
    return ""


def _percent(share: float) -> str:
    return f"{math.floor(100 * share)}%"  # 94.9 % are not 95


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
