"""Standard errors of means over folds, over repeated folds and over seeds.

Folds that divide the rows (`KFold`) are judged on different rows each: the error of their mean is
s/√K, as in CART and glmnet. Repeats of such a division (`RepeatedKFold`) judge the same rows again:
they average out the luck of the division, not that of which rows there are. So the error is that
within one repeat, its variance averaged over the repeats, and does not fall with their number.
Folds that are drawn anew each time (`ShuffleSplit`) share some judged rows: their variance is
multiplied by 1/n + test/train instead of 1/n (Nadeau and Bengio 2003).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Scores = Sequence[Mapping[str, Any]]  # entries with `fold`, `seed`, `score` and maybe `repeat`


def by_fold(scores: Scores) -> bool:
    """Return whether scores are of several folds; else they are of seeds."""
    return len({entry["fold"] for entry in scores}) > 1


def means_by_unit(scores: Scores) -> dict[Any, float]:
    """Return the mean score of each fold or, if there are not several, of each seed.

    Seeds on the same rows are no new evidence about other rows: they make no fold of their own.
    """
    key = "fold" if by_fold(scores) else "seed"
    units: dict[Any, list[float]] = {}
    for entry in scores:
        units.setdefault(entry[key], []).append(entry["score"])
    return {unit: statistics.fmean(values) for unit, values in units.items()}


def standard_error(scores: Scores, *, held_out_share: float | None) -> float | None:
    """Return the standard error of the mean score; `None` of a single run.

    Args:
        scores: one entry a run.
        held_out_share: see `error_of_mean`.
    """
    return error_of_mean(means_by_unit(scores), scores, held_out_share=held_out_share)


def error_of_mean(
    values: Mapping[Any, float], scores: Scores, *, held_out_share: float | None
) -> float | None:
    """Return the standard error of the mean of a value for each fold or seed.

    Args:
        values: one for each fold or seed of `scores`, such as a difference of two trials.
        scores: entries whose `repeat` says which folds divide the rows together; `None` where folds
            do not. Without such an entry (of an older result) they do.
        held_out_share: rows judged on over rows trained on, of a fold.

    Returns:
        `None` if there are fewer than 2 values.

    Example:

    >>> folds = [{"fold": fold, "seed": 0, "repeat": fold // 2} for fold in range(4)]
    >>> error_of_mean({0: 1.0, 1: 3.0}, folds, held_out_share=1.0)
    1.0
    >>> error_of_mean({0: 1.0, 1: 3.0, 2: 3.0, 3: 1.0}, folds, held_out_share=1.0)
    1.0

    References:
        Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984, 3.4.3;
        Nadeau, Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
    """
    if len(values) < 2:
        return None
    if not by_fold(scores):
        return statistics.stdev(values.values()) / math.sqrt(len(values))
    repeat_of = {entry["fold"]: entry.get("repeat", 0) for entry in scores}
    repeats: dict[int, list[float]] = {}
    for fold, value in values.items():
        repeats.setdefault(repeat_of[fold], []).append(value)
    if None not in repeats and all(len(own) > 1 for own in repeats.values()):
        variances = [statistics.variance(own) / len(own) for own in repeats.values()]
        return math.sqrt(statistics.fmean(variances))
    factor = 1 / len(values) + (held_out_share or 0.0)
    return math.sqrt(statistics.variance(values.values()) * factor)
