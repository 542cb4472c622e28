"""Under Adam weight decay is not L2, and it does better.

Source: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, propositions 1 and
    2, and figure 2 (the map of learning rate and λ).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.demos.measuring import (
    Difference,
    Finding,
    Scale,
    Verdict,
    digits,
    digits_mlp,
    means,
    paired,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

L2, DECAY = "Adam, L2", "AdamW, weight decay"
_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
_LAMBDAS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_DECAYS = (0.03, 0.1, 0.3, 1.0, 3.0)


def measure(scale: Scale) -> pd.DataFrame:
    split = digits(scale, train=60)
    settings, names = [], []
    for rate in scale.values(_RATES, quick=1):
        grid = [
            *((L2, strength) for strength in scale.values(_LAMBDAS)),
            *((DECAY, strength) for strength in scale.values(_DECAYS)),
        ]
        for method, strength in grid:
            number = "l2" if method == L2 else "weight_decay"
            settings.append({"learning_rate": rate, "weight_decay": 0.0} | {number: strength})
            names.append({"method": method, "learning_rate": rate, "strength": strength})
    trained = train(
        digits_mlp_adamw,
        settings,
        split.train,
        seeds=scale.seeds(3),
        names=names,
        epochs=scale.epochs(150),
    )
    scores = trained.population.evaluate(*split.validation, batch_size=256)
    runs = trained.tested(split.test, validation_loss=scores["data_loss"])
    return pd.concat([runs, *_twins(scale, split.train)], ignore_index=True)


def digits_mlp_adamw(**options: Any) -> Any:
    return digits_mlp(units=(32,), optimizer="adamw", **options)


def _twins(scale: Scale, rows: Any) -> list[pd.DataFrame]:
    """Train with L2 of λ and with a decay of 2λ, which under SGD is the same step."""
    frames = []
    for name, optimizer, rate in (("SGD", "sgd", 0.1), ("Adam", "adamw", 1e-3)):
        trained = train(
            lambda optimizer=optimizer, rate=rate, **options: digits_mlp(
                units=(32,), optimizer=optimizer, learning_rate=rate, **options
            ),
            # biases are not decayed, nor penalized
            [{"l2": 5e-3, "weight_decay": 0.0}, {"l2": 0.0, "weight_decay": 1e-2}],
            rows,
            seeds=scale.seeds(3),
            epochs=scale.epochs(100),
        )
        kernels = [
            np.concatenate([w.ravel() for w in model.get_weights()])
            for model in trained.population.unstack()
        ]
        half = len(kernels) // 2
        apart = [
            np.linalg.norm(a - b) / np.linalg.norm(b)
            for a, b in zip(kernels[:half], kernels[half:], strict=True)
        ]
        seeds = trained.runs["seed"][:half]
        frames.append(pd.DataFrame({"method": f"{name}: twins", "seed": seeds, "apart": apart}))
    return frames


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what is best at each learning rate, and how far twins end from each other."""
    searched = means(
        runs[runs["strength"].notna()],
        ["method", "learning_rate", "strength"],
        ["validation_loss", "test_loss", "test_accuracy"],
    )
    best = searched.loc[searched.groupby(["method", "learning_rate"])["validation_loss"].idxmin()]
    twins = means(runs[runs["apart"].notna()], ["method"], ["apart"])
    return pd.concat([best, twins], ignore_index=True)


def judge(runs: pd.DataFrame) -> Verdict:
    apart = runs.groupby("method")["apart"].mean()
    sgd, adam = apart["SGD: twins"], apart["Adam: twins"]
    best = {method: _best(runs, method) for method in (L2, DECAY)}
    gain = Difference.of(paired(best[L2], best[DECAY], "test_loss"))
    spans = {method: _span(runs, method) for method in (L2, DECAY)}
    return Verdict(
        [
            Finding(
                "under SGD, L2 of λ and a weight decay of 2λ are one thing",
                sgd < 1e-3,
                f"the weights end {sgd:.1e} apart, relative",
            ),
            Finding(
                "under Adam they are two", adam > 0.1, f"the weights end {adam:.2g} apart, relative"
            ),
            Finding(
                "at its best learning rate and strength weight decay has the lower test loss",
                gain.above,
                f"L2 minus decay {gain}",
            ),
            Finding(
                "the best strength of the decay depends less on the learning rate",
                spans[DECAY] < spans[L2],
                f"it moves over {spans[DECAY]:.1f} decades, that of L2 over {spans[L2]:.1f}",
            ),
        ]
    )


def _best(runs: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the runs of the learning rate and strength of the lowest mean validation loss."""
    own = runs[runs["method"] == method]
    groups = own.groupby(["learning_rate", "strength"])
    return groups.get_group(groups["validation_loss"].mean().idxmin())


def _span(runs: pd.DataFrame, method: str) -> float:
    """Return over how many decades the best strength moves with the learning rate."""
    own = runs[runs["method"] == method]
    grid = own.pivot_table(index="learning_rate", columns="strength", values="validation_loss")
    return float(np.ptp(np.log10(grid.idxmin(axis=1).to_numpy(float))))


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, panels, value_map

    figure, both = panels(2, height=3.8)
    searched = runs[runs["strength"].notna()]
    limits = (searched["validation_loss"].min(), searched["validation_loss"].max())
    for axes, method in zip(both, (L2, DECAY), strict=True):
        image = value_map(
            axes,
            searched[searched["method"] == method],
            "strength",
            "learning_rate",
            "validation_loss",
            limits=limits,
        )
        axes.set_title(method, fontsize=10)
        axes.set_xlabel("λ of L2" if method == L2 else "weight decay")
    both[0].set_ylabel("learning rate")
    bar = figure.colorbar(image, ax=both, label="validation loss", ticks=[0.5, 1, 2], format="%g")
    bar.minorticks_off()
    return finish(figure, "Mean validation loss; the lowest is framed")
