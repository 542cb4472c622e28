"""What the curves of one training tell in numbers: level, gap, trend, noise, share of penalties."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

_WINDOW = 0.1  # of the epochs: what "the end" is the mean over, so that one epoch does not decide


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """Numbers of one training, the mean over its runs; `None` is what cannot be known.

    Losses are without penalties where the history or the caller tells them apart. Parts of losses
    that go below 0 are of what is above the lowest of all.

    Args:
        epochs: how many were trained.
        start: the loss that a guess has: `baseline`, else the largest of the first epoch.
        train, validation: the losses at the end, or at the epoch whose weights were kept.
        left: `train / start`: 1, nothing was learned of the training rows; 0, they are known.
        gap: the part of the validation loss that the training loss does not have.
        rise: the part of the validation loss that its lowest epoch lacks.
        train_fall, validation_fall: the part of the loss that the second half of the epochs saved.
        late: the part of the training loss's whole fall that the second half of the epochs made.
        bumps: the mean rise of the training loss from epoch to epoch in the second half, falls
            counted as 0, as a part of the validation loss (or its own, if that is larger): of a
            training loss near 0 a large part is nothing.
        noise: how far the validation loss jumps about its own course, as a part of it.
        jitter: the same of the training loss.
        penalty: the penalties' share of the whole training loss at the end.
        penalty_left: the penalties at the end as a part of those of the first epoch.
        lost: the part of the runs whose loss stopped being finite.
    """

    epochs: float
    start: float | None = None
    train: float | None = None
    validation: float | None = None
    left: float | None = None
    gap: float | None = None
    rise: float | None = None
    train_fall: float | None = None
    validation_fall: float | None = None
    late: float | None = None
    bumps: float | None = None
    noise: float | None = None
    jitter: float | None = None
    penalty: float | None = None
    penalty_left: float | None = None
    lost: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """Return what is known."""
        return {name: value for name, value in vars(self).items() if value is not None}


def measure_run(
    run: pd.DataFrame,
    *,
    baseline: float | None = None,
    penalties: Any = None,
    held_out: float | None = None,
    best_epoch: int | None = None,
) -> Evidence:
    """Return the evidence of one run.

    Args:
        run: a table as `read_history` returns it, of one run.
        baseline, penalties, held_out, best_epoch: as in `kregs.diagnose`.
    """
    train, validation, penalty = loss_curves(run, penalties)
    if validation is not None:
        validation = _filled(validation)
    curves = [train] if validation is None else [train, validation]
    ends = 0.0 if held_out is None else held_out
    if not (np.isfinite(ends) and all(np.isfinite(curve).all() for curve in curves)):
        return Evidence(epochs=len(train), lost=1.0)
    if len(train) < 2:  # no course
        return Evidence(epochs=len(train))
    # of a likelihood of densities, which may be negative, no part can be taken
    zero = min(0.0, ends, *(float(curve.min()) for curve in curves))
    curves = [curve - zero for curve in curves]
    train = curves[0]
    validation = None if validation is None else curves[1]
    baseline = None if baseline is None else baseline - zero
    held_out = None if held_out is None else held_out - zero
    epochs = len(train)
    window = max(1, round(_WINDOW * epochs))
    end = slice(-window, None)
    if best_epoch is not None:
        end = slice(max(0, best_epoch - window), best_epoch)
    half = max(1, epochs // 2)
    middle = slice(max(0, half - window), half)
    first = max(float(curve[0]) for curve in curves)
    start = first if baseline is None else baseline
    level = float(train[end].mean())
    fall = float(train[0] - train.min())
    values: dict[str, float | None] = {
        "start": start + zero,
        "train": level + zero,
        "left": _part(level, start),
        "train_fall": _part(train[middle].mean() - train[-window:].mean(), train[middle].mean()),
        "late": _part(max(train[half - 1] - train[-window:].mean(), 0.0), fall)
        if fall > 0
        else 0.0,
        "jitter": _jumps(train, level),
    }
    if validation is not None:
        held_out = float(validation[end].mean())
        smooth = pd.Series(validation).rolling(window, center=True, min_periods=1).mean()
        values |= {
            "rise": _part(held_out - min(float(smooth.min()), held_out), held_out),
            "validation_fall": _part(
                validation[middle].mean() - validation[-window:].mean(), validation[middle].mean()
            ),
            "noise": _jumps(validation, held_out),
        }
        if best_epoch is not None:
            values["rise"] = 0.0  # what came after it was thrown away
    if held_out is not None:
        values |= {"validation": held_out + zero, "gap": _part(held_out - level, held_out)}
    rises = float(np.maximum(np.diff(train[half - 1 :]), 0).mean())
    values["bumps"] = _part(rises, max(level, held_out or 0.0))
    if penalty is not None:
        last = float(penalty[end].mean())
        values |= {
            "penalty": _part(last, last + level) if zero == 0 else None,
            "penalty_left": _part(last, float(penalty[0])) if penalty[0] > 0 else None,
        }
    return Evidence(epochs=epochs, **values)  # type: ignore[arg-type]


def mean_evidence(runs: Sequence[Evidence]) -> Evidence:
    """Return the mean over runs of each number, over those runs that have it.

    Example:

    >>> mean_evidence([Evidence(epochs=4, gap=0.5), Evidence(epochs=2, lost=1.0)])
    Evidence(epochs=3.0, ..., gap=0.5, ..., lost=0.5)
    """
    means = {}
    for field in dataclasses.fields(Evidence):
        known = [getattr(run, field.name) for run in runs if getattr(run, field.name) is not None]
        means[field.name] = float(np.mean(known)) if known else None
    return Evidence(**means)  # type: ignore[arg-type]


def loss_curves(
    run: pd.DataFrame, penalties: Any = None
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the loss in training, in validation and of the penalties by epoch.

    The first two are without penalties if the history has `data_loss`, or `penalties` are given.
    What is not known is `None`.
    """
    data = "data_loss" in run
    name = "data_loss" if data else "loss"
    train = run[name].to_numpy(float)
    validation = run[f"val_{name}"].to_numpy(float) if f"val_{name}" in run else None
    penalty = None
    if penalties is not None:
        penalty = np.broadcast_to(np.asarray(penalties, float), len(train))
        if not data:
            train = train - penalty
            validation = None if validation is None else validation - penalty
    elif data and "loss" in run:
        # what rounding leaves of a difference of equals is no penalty
        penalty = run["loss"].to_numpy(float) - train
        penalty = np.where(penalty > 1e-6 * np.abs(train), penalty, 0.0)
    return train, validation, penalty


def _filled(validation: np.ndarray) -> np.ndarray:
    """Return the curve of what was validated every few epochs without holes; others as they are."""
    known = np.flatnonzero(~np.isnan(validation))
    if not len(known) or not known[0]:
        return validation
    if not np.array_equal(known, np.arange(known[0], len(validation), known[0] + 1)):
        return validation
    return np.interp(np.arange(len(validation)), known, validation[known])


def _jumps(curve: np.ndarray, level: float) -> float | None:
    return _part(np.abs(np.diff(curve, 2)).mean() / 2, level) if len(curve) > 2 else None


def _part(value: Any, whole: Any) -> float | None:
    value, whole = float(value), float(whole)
    return value / whole if whole > 0 else 0.0 if value == 0 else None
