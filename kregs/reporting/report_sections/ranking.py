"""The best trials, and the table of all."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pandas as pd

from kregs.reporting.figures import ranked_trials
from kregs.reporting.hyperparameters import varied
from kregs.reporting.report_sections.facts import SearchFacts, score_words
from kregs.reporting.report_sections.judging import error_unit
from kregs.reporting.report_sections.parts import (
    Cell,
    PageTable,
    Picture,
    picture_of,
    table_of_columns,
)

TOP = 10  # trials in the first table
MOST_ROWS = 500  # of the table of all trials


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The section: `left_out` counts the trials that the table of all has no room for.

    `error_unit` is what the standard errors are over, `bias` by how much the best score is too
    good; both are empty where they are not known.
    """

    has_errors: bool
    error_unit: str
    bias: str
    best_has_error: bool
    completed: int
    top: PageTable
    picture: Picture
    every: PageTable
    count: int
    left_out: int


def ranking(facts: SearchFacts) -> Ranking:
    """Return the section."""
    ranked = facts.ranked
    top = ranked.head(TOP)
    if facts.chosen_number not in set(top["trial"]):
        top = pd.concat([top, ranked[ranked["trial"] == facts.chosen_number]])
    picture = picture_of(
        ranked_trials(facts.trials, chosen=facts.chosen_number, **facts.goal),
        f"Scores of the best trials; the best has {facts.objective} {score_words(facts.best)}",
    )
    bias = facts.result.score_bias
    return Ranking(
        error_unit=error_unit(facts),
        bias="" if bias is None else f"{bias:.2g}",
        has_errors="standard_error" in ranked and bool(ranked["standard_error"].notna().any()),
        best_has_error=bool(pd.notna(facts.best.get("standard_error"))),
        completed=len(ranked),
        top=_trial_table(facts, top),
        picture=picture,
        every=_trial_table(facts, facts.trials.head(MOST_ROWS), with_status=True),
        count=len(facts.trials),
        left_out=max(len(facts.trials) - MOST_ROWS, 0),
    )


def _trial_table(
    facts: SearchFacts, trials: pd.DataFrame, *, with_status: bool = False
) -> PageTable:
    numbers = trials["trial"].tolist()
    signs = {facts.best_number: " ★"}
    signs[facts.chosen_number] = signs.get(facts.chosen_number, "") + " ◆"
    columns: dict[str, list[Any]] = {
        "trial": [Cell(f"{number}{signs.get(number, '')}", str(number)) for number in numbers]
    }
    if with_status:
        columns["status"] = trials["status"].tolist()
    errors = trials.get("standard_error", pd.Series(float("nan"), trials.index))
    columns[facts.objective] = [
        _score_cell(score, error) for score, error in zip(trials["score"], errors, strict=True)
    ]
    for title, name in (("epoch", "best_epoch"), ("seconds", "seconds")):
        columns[title] = trials[name].tolist() if name in trials else [None] * len(trials)
    # a hyperparameter may have the name of another column
    shown = _shown_names(facts)
    table = table_of_columns(columns)
    values = table_of_columns({name: trials[name].tolist() for name in shown})
    rows = (
        [left + right for left, right in zip(table.rows, values.rows, strict=True)]
        if shown
        else table.rows
    )
    return PageTable(table.head + values.head, tuple(rows))


def _score_cell(score: float, error: float) -> Cell:
    if pd.isna(score):
        return Cell("–")
    return Cell(score_words({"score": score, "standard_error": error}), repr(float(score)))


def _shown_names(facts: SearchFacts) -> list[str]:
    """Return all hyperparameters, without a switch that its coefficient tells already."""
    several = set(varied(facts.trials, facts.samplings))
    return [
        name for name in facts.samplings if name in several or not re.search(r"(^|[_/])use_", name)
    ]
