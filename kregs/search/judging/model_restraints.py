"""What restrains a built model, in numbers: penalties, noise, bounds, weight decay, smoothing."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from kregs.layers import DropBlock2D, FlatCosineDropout
from kregs.population.keras_internals import all_layers
from kregs.population.registry import Call, NotStackable
from kregs.population.signature import Member, optional_kind, read_member
from kregs.training.label_smoothing import smoothing_of
from kregs.training.proximal import is_proximal
from kregs.training.stock_optimizers import unwrapped

_RATES = (
    keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.AlphaDropout, DropBlock2D,
    FlatCosineDropout,
)  # fmt: skip

# weights below it count as zero: optimizers that are no proximal ones do not reach 0 exactly
ZERO = 1e-4

_Number = tuple[str, str, float]  # kind, place, value


def model_restraints(model: keras.Model, member: Member | None = None) -> dict[str, Any]:
    """Return what restrains a compiled model, each number by its kind and place.

    Kinds are `l1`, `l2`, `max_norm` (the bound), `proximal_l1` and `group_l1` (of the optimizer's
    proximal step) of each weight, `activity_l1` and `activity_l2`
    of each layer's outputs, `dropout` (a rate of any kind of dropout), `recurrent_dropout`, `noise`
    (a standard deviation), `weight_decay` and `label_smoothing`. What is 0 or absent is left out.
    Numbers of a user's own layers and regularizers are not known to restrain.

    Args:
        model: built and compiled.
        member: the model as it was read for stacking; default: it is read.

    Returns:
        `structure`, equal for models whose places are the same, `None` where they cannot be told;
        `weights`, how many numbers all kernels have (biases and scales are no capacity to speak
        of); `numbers`: kind to place to value. JSON can hold it.

    Example:

    >>> import kregs
    >>> r = kregs.Regularization(l2=0.5, dropout=0.25)
    >>> model = kregs.compile_model(kregs.mlp((3,), 2, units=(4,), regularization=r), "mse")
    >>> restraints = model_restraints(model)
    >>> sorted(restraints["numbers"]), restraints["weights"]
    (['dropout', 'l2'], 20)
    """
    structure, weights = None, model.weights
    try:
        member = read_member(model) if member is None else member
    except (NotStackable, ValueError):
        numbers = list(_numbers_of_layers(all_layers(model)))
    else:
        structure = hashlib.sha256(repr(member.signature).encode()).hexdigest()[:16]
        numbers, weights = list(_numbers_of_member(member)), member.weights
    numbers += _numbers_of_weights(weights)
    numbers += _numbers_of_compilation(model, weights)
    by_kind: dict[str, dict[str, float]] = {}
    for kind, place, value in numbers:
        if value and math.isfinite(value):
            by_kind.setdefault(kind, {})[place] = float(value)
    # the biases of a GRU are a matrix
    kernels = [v for v in model.trainable_weights if len(v.shape) > 1 and v.name != "bias"]
    size = sum(math.prod(variable.shape) for variable in kernels)
    return {"structure": structure, "weights": size, "numbers": by_kind}


def _numbers_of_member(member: Member) -> Iterator[_Number]:
    """Numbers of layers; dropout that some models lack is placed by what it stands between."""
    yield from _numbers_of_layers(member.layers)
    for number, edge in enumerate(member.graph.edges()):
        seen: Counter[str] = Counter()
        for layer in edge.chain:
            kind = f"{type(layer).__name__} {zlib.crc32(repr(optional_kind(layer)).encode())}"
            seen[kind] += 1
            place = f"edge {number}, {kind}, {seen[kind]}"
            yield from _numbers_of_layer(layer, place)


def _numbers_of_layers(layers: list[Any]) -> Iterator[_Number]:
    for position, layer in enumerate(layers):
        layer = layer.operation if isinstance(layer, Call) else layer
        yield from _numbers_of_layer(layer, f"layer {position}")


def _numbers_of_layer(layer: Any, place: str) -> Iterator[_Number]:
    if isinstance(layer, _RATES):
        yield "dropout", place, layer.rate
    elif isinstance(layer, keras.layers.GaussianNoise):
        yield "noise", place, layer.stddev
    elif isinstance(layer, (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)):
        yield "dropout", place, layer.dropout
        yield "recurrent_dropout", place, layer.recurrent_dropout
    penalty = getattr(layer, "activity_regularizer", None)
    for kind, value in _coefficients(penalty):
        yield f"activity_{kind}", place, value


def _numbers_of_weights(weights: list[Any]) -> Iterator[_Number]:
    for position, variable in enumerate(weights):
        if not variable.trainable:
            continue
        place = f"weight {position}"
        for kind, value in _coefficients(variable.regularizer):
            yield kind, place, value
        if isinstance(variable.constraint, keras.constraints.MaxNorm):
            yield "max_norm", place, float(variable.constraint.max_value)


def _coefficients(regularizer: Any) -> Iterator[tuple[str, float]]:
    regularizers = keras.regularizers
    if isinstance(regularizer, (regularizers.L1, regularizers.L2, regularizers.L1L2)):
        for kind in ("l1", "l2"):
            yield kind, float(getattr(regularizer, kind, 0.0))


def _numbers_of_compilation(model: keras.Model, weights: list[Any]) -> Iterator[_Number]:
    if not model.compiled:  # its hypermodel's own `fit` trains it by itself
        return
    optimizer = unwrapped(model.optimizer)
    if is_proximal(optimizer):
        thresholds = optimizer.thresholds(weights)
        for position, (variable, threshold) in enumerate(zip(weights, thresholds, strict=True)):
            if variable.trainable:
                yield "proximal_l1", f"weight {position}", threshold.l1
                yield "group_l1", f"weight {position}", threshold.group_l1
    yield "weight_decay", "", float(getattr(optimizer, "weight_decay", None) or 0.0)
    for position, loss in enumerate(keras.tree.flatten(model.loss)):
        yield "label_smoothing", f"loss {position}", float(smoothing_of(loss) or 0.0)


def kernel_summary(model: keras.Model, weights: Sequence[np.ndarray]) -> dict[str, float] | None:
    """Return how large a model's kernels are, with weights that are not those in it.

    Args:
        model: built.
        weights: in the order of `model.weights`.

    Returns:
        `norm`, the root of the sum of squares of all kernels, and `nonzero`, the share of their
        weights that are above 1e-4 in size; `None` without kernels.
    """
    kernels = [
        np.asarray(weight, "float64").ravel()
        for variable, weight in zip(model.weights, weights, strict=True)
        if variable.trainable and "kernel" in variable.name
    ]
    if not kernels:
        return None
    sizes = np.abs(np.concatenate(kernels))
    return {
        "norm": float(np.sqrt(np.square(sizes).sum())),
        "nonzero": float((sizes > ZERO).mean()),
    }
