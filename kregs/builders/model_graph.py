"""`ModelGraph`: which layer of a Functional model feeds which, models inside it included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kregs.builders.layer_kinds import (
    ACTIVATIONS,
    NORMALIZATIONS,
    RESHAPES,
    SPATIAL_DROPOUTS,
    has_kernel,
    is_head,
    is_output_activation,
)

L = keras.layers


def is_model_graph(layer: Any) -> bool:
    """Whether a layer is a Sequential or Functional model, whose own layers can be followed.

    Example:

    >>> is_model_graph(keras.Sequential([keras.Input((2,)), L.Dense(1)]))
    True
    """
    return isinstance(layer, keras.Model) and bool(getattr(layer, "outputs", None))


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


class ModelGraph:
    """The layers before and after each layer of one model; of a layer called twice, of both calls.

    Args:
        model: a Sequential or Functional model.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a"), L.Dense(1, name="b")])
    >>> graph = ModelGraph(model)
    >>> [layer.name for layer in graph.before[id(model.get_layer("b"))]]
    ['a']
    """

    def __init__(self, model: keras.Model) -> None:
        self.outputs = [_producer(tensor)[0] for tensor in model.outputs]
        self.before: dict[int, list[Any]] = {}
        self.after: dict[int, list[Any]] = {}
        seen = set()
        waiting = list(model.outputs)
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            operation, inputs = _producer(tensor)
            for source in inputs:
                producer = _producer(source)[0]
                self.before.setdefault(id(operation), []).append(producer)
                self.after.setdefault(id(producer), []).append(operation)
            waiting.extend(inputs)

    def owner(self, operation: Any) -> Any:
        """Return the layer with weights whose output reaches `operation` by one way, or `None`.

        Example:

        >>> layers = [keras.Input((2,)), L.Dense(3, name="a"), L.ReLU(), L.Dropout(0.1)]
        >>> model = keras.Sequential(layers)
        >>> ModelGraph(model).owner(model.layers[-1]).name
        'a'
        """
        passed = (*NORMALIZATIONS, *ACTIVATIONS, *RESHAPES, L.ActivityRegularization, L.Dropout)
        passed += tuple(SPATIAL_DROPOUTS.values())
        while len(sources := self.before.get(id(operation), [])) == 1:
            operation = sources[0]
            if has_kernel(operation) or isinstance(operation, L.Embedding):
                return operation
            if not isinstance(operation, passed):
                return None
        return None

    def tail(self) -> list[Any]:
        """Return the output layers, each with all that follows it; models inside end the walk.

        Example:

        >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3, name="a"), L.Softmax(name="s")])
        >>> [layer.name for layer in ModelGraph(model).tail()]
        ['s', 'a']
        """
        layers = []
        for operation in self.outputs:
            path = []
            while isinstance(operation, RESHAPES) or is_output_activation(operation):
                path.append(operation)
                sources = self.before.get(id(operation), [])
                if len(sources) != 1:
                    break
                operation = sources[0]
            if is_model_graph(operation) or is_head(operation):
                layers += [*path, operation]
        return layers


def _producer(tensor: Any) -> tuple[Any, list[Any]]:
    """Return the operation that made a symbolic tensor, and the tensors it was made from."""
    operation, node_index, _ = tensor._keras_history  # Keras has no public way to ask
    node = operation._inbound_nodes[node_index]
    return operation, [] if node.is_input else list(node.input_tensors)
