"""The curves of a training with the signs that its diagnosis rests on."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kregs.inspection.histories import mean_curve, split_runs
from kregs.reporting.figures.style import (
    BEST,
    PAPER,
    TRAINING,
    VALIDATION,
    WIDTH,
    add_title_and_legend,
    new_figure,
    plain_text,
)
from kregs.reporting.tables import format_value

if TYPE_CHECKING:
    import pandas as pd

    from kregs.inspection.diagnosis import Diagnosis

_STEPS = 3  # of the advice, below the curves
_LINE = 62  # columns


def diagnosed_curves(diagnosis: Diagnosis, *, with_words: bool = True) -> Figure:
    """Return training and validation loss by epoch, the gap, the lowest loss and a guess's loss.

    Several runs are drawn thin, their mean thick; in it a run that ended goes on at its last value.

    Args:
        diagnosis: what `kregs.diagnose` returned.
        with_words: write the first next steps below the curves.

    Example:

    >>> import kregs
    >>> diagnosis = kregs.diagnose({"loss": [2.0, 0.5, 0.1], "val_loss": [2.0, 1.5, 1.8]})
    >>> [line.get_label() for line in diagnosed_curves(diagnosis).axes[0].lines][:2]
    ['training', 'validation']
    """
    figure, axes = new_figure(WIDTH, 3.7)
    curves = diagnosis.curves
    runs = list(split_runs(curves))
    for name, color, style in (("training", TRAINING, "--"), ("validation", VALIDATION, "-")):
        if name not in curves:
            continue
        if len(runs) > 1:
            for run in runs:
                axes.plot(run["epoch"], run[name], style, color=color, linewidth=0.8, alpha=0.5)
        mean = _mean(curves, name)
        axes.plot(
            mean.index, mean, style, color=color, linewidth=2.2, label=name,
            marker="o" if len(mean) < 3 else None,
        )  # fmt: skip
    _mark_signs(axes, diagnosis)
    drawn = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) and drawn.min() > 0 and drawn.max() / drawn.min() > 20:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(plain_text(diagnosis.loss, 40))
    add_title_and_legend(figure, axes, diagnosis.headline, columns=3)
    if with_words:
        words = _words(diagnosis)
        height = 0.17 * (words.count("\n") + 2)
        figure.set_size_inches(WIDTH, 3.7 + height)
        axes.set_xlabel(f"epoch\n\n{words}", x=0.0, ha="left", fontsize=9)
    return figure


def _mark_signs(axes: Axes, diagnosis: Diagnosis) -> None:
    evidence, curves = diagnosis.evidence, diagnosis.curves
    last = int(diagnosis.best_epoch or curves["epoch"].max())
    if evidence.start is not None:
        axes.axhline(evidence.start, color="grey", linewidth=1, linestyle=":", label="a guess")
    if evidence.train is not None and evidence.validation is not None:
        gap = format_value(evidence.validation - evidence.train)
        axes.plot(
            [last, last], [evidence.train, evidence.validation], color=BEST, linewidth=3,
            solid_capstyle="butt", label=f"gap {gap}",
        )  # fmt: skip
    lowest = _lowest(curves)
    if lowest is not None:
        epoch, value = lowest
        axes.plot(epoch, value, "v", color=BEST, markersize=8, label=f"lowest, epoch {epoch}")
    lost = curves[~np.isfinite(curves.get("training", curves["epoch"]))]
    if len(lost):
        epoch = int(lost["epoch"].min())
        axes.axvline(epoch, color=BEST, linewidth=2)
        axes.text(
            epoch, 0.5, "NaN or infinite ", ha="right", transform=axes.get_xaxis_transform(),
            **PAPER,
        )  # fmt: skip


def _lowest(curves: pd.DataFrame) -> tuple[int, float] | None:
    if "validation" not in curves:
        return None
    mean = _mean(curves, "validation")
    return (int(mean.idxmin()), float(mean.min())) if len(mean) else None


def _mean(curves: pd.DataFrame, name: str) -> pd.Series:
    """Return the mean of all runs where it is a number."""
    runs = [run.set_index("epoch")[name] for run in split_runs(curves)]
    mean = mean_curve([run.where(np.isfinite(run)) for run in runs])
    return mean.dropna()


def _words(diagnosis: Diagnosis) -> str:
    lines = [f"{n}. {step}" for n, step in enumerate(diagnosis.next_steps[:_STEPS], 1)]
    wrapped = [textwrap.fill(line, _LINE, subsequent_indent="    ") for line in lines]
    return plain_text("\n".join(["Next:", *wrapped]))
