"""Rules about normalization: what it makes useless, what it needs, and where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from kregs.builders.layer_kinds import CONVOLUTIONS
from kregs.builders.model_graph import Call, ModelGraph
from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import (
    ModelView,
    activation_of,
    fed_activation,
    has_l2,
    is_frozen,
    is_normalization,
    source_of,
    weight_penalties,
)

L = keras.layers

_LINEAR_MAPS = (L.Dense, L.EinsumDense, *CONVOLUTIONS)
# how many saturating layers may follow each other
_MOST_SATURATING = {"sigmoid": 2, "hard_sigmoid": 2, "tanh": 5, "softsign": 5}
_SMALL_BATCH, _TINY_BATCH = 16, 8
_KERAS_BATCH = 32  # that `fit` takes by default


def normalization_after(call: Call, graph: ModelGraph) -> Any:
    """Return the normalization that alone follows a linear layer, without anything between."""
    if not isinstance(call.layer, _LINEAR_MAPS) or activation_of(call.layer) != "linear":
        return None
    if call in graph.outputs:  # seen also without the normalization
        return None
    follower = call.after[0].layer if len(call.after) == 1 else None
    return follower if is_normalization(follower) and not is_frozen(follower) else None


def removes_bias(call: Call, graph: ModelGraph) -> bool:
    """Whether a batch normalization takes the bias of the layer before it out again."""
    after = normalization_after(call, graph)
    if not isinstance(after, L.BatchNormalization) or not getattr(call.layer, "use_bias", False):
        return False
    rank = len(call.outputs[0].shape)
    first = getattr(call.layer, "data_format", None) == "channels_first"
    return after.axis % rank == (1 if first else rank - 1)


@rule(
    "KR010",
    "Bias under batch normalization",
    severities=["info"],
    source="Ioffe and Szegedy 2015, section 3.2",
    fix="use_bias=False",
    repair="use_bias=False; the bias goes into the moving mean, so that predictions stay",
)
def useless_bias(view: ModelView) -> Iterator[Hit]:
    """The normalization subtracts the mean of each channel and with it the bias, whose gradient is
    0; its own shift does the work. The bias only costs memory."""
    for site in view.sites:
        if site.graph is None or not site.calls or not site.layer.trainable:
            continue
        if all(removes_bias(call, site.graph) for call in site.calls):
            yield Hit(
                severity="info", layers=[site.name], what="its bias is subtracted again at once"
            )


@rule(
    "KR011",
    "L2 on a kernel under normalization",
    severities=["info"],
    source="van Laarhoven 2017; Hoffer et al. 2018; Zhang et al. 2019",
    fix="know that it acts as a learning rate; to restrain the function, use dropout, augmentation "
    "or fewer units",
)
def scale_free_penalty(view: ModelView) -> Iterator[Hit]:
    """The normalization divides by the kernel's size, so that the model computes the same with a
    smaller kernel: L2 does not make the function simpler. It makes the effective learning rate
    larger, which may help, but is another matter."""
    for site in view.sites:
        if not any(map(has_l2, weight_penalties(site).values())):
            continue
        if site.graph is None or not site.calls:
            continue
        after = [normalization_after(call, site.graph) for call in site.calls]
        # a bias that is not rescaled with the kernel breaks the invariance, unless it is subtracted
        if all(
            isinstance(norm, L.BatchNormalization)
            or (norm is not None and not getattr(site.layer, "use_bias", True))
            for norm in after
        ):
            yield Hit(
                severity="info",
                layers=[site.name],
                what=f"L2 on a kernel that {type(after[0]).__name__} rescales",
            )


@rule(
    "KR012",
    "Batch normalization of tiny batches",
    severities=["warning", "info"],
    source="Wu and He 2018, figure 1 and table 2; Ioffe 2017",
    fix="larger batches, or GroupNormalization or LayerNormalization; for a last batch that is too "
    "small, another batch size or drop_remainder=True",
)
def tiny_batches(view: ModelView) -> Iterator[Hit]:
    """Mean and variance of a handful of rows are noise, in training and in the moving statistics
    that inference uses. Of a single row without other axes nothing is left but the shift."""
    layers = [
        site.name
        for site in view.sites
        if isinstance(site.layer, L.BatchNormalization) and not is_frozen(site.layer)
    ]
    training = view.training
    size = training.batch_size
    if not layers:
        return
    if size is not None and size < _SMALL_BATCH:
        severity = "warning" if size < _TINY_BATCH else "info"
        yield Hit(severity=severity, layers=layers, what=f"a batch has {size} rows")
    used = size or _KERAS_BATCH
    left = (training.rows or 0) % used
    if 1 <= left <= 3 and left < used:
        yield Hit(
            severity="warning" if left == 1 else "info",
            layers=layers,
            what=f"the last batch of an epoch has {left} of {used} rows",
        )


@rule(
    "KR013",
    "Deep stack of saturating activations",
    severities=["warning"],
    source="Glorot and Bengio 2010; Hochreiter 1991",
    fix="relu (or gelu) with HeNormal in the hidden layers, or a normalization before each "
    "activation, or residual connections",
)
def saturating_stack(view: ModelView) -> Iterator[Hit]:
    """The slope of a sigmoid is at most 1/4, and that of tanh is below 1 wherever it is not at 0:
    the gradient shrinks in each layer, so that the first ones hardly learn."""
    tail = view.tail()
    runs: dict[int, list[str]] = {}
    longest: dict[tuple[str, ...], str] = {}
    for site, call, graph in view.calls():
        fed = fed_activation(call, graph) if isinstance(site.layer, _LINEAR_MAPS) else None
        if fed is None or fed[1] or call in tail or fed[0] not in _MOST_SATURATING:
            continue
        run = [*runs.get(id(source_of(call)), []), site.name]
        runs[id(call)] = run
        longest.pop(tuple(run[:-1]), None)
        longest[tuple(run)] = fed[0]
    for names, activation in longest.items():
        if len(names) > _MOST_SATURATING[activation]:
            yield Hit(
                severity="warning",
                layers=names,
                what=f"{len(names)} layers with {activation} follow each other without "
                "normalization",
            )
