"""How trials are scored, compared and chosen, honestly.

A score is the mean over runs (folds and seeds). The epoch that a fold is scored at is chosen on the
other folds; without folds, that of one half of the validation rows on the other half. An epoch
chosen on the rows that rank the trials makes every score too good, and that of the trial with the
noisiest curve most.
"""

from __future__ import annotations

import dataclasses
import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from keras_tuner.errors import FailedTrialError
from scipy import stats

from kregs.search.resampling import Run
from kregs.validation import check_choice

SELECTIONS = ("best", "one_standard_error")
SCORE_AT = ("best_epoch", "last_epoch")

# what restrains a model the more the larger it is, and what the smaller it is; the ends of names
_RESTRAINS = (
    "l1", "l2", "dropout", "drop_path", "rate", "noise", "weight_decay", "label_smoothing",
    "lambda", "alpha",
)  # fmt: skip
_ENLARGES = ("units", "filters", "layers", "blocks", "depth", "width", "max_norm")
_NOT_STRENGTHS = ("learning_rate",)


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
    other folds, those that are judged on other rows (at its last epoch if there are none, as with
    `ShuffleSplit`); a run that stopped before it, at its last. Without folds each half of the
    validation rows is scored at the epoch that is best on the other half; without halves (a
    streamed dataset, an objective that is no validation metric) a run is scored at its own best
    epoch, as keras-tuner does, which is too good a number for anything but ranking.

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
    splits = {run.fold: run.split for run in runs}
    rows = 1 + max(int(s.validation.max()) for s in splits.values() if s is not None)
    judged = np.zeros([len(splits), rows], np.float32)
    for own, split in zip(judged, splits.values(), strict=True):
        own[split.validation] = 1.0  # type: ignore[union-attr]
    common = judged @ judged.T
    folds = list(splits)
    return {
        fold: {other for other, n in zip(folds, shared, strict=True) if n == 0}
        for fold, shared in zip(folds, common, strict=True)
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


def strength(values: Mapping[str, Any], space: Sequence[Mapping[str, Any]]) -> float:
    """Return how much a trial's hyperparameters restrain the model, from 0 to 1.

    The order of "more regularized": each hyperparameter that restrains (its name ends in l1, l2,
    dropout, rate, noise, weight_decay, label_smoothing, lambda, alpha; or, the smaller the more, in
    units, filters, layers, blocks, depth, width, max_norm) stands at some place of its range, from
    0 (lowest, or switched off) to 1; the strength is the mean of these places. On a logarithmic
    range the place is that of the logarithm.

    Args:
        values: a trial's hyperparameters.
        space: the search space, as keras-tuner serializes it.
    """
    places: dict[str, float] = {}
    for hp in space:
        name = hp["config"]["name"]
        last = re.sub(r"_\d+$", "", name.split("/")[-1])  # units_0, dropout_1
        if last.startswith("use_") or last.endswith(_NOT_STRENGTHS):
            continue
        up, down = last.endswith(_RESTRAINS), last.endswith(_ENLARGES)
        if not (up or down):
            continue
        if name not in values:  # not active: no such penalty, or no such layer
            places.setdefault(name, 0.0 if up else 1.0)
            continue
        place = _place(values[name], hp, absent=0.0 if up else math.inf)
        if place is not None:
            places[name] = place if up else 1.0 - place
    return statistics.fmean(places.values()) if places else 0.0


def _place(value: Any, hp: Mapping[str, Any], absent: float) -> float | None:
    """Where a value stands in its range, from 0 to 1; `None` if the range has no order.

    Args:
        value: the value.
        hp: the hyperparameter, as keras-tuner serializes it.
        absent: the number that "none" stands for.
    """
    config = hp["config"]
    if hp["class_name"] == "Boolean":
        return float(value)
    if hp["class_name"] == "Choice":
        try:
            numbers = sorted(_number(option, absent) for option in config["values"])
            return numbers.index(_number(value, absent)) / max(1, len(numbers) - 1)
        except ValueError:
            return None
    if hp["class_name"] not in ("Float", "Int"):
        return None
    low, high = config["min_value"], config["max_value"]
    if config.get("sampling") in ("log", "reverse_log"):
        low, high, value = math.log(low), math.log(high), math.log(value)
    # being there at all restrains more than being off
    floor = 0.05
    return floor + (1 - floor) * (value - low) / (high - low) if high > low else 1.0


def _number(option: Any, absent: float) -> float:
    return absent if option in (None, "none", "None") else float(option)


def choose(
    trials: Sequence[Mapping[str, Any]],
    space: Sequence[Mapping[str, Any]],
    *,
    direction: str,
    selection: str,
    order: Callable[[Mapping[str, Any]], float] | None = None,
) -> Mapping[str, Any] | None:
    """Return the trial that a search ends with; `None` if none has a score.

    Args:
        trials: with `score`, `standard_error`, `hyperparameters`.
        space: the search space, as keras-tuner serializes it.
        direction: `"min"` or `"max"`.
        selection: `"best"`; or `"one_standard_error"`: of the trials whose score is within the best
            trial's standard error of the best, the most regularized one (see `strength`), the
            better one of equals.
        order: how regularized a trial's hyperparameters are; default: `strength`.

    Reference:
        Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984, 3.4.3.
    """
    check_choice("selection", selection, SELECTIONS)
    scored = [trial for trial in trials if trial["score"] is not None]
    if not scored:
        return None
    sign = 1.0 if direction == "min" else -1.0
    best = min(scored, key=lambda trial: sign * trial["score"])
    error = best.get("standard_error")
    if selection == "best" or error is None or math.isnan(error):
        return best
    close = [t for t in scored if sign * t["score"] <= sign * best["score"] + error]
    order = order or (lambda values: strength(values, space))
    return max(close, key=lambda t: (order(t["hyperparameters"]), -sign * t["score"]))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two trials compared over the folds and seeds that they share.

    Attributes:
        difference: the mean of the first's scores less the second's.
        standard_error: of that difference, corrected for the overlap of the training rows.
        p_value: two-sided, of the hypothesis that there is no difference.
        pairs: how many folds (or seeds, without folds) it rests on.
        better: `"a"`, `"b"`, or `None` where the difference may be luck (p >= 0.05).
    """

    difference: float
    standard_error: float
    p_value: float
    pairs: int
    better: str | None

    def __str__(self) -> str:
        verdict = (
            "the difference may be luck" if self.better is None else f"{self.better} is better"
        )
        return (
            f"{self.difference:+.4g} ± {self.standard_error:.2g} over {self.pairs} pairs, "
            f"p = {self.p_value:.2g}: {verdict}"
        )


def compare(
    a: Sequence[Mapping[str, Any]],
    b: Sequence[Mapping[str, Any]],
    *,
    direction: str,
    held_out_share: float | None,
) -> Comparison:
    """Compare two trials' scores, pair by pair.

    Args:
        a, b: the scores of both, entries with `fold`, `seed`, `score`.
        direction: `"min"` or `"max"`.
        held_out_share: rows judged on over rows trained on, of a fold; `None` without folds.

    Raises:
        ValueError: there are fewer than 2 pairs.

    Reference:
        Nadeau, Bengio, "Inference for the generalization error", Machine Learning 52, 2003: folds
        share training rows, so that the plain t-test finds differences where there are none; the
        variance is multiplied by 1/n + test/train instead of 1/n.
    """
    key = "fold" if held_out_share is not None else "seed"

    def means(scores: Sequence[Mapping[str, Any]]) -> dict[Any, float]:
        units: dict[Any, list[float]] = {}
        for entry in scores:
            units.setdefault(entry[key], []).append(entry["score"])
        return {unit: statistics.fmean(values) for unit, values in units.items()}

    first, second = means(a), means(b)
    common = sorted(set(first) & set(second))
    if len(common) < 2:
        raise ValueError(
            f"a comparison needs at least 2 common folds or seeds: search with folds= or seeds=. "
            f"Received: {len(common)}"
        )
    differences = [first[unit] - second[unit] for unit in common]
    mean, variance = statistics.fmean(differences), statistics.variance(differences)
    factor = 1 / len(common) + (held_out_share or 0.0)
    error = math.sqrt(variance * factor)
    if error == 0.0:
        p_value = 1.0 if mean == 0 else 0.0
    else:
        p_value = float(2 * stats.t.sf(abs(mean) / error, len(common) - 1))
    better = None
    if p_value < 0.05:
        better = "a" if (mean < 0) == (direction == "min") else "b"
    return Comparison(mean, error, p_value, len(common), better)
