"""Predictions on raw rows, read from a file or a frame, by the pipeline that a run saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.files import PREPROCESSING_FILE
from kregs.search.storage import MODEL_FILE
from kregs.tables.columns import Column, convert
from kregs.tables.reading import read_frame
from kregs.tables.record import read_run_record
from kregs.tasks import class_probabilities
from kregs.validation import suggestion

if TYPE_CHECKING:
    import keras

_BATCH_ROWS = 1024  # per call of the network


def predict_table(run: str | os.PathLike[str], rows: Any) -> pd.DataFrame:
    """Predict on raw rows with the pipeline that `tune_table` saved.

    The rows may hold more columns, in any order. Missing values and categories that were never
    seen are as in training; values of the wrong kind count as missing, with a warning.

    Args:
        run: the run's folder. It holds a joblib file, which can run code: load your own only.
        rows: a CSV or Parquet file or a `DataFrame`.

    Returns:
        One row per row. For classes: `prediction` and `probability_<class>` for each; for numbers:
        `prediction`.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: the folder holds no run of `tune_table`, the file is broken, or columns are
            missing.

    Example: see `kregs.tune_table`, whose run it predicts with.
    """
    folder = Path(run)
    record = read_run_record(folder)
    columns = [Column(**column) for column in record["columns"]]
    features = read_rows(rows, columns)

    import joblib
    import keras

    classes = record["classes"]
    names = ["prediction", *(f"probability_{label}" for label in classes or [])]
    if features.empty:
        return pd.DataFrame(columns=names)
    preprocessing = joblib.load(folder / PREPROCESSING_FILE)
    import kregs.layers  # noqa: F401  (what the file may hold)

    model = keras.models.load_model(folder / MODEL_FILE)
    outputs = network_outputs(model, preprocessing.transform(features))
    if classes is None:
        units = record["target_units"]
        return pd.DataFrame({"prediction": outputs[:, 0] * units["sd"] + units["mean"]})
    probabilities = class_probabilities(outputs)
    frame = pd.DataFrame(probabilities, columns=names[1:])
    frame.insert(0, "prediction", np.array(classes)[probabilities.argmax(axis=1)])
    return frame


def read_rows(data: Any, columns: Iterable[Column]) -> pd.DataFrame:
    """Read rows to be predicted, in the form of `Table.features`.

    Args:
        data: as in `read_table`; other columns, also the target, are ignored.
        columns: those that the model was trained on.

    Raises:
        FileNotFoundError, ImportError, TypeError: as `kregs.read_table`.
        ValueError: columns are missing, or the file is broken.

    Warns:
        UserWarning: values that do not fit their column's kind count as missing.

    Example:

    >>> rows = pd.DataFrame({"size": ["1.5", "?"], "name": ["a", "b"]})
    >>> read_rows(rows, [Column("size", "number", missing=0, distinct=9)]).to_dict("list")
    {'size': [1.5, nan]}
    """
    frame = read_frame(data)
    columns = [column for column in columns if column.kind != "dropped"]
    absent = [column.name for column in columns if column.name not in frame]
    if absent:
        others = set(frame.columns) - {column.name for column in columns}
        raise ValueError(
            f"the rows lack {'column' if len(absent) == 1 else 'columns'} "
            f"{', '.join(map(repr, absent))}, which the model was trained on."
            f"{suggestion(absent[0], others) if len(absent) == 1 else ''}"
        )
    converted = {}
    for column in columns:
        converted[column.name], misfits = convert(frame[column.name], column.kind)
        if misfits:
            warnings.warn(
                f"column {column.name!r}: {misfits} of {len(frame)} values are no {column.kind} "
                "and count as missing",
                stacklevel=3,
            )
    return pd.DataFrame(converted).reset_index(drop=True)


def network_outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return what a network makes of transformed rows (n, features): (n, outputs), float64.

    Example:

    >>> import keras
    >>> network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> network_outputs(network, np.ones((4, 2))).shape
    (4, 3)
    """
    return model.predict(x.astype("float32"), batch_size=_BATCH_ROWS, verbose=0).astype(np.float64)
