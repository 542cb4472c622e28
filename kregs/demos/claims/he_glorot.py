"""Deep ReLU networks need He's initialization: with Glorot's they stop learning.

Source: He et al., "Delving Deep into Rectifiers", ICCV 2015, section 2.2 and figure 3 (30 layers);
    Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import pandas as pd

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

HE, GLOROT = "he_normal", "glorot_normal"
_DEPTHS = (2, 8, 20)
_RATES = (0.003, 0.02)
_WIDTH = 48


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=600)
    frames = []
    for depth in (2, 3) if scale.quick else _DEPTHS:

        def build(kernel_initializer: str, rate: float, seed: int, depth=depth) -> keras.Model:
            return digits_mlp(
                seed=seed,
                units=(_WIDTH,) * depth,
                kernel_initializer=kernel_initializer,
                optimizer=keras.optimizers.SGD(rate, momentum=0.9),
                learning_rate=None,
            )

        trained = train(
            build,
            [
                {"kernel_initializer": name, "rate": rate}
                for name in (HE, GLOROT)
                for rate in scale.values(_RATES, quick=1)
            ],
            split.train,
            seeds=scale.seeds(4),
            epochs=scale.epochs(20),
        )
        starts = trained.runs[["kernel_initializer", "seed"]].apply(tuple, axis=1)
        signal_of = {
            (name, seed): _signal(build(name, _RATES[0], seed), split.train[0][:100])
            for name, seed in starts.unique()
        }
        loss = trained.history("data_loss")[:, -1]
        frames.append(
            trained.tested(
                split.test, depth=depth, signal=starts.map(signal_of), training_loss=loss
            )
        )
    runs = pd.concat(frames, ignore_index=True).rename(columns={"kernel_initializer": "method"})
    return _at_best_rates(runs)


def _signal(model: keras.Model, x) -> float:
    """Return the root mean square of the last hidden layer over that of the first, untrained."""
    hidden = [layer.output for layer in model.layers if "activation" in layer.name]
    first, last = keras.Model(model.inputs[0], [hidden[0], hidden[-1]])(x)
    return float(keras.ops.sqrt(keras.ops.mean(last**2) / keras.ops.mean(first**2)))


def _at_best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs at the learning rate of the lowest mean training loss of each setting."""
    kept = []
    for _, group in runs.fillna({"training_loss": float("inf")}).groupby(["depth", "method"]):
        best = group.groupby("rate")["training_loss"].mean().idxmin()
        kept.append(group[group["rate"] == best])
    return pd.concat(kept, ignore_index=True)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    columns = ["signal", "training_loss", "test_loss", "test_accuracy"]
    return means(runs, ["depth", "method", "rate"], columns)


def judge(runs: pd.DataFrame) -> Verdict:
    shallow, deep = runs["depth"].min(), runs["depth"].max()
    he, glorot = (chosen(runs, depth=deep, method=method) for method in (HE, GLOROT))
    flat = [chosen(runs, depth=shallow, method=method) for method in (HE, GLOROT)]
    gain = Difference.of(paired(he, glorot, "test_accuracy"))
    near = Difference.of(paired(flat[0], flat[1], "test_accuracy"))
    signals = he["signal"].mean(), glorot["signal"].mean()
    return Verdict(
        [
            Finding(
                f"through {deep} layers Glorot's signal vanishes and He's does not",
                bool(signals[1] < 0.05 < signals[0]),
                f"of the first layer's, {signals[1]:.2g} and {signals[0]:.2g} are left",
            ),
            Finding(
                f"{deep} layers learn more with He's",
                gain.above,
                f"test accuracy higher by {gain}",
            ),
            Finding(
                f"{shallow} layers do not care",
                not (near.above or near.below),
                f"difference {near}",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    figure, (left, right) = panels(2)
    for axes, column, label in (
        (left, "signal", "signal that arrives, untrained"),
        (right, "test_accuracy", "test accuracy after 20 epochs"),
    ):
        lines_with_errors(
            axes, runs, "depth", column, "method", xlabel="hidden layers", ylabel=label
        )
    return finish(figure, "He's and Glorot's initialization in ReLU networks")
