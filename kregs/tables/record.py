"""`table.json`: what a run on a table saves beside its network, so that it predicts on raw rows."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kregs.files import PREPROCESSING_FILE, TABLE_FILE
from kregs.search.storage import MODEL_FILE

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


def call_of(table: Any, arguments: Mapping[str, Any]) -> str:
    """Return the call of `kregs.tune_table` that repeats a run.

    Args:
        table: the `Table`.
        arguments: other arguments of the call.

    Example:

    >>> import pandas as pd
    >>> from kregs.tables.table import read_table
    >>> frame = pd.DataFrame({"x": [0.5, 2.5] * 20, "y": [0, 1] * 20})
    >>> print(call_of(read_table(frame, "y", drop=[]), {"seed": 0}))
    kregs.tune_table(
        data,
        'y',
        task='classification',
        seed=0,
    )
    """
    options = table.options
    said = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    said = {name: value for name, value in said.items() if value}
    said = {
        name: list(value) if isinstance(value, tuple) else value for name, value in said.items()
    }
    said |= {"groups": table.groups_name, "time": table.time_name}
    said = {"task": table.task, **said, **arguments}
    lines = [repr(table.source) if table.source else "data", repr(table.target_name)]
    # of these None is not the default
    meant = ("max_time", "folds")
    lines += [
        f"{name}={value!r}"
        for name, value in said.items()
        if value is not None or (name in meant and name in arguments)
    ]
    return "\n".join(["kregs.tune_table(", *(f"    {line}," for line in lines), ")"])
