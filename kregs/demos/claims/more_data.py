"""Twice the data is worth more than the best λ.

Source: Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 11.3: "it is often much better
    to gather more data than to improve the learning algorithm"; Banko, Brill, "Scaling to Very Very
    Large Corpora for Natural Language Disambiguation", ACL 2001.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

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

_SIZES = (50, 100, 200, 400)
_LAMBDAS = (0.0, 3e-4, 1e-3, 3e-3)
_STEPS = 400
_BATCH = 25


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=400)
    x, y = split.train
    frames = []
    for size in [10, 20] if scale.quick else _SIZES:
        trained = train(
            digits_mlp,
            [{"l2": l2} for l2 in scale.values(_LAMBDAS)],
            (x[:size], y[:size]),
            seeds=scale.seeds(4),
            epochs=scale.epochs(_STEPS * _BATCH // size),  # as many steps whatever the size
            batch_size=_BATCH,
        )
        scores = trained.population.evaluate(*split.validation, batch_size=256)
        runs = trained.tested(split.test, validation_loss=scores["data_loss"])
        frames.append(runs.assign(rows=size))
    return pd.concat(frames, ignore_index=True)


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """Return, for each number of rows, what no λ reaches and what the best one does."""
    best = pd.concat([_at_best(runs, size).assign(λ="best") for size in runs["rows"].unique()])
    compared = pd.concat([chosen(runs, l2=0.0).assign(λ="none"), best]).sort_values(
        ["rows", "λ"], ascending=[True, False], kind="stable"
    )
    return means(compared, ["rows", "λ", "l2"], ["test_loss", "test_accuracy"])


def judge(runs: pd.DataFrame) -> Verdict:
    sizes = sorted(runs["rows"].unique())
    wins, gains = 0, []
    for size, twice in itertools.pairwise(sizes):
        plain = chosen(runs, rows=size, l2=0.0)
        by_data = Difference.of(paired(plain, chosen(runs, rows=twice, l2=0.0), "test_loss"))
        by_lambda = Difference.of(paired(plain, _at_best(runs, size), "test_loss"))
        wins += by_data.mean > by_lambda.mean
        gains.append(f"{size} rows: {by_data.mean:.3f} against {by_lambda.mean:.3f}")
    first, last = (
        Difference.of(paired(chosen(runs, rows=n, l2=0.0), _at_best(runs, n), "test_loss"))
        for n in (sizes[0], sizes[-1])
    )
    return Verdict(
        [
            Finding(
                "twice the rows take more from the test loss than the best λ",
                wins == len(sizes) - 1,
                "; ".join(gains),
            ),
            Finding(
                "the more data, the less λ gains",
                first.above and first.mean > last.mean + 2 * last.error,
                f"{first} with {sizes[0]} rows, {last} with {sizes[-1]}",
            ),
        ]
    )


def _at_best(runs: pd.DataFrame, size: int) -> pd.DataFrame:
    """Return the runs of the λ of the lowest mean validation loss."""
    own = chosen(runs, rows=size)
    return chosen(own, l2=own.groupby("l2")["validation_loss"].mean().idxmin())


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    figure, (left, right) = panels(2, height=3.8)
    best = pd.concat([_at_best(runs, size) for size in runs["rows"].unique()])
    compared = pd.concat(
        [chosen(runs, l2=0.0).assign(method="no penalty"), best.assign(method="best λ of L2")]
    )
    for axes, column, label in (
        (left, "test_loss", "test loss"),
        (right, "test_accuracy", "test accuracy"),
    ):
        lines_with_errors(
            axes, compared, "rows", column, "method", xlabel="rows to train on", ylabel=label
        )
    return finish(figure, "More data against more λ, each trained for as many steps")
