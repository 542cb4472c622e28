"""How columns and targets are scaled, by NumPy in training and by Keras layers in the model."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
from sklearn.preprocessing import StandardScaler

from kregs.builders.layer_factory import chain
from kregs.layers import SmoothClip
from kregs.tables.transformers import SmoothClipScaler


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

    def transform(self, columns: np.ndarray) -> np.ndarray:
        """Return rows (n, columns) as the layers make them, float32."""
        scaled = (columns - self.center) / self.scale
        if self.clip is not None:
            numbers = scaled[:, : self.clipped]
            numbers /= np.hypot(1.0, numbers / self.clip)
        return scaled.astype("float32")

    def layers(self, name: str, *, invert: bool = False) -> list[keras.layers.Layer]:
        """Return the layers that do the same, or with `invert` go back; in float64.

        Which keeps what is small beside a column's mean. The numbers of `Normalization` are weights
        since Keras rounds its arguments `mean` and `variance` to float32.
        """
        layer = keras.layers.Normalization(invert=invert, dtype="float64", name=name)
        layer.build((None, len(self.center)))
        layer.set_weights([self.center, np.square(self.scale), np.zeros(())])
        layer.finalize_state()
        if self.clip is None:
            return [layer]
        clip = SmoothClip(self.clip, columns=self.clipped, dtype="float64", name="smooth_clip")
        return [layer, clip]


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
    center, scale = scaler.mean_, np.maximum(scaler.scale_, keras.backend.epsilon())
    if columns is not None:
        center[columns:], scale[columns:] = 0.0, 1.0
    return Scaling(center, scale)


def robust_scaling(rows: np.ndarray, *, columns: int) -> Scaling:
    """Return what `SmoothClipScaler` does with the first columns; the others stay as they are.

    Args: as of `standard_scaling`; the quartiles are those of the rows, whatever their weights.
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
