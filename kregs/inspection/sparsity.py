"""`sparsity`: how many weights are zero, and which units, filters and inputs have only zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kregs.inspection.probing import check_model

if TYPE_CHECKING:
    import pandas as pd

L = keras.layers

_GATES = {"SimpleRNNCell": 1, "GRUCell": 3, "LSTMCell": 4}
_TRANSPOSED = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
_DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerSparsity:
    """The zeros of one layer, or of all.

    Attributes:
        layer: its name, behind the names of what it is within.
        type: its class.
        weights: how many numbers its kernels, tables and biases have, frozen or not.
        zeros: how many of them are exactly 0.
        units: how many units, filters or columns it has; 0 where that is not known.
        dead_units: to how many of them only zeros lead, so that their output is constant.
        inputs: how many inputs its kernel reads.
        dead_inputs: from how many of them only zeros lead, so that they have no effect.
    """

    layer: str
    type: str
    weights: int
    zeros: int
    units: int
    dead_units: int
    inputs: int
    dead_inputs: int

    @property
    def share(self) -> float:
        """The share of the weights that is 0."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """The zeros of a model's weights. Made by `kregs.sparsity`.

    Attributes:
        layers: a `LayerSparsity` for each layer that has kernels, tables or biases of its own.
        total: their sum, as one `LayerSparsity`.
    """

    layers: tuple[LayerSparsity, ...]
    total: LayerSparsity

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer and one for all.

        The columns are `layer`, `type`, `weights`, `zeros`, `share` (of the weights that is 0),
        `units`, `dead_units`, `inputs` and `dead_inputs`.
        """
        import pandas as pd

        rows = [{**dataclasses.asdict(row), "share": row.share} for row in self._rows()]
        columns = [field.name for field in dataclasses.fields(LayerSparsity)]
        columns.insert(columns.index("zeros") + 1, "share")
        return pd.DataFrame(rows, columns=columns)

    def _rows(self) -> tuple[LayerSparsity, ...]:
        return (*self.layers, self.total)

    def __str__(self) -> str:
        head = ("layer", "weights", "zeros", "dead units", "dead inputs")
        table = [head]
        for row in self._rows():
            zeros = f"{row.zeros} ({row.share:.0%})"
            units, inputs = f"{row.dead_units} of {row.units}", f"{row.dead_inputs} of {row.inputs}"
            table.append((row.layer, str(row.weights), zeros, units, inputs))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            for cells in table
        )

    def __repr__(self) -> str:
        total = self.total
        return (
            f"<Sparsity: {total.zeros} of {total.weights} weights are 0, "
            f"{total.dead_units} of {total.units} units dead>"
        )


def sparsity(model: keras.Model) -> Sparsity:
    """Return how many weights of each layer are exactly zero, and which units and inputs are dead.

    A unit (filter, embedding column) is dead if all weights that lead to it are zero, whatever its
    bias: its output is constant. An input is dead if all weights that lead from it are zero. Of a
    convolution, inputs are channels; of a recurrent layer, a unit has the weights of all of its
    gates, and its inputs are those of the kernel. Weights of normalizations are not counted, since
    their zeros are initial values. `kregs.shrink` removes what is dead.

    Args:
        model: any built Keras model, compiled or not, frozen or not; of a subclassed one, the
            layers that Keras tracks.

    Returns:
        A `Sparsity`; `print` it, or `to_frame()`.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: it is not built, and has no weights yet.

    Example:

    >>> import kregs, numpy as np
    >>> model = kregs.mlp((4,), 3, units=(8,), seed=0)
    >>> kernel = model.layers[0].kernel
    >>> _ = kernel.assign(kernel * (np.arange(8) < 6))  # two units of eight lose their inputs
    >>> print(kregs.sparsity(model))
    layer    weights     zeros  dead units  dead inputs
    dense_1       40  16 (40%)      2 of 8       0 of 4
    head          27   3 (11%)      0 of 3       0 of 8
    all           67  19 (28%)     2 of 11      0 of 12
    """
    check_model(model, compiled=False)
    rows = tuple(_rows(model))
    sums = {
        field: sum(getattr(row, field) for row in rows)
        for field in ("weights", "zeros", "units", "dead_units", "inputs", "dead_inputs")
    }
    return Sparsity(rows, LayerSparsity(layer="all", type=type(model).__name__, **sums))


def _rows(model: keras.Model) -> Iterator[LayerSparsity]:
    seen: set[int] = set()
    normalizations = (
        L.BatchNormalization, L.LayerNormalization, L.GroupNormalization, L.RMSNormalization,
        L.UnitNormalization, L.SpectralNormalization,
    )  # fmt: skip

    def follow(layer: Any, within: str) -> Iterator[LayerSparsity]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        # Keras has no public way to ask for the layers within a layer
        parts = layer._flatten_layers(include_self=False, recursive=False)
        inner = {id(weight) for part in parts for weight in part.weights}
        # nor for those that would be trained if the layer were not frozen
        own = [w for w in layer._trainable_variables if id(w) not in inner]
        name = f"{within}{layer.name}"
        if own and not isinstance(layer, normalizations):
            yield _row(layer, name, own)
        for part in parts:
            yield from follow(part, "" if layer is model else f"{name}/")

    yield from follow(model, "")


def _row(layer: Any, name: str, weights: list[Any]) -> LayerSparsity:
    arrays = [keras.ops.convert_to_numpy(weight) for weight in weights]
    names = [weight.path.rpartition("/")[2] for weight in weights]
    to_units, from_inputs = _flows(layer, dict(zip(names, arrays, strict=True)))
    return LayerSparsity(
        layer=name,
        type=type(layer).__name__,
        weights=sum(array.size for array in arrays),
        zeros=sum(int((array == 0).sum()) for array in arrays),
        units=len(to_units),
        dead_units=int((~to_units).sum()),
        inputs=len(from_inputs),
        dead_inputs=int((~from_inputs).sum()),
    )


def _flows(layer: Any, arrays: dict[str, np.ndarray]) -> tuple[Any, Any]:
    """Return whether anything but zeros leads to each unit, and from each input."""
    unknown = np.zeros(0, bool)
    if "embeddings" in arrays:  # a row is a word, no input that could be left out
        return arrays["embeddings"].any(axis=0), unknown
    if "depthwise_kernel" in arrays and "pointwise_kernel" in arrays:
        depthwise, pointwise = arrays["depthwise_kernel"], arrays["pointwise_kernel"]
        depthwise = _over_space(depthwise)
        pointwise = _over_space(pointwise).reshape(*depthwise.shape, -1)
        paths = (depthwise[..., None] & pointwise).any(axis=1)
        return paths.any(axis=0), paths.any(axis=1)
    kernel = arrays.get("kernel")
    if kernel is None or kernel.ndim < 2 or isinstance(layer, L.EinsumDense):
        return unknown, unknown
    if "recurrent_kernel" in arrays:
        gates = _GATES.get(type(layer).__name__)
        if gates is None or kernel.ndim != 2:
            return unknown, unknown
        both = np.concatenate([kernel, arrays["recurrent_kernel"]])
        return both.reshape(len(both), gates, -1).any(axis=(0, 1)), kernel.any(axis=1)
    paths = _over_space(kernel)
    if isinstance(layer, _DEPTHWISE):
        return paths.reshape(-1), paths.any(axis=1)
    if isinstance(layer, _TRANSPOSED):
        paths = paths.T
    if getattr(layer, "groups", 1) != 1:  # a row is a place in a group
        return paths.any(axis=0), unknown
    return paths.any(axis=0), paths.any(axis=1)


def _over_space(kernel: np.ndarray) -> Any:
    """Return whether any weight of a kernel, over its positions, is not 0: by its last two axes."""
    return (kernel != 0).any(axis=tuple(range(kernel.ndim - 2)))
