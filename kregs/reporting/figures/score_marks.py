"""Scores in figures: colours, and marks for the best, the chosen, failed and far-off trials."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from kregs.reporting.figures.style import BEST
from kregs.reporting.tables import format_value


def best_row(scores: np.ndarray, direction: str) -> int:
    """Return the place of the best score; NaN is none."""
    return int(np.nanargmin(scores) if direction == "min" else np.nanargmax(scores))


def trial_row(trials: pd.DataFrame, number: int | None) -> int | None:
    """Return the row of a trial that has a score, `None` if there is no such trial."""
    rows = np.flatnonzero((trials["trial"] == number).to_numpy() & trials["score"].notna())
    return int(rows[0]) if len(rows) else None


def far_limit(scores: np.ndarray, direction: str) -> float:
    """Return the score beyond which a trial would squeeze the others.

    As far beyond the worst tenth's border as the best score is on this side of it.
    """
    best = scores.min() if direction == "min" else scores.max()
    border = np.quantile(scores, 0.9 if direction == "min" else 0.1)
    return float(border + (border - best))


def is_beyond(scores: np.ndarray, limit: float, direction: str) -> np.ndarray:
    """Return which scores are worse than a limit."""
    return scores > limit if direction == "min" else scores < limit


def color_scale(scores: np.ndarray, direction: str) -> tuple[Normalize, str]:
    """Return how scores become colours: dark is good in both directions."""
    best = scores.min() if direction == "min" else scores.max()
    # the worst tenth, often far off, must not take all the colours
    limit = np.quantile(scores, 0.9 if direction == "min" else 0.1)
    if limit == best:
        limit = scores.max() if direction == "min" else scores.min()
    return Normalize(*sorted((best, limit))), "viridis" if direction == "min" else "viridis_r"


def scatter_by_score(
    figure: Figure,
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    scores: np.ndarray,
    direction: str,
    *,
    label: str,
) -> None:
    """Scatter points coloured by their scores, with a colour bar."""
    norm, colors = color_scale(scores, direction)
    limit = float((norm.vmax if direction == "min" else norm.vmin) or 0.0)
    extend = "neither"
    if is_beyond(scores, limit, direction).any():
        extend = "max" if direction == "min" else "min"
    points = axes.scatter(
        x, y, c=scores, s=46, cmap=colors, norm=norm, edgecolors="black", linewidths=0.4
    )
    figure.colorbar(points, ax=axes, extend=extend, label=label)


def mark_best(axes: Axes, x: np.ndarray, y: np.ndarray, scores: np.ndarray, direction: str) -> None:
    """Mark the best trial with a star."""
    best = best_row(scores, direction)
    axes.scatter(
        x[best],
        y[best],
        marker="*",
        s=260,
        color=BEST,
        edgecolors="white",
        linewidths=1.0,
        zorder=3,
        label=f"best: {format_value(float(scores[best]))}",
    )


def mark_chosen(
    axes: Axes,
    trials: pd.DataFrame,
    x: np.ndarray,
    y: np.ndarray,
    direction: str,
    chosen: int | None,
) -> None:
    """Mark the trial that was chosen with a diamond, where it is not the best."""
    row = trial_row(trials, chosen)
    if row is None or row == best_row(trials["score"].to_numpy(float), direction):
        return
    axes.scatter(
        x[row],
        y[row],
        marker="D",
        s=110,
        facecolors="none",
        edgecolors="black",
        linewidths=2.0,
        zorder=3,
        label=f"chosen: {format_value(float(trials['score'].iloc[row]))}",
    )


def mark_at_height(axes: Axes, x: np.ndarray, height: float, marker: str, label: str) -> None:
    """Mark what has no place on the y axis, at a fraction of its height."""
    if len(x):
        heights = np.full(len(x), height)
        transform = axes.get_xaxis_transform()
        axes.scatter(x, heights, marker=marker, color="grey", label=label, transform=transform)


def mark_failed(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Mark trials without a score with crosses."""
    if len(x):
        axes.scatter(x, y, marker="x", s=36, color="grey", label="failed")
