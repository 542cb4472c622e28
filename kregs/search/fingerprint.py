"""A model's layers, settings and compilation as plain values, to tell whether two builds agree.

The weights are no part of it, nor is what differs from one process to the next: names that Keras
counts up, seeds that it draws, addresses of objects.
"""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import marshal
import re
import sys
import types
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kregs.population.keras_internals import user_metrics
from kregs.training.label_smoothing import smoothing_of
from kregs.training.proximal import is_proximal
from kregs.training.stock_optimizers import unwrapped

# of a serialized object: what says the same again, or is drawn at random
_LEFT_OUT = ("build_config", "registered_name", "shared_object_id", "seed")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_LIBRARIES = ("keras", "kregs", "tensorflow", "builtins", "numpy")
# names that are no mere names: of a dtype policy
_POLICIES = (
    "float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16",
)  # fmt: skip

_MOST_NUMBERS = 64  # of an array that is written out


def fingerprint(model: keras.Model) -> dict[str, Any]:
    """Return what a model that was just built and compiled is.

    Args:
        model: compiled, not trained.

    Returns:
        `layers` (the kind and the settings of each, and which it reads), `optimizer`, `loss`,
        `metrics` and the rest of what `compile` was given, and `code`, a checksum of each layer,
        loss or metric that is no library's. It can be written as JSON.

    Example:

    >>> import keras
    >>> def build(units):
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])
    ...     model.compile("sgd", "mse")
    ...     return fingerprint(model)
    >>> build(4) == build(4)
    True
    >>> difference(build(4), build(64))
    ('layer 1 (Dense), units', 4, 64)
    """
    objects = list(_parts(model))
    facts = {"layers": _layers(model), **_compilation(model), "code": _code(objects)}
    facts["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    # as it is read again: tuples are lists there
    return json.loads(json.dumps(facts, sort_keys=True, default=_words))


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first thing in which two models differ, in words, and both values.

    Bytecode is compared within one version of Python only.
    """
    one, other = dict(before), dict(now)
    if one.pop("python", None) != other.pop("python", None):
        one.pop("code", None)
        other.pop("code", None)
    if len(one.get("layers", ())) != len(other.get("layers", ())):
        return "the number of layers", len(one["layers"]), len(other["layers"])
    for position, pair in enumerate(
        zip(one.pop("layers", ()), other.pop("layers", ()), strict=True)
    ):
        found = _first_difference(*pair)
        if found is not None:
            path, *values = found
            kind = pair[0].get("class_name")
            if path == ["class_name"]:
                return f"layer {position}", *values
            names = ", ".join(name for name in path if name not in ("config", "class_name"))
            return f"layer {position} ({kind}), {names}", *values
    found = _first_difference(one, other)
    if found is None:
        return None
    path, *values = found
    names = ", ".join(name for name in path if name not in ("config", "class_name"))
    return names, *values


def check_same_model(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> None:
    """Raise `ValueError` if `build` makes another model than it made before.

    Args:
        before, now: fingerprints.
        what: of which hyperparameters it is, in words.
    """
    found = difference(before, now)
    if found is not None:
        name, value, other = found
        raise ValueError(
            f"`build` makes another model of {what} than when it was trained. Expected {name}: "
            f"{value}. Received: {other}"
        )


# ---- what a model is made of ---------------------------------------------------------------


def _layers(model: keras.Model) -> list[dict[str, Any]]:
    try:
        config = model.get_config()
        serialized = config["layers"]
    except Exception:  # a subclass without a config
        serialized = [_serialized(layer) for layer in model.layers]
        config = {}
    names = {name: f"layer {position}" for position, name in enumerate(_names(serialized))}
    layers = [_plain(layer, names) for layer in serialized]
    for layer in layers:
        layer.pop("name", None)
    ends = {key: config[key] for key in ("input_layers", "output_layers") if key in config}
    return [*layers, _plain({"class_name": "ends", **ends}, names)] if ends else layers


def _serialized(layer: keras.layers.Layer) -> dict[str, Any]:
    try:
        return keras.saving.serialize_keras_object(layer)
    except Exception:
        shapes = [tuple(variable.shape) for variable in layer.weights]
        return {"class_name": type(layer).__name__, "weights": shapes}


def _names(layers: Any) -> Iterator[str]:
    """Yield the names of all layers, in their order, those within models too."""
    for layer in layers:
        config = layer.get("config") if isinstance(layer, dict) else None
        config = config if isinstance(config, dict) else {}
        name = config.get("name") or (layer.get("name") if isinstance(layer, dict) else None)
        if isinstance(name, str):
            yield name
        if isinstance(config.get("layer"), dict):  # of a wrapper
            yield from _names([config["layer"]])
        if isinstance(config.get("layers"), (list, tuple)):
            yield from _names(config["layers"])


def _compilation(model: keras.Model) -> dict[str, Any]:
    try:
        compiled = dict(model.get_compile_config())
    except Exception:  # something that was compiled cannot be serialized
        compiled = {"optimizer": _optimizer(model), "loss": _words(model.loss)}
    optimizer = unwrapped(model.optimizer)
    if is_proximal(optimizer):  # which no config tells
        thresholds = map(dataclasses.astuple, optimizer.thresholds(model.trainable_weights))
        compiled["proximal"] = list(thresholds)
    smoothings = list(map(smoothing_of, keras.tree.flatten(model.loss)))
    if any(smoothings):  # of class numbers, which a file does not hold
        compiled["label_smoothing"] = smoothings
    return _plain(compiled, {})


def _optimizer(model: keras.Model) -> Any:
    try:
        return {"class_name": type(model.optimizer).__name__, **model.optimizer.get_config()}
    except Exception:
        return type(model.optimizer).__name__


def _plain(value: Any, names: Mapping[str, str]) -> Any:
    """Return a config without what differs between processes."""
    if isinstance(value, dict):
        if value.get("class_name") == "__lambda__":
            return {"class_name": "lambda", "code": _lambda_checksum(value["config"])}
        parts = {
            str(key): _plain(part, names)
            for key, part in value.items()
            if key not in _LEFT_OUT and part is not None
        }
        if value.get("name") not in names and parts.get("name") not in _POLICIES:
            parts.pop("name", None)  # of an optimizer, a loss, a metric
        if str(parts.get("module", "keras")).split(".")[0] == "keras":
            parts.pop("module", None)
        return parts
    if isinstance(value, (list, tuple)):
        return [_plain(part, names) for part in value]
    if isinstance(value, str):
        return names.get(value, _ADDRESS.sub("", value))
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "numpy"):
        array = np.asarray(value)
        if array.size <= _MOST_NUMBERS:
            return array.tolist()
        return f"{array.dtype}{list(array.shape)} {zlib.crc32(array.tobytes())}"
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _words(value)


def _words(value: Any) -> str:
    """Name an object that has no config."""
    kind = value if inspect.isclass(value) or inspect.isroutine(value) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _first_difference(one: Any, other: Any) -> tuple[list[str], Any, Any] | None:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            found = _first_difference(one.get(key), other.get(key))
            if found is not None:
                return [key, *found[0]], *found[1:]
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for position, pair in enumerate(zip(one, other, strict=True)):
            found = _first_difference(*pair)
            if found is not None:
                return [str(position), *found[0]], *found[1:]
        return None
    return None if one == other else ([], one, other)


# ---- code ----------------------------------------------------------------------------------


def _parts(model: keras.Model) -> Iterator[Any]:
    """Yield layers, losses and metrics, with those of models within the model."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _parts(layer)
        else:
            yield layer
        for value in (getattr(layer, "activation", None), getattr(layer, "function", None)):
            if value is not None:
                yield value
    yield from keras.tree.flatten(getattr(model, "loss", None))
    if getattr(model, "optimizer", None) is not None:
        yield model.optimizer
        yield from keras.tree.flatten(user_metrics(model))


def _code(objects: list[Any]) -> dict[str, int]:
    """Return a checksum of the code of what is no library's, by its name."""
    checksums: dict[str, int] = {}
    for item in objects:
        code_of = item if inspect.isroutine(item) or inspect.isclass(item) else type(item)
        module = getattr(code_of, "__module__", None) or "builtins"
        if module.split(".")[0] in _LIBRARIES:
            continue
        functions = [code_of]
        if inspect.isclass(code_of):
            functions = [f for f in vars(code_of).values() if inspect.isfunction(f)]
        for function in functions:
            if inspect.isfunction(function):
                name = f"code of {_ADDRESS.sub('', function.__qualname__)}"
                checksums[name] = _function_checksum(function)
    return checksums


def _function_checksum(function: types.FunctionType) -> int:
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    values = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    text = _constants([value for value in values if _is_plain(value)])
    return zlib.crc32(text.encode(), _code_checksum(function.__code__))


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list, frozenset, set)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, bytes))


def _constants(values: Any) -> str:
    """Return plain values as text, sets in an order that does not depend on hashes."""
    if isinstance(values, (set, frozenset)):
        return "{" + ",".join(sorted(map(_constants, values))) + "}"
    if isinstance(values, (tuple, list)):
        return "(" + ",".join(map(_constants, values)) + ")"
    if isinstance(values, types.CodeType):
        return str(_code_checksum(values))
    return _ADDRESS.sub("", repr(values))


def _code_checksum(code: types.CodeType) -> int:
    """Checksum of what a function does: not of its file, its lines or its documentation."""
    names = _constants([code.co_names, code.co_varnames, code.co_freevars])
    return zlib.crc32((names + _constants(code.co_consts)).encode(), zlib.crc32(code.co_code))


def _lambda_checksum(config: Mapping[str, Any]) -> int:
    code = marshal.loads(base64.b64decode(config["code"]))
    return zlib.crc32(_constants([config.get("defaults")]).encode(), _code_checksum(code))
