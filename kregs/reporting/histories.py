"""How far validation lies above training in the runs of a trial's history."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kregs.inspection.histories import RUN_COLUMNS


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
    # arrays, not tables: a report measures hundreds of histories
    keys = [name for name in RUN_COLUMNS if name in history]
    runs, run_of_row = np.unique(
        history[keys].to_numpy(float), axis=0, return_inverse=True, equal_nan=False
    )
    epochs = history["epoch"].to_numpy()
    row_gaps = history[f"val_{loss}"].to_numpy(float) - history[loss].to_numpy(float)
    values = history[objective].to_numpy(float) if objective in history else None
    judged = _judged_epochs(scores, keys)
    gaps = []
    for number, run in enumerate(runs.tolist()):
        rows = np.flatnonzero(run_of_row.ravel() == number)
        scored = rows[epochs[rows] == judged.get(tuple(run), -1)]
        if len(scored):
            row = scored[0]
        elif last_epoch or values is None:
            row = rows[-1]
        else:
            row = rows[_best_place(values[rows], direction)]
        gaps.append(row_gaps[row])
    return float(np.mean(gaps))


def _judged_epochs(scores: pd.DataFrame | None, keys: list[str]) -> dict[tuple[float, ...], float]:
    """Return the epoch that each run is scored at, by its fold and seed as far as they tell."""
    if scores is None:
        return {}
    epochs = scores["epoch"].to_numpy(float)
    runs = scores[keys].to_numpy(float)
    return {
        tuple(run): epoch
        for run, epoch in zip(runs.tolist(), epochs.tolist(), strict=True)
        if epoch == epoch  # NaN: not known
    }


def _best_place(values: np.ndarray, direction: str) -> int:
    """Return the place of the best finite value; the last if there is none."""
    finite = np.isfinite(values)
    if not finite.any():
        return len(values) - 1
    if direction == "min":
        return int(np.argmin(np.where(finite, values, np.inf)))
    return int(np.argmax(np.where(finite, values, -np.inf)))
