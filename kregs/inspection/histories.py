"""Training histories, in whatever form they are at hand, as one table a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kregs.validation import in_words

RUN_COLUMNS = ("fold", "seed", "run")  # of a history that holds several runs


def split_runs(history: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield each run of a history, which has a column of `RUN_COLUMNS` if there are several.

    Example:

    >>> history = pd.DataFrame({"epoch": [1, 2, 1], "fold": [0, 0, 1], "loss": [3.0, 2.0, 3.0]})
    >>> [len(run) for run in split_runs(history)]
    [2, 1]
    """
    keys = [name for name in RUN_COLUMNS if name in history]
    if not keys:
        yield history
        return
    for _, run in history.groupby(keys, sort=False, dropna=False):
        yield run


def mean_curve(curves: Sequence[pd.Series]) -> pd.Series:
    """Return the mean by epoch of one metric's curves, in which a run that ended stays as it ended.

    A mean of only those that still train would jump wherever one stops. It is NaN where one is.

    Example:

    >>> first, second = pd.Series([3.0, 1.0], index=[1, 2]), pd.Series([5.0], index=[1])
    >>> mean_curve([first, second]).tolist()
    [4.0, 3.0]
    """
    if len(curves) == 1:
        return curves[0]
    epochs = sorted(set().union(*(curve.index for curve in curves)))
    padded = []
    for curve in curves:
        longer = curve.reindex(epochs)
        longer[longer.index > curve.index.max()] = curve.iloc[-1]
        padded.append(longer)
    return pd.concat(padded, axis=1).mean(axis=1, skipna=False)


def read_history(history: Any) -> pd.DataFrame:
    """Return a history as a table of numbers, one row an epoch (of a run, if there are several).

    Args:
        history: a `keras.callbacks.History`, its dictionary of lists, a table as
            `keras.callbacks.CSVLogger` writes it, or as `SearchResult.history` returns it.

    Returns:
        Its metrics that are one number an epoch, and `fold` and `seed` where they are there. What
        was validated every few epochs only is NaN in the others. Where `epoch` begins anew, as in
        a CSVLogger's file that was appended to, a column `run` counts the trainings from 1.

    Raises:
        TypeError: it is none of these.
        ValueError: it is empty, has no loss, or its lists do not fit to each other.

    Example:

    >>> read_history({"loss": [2.0, 1.0, 0.5, 0.4], "val_loss": [1.5, 1.0]})["val_loss"].tolist()
    [nan, 1.5, nan, 1.0]
    """
    values = history
    if not isinstance(history, (Mapping, pd.DataFrame)):
        values = getattr(history, "history", None)  # of Keras's callback
        if callable(values):
            raise TypeError(
                "`history` must be one training's: of a search, pass result.history(trial). "
                f"Received: {in_words(history)}"
            )
    if not isinstance(values, (Mapping, pd.DataFrame)):
        raise TypeError(
            "`history` must be what `fit` returned, a dictionary of lists, or a DataFrame with one "
            f"row an epoch, such as pandas.read_csv of a CSVLogger's file. "
            f"Received: {in_words(history)}"
        )
    table = values.copy() if isinstance(values, pd.DataFrame) else _table_of(values)
    if not len(table):
        raise ValueError("`history` must hold the epochs of a training. Received: none")
    if "loss" not in table and "data_loss" not in table:
        raise ValueError(
            "`history` must have a `loss` in it, one number an epoch. "
            f"Received: {', '.join(map(str, table.columns)) or 'no metric'}"
        )
    losses = [name for name in ("loss", "data_loss", "val_loss", "val_data_loss") if name in table]
    try:
        table[losses] = table[losses].astype(float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`history` must hold numbers. Received: {error}") from None
    if "epoch" in table and not any(name in table for name in RUN_COLUMNS):
        begins = pd.to_numeric(table["epoch"], errors="coerce").diff() <= 0
        if begins.any():
            table["run"] = 1 + begins.cumsum()
    return table


def _table_of(values: Mapping[str, Any]) -> pd.DataFrame:
    """Return a dictionary of lists as a table; metrics that are arrays are left out."""
    columns: dict[str, Any] = {}
    for name, entries in values.items():
        if isinstance(entries, str) or not hasattr(entries, "__len__"):
            raise ValueError(
                f"`history` must have a list of one number an epoch for each metric. "
                f"Received: {name}={entries!r}"
            )
        if all(np.ndim(entry) == 0 for entry in entries):
            columns[name] = list(entries)
    epochs = max(map(len, columns.values()), default=0)
    for name, entries in columns.items():
        if len(entries) == epochs:
            continue
        every = epochs // max(len(entries), 1)  # Keras's `validation_freq`
        if not name.startswith("val_") or epochs // every != len(entries):
            raise ValueError(
                f"`history` must have equally many epochs of each metric. Received: {epochs}, and "
                f"{len(entries)} of {name!r}"
            )
        spread = np.full(epochs, np.nan)
        spread[every - 1 :: every] = entries
        columns[name] = spread
    return pd.DataFrame(columns)
