"""`diagnose`: over- or underfitting, too short, a wrong learning rate, and what to change next."""

from __future__ import annotations

import dataclasses
import math
import numbers
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.inspection.evidence import Evidence, loss_curves, mean_evidence, measure_run
from kregs.inspection.histories import RUN_COLUMNS, read_history, split_runs
from kregs.inspection.verdicts import (
    JUST_RIGHT,
    advice,
    confidences,
    confidences_of_lambda,
    reasons,
    strengths,
)
from kregs.validation import check_integer, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LEAST_EPOCHS = 2
_FEW_EPOCHS = 5
_SHOWN = 0.1  # confidence: a verdict with less is not worth a word
_ROUNDING = 1e-3  # of sums of float32
_COLUMNS = 88  # of what is printed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What `kregs.diagnose` found.

    Args:
        verdict: `"overfitting"`, `"underfitting"`, `"just right"`, `"diverging"`, `"too short"`,
            `"noisy"`, `"learning rate too high"` or `"learning rate too low"`.
        confidence: of the verdict, in [0, 1]: its share of what speaks for any of them, times how
            often its change helped where that was measured (docs/diagnosis.md).
        others: further verdicts that something speaks for and their confidences, the strongest
            first. Where penalties are known also `"λ too strong"` or `"λ too weak"`.
        because: the signs of the verdict, in words with numbers.
        next_steps: what to do, the most promising first.
        limits: what could not be seen, and why.
        evidence: the numbers, see `kregs.inspection.evidence.Evidence`.
        curves: what was looked at, for the plot: columns `epoch`, `training`, and where they are
            known `validation`, `penalties`, `fold` and `seed`.
        best_epoch: the epoch whose weights were kept, if that was told.
        loss: what the losses are called in the history.
    """

    verdict: str
    confidence: float
    others: Mapping[str, float]
    because: tuple[str, ...]
    next_steps: tuple[str, ...]
    limits: tuple[str, ...]
    evidence: Evidence
    curves: pd.DataFrame = dataclasses.field(repr=False, compare=False)
    best_epoch: int | None = None
    loss: str = "data_loss"

    def __str__(self) -> str:
        lines = [self.headline]
        lines += [f"  because {reason}" for reason in self.because]
        if self.others:
            others = ", ".join(f"{name} ({value:.0%})" for name, value in self.others.items())
            lines.append(f"  perhaps also: {others}")
        lines.append("Next:")
        lines += [f"  {number}. {step}" for number, step in enumerate(self.next_steps, 1)]
        lines += [f"Not seen: {limit}" for limit in self.limits]
        return "\n".join(
            wrapped
            for line in lines
            for wrapped in textwrap.wrap(
                line, _COLUMNS, subsequent_indent=" " * (4 + 1 * line.startswith("  ")),
            )
        )  # fmt: skip

    @property
    def headline(self) -> str:
        """The verdict and its confidence in one line."""
        return f"{self.verdict} (confidence {self.confidence:.0%})"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: all but the curves."""
        return {
            "verdict": self.verdict,
            "confidence": self.confidence,
            "others": dict(self.others),
            "because": list(self.because),
            "next_steps": list(self.next_steps),
            "limits": list(self.limits),
            "evidence": self.evidence.to_dict(),
        }

    def plot(self) -> Figure:
        """Return the curves with the signs of the verdict marked, and the next steps below.

        Example:

        >>> diagnosis = diagnose({"loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
        >>> diagnosis.plot().axes[0].get_ylabel()
        'loss'
        """
        from kregs.reporting.figures.diagnosed_curves import diagnosed_curves

        return diagnosed_curves(self)


def diagnose(
    history: Any,
    *,
    penalties: Any = None,
    baseline: float | None = None,
    held_out: float | None = None,
    best_epoch: int | None = None,
) -> Diagnosis:
    """Say what a training suffers from, and what to change next.

    The losses are turned into a few numbers (how much of a guess's loss is left, the gap between
    training and validation, how the second half of the epochs went, noise, the penalties' share),
    each number into the strength of a sign by two thresholds, and signs into verdicts; the
    strongest verdict is given. The thresholds are `kregs.inspection.verdicts.THRESHOLDS`. How
    often that is right on trainings whose truth is known is measured: docs/diagnosis.md.

    `data_loss` and `val_data_loss` are used where they are logged (`kregs.compile_model` does),
    since `loss` and `val_loss` contain the penalties.

    Args:
        history: what `fit` returned, its dictionary of lists, a table with one row an epoch
            (`pandas.read_csv` of a `CSVLogger`'s file), or of a search `result.history(trial)`,
            all of whose folds and seeds are diagnosed together, as are the trainings of a
            file that was appended to.
        penalties: the sum of `model.losses`, one number or one an epoch, for a history of Keras's
            own `loss`, of which they are a part; 0 if the model has no penalty. Default: `loss`
            less `data_loss` where both are logged, else unknown.
        baseline: the loss of a constant guess, such as log(classes) or the targets' variance,
            above 0. Default: the larger loss of the first epoch, which is less sure.
        held_out: the loss (without penalties if those are known) on rows that were not trained on,
            measured once at the end, where the history has no validation.
        best_epoch: the epoch, counted from 1, whose weights were kept (`restore_best_weights`);
            what came later then harms nobody. Default: the last.

    Returns:
        A `Diagnosis`; `print` shows it, `.plot()` draws it.

    Raises:
        TypeError: `history` or another argument has the wrong type.
        ValueError: there are fewer than 2 epochs, no loss, or an argument is out of bounds. A loss
            that is NaN or infinite is no error: the training diverged.

    Example:

    >>> import kregs
    >>> diagnosis = kregs.diagnose({
    ...     "data_loss": [1.5, 0.6, 0.2, 0.1, 0.05, 0.03],
    ...     "val_data_loss": [1.4, 0.8, 0.7, 0.8, 0.95, 1.1],
    ... })
    >>> diagnosis.verdict
    'overfitting'

    References:
        Goodfellow, Bengio, Courville, "Deep Learning", 2016, sections 5.2 (capacity, over- and
        underfitting) and 11.4 (what to change by training and test error); Prechelt, "Early
        stopping - but when?", 1998.
    """
    table = read_history(history)
    if baseline is not None:
        baseline = check_number("baseline", baseline, above=0.0)
    # what is not finite is no bad argument but a training that diverged
    if held_out is not None and not (
        isinstance(held_out, numbers.Real) and not math.isfinite(held_out)
    ):
        held_out = check_number("held_out", held_out)
    runs = list(split_runs(table))
    shortest = min(map(len, runs))
    if best_epoch is not None:
        best_epoch = check_integer("best_epoch", best_epoch, minimum=1)
    penalties = _check_penalties(penalties, runs)
    evidences = [
        measure_run(
            run,
            baseline=baseline,
            penalties=penalties,
            held_out=held_out,
            best_epoch=None if best_epoch is None else min(best_epoch, len(run)),
        )
        for run in runs
    ]
    evidence = mean_evidence(evidences)
    if shortest < _LEAST_EPOCHS and not evidence.lost:
        raise ValueError(
            f"`history` must have at least {_LEAST_EPOCHS} epochs: one tells no course. "
            f"Received: {shortest} epoch"
        )
    if best_epoch is not None and best_epoch > max(map(len, runs)):
        raise ValueError(
            f"`best_epoch` must be one of the {max(map(len, runs))} epochs. "
            f"Received: best_epoch={best_epoch}"
        )
    curves = _curves(runs, penalties)
    shares = confidences(evidence)
    signs = strengths(evidence)
    verdict = max(signs, key=signs.__getitem__)
    of_lambda = confidences_of_lambda(evidence, shares)
    others = {
        name: value
        for name, value in sorted((shares | of_lambda).items(), key=lambda pair: -pair[1])
        if name != verdict and (value >= _SHOWN or name in of_lambda) and name != JUST_RIGHT
    }
    return Diagnosis(
        verdict=verdict,
        confidence=shares[verdict],
        others=others,
        because=tuple(reasons(verdict, evidence)),
        next_steps=tuple(advice(verdict, evidence, others, kept_best=best_epoch is not None)),
        limits=tuple(_limits(table, curves, evidence, penalties, baseline)),
        evidence=evidence,
        curves=curves,
        best_epoch=best_epoch,
        loss="data_loss" if "data_loss" in table else "loss",
    )


def _check_penalties(penalties: Any, runs: list[pd.DataFrame]) -> Any:
    """Return penalties as one number, or one an epoch; `None` if they are not given."""
    if penalties is None:
        return None
    if isinstance(penalties, (list, tuple, pd.Series)) or np.ndim(penalties) == 1:
        lengths = {len(run) for run in runs}
        if lengths != {len(penalties)}:
            raise ValueError(
                f"`penalties` must be one number, or one for each of the {max(lengths)} epochs. "
                f"Received: {len(penalties)} numbers"
            )
        penalties = [check_number("penalties", value, minimum=0.0) for value in penalties]
    else:
        penalties = check_number("penalties", penalties, minimum=0.0)
    for run in runs:
        loss = run["loss"].to_numpy() if "loss" in run else np.array([np.inf])
        # a loss that may be negative may be below its penalties
        if (loss >= 0).all() and (penalties > loss * (1 + _ROUNDING)).any():
            raise ValueError(
                f"`penalties` must be a part of `loss`, which is {loss.min():.3g} at its lowest. "
                f"Received: penalties={np.max(penalties):.3g}"
            )
    return penalties


def _limits(
    table: pd.DataFrame,
    curves: pd.DataFrame,
    evidence: Evidence,
    penalties: Any,
    baseline: float | None,
) -> list[str]:
    """Return what the history does not tell."""
    limits: list[str] = []
    if evidence.lost == 1:
        return limits
    if evidence.gap is None:
        limits.append(
            "overfitting: there is no validation loss in the history; give `fit` validation_data"
        )
    elif evidence.validation_fall is None:
        limits.append("when overfitting began: the loss on other rows is known at the end only")
    if "data_loss" not in table and penalties is None:
        limits.append(
            "λ, and some of the gap: `loss` may contain penalties; compile with "
            "kregs.compile_model, or pass penalties="
        )
    if baseline is None:
        limits.append("the loss of a guess: taken from the first epoch; pass baseline=")
    if evidence.train is not None and curves.filter(["training", "validation"]).min().min() < 0:
        limits.append(
            "parts of the loss: it goes below 0, so percentages are of what is above its lowest"
        )
    if "run" in curves:
        limits.append(
            f"one course: `epoch` begins anew, so the history was read as that of "
            f"{curves['run'].nunique()} trainings"
        )
    if evidence.epochs < _FEW_EPOCHS:
        limits.append(f"a trend: {evidence.epochs:.0f} epochs are few")
    return limits


def _curves(runs: list[pd.DataFrame], penalties: Any) -> pd.DataFrame:
    """Return what was looked at, all runs below each other."""
    frames = []
    for run in runs:
        train, validation, penalty = loss_curves(run, penalties)
        frame = pd.DataFrame({"epoch": range(1, 1 + len(run)), "training": train})
        if validation is not None:
            frame["validation"] = validation
        if penalty is not None:
            frame["penalties"] = penalty
        for name in RUN_COLUMNS:
            if name in run:
                frame[name] = run[name].to_numpy()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
