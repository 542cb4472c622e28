"""Learning curves of one trial, of all its runs and their mean."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kregs.inspection.histories import mean_curve, split_runs
from kregs.reporting.figures.style import (
    TRAINING,
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
    plain_text,
)
from kregs.reporting.tables import format_value


def learning_curves(
    history: pd.DataFrame, *, objective: str, best_epoch: int | None = None, title: str = ""
) -> Figure:
    """Return one trial's objective, and the same metric in training, by epoch.

    Several runs are drawn thin, their mean thick; in it a run that ended goes on at its last value.

    Args:
        history: columns `epoch`, one per metric, and `fold` or `seed` if there are several runs,
            as `SearchResult.history()` returns it.
        objective: the metric to show; without `val_` it is the one in training.
        best_epoch: marked with a vertical line.
        title: above the figure.

    Example:

    >>> history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    >>> axes = learning_curves(history, objective="val_loss").axes[0]
    >>> [line.get_label() for line in axes.lines]
    ['training: loss', 'validation: val_loss']
    """
    figure, axes = new_figure(WIDTH, 3.7)
    runs = list(split_runs(history))
    drawn: list[pd.Series] = []
    for name, color, style, side in (
        (objective.removeprefix("val_"), TRAINING, "--", "training"),
        (objective, VALIDATION, "-", "validation"),
    ):
        if name not in history or (name == objective and side == "training"):
            continue
        curves = [run.set_index("epoch")[name].astype(float) for run in runs]
        curves = [curve.where(np.isfinite(curve)) for curve in curves]
        if len(curves) > 1:
            for curve in curves:
                axes.plot(
                    curve.index, curve, color=color, linestyle=style, linewidth=0.8, alpha=0.5
                )
        mean = mean_curve(curves)
        axes.plot(
            mean.index,
            mean,
            color=color,
            linestyle=style,
            linewidth=2.2,
            label=f"{side}: {plain_text(name, 40)}",
            marker="o" if mean.notna().sum() < 3 else None,
        )
        drawn += curves
    values = np.concatenate([curve.to_numpy() for curve in drawn]) if drawn else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.text(0.5, 0.5, "no number was logged", ha="center", transform=axes.transAxes)
    elif values.min() > 0 and values.max() / values.min() > 20:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value)))
        axes.yaxis.set_minor_locator(NullLocator())
    if best_epoch is not None:
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch: {best_epoch}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(plain_text(objective.removeprefix("val_"), 40))
    add_title_and_legend(figure, axes, title, columns=2)
    return figure
