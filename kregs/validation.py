"""Checks of arguments: messages name the argument, what was expected and what was received."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any


def suggestion(name: str, options: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the option nearest to a misspelt name, or `""`.

    Example:

    >>> suggestion("droput", ["dropout", "l2"])
    " Did you mean 'dropout'?"
    """
    nearest = difflib.get_close_matches(str(name), [str(o) for o in options], n=1, cutoff=0.5)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    above: float | None = None,
) -> float:
    """Return `value` as a float, or raise if it is no finite real number inside the bounds.

    Args:
        name: the argument's name, for the message.
        value: what the caller passed.
        minimum, maximum: inclusive bounds.
        below, above: exclusive bounds.

    Raises:
        TypeError: `value` is not a real number (a bool is not one).
        ValueError: `value` is not finite, or is outside the bounds.

    Example:

    >>> check_number("rate", 0.5, minimum=0.0, below=1.0)
    0.5
    """
    bounds = [
        f"{symbol} {bound}"
        for symbol, bound in ((">=", minimum), (">", above), ("<=", maximum), ("<", below))
        if bound is not None
    ]
    expected = "a finite number" + (f" {' and '.join(bounds)}" if bounds else "")
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    number = float(value)
    inside = (
        math.isfinite(number)
        and (minimum is None or number >= minimum)
        and (above is None or number > above)
        and (maximum is None or number <= maximum)
        and (below is None or number < below)
    )
    if not inside:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return number


def check_integer(name: str, value: Any, *, minimum: int | None = None) -> int:
    """Return `value` as an int, or raise if it is no integer or lies below `minimum`.

    Raises:
        TypeError: `value` is not an integer (a bool is not one).
        ValueError: it lies below `minimum`.

    Example:

    >>> check_integer("units", 8, minimum=1)
    8
    """
    expected = "an integer" + (f" >= {minimum}" if minimum is not None else "")
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    if minimum is not None and value < minimum:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return int(value)


def check_choice(name: str, value: Any, options: Iterable[Any]) -> Any:
    """Return `value` if it is one of `options`, or raise with the nearest right one.

    Raises:
        ValueError: it is none of them.

    Example:

    >>> check_choice("cell", "gru", ("lstm", "gru"))
    'gru'
    """
    options = list(options)
    if value not in options:
        listed = ", ".join(repr(o) for o in options)
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {name}={value!r}."
            f"{suggestion(value, [o for o in options if isinstance(o, str)])}"
        )
    return value


def check_names(name: str, received: Iterable[str], known: Iterable[str]) -> None:
    """Raise `TypeError` for the first received keyword that is not a known one.

    Example:

    >>> check_names("Regularization", ["droput"], ["dropout", "l2"])
    Traceback (most recent call last):
        ...
    TypeError: `Regularization` has no field 'droput'. Did you mean 'dropout'? Expected some of: \
dropout, l2
    """
    known = list(known)
    for word in received:
        if word not in known:
            raise TypeError(
                f"`{name}` has no field {word!r}.{suggestion(word, known)} "
                f"Expected some of: {', '.join(known)}"
            )
