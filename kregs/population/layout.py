"""`Layout`: the common structure of members, with a place for every number in which they differ."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kregs.population.keras_internals import decays_weight
from kregs.population.objective import label_smoothings_of
from kregs.population.optimizers import CLIPS, OptimizerState, optimizer_form
from kregs.population.registry import NotStackable, StackedLayer, form_of
from kregs.population.restraints import (
    constraint_of,
    other_constraint,
    other_regularizer,
    penalty_coefficients,
)
from kregs.population.signature import Member, check_same_structure, optional_kind
from kregs.training.proximal import Threshold, is_proximal

# the numbers of every layer's activity penalty, beside those that its form names
ACTIVITY_NUMBERS = ("activity_l1", "activity_l2")

NumberKey = tuple  # (..., name): of which layer or place, and which number
ConstraintKey = tuple[int, str, tuple[int, ...]]  # weight by position, kind, axes


@dataclasses.dataclass
class Place:
    """A place for an optional layer on an edge: its kind, and one layer as an example."""

    kind: tuple
    example: Any
    form: type[StackedLayer]


@dataclasses.dataclass
class Settings:
    """One member's numbers, in the order of the layout.

    Args:
        layers: numbers of layers (rates, slopes, activity coefficients) by key.
        penalties: l1 and l2 of each weight, `(weights, 2)`.
        constraints: of each constrained weight, the bound by (weight, kind, axes).
        optimizer: hyperparameters and clipping bounds by name.
        decays: weight decay of each weight, `(weights,)`.
        thresholds: l1 and group_l1 of each weight's proximal step, `(weights, 2)`.
        group_axes: which axes of each weight count its groups; none without a group_l1.
        smoothing: label smoothing of each loss.
    """

    layers: dict[NumberKey, float]
    penalties: np.ndarray
    constraints: dict[ConstraintKey, float]
    optimizer: dict[str, float]
    decays: np.ndarray
    thresholds: np.ndarray
    group_axes: list[tuple[int, ...]]
    smoothing: tuple[float, ...]

    @property
    def penalized_activities(self) -> set[NumberKey]:
        """The keys of the activity coefficients that are not 0."""
        return {k for k, value in self.layers.items() if k[-1] in ACTIVITY_NUMBERS and value != 0}

    @property
    def clips(self) -> set[str]:
        """The ways to clip gradients that have a bound."""
        return {name for name in CLIPS if np.isfinite(self.optimizer[name])}


class Layout:
    """The common structure of members, with a place for every number in which they may differ.

    Args:
        members: read models; later ones may join if they fit (`fits`).

    Attributes:
        template: the member whose graph and layer objects stand for all.
        optimizer_form: the stacked form of the members' optimizers.
        places: per edge of the graph, the optional layers on it.
        groups: per edge, which evaluation of its chain it reads; edges that read the same optional
            layers read the same numbers.
        weights: the template's variables, in the order in which all members' weights are listed.
        trainable: per weight, whether it is trained.
        constraints: of which trained weight, which kind and axes, any has.
        other_regularizers, other_constraints: those of trained weights that are no numbers of a
            member but the same in all, by position.
        settings: the numbers of each of `members`.
        penalized, decayed: which l1 and l2 `(weights, 2)`, and which decays `(weights,)`, any has.
        schedules_decay: whether the weight decay of any falls over the training.
        thresholded: which l1 and group_l1 in a proximal step any has, `(weights, 2)`.
        group_axes: of each weight, which axes count its groups.
        active_numbers: keys of activity coefficients that any has.
        smoothed: of each loss, whether any has label smoothing.
        clips: the ways to clip gradients that any uses, of `CLIPS`.

    Raises:
        NotStackable: the members differ in more than numbers; the message says in what.
    """

    def __init__(self, members: list[Member]) -> None:
        if not members:
            raise ValueError("`models` must hold at least one model. Received: []")
        check_same_structure(members)
        self.template = members[0]
        self.optimizer_form = optimizer_form(self.template.model.optimizer)
        self.places = [
            [Place(optional_kind(layer), layer, form_of(layer)) for layer in examples]
            for examples in _optional_layers(members)
        ]
        self.groups = _group_edges(members)
        self.weights = self.template.weights
        trainable = {id(v) for layer in self.template.layers for v in layer.trainable_weights}
        self.trainable = [id(variable) in trainable for variable in self.weights]
        trained = [(i, v) for i, v in enumerate(self.weights) if self.trainable[i]]
        self.other_regularizers = {
            i: v.regularizer for i, v in trained if other_regularizer(v.regularizer)
        }
        self.other_constraints = {
            i: v.constraint for i, v in trained if other_constraint(v.constraint)
        }
        self.settings = [self.settings_of(member) for member in members]
        self.penalized = np.any([s.penalties != 0 for s in self.settings], axis=0)
        self.active_numbers = set().union(*(s.penalized_activities for s in self.settings))
        self.smoothed = np.any([np.array(s.smoothing) > 0 for s in self.settings], axis=0)
        clips = set().union(*(s.clips for s in self.settings))
        self.clips = tuple(name for name in CLIPS if name in clips)
        self.constraints = sorted(set().union(*(s.constraints for s in self.settings)))
        self.decayed = np.any([s.decays != 0 for s in self.settings], axis=0)
        self.schedules_decay = any(s.optimizer["decay_flat"] < 1 for s in self.settings)
        self.thresholded = np.any([s.thresholds != 0 for s in self.settings], axis=0)
        self.group_axes = [
            next(filter(None, axes), ())
            for axes in zip(*(s.group_axes for s in self.settings), strict=True)
        ]

    @property
    def has_other_restraints(self) -> bool:
        """Whether there are regularizers or constraints that are no numbers of a member."""
        activities = (layer.activity_regularizer for layer in self.template.layers)
        return bool(
            self.other_regularizers
            or self.other_constraints
            or any(map(other_regularizer, activities))
        )

    def fits(self, member: Member) -> bool:
        """Return whether a member has nothing that this layout has no place for."""
        try:
            settings = self.settings_of(member)
        except NotStackable:
            return False
        return bool(
            not np.any((settings.penalties != 0) & ~self.penalized)
            and not np.any((settings.decays != 0) & ~self.decayed)
            and (self.schedules_decay or not settings.optimizer["decay_flat"] < 1)
            and not np.any((settings.thresholds != 0) & ~self.thresholded)
            and not np.any((np.array(settings.smoothing) > 0) & ~self.smoothed)
            and settings.penalized_activities <= self.active_numbers
            and settings.clips <= set(self.clips)
            and settings.constraints.keys() <= set(self.constraints)
        )

    def state_of(self, member: Member) -> OptimizerState | None:
        """Return what the optimizer of a member's model has gathered; `None` if it is fresh."""
        return self.optimizer_form.read_state(member.model.optimizer, self._trained(member))

    def restore(self, member: Member, weights: list[Any], state: OptimizerState) -> None:
        """Let a member's model and its optimizer go on from what the member ended with.

        Args:
            member: of this structure.
            weights: in the order of `member.weights`.
            state: of its optimizer.
        """
        self.restore_weights(member, weights)
        self.restore_state(member, state)

    def restore_weights(self, member: Member, weights: list[Any]) -> None:
        """Put weights into a member's model, see `restore`."""
        for variable, value in zip(member.weights, weights, strict=True):
            variable.value.assign(value)  # Keras's own would look at it for 0.5 ms

    def restore_state(self, member: Member, state: OptimizerState) -> None:
        """Put a state into the optimizer of a member's model, see `restore`."""
        optimizer = member.model.optimizer
        if not optimizer.built:
            optimizer.build(member.model.trainable_variables)
        self.optimizer_form.write_state(state, optimizer, self._trained(member))

    def _trained(self, member: Member) -> list[Any]:
        """The weights of a member that are trained."""
        return [v for v, trained in zip(member.weights, self.trainable, strict=True) if trained]

    def settings_of(self, member: Member) -> Settings:
        """Return all numbers of a member.

        Raises:
            NotStackable: the member has another structure.
        """
        check_same_structure([self.template, member])
        layers: dict[NumberKey, float] = {}
        for position, layer in enumerate(member.layers):
            layers |= _numbers_of(layer, form_of(layer), ("layer", position))
        for number, (places, edge) in enumerate(
            zip(self.places, member.graph.edges(), strict=True)
        ):
            layers |= _numbers_of_chain(list(edge.chain), places, number)
        penalties, decays = [], []
        constraints_of_weights: dict[ConstraintKey, float] = {}
        optimizer = member.model.optimizer
        decay = float(np.float32(optimizer.weight_decay or 0.0))  # as Keras casts it
        if self.optimizer_form.decays_itself:
            decay = 0.0
        for i, (variable, trainable) in enumerate(zip(member.weights, self.trainable, strict=True)):
            penalties.append(penalty_coefficients(variable.regularizer))
            constraint = constraint_of(variable.constraint)
            if constraint is not None and trainable:
                kind, axes, bound = constraint
                constraints_of_weights[i, kind, axes] = bound
            decayed = trainable and decay and decays_weight(optimizer, variable)
            decays.append(decay if decayed else 0.0)
        thresholds = [Threshold()] * len(member.weights)
        if is_proximal(optimizer):
            thresholds = [
                threshold if trainable else Threshold()
                for threshold, trainable in zip(
                    optimizer.thresholds(member.weights), self.trainable, strict=True
                )
            ]
        return Settings(
            layers,
            np.array(penalties).reshape(-1, 2),
            constraints_of_weights,
            self.optimizer_form.read(optimizer),
            np.array(decays),
            np.array([(t.l1, t.group_l1) for t in thresholds]).reshape(-1, 2),
            [threshold.axes for threshold in thresholds],
            label_smoothings_of(member.model),
        )


# ---- optional layers -----------------------------------------------------------------------


def _optional_layers(members: list[Member]) -> Iterator[list[Any]]:
    """Align the optional layers of all members: yield for each edge one layer of each place."""
    per_member = [list(member.graph.edges()) for member in members]
    for edge in range(len(per_member[0])):
        order: list[tuple] = []
        examples: dict[tuple, Any] = {}
        for edges in per_member:
            kinds = [optional_kind(layer) for layer in edges[edge].chain]
            order = _shortest_common_supersequence(order, kinds)
            for kind, layer in zip(kinds, edges[edge].chain, strict=True):
                examples.setdefault(kind, layer)
        yield [examples[kind] for kind in order]


def _shortest_common_supersequence(a: list, b: list) -> list:
    if not a or not b:
        return a or b
    if a[0] == b[0]:
        return [a[0], *_shortest_common_supersequence(a[1:], b[1:])]
    left = [a[0], *_shortest_common_supersequence(a[1:], b)]
    right = [b[0], *_shortest_common_supersequence(a, b[1:])]
    return min(left, right, key=len)


def _group_edges(members: list[Member]) -> list[int]:
    """Return per edge the first edge that reads the same source through the same layers."""
    first_edges: dict[tuple, int] = {}
    groups: list[int] = []
    place_of_layer: dict[int, tuple[int, int]] = {}
    per_member = [list(member.graph.edges()) for member in members]
    for edge, template_edge in enumerate(per_member[0]):
        chains = tuple(tuple(id(layer) for layer in edges[edge].chain) for edges in per_member)
        group = first_edges.setdefault((template_edge.source, chains), edge)
        groups.append(group)
        place = group, template_edge.source
        for layer in itertools.chain.from_iterable(edges[edge].chain for edges in per_member):
            known, source = place_of_layer.setdefault(id(layer), place)
            if source != template_edge.source:
                raise NotStackable(f"noise layer {layer.name!r} acts on several tensors")
            if known != group:
                raise NotStackable(
                    f"noise layer {layer.name!r} is read both directly and through another one"
                )
    return groups


# ---- numbers -------------------------------------------------------------------------------


def _numbers_of(layer: Any, form: type[StackedLayer], key: tuple) -> dict[NumberKey, float]:
    numbers = {(*key, name): float(getattr(layer, name)) for name in form.numbers}
    coefficients = penalty_coefficients(layer.activity_regularizer)
    activity = zip(ACTIVITY_NUMBERS, coefficients, strict=True)
    return numbers | {(*key, name): value for name, value in activity}


def _numbers_of_chain(
    chain: list[Any], places: Iterable[Place], edge: int
) -> dict[NumberKey, float]:
    """The numbers of one edge's optional layers; a layer that is missing has those of none."""
    numbers: dict[NumberKey, float] = {}
    for position, place in enumerate(places):
        key = ("optional", edge, position)
        if chain and optional_kind(chain[0]) == place.kind:
            numbers |= _numbers_of(chain.pop(0), place.form, key)
        else:
            numbers |= {
                (*key, name): place.form.absent.get(name, 0.0) for name in place.form.numbers
            }
            numbers |= {(*key, name): 0.0 for name in ACTIVITY_NUMBERS}
    if chain:
        raise NotStackable(f"layer {chain[0].name!r} has no place among the other members' layers")
    return numbers
