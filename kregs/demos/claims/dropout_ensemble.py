"""A network with dropout is an ensemble of networks.

Source: Srivastava et al., "Dropout", JMLR 15, 2014, sections 1 and 7.5 (one network with scaled
    weights against the average over masks); Gal, Ghahramani, "Dropout as a Bayesian Approximation",
    ICML 2016; Lakshminarayanan et al., "Deep Ensembles", NeurIPS 2017 (the true ones).
"""

from __future__ import annotations

import functools
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
    digits,
    digits_mlp,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENSEMBLE, MASKS, SCALED = "ensemble, no dropout", "one network, average of masks", "one network"
DROPOUT_ENSEMBLE = "ensemble, dropout"
_SIZES = (1, 2, 4, 8)
_MASKS = 64  # further masks cost no training
_RATE = 0.5


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=300)
    groups = 2 if scale.quick else 4
    sizes = scale.values(_SIZES[:2] if scale.quick else _SIZES)
    masks = [*sizes, _MASKS]
    first = scale.seed * 1000
    trained = train(
        functools.partial(digits_mlp, units=(128,)),
        [{"dropout": 0.0}, {"dropout": _RATE}],
        split.train,
        seeds=range(first, first + groups * max(sizes)),
        epochs=scale.epochs(60),
    )
    x, y = split.test
    predictions = trained.population.predict(x, batch_size=256)
    plain, dropped = np.split(predictions, 2)
    models = trained.population.unstack()[len(plain) :]
    rows = []
    for group in range(groups):
        members = slice(group * max(sizes), (group + 1) * max(sizes))
        masked = _masked(models[members.start], x, _MASKS)
        for kind, outputs, counts in (
            (ENSEMBLE, plain[members], sizes),
            (DROPOUT_ENSEMBLE, dropped[members], sizes),
            (MASKS, masked, masks),
        ):
            for size in counts:
                scores = _scores(outputs[:size].mean(axis=0), y)
                rows.append({"method": kind, "size": size, "seed": group} | scores)
        scores = _scores(dropped[members.start], y)
        rows += [{"method": SCALED, "size": size, "seed": group} | scores for size in masks]
    return pd.DataFrame(rows)


def _masked(model: keras.Model, x: np.ndarray, count: int) -> np.ndarray:
    """Return predictions with dropout on, a mask each, `(count, rows, classes)`."""
    repeated = np.tile(x, (count, 1))
    return np.asarray(model(repeated, training=True)).reshape(count, len(x), -1)


def _scores(probabilities: np.ndarray, y: np.ndarray) -> dict[str, float]:
    likelihood = np.clip(probabilities[np.arange(len(y)), y], 1e-7, 1.0)
    return {
        "test_loss": float(-np.log(likelihood).mean()),
        "test_accuracy": float((probabilities.argmax(axis=1) == y).mean()),
    }


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    # the network with scaled weights is one, whatever the size
    once = runs[(runs["method"] != SCALED) | (runs["size"] == runs["size"].min())]
    return means(once, ["method", "size"], ["test_loss", "test_accuracy"])


def judge(runs: pd.DataFrame) -> Verdict:
    own = {method: chosen(runs, method=method) for method in runs["method"].unique()}
    at_most = {method: chosen(part, size=part["size"].max()) for method, part in own.items()}
    size, masks = (own[method]["size"].max() for method in (ENSEMBLE, MASKS))
    one = chosen(runs, method=ENSEMBLE, size=1)
    averaging = Difference.of(paired(at_most[MASKS], at_most[SCALED], "test_loss"))
    gain = Difference.of(paired(one, at_most[SCALED], "test_loss"))
    gap = Difference.of(paired(at_most[SCALED], at_most[ENSEMBLE], "test_loss"))
    further = Difference.of(paired(at_most[SCALED], at_most[DROPOUT_ENSEMBLE], "test_loss"))
    return Verdict(
        [
            Finding(
                "one network with dropout does better than one without",
                gain.above,
                f"test loss lower by {gain}",
            ),
            Finding(
                f"its scaled weights do what the average of {masks} masks does",
                not (averaging.above or averaging.below),
                f"averaging changes the test loss by {averaging}",
            ),
            Finding(
                f"it is as good as a true ensemble of {size}",
                not gap.above,
                f"test loss higher by {gap}",
            ),
            Finding(
                "an ensemble of networks with dropout adds nothing to it",
                not further.above,
                f"test loss lower by {further}",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    figure, both = panels(2, height=3.8)
    for axes, column, label in zip(
        both, ("test_loss", "test_accuracy"), ("test loss", "test accuracy"), strict=True
    ):
        words = "networks, or masks, that are averaged"
        lines_with_errors(axes, runs, "size", column, "method", xlabel=words, ylabel=label)
    return finish(figure, "One network with dropout against true ensembles", columns=2)
