"""The figure of penalties: what each layer adds to the loss, by kind."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.style import (
    BEST,
    NONZERO,
    TRAINING,
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
    plain_text,
)

_COLORS = {
    "kernel": VALIDATION,
    "bias": TRAINING,
    "weight": "#56b4e9",
    "activity": BEST,
    "added": NONZERO,
}
_MOST_LAYERS = 30


def penalty_bars(table: pd.DataFrame, *, loss: float | None, total: float) -> Figure:
    """Return one bar a layer, made of its kinds of penalty, the first layer on top.

    Args:
        table: one row a layer, a column for each kind and `total`.
        loss: the whole loss, of which the penalties are a part; `None` if not known.
        total: of all penalties.

    Example:

    >>> table = pd.DataFrame({"kernel": [0.5], "bias": [0.1], "total": [0.6]}, index=["dense"])
    >>> len(penalty_bars(table, loss=1.2, total=0.6).axes[0].patches)
    2
    """
    shown, left_out = table, 0
    if len(table) > _MOST_LAYERS:
        largest = table["total"].abs().nlargest(_MOST_LAYERS).index
        shown, left_out = table[table.index.isin(largest)], len(table) - _MOST_LAYERS
    figure, axes = new_figure(WIDTH, 1.6 + 0.26 * max(2, len(shown)))
    places = np.arange(len(shown))
    start = np.zeros(len(shown))
    for kind, color in _COLORS.items():
        if kind in shown and (shown[kind] != 0).any():
            widths = shown[kind].to_numpy(float)
            axes.barh(places, widths, left=start, color=color, label=kind, height=0.7)
            start = start + widths
    axes.set_yticks(places, [plain_text(str(name), 34) for name in shown.index], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("added to the loss")
    for place, value in enumerate(shown["total"]):
        words = f" {value:.3g}" if not loss else f" {value:.3g} ({value / loss:.1%})"
        axes.text(max(0.0, value), place, words, va="center", fontsize=8)
    axes.use_sticky_edges = False  # of which each part of a bar has one, within the words
    axes.margins(x=0.25)
    if not (shown["total"] < 0).any():
        axes.set_xlim(left=0)
    title = "No penalty" if table.empty else f"Penalties: {total:.3g}"
    if loss and not table.empty:
        title += f" of a loss of {loss:.3g} ({total / loss:.1%})"
    if left_out:
        title += f"; {left_out} smaller ones left out"
    add_title_and_legend(figure, axes, title)
    return figure
