"""The rows that runs ask for, on the device once, whatever the batch size."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import math
import types
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.frozen import FrozenPart
from kregs.population.registry import NotStackable
from kregs.population.rows import (
    Feed,
    Rows,
    Stream,
    as_rows,
    as_source,
    as_validation,
    is_dataset,
    is_several,
    split_rows,
)
from kregs.population.steps import batch_sizes, whole_executions
from kregs.search.runs import Run, Split

# arguments of `fit` that hold rows
ROWS = ("x", "y", "sample_weight", "validation_data")
_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(keras.Model.fit).parameters.items()
    if parameter.default is not parameter.empty
}
# what a frozen part makes of all rows is kept if it is no larger
FROZEN_BYTES = 2**30
_FROZEN_BATCH = 256
# sets of rows that runs make of their own: each stays on the device
_MOST_OWN = 8


def with_defaults(fit: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `fit` with Keras's defaults for the others."""
    return {**_DEFAULTS, **fit}


def rows_of(run: Run, fit: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` with a fold's rows in place of all."""
    if run.split is None:
        return fit
    parts = {name: fit[name] for name in ("x", "y", "sample_weight") if fit.get(name) is not None}

    def taken(rows: np.ndarray) -> dict[str, Any]:
        return keras.tree.map_structure(lambda array: array[rows], parts)

    held_out = tuple(taken(run.split.validation_places).values())
    return {**fit, **taken(run.split.train_places), "validation_data": held_out}


def same_rows(asked: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether two sets of arguments of `fit` hold the very same arrays."""
    sides = (keras.tree.flatten([side.get(name) for name in ROWS]) for side in (asked, given))
    one, other = sides
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


class Feeds:
    """Feeds by what `fit` is asked: those that differ in their steps share the rows.

    Args:
        given: what the search was given; datasets in it may be trained on.
        folds: whether runs have rows of their own.
        halves: without folds, two halves of the validation rows.

    Example:

    >>> x, y = np.ones((70, 3)), np.ones(70)
    >>> feeds = Feeds((x, y), folds=False)
    >>> keys, found = zip(*[
    ...     feeds.get(with_defaults({"x": x, "y": y, "batch_size": size})) for size in (16, 16, 32)
    ... ])
    >>> keys[0] == keys[1], keys[0] == keys[2], found[0].data is found[2].data
    (True, False, True)
    """

    def __init__(self, given: Any, *, folds: bool, halves: Sequence[np.ndarray] = ()) -> None:
        # what is held has an id of its own
        self._given = {id(leaf): leaf for leaf in keras.tree.flatten(given)}
        self._folds, self._halves = folds, halves
        self._feeds: dict[Hashable, Feed] = {}
        self._own: set[Hashable] = set()

    def get(
        self, fit: Mapping[str, Any], split: Split | None = None, *, per_execution: int = 1
    ) -> tuple[tuple, Feed]:
        """Return a feed and its key, equal for the same rows in the same steps.

        Args:
            fit: all arguments of `fit` by name.
            split: the fold's rows, with folds.
            per_execution: the model's `steps_per_execution`.

        Raises:
            NotStackable: the data are neither arrays nor a dataset that the search was given, or
                steps are no integers > 0.
        """
        _check_data(fit)
        epoch_steps, validation_steps = (
            whole_executions(_count(name, fit[name]), per_execution)
            for name in ("steps_per_epoch", "validation_steps")
        )
        weights, streams = fit["class_weight"], is_dataset(fit["x"])
        rows_key = (
            tuple(map(self._token, keras.tree.flatten([fit[name] for name in ROWS]))),
            None if weights is None else tuple(sorted(weights.items())),
            fit["validation_split"] or 0.0,
            streams and bool(fit["shuffle"]),
            epoch_steps if streams else None,
            validation_steps if is_dataset(fit["validation_data"]) else None,
        )
        if rows_key not in self._feeds:
            self._feeds[rows_key] = self._on_device(fit, rows_key, epoch_steps, validation_steps)
        feed = self._feeds[rows_key]
        counts = feed.counts if split is None else (len(split.train), len(split.validation))
        batch_size, validation_batch_size = batch_sizes(fit, *counts)
        steps: dict[str, Any] = {
            "batch_size": feed.batch_size if isinstance(feed.data, Stream) else batch_size,
            "validation_batch_size": validation_batch_size,
            "shuffle": bool(fit["shuffle"]),
            "steps_per_epoch": None if streams else epoch_steps,
            "validation_steps": validation_steps,
        }
        key = (rows_key, *steps.values())
        if key not in self._feeds:
            self._feeds[key] = dataclasses.replace(feed, **steps)
        return key, self._feeds[key]

    @staticmethod
    def has_arrays(feed: Feed) -> bool:
        """Return whether all rows are arrays, one input each."""
        rows = [feed.data, feed.validation]
        return all(each is None or (isinstance(each, Rows) and each.row_shape) for each in rows)

    def after(self, key: Hashable, feed: Feed, parts: FrozenPart) -> Feed | None:
        """Return a feed with the outputs of a frozen part in place of the inputs, computed once.

        Args:
            key: of the feed.
            feed: of arrays.
            parts: whose trunk reads the rows.

        Returns:
            The feed, or `None` if the outputs would take more than `FROZEN_BYTES`.
        """
        own_key = (key, parts.digest)
        if own_key in self._feeds:
            return self._feeds[own_key]
        row = math.prod(parts.head.input_shape[1:]) * tf.as_dtype(parts.head.inputs[0].dtype).size
        sets = {id(rows): rows for rows in (feed.data, feed.validation) if isinstance(rows, Rows)}
        if row * sum(map(len, sets.values())) > FROZEN_BYTES:
            return None
        computed = {  # folds train and validate on the same rows
            id(rows.x): tf.convert_to_tensor(
                parts.trunk.predict(rows.x, batch_size=_FROZEN_BATCH, verbose=0)
            )
            for rows in sets.values()
        }
        replaced: dict[str, Any] = {
            name: dataclasses.replace(rows, x=computed[id(rows.x)])
            for name in ("data", "validation")
            if isinstance(rows := getattr(feed, name), Rows)
        }
        self._feeds[own_key] = dataclasses.replace(feed, **replaced)
        return self._feeds[own_key]

    def _token(self, part: Any) -> Hashable:
        """Return what is equal for equal rows."""
        if part is None or id(part) in self._given:
            return id(part)
        if is_dataset(part):
            raise NotStackable("the hypermodel's own `fit` makes a dataset for each trial")
        array = np.ascontiguousarray(part)
        digest = hashlib.blake2b(array.view(np.uint8).data).hexdigest()
        return array.dtype.str, array.shape, digest

    def _on_device(
        self,
        fit: Mapping[str, Any],
        key: Hashable,
        epoch_steps: int | None,
        validation_steps: int | None,
    ) -> Feed:
        if self._feeds:
            self._own.add(key)
        if len(self._own) > _MOST_OWN:
            self._own.discard(key)
            raise NotStackable(
                f"the hypermodel's own `fit` has more than {_MOST_OWN} kinds of rows or class "
                "weights"
            )
        data, validation = _rows(fit, self._folds, epoch_steps, validation_steps)
        return Feed(data, validation, 32, None, self._halves)


def _check_data(fit: Mapping[str, Any]) -> None:
    """Raise `NotStackable` unless the data are arrays or datasets."""
    x, validation = fit["x"], fit["validation_data"]
    parts = [] if is_dataset(x) else [x, fit["y"]]
    if isinstance(validation, (tuple, list)):
        parts += validation[:2]
    elif validation is not None and not is_dataset(validation) and not _is_generator(validation):
        kind = type(validation).__name__
        raise NotStackable(f"`validation_data` is a {kind}, no arrays and no dataset")
    if _is_generator(x) or _is_generator(validation):
        raise NotStackable("the data are a generator, which can be read once only")
    for dataset in (x, validation):
        if isinstance(dataset, tf.data.Dataset) and _holds_text(dataset.element_spec):
            raise NotStackable("the data hold text")
    for part in keras.tree.flatten(parts):
        # for Keras a list or a dictionary is several inputs
        if not (isinstance(part, (np.ndarray, tf.Tensor)) or hasattr(part, "__array__")):
            kind = type(part).__name__
            raise NotStackable(f"the data hold a {kind}, no arrays and no dataset")
        if _holds_text(part):
            raise NotStackable("the data hold text")


def _holds_text(data: Any) -> bool:
    """Return whether an array, or a part of a dataset's elements, is of words."""
    for part in keras.tree.flatten(data):
        dtype = getattr(part, "dtype", None)
        kind = getattr(dtype, "kind", None)
        if dtype == tf.string or kind in ("U", "S"):
            return True
        if kind == "O" and any(isinstance(word, (str, bytes)) for word in np.ravel(part)[:1]):
            return True
    return False


def _is_generator(data: Any) -> bool:
    return isinstance(data, types.GeneratorType)


def _count(name: str, steps: Any) -> int | None:
    if steps is not None and (not isinstance(steps, (int, np.integer)) or steps < 1):
        raise NotStackable(f"`{name}` is {steps!r}, no integer > 0")
    return None if steps is None else int(steps)


def _rows(
    fit: Mapping[str, Any], folds: bool, epoch_steps: int | None, validation_steps: int | None
) -> tuple[Rows | Stream, Rows | Stream | None]:
    """Return the training and the validation rows on the device, datasets as streams."""
    validation = fit["validation_data"]
    if is_dataset(fit["x"]):
        data = as_source(
            fit["x"],
            fit["y"],
            fit["sample_weight"],
            fit["class_weight"],
            batch_order=np.random.default_rng(0) if fit["shuffle"] else None,
            steps=epoch_steps,
        )
        if validation is None:
            return data, None
        return data, as_validation(validation, steps=validation_steps)
    weight = fit["sample_weight"]
    if weight is not None and not is_several(weight):
        weight = np.asarray(weight)
    arrays = (fit["x"], fit["y"], *(() if weight is None else (weight,)))
    if validation is None and fit["validation_split"]:
        arrays, validation = split_rows(arrays, fit["validation_split"])
    x, y, *weights = arrays
    rows = as_rows(x, y, weights[0] if weights else None, fit["class_weight"])
    if folds:
        # every run takes its own of all rows, by number; class weights are for training
        return rows, rows if fit["class_weight"] is None else dataclasses.replace(rows, weight=None)
    if validation is None:
        return rows, None
    return rows, as_validation(validation, steps=validation_steps)
