"""What models must have in common to be stacked: their signature, and in what two of them differ.

Layers, shapes, which layers share weights, loss, metrics and the kind of optimizer must be equal;
numbers such as λ, rates and the learning rate are no part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import keras
from keras import losses

from kregs.population.fingerprint import (
    NOT_STRUCTURE,
    NOT_STRUCTURE_ENDS,
    Fingerprint,
    config_of,
    fingerprint,
    fingerprint_of_layer,
    fingerprint_of_loss,
    is_library,
    structure_of_config,
)
from kregs.population.graph import Graph, as_outputs, read_graph
from kregs.population.keras_internals import (
    has_automatic_name,
    inner_functional,
    user_loss_weights,
    user_metrics,
)
from kregs.population.objective import smoothing_kind
from kregs.population.optimizers import optimizer_form
from kregs.population.registry import Call, NotStackable, class_of, form_of
from kregs.population.restraints import other_constraint, other_regularizer
from kregs.population.undrawn import is_drawn
from kregs.training.data_loss import DataLoss, TotalDataLoss
from kregs.training.label_smoothing import without_smoothing
from kregs.training.proximal import group_axes, is_proximal
from kregs.training.wrapped_loss import unwrapped_loss


@dataclasses.dataclass
class Member:
    """A model read for stacking.

    Args:
        model: what trains.
        graph: of its layers.
        layers: each once.
        signature: what members must share.
        whole: the model that `model` is the head of, if its frozen part is computed beforehand.
    """

    model: keras.Model
    graph: Graph
    layers: list[keras.layers.Layer]
    signature: tuple
    whole: keras.Model | None = None

    @property
    def whole_model(self) -> keras.Model:
        """The model that was given, whose head may be all that trains (`frozen.py`)."""
        return self.whole or self.model

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
    own = {id(variable) for variable in model.weights}
    own |= {id(variable.value) for variable in model.weights if is_drawn(variable)}
    positions = {id(layer): position for position, layer in enumerate(layers)}
    structures = [_digest(_layer_structure(layer, own)) for layer in layers]
    weights: dict[int, int] = {}  # which are the same says which layers share them
    parts = tuple(
        (
            class_of(node.layer).__name__,
            positions[id(node.layer)],
            structures[positions[id(node.layer)]],
            tuple(
                (tuple(variable.shape), weights.setdefault(id(variable), len(weights)))
                for variable in node.layer.weights
            ),
            tuple(edge.source for edge in node.inputs),
        )
        for node in graph.nodes
    )
    outputs = tuple(edge.source for edge in graph.outputs)
    ends = _digest(_ends(model)), outputs
    return Member(model, graph, layers, (parts, ends, _digest(_compiled_structure(model, own))))


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
        if kind.__name__ != other_kind.__name__:
            return f"{name} is a {kind.__name__} in one and a {other_kind.__name__} in the other"
        field = _first_difference(_layer_structure(one.layer), _layer_structure(two.layer))
        if field is not None:
            return f"{name}, {field}"
        shapes = [[tuple(v.shape) for v in node.layer.weights] for node in (one, two)]
        if shapes[0] != shapes[1]:
            return f"{name}, weight shapes: {shapes[0]} and {shapes[1]}"
        if [e.source for e in one.inputs] != [e.source for e in two.inputs]:
            return f"{name} reads other layers in the other"
        if part != other_part:  # all that is left is which layers and weights are the same
            return f"{name} shares its weights with another layer in one of them only"
    if len(first_nodes) != len(other_nodes):
        return f"one has {len(first_nodes)} layers with a structure, the other {len(other_nodes)}"
    field = _first_difference(_compiled_structure(first.model), _compiled_structure(other.model))
    if field is not None:
        return f"what they are compiled with, {field}"
    field = _first_difference(_ends(first.model), _ends(other.model))
    return field or "the outputs are those of other layers in the other"


def _ends(model: keras.Model) -> dict[str, Any]:
    """The inputs and outputs that members must share: shapes, and of several how they are called.

    Names that Keras has made count up with every model that is built: they stand for their place.
    """
    ends: dict[str, Any] = {"input shapes": [tuple(x.shape[1:]) for x in model.inputs]}
    functional = inner_functional(model)
    if isinstance(functional.input, dict) or len(model.inputs) > 1:
        names = [
            place if has_automatic_name(tensor) else tensor.name
            for place, tensor in enumerate(model.inputs)
        ]
        ends["inputs"] = keras.tree.pack_sequence_as(functional.input, names)
    if isinstance(functional.output, dict) or len(model.outputs) > 1:
        made = {layer.name for layer in model.layers if has_automatic_name(layer)}
        names = [place if n in made else n for place, n in enumerate(model.output_names)]
        ends["outputs"] = as_outputs(model, names)
        # the log of an output is called by its name even where it has a key
        ends["output names"] = names
    return ends


def optional_kind(layer: keras.layers.Layer) -> tuple:
    """Return what two optional layers must share to stand at the same place of a chain."""
    return type(layer).__name__, _digest(_layer_structure(layer))


def _first_difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """Say in which field two structures differ, with both values."""
    for field in sorted({*one, *other}):
        a, b = one.get(field), other.get(field)
        if _digest(a) == _digest(b):
            continue
        if repr(a) == repr(b):
            return f"field {field!r}: {a!r}, which is not the same in both"
        return f"field {field!r}: {a!r} and {b!r}"
    return None


def _digest(structure: Any) -> str:
    """What is equal for equal structures; a list is as good as a tuple."""
    return fingerprint(_as_tuples(structure)).digest


def _as_tuples(structure: Any) -> Any:
    if isinstance(structure, Fingerprint):
        return structure.digest
    if isinstance(structure, dict):
        return {name: _as_tuples(value) for name, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return tuple(map(_as_tuples, structure))
    return structure


# ---- layers --------------------------------------------------------------------------------


def _layer_structure(layer: Any, own: Collection[int] = ()) -> dict[str, Any]:
    """The part of a layer that members must share: of its config, functions and class.

    Args:
        layer: of a node of the graph.
        own: ids of the model's variables, which no function may use.
    """
    form = form_of(layer)
    operation = layer.operation if isinstance(layer, Call) else layer
    leave_out = {*NOT_STRUCTURE, *form.numbers, *form.ignored}
    structure = {
        name: structure_of_config(value)
        for name, value in config_of(operation).items()
        if name not in leave_out and not name.endswith(NOT_STRUCTURE_ENDS)
    }
    if isinstance(operation, keras.layers.Layer):
        # a function's name in the config is kept where it says all: for Keras's own
        structure |= {
            name: held
            for name, held in fingerprint_of_layer(operation, leave_out=leave_out, own=own).items()
            if not (name in structure and is_library(_module(operation, name)))
        }
    structure |= _other_restraints(layer, own)
    if not is_library(form.__module__):
        structure["stacked form"] = fingerprint(form, own=own)
    return {**structure, "called with": layer.arguments} if isinstance(layer, Call) else structure


def _other_restraints(layer: Any, own: Collection[int]) -> dict[str, Any]:
    """The regularizers and constraints of a layer that are no numbers of a member."""
    found = {"activity_regularizer": other_regularizer(layer.activity_regularizer)}
    for number, variable in enumerate(layer.weights):
        found[f"regularizer of weight {number}"] = other_regularizer(variable.regularizer)
        found[f"constraint of weight {number}"] = other_constraint(variable.constraint)
    return {k: fingerprint(held, own=own) for k, held in found.items() if held is not None}


def _module(thing: Any, name: str) -> str | None:
    return getattr(getattr(thing, name, None), "__module__", None)


# ---- what a model is compiled with ---------------------------------------------------------


def _compiled_structure(model: keras.Model, own: Collection[int] = ()) -> dict[str, Any]:
    """The part of what `compile` was given that members must share."""
    form = optimizer_form(model.optimizer)
    settings = form.structure(model.optimizer, model.trainable_variables)
    optimizer = {f"optimizer.{name}": value for name, value in settings.items()}
    if not is_library(type(model.optimizer).__module__):
        optimizer["optimizer"] = fingerprint(type(model.optimizer), own=own)
    metrics = {
        name: keras.tree.map_structure(lambda metric: _metric_structure(metric, own), metric)
        for name, metric in user_metrics(model).items()
    }
    return {
        "optimizer class": type(model.optimizer).__name__,
        **optimizer,
        "optimizer.groups": _unusual_groups(model),
        "loss": keras.tree.map_structure(lambda loss: _loss_structure(loss, own), model.loss),
        "loss_weights": user_loss_weights(model),
        **metrics,
    }


def _unusual_groups(model: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    """Return the weights whose groups in a proximal step are not what their layers would say."""
    if not is_proximal(model.optimizer):
        return []
    weights, expected = model.trainable_weights, group_axes(model)
    return [
        (f"weight {position}", threshold.axes)
        for position, (weight, threshold) in enumerate(
            zip(weights, model.optimizer.thresholds(weights), strict=True)
        )
        if threshold.group_l1 and threshold.axes != expected.get(id(weight))
    ]


def _loss_structure(loss: Any, own: Collection[int]) -> Any:
    loss = unwrapped_loss(loss)
    if isinstance(loss, losses.Loss):
        # label smoothing is a number of each member where Keras's own function takes it
        kind = smoothing_kind(loss)
        leave_out = () if kind is None else ("label_smoothing",)
        # of class numbers it has a class of its own
        loss = without_smoothing(loss) if kind == "sparse" else loss
        return fingerprint_of_loss(loss, leave_out=leave_out, own=own)
    if loss is None or callable(loss):
        return _named(loss, own)
    return loss  # a name


def _metric_structure(metric: Any, own: Collection[int]) -> Any:
    if isinstance(metric, DataLoss):  # its loss may have a label smoothing of each member's own
        return ["data loss", metric.name, _loss_structure(metric.loss, own)]
    if isinstance(metric, TotalDataLoss):
        return [[weight, _metric_structure(part, own)] for part, weight in metric.parts]
    return _named(metric, own)


def _named(value: Any, own: Collection[int]) -> Any:
    """A name, or what is told apart by more than its name."""
    return value if value is None or isinstance(value, str) else fingerprint(value, own=own)
