"""Predictions on raw rows, read from a file or a frame, by the pipeline that a run saved."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.files import PREPROCESSING_FILE
from kregs.search.storage import MODEL_FILE
from kregs.tables.columns import Column, convert, to_numbers, typed_values, without_none
from kregs.tables.formats import FileFormats
from kregs.tables.numerals import NumberFormat
from kregs.tables.options import ColumnOptions, column_options
from kregs.tables.reading import DELIMITER, read_frame
from kregs.tables.record import read_run_record
from kregs.tasks import class_probabilities
from kregs.validation import suggestion

if TYPE_CHECKING:
    import keras

_BATCH_ROWS = 1024  # per call of the network


def predict_table(
    run: str | os.PathLike[str],
    rows: Any,
    *,
    keep: Iterable[str] = (),
    encoding: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
) -> pd.DataFrame:
    """Predict on raw rows with the pipeline that `tune_table` saved.

    The rows may hold more columns, in any order. Missing values and categories that were never
    seen are as in training; values of the wrong kind count as missing. A warning tells of these
    and of unseen categories.

    Args:
        run: the run's folder. It holds a joblib file, which can run code: load your own only.
        rows: a CSV or Parquet file or a `DataFrame`.
        keep: columns of the rows, such as an identifier, that stand before the predictions as they
            are.
        encoding, decimal, thousands: of the rows' file, as in `kregs.read_table`. Default: as in
            training, where the rows are written so.

    Returns:
        One row per row, with the index of `rows`. For classes: `prediction` and
        `probability_<class>` for each; for numbers: `prediction`.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: the folder holds no run of `tune_table`, a file is broken, or columns are
            missing.

    Example: see `kregs.tune_table`, whose run it predicts with.
    """
    folder = Path(run)
    record = read_run_record(folder)
    columns = [Column(**column) for column in record["columns"]]
    encoding = encoding or record.get("encoding")
    options = column_options(keep=keep, encoding=encoding, decimal=decimal, thousands=thousands)
    frame = read_frame(rows, encoding, argument="rows")
    features = read_rows(frame, columns, options=options, seen=record.get("categories"))
    classes = record["classes"]
    names = ["prediction", *(f"probability_{label}" for label in classes or [])]
    kept = _kept_columns(frame, options.keep, names)
    if features.empty:
        outputs = pd.DataFrame({name: pd.Series(dtype=float) for name in names})
        return pd.concat([kept, outputs.set_index(kept.index)], axis=1)
    preprocessing, model = load_pipeline(folder)
    outputs = network_outputs(model, preprocessing.transform(features))
    if classes is None:
        units = record["target_units"]
        predictions = pd.DataFrame({"prediction": outputs[:, 0] * units["sd"] + units["mean"]})
    else:
        probabilities = class_probabilities(outputs)
        predictions = pd.DataFrame(probabilities, columns=names[1:])
        predictions.insert(0, "prediction", np.array(classes)[probabilities.argmax(axis=1)])
    return pd.concat([kept, predictions.set_index(kept.index)], axis=1)


def load_pipeline(folder: Path) -> tuple[Any, keras.Model]:
    """Return the fitted transformer and the network that a run's folder holds.

    Raises:
        ValueError: a file cannot be read.
    """
    import joblib

    preprocessing = _loaded(joblib.load, folder / PREPROCESSING_FILE)
    import keras

    import kregs.layers  # noqa: F401  (what the file may hold)

    return preprocessing, _loaded(keras.models.load_model, folder / MODEL_FILE)


def _loaded(load: Callable[[Path], Any], path: Path) -> Any:
    try:
        return load(path)
    except Exception as error:  # what a broken file makes them raise can be anything
        raise ValueError(
            f"{str(path)!r} cannot be read: it is broken, or was written by other versions of "
            f"the packages that table.json names ({type(error).__name__}: {_short(error)}). "
            "Run kregs tune table again"
        ) from error


def _short(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else f"{words[:200]}..."


def _kept_columns(frame: pd.DataFrame, keep: tuple[str, ...], names: list[str]) -> pd.DataFrame:
    for name in keep:
        if name not in frame:
            raise ValueError(
                f"`keep` must be columns of the rows: {', '.join(frame.columns)}. "
                f"Received: {name!r}.{suggestion(name, frame.columns)}"
            )
        if name in names:
            raise ValueError(
                f"`keep` may not hold a column that the predictions have, too. Received: {name!r}"
            )
    return frame[list(dict.fromkeys(keep))]


def read_rows(
    data: Any,
    columns: Iterable[Column],
    *,
    options: ColumnOptions | None = None,
    seen: Mapping[str, list[str]] | None = None,
) -> pd.DataFrame:
    """Read rows to be predicted, in the form of `Table.features`.

    Args:
        data: as in `read_table`; other columns, also the target, are ignored.
        columns: those that the model was trained on.
        options: encoding and marks of numbers, if somebody said them.
        seen: the categories of columns that were trained on; others are told.

    Raises:
        FileNotFoundError, ImportError, TypeError: as `kregs.read_table`.
        ValueError: columns are missing, numbers are ambiguous, or the file is broken.

    Warns:
        UserWarning: values that do not fit their column's kind count as missing, or were never
            seen.

    Example:

    >>> rows = pd.DataFrame({"size": ["1.5", "?"], "name": ["a", "b"]})
    >>> read_rows(rows, [Column("size", "number", missing=0, distinct=9)]).to_dict("list")
    {'size': [1.5, nan]}
    """
    options = options or ColumnOptions()
    frame = read_frame(data, options.encoding)
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
        form = _number_format(frame, column, options)
        converted[column.name], misfits = convert(
            frame[column.name], column.kind, number_format=form, date_format=column.date_format
        )
        if misfits:
            warnings.warn(
                f"column {column.name!r}: {misfits} of {len(frame)} values are no {column.kind} "
                "and count as missing",
                stacklevel=3,
            )
        known = (seen or {}).get(column.name)
        if column.kind == "category" and known is not None:
            _tell_unseen(column.name, converted[column.name].dropna(), known)
    return pd.DataFrame(converted, index=frame.index)


def _tell_unseen(name: str, words: pd.Series, known: list[str]) -> None:
    unseen = words[~words.isin(set(known))]
    if len(unseen):
        examples = ", ".join(map(repr, unseen.unique()[:3].tolist()))
        warnings.warn(
            f"column {name!r}: {len(unseen)} of {len(words)} values were never seen in training, "
            f"such as {examples}: they say nothing to the model",
            stacklevel=4,
        )


def _number_format(frame: pd.DataFrame, column: Column, options: ColumnOptions) -> NumberFormat:
    """Return how a column's numbers are written: as in training, if all of them can be read so."""
    form = column.number_format
    if column.kind != "number" or options.decimal is not None or options.thousands is not None:
        asked = options.decimal is not None or options.thousands is not None
        return _found_format(frame, column, options, form) if asked else form
    values = without_none(typed_values(frame[column.name]))
    if values.dtype != object or to_numbers(values.dropna(), form).notna().all():
        return form
    return _found_format(frame, column, options, form)


def _found_format(
    frame: pd.DataFrame, column: Column, options: ColumnOptions, form: NumberFormat
) -> NumberFormat:
    values = typed_values(frame[column.name])
    if column.kind != "number" or values.dtype != object:
        return form
    formats = FileFormats(frame[[column.name]], options, frame.attrs.get(DELIMITER, ","))
    found = formats.number_format(column.name, values) or form
    # words among numbers, as in training, do not change how these are written
    present = without_none(values).dropna()
    better = to_numbers(present, found).notna().sum() > to_numbers(present, form).notna().sum()
    asked = options.decimal is not None or options.thousands is not None
    return found if better or asked else form


def network_outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Return what a network makes of transformed rows (n, features): (n, outputs), float64.

    Example:

    >>> import keras
    >>> network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> network_outputs(network, np.ones((4, 2))).shape
    (4, 3)
    """
    return model.predict(x.astype("float32"), batch_size=_BATCH_ROWS, verbose=0).astype(np.float64)
