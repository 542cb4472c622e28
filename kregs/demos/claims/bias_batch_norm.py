"""A bias before batch normalization does nothing.

Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, section 3.2: "the bias b can be ignored
    since its effect will be canceled by the subsequent mean subtraction".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kregs.demos.measuring import (
    Difference,
    Finding,
    Scale,
    Verdict,
    chosen,
    digits,
    digits_mlp,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITH, WITHOUT = "batch norm, bias", "batch norm, no bias"
PLAIN = "no norm, bias"
_KINDS = {
    WITH: ("batch", True),
    WITHOUT: ("batch", False),
    PLAIN: (None, True),
}


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=600)
    frames = []
    for method, (normalization, use_bias) in _KINDS.items():
        trained = train(
            digits_mlp,
            [{"normalization": normalization, "use_bias": use_bias}],
            split.train,
            seeds=scale.seeds(5),
            epochs=scale.epochs(20),
            batch_size=64,
        )
        runs = trained.tested(split.test, method=method)
        if use_bias:
            rows = [part[:64] for part in split.train]
            models = trained.population.unstack()
            runs["bias_gradient"], runs["moved_output"] = zip(
                *(_effects(model, *rows) for model in models), strict=True
            )
        frames.append(runs[["method", *runs.columns.drop("method")]])
    return pd.concat(frames, ignore_index=True)


def _effects(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the bias's gradient over the kernel's, and what a bias of +1 does to the outputs.

    Both in training, where batch normalization subtracts the batch's own mean.
    """
    hidden = model.get_layer("dense_1")
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, outputs))
    kernel, bias = tape.gradient(loss, [hidden.kernel.value, hidden.bias.value])
    ratio = tf.reduce_max(tf.abs(bias)) / tf.reduce_max(tf.abs(kernel))
    hidden.bias.assign_add(np.ones(hidden.units))
    moved = tf.reduce_max(tf.abs(model(x, training=True) - outputs))
    return float(ratio), float(moved)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    columns = ["bias_gradient", "moved_output", "test_loss", "test_accuracy"]
    return means(runs, ["method"], columns)


def judge(runs: pd.DataFrame) -> Verdict:
    by_method = {method: chosen(runs, method=method) for method in _KINDS}
    gradient, plain_gradient = (by_method[m]["bias_gradient"].mean() for m in (WITH, PLAIN))
    moved, plain_moved = (by_method[m]["moved_output"].max() for m in (WITH, PLAIN))
    gain = Difference.of(paired(by_method[WITHOUT], by_method[WITH], "test_loss"))
    return Verdict(
        [
            Finding(
                "under batch norm the bias has no gradient",
                bool(gradient < 1e-3),
                f"{gradient:.1e} of the kernel's; {plain_gradient:.2g} without batch norm",
            ),
            Finding(
                "a bias of +1 changes no output in training",
                bool(moved < 1e-3),
                f"by {moved:.1e} at most; {plain_moved:.2g} without batch norm",
            ),
            Finding(
                "without it the test loss is the same",
                not (gain.above or gain.below),
                f"without minus with {gain}",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, panels, points_with_errors

    figure, (left, right) = panels(2, height=2.8)
    points_with_errors(left, runs, "test_loss", "method", xlabel="test loss")
    with_bias = runs[runs["bias_gradient"].notna()]
    points_with_errors(
        right, with_bias, "bias_gradient", "method", xlabel="largest gradient, bias / kernel"
    )
    right.set_xscale("log")
    return finish(figure, "The bias under batch norm: test loss and gradient (dots are seeds)")
