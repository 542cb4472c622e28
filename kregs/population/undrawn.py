"""Initial weights that are drawn when something reads them first, and equal ones only once.

A model that is stacked gives its initial weights away as arrays: its own variables are never
trained, and most are never read. Making them takes longer than all else of building a small model.
What Keras's own initializers draw depends on nothing but their seed, shape and dtype, so that it
is the same whenever it is drawn.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.keras_internals import (
    generator_seed,
    is_on_default_device,
    is_stateless,
    variables_handed_to,
)

# with a seed that is a number, and plain numbers else, none of them raises
_OF_ANY_DTYPE = (keras.initializers.Zeros, keras.initializers.Ones)
_OF_FLOATS = (
    keras.initializers.Constant, keras.initializers.RandomNormal,
    keras.initializers.RandomUniform, keras.initializers.TruncatedNormal,
    keras.initializers.VarianceScaling, keras.initializers.GlorotNormal,
    keras.initializers.GlorotUniform, keras.initializers.HeNormal,
    keras.initializers.HeUniform, keras.initializers.LecunNormal,
    keras.initializers.LecunUniform,
)  # fmt: skip
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_LARGEST_SEED = 2**31 - 1

# whether a larger one fits the memory must be known as soon as it is made
_LARGEST_BYTES = 2**26
_KEPT_BYTES = 2**26  # of all draws together

_using = threading.RLock()


class InitialWeights:
    """What the models of a search begin with: many of them with the same numbers.

    Example:

    >>> import keras
    >>> with InitialWeights().drawn_late():
    ...     layer = keras.layers.Dense(2)
    ...     layer.build((None, 3))
    >>> layer.kernel.numpy().shape, is_drawn(layer.kernel)
    ((3, 2), False)
    >>> output = layer(keras.ops.ones((1, 3)))
    >>> is_drawn(layer.kernel)
    True
    """

    def __init__(self) -> None:
        self._draws: collections.OrderedDict[str, tf.Tensor] = collections.OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._draws)

    @contextlib.contextmanager
    def drawn_late(self) -> Iterator[None]:
        """Let variables that this thread makes in the block be drawn when they are read first."""
        with variables_handed_to(self._take):
            yield

    def _take(self, variable: keras.Variable, initial: Any) -> bool:
        """Return whether a variable can wait for its reader, in which case it does.

        Args:
            initial: its initializer or its value.
        """
        if not is_on_default_device():
            return False
        if isinstance(initial, tf.Tensor):  # it costs less than a variable
            UndrawnVariable.wait(variable, lambda: initial)
            return True
        shape, dtype = tuple(variable.shape), variable.dtype
        if not callable(initial) or _bytes_of(shape, dtype) > _LARGEST_BYTES:
            return False
        seed = generator_seed(initial)
        if seed is not None and 0 <= seed <= _LARGEST_SEED:
            draw = functools.partial(initial, shape, dtype=dtype)
        elif _is_plain(initial, dtype):
            unchanged = copy.copy(initial)
            key = repr((type(initial), sorted(vars(initial).items()), shape, dtype))
            draw = functools.partial(self._draw, key, unchanged, shape, dtype)
        else:
            return False
        UndrawnVariable.wait(variable, draw)
        return True

    def _draw(self, key: str, initializer: Any, shape: tuple[int, ...], dtype: str) -> tf.Tensor:
        if key in self._draws:
            self._draws.move_to_end(key)
            return self._draws[key]
        drawn = self._draws[key] = initializer(shape, dtype=dtype)
        self._bytes += _bytes_of(shape, dtype)
        while self._bytes > _KEPT_BYTES:
            _, oldest = self._draws.popitem(last=False)
            self._bytes -= _bytes_of(oldest.shape, oldest.dtype)
        return drawn


def _bytes_of(shape: Any, dtype: Any) -> int:
    return math.prod(shape) * tf.as_dtype(dtype).size


def _is_plain(initializer: Any, dtype: str) -> bool:
    """Return whether an initializer always draws the same, and never raises."""
    kind, values = type(initializer), vars(initializer)
    if kind in _OF_ANY_DTYPE:
        return dtype in (*_FLOATS, *_INTEGERS) and not values
    if kind not in _OF_FLOATS or dtype not in _FLOATS:
        return False
    # the others are a name, or absent: fans are counted along the last two axes
    numbers = [value for value in values.values() if not isinstance(value, (str, type(None)))]
    seed = values.get("seed", 0)
    plain = all(type(value) in (int, float) for value in numbers)
    return plain and type(seed) is int and 0 <= seed <= _LARGEST_SEED


@dataclasses.dataclass(frozen=True)
class _Initial:
    """What a variable that is not drawn yet begins with.

    Args:
        draw: returns its value.
        trainable: whether it was when it was made: TensorFlow's variable is to be so for good.
        scope: the name scope that it was made in.
    """

    draw: Callable[[], tf.Tensor]
    trainable: bool
    scope: str

    def value(self) -> tf.Tensor:
        with _using, _outside():
            return self.draw()


@contextlib.contextmanager
def _outside() -> Iterator[None]:
    """Leave the graph, the tape and the device that the reader is in."""
    with tf.init_scope(), tf.device(None):
        yield


class UndrawnVariable(keras.Variable):
    """A Keras variable that nobody has used yet: it becomes a plain one then.

    Reading its numbers as an array and assigning to it leave it as it is.
    """

    _initial: _Initial

    @classmethod
    def wait(cls, variable: keras.Variable, draw: Callable[[], tf.Tensor]) -> None:
        """Let a variable that is being made wait for its first user."""
        scope = tf.get_current_name_scope()
        vars(variable)["_initial"] = _Initial(draw, variable.trainable, scope)
        variable.__class__ = cls

    # where Keras keeps TensorFlow's variable
    @property
    def _value(self) -> tf.Variable:
        if self._shape is None:  # it is being made from a value
            return self._initial.value()
        with _using:
            if type(self) is UndrawnVariable:  # else another thread was first
                self._draw()
        return self._value

    @_value.setter
    def _value(self, value: tf.Variable) -> None:
        attributes: dict[str, Any] = self.__dict__
        attributes["_value"] = value
        self.__class__ = keras.Variable
        attributes.pop("_initial", None)

    def _draw(self) -> None:
        initial, attributes = self._initial, self.__dict__
        value, trainable = initial.value(), attributes["_trainable"]
        attributes["_trainable"] = initial.trainable
        try:
            with _outside(), tf.name_scope(f"{initial.scope}/" if initial.scope else ""):
                self._initialize(value)
        finally:
            attributes["_trainable"] = trainable

    def numpy(self) -> np.ndarray:
        """Return its value."""
        initial = vars(self).get("_initial")
        if initial is None or is_stateless():
            _ = self._value
            return self.numpy()  # of a plain one
        return self._maybe_autocast(initial.value()).numpy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.numpy(), dtype)  # a copy anyway

    def _direct_assign(self, value: Any) -> None:
        with _using:
            if type(self) is UndrawnVariable and tf.executing_eagerly():
                given = tf.cast(value, self._dtype)
                self._initial = dataclasses.replace(self._initial, draw=lambda: given)
                return
            _ = self._value
        self._direct_assign(value)  # of a plain one

    def __reduce_ex__(self, protocol: Any) -> Any:
        _ = self._value
        return self.__reduce_ex__(protocol)  # of a plain one


def is_drawn(variable: Any) -> bool:
    """Return whether a variable has TensorFlow's already, so that something may hold that."""
    return not isinstance(variable, UndrawnVariable)
