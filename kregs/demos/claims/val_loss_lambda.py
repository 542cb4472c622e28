"""Choosing λ by `val_loss`, which contains the penalty, favours λ = 0.

Source: what Keras does: `val_loss` is the loss of the data plus `sum(model.losses)`; a model is to
    be chosen by its error on rows that it has not seen (Hastie, Tibshirani, Friedman, "The Elements
    of Statistical Learning", 2009, section 7.10).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import pandas as pd

import kregs
from kregs.demos.measuring import (
    Difference,
    Finding,
    Scale,
    Verdict,
    diabetes,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LAMBDAS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3)


def measure(scale: Scale) -> pd.DataFrame:
    split = diabetes(scale, train=100, validation=150)
    trained = train(
        _build,
        [{"l2": l2} for l2 in scale.values(_LAMBDAS)],
        split.train,
        seeds=scale.seeds(6),
        epochs=scale.epochs(150),
    )
    scores = trained.population.evaluate(*split.validation, batch_size=256)
    return trained.tested(split.test, val_loss=scores["loss"], val_data_loss=scores["data_loss"])


def _build(l2: float, seed: int) -> keras.Model:
    regularization = kregs.Regularization(l2=l2)
    model = kregs.mlp(
        (10,), 1, units=(32,), regularization=regularization, head_activation=None, seed=seed
    )
    return kregs.compile_model(model, "mse", learning_rate=3e-3)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    return means(runs, ["l2"], ["val_loss", "val_data_loss", "test_loss"])


def judge(runs: pd.DataFrame) -> Verdict:
    by_total, by_data = (_choices(runs, score) for score in ("val_loss", "val_data_loss"))
    zeros = int((by_total["l2"] == 0).sum())
    lower = int((paired(by_total, by_data, "l2") < 0).sum())
    price = Difference.of(paired(by_total, by_data, "test_loss"))
    return Verdict(
        [
            Finding(
                "`val_loss` chooses λ = 0",
                zeros > len(by_total) / 2,
                f"in {zeros} of {len(by_total)} seeds",
            ),
            Finding(
                "it chooses a smaller λ than `val_data_loss`",
                lower > len(by_total) / 2,
                f"in {lower} of {len(by_total)} seeds, median {by_total['l2'].median():.3g} "
                f"against {by_data['l2'].median():.3g}",
            ),
            Finding("that costs test loss", price.above, f"{price} more"),
        ]
    )


def _choices(runs: pd.DataFrame, score: str) -> pd.DataFrame:
    """Return the run of each seed that a score chooses."""
    return runs.loc[runs.groupby("seed")[score].idxmin()]


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    scores = {
        "val_loss": "val_loss (with the penalty)",
        "val_data_loss": "val_data_loss (without)",
        "test_loss": "test loss (without)",
    }
    melted = runs.rename(columns=scores).melt(
        ["l2", "seed"], list(scores.values()), var_name="score", value_name="loss"
    )
    figure, (axes,) = panels(1)
    lines_with_errors(axes, melted, "l2", "loss", "score", xlabel="λ of L2", ylabel="loss")
    return finish(figure, "val_loss rises with λ by the penalty alone", columns=2)
