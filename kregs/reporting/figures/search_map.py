"""A map of a search: the objective over the one or two hyperparameters that tell most."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kregs.reporting.figures.parameter_axis import ParameterAxis, format_axis, parameter_axis
from kregs.reporting.figures.score_marks import (
    far_limit,
    is_beyond,
    mark_at_height,
    mark_best,
    mark_chosen,
    mark_failed,
    scatter_by_score,
)
from kregs.reporting.figures.style import POINT, add_title_and_legend, new_figure, with_direction
from kregs.reporting.hyperparameters import first_penalty, first_rate


def search_map(
    trials: pd.DataFrame,
    samplings: Mapping[str, str | None],
    *,
    objective: str,
    direction: str,
    chosen: int | None = None,
) -> Figure:
    """Return a map of the objective over the two hyperparameters that tell most.

    A penalty's coefficient and a dropout rate if they were searched, else the numbers whose values
    are spread most. One number alone, or words only: the objective over it. A coefficient of
    exactly 0 stands at the left of a logarithmic axis, beyond a dashed line. The best trial is
    marked with a star, failed ones with a cross.

    Args:
        trials: columns `trial`, `score`, `status` and one per hyperparameter, as
            `SearchResult.trials()` returns it.
        samplings: per hyperparameter `"linear"`, `"log"` or, for what is no number, `None`.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        chosen: number of the trial to mark with a diamond, if it is not the best.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> trials = pd.DataFrame(
    ...     {"trial": [1, 0], "score": [0.2, 0.3], "status": "completed", "l2": [1e-4, 1e-2]}
    ... )
    >>> figure = search_map(trials, {"l2": "log"}, objective="val_data_loss", direction="min")
    >>> figure.axes[0].get_xlabel()
    'l2'
    """
    figure, axes = new_figure(7.0, 4.8)
    names = map_hyperparameters(trials, samplings)
    scores = trials["score"].to_numpy(float)
    completed = ~np.isnan(scores)
    if names:
        x = parameter_axis(trials, names[0], samplings[names[0]])
    else:
        x = ParameterAxis("trial", False, trials["trial"].to_numpy(float))
    format_axis(axes, x, "x")
    if len(names) == 2:
        y = parameter_axis(trials, names[1], samplings[names[1]])
        format_axis(axes, y, "y")
        heights = y.positions
        if completed.any():
            scatter_by_score(
                figure,
                axes,
                x.positions[completed],
                heights[completed],
                scores[completed],
                direction,
                label=with_direction(objective, direction),
            )
        mark_failed(axes, x.positions[~completed], heights[~completed])
    else:
        heights = scores
        _scatter_scores(axes, x.positions, scores, completed, direction)
        axes.set_ylabel(with_direction(objective, direction))
    if completed.any():
        mark_best(axes, x.positions, heights, scores, direction)
        mark_chosen(axes, trials, x.positions, heights, direction, chosen)
    count = f"{len(trials)} trials" if len(trials) != 1 else "1 trial"
    over = " and ".join(names) or x.name
    add_title_and_legend(figure, axes, f"{objective} over {over}, {count}")
    return figure


def map_hyperparameters(trials: pd.DataFrame, samplings: Mapping[str, str | None]) -> list[str]:
    """Return the hyperparameters that `search_map` shows: two, one or none.

    Args:
        trials, samplings: as there.

    Example:

    >>> trials = pd.DataFrame({"units": [8, 16], "dropout": [0.1, 0.2], "l2": [1e-4, 1e-2]})
    >>> map_hyperparameters(trials, {"units": "linear", "dropout": "linear", "l2": "log"})
    ['l2', 'dropout']
    """
    varied = [name for name in samplings if name in trials and trials[name].nunique() > 1]
    numbers = [name for name in varied if samplings[name] is not None]
    if not numbers:
        return varied[:1]
    spread = {
        name: _spread(trials[name].dropna().to_numpy(float), samplings[name]) for name in numbers
    }
    usual = [name for name in (first_penalty(numbers), first_rate(numbers)) if name]
    by_spread = sorted(numbers, key=lambda name: -spread[name])
    pair = [*usual, *(name for name in by_spread if name not in usual)][:2]
    # a logarithmic axis reads better across than up
    return sorted(pair, key=lambda name: samplings[name] != "log")


def _spread(values: np.ndarray, sampling: str | None) -> float:
    """Return how evenly values lie between their smallest and largest, from 0 to about 0.5."""
    if sampling == "log":
        values = np.log(values[values > 0])
    extent = np.ptp(values) if len(values) else 0.0
    return float(np.std(values) / extent) if extent else 0.0


def _scatter_scores(
    axes: Axes, x: np.ndarray, scores: np.ndarray, completed: np.ndarray, direction: str
) -> None:
    far = np.zeros(len(scores), dtype=bool)
    if completed.any():
        limit = far_limit(scores[completed], direction)
        far[completed] = is_beyond(scores[completed], limit, direction)
    near = completed & ~far
    axes.scatter(x[near], scores[near], s=40, color=POINT, edgecolors="black")
    worst_side = 0.97 if direction == "min" else 0.03
    marker = "^" if direction == "min" else "v"
    mark_at_height(axes, x[far], worst_side, marker, "off the scale")
    mark_at_height(axes, x[~completed], 1 - worst_side, "x", "failed")
