"""The scores of the best trials, with error bars."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.score_marks import mark_best, mark_chosen, trial_row
from kregs.reporting.figures.style import (
    BEST,
    POINT,
    WIDTH,
    add_title_and_legend,
    new_figure,
    with_direction,
)


def ranked_trials(
    trials: pd.DataFrame,
    *,
    objective: str,
    direction: str,
    chosen: int | None = None,
    rows: int = 15,
) -> Figure:
    """Return the best trials' scores, the best at the top, with error bars of one standard error.

    Args:
        trials: columns `trial`, `score` and, where trials have several runs, `standard_error`.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        chosen: number of the trial to mark with a diamond.
        rows: how many trials to show; the chosen one is shown beside them.

    Example:

    >>> trials = pd.DataFrame({"trial": [3, 1], "score": [0.2, 0.3], "standard_error": [0.1, 0.1]})
    >>> axes = ranked_trials(trials, objective="val_data_loss", direction="min").axes[0]
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['trial 3', 'trial 1']
    """
    ranked = trials[trials["score"].notna()].sort_values(
        "score", ascending=direction == "min", kind="stable"
    )
    chosen_row = trial_row(ranked, chosen)
    shown = ranked.head(rows)
    title = f"The best {len(shown)} of {len(ranked)} completed trials"
    if chosen_row is not None and chosen_row >= rows:
        title += ", and the chosen one"
        shown = pd.concat([shown, ranked.iloc[[chosen_row]]])
    figure, axes = new_figure(WIDTH, 1.3 + 0.26 * max(len(shown), 2))
    scores = shown["score"].to_numpy(float)
    heights = np.arange(len(shown))
    if "standard_error" in shown and shown["standard_error"].notna().any():
        errors = shown["standard_error"].to_numpy(float)
        known = np.isfinite(errors)
        axes.errorbar(
            scores[known],
            heights[known],
            xerr=errors[known],
            fmt="none",
            ecolor=POINT,
            elinewidth=1.5,
            capsize=3,
            label="± 1 standard error",
        )
        if known[0]:
            low, high = scores[0] - errors[0], scores[0] + errors[0]
            axes.axvspan(low, high, color=BEST, alpha=0.12, linewidth=0)
    axes.scatter(scores, heights, s=36, color=POINT, edgecolors="black", linewidths=0.4, zorder=2)
    mark_best(axes, scores, heights, scores, direction)
    mark_chosen(axes, shown, scores, heights, direction, chosen)
    axes.set_yticks(heights, [f"trial {number}" for number in shown["trial"]])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(with_direction(objective, direction))
    add_title_and_legend(figure, axes, title)
    return figure
