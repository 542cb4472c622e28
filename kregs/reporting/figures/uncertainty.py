"""What uncertainty is worth: the error of the rows that a model is surest of."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from kregs.reporting.figures.style import (
    POINT,
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
)


def uncertainty_histogram(uncertainty: np.ndarray, name: str, title: str) -> Figure:
    """Return how many rows are how uncertain.

    Args:
        uncertainty: one number a row.
        name: what it is called, with its unit.
        title: what is said of it.

    Example:

    >>> uncertainty_histogram(np.arange(9.0), "entropy, nats", "9 rows").axes[0].get_ylabel()
    'rows'
    """
    figure, axes = new_figure(WIDTH, 3.4)
    axes.hist(uncertainty, bins=min(40, 1 + len(uncertainty) // 4), color=POINT)
    axes.set_xlabel(name)
    axes.set_ylabel("rows")
    add_title_and_legend(figure, axes, title)
    return figure


def error_of_the_surest(
    uncertainty: np.ndarray, errors: np.ndarray, *, error_name: str, name: str, root: bool
) -> Figure:
    """Return the error of the rows that remain where the most uncertain ones are left out.

    Args:
        uncertainty: one number a row.
        errors: of each row, what is averaged.
        error_name: what the average is called.
        name: what the uncertainty is called.
        root: take the square root of the average.

    Example:

    >>> figure = error_of_the_surest(np.arange(9.0), np.arange(9) > 6, error_name="error rate",
    ...                              name="entropy", root=False)
    >>> figure.axes[0].lines[0].get_ydata()[-1].round(3)
    np.float64(0.222)
    """
    figure, axes = new_figure(WIDTH, 3.8)
    ordered = np.asarray(errors, dtype="float64")[np.argsort(uncertainty, kind="stable")]
    kept = np.arange(1, len(ordered) + 1)
    averages = np.cumsum(ordered) / kept
    averages = np.sqrt(averages) if root else averages
    first = max(0, len(ordered) // 20 - 1)  # the mean of a few rows is mere noise
    axes.plot(
        100 * kept[first:] / len(ordered), averages[first:], color=VALIDATION, label="surest first"
    )
    axes.axhline(averages[-1], color="black", linewidth=0.8, linestyle="--", label="all rows")
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel(f"rows kept, those of least {name}, %")
    axes.set_ylabel(error_name)
    add_title_and_legend(figure, axes, f"Leaving out the rows of most {name}")
    return figure
