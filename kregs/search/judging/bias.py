"""By how much the best score of a search is too good, estimated from the scores of its folds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kregs.search.judging.errors import by_fold, means_by_unit


def bias_of_best(trials: Sequence[Mapping[str, Any]], *, direction: str) -> float | None:
    """Return by how much the best trial's score is too good, for being the best of many.

    The mean over folds of how much worse the best trial of all does in a fold than the trial that
    is best in this fold alone: choosing by all folds and judging by them is to the truth as
    choosing by one fold is to the others.

    Args:
        trials: with `scores`, one entry a run. Those without a score in each of the folds are left
            out.
        direction: `"min"` or `"max"`.

    Returns:
        A number >= 0, in units of the score: an honest estimate is the best score plus it for
        `"min"`, less it for `"max"`. `None` without folds.

    Example:

    >>> def trial(*scores):
    ...     return {"scores": [{"fold": i, "seed": 0, "score": s} for i, s in enumerate(scores)]}
    >>> bias_of_best([trial(1.0, 3.0), trial(2.0, 1.0)], direction="min")
    0.5

    Reference:
        Tibshirani, Tibshirani, "A bias correction for the minimum error rate in cross-validation",
        Annals of Applied Statistics 3, 2009.
    """
    sign = 1.0 if direction == "min" else -1.0
    errors = [
        {fold: sign * value for fold, value in means_by_unit(trial["scores"]).items()}
        for trial in trials
        if by_fold(trial.get("scores") or ())
    ]
    folds = max(errors, key=len, default={}).keys()
    errors = [values for values in errors if values.keys() == folds]
    if not errors:
        return None
    best = min(errors, key=lambda values: statistics.fmean(values.values()))
    return statistics.fmean(best[fold] - min(values[fold] for values in errors) for fold in folds)
