"""`ModelGraph`: which call of a layer feeds which, in a Functional model and those inside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras

from kregs.builders.layer_kinds import has_weights

L = keras.layers


def is_model_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or Functional model, whose own layers can be followed.

    Example:

    >>> is_model_graph(keras.Sequential([keras.Input((2,)), L.Dense(1)]))
    True
    """
    return isinstance(layer, keras.Model) and bool(getattr(layer, "outputs", None))


def check_model_graph(model: Any) -> None:
    """Raise unless it is a built Sequential or Functional model, whose layers can be followed."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r} of {type(model).__name__}"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "`model` must be built, so that its input shape is known: put a keras.Input first, or "
            "call it on data. Received: a Sequential that is not built"
        )
    if not is_model_graph(model):
        raise ValueError(
            "`model` must be a Sequential or Functional model: the layers of a subclassed one "
            f"cannot be followed. Received: {type(model).__name__}"
        )


def ends_of(model: keras.Model) -> tuple[Any, Any]:
    """Return the symbolic inputs and outputs of a model in their structure: a tensor, list or dict.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), L.Dense(1)])
    >>> [tensor.shape for tensor in ends_of(model)]
    [(None, 2), (None, 1)]
    """
    if isinstance(model, keras.Sequential):  # has no `input` before it is called
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def nested_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model and of the models inside it.

    Example:

    >>> inner = keras.Sequential([keras.Input((2,)), L.Dense(1, name="a")], name="inner")
    >>> [layer.name for layer in nested_layers(keras.Sequential([keras.Input((2,)), inner]))]
    ['inner', 'a']
    """
    for layer in model.layers:
        yield layer
        if is_model_graph(layer):
            yield from nested_layers(layer)


@dataclasses.dataclass(eq=False)
class Call:
    """One call of a layer or operation; a shared layer has several.

    Args:
        layer: what is called.
        inputs, outputs: the symbolic tensors.
        before, after: the calls that feed it and that it feeds.
        keywords: what it is called with by name, such as `training=False`.
    """

    layer: Any
    inputs: list[Any]
    outputs: list[Any]
    before: list[Call] = dataclasses.field(default_factory=list, repr=False)
    after: list[Call] = dataclasses.field(default_factory=list, repr=False)
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)


class ModelGraph:
    """The calls of one model's layers, each with those before and after it.

    Args:
        model: a Sequential or Functional model.
        outer: the graph that the model is a layer of.

    Attributes:
        nested: the graphs of the models inside, by their model's `id`.
        outputs: the call that makes each output.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a"), L.Dense(1, name="b")])
    >>> graph = ModelGraph(model)
    >>> [call.layer.name for call in graph.outputs[0].before]
    ['a']
    """

    def __init__(self, model: keras.Model, outer: ModelGraph | None = None) -> None:
        self.model, self.outer = model, outer
        calls: dict[int, Call] = {}

        def call_of(tensor: Any) -> Call:
            # Keras has no public way to ask what made a tensor
            operation, node_index, _ = tensor._keras_history
            node = operation._inbound_nodes[node_index]
            if id(node) not in calls:
                sources = [] if node.is_input else list(node.input_tensors)
                calls[id(node)] = Call(
                    operation,
                    sources,
                    list(node.output_tensors),
                    keywords={} if node.is_input else dict(node.arguments.kwargs),
                )
                waiting.append(calls[id(node)])
            return calls[id(node)]

        waiting: list[Call] = []
        self.outputs = [call_of(tensor) for tensor in model.outputs]
        while waiting:
            call = waiting.pop()
            for tensor in call.inputs:
                source = call_of(tensor)
                if source not in call.before:
                    call.before.append(source)
                    source.after.append(call)
        self.inputs = [call_of(tensor) for tensor in model.inputs]
        self._by_node = calls
        self._calls: dict[int, list[Call]] = {}
        for call in calls.values():
            self._calls.setdefault(id(call.layer), []).append(call)
        self.nested = {
            id(layer): ModelGraph(layer, outer=self)
            for layer in model.layers
            if is_model_graph(layer)
        }

    def calls_of(self, layer: Any) -> list[Call]:
        """Return the calls of a layer in this model.

        Example:

        >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a")])
        >>> len(ModelGraph(model).calls_of(model.layers[0]))
        1
        """
        return self._calls.get(id(layer), [])

    def calls_in_order(self) -> list[Call]:
        """Return the calls of a Functional model in the order in which Keras makes them.

        Example:

        >>> x = keras.Input((2,))
        >>> model = keras.Model(x, L.ReLU(name="b")(L.Dense(3, name="a")(x)))
        >>> [call.layer.name for call in ModelGraph(model).calls_in_order()]
        ['a', 'b']
        """
        by_depth = self.model._nodes_by_depth  # Keras has no public way to ask
        nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
        return [self._by_node[id(node)] for node in nodes if not node.is_input]

    def upstream(self, call: Call) -> Iterator[tuple[Call, ModelGraph]]:
        """Yield what `call` is fed by, back to the nearest layers with weights, these included.

        Models inside are walked through, and out of this one into the outer.

        Example:

        >>> layers = [keras.Input((2,)), L.Dense(3, name="a"), L.ReLU(name="b"), L.Dense(1)]
        >>> graph = ModelGraph(keras.Sequential(layers))
        >>> [call.layer.name for call, _ in graph.upstream(graph.outputs[0])]
        ['b', 'a']
        """
        yield from _walk(self._sources(call), ModelGraph._sources)

    def downstream(self, call: Call) -> Iterator[tuple[Call, ModelGraph]]:
        """Yield what is fed by `call` alone, on to the nearest layers with weights, as `upstream`.

        Example:

        >>> layers = [keras.Input((2,)), L.Dense(3, name="a"), L.ReLU(name="b"), L.Dense(1)]
        >>> model = keras.Sequential(layers)
        >>> graph = ModelGraph(model)
        >>> call, _ = next(graph.downstream(graph.calls_of(model.layers[0])[0]))
        >>> call.layer.name
        'b'
        """
        yield from _walk(self._followers(call), ModelGraph._followers)

    def _sources(self, call: Call) -> list[tuple[Call, ModelGraph]]:
        if call in self.inputs and self.outer is not None:
            outer = self.outer
            return [s for c in outer.calls_of(self.model) for s in outer._sources(c)]
        return [end for source in call.before for end in self._ends(source)]

    def _ends(self, call: Call) -> list[tuple[Call, ModelGraph]]:
        """Return the call, or where it is of a model inside, the calls that make its outputs."""
        nested = self.nested.get(id(call.layer))
        if nested is None:
            return [(call, self)]
        return [end for output in nested.outputs for end in nested._ends(output)]

    def _followers(self, call: Call) -> list[tuple[Call, ModelGraph]]:
        followers: list[tuple[Call, ModelGraph]] = []
        for follower in call.after:
            nested = self.nested.get(id(follower.layer))
            if nested is not None:
                followers += [f for first in nested.inputs for f in nested._followers(first)]
            elif len(follower.before) == 1:  # what is merged with others is no longer its own
                followers.append((follower, self))
        if call in self.outputs and self.outer is not None:
            outer = self.outer
            followers += [f for c in outer.calls_of(self.model) for f in outer._followers(c)]
        return followers

    def owner(self, call: Call) -> Any:
        """Return the layer with weights whose output reaches `call` by one way, or `None`.

        Example:

        >>> layers = [keras.Input((2,)), L.Dense(3, name="a"), L.ReLU(), L.Dropout(0.1)]
        >>> graph = ModelGraph(keras.Sequential(layers))
        >>> graph.owner(graph.outputs[0]).name
        'a'
        """
        while len(call.before) == 1:
            call = call.before[0]
            if is_model_graph(call.layer):
                return None
            if has_weights(call.layer):
                return call.layer
        return None

    def tail(self) -> list[Call]:
        """Return the calls that end the model: from the outputs back to layers with weights.

        Example:

        >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a"), L.Softmax(name="s")])
        >>> [call.layer.name for call in ModelGraph(model).tail()]
        ['s', 'a']
        """
        tail: list[Call] = []
        waiting = list(self.outputs)
        while waiting:
            call = waiting.pop()
            if call not in tail:
                tail.append(call)
                if not is_model_graph(call.layer) and not has_weights(call.layer):
                    waiting += call.before
        return tail


def _walk(first: list[tuple[Call, ModelGraph]], step: Any) -> Iterator[tuple[Call, ModelGraph]]:
    waiting, seen = list(first), set()
    while waiting:
        call, graph = waiting.pop(0)
        if id(call) in seen:
            continue
        seen.add(id(call))
        yield call, graph
        if not has_weights(call.layer):
            waiting += step(graph, call)
