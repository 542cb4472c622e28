"""The rule of `kregs.diagnose`: from the numbers of a training to verdicts and what to do next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kregs.inspection.evidence import Evidence

DIVERGING = "diverging"
NOISY = "noisy"
TOO_HIGH = "learning rate too high"
TOO_LOW = "learning rate too low"
TOO_SHORT = "too short"
OVERFITTING = "overfitting"
UNDERFITTING = "underfitting"
JUST_RIGHT = "just right"
TOO_STRONG = "λ too strong"
TOO_WEAK = "λ too weak"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The constants of the rule: of each pair, where a sign begins and where it is plain.

    A number at or below the first gives the sign a strength of 0, at or above the second of 1, and
    between them what lies on the line. They were chosen on trainings of two data sets and measured
    on those of three others: docs/diagnosis.md.

    Args:
        growth: of `left`: the training loss went above that of a guess: away from the solution.
        bumps: of `bumps`: steps overshoot in training.
        climb: of `-train_fall`: the training loss itself ends higher than it was.
        noise: of `noise`: the validation loss jumps: steps too large, or too few rows.
        falling: of `validation_fall`: the second half of the epochs was worth its time.
        late: of `late`, and
        moving: of `train_fall`: the training loss fell in the second half as it did in the first.
        smooth: of `noise`, without validation of `jitter`: below, steps are so small that no batch
            shows in the curve.
        untaught: of `left`: what small steps have not learned yet.
        gap: of `gap`: the training rows are known by heart.
        rise: of `rise`: learning more of the training rows harmed the others.
        harm: of `rise`: so surely that the fall of the training loss speaks for no other verdict.
        unfit: of `left`: what the network cannot learn, or may not.
        penalized: of `penalty`: λ makes up the loss; of λ's own verdicts alone.
        right: the strength of "just right" where nothing speaks against it.
    """

    growth: tuple[float, float] = (1.12, 3.8)
    bumps: tuple[float, float] = (0.032, 0.127)
    climb: tuple[float, float] = (0.1, 0.5)
    noise: tuple[float, float] = (0.052, 0.6)
    falling: tuple[float, float] = (0.065, 0.307)
    late: tuple[float, float] = (0.3, 0.35)
    moving: tuple[float, float] = (0.0, 0.02)
    smooth: tuple[float, float] = (0.003, 0.008)
    untaught: tuple[float, float] = (0.24, 0.37)
    gap: tuple[float, float] = (0.13, 0.635)
    rise: tuple[float, float] = (0.03, 0.25)
    harm: tuple[float, float] = (0.03, 0.06)
    unfit: tuple[float, float] = (0.32, 1.18)
    penalized: tuple[float, float] = (0.3, 0.8)
    right: float = 0.3


THRESHOLDS = Thresholds()


def strengths(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> dict[str, float]:
    """Return how strongly each verdict is spoken for, in [0, 1].

    Example:

    >>> signs = strengths(Evidence(epochs=50, left=0.05, gap=0.9, rise=0.3))
    >>> max(signs, key=signs.get)
    'overfitting'
    """
    t, e = thresholds, evidence
    growth, bumps, noise = _ramp(e.left, t.growth), _ramp(e.bumps, t.bumps), _ramp(e.noise, t.noise)
    bumps = max(bumps, _ramp(-(e.train_fall or 0.0), t.climb))
    gap, rise, harm = _ramp(e.gap, t.gap), _ramp(e.rise, t.rise), _ramp(e.rise, t.harm)
    # without validation the training loss must tell whether it goes on
    falling = _ramp(e.train_fall if e.validation_fall is None else e.validation_fall, t.falling)
    falling = max(falling, _ramp(e.late, t.late) * _ramp(e.train_fall, t.moving))
    # that the training rows are still learned is no excuse for harm to the others, nor for a gap
    falling *= 1 - (gap if e.validation_fall is None else harm)
    jumps = e.jitter if e.noise is None else e.noise
    smooth = 0.0 if jumps is None else 1 - _ramp(jumps, t.smooth)
    slow = falling * smooth * _ramp(e.left, t.untaught)
    calm = 1 - max(bumps, noise)
    signs = {
        TOO_HIGH: bumps,
        NOISY: noise * (1 - bumps),
        TOO_LOW: slow * calm,
        TOO_SHORT: max(falling * calm - slow, 0.0),
        OVERFITTING: max(gap, rise) * (1 - falling) * calm,
        UNDERFITTING: _ramp(e.left, t.unfit) * (1 - max(gap, harm)) * (1 - falling) * calm,
    }
    signs = {DIVERGING: max(e.lost, growth)} | {
        name: sign * (1 - e.lost) for name, sign in signs.items()
    }
    return signs | {JUST_RIGHT: t.right * (1 - max(signs.values()))}


# of how many trainings with a verdict, on the two sets that the thresholds were chosen on, the
# change that it asks for helped; `noisy` counts as `learning rate too high`. A loss that is not
# finite is a fact
RELIABILITY = {
    DIVERGING: 1.0, NOISY: 0.34, TOO_HIGH: 0.34, TOO_LOW: 0.86, TOO_SHORT: 0.49, OVERFITTING: 0.75,
    UNDERFITTING: 0.49, JUST_RIGHT: 0.59, TOO_STRONG: 0.28, TOO_WEAK: 0.65,
}  # fmt: skip


def confidences(evidence: Evidence) -> dict[str, float]:
    """Return the share of each verdict in what speaks for any, times its `RELIABILITY`.

    Example:

    >>> confidences(Evidence(epochs=3, lost=1.0))["overfitting"]
    0.0
    """
    signs = strengths(evidence)
    return {name: RELIABILITY[name] * sign / sum(signs.values()) for name, sign in signs.items()}


def confidences_of_lambda(evidence: Evidence, shares: Mapping[str, float]) -> dict[str, float]:
    """Return `λ too strong` or `λ too weak` and its confidence, where penalties are known.

    An underfitted network whose loss is mostly penalties has too large a λ; an overfitted one whose
    loss has hardly any has too small a one.
    """
    if evidence.penalty is None:
        return {}
    penalized = _ramp(evidence.penalty, THRESHOLDS.penalized)
    values = {
        name: share * shares[verdict] / RELIABILITY[verdict] * RELIABILITY[name]
        for name, verdict, share in (
            (TOO_STRONG, UNDERFITTING, penalized),
            (TOO_WEAK, OVERFITTING, 1 - penalized),
        )
    }
    name = max(values, key=values.__getitem__)
    return {name: values[name]} if values[name] > 0 else {}


def _ramp(value: float | None, ends: tuple[float, float]) -> float:
    if value is None:
        return 0.0
    low, high = ends
    return min(max((value - low) / (high - low), 0.0), 1.0)


# ---- in words ----------------------------------------------------------------------------------


def reasons(verdict: str, evidence: Evidence) -> list[str]:
    """Return the signs of a verdict with their numbers."""
    e = evidence
    level = None if e.train is None else f"the training loss ends at {e.train:.3g}"
    of_guess = None
    if e.left is not None and e.train is not None:
        part = "that of a guess is" if e.train < 0 else f"{e.left:.0%} of a guess's"
        of_guess = f"{level}, {part} {e.start:.3g}"
    course = _course(e)
    gap = (
        None
        if e.gap is None
        else f"the validation loss is {e.validation:.3g}, the training loss {e.train:.3g}"
    )
    rise = e.rise and f"of the validation loss {e.rise:.0%} came after its lowest epoch"
    bumps = (
        e.bumps
        and f"the training loss rises again and again, by {e.bumps:.1%} of the loss an epoch"
    )
    noise = e.noise and f"the validation loss jumps by {e.noise:.1%} from epoch to epoch"
    penalty = e.penalty and f"penalties are {e.penalty:.0%} of the whole training loss"
    lost = e.lost and (
        "the loss is NaN or infinite"
        if e.lost == 1
        else f"the loss is NaN or infinite in {e.lost:.0%} of the runs"
    )
    signs: dict[str, list[Any]] = {
        DIVERGING: [of_guess],  # beside what is lost
        NOISY: [noise],
        TOO_HIGH: [bumps, noise, of_guess],
        TOO_LOW: [course, of_guess],
        TOO_SHORT: [course],
        OVERFITTING: [gap, rise, penalty],
        UNDERFITTING: [of_guess, gap, penalty],
        JUST_RIGHT: [course, gap],
    }
    return [sign for sign in (*signs[verdict], lost) if sign]


def _course(e: Evidence) -> str | None:
    name, fall = "validation", e.validation_fall
    if fall is None:
        name, fall = "training", e.train_fall
    if fall is None:
        return None
    if fall > 0:
        return f"the second half of the epochs lowered the {name} loss by {fall:.1%}"
    return f"the second half of the epochs did not lower the {name} loss"


_MORE_ROWS = "get more training rows, or augment those you have (kregs.augment)"
_LESS_RATE = "divide the learning rate by 10, or let it fall (kregs.warmup_cosine)"
_MORE_RATE = "multiply the learning rate by 10, or by 3 if it then gets noisy"
_MORE_EPOCHS = "train 3 to 5 times as many epochs, with early stopping"
_LESS_LAMBDA = "divide λ by 10, or lower the dropout rates"
_MORE_LAMBDA = "multiply λ by 10, or begin with l2=1e-3"
_STOP = "stop at the lowest validation loss and keep its weights (kregs.early_stopping)"


def advice(
    verdict: str, evidence: Evidence, others: Mapping[str, float], *, kept_best: bool = False
) -> list[str]:
    """Return what to do next, what saved most on the trainings of docs/diagnosis.md first.

    Args:
        verdict: the strongest.
        evidence: of the training.
        others: the confidences of other verdicts, also those of λ.
        kept_best: whether the weights of the best epoch were kept already.
    """
    if verdict == OVERFITTING:
        # where penalties are most of the loss already, another kind of restraint comes first
        penalties = [_MORE_LAMBDA, "raise the dropout rates, or begin with 0.2 to 0.5"]
        steps = penalties if TOO_WEAK in others or evidence.penalty is None else penalties[::-1]
        stop = [] if kept_best else [_STOP]
        return [*steps, *stop, "use fewer units or layers", _MORE_ROWS]
    if verdict == UNDERFITTING:
        steps = [_LESS_LAMBDA, "use more units or layers"]
        if evidence.penalty is not None and TOO_STRONG not in others:
            steps = steps[1:] if evidence.penalty == 0 else steps[::-1]
        return [*steps, _MORE_EPOCHS, _MORE_RATE, "give it inputs that tell more of the target"]
    return {
        DIVERGING: [
            _LESS_RATE,
            "bound the steps: an optimizer with clipnorm=1.0",
            "look for NaN in the rows, and scale inputs and targets to a deviation of 1",
        ],
        NOISY: [
            _LESS_RATE,
            "double the batch size",
            "validate on more rows, or by folds: what jumps may be the measurement",
        ],
        TOO_HIGH: [_LESS_RATE, "double the batch size", _MORE_LAMBDA],
        TOO_LOW: [_MORE_RATE, _MORE_EPOCHS, "scale the inputs to a deviation of 1"],
        TOO_SHORT: [_MORE_EPOCHS, _MORE_RATE],
        JUST_RIGHT: [
            "keep it, and score it once on rows that no choice was made by",
            "search λ and dropout around these values (kregs.tune): what is left is fine",
            _MORE_ROWS,
        ],
    }[verdict]
