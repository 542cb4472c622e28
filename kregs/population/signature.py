"""What models must have in common to be stacked: their signature, and in what two of them differ.

Layers, shapes, which layers share weights, loss, metrics and the kind of optimizer must be equal;
numbers such as λ, rates and the learning rate are no part of it.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kregs.population.graph import Graph, read_graph
from kregs.population.keras_internals import (
    has_automatic_name,
    is_plain_function_loss,
    loss_arguments,
    row_function,
    user_loss_weights,
    user_metrics,
)
from kregs.population.objective import smoothing_kind
from kregs.population.optimizers import OPTIMIZER_NUMBERS
from kregs.population.registry import Call, NotStackable, StackedLayer, class_of, form_of
from kregs.training.data_loss import DataLoss

# what a layer was born with, or is told apart by, says nothing of what it computes
_NOT_STRUCTURE = ("name", "seed", "batch_shape", "batch_input_shape", "lora_rank", "lora_alpha")
_NOT_STRUCTURE_ENDS = ("_initializer", "_regularizer", "_constraint")


@dataclasses.dataclass
class Member:
    """A model read for stacking: its graph, its layers, each once, and its signature."""

    model: keras.Model
    graph: Graph
    layers: list[keras.layers.Layer]
    signature: tuple

    @property
    def weights(self) -> list[Any]:
        """The variables of all layers, in the order of the graph, each once."""
        by_id = {id(variable): variable for layer in self.layers for variable in layer.weights}
        return list(by_id.values())


def read_member(model: keras.Model) -> Member:
    """Read one compiled model; members with equal signatures can be stacked.

    Raises:
        TypeError: it is no keras model.
        ValueError: it is not compiled.
        NotStackable: it has a layer without a stacked form, or is of a kind that hides its layers.

    Example:

    >>> import keras
    >>> def build(units):
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)])
    ...     model.compile("sgd", "mse")
    ...     return read_member(model)
    >>> build(3).signature == build(3).signature, build(3).signature == build(4).signature
    (True, False)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`models` must hold keras models. Received: {model!r} of type {type(model).__name__}"
        )
    if not model.compiled:
        raise ValueError(f"`models` must be compiled. Received: model {model.name!r}, which is not")
    graph = read_graph(model)
    layers = list(dict.fromkeys(node.layer for node in graph.nodes))
    positions = {id(layer): position for position, layer in enumerate(layers)}
    weights: dict[int, int] = {}  # which are the same says which layers share them
    parts = tuple(
        (
            class_of(node.layer).__name__,
            positions[id(node.layer)],
            _as_text(_layer_structure(node.layer, form_of(node.layer))),
            tuple(
                (tuple(variable.shape), weights.setdefault(id(variable), len(weights)))
                for variable in node.layer.weights
            ),
            tuple(edge.source for edge in node.inputs),
        )
        for node in graph.nodes
    )
    shape = (tuple(model.input_shape[1:]), graph.output.source)
    return Member(model, graph, layers, (parts, shape, _as_text(_compiled_structure(model))))


def check_same_structure(members: Sequence[Member]) -> None:
    """Raise `NotStackable` naming the first difference between any member and the first."""
    for position, member in enumerate(members[1:], start=1):
        if member.signature != members[0].signature:
            raise NotStackable(
                f"models 0 and {position} differ in structure: "
                f"{explain_difference(members[0], member)}"
            )


def explain_difference(first: Member, other: Member) -> str:
    """Say where two members' structures differ: the layer, the field, both values."""
    first_nodes, other_nodes = first.graph.nodes, other.graph.nodes
    parts = zip(first.signature[0], other.signature[0], strict=False)
    for one, two, (part, other_part) in zip(first_nodes, other_nodes, parts, strict=False):
        name = f"layer {one.layer.name!r}"
        kind, other_kind = class_of(one.layer), class_of(two.layer)
        if kind is not other_kind:
            return f"{name} is a {kind.__name__} in one and a {other_kind.__name__} in the other"
        form = form_of(one.layer)
        a, b = _layer_structure(one.layer, form), _layer_structure(two.layer, form)
        for field in sorted({*a, *b}):
            if _as_text(a.get(field)) != _as_text(b.get(field)):
                return f"{name}, field {field!r}: {a.get(field)!r} and {b.get(field)!r}"
        shapes = [[tuple(v.shape) for v in node.layer.weights] for node in (one, two)]
        if shapes[0] != shapes[1]:
            return f"{name}, weight shapes: {shapes[0]} and {shapes[1]}"
        if [e.source for e in one.inputs] != [e.source for e in two.inputs]:
            return f"{name} reads other layers in the other"
        if part != other_part:  # all that is left is which layers and weights are the same
            return f"{name} shares its weights with another layer in one of them only"
    if len(first_nodes) != len(other_nodes):
        return f"one has {len(first_nodes)} layers with a structure, the other {len(other_nodes)}"
    a, b = _compiled_structure(first.model), _compiled_structure(other.model)
    for field in a:
        if _as_text(a[field]) == _as_text(b[field]):
            continue
        if field == "optimizer":
            for name in ("class", *sorted({*a[field], *b[field]})):
                if a[field].get(name) != b[field].get(name):
                    return (
                        f"the optimizer, field {name!r}: {a[field].get(name)!r} and "
                        f"{b[field].get(name)!r}"
                    )
        return f"what they are compiled with, field {field!r}: {a[field]!r} and {b[field]!r}"
    return f"input shapes: {first.model.input_shape} and {other.model.input_shape}"


def optional_kind(layer: keras.layers.Layer) -> tuple:
    """Return what two optional layers must share to stand at the same place of a chain."""
    return type(layer), _as_text(_layer_structure(layer, form_of(layer)))


def _layer_structure(layer: keras.layers.Layer, form: type[StackedLayer]) -> dict[str, Any]:
    """The part of a layer's config that members must share."""
    leave_out = {*_NOT_STRUCTURE, *form.numbers, *form.ignored}
    config = {
        name: value
        for name, value in layer.get_config().items()
        if name not in leave_out and not name.endswith(_NOT_STRUCTURE_ENDS)
    }
    return {**config, "called with": layer.arguments} if isinstance(layer, Call) else config


def _as_text(config: Any) -> str:
    return json.dumps(config, sort_keys=True, default=str)


def _compiled_structure(model: keras.Model) -> dict[str, Any]:
    """The part of what `compile` was given that members must share."""
    config = model.optimizer.get_config()
    optimizer = {k: v for k, v in config.items() if k not in OPTIMIZER_NUMBERS and k != "name"}
    optimizer["class"] = type(model.optimizer).__name__
    metrics = {
        name: keras.tree.map_structure(_metric_config, metric)
        for name, metric in user_metrics(model).items()
    }
    return {
        "optimizer": optimizer,
        "loss": _loss_config(model.loss),
        "loss_weights": user_loss_weights(model),
        **metrics,
    }


def _loss_config(loss: Any) -> Any:
    if isinstance(loss, keras.losses.Loss):
        config = {**loss.get_config(), **loss_arguments(loss)}
        left_out = {"name", "fn", *(("label_smoothing",) if smoothing_kind(loss) else ())}
        config = {name: value for name, value in config.items() if name not in left_out}
        function = loss.fn if is_plain_function_loss(loss) else None
        return [*_class_config(loss), config, function and _function_config(function)]
    if loss is None or isinstance(loss, str):
        return loss
    if callable(loss):
        return _function_config(loss)
    raise NotStackable("the model has several losses")


def _metric_config(metric: Any) -> Any:
    if isinstance(metric, keras.metrics.Metric):
        config = {name: value for name, value in metric.get_config().items() if name != "fn"}
        if has_automatic_name(metric):
            config.pop("name", None)
        functions = []
        if isinstance(metric, keras.metrics.MeanMetricWrapper):
            function, arguments = row_function(metric)
            functions = [_value_config(function), _value_config(arguments)]
        elif isinstance(metric, DataLoss):
            config.pop("loss")
            functions = [_loss_config(metric.loss)]
        return [*_class_config(metric), _as_text(config), functions]
    return metric if metric is None or isinstance(metric, str) else _value_config(metric)


def _class_config(thing: Any) -> list[Any]:
    """The class of a loss or a metric and, where it is no class of Keras, its attributes.

    A class of one's own need not have a config that says what it was made with.
    """
    kind = type(thing)
    if kind.__module__.partition(".")[0] in ("keras", "kregs"):
        return [kind.__name__]
    usual = vars(keras.metrics.Mean(name="any")).keys() | vars(keras.losses.Huber()).keys()
    attributes = {
        name: _value_config(value) for name, value in vars(thing).items() if name not in usual
    }
    return [f"{kind.__module__}.{kind.__qualname__}", attributes]


def _function_config(function: Any) -> Any:
    """What two functions must share to do the same: code, defaults and what they close over."""
    if isinstance(function, functools.partial):
        return [
            "partial",
            _value_config(function.func),
            _value_config(function.args),
            _value_config(function.keywords),
        ]
    code = getattr(function, "__code__", None)
    if code is None:  # of a class that is called, or built in
        return [repr(function)]
    cells = [_value_config(cell.cell_contents) for cell in function.__closure__ or ()]
    return [
        function.__module__,
        function.__qualname__,
        [code.co_firstlineno, code.co_code.hex(), repr(code.co_names)],
        _value_config(function.__defaults__),
        _value_config(function.__kwdefaults__),
        cells,
    ]


def _value_config(value: Any) -> Any:
    """What a function closes over, or an object has, as far as two of them can be compared."""
    if isinstance(value, keras.losses.Loss):
        return _loss_config(value)
    if isinstance(value, keras.metrics.Metric):
        return _metric_config(value)
    if isinstance(value, keras.Variable):
        return ["variable", list(value.shape)]
    if isinstance(value, dict):
        return {str(name): _value_config(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_value_config(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return [str(value.dtype), value.tolist()]
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if inspect.isfunction(value) or isinstance(value, functools.partial):
        return _function_config(value)
    return repr(value)  # with the place in memory, where it has no form of its own
