"""Which channels of a model can go: the largest set without which its outputs are the same."""

from __future__ import annotations

import dataclasses

import numpy as np

from kregs.inspection.shrinking.channels import ChannelGraph
from kregs.inspection.shrinking.rules import Rule

IS_INPUT = "is an input of the model"
IS_OUTPUT = "is an output of the model"
IS_LAST = "is the last one of its layer"


@dataclasses.dataclass(frozen=True, eq=False)
class Removal:
    """What can go from a `ChannelGraph`, and why the rest stays.

    Attributes:
        removed: of each channel, whether it goes.
        used: of each channel, whether it has an effect on an output.
        values: of each channel, its constant, or NaN.
        foldable: of each layer with several calls or one, the constants of its inputs that its
            bias can take: the same in every call; else NaN.
        reasons: why groups of channels stay: pairs of the groups' numbers and words.
    """

    removed: np.ndarray
    used: np.ndarray
    values: np.ndarray
    foldable: dict[Rule, list[np.ndarray]]
    reasons: list[tuple[np.ndarray, str]]

    def why(self, group: int) -> str:
        """Return in words why a group of channels stays."""
        found = dict.fromkeys(words for groups, words in self.reasons if group in groups)
        return "; ".join(found)


def find_removal(channels: ChannelGraph) -> Removal:
    """Return the channels that can go.

    A group of channels that can only go together goes if every layer that reads one of them either
    does not need it (the weights that lead from it are zero, or lead to what goes itself) or can
    take it, a constant, into its bias. Of no tensor do all channels go.
    """
    values = _constants(channels)
    foldable = _foldable(channels, values)
    last: set[int] = set()  # groups that stay, so that their layer keeps one
    while True:
        removed, used, reasons = _largest(channels, values, foldable, last)
        emptied = [
            channels.groups[tensor[0]]
            for call in channels.calls
            for tensor in call.outputs
            if removed[tensor].all()
        ]
        if not emptied:
            break
        last.update(emptied)
    return Removal(removed, used, values, foldable, reasons)


def _constants(channels: ChannelGraph) -> np.ndarray:
    values = np.full(channels.count, np.nan)
    for call in channels.calls:
        made = call.rule.values([values[i] for i in call.inputs], call.outputs)
        for tensor, constants in zip(call.outputs, made, strict=True):
            values[tensor] = constants
    return values


def _foldable(channels: ChannelGraph, values: np.ndarray) -> dict[Rule, list[np.ndarray]]:
    """Return what each layer's inputs are if they are the same constant in all of its calls."""
    foldable: dict[Rule, list[np.ndarray]] = {}
    for rule, calls in channels.calls_by_rule().items():
        sizes = {tuple(map(len, call.inputs)) for call in calls}
        if rule.one_size and rule.lets_go and len(sizes) == 1:
            of_calls = [[values[tensor] for tensor in call.inputs] for call in calls]
            foldable[rule] = [
                np.where(np.all(same == same[0], axis=0), same[0], np.nan)
                for same in (np.array(tensors) for tensors in zip(*of_calls, strict=True))
            ]
    return foldable


def _largest(
    channels: ChannelGraph,
    values: np.ndarray,
    foldable: dict[Rule, list[np.ndarray]],
    last: set[int],
) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, str]]]:
    """Return what goes, what is used, and why groups stay, when the groups `last` must stay.

    What goes needs nothing from the channels before it, so that more can go: it is repeated until
    nothing more does.
    """
    groups = channels.groups
    removed = np.zeros(channels.count, bool)
    while True:
        used, reasons = _used(channels, values, foldable, removed)
        reasons.append((np.array(sorted(last), int), IS_LAST))
        stays = np.zeros(groups.max() + 1, bool)
        for numbers, _ in reasons:
            stays[numbers] = True
        more = ~stays[groups]
        if (more == removed).all():
            return removed, used, reasons
        removed = more


def _used(
    channels: ChannelGraph,
    values: np.ndarray,
    foldable: dict[Rule, list[np.ndarray]],
    removed: np.ndarray,
) -> tuple[np.ndarray, list[tuple[np.ndarray, str]]]:
    """Return which channels are used, and which groups must stay and why."""
    groups = channels.groups
    used = np.zeros(channels.count, bool)
    reasons = [(groups[tensor], IS_INPUT) for tensor in channels.inputs]
    for tensor in channels.outputs:
        used[tensor] = True
        reasons.append((groups[tensor], IS_OUTPUT))
    for call in reversed(channels.calls):
        rule = call.rule
        used_outputs = [used[tensor] & ~removed[tensor] for tensor in call.outputs]
        inputs = [values[tensor] for tensor in call.inputs]
        read = rule.reads(inputs, used_outputs)
        absorbed = rule.absorbs(foldable.get(rule, inputs))
        for tensor, is_read, is_absorbed in zip(call.inputs, read, absorbed, strict=True):
            used[tensor[is_read]] = True
            held = tensor[is_read & ~is_absorbed]
            for mask, words in (
                (np.isnan(values[held]), f"tied to a channel that {rule.layer.name} reads"),
                (~np.isnan(values[held]), _why_not_absorbed(rule)),
            ):
                if mask.any():
                    reasons.append((groups[held[mask]], rule.reason if not rule.lets_go else words))
        for tensor, is_used in zip(call.outputs, used_outputs, strict=True):
            held = tensor[rule.holds(values[tensor], is_used)] if rule.lets_go else tensor
            if len(held):
                reasons.append((groups[held], rule.reason))
    return used, reasons


def _why_not_absorbed(rule: Rule) -> str:
    name = rule.layer.name
    if getattr(rule, "pads", False):
        return f"{name} reads its constant, which is not 0, beside the zeros beyond the edge"
    return f"{name} reads a constant that its bias cannot take"
