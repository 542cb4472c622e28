"""What `regularize` did to each layer, what it left and why: the rows of its summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from kregs.builders.layer_copies import sublayers
from kregs.builders.layer_factory import kernel_regularizer
from kregs.builders.layer_kinds import (
    DROPOUTS,
    KERNELS,
    NORMALIZATIONS,
    config_of,
    has_kernel,
    is_dropout,
    is_spatial_dropout,
)
from kregs.builders.model_graph import ModelGraph
from kregs.regularization import OPTIMIZER_FIELDS, Regularization

L = keras.layers

_ONE_CELL = (L.LSTM, L.GRU, L.SimpleRNN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Treatment:
    """What became of one layer.

    Args:
        layer: its name, behind the names of what it is within.
        type: of which class it is.
        done: what holds for it now, in words.
        left: what was left as it was, and why.
        unreachable: whether it should have been restrained, but could not be reached.
    """

    layer: str
    type: str
    done: str
    left: str
    unreachable: bool = False


def treatments(
    graph: ModelGraph,
    regularization: Regularization,
    *,
    copies: Mapping[int, Any],
    put_in: Mapping[tuple[int, str], keras.layers.Layer],
    is_chosen: Callable[[Any, ModelGraph], bool],
    is_output: Callable[[Any, ModelGraph], bool],
    within: str = "",
) -> list[Treatment]:
    """Compare the layers of a model with their restrained copies.

    Args:
        graph: of the model.
        regularization: the value that was asked for.
        copies: the copy of each layer, by the original's `id`.
        put_in: what was put before or after a layer, by its `id` and a word for what.
        is_chosen: whether a layer was to be restrained.
        is_output: whether a layer ends the whole model.
        within: the names of the models around, each followed by a slash.

    Example: see `kregs.regularization_summary`, whose rows they are.
    """
    rows: list[Treatment] = []
    for layer in graph.model.layers:
        name = f"{within}{layer.name}"
        if isinstance(layer, L.InputLayer):
            continue
        if id(layer) in graph.nested:
            rows += treatments(
                graph.nested[id(layer)],
                regularization,
                copies=copies,
                put_in=put_in,
                is_chosen=is_chosen,
                is_output=is_output,
                within=f"{name}/",
            )
            continue
        chosen, config = is_chosen(layer, graph), config_of(layer)
        cells = {id(part.cell) for part in sublayers(layer) if isinstance(part, _ONE_CELL)}
        for old, new in zip(sublayers(layer), sublayers(copies[id(layer)]), strict=True):
            if id(old) in cells:
                continue  # what holds for it stands beside its layer
            done = list(_restraints(old, new))
            if chosen and any(hasattr(new, f"{kernel}_regularizer") for kernel in KERNELS):
                done += [
                    f"kernel {name}={getattr(regularization, name):g} by compile_model"
                    for name in OPTIMIZER_FIELDS
                    if getattr(regularization, name)
                ]
            smoothing = regularization.label_smoothing
            if smoothing and old is layer and has_kernel(layer) and is_output(layer, graph):
                done.append(f"label_smoothing={smoothing:g} by compile_model")
            left = ["not among `layers`"] if not chosen else []
            unreachable = False
            if chosen:
                is_argument = old is not layer and is_dropout(old) and "dropout" in config
                unreachable = not is_argument and _is_missed(old, new, regularization)
                left += (
                    [f"is the argument dropout of {type(layer).__name__}, which stays"]
                    if is_argument
                    else _reasons(old, layer, unreachable)
                )
            if old is layer:
                done += [
                    _words_of(what, put) for (key, what), put in put_in.items() if key == id(layer)
                ]
                if chosen and has_kernel(layer) and is_output(layer, graph):
                    left.append("ends the model: nothing comes after it")
            if not done and not left:
                left.append("has nothing to restrain")
            rows.append(
                Treatment(
                    layer=name if old is layer else f"{name}/{old.name}",
                    type=type(old).__name__,
                    done=", ".join(done),
                    left=", ".join(left),
                    unreachable=unreachable,
                )
            )
    return rows


def _restraints(old: keras.layers.Layer, new: keras.layers.Layer) -> Iterator[str]:
    """Say what restrains a layer now, and what did before where that is gone."""
    for kernel in (*KERNELS, "bias"):
        attribute = f"{kernel}_regularizer"
        before, now = (getattr(layer, attribute, None) for layer in (old, new))
        if now is not None:
            yield f"{kernel} {_penalty_words(now)}"
        elif before is not None:
            yield f"{kernel} penalty taken away"
    bounds = {_bound_words(getattr(new, f"{kernel}_constraint", None)) for kernel in KERNELS}
    yield from sorted(bounds - {""})
    if isinstance(old, DROPOUTS) or is_spatial_dropout(old):
        yield f"rate {old.rate:g}" + (f" -> {new.rate:g}" if new.rate != old.rate else "")
    if isinstance(old, L.ActivityRegularization):
        yield f"activity {_activity_words(new)}"


def _activity_words(layer: keras.layers.Layer) -> str:
    coefficients = {"l1": float(layer.l1), "l2": float(layer.l2)}
    return " ".join(f"{name}={value:g}" for name, value in coefficients.items() if value) or "0"


def _penalty_words(penalty: Any) -> str:
    if not isinstance(penalty, keras.regularizers.Regularizer):
        return f"penalty {getattr(penalty, '__name__', penalty)}"
    coefficients = {
        name: value
        for name, value in penalty.get_config().items()
        if isinstance(value, (int, float)) and value
    }
    words = " ".join(f"{name}={value:g}" for name, value in coefficients.items())
    is_plain = isinstance(penalty, (keras.regularizers.L1L2, keras.regularizers.L1))
    is_plain = is_plain or isinstance(penalty, keras.regularizers.L2)
    return words if is_plain else f"{type(penalty).__name__} {words}".strip()


def _bound_words(constraint: Any) -> str:
    if constraint is None:
        return ""
    if isinstance(constraint, keras.constraints.MaxNorm):
        return f"max_norm={constraint.max_value:g}"
    return f"constraint {type(constraint).__name__}"


def _words_of(what: str, put: keras.layers.Layer) -> str:
    if what == "activity":
        return f"then activity {_activity_words(put)}"
    if what == "dropout before":
        return f"dropout {put.rate:g} before it"
    return f"then {what.replace('_', ' ')} {put.rate:g}"


def _is_missed(
    old: keras.layers.Layer, new: keras.layers.Layer, regularization: Regularization
) -> bool:
    """Whether a layer that can be restrained is not as asked for."""
    if is_spatial_dropout(old):
        return new.rate != regularization.spatial_dropout
    if is_dropout(old):
        return getattr(old, "noise_shape", None) is None and new.rate != regularization.dropout
    wanted = keras.regularizers.serialize(kernel_regularizer(regularization))
    for kernel in KERNELS:
        if hasattr(new, f"{kernel}_regularizer"):
            now = keras.regularizers.serialize(getattr(new, f"{kernel}_regularizer"))
            bound = getattr(new, f"{kernel}_constraint", None)
            is_bound = isinstance(bound, keras.constraints.MaxNorm)
            if now != wanted or (regularization.max_norm is not None and not is_bound):
                return True
    return False


def _reasons(part: keras.layers.Layer, layer: keras.layers.Layer, unreachable: bool) -> list[str]:
    """Say what was left of a layer that was to be restrained."""
    reasons = []
    if unreachable:
        reasons.append(
            f"is made inside {type(layer).__name__}, whose get_config() does not hold it"
            if part is not layer
            else "does not take what its get_config() says"
        )
    elif is_dropout(part) and getattr(part, "noise_shape", None) is not None:
        reasons.append("drops paths or steps (noise_shape), no single units")
    elif isinstance(part, NORMALIZATIONS):
        reasons.append("a normalization has no penalty")
    elif isinstance(part, L.Embedding):
        reasons.append("an embedding has no penalty")
    elif isinstance(part, L.GaussianNoise):
        reasons.append("its noise stays")
    elif _own_weights(part) and not any(hasattr(part, f"{k}_regularizer") for k in KERNELS):
        reasons.append("has weights of its own that are no known kernel")
    for argument in ("dropout", "recurrent_dropout"):
        rate = getattr(part, argument, None)
        if isinstance(rate, (int, float)) and rate:
            reasons.append(f"its argument {argument}={rate:g} stays")
    return reasons


def _own_weights(layer: keras.layers.Layer) -> list[Any]:
    """Return the weights to train that belong to a layer and to none within it."""
    inner = {id(w) for part in sublayers(layer) if part is not layer for w in part.weights}
    return [w for w in layer.trainable_weights if id(w) not in inner]
