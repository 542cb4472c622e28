"""Reads a CSV or Parquet file into a DataFrame: its encoding, delimiter and header."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

DELIMITER = "kregs: delimiter"  # of a frame's attrs

_PACKED = {"gzip": b"\x1f\x8b", "zip": b"PK\x03\x04", "bzip2": b"BZh", "xz": b"\xfd7zXZ"}
_QUOTED_FIELD = re.compile(r'(^|[,;\t|]) *"([^"]|"")*"')


def read_frame(data: Any, encoding: str | None = None, *, argument: str = "data") -> pd.DataFrame:
    """Read a CSV or Parquet file as it is: all fields of a CSV are text.

    Args:
        data: as in `kregs.read_table`.
        encoding: of a CSV. Default: UTF-8.
        argument: what `data` is called where somebody passed it.

    Returns:
        A `DataFrame` with text as headers and, of a file, rows numbered from 0.
        `attrs[DELIMITER]` is what separates the fields of a CSV.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: as `kregs.read_table`.

    Example:

    >>> read_frame(pd.DataFrame({1: [0.5]}, index=["a"])).columns.tolist()
    ['1']
    """
    if isinstance(data, pd.DataFrame):
        frame = data.copy(deep=False)
        frame.columns = [str(name) for name in frame.columns]
        _check_header(list(frame.columns), "the DataFrame")
        return frame
    if not isinstance(data, (str, os.PathLike)):
        raise TypeError(
            f"`{argument}` must be a CSV file, a Parquet file or a pandas DataFrame. "
            f"Received: {type(data).__name__}"
        )
    path = Path(data)
    if not path.is_file():
        raise FileNotFoundError(
            f"`{argument}` must be a file. {str(path)!r} is not there, or no file"
        )
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            return read_frame(pd.read_parquet(path))
        except ImportError as error:
            raise ImportError(
                f"reading {str(path)!r} needs the package pyarrow: pip install pyarrow"
            ) from error
    return _read_csv(path, encoding)


def _read_csv(path: Path, encoding: str | None) -> pd.DataFrame:
    rows: list[list[str]] = []
    packed = _packing(path)
    if packed:
        raise ValueError(f"{str(path)!r} is compressed by {packed}: unpack it first")
    try:
        with open(path, newline="", encoding=encoding or "utf-8-sig") as file:
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
    except UnicodeError as error:
        byte = ""
        if isinstance(error, UnicodeDecodeError):
            byte = f" (byte {error.object[error.start]:#04x})"
        raise ValueError(
            f"{str(path)!r} is not {encoding or 'UTF-8'} text{byte}: name its `encoding` "
            "(--encoding cp1252, say, of Windows in the West, or utf-16), or save it as UTF-8"
        ) from None
    frame = pd.DataFrame(rows, columns=header, dtype=object)
    frame.attrs[DELIMITER] = delimiter
    return frame


def _packing(path: Path) -> str | None:
    """Return what a file was compressed by, as its first bytes tell; `None`: it is not."""
    with open(path, "rb") as file:
        first = file.read(6)
    return next((name for name, mark in _PACKED.items() if first.startswith(mark)), None)


def _delimiter(text: str) -> str:
    """Return what separates the fields of a file's first line: what is quoted does not count."""
    lines = _QUOTED_FIELD.sub(r"\1", text).splitlines()
    return max(",;\t|", key=lines[0].count if lines else ",".count)


def _check_header(header: list[str], place: str) -> None:
    if not any(header):
        raise ValueError(f"{place} has no header: is it empty?")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{place} has several columns named {repeated[0]!r}")
