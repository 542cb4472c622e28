"""Numbers written as text: decimal marks, groups of thousands, currencies and percent signs."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

DECIMALS = (".", ",")
THOUSANDS = (",", ".", " ", "'", "none")

_CURRENCY = (
    r"(?:US\$|R\$|[$€£¥₹₽₩₺₪฿]|(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|INR|CNY|SEK|NOK|DKK|PLN|kr|zł)\b)"
)
_NUMBER = re.compile(
    rf"(?P<open>\()?(?P<sign>[+\-−]?)\s*(?P<before>{_CURRENCY})?\s*(?P<later_sign>[+\-−]?)"
    r"(?P<core>\d[\d.,' ]*|[.,]\d+)(?P<exponent>[eE][+-]?\d+)?\s*"
    rf"(?P<after>%|{_CURRENCY})?(?P<close>\))?"
)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "’": "'"})
_GROUPS = {mark: re.compile(rf"[1-9]\d{{0,2}}({re.escape(mark)}\d{{3}})+") for mark in ",. '"}


@dataclasses.dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written.

    Args:
        decimal: `"."` or `","`.
        thousands: what stands between groups of three digits; `""` for nothing.

    Example:

    >>> NumberFormat(",", ".").parse("1.234,5 €"), NumberFormat().parse("1e3")
    (1234.5, 1000.0)
    """

    decimal: str = "."
    thousands: str = ""

    def parse(self, word: str) -> float:
        """Return a number, or NaN for what is none in this format.

        Percent signs and currencies are left out; what stands in brackets is negative.

        Example:

        >>> NumberFormat().parse("46.4%"), NumberFormat().parse("($18.03)")
        (46.4, -18.03)
        """
        parts = _parts(word)
        if parts is None:
            return float(word) if _INFINITE.fullmatch(word) else math.nan
        core = parts["core"].strip()
        whole, mark, fraction = core.partition(self.decimal)
        if self.thousands and self.thousands in whole:
            if not _GROUPS[self.thousands].fullmatch(whole):
                return math.nan
            whole = whole.replace(self.thousands, "")
        digits = f"{whole}.{fraction}" if mark else whole
        if not digits.replace(".", "", 1).isdigit():
            return math.nan
        number = float(digits + (parts["exponent"] or ""))
        negative = "−" in _signs(parts) or "-" in _signs(parts) or parts["open"]
        return -number if negative else number

    def example(self) -> str:
        """Return a number in this format.

        Example:

        >>> NumberFormat(",", ".").example()
        '1.234,5'
        """
        return f"1{self.thousands}234{self.decimal}5"


@dataclasses.dataclass(frozen=True)
class NumberEvidence:
    """What the words of a column say of how its numbers are written.

    Args:
        rows: how many words there are.
        numbers: how many of them are numbers in some format.
        decimals: by mark, a number in which it surely is the decimal one.
        groups: by mark, a number in which it surely separates thousands.
        ambiguous: by mark, a number in which it may be either, as in 1.000.
        units: currencies and percent signs, with how many rows have them.
        trailing_zeros: of the ambiguous marks, those of numbers that end in 0, as no program writes
            decimals beside whole numbers without any.
        plain: the longest whole number of at most three digits; `""` if there is none.
        ungrouped: a whole number of more digits without a mark; `""` if there is none.
        leading_zeros: whether all are digits alone, equally many, with zeros in front of some.
    """

    rows: int
    numbers: int
    decimals: Mapping[str, str]
    groups: Mapping[str, str]
    ambiguous: Mapping[str, str]
    units: Mapping[str, int]
    trailing_zeros: frozenset[str]
    plain: str
    ungrouped: str
    leading_zeros: bool

    @property
    def share(self) -> float:
        """The part of the words that are numbers."""
        return self.numbers / self.rows if self.rows else 0.0


class Ambiguous(ValueError):
    """The numbers of a column can be read in two ways."""


def read_evidence(words: Iterable[str]) -> NumberEvidence:
    """Return what the words, none of them missing, say of the format of their numbers.

    Example:

    >>> evidence = read_evidence(["1.000", "970", "2,5"])
    >>> dict(evidence.decimals), dict(evidence.ambiguous), evidence.plain
    ({',': '2,5'}, {'.': '1.000'}, '970')
    """
    counts = collections.Counter(words)
    decimals: dict[str, str] = {}
    groups: dict[str, str] = {}
    ambiguous: dict[str, str] = {}
    units: collections.Counter[str] = collections.Counter()
    trailing_zeros = set()
    plain = ungrouped = ""
    numbers = 0
    for word, count in counts.items():
        parts = _parts(word)
        if parts is None:
            numbers += count if _INFINITE.fullmatch(word) else 0
            continue
        core = parts["core"].strip()
        if core.isdigit():
            if len(core) <= 3:
                plain = max(plain, core, key=len)
            elif not parts["exponent"]:
                ungrouped = ungrouped or word
        else:
            role = _marks(core, bool(parts["exponent"]))
            if role is None:
                continue
            for found, mark in zip((decimals, groups, ambiguous), role, strict=True):
                if mark:
                    found.setdefault(mark, word)
            if core.endswith("0"):
                trailing_zeros.add(role[2])
        numbers += count
        unit = parts["before"] or parts["after"]
        if unit:
            units[unit] += count
    lengths = {len(word) for word in counts}
    zeros = len(lengths) == 1 and lengths != {1} and all(word.isdigit() for word in counts)
    return NumberEvidence(
        rows=sum(counts.values()),
        numbers=numbers,
        decimals=decimals,
        groups=groups,
        ambiguous=ambiguous,
        units=units,
        trailing_zeros=frozenset(trailing_zeros),
        plain=plain,
        ungrouped=ungrouped,
        leading_zeros=zeros and any(word.startswith("0") for word in counts),
    )


def find_number_format(
    evidence: NumberEvidence,
    *,
    delimiter: str = ",",
    file_decimal: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
) -> NumberFormat | None:
    """Return how a column's numbers are written; `None` if they contradict each other.

    A mark that may be either, as in 1.000, is what it surely is elsewhere in the column, unless
    other columns contradict it, then what it surely is in those. Where nothing says so, the decimal
    mark is a comma in files with semicolons, a point in others, and the other mark separates
    thousands if it does so in every number. Numbers that have the decimal mark and three digits
    behind it, or nothing, as 1.000 and 970, are thousands in files with semicolons if some end in
    0; otherwise they are ambiguous.

    Args:
        evidence: of the column.
        delimiter: of the file's fields.
        file_decimal: the one decimal mark that other columns of the file surely have.
        decimal, thousands: as somebody has said.

    Raises:
        Ambiguous: it cannot be known.

    Example:

    >>> evidence = read_evidence(["1.000", "1.030", "970"])
    >>> find_number_format(evidence, delimiter=";")
    NumberFormat(decimal=',', thousands='.')
    """
    if decimal is not None or thousands is not None:
        return _format_as_asked(evidence, decimal, thousands)
    if len(evidence.decimals) > 1 or len(evidence.groups) > 1:
        return None
    sure_decimal = next(iter(evidence.decimals), None)
    sure_groups = next(iter(evidence.groups), None)
    if sure_decimal is not None and sure_decimal == sure_groups:
        return None
    if (
        sure_decimal is not None
        and sure_decimal in evidence.ambiguous
        and file_decimal not in (None, sure_decimal)
    ):
        raise Ambiguous(
            f"{_either(evidence.ambiguous[sure_decimal])}: {evidence.decimals[sure_decimal]!r} has "
            f"decimals, and the decimal mark of other columns is {file_decimal!r}"
        )
    open_marks = {
        mark: word
        for mark, word in evidence.ambiguous.items()
        if mark not in (sure_decimal, sure_groups)
    }
    if len(open_marks) > 1:
        raise Ambiguous(_either(*open_marks.values()))
    if not open_marks:
        return _completed(sure_decimal, sure_groups)
    ((mark, word),) = open_marks.items()
    if sure_decimal is not None:
        return None if sure_groups else NumberFormat(sure_decimal, mark)
    if sure_groups is not None:
        return NumberFormat(mark, sure_groups)
    semicolons = delimiter == ";"
    expected = file_decimal or ("," if semicolons else ".")
    if mark == expected:
        # decimal fractions of three digits beside whole numbers look like thousands, too
        padded = mark in evidence.trailing_zeros
        like_thousands = bool(evidence.plain and padded and not evidence.ungrouped)
        either = semicolons or mark == ","
        if like_thousands and either:
            return NumberFormat("," if mark == "." else ".", mark)
        if either and (evidence.plain or evidence.ungrouped):
            raise Ambiguous(f"{_either(word)} beside {evidence.ungrouped or evidence.plain!r}")
        if like_thousands and len(evidence.plain) == 3:
            raise Ambiguous(f"{_either(word)} beside {evidence.plain!r}")
        return NumberFormat(mark)
    if evidence.ungrouped:
        raise Ambiguous(f"{_either(word)}, and {evidence.ungrouped!r} has no such mark")
    return NumberFormat(expected, mark)


def _format_as_asked(
    evidence: NumberEvidence, decimal: str | None, thousands: str | None
) -> NumberFormat:
    groups = "" if thousands in (None, "none") else thousands or ""
    if decimal is None:
        marks = [mark for mark in (*evidence.decimals, *evidence.ambiguous) if mark != groups]
        decimal = {",": ".", ".": ","}.get(groups) or next(iter(marks), ".")
    if thousands is None:
        others = [
            mark for mark in (*evidence.groups, *evidence.ambiguous) if mark and mark != decimal
        ]
        groups = next(iter(others), "")
    return NumberFormat(decimal, groups)


def _completed(decimal: str | None, thousands: str | None) -> NumberFormat:
    if decimal is None:
        decimal = "," if thousands == "." else "."
    return NumberFormat(decimal, thousands or "")


def _either(*words: str) -> str:
    listed = " and ".join(repr(word) for word in words)
    return f"the mark in {listed} may separate thousands or decimals"


def _parts(word: str) -> re.Match[str] | None:
    parts = _NUMBER.fullmatch(word.translate(_SPACES).strip())
    if parts is None:
        return None
    two = parts["before"] and parts["after"]
    brackets = bool(parts["open"]) != bool(parts["close"])
    return None if two or brackets or len(_signs(parts)) > 1 else parts


def _signs(parts: re.Match[str]) -> str:
    return parts["sign"] + parts["later_sign"]


def _marks(core: str, exponent: bool) -> tuple[str, str, str] | None:
    """Return the decimal mark, that of thousands, and one that may be either; `None`: no number."""
    marks = [mark for mark in ".,' " if mark in core]
    if len(marks) > 2:
        return None
    last = max(core.rfind("."), core.rfind(","))
    if len(marks) == 2 or marks[0] in "' ":
        decimal = core[last] if last >= 0 else ""
        thousands = next(mark for mark in marks if mark != decimal)
        whole = core[:last] if decimal else core
        if core.count(decimal or "#") > 1 or not _GROUPS[thousands].fullmatch(whole):
            return None
        return decimal, thousands, ""
    (mark,) = marks
    if core.count(mark) > 1:
        return ("", mark, "") if _GROUPS[mark].fullmatch(core) else None
    if _GROUPS[mark].fullmatch(core) and not exponent:
        return "", "", mark
    if core.endswith(","):
        return None
    return mark, "", ""
