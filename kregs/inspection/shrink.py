"""`shrink`: a smaller model that computes the same, without units and filters that do nothing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import keras
import numpy as np

from kregs.builders.model_graph import ModelGraph, check_model_graph
from kregs.inspection.shrinking.channels import ChannelGraph
from kregs.inspection.shrinking.removal import Removal, find_removal
from kregs.inspection.shrinking.smaller_model import SmallerModel

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShrunkLayer:
    """What became of the units, filters or columns of one layer.

    Attributes:
        layer, type: its name and class.
        units: how many it had.
        removed: how many went.
        left: how many of those that stay do nothing: their output is constant, or no output of the
            model depends on it.
        reason: why these stay; empty if there are none.
    """

    layer: str
    type: str
    units: int
    removed: int
    left: int
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class Shrunk:
    """A smaller model and what became of each layer. Made by `kregs.shrink`.

    Attributes:
        model: the smaller model, uncompiled, of stock Keras layers if the original is.
        layers: a `ShrunkLayer` for each layer that has units, filters or columns, by the order of
            execution.
        weights_before, weights_after: how many numbers the two models consist of.
    """

    model: keras.Model
    layers: tuple[ShrunkLayer, ...]
    weights_before: int
    weights_after: int

    @property
    def removed(self) -> dict[str, int]:
        """How many units went, by the name of their layer; layers that lost none are not in it."""
        return {row.layer: row.removed for row in self.layers if row.removed}

    @property
    def left(self) -> dict[str, str]:
        """Why units that do nothing stay, by the name of their layer."""
        return {row.layer: row.reason for row in self.layers if row.left}

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer: `layer`, `type`, `units`, `removed`, `left` and `reason`."""
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(ShrunkLayer)]
        return pd.DataFrame([dataclasses.astuple(row) for row in self.layers], columns=columns)

    def __repr__(self) -> str:
        return f"<Shrunk {self.model.name!r}: {self._weights_in_words()}>"

    def __str__(self) -> str:
        lines = [f"{self.model.name}: {self._weights_in_words()}"]
        changed = [row for row in self.layers if row.removed or row.left]
        width = max((len(row.layer) for row in changed), default=0)
        for row in changed:
            words = f"{row.units - row.removed} of {row.units} units stay"
            if row.left:
                verb = "does" if row.left == 1 else "do"
                words += f"; {row.left} that {verb} nothing: {row.reason}"
            lines.append(f"  {row.layer:{width}}  {words}")
        return "\n".join(lines)

    def _weights_in_words(self) -> str:
        share = self.weights_after / max(self.weights_before, 1)
        return f"{self.weights_before} -> {self.weights_after} weights ({share:.0%})"


def shrink(model: keras.Model) -> Shrunk:
    """Return a smaller model with the same outputs, without the units and filters that do nothing.

    A unit (filter, embedding column) goes if no output depends on it, because all weights that lead
    from it are zero or lead to what goes itself; or if it is constant, because all weights that
    lead to it are zero or lead from constants. Its constant is added to the biases that follow it;
    a layer without a bias gets one. So zeros that a group penalty made
    (`kregs.Regularization(group_l1=...)`), or that you set, become a smaller network, as in
    Scardapane et al. (2017) and Wen et al. (2016); nothing that is merely small is removed.

    This is followed through activations, batch normalization, dropout, pooling, `Flatten`,
    `Reshape`, sums and concatenations, depthwise and separable convolutions, shared layers and
    models inside. What is summed can go only together. A convolution whose padding is not
    `"valid"` reads zeros beyond the edge, so that only the constant 0 goes before it. Layers that
    need all of their channels (`LayerNormalization`, `GroupNormalization`, attention, grouped
    convolutions, `channels_first`, layers that are not Keras's own) keep what they read and make.
    The model's inputs and outputs stay, and one unit of each layer.

    Args:
        model: a built `keras.Sequential` or Functional model, compiled or not. It is not changed.

    Returns:
        A `Shrunk`: its `model` is uncompiled, since an optimizer's state would not fit it, and its
        outputs in inference are those of `model` but for rounding. Penalties on activities and the
        draws of dropout are not the same. `layers` says what was removed, what was left and why;
        `print` it.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: it is a subclassed one, whose layers cannot be followed, or not built.

    Example:

    >>> import kregs, numpy as np
    >>> model = kregs.mlp((4,), 3, units=(8, 8), seed=0)
    >>> kernel = model.layers[0].kernel
    >>> _ = kernel.assign(kernel * (np.arange(8) < 6))  # two units of eight lose their inputs
    >>> print(kregs.shrink(model))
    mlp: 139 -> 113 weights (81%)
      dense_1  6 of 8 units stay

    References:
        Wen et al., "Learning Structured Sparsity in Deep Neural Networks", 2016, section 3;
        Scardapane et al., "Group sparse regularization for deep neural networks", 2017, section 3.
    """
    check_model_graph(model)
    graph = ModelGraph(model)
    channels = ChannelGraph(graph)
    removal = find_removal(channels)
    smaller = SmallerModel(channels, removal)
    copy = smaller.copy_model(graph)
    smaller.copy_states()
    return Shrunk(
        model=copy,
        layers=tuple(_rows(channels, removal)),
        weights_before=model.count_params(),
        weights_after=copy.count_params(),
    )


def _rows(channels: ChannelGraph, removal: Removal) -> list[ShrunkLayer]:
    rows = []
    for rule, calls in channels.calls_by_rule().items():
        if not rule.has_units:
            continue
        outputs = [call.outputs[0] for call in calls]
        removed = removal.removed[outputs[0]]
        used = [rule.with_own(removal.used[output] & ~removed) for output in outputs]
        constant = [np.isfinite(removal.values[output]) for output in outputs]
        # of a shared layer, what does nothing in any of its calls
        idle = np.all([~u | c for u, c in zip(used, constant, strict=True)], axis=0)
        left = np.flatnonzero(idle & ~removed)
        groups = dict.fromkeys(channels.groups[outputs[0][left]].tolist())
        reasons = dict.fromkeys(removal.why(group) for group in groups)
        rows.append(
            ShrunkLayer(
                layer=rule.layer.name,
                type=type(rule.layer).__name__,
                units=len(removed),
                removed=int(removed.sum()),
                left=len(left),
                reason="; ".join(reasons),
            )
        )
    return rows
