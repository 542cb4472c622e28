"""The figure of a regularization path: what λ does to the error and to the weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kregs.reporting.plots import _BEST, _TRAINING, _VALIDATION, _axis, _dress


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
    """
    figure = Figure(figsize=(6.4, 6.0), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    values = frame[name].to_numpy()
    positive = values[values > 0]
    wide = len(positive) > 1 and positive.max() / positive.min() >= 50
    axis = _axis(frame, name, {name: {"sampling": "log" if wide else "linear"}})
    places = dict(zip(values.tolist(), axis.positions.tolist(), strict=True))
    errors = frame["standard_error"].fillna(0.0)
    above.errorbar(
        axis.positions, frame["validation"], yerr=errors, color=_VALIDATION, marker="o",
        markersize=3.5, capsize=2, linewidth=1, label=f"{objective} ± standard error",
    )  # fmt: skip
    if frame["train"].notna().any():
        above.plot(
            axis.positions, frame["train"], color=_TRAINING, linestyle="--", linewidth=1.4,
            label=f"{objective.removeprefix('val_')} in training",
        )  # fmt: skip
    above.set_ylabel(objective)
    if (frame["validation"] > 0).all() and frame["validation"].max() > 20 * frame[
        "validation"
    ].min():
        above.set_yscale("log")
    below.plot(axis.positions, frame["norm"], color=_VALIDATION, linewidth=1.4, label="weight norm")
    below.set_ylabel("weight norm")
    below.set_ylim(bottom=0)
    share = below.twinx()
    share.plot(
        axis.positions, 100 * frame["nonzero"], color="#009e73", linestyle="-.", linewidth=1.4,
        label="non-zero weights",
    )  # fmt: skip
    share.set_ylabel("non-zero weights, %")
    share.set_ylim(-3, 103)
    _dress(below, axis, "x")
    for panel in (above, below):
        panel.grid(alpha=0.25, linewidth=0.6)
        _mark(panel, places[best], "best", _BEST, "-")
        _mark(panel, places[one_standard_error], "one standard error", "black", ":")
    handles = [h for part in (above, share) for h in part.get_legend_handles_labels()[0]]
    labels = [text for part in (above, share) for text in part.get_legend_handles_labels()[1]]
    norm, norm_label = below.get_legend_handles_labels()
    figure.legend(
        [*handles, norm[0]], [*labels, norm_label[0]], loc="outside lower left", ncols=2,
        fontsize=9, frameon=False,
    )  # fmt: skip
    above.set_title(f"{objective} along {name}", loc="left", fontsize=11)
    return figure


def _mark(axes: Axes, place: float, label: str, color: str, style: str) -> None:
    if np.isfinite(place):
        axes.axvline(place, color=color, linestyle=style, linewidth=1.2, label=label, zorder=1)
