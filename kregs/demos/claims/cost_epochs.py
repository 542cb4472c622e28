"""Regularization costs epochs: a network with dropout trains two to three times as long.

Source: Srivastava et al., "Dropout", JMLR 15, 2014, section 10: "A dropout network typically takes
    2-3 times longer to train than a standard neural network of the same architecture".
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
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

PLAIN = "none"
_METHODS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "L2, λ = 0.001": {"l2": 1e-3},
    "L2, λ = 0.003": {"l2": 3e-3},
    "dropout 0.2": {"dropout": 0.2},
    "dropout 0.5": {"dropout": 0.5},
    "both, 0.001 and 0.5": {"l2": 1e-3, "dropout": 0.5},
}
_MARGIN = 0.02  # of the lowest loss: curves are flat at their end


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=400, validation=300)
    trained = train(
        functools.partial(digits_mlp, learning_rate=5e-3),
        list(_METHODS.values()),
        split.train,
        seeds=scale.seeds(5),
        names=[{"method": name} for name in _METHODS],
        epochs=scale.epochs(150),
        validation_data=split.validation,
    )
    curves = trained.history("val_data_loss")
    lowest = curves.min(axis=1)
    # loss of the unregularized network of the same seed at its best, when is it reached?
    plain = {
        seed: low
        for method, seed, low in zip(
            trained.runs["method"], trained.runs["seed"], lowest, strict=True
        )
        if method == PLAIN
    }
    goals = np.array([plain[seed] for seed in trained.runs["seed"]])
    return trained.runs.assign(
        best_epochs=_first(curves, lowest * (1 + _MARGIN)),
        epochs_to_same=_first(curves, goals * (1 + _MARGIN)),
        best_val_loss=lowest,
    )


def _first(curves: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """Return the first epoch, from 1, at which each curve is at its goal; NaN if never."""
    reached = curves <= goals[:, None]
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.nan)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    return means(runs, ["method"], ["best_epochs", "epochs_to_same", "best_val_loss"])


def judge(runs: pd.DataFrame) -> Verdict:
    plain = chosen(runs, method=PLAIN)
    ratios, slower = [], []
    for method in [name for name in runs["method"].unique() if name != PLAIN]:
        own = chosen(runs, method=method)
        slower.append(Difference.of(paired(own, plain, "best_epochs")).above)
        ratio = own["best_epochs"].mean() / plain["best_epochs"].mean()
        ratios.append(f"{method}: {ratio:.1f} times")
    half = chosen(runs, method="dropout 0.5")
    ratio = half["best_epochs"].mean() / plain["best_epochs"].mean()
    same = half["epochs_to_same"].mean() / plain["epochs_to_same"].mean()
    return Verdict(
        [
            Finding(
                "every regularizer needs more epochs to its best", all(slower), ", ".join(ratios)
            ),
            Finding(
                "dropout of 0.5 needs two to three times as many",
                bool(2 <= round(ratio, 1) <= 3),
                f"{ratio:.1f} times",
            ),
            Finding(
                "so it does to come where the network without it was best",
                bool(same >= 2),
                f"{same:.1f} times",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, panels, points_with_errors

    figure, (left, right) = panels(2, height=3.2)
    label = f"epochs until within {_MARGIN:.0%} of its lowest loss"
    points_with_errors(left, runs, "best_epochs", "method", xlabel=label)
    points_with_errors(right, runs, "best_val_loss", "method", xlabel="lowest validation loss")
    return finish(figure, "What regularizers cost in epochs, and what they bring (dots are seeds)")
