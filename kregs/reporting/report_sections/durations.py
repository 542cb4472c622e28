"""The time that the search and its trials took."""

from __future__ import annotations

import dataclasses

from kregs.reporting.figures import time_histogram
from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import PageTable, Picture, picture_of, table_of
from kregs.reporting.tables import format_duration


@dataclasses.dataclass(frozen=True)
class Durations:
    """The section; one trial alone has no histogram."""

    table: PageTable | None
    picture: Picture | None


def durations(facts: SearchFacts) -> Durations:
    """Return the section."""
    seconds = facts.trials["seconds"].dropna().astype(float)
    values = {"the whole search": facts.result.seconds}
    if len(seconds):
        values |= {
            "median of a trial": seconds.median(),
            "shortest trial": seconds.min(),
            "longest trial": seconds.max(),
            "all trials added up": seconds.sum(),
        }
    picture = None
    if len(seconds) > 1:
        picture = picture_of(time_histogram(seconds.to_numpy()), "Histogram of the trials' times")
    rows = [{"": words, "time": format_duration(float(value))} for words, value in values.items()]
    if facts.result.trained is not None:
        rows.append({"": "trained together", "time": facts.result.trained})
    return Durations(table_of(rows), picture)
