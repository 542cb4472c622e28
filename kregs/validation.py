"""Checks of arguments: messages name the argument, what was expected and what was received."""

from __future__ import annotations

import difflib
import math
import numbers
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# the largest sizes, seeds and numbers that TensorFlow, NumPy and float32 hold
_MOST = 2**31 - 1
_LARGEST_SEED = 2**32 - 1
_LARGEST_FLOAT = 3.4028234663852886e38


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

    What float32, in which models compute, cannot hold is not finite.

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
    try:
        number = float(value)
    except OverflowError:  # an integer
        number = math.inf
    inside = (
        abs(number) <= _LARGEST_FLOAT
        and (minimum is None or number >= minimum)
        and (above is None or number > above)
        and (maximum is None or number <= maximum)
        and (below is None or number < below)
    )
    if not inside:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    return number


def check_integer(
    name: str, value: Any, *, minimum: int | None = None, maximum: int = _MOST
) -> int:
    """Return `value` as an int, or raise if it is no integer or lies outside the bounds.

    Raises:
        TypeError: `value` is not an integer (a bool is not one).
        ValueError: it lies below `minimum` or above `maximum` (default: the largest int32).

    Example:

    >>> check_integer("units", 8, minimum=1)
    8
    """
    expected = "an integer" + (f" >= {minimum}" if minimum is not None else "")
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    if minimum is not None and value < minimum:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")
    if int(value) > maximum:
        bounds = f"{expected}, at most {maximum}"
        raise ValueError(f"`{name}` must be {bounds}. Received: {name}={value!r}")
    return int(value)


def check_seed(name: str, value: Any) -> int:
    """Return `value` as an int, or raise if it is no integer in [0, 2**32), as NumPy's seeds are.

    Raises:
        TypeError: `value` is not an integer (a bool is not one).
        ValueError: it is negative, or above 2**32 - 1.

    Example:

    >>> check_seed("seed", 7)
    7
    """
    return check_integer(name, value, minimum=0, maximum=_LARGEST_SEED)


def check_flag(name: str, value: Any) -> bool:
    """Return `value` as a bool, or raise `TypeError` if it is neither True nor False.

    Example:

    >>> check_flag("shuffle", True)
    True
    """
    if type(value).__name__ not in ("bool", "bool_"):  # Python's and NumPy's
        raise TypeError(f"`{name}` must be True or False. Received: {name}={value!r}")
    return bool(value)


def check_path(name: str, value: Any) -> Path:
    """Return `value` as a path, or raise if it is none that a file could have.

    Raises:
        TypeError: `value` is neither a string nor a path.
        ValueError: it is empty, or holds a null character.

    Example:

    >>> check_path("directory", "runs").name
    'runs'
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise TypeError(f"`{name}` must be a path. Received: {name}={value!r}")
    if not os.fspath(value) or "\0" in os.fspath(value):
        raise ValueError(f"`{name}` must be the path of a file or folder. Received: {value!r}")
    return Path(value)


def check_file_name(name: str, value: Any) -> str:
    """Return `value`, or raise if it is not the name of one file or folder.

    Raises:
        TypeError: `value` is no string.
        ValueError: it is empty, `.` or `..`, or holds a separator or a null character.

    Example:

    >>> check_file_name("project_name", "search")
    'search'
    """
    if not isinstance(value, str) or not value:
        raise TypeError(f"`{name}` must be a name. Received: {name}={value!r}")
    is_name = value not in ("", ".", "..") and "\0" not in value and Path(value).name == value
    if not is_name or len(os.fsencode(value)) > 200:  # most file systems take 255 bytes
        raise ValueError(
            f"`{name}` must be the name of one folder, at most 200 bytes. "
            f"Received: {name}={value!r}"
        )
    return value


def check_choice(name: str, value: Any, options: Iterable[Any]) -> Any:
    """Return `value` if it is one of `options`, or raise with the nearest right one.

    Raises:
        ValueError: it is none of them.

    Example:

    >>> check_choice("cell", "gru", ("lstm", "gru"))
    'gru'
    """
    options = list(options)
    # an array of one word equals that word, and is none of the options
    if (hasattr(value, "__len__") and not isinstance(value, str)) or value not in options:
        listed = ", ".join(repr(o) for o in options)
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {name}={value!r}."
            f"{suggestion(value, [o for o in options if isinstance(o, str)])}"
        )
    return value


def in_words(value: Any) -> str:
    """Return a value's type and, if it is short to write, the value: for messages.

    Example:

    >>> in_words(3), in_words([1, 2])
    ('int, 3', 'list')
    """
    name = type(value).__name__
    short = value is None or isinstance(value, (str, bytes, numbers.Number))
    return f"{name}, {value!r}" if short else name


def check_names(
    name: str, received: Iterable[str], known: Iterable[str], *, kind: str = "field"
) -> None:
    """Raise `TypeError` for the first received keyword that is not a known one.

    Args:
        name: what the keywords belong to, for the message.
        received: the keywords.
        known: those that there are.
        kind: what they are called.

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
                f"`{name}` has no {kind} {word!r}.{suggestion(word, known)} "
                f"Expected some of: {', '.join(known)}"
            )
