"""How a trial is scored by the histories of its runs, honestly.

A score is the mean over runs (folds and seeds). The epoch that a fold is scored at is chosen on the
other folds; without folds, that of one half of the validation rows on the other half. An epoch
chosen on the rows that rank the trials makes every score too good, and that of the trial with the
noisiest curve most.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras_tuner.errors import FailedTrialError

from kregs.search.judging.errors import standard_error
from kregs.search.objective import is_of_validation
from kregs.search.runs import Run, disjoint_folds


@dataclasses.dataclass
class Judgement:
    """What a trial's runs amount to.

    Args:
        metrics: the mean of each metric over the runs, each at the epoch that it is scored at.
        epoch: the index of the best epoch, over all runs: what a refit trains for.
        scores: one entry a run: its `fold`, `seed`, `score`, the index of the `epoch`, and the
            `repeat` that its fold belongs to (see `repeats_of`).
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
    crossed: Sequence[Mapping[str, float]] = (),
) -> Judgement:
    """Score a trial by the histories of its runs.

    At the best epoch: with folds, a fold is scored at the epoch that is best in the mean over the
    other folds, those that are judged on other rows (at its last epoch if there are none); a run
    that stopped before it, at its last. Where runs have halves (without folds, and with folds that
    share judged rows or stand in order of time) each half of the validation rows is scored at the
    epoch that is best on the other half. Without halves (a streamed dataset, an objective that is
    no validation metric) all runs of a search are scored at their own best epoch, as keras-tuner
    does, which is too good a number for anything but ranking. The two are never mixed: where runs
    have halves, one without a score over both has failed.

    Args:
        histories: each logged metric's values by epoch, one history a run.
        runs: which fold and seed each was.
        objective: a `keras_tuner.Objective`.
        score_at: `"best_epoch"`, or `"last_epoch"`: the last of each run, no epoch is chosen.
        crossed: of each run the metrics over both halves of the validation rows, each half as it
            was in the epoch that is best on the other.

    Raises:
        FailedTrialError: the objective was never finite in some run, or in a half of its rows.
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
    crossed_runs: list[Mapping[str, float]] = [{} for _ in runs]  # of those that are scored so
    if score_at == "best_epoch" and is_of_validation(objective):
        for i, (run, curve) in enumerate(zip(runs, curves, strict=True)):
            if run.halves is not None and len(curve) > 1:  # else no epoch was chosen
                crossed_runs[i] = crossed[i] if crossed else {}
                values[i] = sign * _cross_fitted(crossed_runs[i], objective)
    repeats = repeats_of(runs)
    scores = []
    for run, value, own in zip(runs, values, epochs, strict=True):
        if not math.isfinite(value):
            raise FailedTrialError(
                f"{objective.name} was {sign * value} after epoch {own + 1}{_where(run)}"
            )
        entry = {"fold": run.fold, "seed": run.seed, "score": sign * value, "epoch": own}
        scores.append(entry | {"repeat": repeats.get(run.fold)})
    names = set.intersection(*(set(history) for history in histories))
    metrics = {
        name: statistics.fmean(
            over_halves.get(name, h[name][e])
            for h, e, over_halves in zip(histories, epochs, crossed_runs, strict=True)
        )
        for name in names
        if all(e < len(h[name]) for h, e in zip(histories, epochs, strict=True))
    }
    metrics[objective.name] = statistics.fmean(sign * value for value in values)
    error = standard_error(scores, held_out_share=_held_out_share(runs))
    return Judgement(metrics, epoch, scores, error)


def _cross_fitted(crossed: Mapping[str, float], objective: Any) -> float:
    """Return the objective over both halves of the rows, each at the epoch best on the other."""
    try:
        value = float(objective.get_value(crossed))
    except KeyError:
        value = math.nan
    if math.isfinite(value):
        return value
    # its best epoch's value would be too good beside the other trials'
    raise FailedTrialError(
        f"{objective.name} was no finite number on a half of the validation rows, so that no epoch "
        "can be chosen on other rows than those judged. More validation rows, folds= or "
        'score_at="last_epoch" may help'
    )


def repeats_of(runs: Sequence[Run]) -> dict[int | None, int | None]:
    """Return for each fold which repeat of the division of the rows it belongs to.

    Folds that follow one another and share no judged row make up a repeat: all of `KFold`, each
    round of `RepeatedKFold`. `None` for all folds where they are no such rounds, each over the same
    rows, as those of `ShuffleSplit`.
    """
    splits = {run.fold: run.split for run in runs if run.split is not None}
    if not splits:
        return {}
    size = 1 + max(int(split.validation.max()) for split in splits.values())
    repeats: dict[int | None, int | None] = {}
    rounds = [np.zeros(size, bool)]  # which rows each has judged
    for fold, split in splits.items():
        if rounds[-1][split.validation].any():
            rounds.append(np.zeros(size, bool))
        rounds[-1][split.validation] = True
        repeats[fold] = len(rounds) - 1
    folds_of_rounds = collections.Counter(repeats.values()).values()
    if min(folds_of_rounds) > 1 and all((rows == rounds[0]).all() for rows in rounds):
        return repeats
    return dict.fromkeys(splits)


def _held_out_share(runs: Sequence[Run]) -> float | None:
    """Return how many rows a fold is judged on for each that it is trained on, in the mean."""
    splits = {run.fold: run.split for run in runs if run.split is not None}
    if not splits:
        return None
    return statistics.fmean(len(s.validation) / len(s.train) for s in splits.values())


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
