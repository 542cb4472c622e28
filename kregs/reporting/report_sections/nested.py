"""The scores of the whole search on rows that it did not see."""

from __future__ import annotations

import dataclasses

import numpy as np

from kregs.reporting.report_sections.facts import SearchFacts, score_words
from kregs.reporting.report_sections.parts import PageTable, table_of_columns
from kregs.reporting.tables import format_value


@dataclasses.dataclass(frozen=True)
class NestedScores:
    """A row an outer fold, mean and standard deviation of their scores, and the best trial's."""

    table: PageTable
    objective: str
    folds: int
    mean: str
    deviation: str
    best: str


def nested(facts: SearchFacts) -> NestedScores | None:
    """Return the section; `None` if the search was not nested."""
    frame = facts.result.nested
    if frame is None or not len(frame):
        return None
    scores = frame["score"].to_numpy(float)
    return NestedScores(
        table=table_of_columns({str(name): frame[name].tolist() for name in frame}),
        objective=facts.objective,
        folds=len(frame),
        mean=format_value(float(np.mean(scores))),
        best=score_words(facts.best),
        deviation=f"{np.std(scores, ddof=1):.2g}" if len(scores) > 1 else "",
    )
