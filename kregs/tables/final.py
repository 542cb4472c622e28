"""The last training on a table: without the test rows, to be scored on them, then on all rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kregs.tasks import class_probabilities

if TYPE_CHECKING:
    import pandas as pd

    from kregs.search import SearchResult
    from kregs.search.refit_ensemble import Refit

MEMBERS = 8  # of an ensemble
MEMBERS_OF_ENSEMBLES = 4  # where each is an ensemble itself
KEPT_TRIALS = 10  # whose folds are candidates for it


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """What is to be trained, as the rows that the search has seen tell.

    Args:
        counts: how many networks of each trial.
        temperature: what logits are divided by; 1 where none is best, or for a regression.
        record: the facts for `table.json`: `ensemble` and `calibration`.
    """

    counts: dict[int, int]
    temperature: float
    record: dict[str, Any]


def make_plan(
    result: SearchResult,
    y: np.ndarray,
    *,
    ensemble: bool,
    classes: bool,
    members: int = MEMBERS,
    weights: np.ndarray | None = None,
) -> Plan:
    """Choose what is trained last, and how its probabilities are scaled.

    Args:
        result: of the search.
        y: the targets of its rows (n,).
        ensemble: whether several networks are trained, of the trials whose folds help each other
            most; else one, of the chosen trial.
        classes: whether the targets are class numbers.
        members: how many are several.
        weights: of the rows (n,), for the temperature; `None`: each counts the same.
    """
    from kregs.search.fold_ensemble import NoFoldWeights

    members = members if ensemble else 1
    counts = {result.chosen_trial: members}
    record: dict[str, Any] = {"ensemble": None, "calibration": None}
    temperature, out_of_fold, score = 1.0, None, None
    if result.data is not None and result.data.splits is not None:
        try:
            # who asked for the most restrained trial gets no others
            free = ensemble and result.protocol.selection == "best"
            chosen = result.fold_ensemble(members, trials=None if free else [result.chosen_trial])
        except NoFoldWeights:  # the time was up before any trial had trained all folds
            chosen = None
        if chosen is not None:
            counts, out_of_fold, score = chosen.counts, chosen.out_of_fold, chosen.score
    if ensemble:
        trials = {trial["trial"]: trial for trial in result.record.trials}
        record["ensemble"] = {
            "members": [
                {
                    "trial": number,
                    "networks": count,
                    "epochs": trials[number]["best_epoch"],
                    "hyperparameters": trials[number]["hyperparameters"],
                }
                for number, count in counts.items()
            ],
            "out_of_fold": None if score is None else {result.objective: score},
        }
    if classes and out_of_fold is not None:
        judged = np.isfinite(out_of_fold).all(axis=1)
        judged_weights = None if weights is None else weights[judged]
        record["calibration"] = calibrated(out_of_fold[judged], y[judged], judged_weights)
        temperature = record["calibration"]["temperature"]
    return Plan(counts, temperature, record)


def calibrated(
    outputs: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the best temperature of some predictions, and their log loss before and after.

    Args:
        outputs: probabilities (n, classes), or of the second of two classes alone (n, 1).
        labels: class numbers (n,).
        weights: of the rows (n,), or `None`.

    Example:

    >>> found = calibrated(np.full((4, 1), 0.982), np.array([1, 1, 1, 0]))
    >>> round(found["temperature"], 2), round(found["log_loss_after"], 3)
    (3.64, 0.562)
    """
    from kregs.inspection.calibration import best_temperature, mean_nll

    logits = np.log(np.maximum(class_probabilities(outputs), 1e-30))
    temperature = best_temperature(logits, labels, weights) or 1.0
    return {
        "temperature": temperature,
        "rows": len(labels),
        "log_loss_before": mean_nll(logits, labels, weights),
        "log_loss_after": mean_nll(logits / temperature, labels, weights),
    }


def train_last(
    result: SearchResult,
    plan: Plan,
    sets: Sequence[tuple[pd.DataFrame, np.ndarray]],
    *,
    class_weight: str | None = None,
    on_epochs: Callable[[int, int], None] | None = None,
) -> list[Refit]:
    """Train what is planned on each of several sets of rows, all of them as one population.

    Args:
        result: of the search.
        plan: what `make_plan` returned.
        sets: features and targets of each, as the search was given them.
        class_weight: `"balanced"`, counted in each set, or `None`.
        on_epochs: see `kregs.search.refit_ensemble.refit_on`.
    """
    from kregs.inspection.calibration import with_temperature
    from kregs.search.refit_ensemble import refit_on

    refits = refit_on(
        result, sets, counts=plan.counts, class_weight=class_weight, on_epochs=on_epochs
    )
    if plan.temperature == 1.0:
        return refits
    return [
        dataclasses.replace(refit, model=with_temperature(refit.model, plan.temperature))
        for refit in refits
    ]
