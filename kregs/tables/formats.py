"""How the numbers and dates of a file are written, and what was said of it."""

from __future__ import annotations

import shlex

import numpy as np
import pandas as pd

from kregs.tables.columns import to_numbers, typed_values, without_none
from kregs.tables.numerals import (
    Ambiguous,
    NumberEvidence,
    NumberFormat,
    find_number_format,
    read_evidence,
)
from kregs.tables.options import ColumnOptions

SHARE = 0.95  # of a text column: so many numbers or dates make it one of these, with mistakes


class FileFormats:
    """How the numbers and dates of a file are written: what one column says serves the others.

    Args:
        frame: the table as it was read (n, columns).
        options: what somebody said.
        delimiter: of the file's fields.

    Example:

    >>> frame = pd.DataFrame({"x": ["1.500", "20"], "z": ["0,5", "1,25"]})
    >>> FileFormats(frame, delimiter=";").number_format("x", frame["x"])
    NumberFormat(decimal=',', thousands='.')
    """

    def __init__(
        self, frame: pd.DataFrame, options: ColumnOptions | None = None, delimiter: str = ","
    ) -> None:
        self.options = options or ColumnOptions()
        self.delimiter = delimiter
        self._evidence: dict[str, NumberEvidence] = {}
        self._decimals = self._sure_decimals(frame)

    def _sure_decimals(self, frame: pd.DataFrame) -> dict[str, str]:
        """Return the decimal mark of each column in which it is sure."""
        decimals = {}
        for column in frame:
            name = str(column)
            if frame[column].dtype.kind in "biufcmM":
                continue
            if self.options.kind(name) in (None, "number"):
                evidence = self.evidence(name, frame[column])
                if evidence.share >= SHARE and len(evidence.decimals) == 1:
                    (decimals[name],) = evidence.decimals
        return decimals

    def _decimal_beside(self, name: str) -> str | None:
        """Return the one decimal mark that is sure in other columns, or `None`."""
        marks = {mark for other, mark in self._decimals.items() if other != name}
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
                file_decimal=self._decimal_beside(name),
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
            if to_numbers(values.dropna(), candidate).notna().mean() >= SHARE:
                return candidate
        return None

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


def _other_option(form: NumberFormat, mark: str) -> str:
    if mark == form.decimal:
        return f"thousands {shlex.quote(mark)}"
    return f"decimal {shlex.quote(mark)}" if mark in ",." else "thousands none"
