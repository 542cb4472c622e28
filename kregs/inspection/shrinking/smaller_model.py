"""The model that is left when channels have been removed from another: its layers and weights."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kregs.builders.layer_copies import ModelCopier, copy_state, new_layer
from kregs.builders.layer_kinds import config_of
from kregs.builders.model_graph import ModelGraph
from kregs.inspection.shrinking.channels import ChannelGraph
from kregs.inspection.shrinking.removal import Removal


class SmallerModel(ModelCopier):
    """Copies a model without some of its channels.

    Args:
        channels: of the model.
        removal: which of them go.

    Example: see `kregs.shrink`, which does it.
    """

    def __init__(self, channels: ChannelGraph, removal: Removal) -> None:
        super().__init__()
        self._kept = {tensor: ~removal.removed[c] for tensor, c in channels.tensors.items()}
        self._configs: dict[int, dict[str, Any]] = {}
        self._weights: dict[int, dict[str, np.ndarray]] = {}
        for rule, calls in channels.calls_by_rule().items():
            if not (rule.one_size and rule.lets_go):
                continue
            kept_inputs = [~removal.removed[tensor] for tensor in calls[0].inputs]
            kept_outputs = [~removal.removed[tensor] for tensor in calls[0].outputs]
            if all(kept.all() for kept in (*kept_inputs, *kept_outputs)):
                continue
            layer = rule.layer
            weights = rule.weights(kept_inputs, kept_outputs, removal.foldable.get(rule, []))
            config = rule.config(config_of(layer), kept_outputs)
            if "bias" in weights:
                config["use_bias"] = True
            self._configs[id(layer)] = config
            self._weights[id(layer)] = weights

    def new_input(self, tensor: Any) -> Any:
        """Return the input of a model inside, which may have fewer channels."""
        kept = self._kept.get(id(tensor))
        shape = list(tensor.shape)
        if kept is not None and not kept.all():
            shape[-1] = int(kept.sum())
        return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name)

    def copy_layer(self, layer: Any, graph: ModelGraph) -> Any:
        return new_layer(layer, self._configs.get(id(layer)))

    def copy_states(self) -> None:
        for old, new in self.layer_pairs():
            weights = self._weights.get(id(old))
            if weights is None:
                copy_state(old, new)
                continue
            for attribute, value in weights.items():
                owner, _, name = attribute.rpartition(".")
                getattr(getattr(new, owner) if owner else new, name).assign(value)
