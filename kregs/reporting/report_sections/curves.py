"""Learning curves of the chosen, the best and the worst trial."""

from __future__ import annotations

import pandas as pd

from kregs.reporting.figures import learning_curves
from kregs.reporting.report_sections.facts import SearchFacts, score_words
from kregs.reporting.report_sections.parts import Picture, picture_of


def curves(facts: SearchFacts) -> list[Picture]:
    """Return a picture for each of these trials whose history was kept."""
    roles = {facts.chosen_number: "chosen"}
    rows = {facts.chosen_number: facts.chosen}
    worst = facts.ranked.iloc[-1]
    for role, row in (("best", facts.best), ("worst", worst)):
        number = int(row["trial"])
        if number not in rows:
            roles[number], rows[number] = role, row
        elif role == "best":
            roles[number] += " and best"
    pictures = []
    for number, role in roles.items():
        history = facts.history(number)
        if history is None:
            continue
        epoch = rows[number].get("best_epoch")
        figure = learning_curves(
            history,
            objective=facts.objective,
            best_epoch=None if pd.isna(epoch) else int(epoch),
            title=f"Trial {number}, {role}: {score_words(rows[number])}",
        )
        pictures.append(picture_of(figure, f"Learning curves of trial {number}, the {role} one"))
    return pictures
