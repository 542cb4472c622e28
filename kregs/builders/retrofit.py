"""`regularize`: a copy of an existing Keras model that a `Regularization` restrains."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import keras

from kregs.builders.arguments import check_fields
from kregs.builders.layer_copies import ModelCopier, new_layer, sublayers
from kregs.builders.layer_factory import Seeds, bias_regularizer, full_precision, kernel_regularizer
from kregs.builders.layer_kinds import (
    CONVOLUTIONS,
    DROPOUTS,
    KERNELS,
    SPATIAL_DROPOUTS,
    change_configs,
    config_of,
    data_format,
    has_kernel,
    has_kernel_config,
    has_weights,
    is_dropout,
    is_head,
    is_hidden_activation,
    is_spatial_dropout,
    norm_axis,
)
from kregs.builders.model_graph import (
    Call,
    ModelGraph,
    check_model_graph,
    is_model_graph,
    nested_layers,
)
from kregs.builders.treatments import Treatment, treatments
from kregs.builders.unapplied import mark_unapplied
from kregs.layers import DropBlock2D
from kregs.regularization import COMPILE_FIELDS, Regularization
from kregs.validation import suggestion

if TYPE_CHECKING:
    import pandas as pd

L = keras.layers

_FIELDS = (
    "l1", "l2", "bias_l1", "bias_l2", "activity_l1", "activity_l2",
    "max_norm", "dropout", "spatial_dropout", *COMPILE_FIELDS,
)  # fmt: skip


def regularize(
    model: keras.Model,
    regularization: Regularization,
    *,
    layers: Iterable[str] | Callable[[keras.layers.Layer], bool] | None = None,
    seed: int | None = None,
    summary: bool = False,
) -> keras.Model:
    """Return a copy of a model, with its whole state, that is restrained by `regularization`.

    What restrained the chosen layers before is replaced, so a field that is 0 takes away:

    - `l1`, `l2`, `bias_l1`, `bias_l2` are the penalties on kernels (of inputs and recurrent states)
      and biases. Embeddings and normalizations have none. A shared layer is counted once.
    - `max_norm` bounds the weights into each unit or filter from the first training step on.
    - `proximal_l1`, `group_l1`, `weight_decay` concern the same kernels; the optimizer applies
      them, and the loss `label_smoothing`: compile the copy by
      `kregs.compile_model(..., regularization=regularization)`.
    - `activity_l1`, `activity_l2` penalize the output of each hidden activation.
    - `dropout` is the rate of every `Dropout`, `AlphaDropout` and `GaussianDropout` layer; where
      there is none before the next weights, `Dropout` is put after the hidden activation of each
      dense layer and before the output layer.
    - `spatial_dropout` is the rate of every `SpatialDropout` and `DropBlock2D` layer; where there
      is none before the next weights, it is put after the hidden activation of each convolution
      and after embeddings.

    The output layer has the penalties and the bound, but nothing comes after it or its activation,
    also where it is called several times. Normalization cannot be added without changing what the
    model computes; what is there stays.

    Layers within a layer (`Bidirectional`, `TimeDistributed`, `RNN`, one of your own) get the
    penalties, bounds and rates where the outer layer's `get_config()` holds them, and no layers
    after them. Others are left as they are, with a warning; `summary` tells of every layer.

    Args:
        model: a built `keras.Sequential` or Functional model, such as those of
            `keras.applications`; models inside it are treated likewise. It is not changed.
        regularization: a `kregs.Regularization`.
        layers: names of the layers to treat, or a function that says whether to treat a layer;
            default: all. An activation and a dropout layer belong to the layer with weights that
            they follow, and the dropout before the output layer belongs to that.
        seed: integer for the dropout layers that are put in, or `None`.
        summary: print what was done to each layer, what was left and why, as
            `kregs.regularization_summary` returns it.

    Returns:
        An uncompiled model of the same kind, whose predictions are those of `model`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the model is a subclassed one or not built, `layers` names an unknown layer or
            selects none, a field has no meaning here, `max_norm` meets another constraint, or a
            layer's `get_config()` does not make the same layer.

    Example:

    >>> import keras, kregs
    >>> plain = kregs.mlp((4,), 3, units=(8,))
    >>> model = kregs.regularize(plain, kregs.Regularization(l2=1e-3, dropout=0.5))
    >>> [layer.name for layer in model.layers]
    ['dense_1', 'dense_activation_1', 'dense_activation_1_dropout', 'head']
    >>> len(model.losses), len(plain.losses)
    (2, 0)
    """
    if not isinstance(summary, bool):
        raise TypeError(f"`summary` must be True or False. Received: summary={summary!r}")
    copy, rows = _regularized(model, regularization, layers=layers, seed=seed)
    left = [row.layer for row in rows if row.unreachable]
    if left:
        warnings.warn(
            f"`regularize` left as they were: {', '.join(left)}. They are made inside a layer "
            "whose get_config() does not hold them; summary=True tells of every layer",
            stacklevel=2,
        )
    if summary:
        from kregs.reporting.tables import print_table

        print_table(_frame(rows), title=f'Regularization of "{model.name}"')
    return copy


def regularization_summary(
    model: keras.Model,
    regularization: Regularization,
    *,
    layers: Iterable[str] | Callable[[keras.layers.Layer], bool] | None = None,
) -> pd.DataFrame:
    """Return what `kregs.regularize` does to each layer of a model, what it leaves and why.

    Args:
        model, regularization, layers: as in `kregs.regularize`.

    Returns:
        A DataFrame with one row per layer, those within models and layers too: `layer` (its name
        behind those of what it is within), `type`, `done` and `left`.

    Raises:
        TypeError, ValueError: as `kregs.regularize`.

    Example:

    >>> import keras, kregs
    >>> plain = kregs.mlp((4,), 3, units=(8,))
    >>> frame = kregs.regularization_summary(plain, kregs.Regularization(l2=1e-3, dropout=0.5))
    >>> frame["done"].tolist()
    ['kernel l2=0.001', 'then dropout 0.5', 'kernel l2=0.001']
    """
    state = random.getstate()  # Keras draws the seeds of new layers from it
    try:
        return _frame(_regularized(model, regularization, layers=layers, seed=None)[1])
    finally:
        random.setstate(state)


def _frame(rows: list[Treatment]) -> pd.DataFrame:
    import pandas as pd

    columns = ("layer", "type", "done", "left")
    return pd.DataFrame([[getattr(row, name) for name in columns] for row in rows], columns=columns)


def _regularized(
    model: Any, regularization: Any, *, layers: Any, seed: int | None
) -> tuple[keras.Model, list[Treatment]]:
    """Return the treated copy and what became of each layer."""
    check_model_graph(model)
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
    copier = _Regularizer(checked, _selector(model, layers), Seeds(seed), set(_names(model)))
    graph = ModelGraph(model)
    copy = copier.copy_model(graph)
    copier.copy_states()
    mark_unapplied(copy, checked, [w for layer in copier.restrained for w in layer.weights])
    rows = treatments(
        graph,
        checked,
        copies={key: new for key, (_, new) in copier.copies.items()},
        put_in=copier.put_in,
        is_chosen=copier.is_chosen,
        is_output=copier.is_output_layer,
    )
    return copy, rows


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


class _Regularizer(ModelCopier):
    """One run of `regularize`: restrains the copies, and remembers what it put in."""

    def __init__(
        self,
        regularization: Regularization,
        selected: Callable[[Any], bool],
        seeds: Seeds,
        names: set[str],
    ) -> None:
        super().__init__()
        self.regularization = regularization
        self.selected = selected
        self.seeds = seeds
        self.names = names
        # (id of a layer, what): the layer that is put behind or before it; one for all its calls
        self.put_in: dict[tuple[int, str], keras.layers.Layer] = {}
        self.restrained: list[keras.layers.Layer] = []  # copies
        self._tails: dict[int, list[Call]] = {}

    def is_chosen(self, layer: Any, graph: ModelGraph) -> bool:
        """Whether the layer, or the layer with weights to which it belongs, was selected."""
        if self.selected(layer):
            return True
        calls = graph.calls_of(layer)
        if not has_weights(layer):
            owners = [graph.owner(call) for call in calls]
            if any(owner is not None and self.selected(owner) for owner in owners):
                return True
        return is_dropout(layer) and any(
            is_head(follower.layer) and self.selected(follower.layer)
            for call in calls
            for follower in call.after
        )

    def is_output_layer(self, layer: Any, graph: ModelGraph) -> bool:
        """Whether a call of the layer ends the whole model."""
        tail = self._tail(graph)
        return any(call in tail for call in graph.calls_of(layer))

    def _tail(self, graph: ModelGraph) -> list[Call]:
        """Return the calls that end the whole model; none in a model inside that does not."""
        if id(graph) not in self._tails:
            outer = graph.outer
            is_end = outer is None or self.is_output_layer(graph.model, outer)
            self._tails[id(graph)] = graph.tail() if is_end else []
        return self._tails[id(graph)]

    def copy_layer(self, layer: Any, graph: ModelGraph) -> Any:
        if not isinstance(layer, keras.layers.Layer) or not self.is_chosen(layer, graph):
            return new_layer(layer)
        classes = {type(part).__name__: type(part) for part in sublayers(layer)}

        def restrained(class_name: str | None, config: dict[str, Any]) -> dict[str, Any]:
            if class_name is None:
                kind: Any = type(layer)
            else:
                kind = classes.get(class_name, getattr(L, class_name, None))
            return self._restrain(config, kind, layer.name) if isinstance(kind, type) else config

        copy = new_layer(layer, change_configs(config_of(layer), restrained))
        self.restrained.append(copy)
        return copy

    def _restrain(self, config: dict[str, Any], kind: type, name: str) -> dict[str, Any]:
        """Change the config of one layer, which may be within the layer `name`."""
        r = self.regularization
        if issubclass(kind, (*SPATIAL_DROPOUTS.values(), DropBlock2D)):
            config["rate"] = r.spatial_dropout
        # with a noise shape it drops something else: paths, or whole steps
        elif issubclass(kind, DROPOUTS) and config.get("noise_shape") is None:
            config["rate"] = r.dropout
        elif issubclass(kind, L.ActivityRegularization):
            config["l1"], config["l2"] = r.activity_l1, r.activity_l2
        elif has_kernel_config(config):
            self._set_penalties(config)
            self._set_bound(config, kind, name)
        return config

    def _set_penalties(self, config: dict[str, Any]) -> None:
        for names, penalty in (
            (KERNELS, kernel_regularizer(self.regularization)),
            (("bias",), bias_regularizer(self.regularization)),
            (("activity",), None),  # a layer of its own takes its place
        ):
            for name in names:
                if f"{name}_regularizer" in config:
                    config[f"{name}_regularizer"] = keras.regularizers.serialize(penalty)

    def _set_bound(self, config: dict[str, Any], kind: type, name: str) -> None:
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
            axis = norm_axis(kind, kernel)
            if other or axis is None:
                reason = (
                    f"it has {type(other).__name__}" if other else "its kernel is of no known form"
                )
                raise ValueError(
                    f"`regularization.max_norm` cannot be put on the layer {name!r}: "
                    f"{reason}. Leave it out by means of `layers`."
                )
            bound = keras.constraints.MaxNorm(self.regularization.max_norm, axis=axis)
            config[key] = keras.constraints.serialize(bound)

    def layers_before(self, call: Call, graph: ModelGraph) -> list[keras.layers.Layer]:
        """Return the dropout before an output layer, unless there is one or will be one."""
        layer = call.layer
        if not self.regularization.dropout or not is_head(layer) or not self.selected(layer):
            return []
        if call not in self._tail(graph):
            return []
        ends_features = any(is_hidden_activation(c.layer) for c, _ in graph.downstream(call))
        if ends_features and not isinstance(layer, (L.Dense, L.EinsumDense)):
            return []
        for source, its_graph in graph.upstream(call):
            if is_dropout(source.layer) or "dropout" in self._kinds_to_add(source, its_graph):
                return []
        return [self._put(layer, "dropout before", lambda: self._dropout(f"{layer.name}_dropout"))]

    def layers_after(self, call: Call, graph: ModelGraph) -> list[keras.layers.Layer]:
        r = self.regularization
        layer = call.layer
        followers: list[keras.layers.Layer] = []
        kinds = self._kinds_to_add(call, graph)
        if "activity" in kinds:
            followers.append(
                self._put(
                    layer,
                    "activity",
                    lambda: L.ActivityRegularization(
                        l1=r.activity_l1,
                        l2=r.activity_l2,
                        dtype=full_precision(),
                        name=self._name(f"{layer.name}_activity"),
                    ),
                )
            )
        if "dropout" in kinds:
            followers.append(
                self._put(layer, "dropout", lambda: self._dropout(f"{layer.name}_dropout"))
            )
        if "spatial_dropout" in kinds:
            followers.append(
                self._put(layer, "spatial_dropout", lambda: self._spatial_dropout(call, graph))
            )
        return followers

    def _put(
        self, layer: Any, what: str, make: Callable[[], keras.layers.Layer]
    ) -> keras.layers.Layer:
        key = (id(layer), what)
        if key not in self.put_in:
            self.put_in[key] = make()
        return self.put_in[key]

    def _kinds_to_add(self, call: Call, graph: ModelGraph) -> set[str]:
        """Return what is to be put after a call and is not there, nor will be behind it."""
        kinds = self._kinds_that_belong(call, graph)
        if not kinds:
            return kinds
        present: dict[str, Callable[[Any], bool]] = {
            "activity": lambda follower: isinstance(follower, L.ActivityRegularization),
            "dropout": is_dropout,
            "spatial_dropout": is_spatial_dropout,
        }
        there: set[str] = set()
        for follower, its_graph in graph.downstream(call):
            there |= {kind for kind in kinds if present[kind](follower.layer)}
            later = not has_weights(follower.layer) and self._kinds_that_belong(follower, its_graph)
            there |= set(later or ()) - {"activity"}
        return kinds - there

    def _kinds_that_belong(self, call: Call, graph: ModelGraph) -> set[str]:
        """Return what belongs after a call, be it there or not."""
        r, layer = self.regularization, call.layer
        if (
            not isinstance(layer, keras.layers.Layer)
            or is_model_graph(layer)
            or call in self._tail(graph)
            or not self.is_chosen(layer, graph)
        ):
            return set()
        kinds = set()
        hidden = is_hidden_activation(layer)
        source = layer if has_kernel(layer) else graph.owner(call) if hidden else None
        if hidden and (r.activity_l1 or r.activity_l2):
            kinds.add("activity")
        if hidden and r.dropout and isinstance(source, (L.Dense, L.EinsumDense)):
            kinds.add("dropout")
        channels = (hidden and isinstance(source, CONVOLUTIONS)) or isinstance(layer, L.Embedding)
        if channels and r.spatial_dropout and _rank(call) in SPATIAL_DROPOUTS:
            kinds.add("spatial_dropout")
        return kinds

    def _dropout(self, name: str) -> keras.layers.Layer:
        name = self._name(name)
        return L.Dropout(self.regularization.dropout, seed=self.seeds(name), name=name)

    def _spatial_dropout(self, call: Call, graph: ModelGraph) -> keras.layers.Layer:
        name = self._name(f"{call.layer.name}_spatial_dropout")
        source = call.layer if has_kernel(call.layer) else graph.owner(call)
        options = {"data_format": data_format(source)} if _rank(call) > 3 else {}
        rate = self.regularization.spatial_dropout
        return SPATIAL_DROPOUTS[_rank(call)](rate, seed=self.seeds(name), name=name, **options)

    def _name(self, base: str) -> str:
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}_{count}"
        self.names.add(name)
        return name


def _rank(call: Call) -> int:
    """Return the number of axes of a call's output, the batch's included; 0 if it has several."""
    return len(call.outputs[0].shape) if len(call.outputs) == 1 else 0
