"""`check_data`: NaN, wrong shapes and wrong labels are errors before training, not within it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.training.targets import (
    BINARY,
    CATEGORICAL,
    REGRESSION,
    SPARSE,
    check_classes,
    compiled_loss,
)

_ELEMENTWISE = (
    *REGRESSION,
    keras.losses.KLDivergence,
    keras.losses.Hinge,
    keras.losses.SquaredHinge,
)


def check_data(
    x: Any,
    y: Any = None,
    *,
    model: keras.Model | None = None,
    loss: Any = None,
    training: bool = False,
    x_name: str = "x",
    y_name: str = "y",
) -> None:
    """Raise if data cannot be what a model should be trained or evaluated on.

    Args:
        x: inputs: a NumPy array, a list of numbers, a pandas object, a TensorFlow tensor, a list or
            dict of such for several inputs, or a `tf.data.Dataset` of batches `(x, y)`. A dataset
            is read once if its length is known and finite; else its first batch is checked.
        y: targets, of the same kinds; `None` for a dataset, or to check `x` alone.
        model: if given, shapes are compared with its input and output, and labels with the loss
            that it is compiled with.
        loss: a Keras loss object to compare labels with, instead of the model's.
        training: whether the model is to be trained on them: the targets of a classification
            must then be of two classes at least. A dataset that is not read whole may have more.
        x_name, y_name: what the messages call the data.

    Raises:
        TypeError: the data cannot be read as real numbers, or have masked ones.
        ValueError: data are empty, contain NaN or infinity (the message says how many and where the
            first is), differ in length, have a shape that the model does not take, or hold labels
            that its outputs and loss do not know. Numbers that float32 cannot hold are infinite.

    Example:

    >>> import numpy as np
    >>> check_data(np.zeros((3, 2)), np.array([0, 1, 1]))
    >>> check_data(np.array([[0.0], [np.nan], [np.inf]]))
    Traceback (most recent call last):
        ...
    ValueError: `x` must be finite. Received: 1 NaN and 1 infinite of 3 values, the first in row 1
    """
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise ValueError(
                f"`{y_name}` must be None if `{x_name}` is a dataset: the targets are in it."
            )
        batches = _dataset_batches(x, x_name)
    else:
        batches = iter([(x, y)])
    finite = _FiniteCheck()
    rows = 0
    all_targets: list[np.ndarray] = []
    for inputs, targets in batches:
        x_leaves = _leaves(x_name, inputs)
        y_leaves = {} if targets is None else _leaves(y_name, targets)
        if model is not None:
            _check_inputs(x_name, x_leaves, model)
        _check_lengths(x_leaves | y_leaves)
        for name, array in (x_leaves | y_leaves).items():
            finite.add(name, array, rows)
        for name, array in y_leaves.items():
            if array.dtype.kind in "OSU":
                raise TypeError(f"`{name}` must hold numbers. Received: text, {array.dtype}")
        if model is not None and y_leaves:
            _check_outputs(y_name, y_leaves, model)
        if model is not None and len(y_leaves) == 1:
            (y_array,) = y_leaves.values()
            _check_targets(y_name, y_array, model, rows, loss)
            all_targets.append(y_array)
        rows += len(next(iter(x_leaves.values())))
    if not rows:
        raise ValueError(f"`{x_name}` must not be empty. Received: a dataset without batches")
    finite.finish()
    is_whole = not isinstance(x, tf.data.Dataset) or int(x.cardinality()) >= 0
    if training and model is not None and all_targets and is_whole:
        targets_name = x_name if isinstance(x, tf.data.Dataset) else y_name
        check_classes(targets_name, np.concatenate(all_targets), model)


def check_rows(
    x: Any,
    y: Any,
    sample_weight: Any = None,
    *,
    model: keras.Model,
    training: bool = False,
    name: str = "",
) -> None:
    """Raise unless inputs, targets and weights are arrays that belong together.

    Args:
        x, y, model, training: as in `check_data`, no dataset.
        sample_weight: one number a row, or `None`.
        name: what the message calls the three: a pattern that takes 0, 1 or 2.

    Raises:
        TypeError, ValueError: as `check_data` and `check_sample_weight`.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> check_rows(np.zeros((3, 2)), np.ones(3), np.array([1, 0, 2]), model=model)
    """
    names = ("x", "y", "sample_weight")
    x_name, y_name, weight_name = (name.format(i) or names[i] for i in range(3))
    for part_name, part in ((x_name, x), (y_name, y)):
        if part is None or isinstance(part, (tf.data.Dataset, keras.utils.PyDataset)):
            raise TypeError(
                f"`{part_name}` must be an array. Received: {part_name}={type(part).__name__}"
                if part is not None
                else f"`{part_name}` must be given with arrays. Received: {part_name}=None"
            )
    check_data(x, y, model=model, training=training, x_name=x_name, y_name=y_name)
    rows = len(next(iter(_leaves(y_name, y).values())))
    check_sample_weight(weight_name, sample_weight, rows)


def check_sample_weight(name: str, weights: Any, rows: int) -> np.ndarray | None:
    """Return weights of rows as an array, or raise unless they are >= 0 and some above 0.

    Args:
        name: the argument's name, for the message.
        weights: one number a row; `None` stays `None`.
        rows: how many rows there are.

    Raises:
        TypeError, ValueError: they are no finite numbers >= 0, all are 0, or their number differs.

    Example:

    >>> check_sample_weight("sample_weight", [1, 0, 2], 3)
    array([1, 0, 2])
    """
    if weights is None:
        return None
    if isinstance(weights, dict):
        raise TypeError(f"`{name}` must be one number a row. Received: {weights!r}")
    check_data(weights, x_name=name)
    array = np.asarray(weights)
    if array.dtype.kind not in "biufV":
        raise TypeError(f"`{name}` must hold numbers. Received: dtype {array.dtype}")
    if len(array) != rows or array.ndim != 1:
        raise ValueError(
            f"`{name}` must have {rows} rows, as x has, one number each. "
            f"Received: shape {array.shape}"
        )
    if array.min() < 0:
        row = int(np.argmax((array < 0).reshape(rows, -1).any(axis=1)))
        raise ValueError(
            f"`{name}` must be >= 0. Received: {array[row].min().item()!r} in row {row}"
        )
    if not array.any():
        raise ValueError(f"`{name}` must have a weight above 0. Received: {rows} weights of 0")
    return array


def check_row_numbers(name: str, part: Any, rows: int, number: int) -> np.ndarray:
    """Return row numbers as int32, or raise if there are no such rows.

    Args:
        name: of the argument, in the plural, such as `"folds"`.
        part: row numbers, or a mask of all rows.
        rows: how many rows there are.
        number: of the fold or split, for the message.

    Example:

    >>> check_row_numbers("folds", [False, True, True], 3, 0)
    array([1, 2], dtype=int32)
    """
    place = f"{name.removesuffix('s')} {number}"
    try:
        numbers = np.asarray(part)
    except ValueError:
        numbers = np.asarray(None)
    if numbers.dtype == bool and numbers.shape == (rows,):
        numbers = np.flatnonzero(numbers)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(
            f"`{name}` must be pairs of lists of row numbers. Received: {part!r} in {place}"
        )
    if numbers.size and not (numbers.min() >= 0 and numbers.max() < rows):
        raise ValueError(
            f"`{name}` must hold row numbers in [0, {rows}). "
            f"Received: {numbers.min()} to {numbers.max()} in {place}"
        )
    return numbers.astype(np.int32)


def _dataset_batches(data: tf.data.Dataset, name: str) -> Iterator[tuple[Any, Any]]:
    cardinality = int(data.cardinality())
    for element in data if cardinality >= 0 else data.take(1):
        parts = element if isinstance(element, tuple) else (element,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"`{name}` must be a dataset of x, (x, y) or (x, y, sample_weight). "
                f"Received: elements of {len(parts)} parts"
            )
        yield parts[0], parts[1] if len(parts) > 1 else None


def _leaves(name: str, data: Any) -> dict[str, np.ndarray]:
    """Return the arrays in `data`, each under the name a message should call it."""
    if isinstance(data, dict):
        if not data:
            raise ValueError(f"`{name}` must not be empty. Received: {{}}")
        return {f"{name}[{key!r}]": _array(f"{name}[{key!r}]", part) for key, part in data.items()}
    # as in Keras, a list of arrays is several inputs, and a list of numbers or of lists is one
    if isinstance(data, (list, tuple)) and any(getattr(part, "shape", ()) for part in data):
        return {f"{name}[{i}]": _array(f"{name}[{i}]", part) for i, part in enumerate(data)}
    return {name: _array(name, data)}


def _array(name: str, data: Any) -> np.ndarray:
    if np.ma.isMaskedArray(data) and np.ma.is_masked(data):
        raise TypeError(
            f"`{name}` must be an array without masked values: fill them, or leave their rows out. "
            f"Received: {int(np.ma.count_masked(data))} masked of {data.size} values"
        )
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"`{name}` must be an array of numbers. Received: {type(data).__name__} ({error})"
        ) from None
    not_numbers = array.dtype.kind in "Mmc" or array.dtype.names is not None
    if not_numbers or (array.dtype.kind == "O" and not _is_text(array)):
        first = f", the first {array.reshape(-1)[0]!r}" if array.size else ""
        raise TypeError(
            f"`{name}` must be an array of numbers. Received: dtype {array.dtype}{first}"
        )
    if array.ndim == 0:
        raise ValueError(f"`{name}` must have one row per sample. Received: {data!r}")
    if not array.size:
        raise ValueError(f"`{name}` must not be empty. Received: shape {array.shape}")
    return array


def _is_text(array: np.ndarray) -> bool:
    return bool(array.size) and all(isinstance(v, (str, bytes)) for v in array.reshape(-1))


def _check_lengths(leaves: dict[str, np.ndarray]) -> None:
    lengths = {name: len(array) for name, array in leaves.items()}
    if len(set(lengths.values())) > 1:
        names = " and ".join(f"`{name}`" for name in lengths)
        counts = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"{names} must have the same number of rows. Received: {counts}")


class _FiniteCheck:
    """Counts what is not finite over all batches, to report it as one."""

    def __init__(self) -> None:
        self._nan: dict[str, int] = {}
        self._infinite: dict[str, int] = {}
        self._values: dict[str, int] = {}
        self._first: dict[str, int] = {}

    def add(self, name: str, array: np.ndarray, first_row: int) -> None:
        self._values[name] = self._values.get(name, 0) + array.size
        # the dtypes TensorFlow adds (bfloat16) are of kind V to NumPy
        if array.dtype.kind not in "fV":
            return
        if (
            array.dtype.kind == "f"
            and array.dtype.itemsize > 4
            and keras.config.floatx() != "float64"
        ):
            with np.errstate(over="ignore"):  # as TensorFlow will round it
                array = array.astype("float32")
        bad = ~np.isfinite(array)
        if not bad.any():
            return
        self._nan[name] = self._nan.get(name, 0) + int(np.isnan(array).sum())
        self._infinite[name] = self._infinite.get(name, 0) + int(np.isinf(array).sum())
        row = int(np.argmax(bad.reshape(len(array), -1).any(axis=1)))
        self._first.setdefault(name, first_row + row)

    def finish(self) -> None:
        for name, row in self._first.items():
            counts = [
                f"{count} {word}"
                for count, word in ((self._nan[name], "NaN"), (self._infinite[name], "infinite"))
                if count
            ]
            raise ValueError(
                f"`{name}` must be finite. Received: {' and '.join(counts)} of "
                f"{self._values[name]} values, the first in row {row}"
            )


def _check_inputs(x_name: str, leaves: dict[str, np.ndarray], model: keras.Model) -> None:
    expected = getattr(model, "inputs", None)
    if not expected:  # a model that is not built takes any shape
        return
    if len(expected) != len(leaves):
        raise ValueError(
            f"`{x_name}` must hold {len(expected)} input(s) for this model. Received: {len(leaves)}"
        )
    if len(expected) > 1:  # Keras matches several inputs by name or order; it checks them itself
        return
    name, array = next(iter(leaves.items()))
    if not _fits(array.shape, expected[0].shape):
        unbatched = _fits((1, *array.shape), expected[0].shape)
        raise ValueError(
            f"`{name}` must have the shape of the model's input, "
            f"{_shape_words(expected[0].shape)}. Received: shape {array.shape}"
            + (". Are the samples in batches?" if unbatched else "")
        )
    if (array.dtype.kind in "OSU") != (expected[0].dtype == "string"):
        raise TypeError(
            f"`{name}` must be of the model's input dtype, {expected[0].dtype}. "
            f"Received: dtype {array.dtype}"
        )


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Return whether Keras takes data of this shape; it adds or drops a last axis of 1."""
    if len(shape) == len(expected) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    elif len(shape) == len(expected) - 1 and expected[-1] == 1:
        shape = (*shape, 1)
    return len(shape) == len(expected) and all(
        size is None or size == received for size, received in zip(expected, shape, strict=True)
    )


def _shape_words(shape: tuple[int | None, ...]) -> str:
    sizes = ["n", *("any" if size is None else str(size) for size in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _check_outputs(y_name: str, leaves: dict[str, np.ndarray], model: keras.Model) -> None:
    outputs = getattr(model, "outputs", None)
    if outputs and len(outputs) != len(leaves):
        raise ValueError(
            f"`{y_name}` must hold targets for {len(outputs)} output(s) of this model. "
            f"Received: {len(leaves)}"
        )


def _check_targets(name: str, y: np.ndarray, model: keras.Model, first_row: int, loss: Any) -> None:
    outputs = getattr(model, "outputs", None)
    loss = compiled_loss(model) if loss is None else loss
    if not outputs or len(outputs) != 1 or loss is None:
        return
    shape = tuple(outputs[0].shape)
    if isinstance(loss, SPARSE):
        _check_class_numbers(name, y, shape, first_row, getattr(loss, "ignore_class", None))
    elif isinstance(loss, (*CATEGORICAL, *BINARY)):
        hint = ""
        if isinstance(loss, CATEGORICAL) and y.reshape(len(y), -1).shape[1] == 1 != shape[-1]:
            hint = ". For class numbers use loss='sparse_categorical_crossentropy'"
        _check_shape(name, y, shape, hint)
        _check_within_01(name, y, first_row)
    elif isinstance(loss, _ELEMENTWISE):
        _check_shape(name, y, shape)


def _check_class_numbers(
    name: str, y: np.ndarray, shape: tuple, first_row: int, ignored: int | None
) -> None:
    classes = shape[-1]
    if not _fits(y.shape, (*shape[:-1], 1)) and not _fits(y.shape, shape[:-1]):
        one_hot = _fits(y.shape, shape)
        raise ValueError(
            f"`{name}` must hold class numbers of shape {_shape_words(shape[:-1])} for "
            f"sparse_categorical_crossentropy. Received: shape {y.shape}"
            + (". For one-hot labels use loss='categorical_crossentropy'" if one_hot else "")
        )
    rows = y.reshape(len(y), -1)
    if rows.dtype.kind == "f":
        rows = np.where(np.isfinite(rows), rows, 0)  # reported as not finite
        _raise_at(name, rows != np.floor(rows), rows, first_row, "hold whole class numbers")
    if classes is not None:
        wrong = (rows < 0) | (rows >= classes)
        if ignored is not None:
            wrong &= rows != ignored
        expected = f"hold class numbers in [0, {classes}): the model has {classes} outputs"
        _raise_at(name, wrong, rows, first_row, expected)


def _check_shape(name: str, y: np.ndarray, shape: tuple, hint: str = "") -> None:
    if not _fits(y.shape, shape):
        raise ValueError(
            f"`{name}` must have the shape of the model's output, {_shape_words(shape)}. "
            f"Received: shape {y.shape}{hint}"
        )


def _check_within_01(name: str, y: np.ndarray, first_row: int) -> None:
    rows = y.reshape(len(y), -1)
    if rows.dtype.kind in "iuf":
        wrong = (rows < 0) | (rows > 1)
        _raise_at(name, wrong, rows, first_row, "hold labels in [0, 1] for a crossentropy")


def _raise_at(
    name: str, wrong: np.ndarray, rows: np.ndarray, first_row: int, expected: str
) -> None:
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"`{name}` must {expected}. Received: {int(wrong.sum())} other value(s), the first "
            f"{rows[row, column].item()!r} in row {first_row + int(row)}"
        )
