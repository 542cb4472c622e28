"""The figure of a range test: the loss after short trainings along a learning rate or λ."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.reporting.figures.parameter_axis import format_axis, parameter_axis
from kregs.reporting.figures.style import (
    BEST,
    NONZERO,
    TRAINING,
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
)
from kregs.search.space import scale_of


def range_test(
    frame: pd.DataFrame,
    name: str,
    *,
    start: float,
    judged_on: str,
    suggestion: float | None,
    interval: tuple[float, float] | None,
) -> Figure:
    """Return the loss by value, with the start, the suggestion, what is as good, what diverged.

    Args:
        frame: one row a value: columns `name`, `train`, `loss`, `standard_error`, `diverged`.
        name: the column of values.
        start: the loss before training, or of the smallest value.
        judged_on: on which rows `loss` is.
        suggestion, interval: to mark; `None` for none.

    Example:

    >>> frame = pd.DataFrame({"l2": [0.0, 0.1], "train": 0.2, "loss": [0.4, 0.3],
    ...                       "standard_error": np.nan, "diverged": 0})
    >>> figure = range_test(frame, "l2", start=0.4, judged_on="9 rows", suggestion=0.1,
    ...                     interval=(0.1, 0.1))
    >>> figure.axes[0].get_xlabel()
    'l2'
    """
    figure, axes = new_figure(WIDTH, 3.9)
    axis = parameter_axis(frame, name, scale_of(frame[name]))
    losses, places = frame["loss"].to_numpy(float), axis.positions
    if interval is not None:
        as_good = [
            p for p, v in zip(places, frame[name], strict=True) if interval[0] <= v <= interval[1]
        ]
        edges = (
            np.sqrt(places[1:] * places[:-1])
            if axis.logarithmic
            else places[1:] / 2 + places[:-1] / 2
        )
        low, high = min(as_good), max(as_good)
        low = max([e for e in edges if e < low], default=low)
        high = min([e for e in edges if e > high], default=high)
        axes.axvspan(low, high, color=NONZERO, alpha=0.15, lw=0, label="as good as the best")
    if np.isfinite(start):
        axes.axhline(start, color="grey", linestyle=":", label=f"{_start_name(name)}: {start:.3g}")
    axes.errorbar(
        places,
        losses,
        yerr=frame["standard_error"].fillna(0.0),
        color=VALIDATION,
        marker="o",
        markersize=3.5,
        capsize=2,
        linewidth=1.4,
        label=f"without penalties, on {judged_on}",
    )
    axes.plot(
        places, frame["train"], color=TRAINING, linestyle="--", linewidth=1.2,
        label="loss in training, last epoch",
    )  # fmt: skip
    if suggestion is not None:
        at = places[list(frame[name]).index(0.0)] if suggestion == 0.0 else suggestion
        axes.axvline(at, color=BEST, linewidth=1.6, label=f"suggestion: {suggestion:.3g}")
    finite = losses[np.isfinite(losses)]
    if len(finite):
        least, most = finite.min(), max(finite.max(), start if np.isfinite(start) else -np.inf)
        # what has risen to a multiple of the start is off the paper: only that it rose matters
        ceiling = min(most, 3.0 * start) if start > 0 and name == "learning_rate" else most
        if least > 0 and ceiling > 20 * least:
            axes.set_yscale("log")
            axes.set_ylim(least / 1.5, ceiling * 1.5)
        else:
            room = 0.08 * (ceiling - least or abs(ceiling) or 1.0)
            axes.set_ylim(least - room, ceiling + 2 * room)
    gone = frame["diverged"].to_numpy() > 0
    if gone.any():
        axes.plot(
            places[gone], np.full(gone.sum(), 0.97), "x", color="black",
            transform=axes.get_xaxis_transform(), label="diverged",
        )  # fmt: skip
    format_axis(axes, axis, "x")
    axes.set_ylabel("loss")
    words = "none can be told" if suggestion is None else f"{suggestion:.3g} is suggested"
    add_title_and_legend(figure, axes, f"Range test of {name}: {words}", columns=2)
    return figure


def _start_name(name: str) -> str:
    return "before training" if name == "learning_rate" else "at the smallest value"
