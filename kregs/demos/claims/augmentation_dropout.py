"""Augmentation that fits the data does more than dropout, and both together do most.

Source: Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 7.4; Hernández-García, König,
    "Data augmentation instead of explicit regularization", arXiv 1806.03852.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

import kregs
from kregs.demos.measuring import (
    Difference,
    Finding,
    Scale,
    Verdict,
    chosen,
    compile_classifier,
    digits,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE, DROPOUT, SHIFTS, BOTH = "neither", "dropout 0.3", "shifts", "shifts and dropout 0.3"
_IMAGE = (8, 8, 1)
_LARGEST_SHIFT = 1  # pixel


def build(shifted: bool, dropout: float, seed: int) -> keras.Model:
    """Return a small convnet, with random shifts of its input in training if asked for."""
    layers = kregs.convnet(
        _IMAGE,
        10,
        filters=(8, 16),
        dense_units=(64,),
        rescaling=None,
        regularization=kregs.Regularization(dropout=dropout),
        seed=seed,
    ).layers
    front = [keras.Input(_IMAGE)]
    if shifted:
        shift = _LARGEST_SHIFT / _IMAGE[0]
        front.append(keras.layers.RandomTranslation(shift, shift, fill_mode="constant", seed=seed))
    return compile_classifier(keras.Sequential([*front, *layers]), learning_rate=2e-3)


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=150)
    images = {part: _as_images(getattr(split, part)) for part in ("train", "test")}
    moved = _moved(images["test"], scale.seed)
    frames = []
    for shifted, names in ((False, (NONE, DROPOUT)), (True, (SHIFTS, BOTH))):
        trained = train(
            build,
            [{"shifted": shifted, "dropout": rate} for rate in (0.0, 0.3)],
            images["train"],
            seeds=scale.seeds(4),
            names=[{"method": name} for name in names],
            epochs=scale.epochs(160),
            batch_size=50,
        )
        elsewhere = trained.tested(moved)
        frames.append(
            trained.tested(images["test"]).assign(
                moved_loss=elsewhere["test_loss"], moved_accuracy=elsewhere["test_accuracy"]
            )
        )
    return pd.concat(frames, ignore_index=True)


def _as_images(rows: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return rows[0].reshape(-1, *_IMAGE), rows[1]


def _moved(rows: tuple[np.ndarray, np.ndarray], seed: int) -> tuple[Any, np.ndarray]:
    """Return images that are moved by a pixel, each in one of eight directions."""
    images, y = rows
    steps = [(up, left) for up in (-1, 0, 1) for left in (-1, 0, 1) if (up, left) != (0, 0)]
    choices = np.random.default_rng(seed).integers(len(steps), size=len(images))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = _IMAGE[:2]
    moved = [
        image[1 + up : 1 + up + height, 1 + left : 1 + left + width]
        for image, (up, left) in zip(padded, (steps[k] for k in choices), strict=True)
    ]
    return np.stack(moved), y


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    columns = ["test_loss", "test_accuracy", "moved_loss", "moved_accuracy"]
    return means(runs, ["method"], columns)


def judge(runs: pd.DataFrame) -> Verdict:
    by_method = {method: chosen(runs, method=method) for method in runs["method"].unique()}

    def gain(first: str, second: str, column: str = "test_loss") -> Difference:
        return Difference.of(paired(by_method[first], by_method[second], column))

    over_dropout, over_none = gain(DROPOUT, SHIFTS), gain(NONE, SHIFTS)
    moved, added = gain(DROPOUT, SHIFTS, "moved_loss"), gain(SHIFTS, BOTH)
    return Verdict(
        [
            Finding("shifts of a pixel lower the test loss", over_none.above, f"by {over_none}"),
            Finding("by more than dropout does", over_dropout.above, f"by {over_dropout}"),
            Finding("so they do on moved test images", moved.above, f"by {moved}"),
            Finding("dropout adds to them", added.above, f"lower by {added}"),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, panels, points_with_errors

    figure, (left, right) = panels(2, height=2.8)
    points_with_errors(left, runs, "test_loss", "method", xlabel="test loss, images as they are")
    points_with_errors(right, runs, "moved_loss", "method", xlabel="test loss, moved by a pixel")
    right.set_yticklabels([])
    return finish(figure, "Shifts and dropout, a convnet on 150 digits (dots are seeds)")
