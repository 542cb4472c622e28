"""How a trial is scored by the histories of its runs, honestly.

A score is the mean over runs (folds and seeds). The epoch that a fold is scored at is chosen on the
other folds; without folds, that of one half of the validation rows on the other half. An epoch
chosen on the rows that rank the trials makes every score too good, and that of the trial with the
noisiest curve most.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras_tuner.errors import FailedTrialError

from kregs.search.runs import Run, disjoint_folds


@dataclasses.dataclass
class Judgement:
    """What a trial's runs amount to.

    Args:
        metrics: the mean of each metric over the runs, each at the epoch that it is scored at.
        epoch: the index of the best epoch, over all runs: what a refit trains for.
        scores: one entry a run: its `fold`, `seed`, `score` and the index of the `epoch`.
        standard_error: of the score; `None` with one run.
    """

    metrics: dict[str, float]
    epoch: int
    scores: list[dict[str, Any]]
    standard_error: float | None


def judge(
    histories: Sequence[Mapping[str, Sequence[float]]],
    runs: Sequence[Run],
    objective: Any,
    score_at: str = "best_epoch",
    halves: Sequence[Sequence[Mapping[str, Sequence[float]]]] = (),
) -> Judgement:
    """Score a trial by the histories of its runs.

    At the best epoch: with folds, a fold is scored at the epoch that is best in the mean over the
    other folds, those that are judged on other rows (at its last epoch if there are none); a run
    that stopped before it, at its last. Where runs have halves (without folds, and with folds that
    share judged rows or stand in order of time) each half of the validation rows is scored at the
    epoch that is best on the other half; without halves (a streamed dataset, an objective that is
    no validation metric) a run is scored at its own best epoch, as keras-tuner does, which is too
    good a number for anything but ranking.

    Args:
        histories: each logged metric's values by epoch, one history a run.
        runs: which fold and seed each was.
        objective: a `keras_tuner.Objective`.
        score_at: `"best_epoch"`, or `"last_epoch"`: the last of each run, no epoch is chosen.
        halves: for each run its histories on the halves of the validation rows; none if empty.

    Raises:
        FailedTrialError: the objective was never finite in some run.
        ValueError: the objective was not logged.
    """
    sign = 1.0 if objective.direction == "min" else -1.0
    curves = [_curve(history, objective, sign) for history in histories]
    for run, curve in zip(runs, curves, strict=True):
        if not np.isfinite(curve).any():
            raise FailedTrialError(
                f"{objective.name} was never a finite number{_where(run)}: "
                f"{sign * curve[0]} after the first epoch"
            )
    folds = sorted({run.fold for run in runs if run.fold is not None})
    if score_at == "last_epoch":
        epochs = [len(curve) - 1 for curve in curves]
        epoch = round(statistics.fmean(epochs))
    elif len(folds) > 1:
        apart = _disjoint(runs)
        epochs = []
        for run, curve in zip(runs, curves, strict=True):
            if run.halves is not None:  # these choose, as without folds
                epochs.append(_best_epoch([curve]))
                continue
            others = [c for r, c in zip(runs, curves, strict=True) if r.fold in apart[run.fold]]
            last = len(curve) - 1
            epochs.append(min(_best_epoch(others), last) if others else last)
        epoch = _best_epoch(curves)
    else:
        epochs = [_best_epoch([curve]) for curve in curves]
        epoch = round(statistics.fmean(epochs))
    values = [float(curve[own]) for curve, own in zip(curves, epochs, strict=True)]
    if score_at == "best_epoch":
        for i, (run, own_halves) in enumerate(zip(runs, halves, strict=False)):
            values[i] = _cross_fitted(run, own_halves, objective, sign, values[i])
    scores = []
    for run, value, own in zip(runs, values, epochs, strict=True):
        if not math.isfinite(value):
            raise FailedTrialError(
                f"{objective.name} was {sign * value} after epoch {own + 1}{_where(run)}"
            )
        scores.append({"fold": run.fold, "seed": run.seed, "score": sign * value, "epoch": own})
    names = set.intersection(*(set(history) for history in histories))
    metrics = {
        name: statistics.fmean(h[name][e] for h, e in zip(histories, epochs, strict=True))
        for name in names
        if all(e < len(h[name]) for h, e in zip(histories, epochs, strict=True))
    }
    metrics[objective.name] = statistics.fmean(sign * value for value in values)
    return Judgement(metrics, epoch, scores, standard_error(scores))


def _cross_fitted(
    run: Run,
    histories: Sequence[Mapping[str, Sequence[float]]],
    objective: Any,
    sign: float,
    otherwise: float,
) -> float:
    """Return a run's value with each half of the rows at the epoch that is best on the other."""
    if run.halves is None or len(histories) != 2:
        return otherwise
    try:
        a, b = (_curve(history, objective, sign) for history in histories)
    except ValueError:  # the objective says nothing of validation rows
        return otherwise
    if not (np.isfinite(a).any() and np.isfinite(b).any()):
        return otherwise  # such as the AUC of a half with one class
    rows = [len(half) for half in run.halves]
    return float(np.average([a[np.argmin(b)], b[np.argmin(a)]], weights=rows))


def _disjoint(runs: Sequence[Run]) -> dict[int | None, set[int | None]]:
    """For each fold the folds that are judged on none of its rows."""
    splits = {run.fold: run.split for run in runs if run.split is not None}
    folds = list(splits)
    apart = disjoint_folds(list(splits.values()))
    return {
        fold: {folds[other] for other in others} for fold, others in zip(folds, apart, strict=True)
    }


def _where(run: Run) -> str:
    return "" if run.fold is None else f" in fold {run.fold}"


def _curve(history: Mapping[str, Sequence[float]], objective: Any, sign: float) -> np.ndarray:
    """Return the objective by epoch, lower is better, infinite where it is no number."""
    epochs = min(map(len, history.values())) if history else 0
    try:
        values = [
            sign * objective.get_value({name: own[epoch] for name, own in history.items()})
            for epoch in range(epochs)
        ]
    except KeyError:
        raise ValueError(
            f"the objective {objective.name!r} was not logged. Logged: {', '.join(history)}"
        ) from None
    return np.array([v if math.isfinite(v) else math.inf for v in values])


def _best_epoch(curves: Sequence[np.ndarray]) -> int:
    """Return the epoch of the best mean; a curve that ended goes on at its last value."""
    longest = max(map(len, curves))
    mean = np.mean([np.pad(c, (0, longest - len(c)), mode="edge") for c in curves], axis=0)
    return int(np.argmin(mean))


def standard_error(scores: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the standard error of the mean score.

    Over folds if there are several, each by the mean over its seeds: seeds on the same rows are no
    new evidence about other rows. Else over seeds.
    """
    folds = {entry["fold"] for entry in scores}
    key = "fold" if len(folds) > 1 else "seed"
    units: dict[Any, list[float]] = {}
    for entry in scores:
        units.setdefault(entry[key], []).append(entry["score"])
    if len(units) < 2:
        return None
    means = [statistics.fmean(values) for values in units.values()]
    return statistics.stdev(means) / math.sqrt(len(means))
