"""`fingerprint`: what tells two functions, classes or objects of one name apart.

A search builds its models one after the other, and what is defined inside `build` is a new object
each time. Two functions are the same where their code, defaults, closures and the globals that they
read are; two objects where their classes and attributes are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import dis
import functools
import hashlib
import itertools
import reprlib
import sys
import types
import warnings
import weakref
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.keras_internals import BUILT, has_automatic_name, loss_attributes
from kregs.population.registry import NotStackable

_CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis),
    type(NotImplemented), tf.DType, np.dtype,
)  # fmt: skip
_VARIABLES = (keras.Variable, tf.Variable)
# parts of a layer that say nothing of what it computes once it is built, or are read by themselves
_NO_STRUCTURE = (
    *_VARIABLES, keras.KerasTensor, keras.random.SeedGenerator, keras.initializers.Initializer,
    keras.regularizers.Regularizer, keras.constraints.Constraint,
)  # fmt: skip
_CLASS_NOISE = frozenset(
    {
        "__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__",
        "__firstlineno__", "__static_attributes__", "_abc_impl", "__abstractmethods__",
    }
)  # fmt: skip
# what a layer was born with, or is told apart by, says nothing of what it computes
NOT_STRUCTURE = (
    "name", "seed", "batch_shape", "batch_input_shape", "lora_rank", "lora_alpha", "build_config",
)  # fmt: skip
NOT_STRUCTURE_ENDS = ("_initializer", "_regularizer", "_constraint")
# larger arrays, and objects of more parts, are the same only if they are one object
_LARGEST_BYTES = 16 * 2**20
_MOST_PARTS = 20_000
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME")
_DEEPEST = 60


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What a value is: equal for values that compute the same.

    Args:
        digest: of all that counts.
        text: the value in words, for messages.
    """

    digest: str
    text: str = dataclasses.field(compare=False)

    def __repr__(self) -> str:
        return self.text


def fingerprint(value: Any, *, own: Collection[int] = ()) -> Fingerprint:
    """Read a value.

    Args:
        value: a function, class, object or container of them.
        own: ids of the variables of the model that the value is part of.

    Raises:
        NotStackable: it holds one of these variables, or a layer that has one: what it computes
            would follow the model of the first member alone.

    Example:

    >>> def build(factor):
    ...     def loss(y, prediction):
    ...         return factor * abs(y - prediction)
    ...     return loss
    >>> fingerprint(build(2.0)) == fingerprint(build(2.0))
    True
    >>> fingerprint(build(2.0)) == fingerprint(build(3.0)), fingerprint(build(3.0))
    (False, build.<locals>.loss with factor=3.0)
    """
    return _digested(value, lambda reader: reader.read(value), own)


def fingerprint_of_layer(
    layer: Any, *, leave_out: Collection[str] = (), own: Collection[int] = ()
) -> dict[str, Fingerprint]:
    """Read what a layer holds beside its config: its functions; of a class of the user's, all.

    Args:
        layer: a layer.
        leave_out: attributes that may differ.
        own: see `fingerprint`.

    Returns:
        By attribute name, and the class by `"class"` if it is the user's.
    """
    held = {}
    own = set(own) - {id(weight) for weight in layer.weights}  # these stand in its attributes
    if not is_library(type(layer).__module__):
        held["class"] = fingerprint(type(layer), own=own)
    for name, value in _attributes_of_layer(layer):
        if name in leave_out:
            continue
        if not _holds_layers(value):
            held[name] = fingerprint(value, own=own)
            continue
        for number, part in enumerate(keras.tree.flatten(value)):
            place = name if part is value else f"{name}[{number}]"
            if isinstance(part, keras.layers.Layer):
                inner = fingerprint_of_layer(part, own=own)
                inner["config"] = fingerprint(structure_of_config(config_of(part)), own=own)
                inner["class"] = fingerprint(type(part), own=own)
                held |= {f"{place}.{field}": each for field, each in inner.items()}
            else:
                held[place] = fingerprint(part, own=own)
    return held


def _holds_layers(value: Any) -> bool:
    """Whether a value is a layer, or a container with one."""
    if isinstance(value, (list, tuple, dict)):
        return any(isinstance(part, keras.layers.Layer) for part in keras.tree.flatten(value))
    return isinstance(value, keras.layers.Layer)


def structure_of_config(config: Any) -> Any:
    """Return a config, and the configs in it, without names, seeds and what weights hold."""
    if isinstance(config, (list, tuple)):
        return tuple(map(structure_of_config, config))
    if not isinstance(config, dict):
        return config
    return {
        name: structure_of_config(value)
        for name, value in config.items()
        if name not in NOT_STRUCTURE and not name.endswith(NOT_STRUCTURE_ENDS)
    }


def fingerprint_of_loss(
    loss: keras.losses.Loss, *, leave_out: Collection[str] = (), own: Collection[int] = ()
) -> Fingerprint:
    """Read a loss object.

    Args:
        loss: what `compile` was given.
        leave_out: attributes, and arguments of its function, that may differ.
        own: see `fingerprint`.
    """
    return _digested(loss, lambda reader: reader.loss(loss, leave_out), own)


def config_of(thing: Any) -> dict[str, Any]:
    """Return the config of a layer, loss or metric, without serialized functions.

    Keras writes a function as its name, or, with a warning, as bytes; and an object that cannot be
    saved has no config.
    """
    with warnings.catch_warnings(action="ignore"):
        try:
            config = thing.get_config()
        except Exception:  # of one's own: Keras's `fit` never asks for it
            return {}
    return _without_functions(config)


def is_library(module: str | None) -> bool:
    """Return whether a module is installed, and so not the user's own code."""
    return module is not None and _is_library(module.partition(".")[0])


# ---- reading -------------------------------------------------------------------------------


class _TooLarge(Exception):
    """A value has too many parts to be read."""


class _Reader:
    """Turns one value into nested tuples of texts; of a value met twice, the place is noted."""

    def __init__(self, own: Collection[int]) -> None:
        self._own = own
        self._met: dict[int, tuple[int, Any]] = {}  # keeps them alive: an id may come again
        self._depth = 0

    def read(self, value: Any) -> tuple:
        if type(value) in _CONSTANTS or isinstance(value, (tf.DType, np.dtype)):
            return type(value).__name__, repr(value)
        if isinstance(value, types.ModuleType):
            return "module", value.__name__
        name = _library_name(value)
        if name is not None:
            return "library", name
        if isinstance(value, (*_VARIABLES, keras.KerasTensor)):  # before tensors, which they are
            return self._variable(value)
        if isinstance(value, (np.ndarray, np.generic, tf.Tensor)):
            return _array(value)
        if isinstance(value, (tuple, frozenset)):  # equal ones may be one object, or not
            return self._container(value)
        if id(value) in self._met:
            return "again", self._met[id(value)][0]
        if len(self._met) > _MOST_PARTS or self._depth > _DEEPEST:
            raise _TooLarge
        self._met[id(value)] = len(self._met), value
        self._depth += 1
        try:
            return self._object(value)
        finally:
            self._depth -= 1

    def _object(self, value: Any) -> tuple:
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.read(value.__func__), self.read(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", *map(self.read, (value.func, value.args, value.keywords))
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.CellType):
            return self._cell(value)
        if isinstance(value, (staticmethod, classmethod)):
            return type(value).__name__, self.read(value.__func__)
        if isinstance(value, property):
            return "property", *map(self.read, (value.fget, value.fset, value.fdel))
        if isinstance(value, keras.layers.Layer):
            return self._layer(value)
        if isinstance(value, keras.losses.Loss):
            return self.loss(value)
        if isinstance(value, keras.metrics.Metric):
            return self._metric(value)
        if isinstance(value, (list, tuple, set, frozenset, dict)):
            return self._container(value)
        return self._instance(value)

    def _function(self, function: types.FunctionType) -> tuple:
        names = sorted(_names(function.__code__) & function.__globals__.keys())
        return (
            "function",
            self.read(function.__code__),
            self.read(function.__defaults__),
            self.read(function.__kwdefaults__),
            tuple(map(self.read, function.__closure__ or ())),
            tuple((name, self.read(function.__globals__[name])) for name in names),
            self.read(function.__dict__),
        )

    def _code(self, code: types.CodeType) -> tuple:
        """All but where it stands in its file."""
        return (
            "code", code.co_code.hex(), tuple(map(self.read, code.co_consts)), code.co_names,
            code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags,
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount,
            getattr(code, "co_exceptiontable", b"").hex(),
        )  # fmt: skip

    def _cell(self, cell: types.CellType) -> tuple:
        try:
            contents = cell.cell_contents
        except ValueError:
            return ("empty cell",)
        return "cell", self.read(contents)

    def _class(self, value: type) -> tuple:
        entries = sorted((k, v) for k, v in vars(value).items() if k not in _CLASS_NOISE)
        entries = [(k, v) for k, v in entries if not isinstance(v, _SLOT_TYPES)]
        return (
            "class",
            value.__name__,
            tuple(map(self.read, value.__bases__)),
            tuple((name, self.read(entry)) for name, entry in entries),
        )

    def _variable(self, value: Any) -> tuple:
        if id(value) in self._own:
            raise NotStackable(
                "a function that the model is compiled with, or one of a layer, uses a weight of "
                "the model itself"
            )
        return _one_object(value)

    def _layer(self, layer: Any) -> tuple:
        """A layer without weights is what it computes, any other is itself."""
        if isinstance(layer, keras.Model) or layer.weights:
            for variable in layer.weights:
                self._variable(variable)
            return _one_object(layer)
        attributes = [(k, v) for k, v in _attributes_of_layer(layer) if k != "seed"]
        return (
            "layer",
            self.read(type(layer)),
            self._pairs(_without(config_of(layer), ("name", "seed"))),
            tuple((name, self.read(value)) for name, value in attributes),
        )

    def loss(self, loss: Any, leave_out: Collection[str] = ()) -> tuple:
        attributes, arguments = loss_attributes(loss)
        return (
            "loss",
            self.read(type(loss)),
            self._pairs(_without(attributes, ("name", *leave_out))),
            self._pairs(_without(arguments, leave_out)),
        )

    def _metric(self, metric: Any) -> tuple:
        stock = is_library(type(metric).__module__)
        known = _plain_metric() | BUILT
        attributes = {
            name: value
            for name, value in vars(metric).items()
            if name not in known
            and not isinstance(value, _VARIABLES)
            and (callable(value) or not stock)
        }
        counted = ("name",) if has_automatic_name(metric) else ()
        config = self._pairs(_without(config_of(metric), counted))
        return "metric", self.read(type(metric)), config, self._pairs(attributes)

    def _container(self, value: Any) -> tuple:
        kind: tuple = (type(value).__name__,)
        if not is_library(type(value).__module__):  # Keras's lists hold who tracks them
            kind = (*kind, self.read(type(value)), self._pairs(getattr(value, "__dict__", {})))
        if isinstance(value, dict):
            return *kind, self._pairs(value)
        items: Iterable = map(self.read, value)
        return *kind, tuple(sorted(items) if isinstance(value, (set, frozenset)) else items)

    def _pairs(self, mapping: Mapping[Any, Any]) -> tuple:
        pairs = sorted(mapping.items(), key=lambda pair: str(pair[0]))
        return tuple((self.read(key), self.read(value)) for key, value in pairs)

    def _instance(self, value: Any) -> tuple:
        wrapped = getattr(value, "python_function", None)
        if wrapped is not None and isinstance(value, tf.types.experimental.PolymorphicFunction):
            return "tf.function", self.read(wrapped)
        if not _is_its_attributes(value):
            return _one_object(value)
        attributes = {
            name: getattr(value, name)
            for kind in type(value).__mro__
            for name in _slots(kind)
            if hasattr(value, name)
        } | getattr(value, "__dict__", {})
        return "object", self.read(type(value)), self._pairs(attributes)


_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: of classes that are made as the program runs
_SLOT_TYPES = (types.MemberDescriptorType, types.GetSetDescriptorType)


def _digested(value: Any, read: Any, own: Collection[int]) -> Fingerprint:
    try:
        parts = read(_Reader(own))
    except (_TooLarge, RecursionError):
        parts = _one_object(value)
    return Fingerprint(hashlib.blake2b(repr(parts).encode()).hexdigest(), _words(value))


def _attributes_of_layer(layer: Any) -> Iterable[tuple[str, Any]]:
    """Yield what may tell a layer from another of its class and config."""
    stock = is_library(type(layer).__module__)
    known = _plain_layer() | BUILT
    for name, value in vars(layer).items():
        # TensorFlow marks what a model tracks
        if name in known or name.startswith("_self_") or isinstance(value, _NO_STRUCTURE):
            continue
        if name.endswith(("_initializer", "_regularizer", "_constraint")):
            continue
        if callable(value) or not stock:
            yield name, value


def _array(value: Any) -> tuple:
    try:
        array = np.asarray(value)
    except (NotImplementedError, TypeError, tf.errors.OpError):
        return _one_object(value)  # symbolic
    if array.dtype == object or array.nbytes > _LARGEST_BYTES:
        return _one_object(value)
    digest = hashlib.blake2b(np.ascontiguousarray(array).tobytes()).hexdigest()
    return type(value).__name__, str(array.dtype), array.shape, digest


def _names(code: types.CodeType) -> set[str]:
    """The names that a function and those inside of it read from outside."""
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    # names of attributes are in `co_names`, too
    loads = (each for each in dis.get_instructions(code) if each.opname in _LOADS)
    return {each.argval for each in loads}.union(*map(_names, inner))


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _is_its_attributes(value: Any) -> bool:
    """Return whether an object is nothing but its attributes: none is written in C."""
    kinds = type(value).__mro__
    static = next(kind for kind in kinds if not kind.__flags__ & _HEAP_TYPE)
    slotted = any("__slots__" in vars(kind) for kind in kinds)
    return static is object and (slotted or hasattr(value, "__dict__"))


def _without(mapping: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _without_functions(config: Any) -> Any:
    if isinstance(config, (list, tuple)):
        return (
            type(config)(map(_without_functions, config))
            if type(config) in (list, tuple)
            else config
        )
    if not isinstance(config, dict):
        return config
    return {
        name: _without_functions(value)
        for name, value in config.items()
        if not (isinstance(value, dict) and value.get("class_name") in ("__lambda__", "function"))
    }


# ---- names and identities ------------------------------------------------------------------


def _library_name(value: Any) -> str | None:
    """The name by which an installed module knows a function or class."""
    if not isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if not is_library(module):
        return None
    known: Any = sys.modules.get(module)  # type: ignore[arg-type]
    for part in name.split("."):
        known = getattr(known, part, None)
    return f"{module}.{name}" if known is value else None


@functools.lru_cache(maxsize=1024)
def _is_library(package: str) -> bool:
    if package in ("keras", "tensorflow", "numpy", "kregs", "builtins"):
        return True
    if package == "__main__":
        return False
    if package in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


_numbers = itertools.count()
_number_of: dict[int, tuple[Any, int]] = {}  # by id: a weak reference, and the number


def _forget(key: int, numbers: dict, _: Any) -> None:
    numbers.pop(key, None)  # given, since at the end of Python the global is gone already


def _one_object(value: Any) -> tuple:
    """What only this object has, and no later one that lies at its place in memory."""
    key = id(value)
    if key not in _number_of:
        try:
            reference: Any = weakref.ref(value, functools.partial(_forget, key, _number_of))
        except TypeError:
            reference = value  # cannot be referred to weakly: it is kept
        _number_of[key] = reference, next(_numbers)
    return "one object", _number_of[key][1]


@functools.cache
def _plain_layer() -> frozenset[str]:
    """The attributes that every layer has once it is built and called."""
    layer = keras.layers.Identity(name="plain")
    layer(keras.KerasTensor((None, 1)))
    return frozenset(vars(layer))


@functools.cache
def _plain_metric() -> frozenset[str]:
    return frozenset(vars(keras.metrics.Metric(name="plain")))


def _words(value: Any) -> str:
    """A value in words: of functions the name, and the numbers that they close over."""
    if isinstance(value, functools.partial):
        given = [*map(_words, value.args), *(f"{k}={_words(v)}" for k, v in value.keywords.items())]
        return f"{_words(value.func)} with {', '.join(given)}"
    if isinstance(value, types.FunctionType):
        pairs = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        plain = []
        for name, cell in pairs:
            with contextlib.suppress(ValueError):  # an empty cell
                if type(cell.cell_contents) in _CONSTANTS:
                    plain.append(f"{name}={cell.cell_contents!r}")
        return value.__qualname__ + (f" with {', '.join(plain)}" if plain else "")
    if isinstance(value, (type, types.MethodType)):
        return value.__qualname__
    if type(value) in _CONSTANTS or isinstance(value, (list, tuple, dict)):
        return reprlib.repr(value)
    plain = [
        f"{k}={v!r}" for k, v in getattr(value, "__dict__", {}).items() if type(v) in _CONSTANTS
    ]
    return f"{type(value).__name__} with {', '.join(plain)}" if plain else type(value).__name__
