"""Dropout before batch normalization harms; behind the last one it does not.

Source: Li, Chen, Hu, Yang, "Understanding the Disharmony between Dropout and Batch Normalization by
    Variance Shift", CVPR 2019 (arXiv 1801.05134).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd

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

NONE, BEFORE, LAST = "no dropout", "before each batch norm", "before the output only"
BETWEEN = "after each activation"
_RATE = 0.5
_LAYERS = 3
# rates before the batch norms, and after the activations
_PLACES: dict[str, tuple[list[float], list[float]]] = {
    NONE: ([0.0] * _LAYERS, [0.0] * _LAYERS),
    BEFORE: ([_RATE] * _LAYERS, [0.0] * _LAYERS),
    BETWEEN: ([0.0] * _LAYERS, [_RATE] * _LAYERS),
    LAST: ([0.0] * _LAYERS, [*[0.0] * (_LAYERS - 1), _RATE]),
}


def build(before: list[float], after: list[float], seed: int) -> keras.Model:
    """Return a network whose rates are 0 where it has no dropout: all are of one structure."""
    layers: list[keras.layers.Layer] = [keras.Input((64,))]
    for number, rates in enumerate(zip(before, after, strict=True)):
        layers += [
            keras.layers.Dense(
                64,
                use_bias=False,
                kernel_initializer=keras.initializers.HeNormal(100 * seed + number),
            ),
            keras.layers.Dropout(rates[0]),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.Dropout(rates[1]),
        ]
    initializer = keras.initializers.GlorotUniform(100 * seed + _LAYERS)
    layers.append(keras.layers.Dense(10, "softmax", kernel_initializer=initializer))
    return compile_classifier(keras.Sequential(layers), learning_rate=2e-3)


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=500)
    trained = train(
        build,
        [{"before": before, "after": after} for before, after in _PLACES.values()],
        split.train,
        seeds=scale.seeds(5),
        names=[{"dropout": place} for place in _PLACES],
        epochs=scale.epochs(35),
        batch_size=50,
    )
    runs = trained.tested(split.test)
    models = trained.population.unstack()
    return runs.assign(variance_shift=[_shift(model, split.train[0]) for model in models])


def _shift(model: keras.Model, x: np.ndarray) -> float:
    """Return by what factor the variance that batch norms expect differs from what they get.

    Their moving variance was gathered with dropout, and the rows now come without; the mean factor
    over layers, by which it is too large or too small.
    """
    norms = [layer for layer in model.layers if "batch_norm" in layer.name]
    arriving = keras.Model(model.inputs[0], [layer.input for layer in norms])(x)
    ratios = [
        np.mean(norm.moving_variance.numpy()) / np.mean(np.var(values, axis=0))
        for norm, values in zip(norms, arriving, strict=True)
    ]
    return float(np.exp(np.mean(np.abs(np.log(ratios)))))


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    return means(runs, ["dropout"], ["variance_shift", "test_loss", "test_accuracy"])


def judge(runs: pd.DataFrame) -> Verdict:
    places = {place: chosen(runs, dropout=place) for place in _PLACES}
    shifts = {place: own["variance_shift"].mean() for place, own in places.items()}
    harm = Difference.of(paired(places[BEFORE], places[LAST], "test_loss"))
    against_none = Difference.of(paired(places[BEFORE], places[NONE], "test_loss"))
    last = Difference.of(paired(places[LAST], places[NONE], "test_loss"))
    return Verdict(
        [
            Finding(
                "dropout before batch norm shifts the variance that it expects",
                bool(shifts[BEFORE] > 1.5 * shifts[LAST]),
                f"by a factor of {shifts[BEFORE]:.2f}; {shifts[LAST]:.2f} behind the last one, "
                f"{shifts[NONE]:.2f} without dropout",
            ),
            Finding("it has a higher test loss than behind the last one", harm.above, f"by {harm}"),
            Finding("and than no dropout", against_none.above, f"by {against_none}"),
            Finding("behind the last one dropout harms nothing", not last.above, f"by {last}"),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, panels, points_with_errors

    figure, (left, right) = panels(2, height=2.8)
    points_with_errors(left, runs, "test_loss", "dropout", xlabel="test loss")
    label = "variance expected / arriving (1: no shift)"
    points_with_errors(right, runs, "variance_shift", "dropout", xlabel=label)
    right.set_yticklabels([])
    return finish(figure, f"Where dropout of {_RATE} stands in a network with batch norm")
