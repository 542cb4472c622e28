"""The head of the report: the search's name and its outcome in six numbers."""

from __future__ import annotations

import dataclasses

from kregs.reporting.report_sections.facts import SearchFacts, score_words
from kregs.reporting.report_sections.parts import format_cell
from kregs.reporting.tables import format_duration


@dataclasses.dataclass(frozen=True)
class Summary:
    """The numbers, each with what it is of, and how many trials did not complete."""

    name: str
    numbers: tuple[tuple[str, str], ...]
    not_completed: str


def summary(facts: SearchFacts) -> Summary:
    """Return the head."""
    counts = facts.trials["status"].value_counts()
    completed = len(facts.ranked) - counts.get("cut short", 0)  # these have a score, too
    numbers = (
        (f"{facts.objective} of the chosen trial", score_words(facts.chosen)),
        ("chosen", f"trial {facts.chosen_number}"),
        ("epochs of the chosen trial", format_cell(facts.chosen.get("best_epoch"))),
        ("trials completed", f"{completed} of {len(facts.trials)}"),
        ("time", format_duration(facts.result.seconds)),
        ("seed", format_cell(facts.result.protocol.seed)),
    )
    others = [
        f"{counts[name]} {name}"
        for name in ("failed", "interrupted", "cut short")
        if name in counts
    ]
    return Summary(facts.result.name, numbers, ", ".join(others))
