"""Where the good trials lie: the map, and parallel coordinates of all hyperparameters."""

from __future__ import annotations

import numpy as np

from kregs.reporting.figures import parallel_coordinates, search_map
from kregs.reporting.figures.search_map import map_hyperparameters
from kregs.reporting.importance import Importance
from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import Picture, picture_of

MOST_AXES = 10  # of the parallel coordinates


def landscape(facts: SearchFacts) -> list[Picture]:
    """Return one or two pictures."""
    pictures = [_map(facts)]
    if facts.by_importance:
        pictures.append(_coordinates(facts))
    return pictures


def _map(facts: SearchFacts) -> Picture:
    names = map_hyperparameters(facts.trials, facts.samplings)
    figure = search_map(facts.trials, facts.samplings, chosen=facts.chosen_number, **facts.goal)
    figure.set_size_inches(5.6, 4.4)
    has_zero = any(
        facts.samplings[name] == "log" and bool(np.any(facts.trials[name] == 0)) for name in names
    )
    caption = []
    if len(names) == 2:
        caption.append("Dark is good, the star is the best trial.")
    if has_zero:
        caption.append("What lies beyond the dashed line is exactly 0.")
    over = " and ".join(names) or "the trials"
    return picture_of(figure, f"Map of {facts.objective} over {over}", " ".join(caption))


def _coordinates(facts: SearchFacts) -> Picture:
    names = facts.by_importance
    shown = {name: facts.samplings[name] for name in names[:MOST_AXES]}
    figure = parallel_coordinates(facts.trials, shown, chosen=facts.chosen_number, **facts.goal)
    caption = "One line a trial, "
    if isinstance(facts.importance, Importance):
        caption += "the most important hyperparameter first"
    else:
        caption += "in the order of the space"
    if len(names) > MOST_AXES:
        caption += f" ({len(names) - MOST_AXES} more are not shown)"
    caption += ". Dark lines are good trials, the thick orange one is the best"
    if facts.chosen_number != facts.best_number:
        caption += ", the thick black one was chosen"
    caption += "; dotted ones have no score." if facts.trials["score"].isna().any() else "."
    alt = f"Parallel coordinates of {', '.join(shown)} and {facts.objective}"
    return picture_of(figure, alt, caption)
