"""How many trials took how long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kregs.reporting.figures.style import BEST, VALIDATION, WIDTH, add_title_and_legend, new_figure
from kregs.reporting.tables import format_value


def time_histogram(seconds: Sequence[float] | np.ndarray) -> Figure:
    """Return how many trials took how long.

    Args:
        seconds: one per trial that ended.

    Example:

    >>> figure = time_histogram([1.0, 1.5, 4.0])
    >>> figure.axes[0].lines[0].get_label()
    'median: 1.5 s'
    """
    figure, axes = new_figure(WIDTH, 3.2)
    values = np.asarray(seconds, dtype=float)
    values = values[np.isfinite(values)]
    if len(values):
        axes.hist(values, bins=min(20, max(5, len(values) // 3)), color=VALIDATION, ec="white")
        median = float(np.median(values))
        label = f"median: {format_value(median)} s"
        axes.axvline(median, color=BEST, linestyle="--", linewidth=2, label=label)
    axes.set_xlabel("seconds")
    axes.set_ylabel("trials")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    add_title_and_legend(figure, axes, "Time of a trial")
    return figure
