"""Which trial a search ends with: the best, or the most regularized of those as good."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kregs.search.protocol import SELECTIONS
from kregs.validation import check_choice

# what restrains a model the more the larger it is, and what the smaller it is; the ends of names
_RESTRAINS = (
    "l1", "l2", "dropout", "drop_path", "rate", "noise", "weight_decay", "label_smoothing",
    "lambda", "alpha",
)  # fmt: skip
_ENLARGES = ("units", "filters", "layers", "blocks", "depth", "width", "max_norm")
_NOT_STRENGTHS = ("learning_rate",)


def strength(values: Mapping[str, Any], space: Sequence[Mapping[str, Any]]) -> float:
    """Return how much a trial's hyperparameters restrain the model, from 0 to 1.

    The order of "more regularized": each hyperparameter that restrains (its name ends in l1, l2,
    dropout, rate, noise, weight_decay, label_smoothing, lambda, alpha; or, the smaller the more, in
    units, filters, layers, blocks, depth, width, max_norm) stands at some place of its range, from
    0 (lowest, or switched off) to 1; the strength is the mean of these places. On a logarithmic
    range the place is that of the logarithm.

    Args:
        values: a trial's hyperparameters.
        space: the search space, as keras-tuner serializes it.
    """
    places: dict[str, float] = {}
    for hp in space:
        name = hp["config"]["name"]
        last = re.sub(r"_\d+$", "", name.split("/")[-1])  # units_0, dropout_1
        if last.startswith("use_") or last.endswith(_NOT_STRENGTHS):
            continue
        up, down = last.endswith(_RESTRAINS), last.endswith(_ENLARGES)
        if not (up or down):
            continue
        if name not in values:  # not active: no such penalty, or no such layer
            places.setdefault(name, 0.0 if up else 1.0)
            continue
        place = _place(values[name], hp, absent=0.0 if up else math.inf)
        if place is not None:
            places[name] = place if up else 1.0 - place
    return statistics.fmean(places.values()) if places else 0.0


def _place(value: Any, hp: Mapping[str, Any], absent: float) -> float | None:
    """Where a value stands in its range, from 0 to 1; `None` if the range has no order.

    Args:
        value: the value.
        hp: the hyperparameter, as keras-tuner serializes it.
        absent: the number that "none" stands for.
    """
    config = hp["config"]
    if hp["class_name"] == "Boolean":
        return float(value)
    if hp["class_name"] == "Choice":
        try:
            numbers = sorted(_number(option, absent) for option in config["values"])
            return numbers.index(_number(value, absent)) / max(1, len(numbers) - 1)
        except ValueError:
            return None
    if hp["class_name"] not in ("Float", "Int"):
        return None
    low, high = config["min_value"], config["max_value"]
    if config.get("sampling") in ("log", "reverse_log"):
        low, high, value = math.log(low), math.log(high), math.log(value)
    # being there at all restrains more than being off
    floor = 0.05
    return floor + (1 - floor) * (value - low) / (high - low) if high > low else 1.0


def _number(option: Any, absent: float) -> float:
    return absent if option in (None, "none", "None") else float(option)


def choose(
    trials: Sequence[Mapping[str, Any]],
    space: Sequence[Mapping[str, Any]],
    *,
    direction: str,
    selection: str,
    order: Callable[[Mapping[str, Any]], float] | None = None,
) -> Mapping[str, Any] | None:
    """Return the trial that a search ends with; `None` if none has a score.

    Args:
        trials: with `score`, `standard_error`, `hyperparameters`.
        space: the search space, as keras-tuner serializes it.
        direction: `"min"` or `"max"`.
        selection: `"best"`; or `"one_standard_error"`: of the trials whose score is within the best
            trial's standard error of the best, the most regularized one (see `strength`), the
            better one of equals.
        order: how regularized a trial's hyperparameters are; default: `strength`.

    Reference:
        Breiman, Friedman, Olshen, Stone, "Classification and Regression Trees", 1984, 3.4.3.
    """
    check_choice("selection", selection, SELECTIONS)
    scored = [trial for trial in trials if trial["score"] is not None]
    if not scored:
        return None
    sign = 1.0 if direction == "min" else -1.0
    best = min(scored, key=lambda trial: sign * trial["score"])
    error = best.get("standard_error")
    if selection == "best" or error is None or math.isnan(error):
        return best
    close = [t for t in scored if sign * t["score"] <= sign * best["score"] + error]
    order = order or (lambda values: strength(values, space))
    return max(close, key=lambda t: (order(t["hyperparameters"]), -sign * t["score"]))
