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
    chosen,
    diabetes,
    digits,
    digits_mlp,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DIGITS, DIABETES = "digits", "diabetes"
_LAMBDAS = (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 0.1)


def measure(scale: Scale) -> pd.DataFrame:
    splits = {
        DIGITS: (_classifier, digits(scale, train=60)),
        DIABETES: (_regression, diabetes(scale, train=100, validation=150)),
    }
    frames = []
    for data, (build, split) in splits.items():
        trained = train(
            build,
            [{"l2": l2} for l2 in scale.values(_LAMBDAS)],
            split.train,
            seeds=scale.seeds(5),
            epochs=scale.epochs(120),
        )
        scores = trained.population.evaluate(*split.validation, batch_size=256)
        frames.append(
            trained.tested(
                split.test, data=data, val_loss=scores["loss"], val_data_loss=scores["data_loss"]
            )
        )
    return pd.concat(frames, ignore_index=True)


def _classifier(l2: float, seed: int) -> keras.Model:
    return digits_mlp(l2=l2, units=(32,), learning_rate=3e-3, seed=seed)


def _regression(l2: float, seed: int) -> keras.Model:
    regularization = kregs.Regularization(l2=l2)
    model = kregs.mlp(
        (10,), 1, units=(32,), regularization=regularization, head_activation=None, seed=seed
    )
    return kregs.compile_model(model, "mse", learning_rate=3e-3)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    return means(runs, ["data", "l2"], ["val_loss", "val_data_loss", "test_loss"])


def judge(runs: pd.DataFrame) -> Verdict:
    findings = []
    for data, own in runs.groupby("data", sort=False):
        by_total, by_data = (_choices(own, score) for score in ("val_loss", "val_data_loss"))
        zeros = int((by_total["l2"] == 0).sum())
        price = Difference.of(paired(by_total, by_data, "test_loss"))
        findings += [
            Finding(
                f"on {data} `val_loss` chooses λ = 0",
                zeros > len(by_total) / 2,
                f"in {zeros} of {len(by_total)} seeds, at the median {by_total['l2'].median():g}; "
                f"`val_data_loss` {by_data['l2'].median():g}",
            ),
            Finding(f"on {data} that costs test loss", price.above, f"{price} more"),
        ]
    return Verdict(findings)


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
        ["data", "l2", "seed"], list(scores.values()), var_name="score", value_name="loss"
    )
    figure, both = panels(2)
    for axes, data in zip(both, (DIGITS, DIABETES), strict=True):
        own = chosen(melted, data=data)
        lines_with_errors(axes, own, "l2", "loss", "score", xlabel="λ of L2", ylabel="loss")
        axes.set_title(data, fontsize=10)
    return finish(figure, "What val_loss and val_data_loss say of λ")
