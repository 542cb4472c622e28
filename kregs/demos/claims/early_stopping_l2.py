"""Early stopping acts as L2: τ steps of rate ε are λ = 1 / (2 ε τ).

Source: Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 7.8 (their α is 2λ here, since
    Keras's penalty has no factor 1/2); Bishop, "Regularization and complexity control in
    feed-forward networks", 1995.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

import kregs
from kregs.demos.measuring import (
    Difference,
    Finding,
    Scale,
    Verdict,
    chosen,
    diabetes,
    full_batches,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EARLY, RIDGE = "stopped after τ steps", "ridge regression"
_RATE = 0.01
_EPOCH = 10  # steps
_EPOCHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ROWS = 60  # few, so that there is something to restrain


def build(seed: int) -> keras.Model:
    model = kregs.linear((10,), 1, seed=seed)  # from zero, which the equivalence needs
    return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=_RATE)


def measure(scale: Scale) -> pd.DataFrame:
    epochs = scale.values(_EPOCHS[:2] if scale.quick else _EPOCHS)
    frames = []
    for seed in scale.seeds(4):
        split = diabetes(Scale(quick=scale.quick, seed=seed), train=_ROWS)
        trained = train(
            build,
            [{}] * len(epochs),
            seeds=[seed],
            names=[{"steps": _EPOCH * number} for number in epochs],
            epochs=epochs,
            **full_batches(split.train, _EPOCH),
        )
        runs = trained.tested(split.test, method=EARLY)
        weights = np.array([m.get_weights()[0][:, 0] for m in trained.population.unstack()])
        ridge = pd.DataFrame([_ridge(steps, *split.train, *split.test) for steps in runs["steps"]])
        norms = np.linalg.norm(np.stack(ridge["weights"]), axis=1)
        apart = np.linalg.norm(np.stack(ridge["weights"]) - weights, axis=1) / norms
        frames += [
            runs.assign(l2=ridge["l2"], apart=apart, norm=np.linalg.norm(weights, axis=1)),
            runs.assign(method=RIDGE, test_loss=ridge["test_loss"], l2=ridge["l2"], norm=norms),
        ]
    return pd.concat(frames, ignore_index=True)


def _ridge(steps: int, x, y, x_test, y_test) -> dict:
    """Return the ridge regression that so many steps correspond to."""
    l2 = 1 / (2 * _RATE * steps)
    ridge = Ridge(alpha=len(x) * l2).fit(x.astype(float), y[:, 0].astype(float))
    error = float(np.mean((ridge.predict(x_test) - y_test[:, 0]) ** 2))
    return {"l2": l2, "weights": ridge.coef_, "test_loss": error}


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    early, ridge = (
        means(chosen(runs, method=method), ["steps", "l2"], ["norm", "test_loss", *more])
        for method, more in ((EARLY, ["apart"]), (RIDGE, []))
    )
    return early.merge(ridge, on=["steps", "l2"], suffixes=("", "_ridge")).rename(
        columns={
            f"{name}{error}_ridge": f"{name}_ridge{error}"
            for name in ("norm", "test_loss")
            for error in ("", "_error")
        }
    )


def judge(runs: pd.DataFrame) -> Verdict:
    early, ridge = (chosen(runs, method=method) for method in (EARLY, RIDGE))
    apart = early.groupby("steps")["apart"].mean()
    best = {
        name: own.loc[own.groupby("seed")["test_loss"].idxmin()]
        for name, own in ((EARLY, early), (RIDGE, ridge))
    }
    gap = Difference.of(paired(best[EARLY], best[RIDGE], "test_loss"))
    start = early[early["steps"] == early["steps"].max()]
    gain = Difference.of(paired(start, best[EARLY], "test_loss"))
    return Verdict(
        [
            Finding(
                "stopping early lowers the test error", gain.above, f"by {gain} against the end"
            ),
            Finding(
                "the best along the steps is as good as the best along λ",
                abs(gap.mean) < max(2 * gap.error, 0.01),
                f"mean squared error higher by {gap}",
            ),
            Finding(
                "with λ = 1 / (2 ε τ) the weights are the same to 10 %",
                bool((apart < 0.1).all()),
                f"they are {apart.min():.0%} to {apart.max():.0%} apart",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    figure, (left, right) = panels(2, height=3.8)
    for axes, column, label in (
        (left, "test_loss", "test error (mean squared)"),
        (right, "norm", "norm of the weights"),
    ):
        words = "steps τ; ridge: λ = 1 / (2 ε τ)"
        lines_with_errors(axes, runs, "steps", column, "method", xlabel=words, ylabel=label)
    return finish(figure, "Gradient descent, stopped, and ridge regression: diabetes, 60 rows")
