"""Which of two trials restrains its model more: by the built models' numbers, or as declared.

This reads what `model_restraints` recorded, so that a result is read without TensorFlow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kregs.validation import suggestion

LESS_IS_MORE = "-"  # before a name: the smaller it is, the more it restrains
_BOUNDS = ("max_norm",)  # numbers that restrain the more the smaller they are
_NONE = (None, "none", "None")


def compare_restraints(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> int | None:
    """Say which of two built models is restrained more.

    A model is restrained more than another if nothing restrains it less and something restrains it
    more. Of models of one structure each number is compared with the other's at its place: the
    penalties and the norm's bound of each weight, the rate of each dropout, the noise, the weight
    decay, the label smoothing. Where the structures differ, each kind of number is compared by its
    mean over the places that have it, and fewer weights restrain more.

    Args:
        a, b: what `model_restraints` returns; `None` if it is not known.

    Returns:
        1 if it is `a`, -1 if it is `b`, 0 if both are equal; `None` if they cannot be compared: one
        has more of this, the other more of that.

    Example:

    >>> def penalized(l2, **others):
    ...     return {"structure": "x", "weights": 8, "numbers": {"l2": {"0": l2}, **others}}
    >>> compare_restraints(penalized(0.1), penalized(0.01))
    1
    >>> compare_restraints(penalized(0.1), penalized(0.01, dropout={"edge 1": 0.5})) is None
    True
    """
    if a is None or b is None:
        return None
    alike = a["structure"] is not None and a["structure"] == b["structure"]
    signs = set()
    for kind in {*a["numbers"], *b["numbers"]}:
        first, second = a["numbers"].get(kind, {}), b["numbers"].get(kind, {})
        if not alike:
            first, second = (
                {"": statistics.fmean(n.values())} if n else {} for n in (first, second)
            )
        for place in {*first, *second}:
            signs.add(_sign(_amount(kind, first.get(place)), _amount(kind, second.get(place))))
    if not alike:
        signs.add(_sign(-a["weights"], -b["weights"]))
    signs.discard(0)
    return None if len(signs) > 1 else next(iter(signs), 0)


def _amount(kind: str, number: float | None) -> float:
    """Return how much a number restrains, the larger the more; `None`: it is not there."""
    if kind in _BOUNDS:
        return -math.inf if number is None else -number
    return 0.0 if number is None else number


def _sign(a: float, b: float) -> int:
    if a == b or math.isclose(a, b, rel_tol=1e-6):  # float32 and means round
        return 0
    return 1 if a > b else -1


# ---- as declared ---------------------------------------------------------------------------


def check_restraint(restraint: Any) -> tuple[str, ...] | None:
    """Return the argument `restraint` of `kregs.tune` as a tuple of names."""
    if restraint is None:
        return None
    if isinstance(restraint, str) or not isinstance(restraint, Sequence):
        raise TypeError(
            "`restraint` must be a list of hyperparameters' names, the most important first, such "
            f'as ["l2", "-units"]. Received: restraint={restraint!r}'
        )
    names = tuple(restraint)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError(f"`restraint` must hold at least one name. Received: {restraint!r}")
    return names


def check_restraint_is_searched(
    restraint: Sequence[str] | None, space: Sequence[Mapping[str, Any]]
) -> None:
    """Raise `ValueError` if a name is no hyperparameter, or one whose values have no order.

    Args:
        restraint: as `check_restraint` returns it.
        space: the search space, as keras-tuner serializes it.
    """
    searched: dict[str, list[Mapping[str, Any]]] = {}
    for hp in space:
        searched.setdefault(hp["config"]["name"], []).append(hp)
    for entry in restraint or ():
        name = _split(entry, searched)[0]
        if name not in searched:
            raise ValueError(
                f"`restraint` must hold names of hyperparameters: {', '.join(searched) or 'none'}. "
                f"Received: {entry!r}.{suggestion(name, searched)}"
            )
        for hp in searched[name]:
            values = hp["config"].get("values", [hp["config"].get("value", 0)])
            try:
                for value in values:
                    _number(value, 0.0)
            except (TypeError, ValueError):
                raise ValueError(
                    f"`restraint` must hold hyperparameters that are numbers (or none). "
                    f"Received: {entry!r}, which is one of {values}"
                ) from None


def restraint_within(
    restraint: Sequence[str] | None, names: Collection[str]
) -> tuple[str, ...] | None:
    """Return what is left of a restraint in a space of other names, `None` if nothing is.

    Example:

    >>> restraint_within(["l2", "-units"], ["units", "learning_rate"])
    ('-units',)
    """
    left = tuple(entry for entry in restraint or () if _split(entry, names)[0] in names)
    return left or None


def declared_order(values: Mapping[str, Any], restraint: Sequence[str]) -> tuple[float, ...]:
    """Return what orders trials by declared names: the larger, the more restrained.

    Args:
        values: a trial's hyperparameters. One that is not active counts as 0; of one that is the
            more the smaller it is, "none" is no bound.
        restraint: names, the most important first; with `-` before it, the smaller the more.

    Example:

    >>> declared_order({"l2": 0.1, "units": 32}, ["l2", "-units", "dropout"])
    (0.1, -32.0, 0.0)
    """
    order = []
    for entry in restraint:
        name, sign = _split(entry, values)
        absent = 0.0 if sign > 0 else math.inf
        order.append(sign * _number(values.get(name, 0.0), absent))
    return tuple(order)


def _split(entry: str, names: Collection[str]) -> tuple[str, float]:
    """Return a name and 1, or -1 where it stands for "the smaller, the more"."""
    if entry.startswith(LESS_IS_MORE) and entry not in names:
        return entry.removeprefix(LESS_IS_MORE), -1.0
    return entry, 1.0


def _number(value: Any, absent: float) -> float:
    return absent if value in _NONE else float(value)
