"""How columns and targets are scaled: by the same Keras layers in training and in the model."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

from kregs.builders.layer_factory import chain
from kregs.layers import SmoothClip
from kregs.tables.transformers import SmoothClipScaler

# between these, squares and Keras's smallest divisor, 1e-7, do no harm
_SMALLEST, _LARGEST = 1e-5, 1e15


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Less its centre, divided by its scale, each column of rows; then clipped, if so.

    Args:
        center, scale: (columns,), float64; an infinite scale makes 0 of a column.
        clip: the bound of `kregs.layers.SmoothClip`, or `None`.
        clipped: how many of the first columns are clipped.
    """

    center: np.ndarray
    scale: np.ndarray
    clip: float | None = None
    clipped: int = 0

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (n, columns) as the layers make them, float32."""
        for layer in self.layers("scaling"):
            rows = layer(rows)
        return np.asarray(rows, dtype="float32")

    def layers(self, name: str, *, invert: bool = False) -> list[keras.layers.Layer]:
        """Return the layers that do it, or with `invert` go back; in float64.

        Which keeps what is small beside a column's mean. The numbers of `Normalization` are weights
        since Keras rounds its arguments `mean` and `variance` to float32. Columns of tiny or huge
        numbers get units in which they are near 1 first.
        """
        extreme = np.isfinite(self.scale) & ((self.scale < _SMALLEST) | (self.scale > _LARGEST))
        units = np.where(extreme, self.scale, 1.0)
        layer = keras.layers.Normalization(invert=invert, dtype="float64", name=name)
        layer.build((None, len(units)))
        layer.set_weights([self.center / units, np.square(self.scale / units), np.zeros(())])
        layer.finalize_state()
        layers = [layer]
        if extreme.any():
            factors = units if invert else 1.0 / units
            rescaling = keras.layers.Rescaling(factors, dtype="float64", name=f"{name}_units")
            layers = [layer, rescaling] if invert else [rescaling, layer]
        if self.clip is not None:
            layers.append(
                SmoothClip(self.clip, columns=self.clipped, dtype="float64", name="smooth_clip")
            )
        return layers


def standard_scaling(
    rows: np.ndarray, weights: np.ndarray | None, *, columns: int | None = None
) -> Scaling:
    """Return each column's mean and standard deviation; the latter is 1 for a constant column.

    Args:
        rows: (n, columns).
        weights: of the rows, or `None`.
        columns: how many of the first ones are scaled; the others stay as they are.
    """
    scaler = StandardScaler().fit(rows, sample_weight=weights)
    center, scale = scaler.mean_, scaler.scale_
    if columns is not None:
        center[columns:], scale[columns:] = 0.0, 1.0
    return Scaling(center, scale)


def robust_scaling(rows: np.ndarray, *, columns: int) -> Scaling:
    """Return what `SmoothClipScaler` does with the first columns; the others stay as they are.

    Args:
        rows: (n, columns); the quartiles are theirs, whatever their weights.
        columns: how many of the first ones are scaled.
    """
    center, scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
    clip = SmoothClipScaler().clip
    if columns:
        scaler = SmoothClipScaler().fit(rows[:, :columns])
        center[:columns] = scaler.center_
        with np.errstate(divide="ignore"):  # a constant column becomes 0
            scale[:columns] = 1.0 / scaler.scale_
    return Scaling(center, scale, clip, columns)


def with_scaling(network: keras.Model, columns: Scaling, targets: Scaling | None) -> keras.Model:
    """Return the model from raw rows (n, columns) to what a network puts out, unscaled again.

    Args:
        network: of scaled rows.
        columns: how they were scaled.
        targets: the same of a regression's targets, or `None`.
    """
    # a Sequential would turn the columns into float32 before a layer sees them
    rows = keras.Input((len(columns.center),), dtype="float64", name="columns")
    flat = isinstance(network, keras.Sequential)
    layers = [*columns.layers("standardize"), *(network.layers if flat else [network])]
    if targets is not None:
        layers += targets.layers("target_units", invert=True)
    return keras.Model(rows, chain(rows, layers), name=network.name)
