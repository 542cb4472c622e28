"""`Graph`: which layers of a Keras model run, in which order, and what each one reads.

Layers that do nothing at some number (dropout at rate 0) are taken off the graph and hung on its
edges, so that models with and without them share a graph.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from kregs.population.keras_internals import calls_of, has_mask, inner_functional
from kregs.population.registry import Argument, Call, NotStackable, form_of, is_by_member


def input_source(position: int) -> int:
    """Return by which `source` an edge reads the model's input of this position."""
    return -1 - position


@dataclasses.dataclass(eq=False)
class Node:
    """One call of one layer; `inputs` say which nodes it reads and what lies between."""

    layer: keras.layers.Layer
    inputs: list[Edge]


@dataclasses.dataclass(frozen=True)
class Edge:
    """From node `source` (or an input, `input_source`), through the optional layers of `chain`."""

    source: int
    chain: tuple[Any, ...] = ()


@dataclasses.dataclass
class Graph:
    """A model read as nodes in the order of execution, and the edges to its outputs."""

    nodes: list[Node]
    outputs: list[Edge]

    def edges(self) -> Iterator[Edge]:
        """Yield all edges in a fixed order, the outputs' last."""
        for node in self.nodes:
            yield from node.inputs
        yield from self.outputs


def read_graph(model: keras.Model) -> Graph:
    """Read a built Sequential or Functional model.

    Args:
        model: compiled or not.

    Returns:
        Its graph, nested models resolved into their layers.

    Raises:
        NotStackable: the model is of another kind, or a layer has no stacked form.
    """
    functional = _functional(model)
    if functional is None:
        raise NotStackable(
            f"model {model.name!r} is a {type(model).__name__}; only Sequential and Functional "
            "models show their layers. A layer with the same `call` within one can be stacked"
        )
    nodes: list[Node] = []
    sources = [input_source(position) for position in range(len(functional.inputs))]
    outputs = _read_functional(functional, [Edge(source) for source in sources], nodes)
    return _in_reading_order(nodes, sources, outputs)


def in_order_of_inputs(model: keras.Model, x: Any) -> list[Any]:
    """Return what is for each of `model.inputs`, matched by name or by order as Keras does.

    Args:
        model: a built Sequential or Functional model.
        x: one thing or a structure of them, such as `fit` takes.

    Raises:
        ValueError: it does not fit the model's inputs.

    Example:

    >>> a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
    >>> model = keras.Model([b, a], keras.layers.Concatenate()([a, b]))
    >>> in_order_of_inputs(model, {"a": 1, "b": 2}), in_order_of_inputs(model, (1, 2))
    ([2, 1], [1, 2])
    """
    inputs = _functional(model).input
    if isinstance(inputs, dict):
        keys = list(inputs)
        # what is no dictionary has no keys, and Keras sorts those of a dictionary
        fits = set(x) == set(keys) if isinstance(x, dict) else keys == sorted(keys)
    else:
        keys = [tensor.name for tensor in keras.tree.flatten(inputs)]
        if isinstance(x, dict) and set(keys) <= set(x):
            return [x[name] for name in keys]
        fits = not isinstance(x, dict)
    parts = keras.tree.flatten(x)
    if not fits or len(parts) != len(model.inputs):
        received = f"the keys {', '.join(map(repr, x))}" if isinstance(x, dict) else f"{len(parts)}"
        raise ValueError(
            f"`x` must hold the inputs of this model, {', '.join(map(repr, keys))}. "
            f"Received: {received}"
        )
    return parts


def as_outputs(model: keras.Model, outputs: Sequence[Any]) -> Any:
    """Return what is for each of `model.outputs` in the structure that the model gives them in.

    Example:

    >>> x = keras.Input((1,))
    >>> model = keras.Model(x, {"b": keras.layers.Dense(1)(x), "a": keras.layers.Dense(2)(x)})
    >>> as_outputs(model, [tuple(output.shape) for output in model.outputs])
    {'b': (None, 1), 'a': (None, 2)}
    """
    structure = keras.tree.pack_sequence_as(_functional(model).output, list(outputs))
    is_list = isinstance(structure, (list, tuple))
    return structure[0] if is_list and len(structure) == 1 else structure


def _functional(model: Any) -> Any:
    try:
        return inner_functional(model)
    except ValueError as error:
        raise NotStackable(str(error)) from None


def few_predictions(model: keras.Model, y: Any) -> Any:
    """Return zeros that stand for a model's predictions of a few targets, in their structure."""
    rows = len(keras.tree.flatten(y)[0])
    outputs = [tf.zeros([rows, *output.shape[1:]], output.dtype) for output in model.outputs]
    return as_outputs(model, outputs)


def _in_reading_order(nodes: list[Node], sources: list[int], outputs: list[Edge]) -> Graph:
    """Order nodes by who reads them; Keras orders by depth, which optional layers change.

    Args:
        nodes: all.
        sources: of the model's inputs.
        outputs: the edges of its outputs.
    """
    order = {source: source for source in sources}
    stack = [edge.source for edge in reversed(outputs)]
    while stack:
        index = stack[-1]
        inputs = [] if index in order else nodes[index].inputs
        waiting = [edge.source for edge in inputs if edge.source not in order]
        if waiting:
            stack.append(waiting[0])
        else:
            order.setdefault(stack.pop(), len(order) - len(sources))

    def renumber(edge: Edge) -> Edge:
        return Edge(order[edge.source], edge.chain)

    kept = sorted(order.keys() - set(sources), key=order.__getitem__)
    ordered = [Node(nodes[i].layer, [renumber(edge) for edge in nodes[i].inputs]) for i in kept]
    return Graph(ordered, [renumber(edge) for edge in outputs])


def _read_functional(functional: Any, inputs: list[Edge], nodes: list[Node]) -> list[Edge]:
    """Append the nodes of a Functional that reads these edges; return the edges of its outputs."""
    if any(map(has_mask, functional.outputs)):
        # from there it goes on unseen by the graph, to the loss at last
        raise NotStackable(f"a mask reaches the output of model {functional.name!r}")
    edges = {id(tensor): edge for tensor, edge in zip(functional.inputs, inputs, strict=True)}
    for call in calls_of(functional):
        operation = call.operation
        sources = [edges[id(tensor)] for tensor in call.input_tensors]
        # one of a class of its own may compute otherwise than its layers show
        shows = isinstance(operation, keras.Sequential) or type(operation).__name__ == "Functional"
        nested = _functional(operation) if shows else None
        if nested is not None:
            if len(sources) != len(nested.inputs):
                raise NotStackable(f"model {operation.name!r} is called with a mask")
            outputs = _read_functional(nested, sources, nodes)
        else:
            outputs = [_read_call(operation, call, sources, nodes)]
        for tensor, edge in zip(call.outputs, outputs, strict=True):
            edges[id(tensor)] = edge
    return [edges[id(tensor)] for tensor in functional.outputs]


def _read_call(operation: Any, call: Any, sources: list[Edge], nodes: list[Node]) -> Edge:
    if len(call.outputs) != 1:
        raise NotStackable(f"layer {operation.name!r} has {len(call.outputs)} outputs")
    (output,) = call.outputs
    if is_by_member(operation):
        nodes.append(Node(Call(operation, _all_arguments(call), output), sources))
        return Edge(len(nodes) - 1)
    form = form_of(operation)
    arguments = _set_arguments(operation, call)
    unknown = sorted(arguments.keys() - set(form.arguments))
    if unknown:
        raise NotStackable(f"layer {operation.name!r} is called with {', '.join(unknown)}")
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


def _all_arguments(call: Any) -> dict[str, Any]:
    """All arguments of a call, with a mark in place of each input; the model says the phase.

    Keras notes the default of `training` as if it had been passed, and overrides it in `fit`.
    """
    positions = itertools.count()

    def mark(value: Any) -> Any:
        return Argument(next(positions)) if _is_tensor(value) else value

    arguments = call.arguments
    kwargs = {name: value for name, value in arguments.kwargs.items() if name != "training"}
    return {
        "args": keras.tree.map_structure(mark, arguments.args),
        "kwargs": keras.tree.map_structure(mark, kwargs),
    }


def _set_arguments(operation: Any, call: Any) -> dict[str, Any]:
    """The arguments of a call by name, without its inputs and what is off."""
    arguments = call.arguments
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
