"""The figure of stability selection: in how many folds each feature survives, along λ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.parameter_axis import format_axis, parameter_axis
from kregs.reporting.figures.style import BEST, NONZERO, WIDTH, new_figure, plain_text
from kregs.search.space import scale_of

_COLOURS = (NONZERO, "#0072b2", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
_NAMED = 8  # features whose names fit beside the lines


def stability_paths(
    frequency: pd.DataFrame,
    name: str,
    *,
    selected: Sequence[str],
    counted: Sequence[float],
    threshold: float,
    folds: int,
) -> Figure:
    """Return a line a feature; those that are selected have colours and names.

    Args:
        frequency: one row a feature, one column a value of λ, in increasing order.
        name: of λ.
        selected: features, by their name in the index.
        counted: the values at which a feature may be selected; the others are shaded.
        threshold: the frequency from which on a feature is selected.
        folds: of how many the frequencies are shares.

    Example:

    >>> frequency = pd.DataFrame([[1.0, 1.0], [0.4, 0.0]], ["age", "bmi"], [0.1, 1.0])
    >>> figure = stability_paths(
    ...     frequency, "l1", selected=["age"], counted=[1.0], threshold=0.9, folds=5
    ... )
    >>> [line.get_label() for line in figure.axes[0].get_lines()][:2]
    ['not selected', 'age']
    """
    figure, axes = new_figure(WIDTH, 4.2)
    values = np.array(frequency.columns, float)
    axis = parameter_axis(pd.DataFrame({name: values}), name, scale_of(values))
    others = frequency.drop(index=list(selected))
    for i, (_, row) in enumerate(others.iterrows()):
        label = "not selected" if i == 0 else "_"
        axes.plot(axis.positions, row, color="0.65", linewidth=0.9, label=label, zorder=1)
    for i, feature in enumerate(selected):
        axes.plot(
            axis.positions,
            frequency.loc[feature],
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=("-", "--", ":")[i // len(_COLOURS) % 3],
            marker="o",
            markersize=3.5,
            label=plain_text(str(feature), 24) if i < _NAMED else "_",
            zorder=3,
        )
    axes.axhline(threshold, color=BEST, linestyle="--", linewidth=1, label="threshold")
    ignored = axis.positions[~np.isin(values, counted)]
    if len(ignored):
        around = axis.positions[len(ignored) - 1 : len(ignored) + 1]
        edge = np.exp(np.log(around).mean()) if axis.logarithmic else around.mean()
        label = "too many features survive"
        axes.axvspan(axis.positions[0], edge, color="0.93", zorder=0, label=label)
    axes.margins(x=0)
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel(f"share of {folds} folds in which a feature survives")
    format_axis(axes, axis, "x")
    axes.grid(alpha=0.25, linewidth=0.6)
    title = f"{len(selected)} of {len(frequency)} features are stable along {name}"
    axes.set_title(plain_text(title), loc="left", fontsize=11)
    figure.legend(loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    return figure
