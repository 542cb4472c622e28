"""How much each hyperparameter mattered, judged by a forest that predicts the trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

from kregs.reporting.hyperparameters import varied

MINIMUM_POINTS = 12  # below it five folds hold two points each, and R² is noise
MAXIMUM_POINTS = 1000  # of more, so many drawn at random tell as much and cost less
WEAK_FIT = 0.3  # below this R² the importances mean little

_FOLDS = 5
_REPEATS = 5  # in each fold
_TREES = 60


@dataclasses.dataclass(frozen=True, eq=False)
class Importance:
    """What `measure_importance` returns.

    Args:
        table: columns `hyperparameter`, `importance` (how much R² falls on trials that the forest
            has not seen when this column is shuffled; may be slightly below 0) and
            `standard_error` (over the folds); most important first.
        r2: of the forest's predictions, each made without the trial; at most 1, 0 is the mean.
        points: completed trials that were used.
        distinct: how many completed trials there were, of a point that was trained several times
            the last only.
    """

    table: pd.DataFrame
    r2: float
    points: int
    distinct: int


def measure_importance(
    trials: pd.DataFrame,
    samplings: Mapping[str, str | None],
    *,
    seed: int = 0,
) -> Importance:
    """Return how much each hyperparameter tells of a trial's rank.

    A forest is fitted to the ranks of the scores (so that one trial that diverged does not outweigh
    all others) on four fifths of the trials. On the last fifth each column is shuffled in turn, and
    the importance is how much worse the forest becomes. A coefficient stands for its switch too:
    0 where `use_l2` is off. Of more than `MAXIMUM_POINTS` trials so many are drawn at random.

    Args:
        trials: columns `trial`, `score` and one per hyperparameter.
        samplings: per hyperparameter `"linear"`, `"log"` or, for what is no number, `None`.
        seed: integer >= 0, of the forest, the folds, the draw and the shuffling.

    Returns:
        An `Importance`.

    Raises:
        ValueError: there is too little to learn from; the message says what.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> trials = pd.DataFrame({"trial": range(60), "l2": 10 ** generator.uniform(-6, -2, 60),
    ...                        "dropout": generator.uniform(0, 0.6, 60)})
    >>> trials["score"] = (np.log10(trials["l2"]) + 4) ** 2
    >>> importance = measure_importance(trials, {"l2": "log", "dropout": "linear"})
    >>> importance.table["hyperparameter"].tolist(), importance.r2 > 0.8
    (['l2', 'dropout'], True)

    References:
        Breiman, "Random Forests", Machine Learning 45, 2001; Geurts, Ernst, Wehenkel, "Extremely
        randomized trees", Machine Learning 63, 2006.
    """
    names = varied(trials, samplings)
    completed = trials[np.isfinite(trials["score"].astype(float))]
    # Hyperband trains a point several times, the last time for most epochs
    completed = completed.sort_values("trial").drop_duplicates(names or ["trial"], keep="last")
    distinct = len(completed)
    if not names:
        raise ValueError("no hyperparameter took more than one value")
    if distinct < MINIMUM_POINTS:
        raise ValueError(
            f"{distinct} completed points of the space are too few; it takes {MINIMUM_POINTS}"
        )
    if completed["score"].nunique() == 1:
        raise ValueError("all trials have the same score")
    if distinct > MAXIMUM_POINTS:
        completed = completed.sample(MAXIMUM_POINTS, random_state=seed)
    inputs = np.column_stack([_encode(completed[name], samplings[name]) for name in names])
    ranks = completed["score"].rank().to_numpy(float) / len(completed)
    predictions = np.empty(len(completed))
    generator = np.random.default_rng(seed)
    falls, sizes = [], []
    for train, held_out in KFold(_FOLDS, shuffle=True, random_state=seed).split(inputs):
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(inputs[train], ranks[train])
        predictions[held_out] = forest.predict(inputs[held_out])
        # not R² of each fold: of so few points it would depend on their spread
        error = np.mean((predictions[held_out] - ranks[held_out]) ** 2)
        shuffled = _shuffled_errors(forest, inputs[held_out], ranks[held_out], generator)
        falls.append((shuffled - error) / ranks.var())
        sizes.append(len(held_out))
    table = pd.DataFrame(
        {
            "hyperparameter": names,
            "importance": np.average(falls, axis=0, weights=sizes),
            "standard_error": np.std(falls, axis=0, ddof=1) / np.sqrt(_FOLDS),
        }
    ).sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return Importance(table, float(r2_score(ranks, predictions)), len(completed), distinct)


def _shuffled_errors(
    forest: ExtraTreesRegressor,
    inputs: np.ndarray,
    targets: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the forest's mean squared error with each column shuffled.

    As `sklearn.inspection.permutation_importance`, with one call of the forest per column: a call
    for each repetition took most of the time of a report.
    """
    errors = np.empty(inputs.shape[1])
    for column in range(inputs.shape[1]):
        copies = np.tile(inputs, (_REPEATS, 1))
        copies[:, column] = np.concatenate(
            [generator.permutation(inputs[:, column]) for _ in range(_REPEATS)]
        )
        errors[column] = np.mean((forest.predict(copies) - np.tile(targets, _REPEATS)) ** 2)
    return errors


def _encode(column: pd.Series, sampling: str | None) -> np.ndarray:
    """Return numbers for a forest; 0 on a log scale and what is absent lie left of the rest."""
    if sampling is None:
        codes, _ = pd.factorize(column.astype(str).where(column.notna()), sort=True)
        return codes.astype(float)
    values = column.to_numpy(float)
    if sampling == "log" and (values > 0).any():
        positive = np.log10(values, where=values > 0, out=np.full(len(values), np.nan))
        values = np.where(values <= 0, np.nanmin(positive) - 1, positive)
    known = values[~np.isnan(values)]
    absent = known.min() - max(1.0, np.ptp(known)) if len(known) else 0.0
    return np.where(np.isnan(values), absent, values)
