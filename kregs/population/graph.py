"""`Graph`: which layers of a Keras model run, in which order, and what each one reads.

Layers that do nothing at some number (dropout at rate 0) are taken off the graph and hung on its
edges, so that models with and without them share a graph.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import keras

from kregs.population.keras_internals import calls_of, has_mask, inner_functional
from kregs.population.registry import Argument, Call, NotStackable, form_of, is_by_member

MODEL_INPUT = -1


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
        """Yield all edges in a fixed order, the output's last."""
        for node in self.nodes:
            yield from node.inputs
        yield self.output


def read_graph(model: keras.Model) -> Graph:
    """Read a built Sequential or Functional model with one input and one output.

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
            "models show their layers"
        )
    if len(functional.inputs) != 1 or len(functional.outputs) != 1:
        raise NotStackable(
            f"model {model.name!r} has {len(functional.inputs)} inputs and "
            f"{len(functional.outputs)} outputs; one of each can be stacked"
        )
    nodes: list[Node] = []
    (output,) = _read_functional(functional, [Edge(MODEL_INPUT)], nodes)
    return _in_reading_order(nodes, output)


def _functional(model: Any) -> Any:
    try:
        return inner_functional(model)
    except ValueError as error:
        raise NotStackable(str(error)) from None


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


def _read_functional(functional: Any, inputs: list[Edge], nodes: list[Node]) -> list[Edge]:
    """Append the nodes of a Functional that reads these edges; return the edges of its outputs."""
    if any(map(has_mask, functional.outputs)):
        # from there it goes on unseen by the graph, to the loss at last
        raise NotStackable(f"a mask reaches the output of model {functional.name!r}")
    edges = {id(tensor): edge for tensor, edge in zip(functional.inputs, inputs, strict=True)}
    for call in calls_of(functional):
        operation = call.operation
        sources = [edges[id(tensor)] for tensor in call.input_tensors]
        nested = _functional(operation) if isinstance(operation, keras.Model) else None
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
    """All arguments of a call, with a mark in place of each input."""
    positions = itertools.count()

    def mark(value: Any) -> Any:
        return Argument(next(positions)) if _is_tensor(value) else value

    arguments = call.arguments
    return {
        "args": keras.tree.map_structure(mark, arguments.args),
        "kwargs": keras.tree.map_structure(mark, arguments.kwargs),
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
