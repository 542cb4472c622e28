"""`ModelView`: what an audit sees of a model: each layer, where it stands, what feeds what."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kregs.builders.layer_copies import sublayers
from kregs.builders.layer_kinds import (
    ACTIVATIONS,
    KERNELS,
    NORMALIZATIONS,
    has_weights,
    is_dropout,
    is_spatial_dropout,
)
from kregs.builders.model_graph import Call, ModelGraph, is_model_graph
from kregs.initializers import activation_name

L = keras.layers

SHIFTS = ("bias", "gamma", "beta", "scale")  # weights that a penalty or decay only hinders
_ONE_CELL = (L.LSTM, L.GRU, L.SimpleRNN)  # what holds for the cell stands beside its layer
_OF_OUTPUTS = ("softmax", "log_softmax", "sigmoid", "hard_sigmoid")
_PARAMETERLESS = (*ACTIVATIONS, L.Softmax)
# operations of `keras.ops`, which have no argument that names the function
_OPERATIONS = {
    "relu": "relu", "relu6": "relu6", "leakyrelu": "leaky_relu", "elu": "elu", "selu": "selu",
    "gelu": "gelu", "silu": "silu", "sigmoid": "sigmoid", "hardsigmoid": "hard_sigmoid",
    "tanh": "tanh", "softsign": "softsign", "softmax": "softmax", "softplus": "softplus",
    "celu": "celu", "hardsilu": "hard_silu",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Site:
    """One layer of the model, which may be within another.

    Args:
        name: the layer's name behind the names of what it is within: `"encoder/dense"`.
        layer: the layer.
        graph: of the model whose layer it is; `None` where the order of calls cannot be seen.
        outer: the layer of that model that holds it (`Bidirectional`, a layer of one's own), or
            itself.
    """

    name: str
    layer: Any
    graph: ModelGraph | None
    outer: Any

    @property
    def calls(self) -> list[Call]:
        """The calls of the layer, none for what is within another."""
        if self.graph is None or self.layer is not self.outer:
            return []
        return self.graph.calls_of(self.layer)


@dataclasses.dataclass(frozen=True)
class Training:
    """How the model is to be trained, as far as it is known.

    Args:
        optimizer: or `None`.
        loss: a Keras loss, its name or a function; `None`: that of the compiled model.
        callbacks: for `fit`.
        batch_size: rows of a batch, or `None`.
        rows: how many rows there are to train on, or `None`.
        x, y: a few of them, or `None`.
    """

    optimizer: Any = None
    loss: Any = None
    callbacks: Sequence[Any] = ()
    batch_size: int | None = None
    rows: int | None = None
    x: Any = None
    y: Any = None


class ModelView:
    """A model as the rules see it.

    Args:
        model: any Keras model.
        training: how it is to be trained.

    Attributes:
        sites: every layer, models inside resolved into theirs.
        graphs: of the model and of all models inside whose calls can be followed.
        unseen: what cannot be seen, in words.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.ReLU(name="b")])
    >>> [site.name for site in ModelView(model, Training()).sites]
    ['a', 'b']
    """

    def __init__(self, model: keras.Model, training: Training) -> None:
        self.model, self.training = model, training
        self.graphs: list[ModelGraph] = []
        self.unseen: list[str] = []
        self.sites: list[Site] = []
        self._add_model(model, ModelGraph(model) if is_model_graph(model) else None, "")
        self._by_layer = {id(site.layer): site for site in self.sites}

    def _add_model(self, model: Any, graph: ModelGraph | None, within: str) -> None:
        if graph is None:
            self.unseen.append(
                f"{within.rstrip('/') or 'the model'} is a {type(model).__name__} whose call() is "
                "code: its layers were seen, the order in which they are called was not"
            )
        else:
            self.graphs.append(graph)
        layers = model.layers if isinstance(model, keras.Model) else sublayers(model)[1:]
        known = {id(site.layer) for site in self.sites}
        for layer in layers:
            if isinstance(layer, L.InputLayer) or id(layer) in known:
                continue
            if is_model_graph(layer):
                inner = graph.nested[id(layer)] if graph else ModelGraph(layer)
                self._add_model(layer, inner, f"{within}{layer.name}/")
            elif isinstance(layer, keras.Model):
                self._add_model(layer, None, f"{within}{layer.name}/")
            else:
                self._add_layer(layer, graph, within)

    def _add_layer(self, layer: Any, graph: ModelGraph | None, within: str) -> None:
        parts = sublayers(layer)
        cells = {id(part.cell) for part in parts if isinstance(part, _ONE_CELL)}
        inside = [part for part in parts[1:] if isinstance(part, keras.Model)]
        for part in parts:
            if id(part) in cells or isinstance(part, keras.Model):
                continue
            name = f"{within}{layer.name}" + ("" if part is layer else f"/{part.name}")
            self.sites.append(Site(name, part, graph, layer))
        module = type(layer).__module__.split(".")[0]
        if graph is not None and (inside or module not in ("keras", "kregs")):
            self.unseen.append(
                f"{within}{layer.name} is a {type(layer).__name__}: what its call() does was not "
                "seen, its layers and arguments were"
            )

    def site_of(self, layer: Any) -> Site | None:
        """Return where a layer stands."""
        return self._by_layer.get(id(layer))

    def name_of(self, layer: Any) -> str:
        """Return a layer's name behind the names of what it is within."""
        site = self.site_of(layer)
        return layer.name if site is None else site.name

    def calls(self) -> Iterator[tuple[Site, Call, ModelGraph]]:
        """Yield every call of a layer that can be seen, with the graph it is in."""
        for site in self.sites:
            for call in site.calls:
                if site.graph is not None:
                    yield site, call, site.graph

    def tail(self) -> list[Call]:
        """Return the calls that end the model, back to the layers with weights.

        Models inside are gone into.
        """
        if not is_model_graph(self.model):
            return []
        ends: list[Call] = []

        def add(graph: ModelGraph) -> None:
            for call in graph.tail():
                nested = graph.nested.get(id(call.layer))
                if nested is None:
                    ends.append(call)
                else:
                    add(nested)

        add(self.graphs[0])
        return ends


def activation_of(layer: Any) -> str | None:
    """Return the name of the activation that a layer or operation is or ends with.

    Returns:
        `"linear"` for a layer with a kernel and no activation, `None` for what is no activation.

    Example:

    >>> activation_of(L.Dense(1, "relu")), activation_of(L.ReLU()), activation_of(L.Flatten())
    ('relu', 'relu', None)
    """
    if isinstance(layer, L.TimeDistributed):
        return activation_of(layer.layer)
    if isinstance(layer, L.ReLU) and not layer.negative_slope:
        return "relu"
    if isinstance(layer, L.ReLU):
        return "leaky_relu"
    if isinstance(layer, _PARAMETERLESS):
        return activation_name(layer)
    if isinstance(layer, keras.layers.Layer):
        activation = getattr(layer, "activation", None)
        is_known = activation is None or callable(activation)
        return activation_name(activation) if has_kernel(layer) and is_known else None
    return _OPERATIONS.get(type(layer).__name__.lower())


def has_kernel(layer: Any) -> bool:
    """Whether a layer, or the one that it wraps, has a kernel; asks no `get_config()` of a user's.

    Example:

    >>> has_kernel(L.TimeDistributed(L.Dense(1))), has_kernel(L.ReLU())
    (True, False)
    """
    while isinstance(layer, L.Wrapper):
        layer = layer.layer
    return any(hasattr(layer, f"{kernel}_regularizer") for kernel in KERNELS)


def is_hidden_activation(layer: Any) -> bool:
    """Whether what a layer puts out is a hidden activation, and no output.

    Example:

    >>> is_hidden_activation(L.Dense(1, "relu")), is_hidden_activation(L.Dense(1, "softmax"))
    (True, False)
    """
    return activation_of(layer) not in (None, "linear", *_OF_OUTPUTS)


def is_any_dropout(layer: Any) -> bool:
    """Whether a layer drops units, channels or paths.

    Example:

    >>> is_any_dropout(L.SpatialDropout1D(0.1)), is_any_dropout(L.GaussianNoise(0.1))
    (True, False)
    """
    return is_dropout(layer) or is_spatial_dropout(layer)


def is_drop_path(layer: Any) -> bool:
    """Whether a layer is a dropout of whole rows or steps: it has a noise shape.

    Example:

    >>> is_drop_path(L.Dropout(0.1, noise_shape=(None, 1))), is_drop_path(L.Dropout(0.1))
    (True, False)
    """
    return not is_spatial_dropout(layer) and getattr(layer, "noise_shape", None) is not None


def is_normalization(layer: Any) -> bool:
    """Whether a layer normalizes what passes it by its own statistics.

    Example:

    >>> is_normalization(L.LayerNormalization())
    True
    """
    return isinstance(layer, NORMALIZATIONS)


def is_frozen(layer: Any) -> bool:
    """Whether a batch normalization uses its moving statistics in training, too.

    Example:

    >>> is_frozen(L.BatchNormalization(trainable=False))
    True
    """
    return isinstance(layer, L.BatchNormalization) and not layer.trainable


def source_of(call: Call) -> Call | None:
    """Return the nearest call with weights that alone feeds a call, without normalization between.

    Example:

    >>> layers = [keras.Input((4,)), L.Dense(3, name="a"), L.ReLU(), L.Dense(2)]
    >>> graph = ModelGraph(keras.Sequential(layers))
    >>> source_of(graph.outputs[0]).layer.name
    'a'
    """
    while len(call.before) == 1:
        call = call.before[0]
        if is_normalization(call.layer) or is_model_graph(call.layer):
            return None
        if has_weights(call.layer):
            return call
    return None


def fed_activation(call: Call, graph: ModelGraph) -> tuple[str, bool] | None:
    """Return the activation that a call with weights feeds, and whether it is normalized before.

    Example:

    >>> layers = [keras.Input((4,)), L.Dense(3), L.BatchNormalization(), L.ReLU()]
    >>> graph = ModelGraph(keras.Sequential(layers))
    >>> fed_activation(graph.calls_of(graph.model.layers[0])[0], graph)
    ('relu', True)
    """
    own = activation_of(call.layer)
    if own not in (None, "linear"):
        return str(own), False
    normalized = False
    for follower, _ in graph.downstream(call):
        if has_weights(follower.layer):
            return None
        normalized = normalized or is_normalization(follower.layer)
        activation = activation_of(follower.layer)
        if activation is not None:
            return activation, normalized
    return None


def penalties_of(layer: Any) -> dict[str, Any]:
    """Return a layer's regularizers by what they penalize: `kernel`, `bias`, `activity`, ...

    Example:

    >>> list(penalties_of(L.Dense(1, kernel_regularizer="l2")))
    ['kernel']
    """
    suffix = "_regularizer"
    found = {
        name.removesuffix(suffix): getattr(layer, name, None)
        for name in dir(layer)
        if name.endswith(suffix) and not name.startswith("_")
    }
    return {name: penalty for name, penalty in found.items() if penalty is not None}


def coefficients(penalty: Any) -> dict[str, float] | None:
    """Return the L1 and L2 of a Keras regularizer; `None` for one of another kind.

    Example:

    >>> coefficients(keras.regularizers.L1L2(l1=0.0, l2=0.5))
    {'l1': 0.0, 'l2': 0.5}
    """
    kinds = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    if type(penalty) not in kinds:
        return None
    return {name: float(getattr(penalty, name, 0.0)) for name in ("l1", "l2")}


def has_l1(penalty: Any) -> bool:
    """Whether a regularizer is an L1 that is not 0.

    Example:

    >>> has_l1(keras.regularizers.L1(0.1)), has_l1(keras.regularizers.L2(0.1))
    (True, False)
    """
    return bool((coefficients(penalty) or {}).get("l1"))


def has_l2(penalty: Any) -> bool:
    """Whether a regularizer is an L2 that is not 0.

    Example:

    >>> has_l2(keras.regularizers.L2(0.1)), has_l2(None)
    (True, False)
    """
    return bool((coefficients(penalty) or {}).get("l2"))


def weight_penalties(site: Site) -> dict[str, Any]:
    """Return the penalties on a layer's kernels (and embeddings) that act: it is trainable.

    Example:

    >>> layer = L.Dense(1, kernel_regularizer="l2", bias_regularizer="l2", trainable=False)
    >>> weight_penalties(Site("a", layer, None, layer))
    {}
    """
    if not site.layer.trainable:
        return {}
    left_out = ("bias", "gamma", "beta", "activity")
    return {k: v for k, v in penalties_of(site.layer).items() if k not in left_out}
