"""The data that members train on: arrays that lie on the device whole, or a streamed dataset."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.registry import NotStackable
from kregs.population.steps import EpochSteps
from kregs.validation import check_number

# batches gathered at once, so that a whole epoch of a small data set is one call
GATHER_BYTES = 128 * 2**20
# of shuffled orders that are kept for members of the same seed
ORDER_BYTES = 16 * 2**20
_INT32 = np.iinfo(np.int32)


@dataclasses.dataclass
class Rows:
    """Arrays on the device.

    Args:
        x: inputs, `(rows, ...)`, or a structure of several: tuples and dictionaries.
        y: targets, likewise.
        weight: sample weights, `(rows,)`; `None`: all are 1.
    """

    x: Any
    y: Any
    weight: tf.Tensor | None = None

    def __len__(self) -> int:
        return int(keras.tree.flatten(self.x)[0].shape[0])

    @property
    def tensors(self) -> tuple[Any, Any, tf.Tensor | None]:
        """Inputs, targets, weights."""
        return self.x, self.y, self.weight

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """The shape of one input; `None` if there are several."""
        return tuple(self.x.shape[1:]) if isinstance(self.x, tf.Tensor) else None

    @property
    def head(self) -> Any:
        """A few targets, which show their types and shapes, in their structure."""
        few = min(2, len(self))
        return keras.tree.map_structure(lambda targets: targets[:few], self.y)


def in_steps(order: np.ndarray, steps: int, batch: int) -> np.ndarray:
    """Cut an order of rows into steps, -1 where there is no row: int32 `(steps, batch)`."""
    index = np.full(steps * batch, -1, np.int32)
    index[: len(order)] = order
    return index.reshape(steps, batch)


def as_rows(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
) -> Rows:
    """Put arrays on the device, with the types that Keras gives them.

    Args:
        x, y: inputs and targets, `(rows, ...)`; of several a list, tuple or dictionary. `y` may be
            `None`: targets play no part.
        sample_weight: `(rows,)`.
        class_weight: weight of each class number, instead of `sample_weight`.

    Raises:
        TypeError: an array does not hold numbers.
        ValueError: the lengths differ, or both kinds of weights are given.
        NotStackable: there are weights for each of several outputs.
    """
    x = _as_arrays("x", x)
    inputs = keras.tree.flatten(x)
    rows = len(inputs[0])
    y = np.zeros(rows, "float32") if y is None else _as_arrays("y", y)
    lengths = [len(part) for part in (*inputs, *keras.tree.flatten(y))]
    if len(set(lengths)) > 1:
        words = f"{', '.join(map(str, lengths[:-1]))} and {lengths[-1]}"
        raise ValueError(f"`x` and `y` must have the same length. Received: {words}")
    if rows == 0:
        raise ValueError("`x` must have at least one row. Received: 0 rows")
    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError("`sample_weight` and `class_weight` were both given: give one.")
        check_one_target(y)
        sample_weight = class_weights(y, class_weight)
    if sample_weight is not None:
        if is_several(sample_weight):
            raise NotStackable("`sample_weight` has weights for each output")
        sample_weight = np.asarray(sample_weight, keras.config.floatx())
        if sample_weight.shape != (rows,):
            raise ValueError(
                f"`sample_weight` must have shape ({rows},), one number a row. "
                f"Received: shape {sample_weight.shape}"
            )
        sample_weight = tf.convert_to_tensor(sample_weight)
    x, y = keras.tree.map_structure(tf.convert_to_tensor, (x, y))
    return Rows(x, y, sample_weight)


def is_several(data: Any) -> bool:
    """Return whether data are several inputs or targets, not one.

    A dictionary is, and as in Keras a list of arrays; a list of numbers or of lists is one array.

    Example:

    >>> is_several([np.ones(3), np.ones(3)]), is_several([[1.0, 2.0], [3.0, 4.0]])
    (True, False)
    """
    if not isinstance(data, (list, tuple)):
        return isinstance(data, Mapping)
    of_arrays = any(getattr(part, "shape", ()) for part in data)
    return of_arrays or (len(data) > 0 and is_several(data[0]))


def check_one_target(y: Any) -> None:
    """Raise `ValueError` if targets that classes are to be weighted by are several."""
    if is_several(y):
        count = len(keras.tree.flatten(y))
        raise ValueError(
            f"`class_weight` must be None with several outputs. Received: {count} targets in `y`"
        )


def _as_arrays(name: str, value: Any) -> Any:
    """Return an array, or several in the structure that Keras gives them: no lists."""
    if not is_several(value):
        return _as_array(name, value)
    if isinstance(value, Mapping):
        return {key: _as_arrays(f"{name}[{key!r}]", part) for key, part in value.items()}
    return tuple(_as_arrays(f"{name}[{i}]", part) for i, part in enumerate(value))


def _as_array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError(f"`{name}` must be an array of numbers. Received: dtype object")
    if array.ndim == 0:
        raise ValueError(f"`{name}` must have rows. Received: the scalar {value!r}")
    if array.dtype.kind == "f" and array.dtype != keras.config.floatx():
        return array.astype(keras.config.floatx())
    if array.dtype == "int64" and array.size:
        fits = _INT32.min <= array.min() and array.max() <= _INT32.max
        return array.astype("int32") if fits else array
    return array


def class_weights(y: np.ndarray, class_weight: Mapping[int, float]) -> np.ndarray:
    """Return the weight of each row by its class."""
    labels = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(len(y)).round()
    weights = np.ones(len(y))
    for label, weight in class_weight.items():
        weights[labels == label] = check_number(f"class_weight[{label}]", weight, minimum=0.0)
    return weights


class Stream:
    """A dataset of batches, read anew in every epoch; all members see the same batches.

    A few batches at a time are put together, so that the device has many steps to do a call.

    Args:
        dataset: a `tf.data.Dataset` or `keras.utils.PyDataset` of `(x, y)` or `(x, y, weight)`.
        class_weight: as in `keras.Model.fit`.
        batch_order: draws the order of a PyDataset's batches anew each pass, as `fit` does.
            Default: the dataset's own.
        steps: how many batches an epoch has at most. Default: all.
        goes_on: an epoch of `steps` goes on where the last one has stopped, as in `fit`; `restart`
            begins anew. Default: it begins anew, as in `evaluate`.
        with_targets: whether there have to be targets.
        chunk_bytes: how much is put together.

    Raises:
        NotStackable: a batch is no pair or triple, or has weights for each of several outputs.
        ValueError: the dataset is empty or, without `steps`, never ends.
    """

    def __init__(
        self,
        dataset: Any,
        class_weight: Mapping[int, float] | None = None,
        *,
        batch_order: np.random.Generator | None = None,
        steps: int | None = None,
        goes_on: bool = False,
        with_targets: bool = True,
        chunk_bytes: int = GATHER_BYTES,
    ) -> None:
        self.goes_on = goes_on and steps is not None
        self._dataset = dataset
        self._batch_order: np.random.Generator | None = None  # until it is trained on
        self._class_weight = class_weight
        self._with_targets = with_targets
        self._steps = steps
        self._left: Iterator[Rows] | None = None  # of a pass, if epochs go on
        self._read = 0  # of that pass
        length = _length(dataset)
        if length == tf.data.INFINITE_CARDINALITY and steps is None:
            raise ValueError(
                "`x` must end, or the steps of an epoch be given. Received: an infinite dataset"
            )
        first = next(self._batches(), None)
        if first is None:
            raise ValueError("`x` must have at least one batch. Received: an empty dataset")
        self.batch_size = len(first)
        self.head = first.head
        self.row_shape = first.row_shape
        if length <= 0 and steps is None:
            # Keras counts the batches in the first epoch; schedules need them before it
            length = sum(1 for _ in self._batches())
        self.epoch_steps = EpochSteps(length if length > 0 else None, steps)
        arrays = keras.tree.flatten((first.x, first.y))
        size = sum(int(np.prod(array.shape)) * array.dtype.size for array in arrays)
        together = max(1, chunk_bytes // max(1, size))
        self._chunk_steps = min(self.epoch_steps.count(0), together)
        self._batch_order = batch_order

    def restart(self) -> None:
        """Let the next epoch begin anew, where epochs go on."""
        self._left = None

    def _batches(self) -> Iterator[Rows]:
        for batch in _iterate(self._dataset, self._batch_order):
            x, y, *weight = self._parts(batch)
            yield as_rows(x, y, weight[0] if weight else None, self._class_weight)

    def _parts(self, batch: Any) -> tuple[Any, ...]:
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if not self._with_targets:  # which play no part
            return parts[0], None
        if len(parts) not in (2, 3):
            raise NotStackable("the dataset's batches are not (x, y) or (x, y, sample_weight)")
        return parts

    def _epoch(self) -> Iterator[Rows]:
        """Read the batches of one epoch."""
        hooks = self._dataset if isinstance(self._dataset, keras.utils.PyDataset) else None
        if hooks is not None:
            hooks.on_epoch_begin()
        yield from self._going_on() if self.goes_on else self._beginning()
        if hooks is not None:
            hooks.on_epoch_end()

    def _beginning(self) -> Iterator[Rows]:
        return itertools.islice(self._batches(), self._steps)

    def _going_on(self) -> Iterator[Rows]:
        if self._left is None:
            self._left, self._read = self._batches(), 0
        begun = self._read
        for batch in itertools.islice(self._left, self._steps):
            self._read += 1
            yield batch
        in_pass = self.epoch_steps.in_pass
        if in_pass is None and self._read - begun < (self._steps or 0):
            raise NotStackable(
                f"the dataset, which does not say how long it is, ended after {self._read - begun} "
                f"of the {self._steps} steps of an epoch: `.repeat()` it"
            )
        if in_pass is not None and self._read >= in_pass:
            self._left = None

    def chunks(self, *, padded: bool = False) -> Iterator[tuple[Rows, np.ndarray]]:
        """Read an epoch: yield rows and the index `(steps, batch)` that they make.

        Args:
            padded: give the last chunk as many steps as the others; -1 in the index is no row.
        """
        waiting: list[Rows] = []
        for batch in self._epoch():
            waiting.append(batch)
            if len(waiting) == self._chunk_steps:
                yield self._concatenated(waiting, self._chunk_steps)
                waiting = []
        if waiting:
            yield self._concatenated(waiting, self._chunk_steps if padded else len(waiting))

    def _concatenated(self, batches: list[Rows], steps: int) -> tuple[Rows, np.ndarray]:
        width = max(self.batch_size, *map(len, batches))
        index = np.full([steps, width], -1, np.int32)
        first = 0
        for step, batch in enumerate(batches):
            index[step, : len(batch)] = np.arange(first, first + len(batch))
            first += len(batch)
        weights = [batch.weight for batch in batches]
        weighted = all(weight is not None for weight in weights)
        return Rows(
            _joined([batch.x for batch in batches]),
            _joined([batch.y for batch in batches]),
            tf.concat(weights, 0) if weighted else None,
        ), index


def _joined(parts: list[Any]) -> Any:
    """Join rows of one structure, array by array."""
    return keras.tree.map_structure(lambda *arrays: tf.concat(arrays, 0), *parts)


def is_dataset(data: Any) -> bool:
    """Return whether `data` yields batches of inputs and targets by itself."""
    return isinstance(data, (tf.data.Dataset, keras.utils.PyDataset))


def as_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    *,
    batch_order: np.random.Generator | None = None,
    steps: int | None = None,
) -> Rows | Stream:
    """Return what `fit` is given to train on as rows on the device, a dataset as a stream.

    Args:
        batch_order: see `Stream`.
        steps: of an epoch of a dataset.
    """
    if not is_dataset(x):
        return as_rows(x, y, sample_weight, class_weight)
    check_no_targets(y, sample_weight)
    return Stream(x, class_weight, batch_order=batch_order, steps=steps, goes_on=True)


def check_no_targets(y: Any, sample_weight: Any) -> None:
    """Raise if targets or weights are given beside a dataset."""
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"`{name}` must be None if `x` is a dataset: it is part of the dataset's batches. "
                f"Received: {name} of type {type(value).__name__}"
            )


def as_validation(data: Any, *, steps: int | None = None) -> Rows | Stream:
    """Return validation data, `(x, y)`, `(x, y, weight)` or a dataset, as rows.

    Args:
        steps: of a dataset, how many of its batches.
    """
    return Stream(data, steps=steps) if is_dataset(data) else as_rows(*data)


def split_rows(arrays: Any, held_out: float) -> tuple[Any, Any]:
    """Return the rows to train on and, as in Keras the last ones, those to validate on.

    Args:
        arrays: a structure of them.
        held_out: their share.

    Raises:
        ValueError: nothing is left of either.

    Example:

    >>> split_rows(np.arange(5), 0.4)
    (array([0, 1, 2]), array([3, 4]))
    """
    arrays = keras.tree.map_structure(
        lambda part: None if part is None else np.asarray(part), arrays
    )
    count = next(len(part) for part in keras.tree.flatten(arrays) if part is not None)
    cut = math.floor(count * (1.0 - held_out))
    if not 0 < cut < count:
        raise ValueError(
            "`validation_split` must leave rows to train and to validate on. "
            f"Received: validation_split={held_out} of {count} rows"
        )

    def part(chosen: slice) -> Any:
        return keras.tree.map_structure(
            lambda array: None if array is None else array[chosen], arrays
        )

    return part(slice(None, cut)), part(slice(cut, None))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of so many rows in one epoch; members with one seed share it."""
    order = np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)
    order.flags.writeable = False
    return order


class _Orders:
    """The shuffled orders of the last epochs: members with one seed share them.

    Args:
        most_bytes: how much is kept.
    """

    def __init__(self, most_bytes: int = ORDER_BYTES) -> None:
        self._most_bytes = most_bytes
        self._orders: collections.OrderedDict[tuple, np.ndarray] = collections.OrderedDict()
        self._lock = threading.Lock()  # devices have threads of their own

    @property
    def nbytes(self) -> int:
        """How much is kept at the moment."""
        return sum(order.nbytes for order in self._orders.values())

    def get(self, seed: int, epoch: int, count: int) -> np.ndarray:
        """Return the order of one epoch, int32 `(count,)`, which must not be written to."""
        key = seed, epoch, count
        with self._lock:
            if key not in self._orders:
                order = epoch_order(seed, epoch, count)
                self._orders[key] = order
                while self.nbytes > self._most_bytes and len(self._orders) > 1:
                    self._orders.popitem(last=False)
            self._orders.move_to_end(key)
            return self._orders[key]


@dataclasses.dataclass(frozen=True)
class Feed:
    """What members train and are validated on, and how it is cut into steps.

    Args:
        data, validation: rows on the device, or streams; `validation` may be `None`.
        batch_size, validation_batch_size: rows a step; streams have their own.
        validation_parts: rows of `validation`, by number, that make it up: a job whose validation
            rows are all of them gets a history on each part, too.
        shuffle: draw a new order each pass from (seed, epoch); not of streams.
        steps_per_epoch: of rows; `None`: an epoch is a pass over them.
        validation_steps: how many steps of the validation rows count; `None`: all.

    Example:

    >>> import numpy as np
    >>> feed = Feed(as_rows(np.ones((70, 3)), np.ones(70)), None, batch_size=16)
    >>> feed.steps().in_pass, feed.steps(train_rows=np.arange(20)).in_pass
    (5, 2)
    """

    data: Rows | Stream
    validation: Rows | Stream | None
    batch_size: int
    validation_batch_size: int | None = None
    validation_parts: Sequence[np.ndarray] = ()
    shuffle: bool = True
    steps_per_epoch: int | None = None
    validation_steps: int | None = None
    _orders: _Orders = dataclasses.field(default_factory=_Orders, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.data, Stream):
            object.__setattr__(self, "batch_size", self.data.batch_size)
        if not isinstance(self.validation, Rows):
            object.__setattr__(self, "validation_parts", ())

    @property
    def step_rows(self) -> int:
        """How many rows a training step has: places for more than there are only take memory."""
        if isinstance(self.data, Stream):
            return self.batch_size
        return min(self.batch_size, len(self.data))

    @property
    def validation_step_rows(self) -> int:
        """The same of a validation step."""
        batch = self.validation_batch_size or self.batch_size
        return min(batch, len(self.validation)) if isinstance(self.validation, Rows) else batch

    @property
    def counts(self) -> tuple[int | None, int | None]:
        """How many rows there are to train and to validate on, `None` of a stream or of none."""
        train, held_out = (
            len(rows) if isinstance(rows, Rows) else None for rows in (self.data, self.validation)
        )
        return train, held_out

    def validated(self, rows: np.ndarray) -> np.ndarray:
        """Return of numbers of validation rows those that count."""
        if self.validation_steps is None:
            return rows
        return rows[: self.validation_steps * (self.validation_batch_size or self.batch_size)]

    def on(self, device: str) -> Feed:
        """Return the same with its rows on another device."""
        present: dict[int, tf.Tensor] = {}  # folds train and validate on the same tensors

        def copied(tensor: tf.Tensor | None) -> tf.Tensor | None:
            if tensor is None:
                return None
            if id(tensor) not in present:
                present[id(tensor)] = tf.identity(tensor)
            return present[id(tensor)]

        with tf.device(device):
            copies = {
                name: Rows(*(keras.tree.map_structure(copied, part) for part in rows.tensors))
                for name in ("data", "validation")
                if isinstance(rows := getattr(self, name), Rows)
            }
        return dataclasses.replace(self, **copies)  # type: ignore[arg-type]

    def steps(self, train_rows: np.ndarray | None = None) -> EpochSteps:
        """Return how many steps epochs have on these row numbers; `None`: on all rows."""
        if isinstance(self.data, Stream):
            return self.data.epoch_steps
        count = len(self.data) if train_rows is None else len(train_rows)
        return EpochSteps(math.ceil(count / self.batch_size), self.steps_per_epoch)

    def order(self, train_rows: np.ndarray | None, seed: int, epoch: int) -> np.ndarray:
        """Return the row numbers of an epoch in order; not of a stream.

        Args:
            train_rows: the numbers to put in order; `None`: of all rows.
            seed: members with one seed share the order.
            epoch: counted from 0.
        """
        count = len(self.data) if train_rows is None else len(train_rows)  # type: ignore[arg-type]
        if not self.shuffle:
            return np.arange(count, dtype=np.int32) if train_rows is None else train_rows
        order = self._orders.get(seed, epoch, count)
        return order if train_rows is None else train_rows[order]


def _length(dataset: Any) -> int:
    """How many batches, negative if that is not known (`tf.data`'s constants)."""
    if isinstance(dataset, tf.data.Dataset):
        return int(dataset.cardinality())
    length = dataset.num_batches
    return tf.data.INFINITE_CARDINALITY if length is None else length


def _iterate(dataset: Any, generator: np.random.Generator | None) -> Iterator[Any]:
    if isinstance(dataset, tf.data.Dataset):
        yield from dataset.as_numpy_iterator()
        return
    numbers: Iterable[int] = itertools.count()
    if dataset.num_batches is not None:
        numbers = range(dataset.num_batches)
        numbers = numbers if generator is None else generator.permutation(numbers)
    for number in numbers:
        yield dataset[int(number)]
