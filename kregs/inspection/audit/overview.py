"""What restrains a model, layer by layer: penalized, decayed, dropped, normalized, bounded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras

from kregs.builders.layer_kinds import has_weights
from kregs.inspection.audit.model_view import (
    ModelView,
    Site,
    coefficients,
    is_any_dropout,
    is_normalization,
    penalties_of,
)
from kregs.inspection.audit.rules.optimizer import decayed

L = keras.layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRestraint:
    """What restrains one layer, in words; `""` for nothing.

    Args:
        layer: its name behind those of what it is within.
        type: its class.
        parameters: how many numbers it has to train.
        penalized: which of its weights or outputs, with the coefficients.
        decayed: which of its weights the optimizer decays; `None` without an optimizer.
        dropped: the rate of what it drops.
        normalized: `"normalizes"`, or the name of the normalization that it feeds.
        bounded: the constraints on its weights.
    """

    layer: str
    type: str
    parameters: int
    penalized: str
    decayed: str | None
    dropped: str
    normalized: str
    bounded: str


def layer_restraints(view: ModelView) -> list[LayerRestraint]:
    """Return what restrains each layer that has weights, or restrains others.

    Example: see `kregs.Audit.overview`, whose rows they are.
    """
    rows = []
    for site in view.sites:
        row = _restraint(view, site)
        if row.parameters or row.penalized or row.dropped or row.normalized:
            rows.append(row)
    return rows


def _restraint(view: ModelView, site: Site) -> LayerRestraint:
    layer, optimizer = site.layer, view.training.optimizer
    inner = {id(v) for part in view.sites if part.outer is layer for v in _inner(part, layer)}
    weights = [v for v in layer.trainable_weights if id(v) not in inner]
    return LayerRestraint(
        layer=site.name,
        type=type(layer).__name__,
        parameters=sum(math.prod(variable.shape) for variable in weights),
        penalized=", ".join(_penalties(layer)),
        decayed=None if optimizer is None else ", ".join(_names(decayed(optimizer, layer))),
        dropped=", ".join(_rates(layer)),
        normalized=_normalized(site),
        bounded=", ".join(_bounds(layer)),
    )


def _inner(part: Site, layer: Any) -> list[Any]:
    return [] if part.layer is layer else part.layer.trainable_weights


def _names(variables: list[Any]) -> list[str]:
    return list(dict.fromkeys(variable.name for variable in variables))


def _penalties(layer: Any) -> Iterator[str]:
    for name, penalty in penalties_of(layer).items():
        numbers = coefficients(penalty)
        words = (
            getattr(penalty, "__name__", type(penalty).__name__)
            if numbers is None
            else " ".join(f"{kind}={value:g}" for kind, value in numbers.items() if value) or "0"
        )
        off = "" if layer.trainable or name == "activity" else " (frozen)"
        yield f"{name} {words}{off}"


def _rates(layer: Any) -> Iterator[str]:
    if is_any_dropout(layer):
        yield f"{layer.rate:g}"
    elif isinstance(layer, L.GaussianNoise):
        yield f"noise {layer.stddev:g}"
    else:
        for name in ("dropout", "recurrent_dropout"):
            rate = getattr(layer, name, None)
            if isinstance(rate, (int, float)) and rate:
                yield f"{name} {rate:g}"


def _normalized(site: Site) -> str:
    if is_normalization(site.layer):
        return "normalizes"
    if site.graph is not None and has_weights(site.layer):
        for call in site.calls:
            for follower, _ in site.graph.downstream(call):
                if is_normalization(follower.layer):
                    return f"by {follower.layer.name}"
    return ""


def _bounds(layer: Any) -> Iterator[str]:
    for name in ("kernel", "recurrent", "depthwise", "pointwise", "bias", "embeddings"):
        bound = getattr(layer, f"{name}_constraint", None)
        if bound is not None:
            value = getattr(bound, "max_value", None)
            yield f"{name} {type(bound).__name__}" + ("" if value is None else f" {value:g}")
