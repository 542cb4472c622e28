"""Copies of Keras layers and models with all of their state: weights, seeds, vocabularies."""

from __future__ import annotations

import tempfile
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from kregs.builders.layer_kinds import change_configs, config_of
from kregs.builders.model_graph import Call, ModelGraph, is_model_graph


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return a layer and all layers within it, in an order that its copy has too.

    Example:

    >>> import keras
    >>> [layer.name for layer in sublayers(keras.layers.LSTM(1, name="a"))]
    ['a', 'lstm_cell']
    """
    return layer._flatten_layers()  # Keras has no public way to ask


def new_layer(layer: Any, config: dict[str, Any] | None = None) -> Any:
    """Return an operation or layer of the same class from a config; it has no weights yet.

    Classes and functions that the layer is made of are taken from the layer itself, so that they
    need neither be registered nor have a name.

    Args:
        layer: the original.
        config: instead of its own.

    Example:

    >>> import keras
    >>> new_layer(keras.layers.Dense(3, name="a")).units
    3
    """
    config = config_of(layer) if config is None else config
    parts = sublayers(layer) if isinstance(layer, keras.layers.Layer) else [layer]
    objects = _classes_of(parts)
    by_name = {part.name: part for part in reversed(parts)}

    def name_functions(class_name: str | None, config: dict[str, Any]) -> dict[str, Any]:
        part = layer if class_name is None else by_name.get(config.get("name"))
        functions = {key: getattr(part, key, value) for key, value in config.items()}
        return config | {k: _named(f, objects) for k, f in functions.items() if _is_own(f)}

    config = change_configs(config, name_functions)
    with keras.saving.custom_object_scope(objects):
        new = type(layer).from_config(config)
    if isinstance(layer, keras.layers.Layer):
        for old_part, new_part in zip(parts, sublayers(new), strict=False):
            # a lookup layer cannot be called before it knows its vocabulary
            if type(old_part) is type(new_part) and not old_part.variables:
                _copy_own_state(old_part, new_part)
    return new


def _is_own(value: Any) -> bool:
    """Whether a value is a function that Keras does not know by its name."""
    return isinstance(value, types.FunctionType) and not _is_kerass(value)


def _is_kerass(value: Any) -> bool:
    return (value.__module__ or "").split(".")[0] in ("keras", "builtins", "tensorflow")


def _named(function: Any, objects: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a function that is found by a name of its own among `objects`."""
    name = f"{function.__name__}#{len(objects)}"
    objects[name] = function
    return {
        "module": "builtins",
        "class_name": "function",
        "config": name,
        "registered_name": "function",
    }


def _classes_of(parts: Iterable[Any]) -> dict[str, type]:
    """Return the classes of layers and of what they hold that Keras would not find, by name."""
    kinds = {type(value) for part in parts for value in (part, *vars(part).values())}
    return {kind.__name__: kind for kind in kinds if not _is_kerass(kind)}


def copy_state(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Give a built layer the whole state of another that was made from the same config.

    That is what Keras writes into a `.keras` file: weights and seeds, and what layers keep
    elsewhere, as `Normalization` its statistics and `StringLookup` its vocabulary.

    Args:
        source: what is copied, with the layers within it.
        target: what is changed.

    Raises:
        ValueError: the two have not the same layers and variables within.

    Example:

    >>> import keras, numpy as np
    >>> adapted, new = keras.layers.Normalization(), keras.layers.Normalization()
    >>> adapted.adapt(np.array([[1.0], [3.0]]))
    >>> new.build((None, 1))
    >>> copy_state(adapted, new)
    >>> float(new(np.array([[3.0]]))[0, 0])
    1.0
    """
    pairs = list(zip(sublayers(source), sublayers(target), strict=False))
    same = len(sublayers(source)) == len(sublayers(target)) and all(
        type(old) is type(new) for old, new in pairs
    )
    shapes = [[tuple(v.shape) for v in layer.weights] for layer in (source, target)]
    if not same or shapes[0] != shapes[1]:
        raise ValueError(
            f"the layer {source.name!r} cannot be copied: from its `get_config()` it is built with "
            f"other layers or weights. Expected shapes: {shapes[0]}. Received: {shapes[1]}"
        )
    for old, new in pairs:
        seeds, new_seeds = _seeds(old), _seeds(new)
        if len(seeds) == len(new_seeds):  # a dropout layer has none while its rate is 0
            for seed, new_seed in zip(seeds, new_seeds, strict=True):
                new_seed.assign(seed)
    for old, new in zip(source.weights, target.weights, strict=True):
        new.assign(old)
    for old, new in pairs:
        _copy_own_state(old, new)


def _seeds(layer: keras.layers.Layer) -> list[Any]:
    """Return the variables that are no weights: the states of seed generators."""
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


def _copy_own_state(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Copy what a layer alone, without those within it, would write into a file."""
    variables: dict[str, Any] = {}
    source.save_own_variables(variables)
    if variables:
        target.load_own_variables(variables)
    if not hasattr(source, "save_assets"):  # Keras asks so, too
        return
    with tempfile.TemporaryDirectory(prefix="kregs-") as folder:
        source.save_assets(folder)
        target.load_assets(folder)


class ModelCopier:
    """Copies Sequential and Functional models; a subclass may change layers and put in others.

    Example:

    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> copier = ModelCopier()
    >>> copy = copier.copy_model(ModelGraph(model))
    >>> copier.copy_states()
    >>> bool((copy.get_weights()[0] == model.get_weights()[0]).all())
    True
    """

    def __init__(self) -> None:
        self.copies: dict[int, tuple[Any, Any]] = {}  # id of an operation -> it and its copy

    def copy_layer(self, layer: Any, graph: ModelGraph) -> Any:
        """Return the copy of one operation or layer, without weights."""
        return new_layer(layer)

    def is_left_out(self, call: Call, graph: ModelGraph) -> bool:
        """Whether a call of a layer with one input and one output is not made in the copy."""
        return False

    def layers_before(self, call: Call, graph: ModelGraph) -> Iterable[Callable]:
        """Return the layers to put before one call of a layer."""
        return ()

    def layers_after(self, call: Call, graph: ModelGraph) -> Iterable[Callable]:
        """Return the layers to put after one call of a layer."""
        return ()

    def new_input(self, tensor: Any) -> Any:
        """Return the copy of an input of a model."""
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)

    def copy_model(self, graph: ModelGraph) -> keras.Model:
        """Return the uncompiled copy of a graph's model, without its weights."""
        model = graph.model

        def copied(layer: Any) -> Any:
            if id(layer) not in self.copies:
                nested = graph.nested.get(id(layer))
                new = self.copy_model(nested) if nested else self.copy_layer(layer, graph)
                self.copies[id(layer)] = (layer, new)
            return self.copies[id(layer)][1]

        if isinstance(model, keras.Sequential):
            copy = self._copy_sequential(graph, copied)
        else:
            copy = self._copy_functional(graph, copied)
        if not model.trainable:
            copy.trainable = False
        return copy

    def _copy_sequential(self, graph: ModelGraph, copied: Callable) -> keras.Sequential:
        model = graph.model
        stack: list[Any] = [self.new_input(model.inputs[0])]
        for layer in model.layers:
            (call,) = graph.calls_of(layer)
            stack += self.layers_before(call, graph)
            if not self.is_left_out(call, graph):
                stack.append(copied(layer))
            stack += self.layers_after(call, graph)
        return keras.Sequential(stack, name=model.name)

    def _copy_functional(self, graph: ModelGraph, copied: Callable) -> keras.Model:
        model = graph.model
        inputs = keras.tree.map_structure(self.new_input, model.input)
        tensors = {id(tensor): tensor for tensor in keras.tree.flatten(inputs)}
        # equal calls of a shared layer differ in what follows: only the order tells them apart
        calls = iter(graph.calls_in_order())

        def call_copy(new: Any, *args: Any, **kwargs: Any) -> Any:
            call = next(calls)
            for layer in self.layers_before(call, graph):
                if args:
                    args = (layer(args[0]), *args[1:])
                else:  # called as layer(inputs=x)
                    kwargs |= {name: layer(value) for name, value in list(kwargs.items())[:1]}
            if self.is_left_out(call, graph):
                values = keras.tree.flatten((args, kwargs))
                (result,) = (value for value in values if id(value) in tensors)
            else:
                result = new(*args, **kwargs)
            for layer in self.layers_after(call, graph):
                result = layer(result)
            tensors.update({id(value): value for value in keras.tree.flatten(result)})
            return result

        # around the same layers, but not compiled: clone_model would compile the copy too
        bare = keras.Model(model.input, model.output, name=model.name)
        return keras.models.clone_model(
            bare, input_tensors=inputs, clone_function=copied, call_function=call_copy
        )

    def copy_states(self) -> None:
        """Give every copied layer the state of its original."""
        for old, new in self.layer_pairs():
            copy_state(old, new)

    def layer_pairs(self) -> Iterator[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """Yield the copied layers and their copies, those of models inside, not these models."""
        for old, new in self.copies.values():
            if isinstance(old, keras.layers.Layer) and not is_model_graph(old):
                yield old, new


def copy_model(model: keras.Model, *, name: str | None = None) -> keras.Model:
    """Return an uncompiled copy of a model with its whole state.

    Args:
        model: Sequential, Functional, or a subclass with `get_config()`; built.
        name: of the copy; default: the model's.

    Raises:
        ValueError: a layer's `get_config()` does not make the same layer.

    Example:

    >>> import keras
    >>> copy_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), name="b").name
    'b'
    """
    if is_model_graph(model):
        copier = ModelCopier()
        copy = copier.copy_model(ModelGraph(model))
        copier.copy_states()
    else:
        copy = new_layer(model)
        if not copy.built:
            copy.build_from_config(model.get_build_config())
        copy_state(model, copy)
    if name is not None:
        copy.name = name
    return copy
