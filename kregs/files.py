"""Files that are there whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# beside a model that was trained on what a scikit-learn transformer makes of the rows
PREPROCESSING_FILE = "preprocessing.joblib"
TABLE_FILE = "table.json"  # beside a model that was trained on a table

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(OSError):
    """There is no space left for a file: what was written before is kept."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that the disk, or a quota on it, is full.

    HDF5 and TensorFlow raise errors of their own, which have the reason in their words only.

    Example:

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(OSError("a"))
    (True, False)
    """
    if isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in _FULL):
        return True
    return any(os.strerror(number) in str(error) for number in _FULL)


def disk_full(path: str | os.PathLike[str]) -> DiskFull:
    """Return the error to raise where a file does not fit on the disk."""
    return DiskFull(
        f"No space left on device for {os.fspath(path)!r}: make room and go on with resume=True; "
        "what was finished is kept"
    )


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to `path` when the block ends well.

    If the block raises, the temporary file is removed and `path` stays as it was. The temporary
    name keeps all suffixes, since Keras chooses a format by them.

    Args:
        path: the file to be written; its folder must exist.

    Raises:
        DiskFull: there was no space left.
        OSError: the file cannot be written, or `path` is a folder.

    Example:

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp(), "a.txt")
    >>> with atomic_path(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "There is a folder of that name", os.fspath(path))
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, DiskFull):
            raise disk_full(path) from error
        if isinstance(error, OSError) and error.filename == os.fspath(temporary):
            # nobody knows the temporary name
            raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:
    """Write a JSON file atomically; NaN and infinities, which JSON lacks, become `null`.

    Args:
        path: the file to be written.
        value: dictionaries, lists, strings, numbers (NumPy's too), booleans and `None`.
        indent: as in `json.dumps`; `None` for one line.

    Raises:
        TypeError: `value` holds something else.
    """
    write_text(path, json.dumps(_plain(value), indent=indent, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, without importing NumPy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
