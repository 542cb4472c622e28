"""One hyperparameter as positions along an axis: scale, ticks, and the place of exactly 0."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kregs.reporting.figures.style import plain_text
from kregs.reporting.tables import format_value


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterAxis:
    """Where each trial stands on the axis of a hyperparameter.

    Args:
        name: the hyperparameter's.
        logarithmic: whether the axis is.
        positions: one per trial, as plotted.
        zero: where exactly 0 stands on a logarithmic axis.
        categories: names of the positions 0, 1, ... of what is no number.
    """

    name: str
    logarithmic: bool
    positions: np.ndarray
    zero: float | None = None
    categories: tuple[str, ...] = ()


def parameter_axis(trials: pd.DataFrame, name: str, sampling: str | None) -> ParameterAxis:
    """Return the axis of a column.

    Args:
        trials: one row a trial.
        name: the column.
        sampling: `"linear"`, `"log"` or, for what is no number, `None`.

    Example:

    >>> axis = parameter_axis(pd.DataFrame({"norm": ["none", "batch"]}), "norm", None)
    >>> axis.categories, axis.positions.tolist()
    (('batch', 'none'), [1.0, 0.0])
    """
    column = trials[name]
    if sampling is None:
        categories = tuple(sorted(column.dropna().astype(str).unique()))
        places = {category: float(place) for place, category in enumerate(categories)}
        positions = column.astype(str).map(places).to_numpy(float)
        return ParameterAxis(name, False, positions, categories=categories)
    values = column.to_numpy(float)
    if sampling != "log" or not (values > 0).any():
        return ParameterAxis(name, False, values)
    if not (values == 0).any():
        return ParameterAxis(name, True, values)
    smallest, largest = values[values > 0].min(), values[values > 0].max()
    step = max((largest / smallest) ** 0.08, 2.0)
    zero = smallest / step**2
    return ParameterAxis(name, True, np.where(values == 0, zero, values), zero=zero)


def format_axis(axes: Axes, axis: ParameterAxis, side: Literal["x", "y"]) -> None:
    """Name and scale one side of the axes, and mark the place of exactly 0."""
    across = side == "x"
    ticks = axes.xaxis if across else axes.yaxis
    ticks.set_label_text(plain_text(axis.name, 48))
    if axis.categories:
        _name_categories(axes, axis, across)
        return
    if not axis.logarithmic:
        if (axis.positions % 1 == 0).any() and not (axis.positions % 1 > 0).any():
            ticks.set_major_locator(MaxNLocator(integer=True))
        return
    (axes.set_xscale if across else axes.set_yscale)("log")
    zero = axis.zero
    if zero is None:
        return
    positive = axis.positions[axis.positions > zero]
    smallest, largest = positive.min(), positive.max()
    powers = [
        power
        for power in LogLocator().tick_values(smallest, largest)
        if power > zero and smallest / 1.5 <= power <= largest * 1.5
    ]
    ticks.set_major_locator(FixedLocator([zero, *powers]))
    ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(
        FuncFormatter(lambda place, _: "0" if place == zero else _power_of_ten(place))
    )
    border = float(np.sqrt(zero * smallest))
    (axes.axvline if across else axes.axhline)(border, color="grey", linestyle="--", alpha=0.7)


def _name_categories(axes: Axes, axis: ParameterAxis, across: bool) -> None:
    ticks = axes.xaxis if across else axes.yaxis
    names = axis.categories
    every = -(-len(names) // 30)  # more names than that would lie upon each other
    longest = max(10, 60 // -(-len(names) // every)) if across else 20
    ticks.set_major_locator(FixedLocator(range(0, len(names), every)))
    ticks.set_major_formatter(
        FuncFormatter(lambda place, _: plain_text(names[round(place)], longest))
    )
    if across and sum(min(len(name), longest) for name in names[::every]) > 50:
        ticks.set_tick_params(labelrotation=90)
    (axes.set_xlim if across else axes.set_ylim)(-0.5, len(names) - 0.5)


def unit_positions(axis: ParameterAxis) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return an axis's positions scaled to 0 ... 1, and where its ticks are and what they say."""
    if axis.categories:
        last = max(len(axis.categories) - 1, 1)
        every = -(-len(axis.categories) // 8)
        longest = max(6, 64 // len(axis.categories))
        return axis.positions / last, [
            (place / last, plain_text(category, longest))
            for place, category in list(enumerate(axis.categories))[::every]
        ]
    values = axis.positions
    known = np.unique(values[np.isfinite(values)])
    if not len(known):
        return np.full(len(values), np.nan), []
    low, high = (np.log10(known[[0, -1]]) if axis.logarithmic else known[[0, -1]]).tolist()

    def scaled(numbers: Any) -> Any:
        if low == high:
            return np.where(np.isnan(numbers), np.nan, 0.5)
        return ((np.log10(numbers) if axis.logarithmic else numbers) - low) / (high - low)

    if len(known) <= 5 and (np.diff(scaled(known)) > 0.15).all():
        marks = known
    elif axis.logarithmic:
        powers = 10.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
        within = ((powers >= known[0]) & (powers <= known[-1])).sum()
        marks = powers[:: 1 + within // 6] if within > 2 else np.outer(powers, (1, 2, 5)).ravel()
    else:
        marks = np.asarray(MaxNLocator(nbins=5).tick_values(low, high))
    if axis.zero is not None:
        marks = np.concatenate([[axis.zero], marks[marks > known[1] / 1.01]])
    elif len(marks) < 2 or ((marks >= known[0]) & (marks <= known[-1])).sum() < 2:
        marks = known[[0, -1]] if len(known) > 1 else known
    marks = marks[(marks >= known[0]) & (marks <= known[-1])]
    labels = ["0" if mark == axis.zero else _tick_label(float(mark)) for mark in marks]
    return scaled(values), list(zip(scaled(marks).tolist(), labels, strict=True))


def _tick_label(value: float) -> str:
    power = np.log10(value) if value > 0 else 0.5
    if (value <= 1e-2 or value >= 1e4) and abs(power - round(power)) < 1e-9:
        return _power_of_ten(value)
    return format_value(value)


def _power_of_ten(value: float) -> str:
    return f"$10^{{{round(np.log10(value))}}}$"
