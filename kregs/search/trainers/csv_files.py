"""CSV logs of runs that train together: each writes a file of its own, moved where it belongs."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from kregs.files import atomic_path


class CsvFiles:
    """Lets runs that train at once write one file as if they had been trained one by one.

    All trials of a search have one `CSVLogger(filename)`, and with several open at once the lines
    of one file would be torn. Each run writes into a folder until it ends.

    Example:

    >>> files = CsvFiles()
    >>> logger = keras.callbacks.CSVLogger("log.csv")
    >>> files.set_aside([logger])
    >>> logger.filename == "log.csv"
    False
    """

    def __init__(self) -> None:
        self._folder: str | None = None
        self._given: dict[str, str] = {}
        self._count = 0

    def set_aside(self, callbacks: Iterable[Any]) -> None:
        """Let the CSV loggers of a run that begins write elsewhere."""
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.CSVLogger):
                if self._folder is None:
                    self._folder = tempfile.mkdtemp(prefix="kregs-")
                    weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
                self._count += 1
                name = os.path.join(self._folder, f"{self._count}.csv")
                self._given[name] = callback.filename
                callback.filename = name

    def put_back(self, callbacks: Iterable[Any]) -> None:
        """Write what the CSV loggers of a run that has ended have written to their files."""
        for callback in callbacks:
            given = self._given.pop(getattr(callback, "filename", ""), None)
            if given is None:
                continue
            written = Path(callback.filename)
            callback.filename = given
            if not written.exists():  # a callback before it has raised
                continue
            text = written.read_bytes()
            written.unlink()
            target = Path(given)
            if callback.append and target.exists() and target.stat().st_size:
                with target.open("ab") as file:  # which has its header
                    file.write(text.partition(b"\n")[2])
            else:
                with atomic_path(target) as temporary:
                    temporary.write_bytes(text)
