"""Decides what each column of a table is, with the reason and the option that overrides it."""

from __future__ import annotations

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
from kregs.tables.numerals import (
    Ambiguous,
    NumberEvidence,
    NumberFormat,
    find_number_format,
    read_evidence,
)
from kregs.tables.options import ColumnOptions

_SHARE = 0.95  # of a text column: so many numbers or dates make it one of these, with mistakes
_ID_NAME = re.compile(r"(^|[_\s.-])(id|uuid|guid)$|[a-z]I[dD]$|^(index|row|rownum|unnamed: 0)$")
_TIME_NAME = re.compile(r"(^|[_\s.-])(year|month|week|day|date|time|hour|quarter|period)s?$|^jahr$")
_ZIP_NAME = re.compile(r"(^|[_\s.-])(zip|plz|zip[_\s-]?code|post(al)?[_\s-]?code)$")
_YEARS = (1800, 2100)


class ColumnReader:
    """Decides what columns are, by what somebody said, by their values and by the whole file.

    Args:
        frame: the table as it was read (n, columns).
        options: what somebody said.
        delimiter: of the file's fields.

    Example:

    >>> frame = pd.DataFrame({"colour": ["red", "blue"] * 10})
    >>> ColumnReader(frame, ColumnOptions()).column("colour", frame["colour"])
    Column(name='colour', kind='category', missing=0, distinct=2, note='text of 2 values')
    """

    def __init__(self, frame: pd.DataFrame, options: ColumnOptions, delimiter: str = ",") -> None:
        self.options = options
        self.delimiter = delimiter
        self._evidence: dict[str, NumberEvidence] = {}
        self.file_decimal = self._decimal_of(frame)

    def _decimal_of(self, frame: pd.DataFrame) -> str | None:
        """Return the one decimal mark that is sure in some column, or `None`."""
        marks: set[str] = set()
        for name in frame:
            if frame[name].dtype.kind in "biufcmM":
                continue
            if self.options.kind(str(name)) in (None, "number"):
                evidence = self.evidence(str(name), frame[name])
                if evidence.share >= _SHARE and len(evidence.decimals) == 1:
                    marks |= set(evidence.decimals)
        return marks.pop() if len(marks) == 1 else None

    @property
    def day_first(self) -> bool:
        """Whether 09/01/2023 is taken for a day in January: in files with semicolons."""
        return self.delimiter == ";"

    def evidence(self, name: str, raw: pd.Series) -> NumberEvidence:
        """Return what the words of a column say of its numbers, which is found out once."""
        if name not in self._evidence:
            values = without_none(typed_values(raw))
            present = values.dropna() if values.dtype == object else []
            self._evidence[name] = read_evidence(present)
        return self._evidence[name]

    def number_format(self, name: str, raw: pd.Series) -> NumberFormat | None:
        """Return how the numbers of a column that is text are written; `None` if in two ways.

        Raises:
            ValueError: it cannot be known: the message names the options that say it.
        """
        evidence = self.evidence(name, raw)
        try:
            form = find_number_format(
                evidence,
                delimiter=self.delimiter,
                file_decimal=self.file_decimal,
                decimal=self.options.decimal,
                thousands=self.options.thousands,
            )
        except Ambiguous as error:
            raise ValueError(
                f"column {name!r} is ambiguous: {error}. Say which: `thousands` or `decimal` "
                "(--thousands MARK for the mark between thousands, --decimal MARK for the decimal "
                f"mark; --drop {shlex.quote(name)} leaves the column out)"
            ) from None
        if form is not None:
            return form
        values = without_none(raw.astype(object))
        for candidate in (NumberFormat(".", ","), NumberFormat(",", ".")):
            if to_numbers(values.dropna(), candidate).notna().mean() >= _SHARE:
                return candidate
        return None

    def column(self, name: str, raw: pd.Series) -> Column:
        """Decide what a column is.

        Args:
            name: its header.
            raw: its values (n,), as a file or a frame gives them.

        Raises:
            ValueError: its numbers are ambiguous, or it is nothing of what somebody said.
        """
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
        evidence = self.evidence(name, raw)
        present = without_none(raw).dropna()
        reason = ""
        if evidence.share >= _SHARE:
            units = evidence.units
            form = None
            if evidence.leading_zeros:
                reason = "codes: digits with zeros in front"
            elif len(units) > 1:
                reason = f"its numbers have different units: {', '.join(units)}"
            else:
                form = self.number_format(name, raw)
            if form is not None:
                share = to_numbers(present, form).notna().mean()
                if share >= _SHARE:
                    return self._number(name, raw, counts, asked=False)
                reason = f"only {share:.0%} of its values are numbers such as {form.example()}"
            elif not reason:
                reason = "its numbers are written in different ways"
        elif evidence.share >= 0.5:
            reason = f"only {evidence.share:.0%} of its values are numbers"
        date_format, share, rival = find_date_format(present, day_first=self.day_first)
        if share >= _SHARE:
            return self._date(raw, counts, date_format, rival=rival, guessed=True)
        if share >= 0.5:
            words = format_in_words(date_format)
            reason = f"only {share:.0%} of its values are dates in the order {words}"
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
            form = self.number_format(name, raw) or form
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
            notes += self.writing(name, raw, form)
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

    def writing(self, name: str, raw: pd.Series, form: NumberFormat) -> list[str]:
        """Say how numbers that are text were read, where it is not as Python writes them."""
        evidence = self.evidence(name, raw)
        notes = []
        for mark, word in {**evidence.ambiguous, **evidence.groups, **evidence.decimals}.items():
            if mark == form.decimal == ".":
                continue
            number = form.parse(word)
            if np.isfinite(number):
                what = "decimal" if mark == form.decimal else "thousands"
                marks = {",": "commas", ".": "points", " ": "spaces", "'": "apostrophes"}
                sure = evidence.decimals if what == "decimal" else evidence.groups
                other = "" if mark in sure else f" (else --{_other_option(form, mark)})"
                notes.append(f"{what} {marks[mark]}: {word} is {number:.15g}{other}")
        for unit, count in evidence.units.items():
            lack = evidence.numbers - count
            notes.append(f"without the sign {unit}" + (f", which {lack} lack" if lack else ""))
        return notes

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
            form, _, rival = find_date_format(texts, asked=True, day_first=self.day_first)
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


def _other_option(form: NumberFormat, mark: str) -> str:
    if mark == form.decimal:
        return f"thousands {shlex.quote(mark)}"
    return f"decimal {shlex.quote(mark)}" if mark in ",." else "thousands none"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else str(value)
