"""How much each hyperparameter mattered, judged by a forest that predicts the trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.inspection import permutation_importance
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold

MINIMUM_POINTS = 12  # below it five folds hold two points each, and R² is noise
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
        points: completed trials that were used: of a point that was trained several times, the
            last.
    """

    table: pd.DataFrame
    r2: float
    points: int


def measure_importance(
    trials: pd.DataFrame,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    seed: int = 0,
) -> Importance:
    """Return how much each hyperparameter tells of a trial's rank.

    A forest is fitted to the ranks of the scores (so that one trial that diverged does not outweigh
    all others) on four fifths of the trials. On the last fifth each column is shuffled in turn, and
    the importance is how much worse the forest becomes. A coefficient stands for its switch too:
    0 where `use_l2` is off.

    Args:
        trials: columns `trial`, `score` and one per hyperparameter.
        hyperparameters: per column, `{"sampling": "linear" | "log" | None}`; `None` for what is no
            number.
        seed: integer >= 0, of the forest, the folds and the shuffling.

    Returns:
        An `Importance`.

    Raises:
        ValueError: there is too little to learn from; the message says what.

    Example:

    >>> generator = np.random.default_rng(0)
    >>> trials = pd.DataFrame({"trial": range(60), "l2": 10 ** generator.uniform(-6, -2, 60),
    ...                        "dropout": generator.uniform(0, 0.6, 60)})
    >>> trials["score"] = (np.log10(trials["l2"]) + 4) ** 2
    >>> found = measure_importance(
    ...     trials, {"l2": {"sampling": "log"}, "dropout": {"sampling": "linear"}}
    ... )
    >>> found.table["hyperparameter"].tolist(), found.r2 > 0.8
    (['l2', 'dropout'], True)

    References:
        Breiman, "Random Forests", Machine Learning 45, 2001; Geurts, Ernst, Wehenkel, "Extremely
        randomized trees", Machine Learning 63, 2006.
    """
    names = varied(trials, hyperparameters)
    done = trials[np.isfinite(trials["score"].astype(float))]
    # Hyperband trains a point several times, the last time for most epochs
    done = done.sort_values("trial").drop_duplicates(names or ["trial"], keep="last")
    if not names:
        raise ValueError("no hyperparameter took more than one value")
    if len(done) < MINIMUM_POINTS:
        raise ValueError(
            f"{len(done)} completed points of the space are too few; it takes {MINIMUM_POINTS}"
        )
    if done["score"].nunique() == 1:
        raise ValueError("all trials have the same score")
    inputs = np.column_stack([_encode(done[n], hyperparameters[n]["sampling"]) for n in names])
    ranks = done["score"].rank().to_numpy(float) / len(done)
    predictions = np.empty(len(done))
    falls, sizes = [], []
    for train, held in KFold(_FOLDS, shuffle=True, random_state=seed).split(inputs):
        forest = ExtraTreesRegressor(_TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(inputs[train], ranks[train])
        predictions[held] = forest.predict(inputs[held])
        shuffled = permutation_importance(
            forest,
            inputs[held],
            ranks[held],
            scoring="neg_mean_squared_error",  # R² of so few points would depend on their spread
            n_repeats=_REPEATS,
            random_state=seed,
        )
        falls.append(shuffled.importances_mean / ranks.var())
        sizes.append(len(held))
    table = pd.DataFrame(
        {
            "hyperparameter": names,
            "importance": np.average(falls, axis=0, weights=sizes),
            "standard_error": np.std(falls, axis=0, ddof=1) / np.sqrt(_FOLDS),
        }
    ).sort_values("importance", ascending=False, kind="stable", ignore_index=True)
    return Importance(table, float(r2_score(ranks, predictions)), len(done))


def varied(trials: pd.DataFrame, hyperparameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the hyperparameters that took several values, without switches of coefficients.

    Example:

    >>> trials = pd.DataFrame({"use_l2": [True, False], "l2": [0.1, 0.0], "l1": [0.1, 0.1]})
    >>> varied(trials, dict.fromkeys(trials, {}))
    ['l2']
    """
    names = [
        name
        for name in hyperparameters
        if name in trials and trials[name].nunique(dropna=False) > 1
    ]
    return [name for name in names if not _is_switch(name, names, trials)]


def _is_switch(name: str, names: Sequence[str], trials: pd.DataFrame) -> bool:
    """Whether a column says no more than whether a coefficient is 0: `use_l2` beside `l2`."""
    head, found, tail = name.rpartition("use_")
    if not found or f"{head}{tail}" not in names:
        return False
    off = trials[name].eq(False) | trials[name].isna()
    value = trials[f"{head}{tail}"]
    return bool((off == (value.eq(0) | value.isna())).all())


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
