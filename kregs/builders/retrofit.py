"""`regularize`: a copy of an existing Keras model that a `Regularization` restrains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from kregs.builders.arguments import check_fields
from kregs.builders.layer_factory import Seeds, bias_regularizer, full_precision, kernel_regularizer
from kregs.builders.layer_kinds import (
    CONVOLUTIONS,
    KERNELS,
    SPATIAL_DROPOUTS,
    data_format,
    has_kernel,
    is_dropout,
    is_head,
    is_hidden_activation,
    is_spatial_dropout,
    norm_axis,
    output_rank,
    weight_configs,
)
from kregs.builders.model_graph import ModelGraph, is_model_graph, nested_layers
from kregs.regularization import Regularization
from kregs.validation import suggestion

L = keras.layers

_FIELDS = (
    "l1", "l2", "bias_l1", "bias_l2", "activity_l1", "activity_l2",
    "max_norm", "dropout", "spatial_dropout",
)  # fmt: skip


def regularize(
    model: keras.Model,
    regularization: Regularization,
    *,
    layers: Iterable[str] | Callable[[keras.layers.Layer], bool] | None = None,
    seed: int | None = None,
) -> keras.Model:
    """Return a copy of a model, with its weights, that is restrained by `regularization`.

    What restrained the chosen layers before is replaced, so a field that is 0 takes away:

    - `l1`, `l2`, `bias_l1`, `bias_l2` are the penalties on kernels (of inputs and recurrent states)
      and biases. Embeddings and normalizations have none. A shared layer is counted once.
    - `max_norm` bounds the weights into each unit or filter from the first training step on.
    - `activity_l1`, `activity_l2` penalize the output of each hidden activation.
    - `dropout` is the rate of every `Dropout` layer; where there is none, it is put after the
      hidden activation of each dense layer and before the output layer.
    - `spatial_dropout` is the rate of every `SpatialDropout` layer; where there is none, it is put
      after the hidden activation of each convolution and after embeddings.

    The output layer has the penalties and the bound, but nothing after it. Normalization cannot be
    added without changing what the model computes; what is there stays.

    Args:
        model: a built `keras.Sequential` or Functional model, such as those of
            `keras.applications`; models inside it are treated likewise. It is not changed.
        regularization: a `kregs.Regularization`.
        layers: names of the layers to treat, or a function that says whether to treat a layer;
            default: all. An activation and a dropout layer belong to the layer with weights that
            they follow, and the dropout before the output layer belongs to that.
        seed: integer for the dropout layers that are put in, or `None`.

    Returns:
        An uncompiled model of the same kind, whose predictions are those of `model`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the model is a subclassed one or not built, `layers` names an unknown layer or
            selects none, a field has no meaning here, or `max_norm` meets another constraint.

    Example:

    >>> import keras, kregs
    >>> plain = kregs.mlp((4,), 3, units=(8,))
    >>> model = kregs.regularize(plain, kregs.Regularization(l2=1e-3, dropout=0.5))
    >>> [layer.name for layer in model.layers]
    ['dense_1', 'dense_activation_1', 'dense_activation_1_dropout', 'head']
    >>> len(model.losses), len(plain.losses)
    (2, 0)
    """
    _check_model(model)
    if not isinstance(regularization, Regularization):  # None would take everything away
        raise TypeError(
            "`regularization` must be a kregs.Regularization. "
            f"Received: regularization={regularization!r}"
        )
    if regularization.normalization is not None:
        raise ValueError(
            "`regularization.normalization` must be None: a normalization put into a trained model "
            "would change what it computes. "
            f"Received: normalization={regularization.normalization!r}"
        )
    checked = check_fields("regularize", regularization, _FIELDS)
    copier = _ModelCopier(checked, _selector(model, layers), Seeds(seed), set(_names(model)))
    copy = copier.copy_model(model, is_output=True)
    copier.copy_weights()
    return copy


def _check_model(model: Any) -> None:
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


def _names(model: keras.Model) -> Iterator[str]:
    return (layer.name for layer in nested_layers(model))


def _selector(model: keras.Model, layers: Any) -> Callable[[Any], bool]:
    if layers is None:
        return lambda layer: True
    if callable(layers) and not isinstance(layers, (keras.layers.Layer, type)):
        chosen = {id(layer) for layer in nested_layers(model) if layers(layer)}
    else:
        if isinstance(layers, str) or not isinstance(layers, Iterable):
            raise TypeError(
                "`layers` must be names such as ['dense'], a function of a layer, or None. "
                f"Received: layers={layers!r}"
            )
        names, known = list(layers), list(_names(model))
        for name in names:
            if name not in known:
                raise ValueError(
                    f"`layers` must name layers of the model. Received: {name!r}."
                    f"{suggestion(name, known)} There are: {', '.join(known)}"
                )
        chosen = {id(layer) for layer in nested_layers(model) if layer.name in names}
    if not chosen:
        raise ValueError("`layers` must select at least one layer. Received: none is selected")
    return lambda layer: id(layer) in chosen


@dataclasses.dataclass
class _ModelCopier:
    """One run of `regularize`: copies models, and remembers what became of every layer."""

    regularization: Regularization
    selected: Callable[[Any], bool]
    seeds: Seeds
    names: set[str]
    copies: dict[int, tuple[Any, Any]] = dataclasses.field(default_factory=dict)

    def copy_model(self, model: keras.Model, *, is_output: bool) -> keras.Model:
        """Return the treated copy of a Sequential or Functional model, without its weights."""
        graph = ModelGraph(model)
        tail = graph.tail() if is_output else []
        tail_ids = {id(layer) for layer in tail}
        before: dict[int, list[keras.layers.Layer]] = {}
        after: dict[int, list[keras.layers.Layer]] = {}

        def copy_layer(layer: Any) -> Any:
            if id(layer) not in self.copies:
                if is_model_graph(layer):
                    new = self.copy_model(layer, is_output=id(layer) in tail_ids)
                else:
                    new = self._copy_layer(layer, graph)
                self.copies[id(layer)] = (layer, new)
            new = self.copies[id(layer)][1]
            if id(new) not in after:
                is_tail = id(layer) in tail_ids
                before[id(new)] = self._put_before(layer, graph) if is_tail else []
                after[id(new)] = [] if is_tail else self._put_after(layer, graph)
            return new

        if isinstance(model, keras.Sequential):
            tensor = model.inputs[0]
            stack = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)]
            for layer in model.layers:
                new = copy_layer(layer)
                stack += [*before[id(new)], new, *after[id(new)]]
            return keras.Sequential(stack, name=model.name)

        def call(new: Any, *args: Any, **kwargs: Any) -> Any:
            for layer in before[id(new)]:
                args = (layer(args[0]), *args[1:])
            result = new(*args, **kwargs)
            for layer in after[id(new)]:
                result = layer(result)
            return result

        # around the same layers, but not compiled: clone_model would compile the copy too
        bare = keras.Model(model.input, model.output, name=model.name)
        return keras.models.clone_model(bare, clone_function=copy_layer, call_function=call)

    def copy_weights(self) -> None:
        """Give every copied layer the weights of its original."""
        for old, new in self.copies.values():
            if isinstance(old, keras.layers.Layer) and not is_model_graph(old) and old.weights:
                new.set_weights(old.get_weights())

    def _is_chosen(self, layer: Any, graph: ModelGraph) -> bool:
        """Whether the layer, or the layer with weights to which it belongs, was selected."""
        if self.selected(layer):
            return True
        owner = graph.owner(layer) if not has_kernel(layer) else None
        if owner is not None and self.selected(owner):
            return True
        return is_dropout(layer) and any(
            is_head(consumer) and self.selected(consumer)
            for consumer in graph.after.get(id(layer), [])
        )

    def _copy_layer(self, layer: Any, graph: ModelGraph) -> Any:
        config = layer.get_config()
        if self._is_chosen(layer, graph):
            if is_spatial_dropout(layer):
                config["rate"] = self.regularization.spatial_dropout
            # with a noise shape it drops something else: paths, or whole steps
            elif is_dropout(layer) and layer.noise_shape is None:
                config["rate"] = self.regularization.dropout
            elif isinstance(layer, L.ActivityRegularization):
                config["l1"] = self.regularization.activity_l1
                config["l2"] = self.regularization.activity_l2
            elif has_kernel(layer):
                for weights in weight_configs(config):
                    self._set_penalties(weights)
                    self._set_bound(weights, layer)
        return type(layer).from_config(config)

    def _set_penalties(self, config: dict[str, Any]) -> None:
        for names, penalty in (
            (KERNELS, kernel_regularizer(self.regularization)),
            (("bias",), bias_regularizer(self.regularization)),
            (("activity",), None),  # a layer of its own takes its place
        ):
            for name in names:
                if f"{name}_regularizer" in config:
                    config[f"{name}_regularizer"] = keras.regularizers.serialize(penalty)

    def _set_bound(self, config: dict[str, Any], layer: Any) -> None:
        for kernel in KERNELS:
            key = f"{kernel}_constraint"
            if key not in config:
                continue
            constraint = config[key]
            other = constraint is not None and keras.constraints.get(constraint)
            if isinstance(other, keras.constraints.MaxNorm):
                other = None
            if self.regularization.max_norm is None:
                config[key] = constraint if other else None
                continue
            axis = norm_axis(layer, kernel)
            if other or axis is None:
                reason = (
                    f"it has {type(other).__name__}" if other else "its kernel is of no known form"
                )
                raise ValueError(
                    f"`regularization.max_norm` cannot be put on the layer {layer.name!r}: "
                    f"{reason}. Leave it out by means of `layers`."
                )
            bound = keras.constraints.MaxNorm(self.regularization.max_norm, axis=axis)
            config[key] = keras.constraints.serialize(bound)

    def _put_before(self, layer: Any, graph: ModelGraph) -> list[keras.layers.Layer]:
        """Return the dropout before an output layer, unless there is one or will be one."""
        if not is_head(layer) or not self.regularization.dropout or not self.selected(layer):
            return []
        for source in graph.before.get(id(layer), []):
            if is_dropout(source) or "dropout" in self._kinds_to_add_after(source, graph):
                return []
        return [self._dropout(f"{layer.name}_dropout")]

    def _put_after(self, layer: Any, graph: ModelGraph) -> list[keras.layers.Layer]:
        r = self.regularization
        followers: list[keras.layers.Layer] = []
        kinds = self._kinds_to_add_after(layer, graph)
        if "activity" in kinds:
            followers.append(
                L.ActivityRegularization(
                    l1=r.activity_l1,
                    l2=r.activity_l2,
                    dtype=full_precision(),
                    name=self._name(f"{layer.name}_activity"),
                )
            )
        if "dropout" in kinds:
            followers.append(self._dropout(f"{layer.name}_dropout"))
        if "spatial_dropout" in kinds:
            name = self._name(f"{layer.name}_spatial_dropout")
            options = {"data_format": data_format(layer)} if output_rank(layer) > 3 else {}
            spatial = SPATIAL_DROPOUTS[output_rank(layer)]
            followers.append(
                spatial(r.spatial_dropout, seed=self.seeds(name), name=name, **options)
            )
        return followers

    def _kinds_to_add_after(self, layer: Any, graph: ModelGraph) -> set[str]:
        """Return what is to be put after a layer and is not there."""
        if not isinstance(layer, keras.layers.Layer) or not self._is_chosen(layer, graph):
            return set()
        r = self.regularization
        followers = graph.after.get(id(layer), [])
        kinds = set()
        hidden = is_hidden_activation(layer)
        source = layer if has_kernel(layer) else graph.owner(layer) if hidden else None
        if hidden and (r.activity_l1 or r.activity_l2):
            kinds.add("activity")
        if hidden and r.dropout and isinstance(source, (L.Dense, L.EinsumDense)):
            kinds.add("dropout")
        channels = (hidden and isinstance(source, CONVOLUTIONS)) or isinstance(layer, L.Embedding)
        if channels and r.spatial_dropout and output_rank(layer) in SPATIAL_DROPOUTS:
            kinds.add("spatial_dropout")
        present: dict[str, Callable[[Any], bool]] = {
            "activity": lambda follower: isinstance(follower, L.ActivityRegularization),
            "dropout": is_dropout,
            "spatial_dropout": is_spatial_dropout,
        }
        nearby = list(followers)
        for follower in followers:  # as it may stand behind the activity penalty
            if isinstance(follower, L.ActivityRegularization):
                nearby += graph.after.get(id(follower), [])
        return {word for word in kinds if not any(map(present[word], nearby))}

    def _dropout(self, name: str) -> keras.layers.Layer:
        name = self._name(name)
        return L.Dropout(self.regularization.dropout, seed=self.seeds(name), name=name)

    def _name(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name)
        return name
