"""`Layout`: where everything of a member goes in the stacked model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from kregs.population.objective import take_smoothing
from kregs.population.optimizers import optimizer_form
from kregs.population.registry import NotStackable, StackedLayer, form_of
from kregs.population.structure import (
    Member,
    chain_key,
    check_same_structure,
    constraint_of,
    merge_chains,
    penalty_coefficients,
)


@dataclasses.dataclass
class Place:
    """A place for an optional layer on an edge: its kind, and one layer as an example."""

    kind: tuple
    example: Any
    form: type[StackedLayer]


@dataclasses.dataclass
class Settings:
    """One member's numbers, in the order of the layout."""

    layers: dict[tuple, float]
    penalties: np.ndarray  # (weights, 2): l1, l2
    max_norms: np.ndarray  # (weights,)
    optimizer: dict[str, float]
    decays: np.ndarray  # (weights,)
    smoothing: float


class Layout:
    """The common structure of members, with a place for every number in which they may differ.

    Args:
        members: read models; later ones may join with `settings_of` if they fit.

    Attributes:
        template: the member whose graph and layer objects stand for all.
        places: per edge of the graph, the optional layers on it.
        groups: per edge, which evaluation of its chain it reads; edges that read the same optional
            layers read the same numbers.
    """

    def __init__(self, members: list[Member]) -> None:
        if not members:
            raise ValueError("`models` must hold at least one model. Received: []")
        check_same_structure(members)
        self.template = members[0]
        self.optimizer_form = optimizer_form(self.template.model.optimizer)
        self.places: list[list[Place]] = []
        for positions in merge_chains(members):
            examples = [next(la for la in layers if la is not None) for layers in positions]
            self.places.append([Place(chain_key(e), e, form_of(e)) for e in examples])
        self.groups = self._group_edges(members)
        self.weights = self.template.weights
        trainable = {id(v) for layer in self.template.layers for v in layer.trainable_weights}
        self.trainable = [id(variable) in trainable for variable in self.weights]
        self.constraints = [self._constraint(members, i) for i in range(len(self.weights))]
        all_settings = [self.settings_of(member) for member in members]
        self.settings = all_settings
        self.penalized = np.any([s.penalties != 0 for s in all_settings], axis=0)
        self.active_numbers = {
            key
            for settings in all_settings
            for key, value in settings.layers.items()
            if key[-1].startswith("activity_") and value != 0
        }
        self.clips = tuple(
            name
            for name in ("clipnorm", "global_clipnorm", "clipvalue")
            if any(np.isfinite(s.optimizer[name]) for s in all_settings)
        )
        if len(self.clips) > 1:
            raise NotStackable(f"the optimizers clip in different ways: {', '.join(self.clips)}")
        self.decayed = np.any([s.decays != 0 for s in all_settings], axis=0)

    def _group_edges(self, members: list[Member]) -> list[int]:
        signatures: dict[tuple, int] = {}
        groups: list[int] = []
        owner: dict[int, int] = {}
        per_member = [list(member.graph.edges()) for member in members]
        for edge, first in enumerate(per_member[0]):
            chains = tuple(tuple(id(la) for la in edges[edge].chain) for edges in per_member)
            if not any(chains):
                signature: tuple = (first.source, "plain")
            else:
                signature = (first.source, chains)
            group = signatures.setdefault(signature, edge)
            groups.append(group)
            for chain in chains:
                for layer_id in chain:
                    if owner.setdefault(layer_id, group) != group:
                        raise NotStackable(
                            "a noise layer's output is read both directly and through another "
                            "noise layer"
                        )
        return groups

    def _constraint(self, members: list[Member], index: int) -> tuple[str, tuple[int, ...]] | None:
        found = {
            constraint_of(member.weights[index].constraint, member.weights[index].path)[:2]
            for member in members
        }
        kinds = {(kind, axes) for kind, axes in found if kind is not None}
        if len(kinds) > 1 or (kinds and len(found) > 1 and next(iter(kinds))[0] != "max_norm"):
            raise NotStackable(
                f"weight {self.template.weights[index].path!r} has different constraints: "
                f"{sorted(map(str, found))}"
            )
        return next(iter(kinds)) if kinds else None

    def fits(self, member: Member) -> bool:
        """Whether a member has nothing that this layout has no place for."""
        try:
            settings = self.settings_of(member)
        except NotStackable:
            return False
        active = {
            key for key, v in settings.layers.items() if key[-1].startswith("activity_") and v != 0
        }
        return bool(
            not np.any((settings.penalties != 0) & ~self.penalized)
            and not np.any((settings.decays != 0) & ~self.decayed)
            and active <= self.active_numbers
            and all(
                name in self.clips
                for name in ("clipnorm", "global_clipnorm", "clipvalue")
                if np.isfinite(settings.optimizer[name])
            )
        )

    def settings_of(self, member: Member) -> Settings:
        """Read all numbers of a member, or raise `NotStackable` if it does not fit."""
        check_same_structure([self.template, member])
        layers: dict[tuple, float] = {}
        for position, layer in enumerate(member.layers):
            _read_numbers(layer, form_of(layer), ("layer", position), layers)
        for edge, (places, own) in enumerate(zip(self.places, member.graph.edges(), strict=True)):
            self._read_chain(edge, places, list(own.chain), layers)
        penalties, max_norms, decays = [], [], []
        optimizer = member.model.optimizer
        decay = float(np.float32(optimizer.weight_decay or 0.0))  # as Keras casts it
        for index, (variable, trainable) in enumerate(
            zip(member.weights, self.trainable, strict=True)
        ):
            where = f"weight {variable.path!r}"
            penalties.append(penalty_coefficients(variable.regularizer, where))
            kind, axes, maximum = constraint_of(variable.constraint, where)
            expected = self.constraints[index]
            if kind is not None and (kind, axes) != expected:
                raise NotStackable(f"{where} has the constraint {kind} on axes {axes}")
            max_norms.append(maximum)
            used = trainable and decay and optimizer._use_weight_decay(variable)
            decays.append(decay if used else 0.0)
        return Settings(
            layers,
            np.array(penalties).reshape(-1, 2),
            np.array(max_norms),
            self.optimizer_form.read(optimizer),
            np.array(decays),
            take_smoothing(member),
        )

    def _read_chain(
        self, edge: int, places: list[Place], chain: list[Any], layers: dict[tuple, float]
    ) -> None:
        for position, place in enumerate(places):
            key = ("optional", edge, position)
            if chain and chain_key(chain[0]) == place.kind:
                _read_numbers(chain.pop(0), place.form, key, layers)
            else:
                layers |= {
                    (*key, name): place.form.absent.get(name, 0.0) for name in place.form.numbers
                }
                layers |= {(*key, name): 0.0 for name in ("activity_l1", "activity_l2")}
        if chain:
            raise NotStackable(
                f"layer {chain[0].name!r} has no place among the other members' layers"
            )


def _read_numbers(
    layer: Any, form: type[StackedLayer], key: tuple, into: dict[tuple, float]
) -> None:
    for name in form.numbers:
        into[(*key, name)] = float(getattr(layer, name))
    l1, l2 = penalty_coefficients(layer.activity_regularizer, f"layer {layer.name!r} (activity)")
    into[(*key, "activity_l1")] = l1
    into[(*key, "activity_l2")] = l2
