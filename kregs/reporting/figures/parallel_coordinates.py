"""Parallel coordinates: a line per trial through all its hyperparameters to its score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from kregs.reporting.figures.parameter_axis import ParameterAxis, parameter_axis, unit_positions
from kregs.reporting.figures.score_marks import (
    best_row,
    color_scale,
    far_limit,
    is_beyond,
    trial_row,
)
from kregs.reporting.figures.style import (
    BEST,
    PAPER,
    WIDTH,
    new_figure,
    plain_text,
    with_direction,
)

_OFF = -0.09  # where a hyperparameter stands that was not active, left of its axis


def parallel_coordinates(
    trials: pd.DataFrame,
    samplings: Mapping[str, str | None],
    *,
    objective: str,
    direction: str,
    chosen: int | None = None,
) -> Figure:
    """Return parallel coordinates that run down the page: a line per trial, an axis per number.

    The last axis is the objective. Dark lines are good trials, the best one is drawn thick and
    orange, the chosen one, if it is another, thick and black; failed ones are dotted and end before
    the last axis. A hyperparameter that was not active in a trial stands left of its axis.

    Args:
        trials: columns `trial`, `score` and one per hyperparameter.
        samplings: the columns to show, in order: `"linear"`, `"log"` or, for what is no number,
            `None`.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        chosen: number of the trial that was chosen.

    Example:

    >>> trials = pd.DataFrame({"trial": [1, 0], "score": [0.2, 0.3], "l2": [1e-4, 1e-2]})
    >>> figure = parallel_coordinates(
    ...     trials, {"l2": "log"}, objective="val_data_loss", direction="min"
    ... )
    >>> figure.axes[0].lines[-1].get_xdata().tolist()
    [0.0, 0.0]
    """
    scores = trials["score"].to_numpy(float)
    completed = np.isfinite(scores)
    columns, ticks = [], []
    for name, sampling in samplings.items():
        positions, marks = unit_positions(parameter_axis(trials, name, sampling))
        columns.append(np.where(np.isnan(positions), _OFF, positions))
        if (columns[-1] < 0).any():
            marks = [*marks, (_OFF, "off")]
        ticks.append(marks)
    names = list(samplings)
    if completed.any():
        positions, marks = _score_positions(scores, completed, objective, direction)
        columns.append(positions)
        ticks.append(marks)
        names.append(with_direction(objective, direction))
    figure, axes = new_figure(WIDTH, 0.5 + 0.72 * len(columns))
    for height, (name, marks) in enumerate(zip(names, ticks, strict=True)):
        _draw_axis(axes, height, name, marks)
    lines = np.column_stack(columns) if columns else np.empty((len(trials), 0))
    failed = lines[~completed][:, : len(samplings)]
    _add_lines(axes, failed, colors="grey", linestyles=":", linewidths=1.0)
    if completed.any():
        # the best ones last, upon the others
        order = np.argsort(-scores if direction == "min" else scores)
        order = order[completed[order]]
        norm, colors = color_scale(scores[completed], direction)
        _add_lines(
            axes,
            lines[order],
            colors=colormaps[colors](norm(scores[order])),
            linewidths=1.1,
            alpha=0.75 if len(order) <= 300 else 0.4,
        )
        heights = np.arange(len(columns))
        best, chosen_row = best_row(scores, direction), trial_row(trials, chosen)
        if chosen_row is not None and chosen_row != best:
            axes.plot(
                lines[chosen_row], heights, color="black", linewidth=3.0, marker="o", zorder=3
            )
        axes.plot(lines[best], heights, color=BEST, linewidth=3.0, marker="o", zorder=3)
    left = min((float(column.min()) for column in columns), default=0.0)
    axes.set_xlim(left - 0.06, 1.06)
    axes.set_ylim(len(columns) - 0.5, -0.55)
    axes.set_axis_off()
    return figure


def _score_positions(
    scores: np.ndarray, completed: np.ndarray, objective: str, direction: str
) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return places and ticks of the scores; those far off stand at the end of the axis."""
    limit = far_limit(scores[completed], direction)
    clip = np.minimum if direction == "min" else np.maximum
    positions, marks = unit_positions(ParameterAxis(objective, False, clip(scores, limit)))
    if is_beyond(scores[completed], limit, direction).any():
        end = 1.0 if direction == "min" else 0.0
        marks = [mark for mark in marks if abs(mark[0] - end) > 0.2] + [(end, "beyond")]
    return positions, marks


def _draw_axis(axes: Axes, height: int, name: str, marks: list[tuple[float, str]]) -> None:
    axes.plot([0, 1], [height, height], color="black", linewidth=0.9, zorder=2.5)
    for place, words in marks:
        axes.plot([place, place], [height, height + 0.06], color="black", linewidth=0.9)
        side = "center"
        if len(words) > 8 and "$" not in words:  # it would stand out of the figure
            side = {0.0: "left", 1.0: "right"}.get(place, side)
        axes.text(place, height + 0.1, words, ha=side, va="top", fontsize=8.5, **PAPER)
    label = plain_text(name, 56)
    axes.text(0.0, height - 0.1, label, va="bottom", weight="bold", fontsize=9, **PAPER)


def _add_lines(axes: Axes, places: np.ndarray, **style: Any) -> None:
    """Draw a line per row down the axes, all of them as one collection."""
    if places.size:
        heights = np.broadcast_to(np.arange(places.shape[1]), places.shape)
        axes.add_collection(LineCollection(list(np.stack([places, heights], axis=-1)), **style))
