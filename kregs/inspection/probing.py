"""What looking into a model takes: its layers by name, batches of rows, its state put back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.builders.layer_copies import sublayers
from kregs.population.keras_internals import all_layers
from kregs.population.rows import is_dataset
from kregs.training.data_checks import check_data, check_sample_weight
from kregs.validation import check_path


@dataclasses.dataclass(frozen=True)
class NamedLayer:
    """A layer, and its name behind those of the models and layers that it is within.

    Args:
        name: such as `encoder/dense_1`.
        layer: the layer.
        variables: the trainable weights that are its own, not those of a layer within it.
    """

    name: str
    layer: keras.layers.Layer
    variables: tuple[Any, ...]


def named_layers(model: keras.Model) -> list[NamedLayer]:
    """Return the layers that compute something themselves, each once, in the model's own order.

    A recurrent layer is one with its cell. Models and layers that only hold others are left out.

    Example:

    >>> dense = keras.layers.Dense(3, name="a")
    >>> inner = keras.Sequential([keras.Input((5, 2)), dense], name="inner")
    >>> model = keras.Sequential([keras.Input((5, 2)), inner, keras.layers.GRU(1, name="b")])
    >>> [(layer.name, len(layer.variables)) for layer in named_layers(model)]
    [('inner/a', 2), ('b', 3)]
    """
    layers: list[NamedLayer] = []
    seen_layers: set[int] = set()
    owned: set[int] = set()

    def visit(layer: Any, prefix: str) -> None:
        if id(layer) in seen_layers:
            return
        seen_layers.add(id(layer))
        name = layer.name if layer is model else f"{prefix}{layer.name}"
        children = _children(layer)
        for child in children:
            visit(child, "" if layer is model else f"{name}/")
        own = [v for v in layer.trainable_variables if id(v) not in owned]
        owned.update(map(id, own))
        if own or not (children or isinstance(layer, keras.layers.InputLayer)):
            layers.append(NamedLayer(name, layer, tuple(own)))

    visit(model, "")
    return layers


def _children(layer: Any) -> list[Any]:
    """Return the layers directly within a layer; a cell belongs to its recurrent layer."""
    if isinstance(layer, keras.layers.RNN):
        return []
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    within = sublayers(layer)[1:]
    deeper = {id(inner) for child in within for inner in sublayers(child)[1:]}
    return [child for child in within if id(child) not in deeper]


@contextlib.contextmanager
def state_kept(model: keras.Model) -> Iterator[None]:
    """Put back, when the block ends, all of a model's state that a forward pass may change.

    These are moving averages, the states of random seeds, recurrent states and metrics.
    """
    of_metrics = [variable for metric in model.metrics for variable in metric.variables]
    # those of a stateful recurrent layer are among no model's variables
    recurrent = [
        state
        for layer in all_layers(model)
        for state in keras.tree.flatten(getattr(layer, "states", None))
        if isinstance(state, keras.Variable)
    ]
    changing = [v for v in [*model.variables, *of_metrics] if not v.trainable]
    states = {id(variable): variable for variable in [*changing, *recurrent]}
    before = [(variable, tf.identity(variable.value)) for variable in states.values()]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def check_model(model: Any, *, compiled: bool) -> None:
    """Raise unless it is a built Keras model, and a compiled one if asked for.

    Raises:
        TypeError: it is no keras model.
        ValueError: it is not built, or not compiled.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r} of {type(model).__name__}"
        )
    if not model.built:
        raise ValueError(
            "`model` must be built: begin it with a keras.Input, or call it on a few rows. "
            f"Received: model {model.name!r}, which is not"
        )
    if compiled and not model.compiled:
        raise ValueError(
            "`model` must be compiled, so that it has a loss: end it with "
            "`kregs.compile_model(model, loss)` or `model.compile(...)`. "
            f"Received: model {model.name!r}, which is not"
        )


class HalfPrecisionPenalty(ValueError):
    """A model has a penalty in half precision, which Keras cannot add to its loss."""


def whole_loss(
    model: keras.Model,
    x: Any,
    y: Any,
    prediction: Any,
    sample_weight: Any = None,
    *,
    training: bool = False,
) -> Any:
    """Return what `fit` minimizes: the loss of the data and all penalties.

    Raises:
        HalfPrecisionPenalty: Keras itself fails to add them, in `fit`, too.
    """
    try:
        return model.compute_loss(x, y, prediction, sample_weight, training=training)
    except (TypeError, tf.errors.InvalidArgumentError) as error:
        dtypes = {keras.backend.standardize_dtype(loss.dtype) for loss in model.losses}
        half = sorted(dtypes & {"float16", "bfloat16"})
        if not half:
            raise
        raise HalfPrecisionPenalty(
            f"`model` must have penalties in float32. Received: model {model.name!r} with one in "
            f"{half[0]}, which Keras cannot add to the loss, so that `fit` fails: "
            "kregs.audit(model) says of which layer, its repair() puts activity penalties right"
        ) from error


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows as a model takes them; targets and weights may be `None`."""

    x: Any
    y: Any = None
    sample_weight: Any = None

    def __len__(self) -> int:
        return len(keras.tree.flatten(self.x)[0])

    def take(self, rows: Any) -> Batch:
        """Return some of the rows, by number or as a slice."""
        return Batch(*(_map(lambda a: a[rows], part) for part in dataclasses.astuple(self)))


def as_batch(
    x: Any, y: Any, sample_weight: Any, model: keras.Model | None, *, loss: Any = None
) -> Batch:
    """Return checked arrays, or the first batch of a dataset, as the model takes them.

    Args:
        x, y, sample_weight: as for `fit`.
        model: to compare their shapes with, or `None`.
        loss: to compare the targets with; default: that which the model is compiled with.

    Raises:
        TypeError, ValueError: as `kregs.training.data_checks.check_data`.
    """
    if is_dataset(x):
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None if `x` is a dataset: it is part of its batches. "
                    f"Received: {name} of type {type(value).__name__}"
                )
        first = next(iter(x), None) if isinstance(x, tf.data.Dataset) else x[0]
        if first is None:
            raise ValueError("`x` must have at least one batch. Received: an empty dataset")
        x, y, sample_weight, *_ = *(first if isinstance(first, tuple) else (first,)), None, None
    check_data(x, y, model=model, loss=loss)
    batch = Batch(_arrays(x), None if y is None else _arrays(y))
    weight = check_sample_weight("sample_weight", sample_weight, len(batch))
    return dataclasses.replace(batch, sample_weight=None if weight is None else _arrays(weight))


def some_rows(batch: Batch, rows: int | None) -> Batch:
    """Return so many rows, evenly spread: data are often sorted by class."""
    if rows is None or rows >= len(batch):
        return batch
    return batch.take(np.linspace(0, len(batch) - 1, rows).round().astype(int))


def _map(function: Any, data: Any) -> Any:
    return None if data is None else keras.tree.map_structure(function, data)


def _arrays(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _array(part) for name, part in data.items()}
    if isinstance(data, (list, tuple)) and any(getattr(part, "shape", ()) for part in data):
        return [_array(part) for part in data]  # several inputs, as in Keras
    return _array(data)


def _array(data: Any) -> np.ndarray:
    array = np.asarray(data)
    if array.dtype.kind == "f" and array.dtype != keras.config.floatx():
        return array.astype(keras.config.floatx())  # as `fit` does
    return array


class ScalarWriter:
    """Writes scalars of each epoch for TensorBoard, if it is given a folder.

    Args:
        log_dir: the folder, or `None`.
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None) -> None:
        self._folder: Path | None = None if log_dir is None else check_path("log_dir", log_dir)
        self._writer: Any = None

    def write(self, scalars: dict[str, float], epoch: int) -> None:
        """Write the numbers of one epoch, counted from 0."""
        if self._folder is None:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(os.fspath(self._folder))
        with self._writer.as_default():
            for name, value in scalars.items():
                tf.summary.scalar(name, value, step=epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a further `write` begins another."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None
