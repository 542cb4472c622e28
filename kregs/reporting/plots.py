"""Plots, as matplotlib figures that belong to no window and change no global state."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from kregs.reporting.tables import format_value

# shown first where they were searched, in this order
_PENALTIES = ("l2", "l1", "activity_l2", "activity_l1", "bias_l2", "bias_l1", "weight_decay")
_RATES = ("dropout", "spatial_dropout", "input_dropout", "drop_path", "gaussian_noise")

_BEST = "#d62728"
_POINT = "#31688e"  # from the middle of viridis


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One hyperparameter as positions along an axis."""

    name: str
    logarithmic: bool
    positions: np.ndarray  # one per trial, as plotted
    zero: float | None = None  # where exactly 0 stands on a log axis
    words: tuple[str, ...] = ()  # names of the positions 0, 1, ... of what is no number


def search_map(
    trials: pd.DataFrame,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    objective: str,
    direction: str,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Return a map of the objective over the two most telling hyperparameters.

    A penalty's coefficient and a dropout rate if they were searched, else the numbers whose values
    are spread most. One number alone, or words only: the objective over it. A coefficient of
    exactly 0 stands at the left of a logarithmic axis, beyond a dashed line. The best trial is
    marked with a star, failed ones with a cross.

    Args:
        trials: columns `trial`, `score`, `status` and one per hyperparameter, as
            `SearchResult.trials()` returns it.
        hyperparameters: per column, `{"sampling": "linear" | "log" | None}`; `None` for what is no
            number.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        path: also write the figure there; the suffix gives the format. Default: do not.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> trials = pd.DataFrame(
    ...     {"trial": [1, 0], "score": [0.2, 0.3], "status": "completed", "l2": [1e-4, 1e-2]}
    ... )
    >>> figure = search_map(
    ...     trials, {"l2": {"sampling": "log"}}, objective="val_data_loss", direction="min"
    ... )
    >>> figure.axes[0].get_xlabel()
    'l2'
    """
    figure = Figure(figsize=(7.0, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    done = trials["score"].notna().to_numpy()
    better = "lower" if direction == "min" else "higher"
    chosen = _choose(trials, hyperparameters)
    count = f"{len(trials)} trials" if len(trials) != 1 else "1 trial"
    if len(chosen) == 2:
        x = _axis(trials, chosen[0], hyperparameters)
        y = _axis(trials, chosen[1], hyperparameters)
        _scatter_map(figure, axes, x, y, trials["score"].to_numpy(float), done, direction)
        if done.any():
            figure.axes[-1].set_ylabel(f"{objective} ({better} is better)")
        _dress(axes, x, "x")
        _dress(axes, y, "y")
        title = f"{objective} over {x.name} and {y.name}, {count}"
    else:
        x = (
            _axis(trials, chosen[0], hyperparameters)
            if chosen
            else _Axis("trial", False, trials["trial"].to_numpy(float))
        )
        _scatter_line(axes, x, trials["score"].to_numpy(float), done, direction)
        _dress(axes, x, "x")
        axes.set_ylabel(f"{objective} ({better} is better)")
        title = f"{objective} over {x.name}, {count}"
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if len(axes.get_legend_handles_labels()[0]):
        figure.legend(loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    if path is not None:
        figure.savefig(Path(path))
    return figure


def _choose(trials: pd.DataFrame, hyperparameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the one or two columns to show."""
    varied = [name for name in hyperparameters if name in trials and trials[name].nunique() > 1]
    numbers = [name for name in varied if hyperparameters[name]["sampling"] is not None]
    if not numbers:
        return varied[:1]
    spread = {
        name: _spread(trials[name].dropna().to_numpy(float), hyperparameters[name]["sampling"])
        for name in numbers
    }
    by_spread = sorted(numbers, key=lambda name: -spread[name])
    across = _first(_PENALTIES, numbers)
    up = _first(_RATES, numbers)
    ordered = [name for name in (across, up) if name]
    ordered += [name for name in by_spread if name not in ordered]
    pair = ordered[:2]
    # a logarithmic axis reads better across than up
    pair.sort(key=lambda name: hyperparameters[name]["sampling"] != "log")
    return pair


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first name that is a wanted one, or ends with it after a prefix."""
    return next(
        (name for word in wanted for name in names if name == word or name.endswith(f"_{word}")),
        None,
    )


def _spread(values: np.ndarray, sampling: str) -> float:
    """Return how evenly values lie between their smallest and largest, from 0 to about 0.5."""
    if sampling == "log":
        values = np.log(values[values > 0])
    extent = np.ptp(values) if len(values) else 0.0
    return float(np.std(values) / extent) if extent else 0.0


def _axis(
    trials: pd.DataFrame, name: str, hyperparameters: Mapping[str, Mapping[str, Any]]
) -> _Axis:
    column = trials[name]
    sampling = hyperparameters[name]["sampling"]
    if sampling is None:
        words = tuple(sorted(column.dropna().astype(str).unique()))
        places = {word: float(i) for i, word in enumerate(words)}
        return _Axis(name, False, column.astype(str).map(places).to_numpy(float), words=words)
    values = column.to_numpy(float)
    if sampling != "log" or not (values > 0).any():
        return _Axis(name, False, values)
    smallest, largest = values[values > 0].min(), values[values > 0].max()
    if not (values == 0).any():
        return _Axis(name, True, values)
    gap = max((largest / smallest) ** 0.08, 2.0)
    zero = smallest / gap**2
    return _Axis(name, True, np.where(values == 0, zero, values), zero=zero)


def _scatter_map(
    figure: Figure,
    axes: Axes,
    x: _Axis,
    y: _Axis,
    scores: np.ndarray,
    done: np.ndarray,
    direction: str,
) -> None:
    shown = scores[done]
    if not len(shown):
        _crosses(axes, x.positions, y.positions)
        return
    best = shown.min() if direction == "min" else shown.max()
    # the worst tenth, often far off, must not take all the colours
    limit = np.quantile(shown, 0.9 if direction == "min" else 0.1)
    if limit == best:
        limit = shown.max() if direction == "min" else shown.min()
    extend = "neither" if not _beyond(shown, limit, direction) else _side(direction)
    # dark is good in both directions
    points = axes.scatter(
        x.positions[done],
        y.positions[done],
        c=shown,
        s=46,
        cmap="viridis" if direction == "min" else "viridis_r",
        norm=Normalize(*sorted((best, limit))),
        edgecolors="black",
        linewidths=0.4,
    )
    figure.colorbar(points, ax=axes, extend=extend)
    _crosses(axes, x.positions[~done], y.positions[~done])
    _star(axes, x, y.positions, scores, direction)


def _beyond(shown: np.ndarray, limit: float, direction: str) -> bool:
    return bool((shown > limit).any() if direction == "min" else (shown < limit).any())


def _side(direction: str) -> str:
    return "max" if direction == "min" else "min"


def _scatter_line(
    axes: Axes, x: _Axis, scores: np.ndarray, done: np.ndarray, direction: str
) -> None:
    shown = scores[done]
    off = np.zeros(len(scores), dtype=bool)
    if len(shown):
        best = shown.min() if direction == "min" else shown.max()
        worst = np.quantile(shown, 0.9 if direction == "min" else 0.1)
        limit = worst + (worst - best)  # far beyond the rest, a trial would squeeze the others
        off[done] = shown > limit if direction == "min" else shown < limit
    near = done & ~off
    axes.scatter(x.positions[near], scores[near], s=40, color=_POINT, edgecolors="black")
    edge = 0.97 if direction == "min" else 0.03
    _at_height(axes, x.positions[off], edge, "^" if direction == "min" else "v", "off the scale")
    _at_height(axes, x.positions[~done], 1 - edge, "x", "failed")
    if len(shown):
        _star(axes, x, scores, scores, direction)


def _at_height(axes: Axes, x: np.ndarray, height: float, marker: str, label: str) -> None:
    """Mark what has no place on the y axis, at a fraction of its height."""
    if len(x):
        transform = axes.get_xaxis_transform()
        heights = np.full(len(x), height)
        axes.scatter(x, heights, marker=marker, color="grey", label=label, transform=transform)


def _crosses(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x):
        axes.scatter(x, y, marker="x", s=36, color="grey", label="failed")


def _star(axes: Axes, x: _Axis, y: np.ndarray, scores: np.ndarray, direction: str) -> None:
    best = int(np.nanargmin(scores) if direction == "min" else np.nanargmax(scores))
    axes.scatter(
        x.positions[best],
        y[best],
        marker="*",
        s=260,
        color=_BEST,
        edgecolors="white",
        linewidths=1.0,
        zorder=3,
        label=f"best: {format_value(float(scores[best]))}",
    )


def _dress(axes: Axes, axis: _Axis, which: str) -> None:
    """Name an axis, scale it, and mark the place of exactly 0."""
    own = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.name)
    if axis.words:
        own.set_major_locator(FixedLocator(range(len(axis.words))))
        own.set_major_formatter(FuncFormatter(lambda place, _: axis.words[round(place)]))
        (axes.set_xlim if which == "x" else axes.set_ylim)(-0.5, len(axis.words) - 0.5)
        return
    if not axis.logarithmic:
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if axis.zero is None:
        return
    above = axis.positions[axis.positions > axis.zero]
    ticks = [t for t in LogLocator().tick_values(above.min(), above.max()) if t > axis.zero]
    smallest = above.min()
    ticks = [t for t in ticks if smallest / 1.5 <= t <= above.max() * 1.5]
    own.set_major_locator(FixedLocator([axis.zero, *ticks]))
    own.set_minor_locator(NullLocator())
    zero = axis.zero
    own.set_major_formatter(FuncFormatter(lambda place, _: "0" if place == zero else _power(place)))
    edge = float(np.sqrt(axis.zero * smallest))
    (axes.axvline if which == "x" else axes.axhline)(edge, color="grey", linestyle="--", alpha=0.7)


def _power(value: float) -> str:
    return f"$10^{{{round(np.log10(value))}}}$"
