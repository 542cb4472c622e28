"""Figures of what was measured by several seeds: means with standard errors, and maps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kregs.reporting.figures.style import (
    BEST,
    NONZERO,
    TRAINING,
    VALIDATION,
    WIDTH,
    plain_text,
)
from kregs.reporting.tables import format_value

_COLOURS = (VALIDATION, BEST, NONZERO, TRAINING, "#cc79a7", "#56b4e9", "black")
_MARKERS = "os^Dv<>"


def panels(count: int, *, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, side by side.

    Args:
        count: 1 or 2.
        height: in inches.

    Example:

    >>> len(panels(2)[1])
    2
    """
    figure = Figure(figsize=(WIDTH if count == 1 else 8.4, height), dpi=100, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def lines_with_errors(
    axes: Axes, runs: pd.DataFrame, x: str, y: str, by: str, *, xlabel: str, ylabel: str
) -> None:
    """Draw the mean of `y` over `x`, one line a value of `by`, with standard errors.

    The values of `x` stand at equal distances, so that a λ of 0 has its place.

    Args:
        axes: where to draw.
        runs: one row a run.
        x, y, by: columns.
        xlabel, ylabel: words at the axes.

    Example:

    >>> _, (axes,) = panels(1)
    >>> runs = pd.DataFrame({"l2": [0.0, 1e-3], "loss": [0.3, 0.2], "kind": "a"})
    >>> lines_with_errors(axes, runs, "l2", "loss", "kind", xlabel="λ", ylabel="test loss")
    >>> [label.get_text() for label in axes.get_xticklabels()]
    ['0', '0.001']
    """
    ticks = sorted(runs[x].unique())
    # lines that meet stay apart
    groups = list(runs.groupby(by, sort=False))
    offsets = np.linspace(-0.06, 0.06, len(groups)) if len(groups) > 1 else [0.0]
    styles = itertools.cycle(zip(_COLOURS, _MARKERS, strict=True))
    for (name, group), offset, (color, marker) in zip(groups, offsets, styles, strict=False):
        grouped = group.groupby(x)[y]
        centre, error = grouped.mean(), grouped.sem().fillna(0.0)
        axes.errorbar(
            [ticks.index(value) + offset for value in centre.index],
            centre,
            yerr=error,
            color=color,
            marker=marker,
            markersize=4,
            capsize=2,
            linewidth=1.2,
            label=plain_text(str(name)),
        )
    axes.set_xticks(range(len(ticks)), [format_value(tick) for tick in ticks])
    if len(ticks) > 6:
        axes.tick_params(axis="x", labelrotation=45)
    _label(axes, xlabel, ylabel)
    values = runs[y].dropna()
    if (values > 0).all() and values.max() > 20 * values.min():
        axes.set_yscale("log")


def points_with_errors(axes: Axes, runs: pd.DataFrame, y: str, by: str, *, xlabel: str) -> None:
    """Draw each run as a dot and the mean with its standard error, one row a value of `by`.

    Args:
        axes: where to draw.
        runs: one row a run.
        y, by: columns: what was measured, and of what.
        xlabel: words at the axis.

    Example:

    >>> _, (axes,) = panels(1)
    >>> points_with_errors(axes, pd.DataFrame({"loss": [1.0, 2.0], "kind": "a"}), "loss", "kind",
    ...                    xlabel="test loss")
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['a']
    """
    names = list(runs[by].unique())
    for row, name in enumerate(names):
        values = runs.loc[runs[by] == name, y].to_numpy(float)
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, row + spread, ".", color=VALIDATION, alpha=0.45)
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        axes.errorbar(values.mean(), row, xerr=error, fmt="D", color=BEST, markersize=5, capsize=3)
    axes.set_yticks(range(len(names)), [plain_text(str(name)) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    _label(axes, xlabel, "")


def value_map(
    axes: Axes, runs: pd.DataFrame, x: str, y: str, value: str, *, limits: tuple[float, float]
) -> Any:
    """Draw the mean of `value` as a grid of cells with its numbers, and frame the lowest one.

    Args:
        axes: where to draw.
        runs: one row a run.
        x, y, value: columns.
        limits: the values at both ends of the colours, on a log scale.

    Returns:
        What a colour bar is made from.

    Example:

    >>> _, (axes,) = panels(1)
    >>> runs = pd.DataFrame({"l2": [0.0, 0.1], "rate": 0.1, "loss": [0.4, 0.2]})
    >>> _ = value_map(axes, runs, "l2", "rate", "loss", limits=(0.1, 1.0))
    >>> [text.get_text() for text in axes.texts]
    ['0.40', '0.20']
    """
    grid = runs.pivot_table(index=y, columns=x, values=value, aggfunc="mean", dropna=False)
    cells = grid.to_numpy(float)
    image = axes.imshow(cells, norm="log", origin="lower", aspect="auto", cmap="viridis_r")
    image.set_clim(*limits)
    middle = np.sqrt(limits[0] * limits[1])
    for (row, column), cell in np.ndenumerate(cells):
        if np.isfinite(cell):
            color = "white" if cell > middle else "black"
            axes.text(column, row, f"{cell:.2f}", ha="center", va="center", fontsize=8, color=color)
    row, column = np.unravel_index(np.nanargmin(cells), cells.shape)
    axes.plot(column, row, "s", markersize=26, fillstyle="none", color=BEST, markeredgewidth=2)
    axes.set_xticks(range(len(grid.columns)), [format_value(value) for value in grid.columns])
    axes.set_yticks(range(len(grid.index)), [format_value(value) for value in grid.index])
    return image


def finish(figure: Figure, title: str, *, legend_of: int = 0, columns: int = 3) -> Figure:
    """Write the title over a figure of panels, draw the grids, and put the legend below.

    Args:
        figure: of `panels`.
        title: of the figure; a panel's own is kept.
        legend_of: the panel whose labels make the legend.
        columns: of the legend.

    Example:

    >>> figure, _ = panels(2)
    >>> finish(figure, "Two panels").get_suptitle()
    'Two panels'
    """
    for axes in figure.axes:
        if axes.images or axes.get_label() == "<colorbar>":
            continue
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
    handles, labels = figure.axes[legend_of].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside lower left", ncols=columns, fontsize=9, frameon=False
        )
    figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=11)
    return figure


def _label(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(plain_text(xlabel))
    axes.set_ylabel(plain_text(ylabel))
