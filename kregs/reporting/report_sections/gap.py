"""The generalization gap of trials against the strength of a regularizer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from kregs.reporting.figures import generalization_gap
from kregs.reporting.histories import loss_with_both_sides, measure_gap
from kregs.reporting.hyperparameters import first_penalty
from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import Picture, picture_of
from kregs.reporting.tables import format_value

MOST_TRIALS = 200  # whose histories are read, besides those of the chosen and the best trial


@dataclasses.dataclass(frozen=True)
class GapSection:
    """The section: `chosen_gap` is empty where it is not known."""

    loss: str
    strength: str
    chosen_gap: str
    has_penalties: bool
    picture: Picture


def gap(facts: SearchFacts) -> GapSection | str:
    """Return the section, or why there is none."""
    names = facts.by_importance
    numbers = [name for name in names if facts.samplings[name] is not None]
    strength = first_penalty(numbers) or next(iter(numbers or names), None)
    if strength is None:
        return "No hyperparameter took more than one value."
    gaps, loss = measure_gaps(facts)
    if loss is None:
        return "No loss was logged both in training and in validation, or it is lost."
    caption = ""
    if len(facts.ranked) > MOST_TRIALS:
        caption = (
            f"{len(gaps)} of {len(facts.ranked)} trials: the best, the worst, the chosen one, and "
            "others that are evenly spread over the ranks between."
        )
    picture = picture_of(
        generalization_gap(gaps, facts.samplings, strength, metric=loss, **facts.goal),
        f"Gap between validation and training {loss} over {strength}",
        caption,
    )
    chosen = gaps.loc[gaps["trial"] == facts.chosen_number, "gap"]
    known = chosen[np.isfinite(chosen)]
    return GapSection(
        loss=loss,
        strength=strength,
        chosen_gap=format_value(float(known.iloc[0])) if len(known) else "",
        has_penalties=loss != "data_loss",
        picture=picture,
    )


def measure_gaps(facts: SearchFacts) -> tuple[pd.DataFrame, str | None]:
    """Return completed trials with their gaps, and which loss it is a gap of.

    Of more than `MOST_TRIALS` so many, evenly spread over the ranks from the best to the worst, and
    the chosen and the best one.
    """
    ranked = facts.ranked
    places = np.unique(np.linspace(0, len(ranked) - 1, MOST_TRIALS).round().astype(int))
    picked = set(ranked["trial"].iloc[places]) | {facts.chosen_number, facts.best_number}
    sample = ranked[ranked["trial"].isin(picked)]
    loss = None
    gaps = []
    last_epoch = facts.result.protocol.score_at == "last_epoch"
    for number in sample["trial"].tolist():
        history = facts.history(number)
        if loss is None and history is not None:
            loss = loss_with_both_sides(history)
        if history is None or loss is None or not {loss, f"val_{loss}"} <= set(history):
            gaps.append(np.nan)
            continue
        scores = facts.scores(number)
        gaps.append(measure_gap(history, loss, scores, last_epoch=last_epoch, **facts.goal))
    return sample.assign(gap=gaps), loss
