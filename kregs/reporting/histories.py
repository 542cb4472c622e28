"""The runs of a trial's history, and how far validation lies above training in each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

RUN_COLUMNS = ("fold", "seed")  # of a history that holds several runs


def split_runs(history: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield each run of a history, which has a column `fold` or `seed` if there are several.

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


def loss_with_both_sides(history: pd.DataFrame) -> str | None:
    """Return the loss that was logged both in training and in validation.

    Returns:
        `"data_loss"`, else `"loss"`, which contains the penalties; `None` without either.

    Example:

    >>> loss_with_both_sides(pd.DataFrame({"loss": [1.0], "val_loss": [1.5]}))
    'loss'
    """
    return next(
        (name for name in ("data_loss", "loss") if {name, f"val_{name}"} <= set(history)), None
    )


def measure_gap(
    history: pd.DataFrame,
    loss: str,
    scores: pd.DataFrame | None,
    *,
    objective: str,
    direction: str,
    last_epoch: bool = False,
) -> float:
    """Return how far validation lies above training at the epochs a trial is scored at.

    Args:
        history: columns `epoch`, `loss` and the same with `val_`, and `fold` and `seed` if there
            are several runs.
        loss: the metric.
        scores: one row a run: `fold`, `seed`, `epoch` (counted as in the history) that the run is
            scored at. `None` or without a run's epoch: the run's best epoch by the objective.
        objective: which column tells the best epoch.
        direction: of the objective, `"min"` or `"max"`.
        last_epoch: whether runs are scored at their last epoch.

    Returns:
        The mean over the runs.

    Example:

    >>> history = pd.DataFrame({"epoch": [1, 2], "loss": [0.5, 0.25], "val_loss": [0.75, 1.0]})
    >>> measure_gap(history, "loss", None, objective="val_loss", direction="min")
    0.25
    """
    judged = _judged_epochs(history, scores)
    gaps = []
    for run in split_runs(history):
        epoch = judged.get(_run_key(run))
        at_epoch = np.flatnonzero(run["epoch"].to_numpy() == epoch) if epoch is not None else []
        if len(at_epoch):
            row = int(at_epoch[0])
        elif last_epoch:
            row = len(run) - 1
        else:
            row = _best_row(run, objective, direction)
        gaps.append(float(run[f"val_{loss}"].iloc[row]) - float(run[loss].iloc[row]))
    return float(np.mean(gaps))


def _run_key(run: pd.DataFrame) -> tuple[int, ...]:
    return tuple(int(run[name].iloc[0]) for name in RUN_COLUMNS if name in run)


def _judged_epochs(
    history: pd.DataFrame, scores: pd.DataFrame | None
) -> dict[tuple[int, ...], float]:
    """Return the epoch that each run is scored at, by its fold and seed."""
    if scores is None:
        return {}
    known = scores[scores["epoch"].notna()]
    keys = [name for name in RUN_COLUMNS if name in history]
    if known[keys].isna().any(axis=None):
        return {}
    epochs = known["epoch"].to_numpy(float).tolist()
    runs = known[keys].to_numpy(int).tolist() if keys else [[]] * len(known)
    return {tuple(run): epoch for run, epoch in zip(runs, epochs, strict=True)}


def _best_row(run: pd.DataFrame, objective: str, direction: str) -> int:
    if objective in run:
        values = run[objective].to_numpy(float)
        if np.isfinite(values).any():
            values = np.where(np.isfinite(values), values, np.nan)
            return int(np.nanargmin(values) if direction == "min" else np.nanargmax(values))
    return len(run) - 1
