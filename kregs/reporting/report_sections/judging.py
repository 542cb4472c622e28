"""How trials were judged, and by which rule one was chosen."""

from __future__ import annotations

from kregs.reporting.report_sections.facts import SearchFacts, score_words


def judging(facts: SearchFacts) -> list[str]:
    """Return sentences in which code stands between backquotes."""
    rule = f"The trial was chosen by the rule `{facts.result.protocol.selection}`"
    if facts.chosen_number != facts.best_number:
        rule += (
            f": trial {facts.chosen_number} ({score_words(facts.chosen)}), not the best one, "
            f"trial {facts.best_number} ({score_words(facts.best)})"
        )
    return [*facts.result.protocol.sentences(), f"{rule}."]
