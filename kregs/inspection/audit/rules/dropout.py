"""Rules about dropout: where it stands, what it drops, how often, and whether it acts at all."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras

from kregs.builders.layer_kinds import (
    CONVOLUTIONS,
    has_weights,
    is_dropout,
    is_spatial_dropout,
)
from kregs.builders.model_graph import Call, ModelGraph, nested_layers
from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import (
    ModelView,
    Site,
    activation_of,
    has_kernel,
    is_any_dropout,
    is_drop_path,
    is_frozen,
    is_hidden_activation,
)

L = keras.layers

_MOST_RATE = 0.7
_MOST_INPUT_RATE = 0.5
_LEAST_RATE = 0.02


def _acting_calls(view: ModelView) -> Iterator[tuple[Site, Call, ModelGraph]]:
    """Yield the calls of dropout layers that have a rate."""
    for site, call, graph in view.calls():
        if is_any_dropout(site.layer) and site.layer.rate:
            yield site, call, graph


def _moves_statistics(layer: object) -> bool:
    return isinstance(layer, L.BatchNormalization) and not is_frozen(layer)


@rule(
    "KR004",
    "Dropout before batch normalization",
    severities=["warning", "info"],
    source="Li et al. 2018 (variance shift)",
    fix="put the dropout after the last batch normalization, or take layer normalization",
    repair="a dropout directly before it is put behind it",
)
def variance_shift(view: ModelView) -> Iterator[Hit]:
    """Dropout makes the variance in training larger than in inference. Batch normalization keeps
    the variance of training in its moving statistics and divides by it in inference, where it is
    wrong. With weights between the two the shift is smaller: a note only."""
    for site, call, graph in _acting_calls(view):
        if isinstance(site.layer, L.AlphaDropout) or is_drop_path(site.layer):
            continue  # the variance stays; a sum follows
        further = []
        direct = False
        for follower, its_graph in graph.downstream(call):
            direct = direct or _moves_statistics(follower.layer)
            if has_weights(follower.layer):
                further.append((follower, its_graph))
        kind = type(site.layer).__name__
        if direct:
            yield Hit(
                severity="warning",
                layers=[site.name],
                what=f"{kind} feeds a batch normalization",
            )
        elif any(_moves_statistics(c.layer) for f, g in further for c, _ in g.downstream(f)):
            yield Hit(
                severity="info",
                layers=[site.name],
                what=f"{kind} feeds weights and then a batch normalization",
            )


@rule(
    "KR005",
    "Dropout of single pixels in feature maps",
    severities=["warning"],
    source="Tompson et al. 2015, section 3.2; Ghiasi et al. 2018 (DropBlock)",
    fix="take SpatialDropout1D, 2D or 3D, or kregs.layers.DropBlock2D",
    repair="SpatialDropout with the same rate",
)
def pixel_dropout(view: ModelView) -> Iterator[Hit]:
    """Neighbours in a feature map say nearly the same, so what Dropout hides stands beside it: it
    lowers the learning rate rather than regularize. SpatialDropout drops whole maps."""
    for site, call, graph in _acting_calls(view):
        if is_spatial_dropout(site.layer) or is_drop_path(site.layer):
            continue
        shape = call.outputs[0].shape
        sources = [c.layer for c, _ in graph.upstream(call) if isinstance(c.layer, CONVOLUTIONS)]
        mixing = [layer for layer in sources if _overlaps(layer)]
        if len(shape) < 3 or not mixing:
            continue
        first = mixing[0].data_format == "channels_first"
        places = shape[2:] if first else shape[1:-1]
        # before Flatten it is dropout of the dense layer's inputs
        flat = bool(call.after) and all(isinstance(c.layer, L.Flatten) for c in call.after)
        if math.prod(2 if size is None else size for size in places) > 1 and not flat:
            yield Hit(
                severity="warning",
                layers=[site.name],
                what=f"{type(site.layer).__name__} drops single pixels of a convolution's maps",
                fix=f"SpatialDropout{len(shape) - 2}D at about half the rate",
            )


def _overlaps(layer: keras.layers.Layer) -> bool:
    """Whether the windows of a convolution overlap: it is no 1x1 and cuts no patches."""
    size, strides = tuple(layer.kernel_size), tuple(layer.strides)
    return math.prod(size) > 1 and size != strides


@rule(
    "KR006",
    "Dropout rate outside the useful range",
    severities=["warning", "info"],
    source="Srivastava et al. 2014, appendix A.4; Baldi and Sadowski 2013; Keras: `rate` is the "
    "share that is dropped",
    fix="0.2 to 0.5 for hidden layers, 0.1 to 0.2 for inputs; find it by kregs.tune",
    repair="a dropout with rate 0 is taken out",
)
def odd_rate(view: ModelView) -> Iterator[Hit]:
    """Dropout regularizes most at 0.5; far above it too little signal is left. A rate of 0.8 is
    often what an older interface called keep_prob=0.8, that is 0.2 here."""
    for site in view.sites:
        layer = site.layer
        names = ("rate",) if is_any_dropout(layer) else ("dropout", "recurrent_dropout")
        for name in names:
            rate = getattr(layer, name, None)
            if not isinstance(rate, (int, float)):
                continue
            what = f"{type(layer).__name__} has {name} {rate:g}"
            most = _MOST_INPUT_RATE if name == "rate" and _drops_input(site) else _MOST_RATE
            if rate > most:
                severity = "warning"
                what += " on the input" if most == _MOST_INPUT_RATE else ""
            elif name == "rate" and rate < _LEAST_RATE and not (rate and is_drop_path(layer)):
                severity = "info"
            else:
                continue
            yield Hit(severity=severity, layers=[site.name], what=what)


def _drops_input(site: Site) -> bool:
    """Whether there are no weights between the model's input and a dropout."""
    return bool(site.calls) and all(
        not any(has_weights(source.layer) for source, _ in site.graph.upstream(call))
        for call in site.calls
        if site.graph is not None
    )


def is_output_part(view: ModelView, call: Call, graph: ModelGraph) -> bool:
    """Whether what a call puts out is the model's output, or that before its softmax or sigmoid.

    The end of a feature extractor, behind a hidden activation, is not.
    """
    if call not in view.tail():
        return False
    before = [source.layer for source, _ in graph.upstream(call)]
    layers = [call.layer, *before] if not has_weights(call.layer) else [call.layer]
    return any(map(has_kernel, layers)) and not any(map(is_hidden_activation, layers))


@rule(
    "KR007",
    "Dropout on the output",
    severities=["error"],
    source="Srivastava et al. 2014, section 4 (inputs and hidden units are dropped)",
    fix="put it before the last layer with weights",
    repair="taken out",
)
def output_dropout(view: ModelView) -> Iterator[Hit]:
    """In training predictions are set to 0 at random and the others are enlarged, which the loss
    punishes whatever the weights are: probabilities no longer sum to 1, and targets of 0 are all
    that is learnt well."""
    for site, call, graph in _acting_calls(view):
        if is_output_part(view, call, graph):
            yield Hit(
                severity="error",
                layers=[site.name],
                what=f"{type(site.layer).__name__} acts on the model's output",
            )


@rule(
    "KR008",
    "`training` in a call, which `fit` and `predict` override",
    severities=["warning", "info"],
    source="Keras 3: a Functional model passes its own `training` on to every layer in it",
    fix="set base.trainable = False, which keeps batch normalization still; for dropout in "
    "inference call the whole model with training=True",
)
def overridden_training(view: ModelView) -> Iterator[Hit]:
    """In a Functional model base(x, training=False) holds until `fit` calls the model with
    training=True: the batch normalization inside takes batch statistics and learns them, unless it
    is frozen, and dropout inside acts. Likewise dropout(x, training=True) is off in `predict`. In
    the call() of a subclassed model the argument holds, and there dropout inside never acts."""
    for graph in view.graphs:
        for layer in graph.model.layers:
            given = {call.keywords.get("training") for call in graph.calls_of(layer)}
            nested = graph.nested.get(id(layer))
            if True in given and (nested or _acts_in_training(layer)):
                yield Hit(
                    severity="warning",
                    layers=[_name(graph, layer)],
                    what="it is called with training=True, which `predict` overrides",
                )
            if nested is None or False not in given:  # of a layer it may be the default
                continue
            parts = list(nested_layers(layer))
            learns = any(map(_moves_statistics, parts))
            if learns or any(is_any_dropout(part) and part.rate for part in parts):
                what = "learns its batch statistics" if learns else "drops units"
                yield Hit(
                    severity="warning" if learns else "info",
                    layers=[_name(graph, layer)],
                    what=f"it is called with training=False and {what} in `fit` all the same",
                )


def _acts_in_training(layer: object) -> bool:
    return is_any_dropout(layer) or _moves_statistics(layer)


def _name(graph: ModelGraph, layer: keras.layers.Layer) -> str:
    names = [layer.name]
    while graph.outer is not None:
        names.insert(0, graph.model.name)
        graph = graph.outer
    return "/".join(names)


@rule(
    "KR009",
    "Dropout and SELU that do not belong together",
    severities=["warning"],
    source="Klambauer et al. 2017, section 2 (new dropout technique)",
    fix="AlphaDropout at 0.05 to 0.1 after selu, Dropout after any other activation",
    repair="the dropout that fits, with the same rate",
)
def unfit_dropout(view: ModelView) -> Iterator[Hit]:
    """SELU keeps mean 0 and variance 1 by itself, and Dropout, which sets units to 0, breaks both;
    AlphaDropout sets them to SELU's lower bound and corrects. After another activation that bound
    means nothing."""
    for site, call, graph in _acting_calls(view):
        if not is_dropout(site.layer) or is_drop_path(site.layer):
            continue
        names = (activation_of(source.layer) for source, _ in graph.upstream(call))
        activation = next((name for name in names if name is not None), "linear")
        is_alpha = isinstance(site.layer, L.AlphaDropout)
        if activation != "linear" and is_alpha != (activation == "selu"):
            yield Hit(
                severity="warning",
                layers=[site.name],
                what=f"{type(site.layer).__name__} after {activation}",
            )
