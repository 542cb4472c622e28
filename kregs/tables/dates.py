"""Dates written as text: which format a column has, and days since 1970."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd

from kregs.validation import in_words

ISO = "ISO"  # the format of 2026-01-31 and 2026-01-31T12:30Z

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{1,2}:\d{2}.*)?")
_TIME = (
    r"(?:[ T,]+(?P<time>\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)\s*(?P<half>[AaPp])?\.?(?:[Mm]\.?)?)?"
)
_NUMERIC = re.compile(rf"(?P<date>(\d{{1,4}})([-/.])\d{{1,2}}\3(\d{{1,4}})){_TIME}")
_NAMED = re.compile(
    r"(?P<date>\d{1,2}[-. ]+[A-Za-z]{3,9}\.?[-, ]+\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4})" + _TIME
)
_NAMED_FORMATS = ("%d %b %Y", "%b %d %Y", "%d %b %y")
# of numbers with a mark between, the usual order of the mark first
_ORDERS = {
    "/": ("%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%m/%d/%y", "%d/%m/%y"),
    ".": ("%d.%m.%Y", "%m.%d.%Y", "%Y.%m.%d", "%d.%m.%y"),
    "-": ("%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y", "%m-%d-%y"),
}
_COMPACT = ("%Y%m%d", "%Y")  # only where somebody says that they are dates
_WORDS = {"%d": "day", "%m": "month", "%Y": "year", "%y": "year", "%b": "month"}


def find_date_format(
    words: pd.Series, *, asked: bool = False, day_first: bool = False
) -> tuple[str, float, str]:
    """Return the format that fits most dates, the part of the words it fits, and a rival.

    Args:
        words: text, nothing missing (n,).
        day_first: whether 09/01/2023 is in January, if no value tells.
        asked: whether somebody said that these are dates: years and 20260131 are some, then.

    Returns:
        A format of `strftime` or `ISO`, the part, and a format with the other order of day and
        month that fits as well, or `""`.

    Example:

    >>> find_date_format(pd.Series(["09/13/2023", "09/01/2023"]))
    ('%m/%d/%Y', 1.0, '')
    >>> find_date_format(pd.Series(["09/01/2023"]))
    ('%m/%d/%Y', 1.0, '%d/%m/%Y')
    """
    counts = words.value_counts()
    texts = pd.Series(counts.index.astype(str), dtype=object)
    shares = {}
    for form in _candidates(texts.iloc[0], asked) if len(texts) else ():
        fits = days_since_1970(texts, form).notna().to_numpy()
        shares[form] = float(counts.to_numpy()[fits].sum() / len(words))
    if not shares:
        return ISO, 0.0, ""
    # a column may begin with a mistake
    if max(shares.values()) < 0.5 and len(texts) > 1:
        for form in _candidates(texts.iloc[-1], asked):
            fits = days_since_1970(texts, form).notna().to_numpy()
            shares[form] = float(counts.to_numpy()[fits].sum() / len(words))
    best = max(shares, key=lambda form: shares[form])
    rivals = [
        form
        for form, share in shares.items()
        if form != best and share == shares[best] and sorted(form) == sorted(best)
    ]
    rival = rivals[0] if rivals else ""
    if day_first and rival.startswith("%d"):
        best, rival = rival, best
    return best, shares[best], rival


def _candidates(word: str, asked: bool) -> tuple[str, ...]:
    if _ISO.fullmatch(word):
        return (ISO,)
    numeric = _NUMERIC.fullmatch(word)
    if numeric:
        return _ORDERS[numeric[3]]
    if _NAMED.fullmatch(word):
        return _NAMED_FORMATS
    return _COMPACT if asked else (ISO,)


def check_date_format(column: str, form: Any) -> None:
    """Raise `TypeError` or `ValueError` unless dates can be read by a format; `""`: find it out.

    Example:

    >>> check_date_format("since", "%d/%m/%Y")
    """
    expected = f"`date` must have a format such as '%d/%m/%Y' for column {column!r}"
    if not isinstance(form, str):
        raise TypeError(f"{expected}. Received: {in_words(form)}")
    if form in ("", ISO):
        return
    if "%" not in form:
        raise ValueError(f"{expected}. Received: {form!r}")
    try:
        pd.to_datetime(pd.Series(["-"]), errors="coerce", format=form)
    except ValueError as error:
        raise ValueError(f"{expected}. Received: {form!r}, {error}") from None


def days_since_1970(raw: pd.Series, form: str = ISO) -> pd.Series:
    """Return dates as days since 1970, with fractions for times; NaN for what is no date.

    Args:
        raw: dates of pandas, or text, `None` where missing (n,).
        form: the format of text, of `strftime`, or `ISO`.

    Example:

    >>> days_since_1970(pd.Series(["02/01/1970 06:00 PM", "x"]), "%d/%m/%Y").tolist()
    [1.75, nan]
    """
    if pd.api.types.is_datetime64_any_dtype(raw.dtype):
        return _days(pd.to_datetime(raw, utc=True))
    if pd.api.types.is_numeric_dtype(raw.dtype):
        if form == ISO:  # no dates at all
            return pd.Series(math.nan, index=raw.index)
        raw = raw.map(lambda number: None if math.isnan(number) else f"{number:.0f}").astype(object)
    if form == ISO:
        return _iso_days(raw)
    days = _days(pd.to_datetime(raw, errors="coerce", utc=True, format=form))
    rest = days.isna() & raw.notna()
    if not rest.any():
        return days
    # times beside the date, names of months in full; and what is ISO is a date in every column
    dates, fractions = zip(*(_split(word) for word in raw[rest]), strict=True)
    texts = pd.Series(dates, index=raw.index[rest], dtype=object)
    split = _days(pd.to_datetime(texts, errors="coerce", utc=True, format=form))
    days[rest] = (split + np.array(fractions)).fillna(_iso_days(raw[rest]))
    return days


def _iso_days(raw: pd.Series) -> pd.Series:
    is_date = raw.map(lambda word: word is not None and bool(_ISO.fullmatch(word))).astype(bool)
    texts = raw.where(is_date, None)
    return _days(pd.to_datetime(texts, errors="coerce", utc=True, format="ISO8601"))


def _days(dates: pd.Series) -> pd.Series:
    dates = dates.dt.as_unit("us")  # nanoseconds end in the year 2262
    return (dates - pd.Timestamp(0, tz="UTC").as_unit("us")) / pd.Timedelta(days=1).as_unit("us")


def _split(word: str) -> tuple[str | None, float]:
    """Return the date of a word, `None` if its time is none, and the time as a part of the day."""
    parts = _NUMERIC.fullmatch(word) or _NAMED.fullmatch(word)
    if parts is None:
        return word, 0.0
    date = parts["date"]
    if any(letter.isalpha() for letter in date):
        date = " ".join(part[:3] if part.isalpha() else part for part in re.split(r"[-,. ]+", date))
    if not parts["time"]:
        return date, 0.0
    hours, minutes, *seconds = (float(part) for part in parts["time"].split(":"))
    if hours >= 24 or minutes >= 60:
        return None, 0.0
    if parts["half"]:
        hours = hours % 12 + (12 if parts["half"].lower() == "p" else 0)
    return date, (hours + minutes / 60 + sum(seconds) / 3600) / 24


def format_in_words(form: str) -> str:
    """Return a date format as people read it.

    Example:

    >>> format_in_words("%d/%m/%Y"), format_in_words("ISO")
    ('day/month/year', 'year-month-day')
    """
    if form == ISO:
        return "year-month-day"
    if form == "%Y%m%d":
        return "year, month, day as in 20260131"
    for code, word in _WORDS.items():
        form = form.replace(code, word)
    return form
