"""The reliability diagram: how often a classifier is right, against how sure it is."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.style import (
    BEST,
    PAPER,
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
)

_COLOURS = (VALIDATION, BEST)


def reliability(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Return accuracy against confidence, bin by bin; the larger a dot, the more rows in the bin.

    Args:
        curves: name to bins, columns `confidence`, `accuracy` and `rows`; at most two.
        title: what is said of them.

    Example:

    >>> bins = pd.DataFrame({"confidence": [0.6, 0.9], "accuracy": [0.5, 0.9], "rows": [10, 30]})
    >>> reliability({"model": bins}, "ECE 0.03").axes[0].get_ylabel()
    'accuracy'
    """
    figure, axes = new_figure(WIDTH, 4.4)
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="calibrated")
    for (name, bins), colour, marker in zip(curves.items(), _COLOURS, "os", strict=False):
        shares = bins["rows"] / bins["rows"].sum()
        axes.plot(
            bins["confidence"],
            bins["accuracy"],
            color=colour,
            marker=marker,
            markersize=4,
            label=name,
        )
        axes.scatter(
            bins["confidence"],
            bins["accuracy"],
            s=12 + 260 * shares,
            color=colour,
            marker=marker,
            alpha=0.6,
        )
    lowest = min(float(bins[["confidence", "accuracy"]].min().min()) for bins in curves.values())
    axes.set_xlim(max(0.0, lowest - 0.08), 1.03)
    axes.set_ylim(max(0.0, lowest - 0.08), 1.03)
    for place, words, sides in (
        ((0.04, 0.96), "less sure than right", ("left", "top")),
        ((0.96, 0.04), "surer than right", ("right", "bottom")),
    ):
        horizontal, vertical = sides
        axes.text(
            *place, words, transform=axes.transAxes, ha=horizontal, va=vertical, fontsize=9, **PAPER
        )
    axes.set_xlabel("confidence: probability of the predicted class")
    axes.set_ylabel("accuracy")
    axes.set_aspect("equal")
    axes.locator_params(nbins=6)
    add_title_and_legend(figure, axes, f"Reliability: {title}")
    return figure
