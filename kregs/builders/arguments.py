"""Checks of a builder's arguments: shapes, sizes, outputs, and the fields it gives a meaning to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kregs.initializers import activation_name
from kregs.regularization import COMPILE_FIELDS, Regularization
from kregs.validation import check_integer

_PENALTIES = frozenset({"l1", "l2", "bias_l1", "bias_l2", "max_norm", *COMPILE_FIELDS})
_INPUT = frozenset({"input_dropout", "gaussian_noise"})
_HIDDEN = frozenset({"activity_l1", "activity_l2", "dropout", "normalization"})

# what `check_fields` lets pass; a builder adds to these
LINEAR_FIELDS = _PENALTIES | _INPUT
DENSE_FIELDS = LINEAR_FIELDS | _HIDDEN
CONVOLUTION_FIELDS = DENSE_FIELDS | {"spatial_dropout"}


def check_fields(
    builder: str, regularization: Regularization | None, allowed: Iterable[str]
) -> Regularization:
    """Return the value (`None` becomes `Regularization()`), or raise for a field without meaning.

    Args:
        builder: its name, for the message.
        regularization: what the caller passed.
        allowed: the fields that have a meaning.

    Raises:
        TypeError: `regularization` is no `Regularization`.
        ValueError: a field that is set would be ignored by this builder.

    Example:

    >>> check_fields("linear", Regularization(l2=0.1), LINEAR_FIELDS)
    Regularization(l2=0.1)
    """
    if regularization is None:
        return Regularization()
    if not isinstance(regularization, Regularization):
        raise TypeError(
            "`regularization` must be a kregs.Regularization or None. "
            f"Received: regularization={regularization!r}"
        )
    default, allowed = Regularization().get_config(), set(allowed)
    for name, value in regularization.get_config().items():
        if value != default[name] and name not in allowed:
            raise ValueError(
                f"`regularization.{name}` has no meaning for {builder}(), which takes: "
                f"{', '.join(n for n in default if n in allowed)}. Received: {name}={value!r}"
            )
    return regularization


def check_shape(
    name: str, shape: Any, *, rank: int | None = None, variable: Sequence[int] = ()
) -> tuple[int | None, ...]:
    """Return a shape without its batch axis as a tuple of positive integers.

    Args:
        name: the argument's name, for the message.
        shape: what the caller passed.
        rank: how many axes it must have, or `None` for one or more.
        variable: the axes that may be `None`, which stands for any size.

    Raises:
        TypeError, ValueError: the shape is none of these.

    Example:

    >>> check_shape("input_shape", [28, 28, 1], rank=3)
    (28, 28, 1)
    """
    axes = f"{rank} axes" if rank else "at least one axis"
    expected = f"a tuple of positive integers with {axes}, without the batch axis"
    if variable:
        expected += f" (axes {', '.join(map(str, variable))} may be None)"
    if not _is_sequence(shape):
        raise TypeError(f"`{name}` must be {expected}. Received: {name}={shape!r}")
    shape = tuple(shape)
    if len(shape) == 0 or (rank is not None and len(shape) != rank):
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={shape!r}")
    for axis, size in enumerate(shape):
        if size is None and axis in variable:
            continue
        if size is None:
            raise ValueError(f"`{name}` must be {expected}. Received: {name}={shape!r}")
        check_integer(f"{name}[{axis}]", size, minimum=1)
    return tuple(None if size is None else int(size) for size in shape)


def _is_sequence(value: Any) -> bool:
    """Whether a value has parts that can be gone through; an array without axes has none."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes))
        and getattr(value, "ndim", 1) > 0
    )


def check_sizes(name: str, sizes: Any, *, empty: bool = False) -> tuple[int, ...]:
    """Return `units`, `filters` and the like as a tuple of integers >= 1.

    Args:
        name: the argument's name, for the message.
        sizes: what the caller passed.
        empty: whether there may be none.

    Raises:
        TypeError, ValueError: the sizes are none of these.

    Example:

    >>> check_sizes("units", [64, 32])
    (64, 32)
    """
    if not _is_sequence(sizes):
        raise TypeError(
            f"`{name}` must be a sequence of integers >= 1, one per layer. "
            f"Received: {name}={sizes!r}"
        )
    checked = tuple(check_integer(f"{name}[{i}]", s, minimum=1) for i, s in enumerate(sizes))
    if not checked and not empty:
        raise ValueError(
            f"`{name}` must hold at least one integer >= 1. Received: {name}={sizes!r}"
        )
    return checked


def check_outputs(outputs: Any, head_activation: str | Callable | None) -> int:
    """Return `outputs`, or raise if it is no integer >= 1 or makes a constant softmax.

    Example:

    >>> check_outputs(1, "sigmoid")
    1
    """
    outputs = check_integer("outputs", outputs, minimum=1)
    head = activation_name(head_activation, argument="head_activation")
    if outputs == 1 and head == "softmax":
        raise ValueError(
            "`head_activation` must not be 'softmax' with outputs=1, which is 1 for every input: "
            "use 'sigmoid' for two classes, None for regression. "
            f"Received: outputs={outputs}, head_activation={head_activation!r}"
        )
    return outputs


def check_model_name(name: Any) -> str | None:
    """Return a model's name, or raise if Keras cannot call a model so; `None`: Keras's choice.

    Example:

    >>> check_model_name("mlp")
    'mlp'
    """
    if name is None:
        return None
    expected = "a name of at least one character, without '/', or None"
    if not isinstance(name, str):
        raise TypeError(f"`name` must be {expected}. Received: name={name!r}")
    if not name or "/" in name:
        raise ValueError(f"`name` must be {expected}. Received: name={name!r}")
    return name


def check_block_size(block_size: int | None, regularization: Regularization) -> None:
    """Raise unless `block_size` is an integer >= 1 that has a rate, or `None`.

    Example:

    >>> check_block_size(3, Regularization(spatial_dropout=0.1))
    """
    if block_size is None:
        return
    check_integer("block_size", block_size, minimum=1)
    if not regularization.spatial_dropout:
        raise ValueError(
            "`block_size` is the side of the squares that `regularization.spatial_dropout` drops: "
            f"expected a rate > 0 with it. Received: block_size={block_size}, spatial_dropout=0.0"
        )
