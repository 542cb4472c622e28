"""Arguments of `Population`'s methods: their checks, and what each member gets of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from kregs.population.callbacks import check_callbacks
from kregs.population.registry import NotStackable
from kregs.population.rows import Rows, Stream, in_steps, is_dataset, split_rows
from kregs.population.steps import batch_sizes
from kregs.training.data_checks import check_row_numbers, check_rows
from kregs.validation import check_integer, check_number, in_words


def each_member(name: str, value: Any, count: int) -> list[Any]:
    """Return one value a member, of a number for all or a list of `count`."""
    if isinstance(value, str) or getattr(value, "ndim", 1) == 0 or not isinstance(value, Iterable):
        return [value] * max(1, count)
    values = list(value)
    if len(values) != count:
        raise ValueError(
            f"`{name}` must be one integer or one a {'model' if name == 'seeds' else 'member'} "
            f"({count}). "
            f"Received: {len(values)} numbers"
        )
    return values


def check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        if count is not None:
            check_integer(name, count, minimum=1)


def check_frequency(frequency: Any) -> None:
    """Raise unless it says which epochs are validated, as Keras's `validation_freq`."""
    if isinstance(frequency, (list, tuple)) and frequency:
        for number in frequency:
            check_integer("validation_freq", number, minimum=1)
    else:
        check_integer("validation_freq", frequency, minimum=1)


def split(fraction: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any, Any]:
    """Return the rows to train on, and the last ones as validation data."""
    fraction = check_number("validation_split", fraction, minimum=0.0, below=1.0)
    if is_dataset(x):
        raise ValueError(
            "`validation_split` must be 0 if `x` is a dataset: give `validation_data`. "
            f"Received: validation_split={fraction}"
        )
    if y is None:
        raise TypeError("`y` must be given with arrays. Received: y=None")
    train, held_out = split_rows((x, y, sample_weight), fraction)
    return *train, held_out if sample_weight is not None else held_out[:2]


def check_no_other_rows(x: Any, validation_data: Any, validation_split: float) -> None:
    """Raise if members cannot have rows of their own, or are to be validated on others."""
    if is_dataset(x):
        raise ValueError(
            "`splits` must be None if `x` is a dataset, whose rows have no numbers. "
            f"Received: x of type {type(x).__name__}"
        )
    for name, given in (
        ("validation_data", validation_data is not None),
        ("validation_split", bool(validation_split)),
    ):
        if given:
            raise ValueError(
                f"`{name}` must not be given with `splits`, whose second parts are validated on. "
                f"Received: both"
            )


def check_sizes_of_splits(sizes: Mapping[str, int | None]) -> None:
    """Raise if a batch would be so many of all rows, of which each member has some.

    Args:
        sizes: the arguments of `fit` that say how many rows or steps there are.
    """
    if sizes["batch_size"] is not None:
        return
    for name, size in (
        ("steps_per_epoch", "batch_size"),
        ("validation_steps", "validation_batch_size"),
    ):
        if sizes[name] is not None and sizes[size] is None:
            raise ValueError(
                f"`{size}` must be given with `splits` and `{name}`: members have other numbers of "
                f"rows. Received: {name}={sizes[name]}, {size}=None"
            )


def check_splits(splits: Any, rows: int, members: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the numbers of the rows that each member trains on and is validated on.

    Args:
        splits: a pair a member.
        rows: how many there are.
        members: how many of them.
    """
    if isinstance(splits, (str, Mapping)) or not isinstance(splits, Iterable):
        raise TypeError(
            "`splits` must be a list with a pair of row numbers for each member, (train, "
            f"validation). Received: {in_words(splits)}"
        )
    pairs = list(splits)
    if len(pairs) != members:
        raise ValueError(
            f"`splits` must be one pair a member ({members}). Received: {len(pairs)} pairs"
        )
    checked = []
    for number, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(
                "`splits` must be pairs (train, validation) of row numbers. "
                f"Received: {in_words(pair)} in split {number}"
            )
        train, held_out = (check_row_numbers("splits", part, rows, number) for part in pair)
        if not len(train):
            raise ValueError(
                f"`splits` must have rows to train on in every split. Received: none in {number}"
            )
        checked.append((train, held_out))
    judged = sum(len(held_out) > 0 for _, held_out in checked)
    if 0 < judged < members:
        raise ValueError(
            "`splits` must have rows to validate on in every split, or in none. "
            f"Received: in {judged} of {members}"
        )
    return checked


def batches(
    data: Rows | Stream, batch_size: int | None, steps: int | None
) -> tuple[int, Callable[[], Iterable[tuple[Rows, np.ndarray]]]]:
    """Return how many rows a batch has, and what goes over the batches: rows and their index.

    Args:
        batch_size: of arrays, as in Keras.
        steps: how many batches of arrays; a stream knows it.
    """
    if isinstance(data, Stream):
        return data.batch_size, data.chunks
    rows = len(data)
    batch_size, _ = batch_sizes({"batch_size": batch_size, "steps_per_epoch": steps}, rows, None)
    batch_size = min(batch_size, rows)
    order = np.arange(rows, dtype=np.int32)
    index = in_steps(order, math.ceil(rows / batch_size), batch_size)[:steps]
    return batch_size, lambda: [(data, index)]


# these write where they were told to, whoever's they are
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)


def member_callbacks(
    callbacks: Any, early_stopping: Any, members: int
) -> list[list[keras.callbacks.Callback]]:
    """Return the callbacks of each member."""
    if early_stopping is not None and not isinstance(early_stopping, keras.callbacks.EarlyStopping):
        raise TypeError(
            "`early_stopping` must be a keras.callbacks.EarlyStopping, such as "
            f"kregs.early_stopping(), or None. Received: early_stopping={early_stopping!r}"
        )
    if isinstance(callbacks, (keras.callbacks.Callback, str, type)) or not isinstance(
        callbacks, Iterable
    ):
        raise TypeError(f"`callbacks` must be a list of callbacks. Received: {callbacks!r}")
    callbacks = list(callbacks)
    if callbacks and all(isinstance(own, (list, tuple)) for own in callbacks):
        if len(callbacks) != members:
            raise ValueError(
                f"`callbacks` must be one list for all or one a member ({members}). "
                f"Received: {len(callbacks)} lists"
            )
        of_members = [list(own) for own in callbacks]
        given = [callback for own in of_members for callback in own]
        if len({id(callback) for callback in given}) < len(given):
            raise ValueError(
                "`callbacks` must hold other objects for each member: a callback has one model. "
                "Received: one object twice"
            )
    else:
        given = callbacks
        writer = next((each for each in given if isinstance(each, _WRITERS)), None)
        if writer is not None and members > 1:
            name = type(writer).__name__
            raise NotStackable(
                f"`callbacks` must be a list for each member, [[{name}(...), ...], ...], where one "
                f"is a {name}, which writes where it was told to. Received: one {name} for "
                f"{members} members"
            )
        of_members = [callbacks] * members
    stopping = [] if early_stopping is None else [early_stopping]
    check_callbacks([*given, *stopping])
    if given is callbacks:
        of_members = [copy.deepcopy(own) for own in of_members]
    return [[*own, *copy.deepcopy(stopping)] for own in of_members]


def check_validation(data: Any, model: keras.Model) -> None:
    if data is None or is_dataset(data):
        return
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "`validation_data` must be (x, y), (x, y, sample_weight) or a dataset. "
            f"Received: {in_words(data)}"
        )
    check_rows(*data, model=model, name="validation_data[{}]")
