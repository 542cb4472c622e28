"""The figure of a regularization path: what λ does to the error and to the weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kregs.reporting.figures.parameter_axis import ParameterAxis, format_axis, parameter_axis
from kregs.reporting.figures.style import BEST, NONZERO, TRAINING, VALIDATION, plain_text
from kregs.search.space import scale_of


def path_figure(
    frame: pd.DataFrame,
    name: str,
    *,
    objective: str,
    best: float,
    one_standard_error: float,
) -> Figure:
    """Return train and validation curves with error bars, and below them what the weights do.

    Args:
        frame: one row a value, in increasing order: columns `name`, `train`, `validation`,
            `standard_error`, `norm`, `nonzero`.
        name: the hyperparameter's column.
        objective: what the validation score is called.
        best, one_standard_error: the values to mark.

    Example:

    >>> path = pd.DataFrame({"l2": [0.0, 0.1], "train": [0.1, 0.2], "validation": [0.4, 0.3],
    ...                      "standard_error": 0.05, "norm": [2.0, 1.0], "nonzero": 1.0})
    >>> figure = path_figure(path, "l2", objective="val_data_loss", best=0.1,
    ...                      one_standard_error=0.1)
    >>> figure.axes[1].get_xlabel()
    'l2'
    """
    figure = Figure(figsize=(6.4, 6.0), dpi=120, layout="constrained")
    errors_panel, weights_panel = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    values = frame[name].to_numpy()
    axis = parameter_axis(frame, name, scale_of(values))
    _draw_errors(errors_panel, axis, frame, objective)
    share_axes = _draw_weights(weights_panel, axis, frame)
    format_axis(weights_panel, axis, "x")
    places = dict(zip(values.tolist(), axis.positions.tolist(), strict=True))
    for panel in (errors_panel, weights_panel):
        panel.grid(alpha=0.25, linewidth=0.6)
        _mark(panel, places[best], "best", BEST, "-")
        _mark(panel, places[one_standard_error], "one standard error", "black", ":")
    handles, labels = errors_panel.get_legend_handles_labels()
    for axes in (share_axes, weights_panel):  # of the panel below, the marks once
        handles.append(axes.get_legend_handles_labels()[0][0])
        labels.append(axes.get_legend_handles_labels()[1][0])
    figure.legend(handles, labels, loc="outside lower left", ncols=2, fontsize=9, frameon=False)
    errors_panel.set_title(plain_text(f"{objective} along {name}"), loc="left", fontsize=11)
    return figure


def _draw_errors(axes: Axes, axis: ParameterAxis, frame: pd.DataFrame, objective: str) -> None:
    validation = frame["validation"]
    axes.errorbar(
        axis.positions,
        validation,
        yerr=frame["standard_error"].fillna(0.0),
        color=VALIDATION,
        marker="o",
        markersize=3.5,
        capsize=2,
        linewidth=1,
        label=plain_text(f"{objective} ± standard error"),
    )
    if frame["train"].notna().any():
        axes.plot(
            axis.positions,
            frame["train"],
            color=TRAINING,
            linestyle="--",
            linewidth=1.4,
            label=plain_text(f"{objective.removeprefix('val_')} in training"),
        )
    axes.set_ylabel(plain_text(objective))
    if (validation > 0).all() and validation.max() > 20 * validation.min():
        axes.set_yscale("log")


def _draw_weights(axes: Axes, axis: ParameterAxis, frame: pd.DataFrame) -> Axes:
    """Draw the weights' norm and, on an axis at the right, the share that is not 0; return it."""
    axes.plot(axis.positions, frame["norm"], color=VALIDATION, linewidth=1.4, label="weight norm")
    axes.set_ylabel("weight norm")
    axes.set_ylim(bottom=0)
    share_axes = axes.twinx()
    share_axes.plot(
        axis.positions,
        100 * frame["nonzero"],
        color=NONZERO,
        linestyle="-.",
        linewidth=1.4,
        label="non-zero weights",
    )
    share_axes.set_ylabel("non-zero weights, %")
    share_axes.set_ylim(-3, 103)
    return share_axes


def _mark(axes: Axes, place: float, label: str, color: str, style: str) -> None:
    if np.isfinite(place):
        axes.axvline(place, color=color, linestyle=style, linewidth=1.2, label=label, zorder=1)
