"""What is known of a search, read once, and what several sections of its report need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.reporting.hyperparameters import varied
from kregs.reporting.importance import Importance, measure_importance
from kregs.reporting.tables import format_value

if TYPE_CHECKING:
    from kregs.search.result import SearchResult


@dataclasses.dataclass(frozen=True, eq=False)
class SearchFacts:
    """A search's result as its report reads it.

    Args:
        result: the `SearchResult`.
        trials: its `trials()`; scores that are not finite are NaN.
        ranked: the completed ones, best first.
        samplings: of the hyperparameters that are columns of `trials`.
        best, chosen: rows of `ranked`.
        importance: of the hyperparameters, or why it is not known.
    """

    result: SearchResult
    trials: pd.DataFrame
    ranked: pd.DataFrame
    samplings: Mapping[str, str | None]
    best: pd.Series
    chosen: pd.Series
    importance: Importance | str
    _histories: dict[int, pd.DataFrame | None] = dataclasses.field(default_factory=dict)

    @property
    def objective(self) -> str:
        return self.result.protocol.objective

    @property
    def direction(self) -> str:
        return self.result.protocol.direction

    @property
    def goal(self) -> dict[str, Any]:
        """Arguments that most figures take."""
        return {"objective": self.objective, "direction": self.direction}

    @property
    def best_number(self) -> int:
        return int(self.best["trial"])

    @property
    def chosen_number(self) -> int:
        return int(self.chosen["trial"])

    @property
    def by_importance(self) -> list[str]:
        """The hyperparameters that varied, the most important first if that is known."""
        if isinstance(self.importance, Importance):
            return self.importance.table["hyperparameter"].tolist()
        return varied(self.trials, self.samplings)

    def history(self, trial: int) -> pd.DataFrame | None:
        """Return a trial's history, which is read once; `None` if it is lost."""
        if trial not in self._histories:
            try:
                history = self.result.history(trial)
            except (ValueError, KeyError, OSError):
                history = pd.DataFrame()
            self._histories[trial] = history if len(history) else None
        return self._histories[trial]

    def scores(self, trial: int) -> pd.DataFrame | None:
        """Return the scores of a trial's runs; `None` if they are lost."""
        try:
            scores = self.result.scores(trial)
        except (ValueError, KeyError, OSError):
            return None
        return scores if len(scores) else None


def read_facts(result: SearchResult) -> SearchFacts:
    """Read a result.

    Raises:
        RuntimeError: no trial has completed.
    """
    trials = result.trials()
    # JSON lacks infinity: a search's own files do not hold it, other tables may
    finite = trials["score"].astype(float).replace([np.inf, -np.inf], np.nan)
    trials = trials.assign(score=finite)
    ranked = trials[trials["score"].notna()].sort_values(
        "score", ascending=result.protocol.direction == "min", kind="stable"
    )
    if ranked.empty:
        raise RuntimeError(
            f"no trial of the search {result.name!r} has completed: nothing to report"
        )
    samplings = {name: kind for name, kind in result.samplings.items() if name in trials}
    try:
        importance: Importance | str = measure_importance(
            trials, samplings, seed=result.protocol.seed % 2**32
        )
    except ValueError as error:
        importance = str(error)
    best = _row_of(ranked, result.best_trial, ranked.iloc[0])
    return SearchFacts(
        result=result,
        trials=trials,
        ranked=ranked,
        samplings=samplings,
        best=best,
        chosen=_row_of(ranked, result.chosen_trial, best),
        importance=importance,
    )


def _row_of(ranked: pd.DataFrame, number: int, otherwise: pd.Series) -> pd.Series:
    rows = ranked[ranked["trial"] == number]
    return rows.iloc[0] if len(rows) else otherwise


def score_words(trial: Mapping[str, Any] | pd.Series) -> str:
    """Return a trial's score and, where it has several runs, its standard error."""
    words = format_value(trial["score"])
    error = trial.get("standard_error")
    return words if error is None or pd.isna(error) else f"{words} ± {float(error):.2g}"
