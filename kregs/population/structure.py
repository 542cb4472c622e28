"""What models have in common and in which numbers they differ.

A model is read as a graph of layers. Layers that do nothing at some number (dropout at rate 0) are
taken off the graph and hung on its edges, so that members with and without them share a structure.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import constraints, regularizers

from kregs.population.registry import Call, NotStackable, StackedLayer, class_of, form_of, has_form

MODEL_INPUT = -1

# what a layer was born with, or is told apart by, says nothing of what it computes
_NOT_STRUCTURE = ("name", "seed", "batch_shape", "batch_input_shape", "lora_rank", "lora_alpha")
_NOT_STRUCTURE_ENDS = ("_initializer", "_regularizer", "_constraint")


@dataclasses.dataclass(eq=False)
class Node:
    """One call of one layer; `inputs` say which nodes it reads and what lies between."""

    layer: keras.layers.Layer
    inputs: list[Edge]


@dataclasses.dataclass(frozen=True)
class Edge:
    """From node `source` (or the model's input), through the optional layers of `chain`."""

    source: int
    chain: tuple[Any, ...] = ()


@dataclasses.dataclass
class Graph:
    """A model read as nodes in the order of execution, and the edge to its output."""

    nodes: list[Node]
    output: Edge

    def edges(self) -> Iterator[Edge]:
        """All edges in a fixed order, the output's last."""
        for node in self.nodes:
            yield from node.inputs
        yield self.output


def read_graph(model: keras.Model) -> Graph:
    """Read a built Sequential or Functional model with one input and one output.

    Raises:
        NotStackable: the model is of another kind, or a layer has no stacked form.
    """
    inner = _functional(model)
    if inner is None:
        raise NotStackable(
            f"model {model.name!r} is a {type(model).__name__}; only Sequential and Functional "
            "models show their layers"
        )
    if len(inner.inputs) != 1 or len(inner.outputs) != 1:
        raise NotStackable(
            f"model {model.name!r} has {len(inner.inputs)} inputs and {len(inner.outputs)} "
            "outputs; one of each can be stacked"
        )
    nodes: list[Node] = []
    (output,) = _read_function(inner, [Edge(MODEL_INPUT)], nodes)
    return _in_reading_order(nodes, output)


def _in_reading_order(nodes: list[Node], output: Edge) -> Graph:
    """Order nodes by who reads them; Keras orders by depth, which optional layers change."""
    order: dict[int, int] = {MODEL_INPUT: MODEL_INPUT}
    stack = [output.source]
    while stack:
        index = stack[-1]
        inputs = [] if index in order else nodes[index].inputs
        waiting = [edge.source for edge in inputs if edge.source not in order]
        if waiting:
            stack.append(waiting[0])
        else:
            order.setdefault(stack.pop(), len(order) - 1)

    def renumber(edge: Edge) -> Edge:
        return Edge(order[edge.source], edge.chain)

    kept = sorted(order.keys() - {MODEL_INPUT}, key=order.__getitem__)
    ordered = [Node(nodes[i].layer, [renumber(edge) for edge in nodes[i].inputs]) for i in kept]
    return Graph(ordered, renumber(output))


def _functional(model: Any) -> Any:
    """The Functional inside a Sequential, a Functional itself, or None."""
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:
            raise NotStackable(
                f"model {model.name!r} is not built: its first layer does not say its input shape"
            )
        return model._functional
    is_functional = hasattr(model, "_nodes_by_depth") and isinstance(model, keras.Model)
    return model if is_functional and type(model).__name__ == "Functional" else None


def _read_function(function: Any, inputs: list[Edge], nodes: list[Node]) -> list[Edge]:
    if any(getattr(tensor, "_keras_mask", None) is not None for tensor in function.outputs):
        # from there it goes on unseen by the graph, to the loss at last
        raise NotStackable(f"a mask reaches the output of model {function.name!r}")
    edges = {id(tensor): edge for tensor, edge in zip(function.inputs, inputs, strict=True)}
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if node.is_input:
                continue
            operation = node.operation
            sources = [edges[id(tensor)] for tensor in node.input_tensors]
            inner = _functional(operation) if isinstance(operation, keras.Model) else None
            if inner is not None:
                if len(sources) != len(inner.inputs):
                    raise NotStackable(f"model {operation.name!r} is called with a mask")
                results = _read_function(inner, sources, nodes)
            else:
                results = [_read_call(operation, node, sources, nodes)]
            for tensor, edge in zip(node.outputs, results, strict=True):
                edges[id(tensor)] = edge
    return [edges[id(tensor)] for tensor in function.outputs]


def _read_call(operation: Any, node: Any, sources: list[Edge], nodes: list[Node]) -> Edge:
    if not isinstance(operation, keras.layers.Layer) and not has_form(operation):
        raise NotStackable(
            f"operation {operation.name!r} ({type(operation).__name__}) is no layer; use the "
            "layer that does the same, such as keras.layers.Add"
        )
    form = form_of(operation)
    arguments = _set_arguments(operation, node)
    unknown = sorted(arguments.keys() - set(form.arguments))
    if unknown:
        raise NotStackable(f"layer {operation.name!r} is called with {', '.join(unknown)}")
    if len(node.outputs) != 1:
        raise NotStackable(f"layer {operation.name!r} has {len(node.outputs)} outputs")
    (output,) = node.outputs
    if form.absent:
        (source,) = sources
        return Edge(source.source, (*source.chain, operation))
    for part in form.parts(operation):
        form_of(part)
        nodes.append(Node(Call(part, {}, output), sources))
    parts = len(form.parts(operation))
    if parts:
        sources = [Edge(i) for i in range(len(nodes) - parts, len(nodes))]
    constants = {name: value for name, value in arguments.items() if not _is_tensor(value)}
    is_layer = isinstance(operation, keras.layers.Layer)
    layer = operation if is_layer and not constants else Call(operation, constants, output)
    nodes.append(Node(layer, sources))
    return Edge(len(nodes) - 1)


def _set_arguments(operation: Any, node: Any) -> dict[str, Any]:
    """The arguments of a call by name, without its inputs and what is off."""
    arguments = node.arguments
    bound = inspect.signature(operation.call).bind(*arguments.args, **arguments.kwargs).arguments
    return {
        name: value
        for name, value in bound.items()
        if (name in arguments.kwargs or not all(map(_is_tensor, keras.tree.flatten(value))))
        and value is not None
        and not (name == "training" and value is False)
    }


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def layer_structure(layer: keras.layers.Layer, form: type[StackedLayer]) -> dict[str, Any]:
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


@dataclasses.dataclass
class Member:
    """A model read for stacking: its graph, its compiled parts, its signature."""

    model: keras.Model
    graph: Graph
    layers: list[keras.layers.Layer]
    signature: tuple

    @property
    def weights(self) -> list[Any]:
        """The variables of all layers, in the order of the graph, each once."""
        found = {id(variable): variable for layer in self.layers for variable in layer.weights}
        return list(found.values())


def read_member(model: keras.Model) -> Member:
    """Read one compiled model; members with equal signatures can be stacked."""
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
            _as_text(layer_structure(node.layer, form_of(node.layer))),
            tuple(
                (tuple(variable.shape), weights.setdefault(id(variable), len(weights)))
                for variable in node.layer.weights
            ),
            tuple(edge.source for edge in node.inputs),
        )
        for node in graph.nodes
    )
    compiled = compiled_structure(model)
    shape = (tuple(model.input_shape[1:]), graph.output.source)
    return Member(model, graph, layers, (parts, shape, _as_text(compiled)))


_OPTIMIZER_NUMBERS = (
    "learning_rate", "weight_decay", "beta_1", "beta_2", "momentum", "rho",
    "clipnorm", "clipvalue", "global_clipnorm",
)  # fmt: skip


def compiled_structure(model: keras.Model) -> dict[str, Any]:
    """The part of what `compile` was given that members must share."""
    config = model.optimizer.get_config()
    optimizer = {k: v for k, v in config.items() if k not in (*_OPTIMIZER_NUMBERS, "name")}
    optimizer["class"] = type(model.optimizer).__name__
    loss = _loss_config(model._compile_loss._user_loss if model._compile_loss else None)
    metrics = model._compile_metrics
    named = {
        "metrics": metrics._user_metrics if metrics else None,
        "weighted_metrics": metrics._user_weighted_metrics if metrics else None,
    }
    return {
        "optimizer": optimizer,
        "loss": loss,
        "loss_weights": model._compile_loss._user_loss_weights if model._compile_loss else None,
        **{key: keras.tree.map_structure(_metric_config, value) for key, value in named.items()},
    }


def _loss_config(loss: Any) -> Any:
    if isinstance(loss, keras.losses.Loss):
        # not every loss's config has all that it was made with (Huber's delta)
        config = {**loss.get_config(), **getattr(loss, "_fn_kwargs", {})}
        config = {k: v for k, v in config.items() if k not in ("name", "label_smoothing")}
        return [type(loss).__name__, config]
    if loss is None or isinstance(loss, str):
        return loss
    if callable(loss):
        return [getattr(loss, "__module__", ""), getattr(loss, "__qualname__", repr(loss))]
    raise NotStackable("the model has several losses")


def _metric_config(metric: Any) -> Any:
    if isinstance(metric, keras.metrics.Metric):
        config = metric.get_config()
        config.pop("fn", None)
        return [type(metric).__name__, _as_text(config)]
    return metric if metric is None or isinstance(metric, str) else repr(metric)


def explain_difference(first: Member, other: Member) -> str:
    """Say where two members' structures differ: the layer, the field, both values."""
    ours, theirs = first.graph.nodes, other.graph.nodes
    parts = zip(first.signature[0], other.signature[0], strict=False)
    for one, two, (own, others) in zip(ours, theirs, parts, strict=False):
        name = f"layer {one.layer.name!r}"
        kind, other_kind = class_of(one.layer), class_of(two.layer)
        if kind is not other_kind:
            return f"{name} is a {kind.__name__} in one and a {other_kind.__name__} in the other"
        form = form_of(one.layer)
        a, b = layer_structure(one.layer, form), layer_structure(two.layer, form)
        for field in sorted({*a, *b}):
            if _as_text(a.get(field)) != _as_text(b.get(field)):
                return f"{name}, field {field!r}: {a.get(field)!r} and {b.get(field)!r}"
        shapes = [[tuple(v.shape) for v in node.layer.weights] for node in (one, two)]
        if shapes[0] != shapes[1]:
            return f"{name}, weight shapes: {shapes[0]} and {shapes[1]}"
        if [e.source for e in one.inputs] != [e.source for e in two.inputs]:
            return f"{name} reads other layers in the other"
        if own != others:  # all that is left is which layers and weights are the same
            return f"{name} shares its weights with another layer in one of them only"
    if len(ours) != len(theirs):
        return f"one has {len(ours)} layers with a structure, the other {len(theirs)}"
    a, b = compiled_structure(first.model), compiled_structure(other.model)
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


def check_same_structure(members: list[Member]) -> None:
    """Raise `NotStackable` naming the first difference between any member and the first."""
    for position, member in enumerate(members[1:], start=1):
        if member.signature != members[0].signature:
            raise NotStackable(
                f"models 0 and {position} differ in structure: "
                f"{explain_difference(members[0], member)}"
            )


def merge_chains(members: list[Member]) -> list[list[list[Any]]]:
    """Align the optional layers of all members, edge by edge.

    Returns:
        For each edge of the graph a list of positions; each position is a list with every member's
        layer there, `None` where a member has none.

    Raises:
        NotStackable: an optional layer's output is read both plain and through another one.
    """
    per_edge = [list(member.graph.edges()) for member in members]
    merged = []
    for edge in range(len(per_edge[0])):
        chains = [edges[edge].chain for edges in per_edge]
        order: list[tuple] = []
        for chain in chains:
            order = _shortest_common_supersequence(order, [_kind(layer) for layer in chain])
        positions: list[list[Any]] = [[None] * len(members) for _ in order]
        for k, chain in enumerate(chains):
            place = 0
            for layer in chain:
                while order[place] != _kind(layer):
                    place += 1
                positions[place][k] = layer
                place += 1
        merged.append(positions)
    return merged


def _kind(layer: keras.layers.Layer) -> tuple:
    form = form_of(layer)
    return (type(layer), _as_text(layer_structure(layer, form)))


def _shortest_common_supersequence(a: list, b: list) -> list:
    if not a or not b:
        return a or b
    if a[0] == b[0]:
        return [a[0], *_shortest_common_supersequence(a[1:], b[1:])]
    left = [a[0], *_shortest_common_supersequence(a[1:], b)]
    right = [b[0], *_shortest_common_supersequence(a, b[1:])]
    return min(left, right, key=len)


def chain_key(layer: keras.layers.Layer) -> tuple:
    """What two optional layers must share to stand at the same place of a chain."""
    return _kind(layer)


def penalty_coefficients(regularizer: Any, where: str) -> tuple[float, float]:
    """Return (l1, l2) of a Keras regularizer; `None` is (0, 0)."""
    if regularizer is None:
        return 0.0, 0.0
    if type(regularizer) in (regularizers.L1, regularizers.L2, regularizers.L1L2):
        # Keras casts a coefficient through float32, whatever the weights are
        l1, l2 = (float(np.float32(getattr(regularizer, name, 0.0))) for name in ("l1", "l2"))
        return l1, l2
    raise NotStackable(
        f"{where} has the regularizer {type(regularizer).__name__}, not L1, L2 or L1L2"
    )


def constraint_of(constraint: Any, where: str) -> tuple[str | None, tuple[int, ...], float]:
    """Return (kind, axes, maximum) of a Keras constraint."""
    if constraint is None:
        return None, (), np.inf
    if type(constraint) is constraints.MaxNorm:
        axis = constraint.axis
        return "max_norm", tuple(np.atleast_1d(axis).tolist()), float(constraint.max_value)
    if type(constraint) is constraints.NonNeg:
        return "non_negative", (), np.inf
    if type(constraint) is constraints.UnitNorm:
        return "unit_norm", tuple(np.atleast_1d(constraint.axis).tolist()), np.inf
    raise NotStackable(
        f"{where} has the constraint {type(constraint).__name__}, not MaxNorm, NonNeg or UnitNorm"
    )
