"""`table.json`: what a run on a table saves beside its network, so that it predicts on raw rows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kregs.files import PREPROCESSING_FILE
from kregs.search.storage import MODEL_FILE

TABLE_FILE = "table.json"
FORMAT = 1  # of table.json


def read_run_record(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is in the `table.json` of a finished run.

    Args:
        run: the run's folder.

    Raises:
        FileNotFoundError, ValueError: as `kregs.predict_table`.

    Example:

    >>> read_run_record("nowhere")
    Traceback (most recent call last):
        ...
    FileNotFoundError: `run` must be the folder of a run on a table. 'nowhere' is not there, or no \
folder
    """
    folder = Path(run)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`run` must be the folder of a run on a table. {str(folder)!r} is not there, or no "
            "folder"
        )
    for name in (TABLE_FILE, PREPROCESSING_FILE, MODEL_FILE):
        if not (folder / name).is_file():
            raise ValueError(
                f"{str(folder)!r} holds no finished run of kregs.tune_table: there is no {name}"
            )
    try:
        record = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(folder / TABLE_FILE)!r} cannot be read as JSON: {error}") from None
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{str(folder / TABLE_FILE)!r} has format {record.get('format')!r}; this version of "
            f"kregs reads {FORMAT}"
        )
    return record
