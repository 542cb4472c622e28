"""`Repair`: a copy of a model in which the findings are mended that can be mended safely.

Safe is what leaves the predictions as they are, or draws weights anew that were never trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from kregs.builders.layer_copies import ModelCopier, copy_state, new_layer
from kregs.builders.layer_factory import Seeds
from kregs.builders.layer_kinds import (
    KERNELS,
    SPATIAL_DROPOUTS,
    config_of,
    data_format,
    has_weights,
    norm_axis,
)
from kregs.builders.model_graph import Call, ModelGraph, is_model_graph
from kregs.initializers import initializer_for
from kregs.inspection.audit.findings import Finding, Rule
from kregs.inspection.audit.model_view import ModelView, coefficients, fed_activation, penalties_of
from kregs.inspection.audit.rules.dropout import is_output_part
from kregs.inspection.audit.rules.normalization import normalization_after
from kregs.inspection.audit.rules.penalties import BOUNDS, acts

L = keras.layers


@dataclasses.dataclass(frozen=True)
class Repair:
    """A repaired model and what was done.

    Args:
        model: the uncompiled copy.
        done: the findings that it no longer has.
        left: those that it still has: no change is safe without knowing what was meant.
    """

    model: keras.Model
    done: tuple[Finding, ...]
    left: tuple[Finding, ...]

    def __str__(self) -> str:
        lines = [f'"{self.model.name}": {len(self.done)} repaired, {len(self.left)} left']
        lines += [f"repaired {finding.headline()}" for finding in self.done]
        lines += [f"left     {finding.headline()} -> {finding.fix}" for finding in self.left]
        return "\n".join(lines)


def repaired(
    view: ModelView, findings: Sequence[Finding], *, rules: Iterable[Rule], seed: int | None
) -> Repair:
    """Return a copy of the viewed model without the findings that can be mended safely.

    The copy is looked at again by the same `rules`: what they still find in it is left.

    Raises:
        ValueError: the model's calls cannot be followed, so that it cannot be rebuilt.

    Example: see `kregs.Audit.repair`.
    """
    if not is_model_graph(view.model):
        raise ValueError(
            "`repair` can rebuild a Sequential or Functional model only: what a subclassed model "
            f"does is code. Received: {type(view.model).__name__}. The findings say what to change"
        )
    copier = _Repairer(view, findings, Seeds(seed))
    copy = copier.copy_model(view.graphs[0])
    copier.copy_states()
    # the optimizer knows the model's weights, not the copy's
    training = dataclasses.replace(view.training, optimizer=None)
    copy_view = ModelView(copy, training)
    found_again = [finding for rule in rules for finding in rule.findings(copy_view)]
    present = {place for finding in found_again for place in _places(finding)}
    done, left = [], []
    for finding in findings:
        mended = [
            name
            for name in finding.layers
            if (finding.code, name) in copier.mended
            and (finding.code, finding.severity, name) not in present
        ]
        rest = [name for name in finding.layers if name not in mended]
        if mended:
            done.append(dataclasses.replace(finding, layers=tuple(mended)))
        if rest or not finding.layers:
            left.append(dataclasses.replace(finding, layers=tuple(rest)))
    known = {place for finding in left for place in _places(finding)}
    for finding in found_again:  # such as a fault that is less grave now
        new = tuple(name for _, _, name in _places(finding) - known)
        if new and finding.layers:
            left.append(
                dataclasses.replace(
                    finding, layers=tuple(name for name in finding.layers if name in new)
                )
            )
    return Repair(copy, tuple(done), tuple(left))


def _places(finding: Finding) -> set[tuple[str, str, str]]:
    return {(finding.code, finding.severity, name) for name in finding.layers or ("",)}


class _Repairer(ModelCopier):
    """One run of `repair`: mends the copies and notes what it mended."""

    def __init__(self, view: ModelView, findings: Iterable[Finding], seeds: Seeds) -> None:
        super().__init__()
        self.view, self.seeds = view, seeds
        self.mended: set[tuple[str, str]] = set()
        self._faults = {(f.code, name) for f in findings for name in f.layers}
        self._drawn: set[int] = set()  # layers whose kernels are drawn anew
        self._replaced: set[int] = set()  # layers that another kind stands for

    def _has(self, code: str, layer: Any) -> bool:
        return (code, self.view.name_of(layer)) in self._faults

    def _note(self, code: str, layer: Any) -> None:
        self.mended.add((code, self.view.name_of(layer)))

    def copy_layer(self, layer: Any, graph: ModelGraph) -> Any:
        if not isinstance(layer, L.Layer):
            return new_layer(layer)
        calls = graph.calls_of(layer)
        # one that is called twice would have to be right in both places
        stand_in = self._dropout_copy(layer, calls[0]) if len(calls) == 1 else None
        if stand_in is not None:
            return stand_in
        config = config_of(layer)
        self._mend_initializer(config, layer, graph)
        self._mend_penalties(config, layer, graph)
        self._mend_bounds(config, layer)
        if self._has("KR010", layer) and self._takes_bias(layer, graph):
            config["use_bias"] = False
            self._note("KR010", layer)
        return new_layer(layer, config)

    def _mend_initializer(self, config: dict[str, Any], layer: Any, graph: ModelGraph) -> None:
        codes = [code for code in ("KR001", "KR002", "KR003") if self._has(code, layer)]
        if not codes:
            return
        initializer, seed = layer.kernel_initializer, self.seeds(layer.name)
        if codes == ["KR002"]:  # the same kind
            settings = initializer.get_config() | {"seed": seed}
            fresh = type(initializer).from_config(settings)
        else:
            fed = fed_activation(graph.calls_of(layer)[0], graph)
            fresh = initializer_for(fed[0] if fed else None, seed=seed)
        config["kernel_initializer"] = keras.initializers.serialize(fresh)
        self._drawn.add(id(layer))
        for code in codes:
            self._note(code, layer)

    def _mend_penalties(self, config: dict[str, Any], layer: Any, graph: ModelGraph) -> None:
        is_own = isinstance(layer, L.ActivityRegularization)
        calls = graph.calls_of(layer) if self._has("KR014", layer) and not is_own else []
        if calls and all(is_output_part(self.view, call, graph) for call in calls):
            config["activity_regularizer"] = None
            self._note("KR014", layer)
        if self._has("KR015", layer) and is_own:
            config["dtype"] = "float32"
            self._note("KR015", layer)
        elif self._has("KR015", layer) and ("KR014", self.view.name_of(layer)) in self.mended:
            self._note("KR015", layer)
        elif self._moved_penalty(layer, graph):  # into a layer behind
            config["activity_regularizer"] = None
            self._note("KR015", layer)
        if self._has("KR017", layer):
            for name, penalty in penalties_of(layer).items():
                if not acts(penalty) and f"{name}_regularizer" in config:
                    config[f"{name}_regularizer"] = None
                    self._note("KR017", layer)

    def _mend_bounds(self, config: dict[str, Any], layer: Any) -> None:
        if not self._has("KR018", layer):
            return
        for name in KERNELS:
            bound = getattr(layer, f"{name}_constraint", None)
            axis = norm_axis(type(layer), name)
            if isinstance(bound, BOUNDS) and axis is not None:
                settings = bound.get_config() | {"axis": axis}
                right = type(bound).from_config(settings)
                config[f"{name}_constraint"] = keras.constraints.serialize(right)
                self._note("KR018", layer)

    def _dropout_copy(self, layer: Any, place: Call) -> Any:
        """Return the dropout that belongs behind or instead of a call; `None`: it stays."""
        kind: Any = None
        rank = len(place.outputs[0].shape)
        options: dict[str, Any] = {}
        if self._has("KR005", layer) and rank in SPATIAL_DROPOUTS:
            kind, code = SPATIAL_DROPOUTS[rank], "KR005"
            options = {"data_format": data_format(layer)} if rank > 3 else {}
        elif self._has("KR009", layer):
            kind = L.Dropout if isinstance(layer, L.AlphaDropout) else L.AlphaDropout
            code = "KR009"
        if kind is None:
            return None
        self._replaced.add(id(layer))
        self._note(code, layer)
        return kind(layer.rate, seed=self.seeds(layer.name), name=layer.name, **options)

    def is_left_out(self, call: Call, graph: ModelGraph) -> bool:
        layer = call.layer
        codes = [code for code in ("KR004", "KR006", "KR007") if self._has(code, layer)]
        if isinstance(layer, L.ActivityRegularization) and self._has("KR014", layer):
            codes.append("KR014")
        if not codes or not _can_leave_out(call, graph):
            return False
        for code in codes:
            if code == "KR006" and layer.rate:
                continue  # the right rate is not known
            if code in ("KR007", "KR014") and not is_output_part(self.view, call, graph):
                continue  # a layer that is called in a hidden place, too
            if code == "KR004" and self._normalization_behind(call, graph) is None:
                continue
            name = self.view.name_of(layer)
            # what is gone has no fault left
            self.mended |= {(code, name)} if code == "KR004" else self._faults_of(name)
            return True
        return False

    def _faults_of(self, name: str) -> set[tuple[str, str]]:
        return {fault for fault in self._faults if fault[1] == name}

    def _normalization_behind(self, call: Call, graph: ModelGraph) -> Call | None:
        """Return the batch normalization that a dropout feeds by one way, if it can go behind."""
        if len(graph.calls_of(call.layer)) != 1:
            return None
        follower = call
        while len(follower.after) == 1 and len(follower.after[0].before) == 1:
            follower = follower.after[0]
            if isinstance(follower.layer, L.BatchNormalization):
                is_single = len(graph.calls_of(follower.layer)) == 1
                is_end = follower in graph.outputs and graph.outer is None
                return follower if is_single and not is_end else None
            if has_weights(follower.layer) or is_model_graph(follower.layer):
                return None
        return None

    def _takes_bias(self, layer: Any, graph: ModelGraph) -> bool:
        calls = graph.calls_of(layer)
        after = normalization_after(calls[0], graph)
        return len(calls) == 1 and len(graph.calls_of(after)) == 1

    def layers_after(self, call: Call, graph: ModelGraph) -> list[Any]:
        followers: list[Any] = []
        layer = call.layer
        if isinstance(layer, L.BatchNormalization):
            for source, its_graph in graph.upstream(call):
                moves = self._has("KR004", source.layer) and its_graph is graph
                moves = moves and self._normalization_behind(source, graph) is call
                if moves and self.is_left_out(source, graph):
                    followers.append(self._moved_dropout(source.layer, call))
        penalty = self._moved_penalty(layer, graph)
        if penalty:
            name = f"{layer.name}_activity"
            followers.append(L.ActivityRegularization(**penalty, dtype="float32", name=name))
        return followers

    def _moved_penalty(self, layer: Any, graph: ModelGraph) -> dict[str, float] | None:
        """Return the activity penalty that a layer in float32 takes over, if one does."""
        is_own = isinstance(layer, L.ActivityRegularization)
        if not self._has("KR015", layer) or self._has("KR014", layer) or is_own:
            return None
        is_single = len(graph.calls_of(layer)) == 1
        return coefficients(layer.activity_regularizer) if is_single else None

    def _moved_dropout(self, layer: Any, place: Call) -> Any:
        new = self._dropout_copy(layer, place)
        if new is None:
            new = new_layer(layer)
            if len(place.outputs[0].shape) not in SPATIAL_DROPOUTS:
                self._note("KR005", layer)  # no feature maps are left there
        return new

    def copy_states(self) -> None:
        folded: list[tuple[Any, Any]] = []
        for old, new in self.layer_pairs():
            if id(old) in self._replaced:
                continue
            loses_bias = getattr(old, "use_bias", False) and not getattr(new, "use_bias", True)
            if id(old) not in self._drawn and not loses_bias:
                copy_state(old, new)
                continue
            present = {variable.name: variable for variable in old.weights}
            for variable in new.weights:
                if variable.name != "kernel" or id(old) not in self._drawn:
                    variable.assign(present[variable.name])
            if loses_bias:
                folded.append((old, present["bias"]))
        for layer, bias in folded:
            site = self.view.site_of(layer)
            if site is None or site.graph is None:
                continue
            after = normalization_after(site.calls[0], site.graph)
            mean = self.copies[id(after)][1].moving_mean
            mean.assign(mean - keras.ops.cast(bias, mean.dtype))


def _can_leave_out(call: Call, graph: ModelGraph) -> bool:
    """Whether what feeds a call feeds nothing else, so that it can take the call's place."""
    source = call.before[0] if len(call.before) == 1 else None
    return source is not None and source.after == [call] and source not in graph.outputs
