"""How trials were judged, and by which rule one was chosen."""

from __future__ import annotations

from kregs.reporting.report_sections.facts import SearchFacts, score_words


def judging(facts: SearchFacts) -> list[str]:
    """Return sentences in which code stands between backquotes."""
    protocol = facts.result.protocol
    rule = f"The trial was chosen by the rule `{protocol.selection}`"
    if facts.chosen_number != facts.best_number:
        rule += (
            f": trial {facts.chosen_number} ({score_words(facts.chosen)}), not the best one, "
            f"trial {facts.best_number} ({score_words(facts.best)})"
        )
    sentences = [*protocol.sentences(), f"{rule}."]
    if protocol.selection == "one_standard_error":
        by = "the numbers that restrain its built model"
        if protocol.restraint is not None:
            by = ", then ".join(f"`{name}`" for name in protocol.restraint)
        sentences.append(
            "It takes the most restrained of the trials that are worse than the best by no more "
            f"than one standard error of the difference, {error_unit(facts)} by "
            f"{error_unit(facts)}; how restrained a trial is, is told by {by}."
        )
    return sentences


def error_unit(facts: SearchFacts) -> str:
    """Return over what scores vary: `"fold"`, `"seed"`, or nothing where trials have one run."""
    protocol = facts.result.protocol
    if protocol.folds:
        return "fold"
    return "seed" if protocol.seeds > 1 else ""
