"""The importance of hyperparameters as bars."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.style import (
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
    plain_text,
)


def importance_bars(table: pd.DataFrame, *, r2: float, rows: int = 12) -> Figure:
    """Return the importance of hyperparameters as bars with standard errors.

    Args:
        table: columns `hyperparameter`, `importance`, `standard_error`, most important first.
        r2: how well the forest behind them predicts, for the title.
        rows: how many to show.

    Example:

    >>> table = pd.DataFrame({"hyperparameter": ["l2"], "importance": 0.5, "standard_error": 0.1})
    >>> importance_bars(table, r2=0.7).axes[0].get_yticklabels()[0].get_text()
    'l2'
    """
    shown = table.head(rows)
    figure, axes = new_figure(WIDTH, 1.3 + 0.34 * max(len(shown), 2))
    heights = np.arange(len(shown))
    axes.barh(
        heights,
        shown["importance"],
        xerr=shown["standard_error"],
        color=VALIDATION,
        ecolor="black",
        capsize=3,
        height=0.65,
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(heights, [plain_text(name, 28) for name in shown["hyperparameter"]])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("fall of R² when shuffled")
    add_title_and_legend(figure, axes, f"Importance, by a forest with R² = {r2:.2f}")
    return figure
