"""The trials that failed, and why."""

from __future__ import annotations

import dataclasses

from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import PageTable, table_of_columns

MOST_ROWS = 500


@dataclasses.dataclass(frozen=True)
class Failures:
    """The section: how many failed of how many, and a row for each of the first."""

    count: int
    trials: int
    table: PageTable
    left_out: int


def failures(facts: SearchFacts) -> Failures | None:
    """Return the section; `None` if none failed."""
    failed = facts.result.failures()
    if not len(failed):
        return None
    shown = failed.head(MOST_ROWS)
    table = table_of_columns(
        {"trial": shown["trial"].tolist(), "reason": shown["message"].tolist()}
    )
    return Failures(len(failed), len(facts.trials), table, max(len(failed) - MOST_ROWS, 0))
