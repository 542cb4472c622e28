"""The generalization gap of trials over the strength of a regularizer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.parameter_axis import format_axis, parameter_axis
from kregs.reporting.figures.score_marks import mark_at_height, scatter_by_score
from kregs.reporting.figures.style import (
    WIDTH,
    add_title_and_legend,
    new_figure,
    plain_text,
    with_direction,
)


def generalization_gap(
    gaps: pd.DataFrame,
    samplings: Mapping[str, str | None],
    name: str,
    *,
    metric: str,
    objective: str,
    direction: str,
) -> Figure:
    """Return how far validation lies above training, against the strength of a regularizer.

    Args:
        gaps: one row per completed trial, columns `gap`, `score` and `name`.
        samplings: per hyperparameter `"linear"`, `"log"` or, for what is no number, `None`.
        name: the hyperparameter to show.
        metric: what the gap is of, for the axis.
        objective: what the score, which gives the colour, is called.
        direction: `"min"` or `"max"`.

    Example:

    >>> gaps = pd.DataFrame({"gap": [0.2, 0.1], "score": [0.5, 0.4], "l2": [1e-4, 1e-2]})
    >>> figure = generalization_gap(gaps, {"l2": "log"}, "l2", metric="data_loss",
    ...                             objective="val_data_loss", direction="min")
    >>> figure.axes[0].get_xlabel()
    'l2'
    """
    figure, axes = new_figure(WIDTH, 4.0)
    gaps = gaps[np.isfinite(gaps["gap"]) & gaps[name].notna() & np.isfinite(gaps["score"])]
    values = gaps["gap"].to_numpy(float)
    if len(values):
        x = parameter_axis(gaps, name, samplings[name])
        low, high = np.quantile(values, (0.1, 0.9))
        reach = 2 * (high - low)  # farther off, a trial would squeeze the others
        above, below = values > high + reach, values < low - reach
        near = ~(above | below)
        scatter_by_score(
            figure,
            axes,
            x.positions[near],
            values[near],
            gaps["score"].to_numpy(float)[near],
            direction,
            label=with_direction(objective, direction),
        )
        mark_at_height(axes, x.positions[above], 0.97, "^", "off the scale")
        mark_at_height(axes, x.positions[below], 0.03, "v", "off the scale, below")
        format_axis(axes, x, "x")
        axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel(plain_text(f"val_{metric} − {metric}"))
    add_title_and_legend(figure, axes, f"Generalization gap over {name}")
    return figure
