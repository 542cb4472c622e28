"""Which trial a search ends with: the best, or the most restrained of those as good."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kregs.search.judging.errors import error_of_mean, means_by_unit
from kregs.search.judging.restraint import compare_restraints, declared_order
from kregs.search.protocol import SELECTIONS
from kregs.validation import check_choice

Trial = Mapping[str, Any]


def choose(
    trials: Sequence[Trial],
    *,
    direction: str,
    selection: str,
    restraint: Sequence[str] | None = None,
    held_out_share: float | None = None,
) -> Trial | None:
    """Return the trial that a search ends with; `None` if none has a score.

    Args:
        trials: with `score`, `scores` (one entry a run), `hyperparameters` and `restraints` (see
            `model_restraints`).
        direction: `"min"` or `"max"`.
        selection: `"best"`; or `"one_standard_error"`: of the trials that are as good as the best,
            the most restrained one. A trial is as good if it is worse by no more than one standard
            error of the difference, fold by fold: folds differ in how hard they are, which
            concerns no trial more than another, and the error of the best score itself consists of
            that for the most part.
        restraint: names of hyperparameters that say how restrained a trial is, the most important
            first (see `declared_order`). Default: the built models' numbers. Then only a trial that
            is restrained more than the best one is taken before it (see `compare_restraints`), and
            of several of which none is restrained more than another, the one with the best score.
        held_out_share: rows judged on over rows trained on, of a fold.

    References:
        Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984, 3.4.3, whose
        error is that of the best score (so is that of `kregs.regularization_path`, as in glmnet).
    """
    check_choice("selection", selection, SELECTIONS)
    scored = [trial for trial in trials if trial["score"] is not None]
    if not scored:
        return None
    sign = 1.0 if direction == "min" else -1.0
    scored.sort(key=lambda trial: sign * trial["score"])
    best = scored[0]
    if selection == "best":
        return best
    close = [best, *as_good(scored[1:], best, sign, held_out_share=held_out_share)]
    if restraint is not None:
        # of equals, `max` takes the first, which has the better score
        return max(close, key=lambda trial: declared_order(trial["hyperparameters"], restraint))
    restrained = [best, *(t for t in close[1:] if _restrains_more(t, best))]
    most = (t for t in restrained if not any(_restrains_more(other, t) for other in restrained))
    return next(most, best)  # of several structures, places and means may go round in a circle


def as_good(
    trials: Sequence[Trial], best: Trial, sign: float, *, held_out_share: float | None
) -> list[Trial]:
    """Return the trials that are worse than the best by no more than the difference's error.

    Args:
        trials, best: with `scores`.
        sign: what to multiply scores by so that lower is better.
        held_out_share: rows judged on over rows trained on, of a fold.
    """
    reference = means_by_unit(best.get("scores") or ())
    close = []
    for trial in trials:
        scores = trial.get("scores") or ()
        values = means_by_unit(scores)
        differences = {
            unit: sign * (values[unit] - reference[unit]) for unit in reference if unit in values
        }
        error = error_of_mean(differences, scores, held_out_share=held_out_share)
        if error is not None and statistics.fmean(differences.values()) <= error:
            close.append(trial)
    return close


def _restrains_more(a: Trial, b: Trial) -> bool:
    return compare_restraints(a.get("restraints"), b.get("restraints")) == 1
