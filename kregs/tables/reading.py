"""Reads a CSV or Parquet file into a DataFrame: its delimiter, header and decimal commas."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

DECIMAL_COMMAS = "kregs: columns with decimal commas"  # of a frame's attrs

_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(,\d{3}|\.\d+)")  # of English numbers, for sure
_QUOTED_FIELD = re.compile(r'(^|[,;\t|]) *"([^"]|"")*"')


def read_frame(data: Any) -> pd.DataFrame:
    """Read a CSV or Parquet file as it is: all fields of a CSV are text.

    Decimal commas of a CSV become points; `attrs[DECIMAL_COMMAS]` lists the columns with some.

    Args:
        data: as in `kregs.read_table`.

    Returns:
        A `DataFrame` with text as headers and rows numbered from 0.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: as `kregs.read_table`.

    Example:

    >>> read_frame(pd.DataFrame({1: [0.5]}, index=["a"])).columns.tolist()
    ['1']
    """
    if isinstance(data, pd.DataFrame):
        frame = data.reset_index(drop=True)  # pd.concat repeats row labels
        frame.columns = [str(name) for name in frame.columns]
        _check_header(list(frame.columns), "the DataFrame")
        return frame
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(
            "`data` must be a CSV file, a Parquet file or a pandas DataFrame. "
            f"Received: {type(data).__name__}"
        )
    path = Path(data)
    if not path.is_file():
        raise FileNotFoundError(f"`data` must be a file. {str(path)!r} is not there, or no file")
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            return read_frame(pd.read_parquet(path))
        except ImportError as error:
            raise ImportError(
                f"reading {str(path)!r} needs the package pyarrow: pip install pyarrow"
            ) from error
    return _read_csv(path)


def _read_csv(path: Path) -> pd.DataFrame:
    rows: list[list[str]] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            delimiter = _delimiter(file.read(1 << 16))
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, repr(str(path)))
            for row in reader:
                if len(row) != len(header):
                    if not row:  # a blank line
                        continue
                    raise ValueError(
                        f"{str(path)!r}, line {reader.line_num}: expected {len(header)} fields, "
                        f"as in the header. Received: {len(row)}"
                    )
                rows.append(row)
    except csv.Error as error:
        raise ValueError(f"{str(path)!r}, line {reader.line_num}: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} is not UTF-8 text (byte {error.object[error.start]:#04x}): save it as "
            "UTF-8"
        ) from None
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    if delimiter != ",":
        frame.attrs[DECIMAL_COMMAS] = _read_decimal_commas(frame)
    return frame


def _delimiter(text: str) -> str:
    """Return what separates the fields of a file's first line: what is quoted does not count."""
    lines = _QUOTED_FIELD.sub(r"\1", text).splitlines()
    return max(",;\t|", key=lines[0].count if lines else ",".count)


def _read_decimal_commas(frame: pd.DataFrame) -> list[str]:
    """Write the decimal commas of a file's numbers as points, in place; return the columns.

    A column with numbers such as 1,234.5 or 1,234,567 is left alone: its commas are no decimal
    ones.
    """
    changed = []
    for name in frame:
        fields = [field.strip() for field in frame[name]]
        numbers = [bool("," in field and _DECIMAL_COMMA.fullmatch(field)) for field in fields]
        if any(numbers) and not any("," in field and _THOUSANDS.match(field) for field in fields):
            frame[name] = pd.Series(
                [
                    field.replace(",", ".") if is_number else field
                    for field, is_number in zip(fields, numbers, strict=True)
                ],
                dtype=object,
            )
            changed.append(str(name))
    return changed


def _check_header(header: list[str], place: str) -> None:
    if not any(header):
        raise ValueError(f"{place} has no header: is it empty?")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{place} has several columns named {repeated[0]!r}")
