"""`ChannelGraph`: the channels of every tensor of a model, numbered, and the calls between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from kregs.builders.model_graph import Call, ModelGraph
from kregs.inspection.shrinking.rules import Rule, rule_for


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelCall:
    """One call of a layer; `inputs` and `outputs` are the numbers of each tensor's channels."""

    rule: Rule
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


class ChannelGraph:
    """All calls of layers of a model in the order of execution, models inside taken apart.

    Args:
        graph: of the whole model.

    Attributes:
        calls: the calls; a shared layer has several, which share a rule.
        inputs, outputs: the channels of the model's inputs and outputs.
        tensors: id of a symbolic tensor -> its channels; of a model called more than once, those
            of the first call.
        count: how many channels there are.
        groups: an array: channels with one number can only go together.

    Example:

    >>> import keras
    >>> layers = [keras.Input((2,)), keras.layers.Dense(3), keras.layers.ReLU()]
    >>> channels = ChannelGraph(ModelGraph(keras.Sequential(layers)))
    >>> channels.groups.tolist()
    [0, 1, 2, 3, 4, 2, 3, 4]
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.calls: list[ChannelCall] = []
        self.count = 0
        self.tensors: dict[int, np.ndarray] = {}
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self.inputs = [self._new_channels(tensor) for tensor in graph.model.inputs]
        self.outputs = self._follow(graph, self.inputs)
        self._share_rules()
        for call in self.calls:
            self._ties += call.rule.ties(call.inputs, call.outputs)
        self._tie_shared_layers()
        self.groups = self._grouped()

    def calls_by_rule(self) -> dict[Rule, list[ChannelCall]]:
        """Return the calls of each layer."""
        calls: dict[Rule, list[ChannelCall]] = {}
        for call in self.calls:
            calls.setdefault(call.rule, []).append(call)
        return calls

    def _new_channels(self, tensor: Any) -> np.ndarray:
        shape = tensor.shape
        # a tensor without channels has one that stays
        size = shape[-1] if len(shape) > 1 and shape[-1] else 1
        self.count += size
        return np.arange(self.count - size, self.count)

    def _follow(
        self, graph: ModelGraph, inputs: Sequence[np.ndarray], *, training: bool | None = None
    ) -> list[np.ndarray]:
        """Add the calls of a model that receives these channels; return those of its outputs."""
        known = {id(t): c for t, c in zip(graph.model.inputs, inputs, strict=True)}
        for tensor, channels in zip(graph.model.inputs, inputs, strict=True):
            # a model has one shape for all of its calls
            self._ties.append((self.tensors.setdefault(id(tensor), channels), channels))
        for call in _in_order(graph):
            if all(id(tensor) in known for tensor in call.outputs):
                continue  # the model's input
            # a mask says which steps count, and has no channels
            tensors = [tensor for tensor in call.inputs if tensor.dtype != "bool"]
            received = [known[id(tensor)] for tensor in tensors]
            # as in Keras, the mode of the model inside goes over that of its layers
            mode = call.keywords.get("training") if training is None else training
            nested = graph.nested.get(id(call.layer))
            if nested is not None and len(nested.model.inputs) == len(received):
                made = self._follow(nested, received, training=mode)
            else:
                made = [self._new_channels(tensor) for tensor in call.outputs]
                rule = rule_for(call.layer, tensors, call.outputs, training=bool(mode))
                self.calls.append(ChannelCall(rule, received, made))
            for tensor, channels in zip(call.outputs, made, strict=True):
                known[id(tensor)] = channels
                self.tensors.setdefault(id(tensor), channels)
        return [known[id(tensor)] for tensor in graph.model.outputs]

    def _share_rules(self) -> None:
        """Give all calls of a layer one rule where it has one size: the strictest."""
        shared: dict[int, Rule] = {}
        for call in self.calls:
            rule = call.rule
            if rule.one_size:
                so_far = shared.get(id(rule.layer), rule)
                shared[id(rule.layer)] = max(
                    so_far, rule, key=lambda rule: (not rule.lets_go, rule.training)
                )
        self.calls = [
            dataclasses.replace(call, rule=shared.get(id(call.rule.layer), call.rule))
            for call in self.calls
        ]

    def _tie_shared_layers(self) -> None:
        for rule, (first, *others) in self.calls_by_rule().items():
            if rule.one_size and rule.lets_go:
                for call in others:
                    self._ties += [
                        pair
                        for pair in zip(
                            first.inputs + first.outputs, call.inputs + call.outputs, strict=True
                        )
                        if len(pair[0]) == len(pair[1])  # a reshaped tensor may have any
                    ]

    def _grouped(self) -> np.ndarray:
        pairs = [np.concatenate(side) for side in zip(*self._ties, strict=True)]
        ones = np.ones(len(pairs[0]), bool)
        matrix = coo_array((ones, tuple(pairs)), shape=(self.count, self.count))
        return connected_components(matrix, directed=False)[1]


def _in_order(graph: ModelGraph) -> Iterator[Call]:
    """Yield the calls that lead to a model's outputs, each behind those that feed it."""
    done: set[int] = set()
    stack = list(reversed(graph.outputs))
    while stack:
        waiting = [call for call in stack[-1].before if id(call) not in done]
        if waiting:
            stack += waiting
            continue
        call = stack.pop()
        if id(call) not in done:
            done.add(id(call))
            yield call
