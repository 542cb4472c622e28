"""Rules about dropout: where it stands, what it drops, how often, and whether it acts at all."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras

from kregs.builders.layer_kinds import (
    CONVOLUTIONS,
    has_kernel,
    has_weights,
    is_dropout,
    is_hidden_activation,
    is_spatial_dropout,
)
from kregs.builders.model_graph import Call, ModelGraph
from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import (
    ModelView,
    Site,
    activation_of,
    is_any_dropout,
    is_drop_path,
    is_frozen,
)

L = keras.layers

_MOST_RATE = 0.7
_MOST_INPUT_RATE = 0.5
_LEAST_RATE = 0.02


def _acting_calls(view: ModelView) -> Iterator[tuple[Site, Call, ModelGraph]]:
    """Yield the calls of dropout layers with a rate that act in training."""
    for site, call, graph in view.calls():
        acts = call.keywords.get("training") is not False
        if is_any_dropout(site.layer) and site.layer.rate and acts:
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
    "Dropout that never acts",
    severities=["warning", "info"],
    source="Keras: `training=False` in a call holds for `fit`, too, and for all layers inside",
    fix="set base.trainable = False, which also keeps batch normalization still, and call the base "
    "without `training`; or put the dropout behind the base",
)
def silent_dropout(view: ModelView) -> Iterator[Hit]:
    """Called with training=False, as one does with a frozen base because of its batch
    normalization, a model or layer is in inference for ever: the dropout in it does nothing, also
    where it was put in for the new task."""
    for graph in view.graphs:
        for layer in graph.model.layers:
            calls = graph.calls_of(layer)
            if not calls or any(call.keywords.get("training") is not False for call in calls):
                continue
            nested = graph.nested.get(id(layer))
            for part in _dropouts_inside(nested) if nested else [layer]:
                if is_any_dropout(part) and part.rate:
                    # published models bring drop path along, which a frozen base does not need
                    yield Hit(
                        severity="info" if is_drop_path(part) else "warning",
                        layers=[view.name_of(part)],
                        what=f"{type(part).__name__} inside what is called with training=False",
                    )


def _dropouts_inside(graph: ModelGraph) -> Iterator[keras.layers.Layer]:
    for layer in graph.model.layers:
        nested = graph.nested.get(id(layer))
        if nested:
            yield from _dropouts_inside(nested)
        elif is_any_dropout(layer):
            yield layer


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
