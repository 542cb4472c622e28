"""L2 is a Gaussian prior and L1 a Laplace prior on the weights.

Source: Bishop, "Pattern Recognition and Machine Learning", 2006, section 3.3; Tibshirani, 1996,
    section 5 (the lasso as a posterior mode); Park, Casella, "The Bayesian Lasso", 2008.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import Lasso, Ridge

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

GAUSSIAN, LAPLACE = "Gaussian", "Laplace"
L1, L2 = "L1", "L2"
_ROWS = 60
_NOISE = 1.0  # standard deviation σ of the targets
_SPREAD = 0.3  # standard deviation of the weights
_FACTORS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)
_STEPS = 50  # of an epoch
_EPOCHS = 30


def derived_lambda(penalty: str) -> float:
    """Return the λ at which Keras's penalized mean squared error is -log of the posterior.

    Times 2σ² / n the posterior is Σ(y - ŷ)² / n + σ² / (n τ²) Σw² for a Gaussian prior of deviation
    τ, and Σ(y - ŷ)² / n + 2σ² / (n b) Σ|w| for a Laplace prior of scale b = τ / √2.
    """
    if penalty == L2:
        return _NOISE**2 / (_ROWS * _SPREAD**2)
    return 2 * _NOISE**2 / (_ROWS * _SPREAD / np.sqrt(2))


def measure(scale: Scale) -> pd.DataFrame:
    split = diabetes(scale, train=_ROWS)
    x = split.train[0]
    rng = np.random.default_rng(scale.seed)
    draws = 2 if scale.quick else 40
    shape = (x.shape[1], draws)
    weights = {
        GAUSSIAN: rng.normal(0, _SPREAD, shape),
        LAPLACE: rng.laplace(0, _SPREAD / np.sqrt(2), shape),
    }
    true = np.concatenate(list(weights.values()), axis=1)
    y = x @ true + rng.normal(0, _NOISE, (len(x), true.shape[1]))
    epochs, steps = scale.epochs(_EPOCHS), 2 if scale.quick else _STEPS
    outputs = true.shape[1]

    def build(penalty: str, factor: float, seed: int) -> keras.Model:
        # Keras takes the mean over outputs, of which each has a penalty of its own
        strength = factor * derived_lambda(penalty) / outputs
        regularization = kregs.Regularization(**{penalty.lower(): strength})
        model = kregs.linear(
            (x.shape[1],), outputs, regularization=regularization, use_bias=False, seed=seed
        )
        rate = keras.optimizers.schedules.CosineDecay(0.1 * outputs, epochs * steps)
        return kregs.compile_model(model, "mse", optimizer=keras.optimizers.SGD(rate, momentum=0.9))

    settings: list[dict[str, Any]] = [
        {"penalty": penalty, "factor": factor}
        for penalty in (L1, L2)
        for factor in scale.values(_FACTORS[:4] if scale.quick else _FACTORS)
    ]
    trained = train(
        build,
        settings,
        seeds=[scale.seed],
        epochs=epochs,
        **full_batches((x, y.astype("float32")), steps),
    )
    frames = []
    for setting, model in zip(settings, trained.population.unstack(), strict=True):
        found = model.get_weights()[0]
        exact = _exact(x, y, setting["penalty"], setting["factor"])
        for number, prior in enumerate((GAUSSIAN, LAPLACE)):
            own = slice(number * draws, (number + 1) * draws)
            frames.append(
                pd.DataFrame(
                    {
                        "prior": prior,
                        **setting,
                        "seed": range(draws),
                        "error": np.mean((found[:, own] - true[:, own]) ** 2, axis=0),
                        "from_exact": np.abs(found[:, own] - exact[:, own]).max(axis=0),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def _exact(x: np.ndarray, y: np.ndarray, penalty: str, factor: float) -> np.ndarray:
    """Return the posterior's mode, which ridge regression and the lasso find exactly."""
    strength = factor * derived_lambda(penalty)
    if penalty == L2:
        model = Ridge(alpha=len(x) * strength, fit_intercept=False)
    else:
        model = Lasso(strength / 2, fit_intercept=False, tol=1e-8, max_iter=100_000)
    return model.fit(x.astype(float), y).coef_.T


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    ordered = runs.sort_values(["prior", "penalty", "factor"], kind="stable")
    return means(ordered, ["prior", "penalty", "factor"], ["error", "from_exact"])


def judge(runs: pd.DataFrame) -> Verdict:
    at_derived = chosen(runs, factor=1.0)
    apart = at_derived.groupby("penalty")["from_exact"].max()
    errors = runs.groupby(["prior", "penalty", "factor"])["error"].mean()
    best = {pair: errors[pair].idxmin() for pair in ((GAUSSIAN, L2), (LAPLACE, L1))}
    right_wrong = {
        prior: Difference.of(
            paired(
                chosen(at_derived, prior=prior, penalty=L2),
                chosen(at_derived, prior=prior, penalty=L1),
                "error",
            )
        )
        for prior in (GAUSSIAN, LAPLACE)
    }
    return Verdict(
        [
            Finding(
                "L2 finds the mode of the posterior of a Gaussian prior, L1 that of Laplace's",
                bool((apart < 0.01).all()),
                f"no weight is farther from it than {apart[L2]:.1g} (L2) and {apart[L1]:.1g} (L1)",
            ),
            Finding(
                "where weights are drawn from the prior, the λ that follows from it is best",
                all(factor == 1.0 for factor in best.values()),
                f"best: {best[GAUSSIAN, L2]:g} times it for L2 under the Gaussian, "
                f"{best[LAPLACE, L1]:g} times it for L1 under the Laplace prior",
            ),
            Finding(
                "for weights drawn from a Gaussian L2 is nearer to them",
                right_wrong[GAUSSIAN].below,
                f"squared error, L2 minus L1: {right_wrong[GAUSSIAN]}",
            ),
            Finding(
                "for weights drawn from a Laplace distribution L1 is nearer",
                right_wrong[LAPLACE].above,
                f"squared error, L2 minus L1: {right_wrong[LAPLACE]}",
            ),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    figure, both = panels(2, height=3.8)
    for axes, prior in zip(both, (GAUSSIAN, LAPLACE), strict=True):
        lines_with_errors(
            axes,
            chosen(runs, prior=prior),
            "factor",
            "error",
            "penalty",
            xlabel="λ, in times the one that follows from the prior",
            ylabel="squared error of the weights",
        )
        axes.set_title(f"weights drawn from a {prior} prior", fontsize=10)
    return finish(figure, "Which penalty finds weights that were drawn from a prior")
