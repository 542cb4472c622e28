"""L1 sets weights to exactly zero, and L2 does not.

Source: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996; Goodfellow, Bengio,
    Courville, "Deep Learning", 2016, section 7.1.2. That a gradient step does not reach zero, and
    the step that does: Parikh, Boyd, "Proximal Algorithms", 2014, section 6.5.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from sklearn.linear_model import Lasso

import kregs
from kregs.demos.measuring import (
    Finding,
    Scale,
    Split,
    Verdict,
    chosen,
    diabetes,
    digits,
    digits_mlp,
    means,
    train,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

L1, L2 = "L1, Adam", "L2, Adam"
PROXIMAL, LASSO = "L1, proximal Adam", "lasso (scikit-learn)"
TABLE, DIGITS = "diabetes, linear", "digits, network"
_LAMBDAS = {TABLE: (0.01, 0.1, 0.3, 1.0), DIGITS: (1e-4, 1e-3, 1e-2)}
_LEARNING_RATE = 3e-3
_NEAR = 1e-3  # of the largest weight


def measure(scale: Scale) -> pd.DataFrame:
    table, images = diabetes(scale, train=300), digits(scale, train=400)
    return pd.concat(
        [
            _measured(scale, TABLE, _linear, table, epochs=scale.epochs(100)),
            _lassos(scale, table),
            _measured(scale, DIGITS, _network, images, epochs=scale.epochs(60)),
        ],
        ignore_index=True,
    )


def _linear(*, seed: int, optimizer: Any, **fields: Any) -> keras.Model:
    model = kregs.linear(
        (10,),
        1,
        kernel_initializer="glorot_uniform",
        regularization=kregs.Regularization(**fields),
        seed=seed,
    )
    return kregs.compile_model(model, "mse", optimizer=optimizer)


def _network(**options: Any) -> keras.Model:
    return digits_mlp(learning_rate=None, **options)


def _measured(scale: Scale, data: str, build: Any, split: Split, *, epochs: int) -> pd.DataFrame:
    frames = []
    for methods in ((L1, L2), (PROXIMAL,)):  # two optimizers, two populations
        settings = [
            (method, value) for method in methods for value in scale.values(_LAMBDAS[data], quick=1)
        ]
        trained = train(
            lambda method, value, seed: build(seed=seed, **_penalty(method, value)),
            [{"method": method, "value": value} for method, value in settings],
            split.train,
            seeds=scale.seeds(3),
            names=[{"data": data, "method": m, "strength": value} for m, value in settings],
            epochs=epochs,
        )
        runs = trained.tested(split.test)
        kernels = [_kernels(model) for model in trained.population.unstack()]
        frames.append(runs.assign(**_sparsity(kernels)))
    return pd.concat(frames, ignore_index=True)


def _penalty(method: str, value: float) -> dict[str, Any]:
    adam = keras.optimizers.Adam(_LEARNING_RATE)
    if method == PROXIMAL:
        return {"optimizer": kregs.proximal(adam, l1=value)}
    return {"optimizer": adam, "l1" if method == L1 else "l2": value}


def _kernels(model: keras.Model) -> np.ndarray:
    layers = [layer for layer in model.layers if hasattr(layer, "kernel")]
    return np.concatenate([layer.kernel.numpy().ravel() for layer in layers])


def _sparsity(kernels: list[np.ndarray]) -> dict[str, list[float]]:
    return {
        "exact_zeros": [float(np.mean(kernel == 0)) for kernel in kernels],
        "near_zero": [float(np.mean(abs(k) <= _NEAR * abs(k).max())) for k in kernels],
    }


def _lassos(scale: Scale, split: Split) -> pd.DataFrame:
    """Return what the exact minimum is, on the same rows."""
    (x, y), (x_test, y_test) = split.train, split.test
    strengths = scale.values(_LAMBDAS[TABLE], quick=1)
    lassos = [Lasso(value / 2).fit(x, y[:, 0]) for value in strengths]
    runs = pd.DataFrame({"strength": strengths})
    errors = [float(np.mean((lasso.predict(x_test) - y_test[:, 0]) ** 2)) for lasso in lassos]
    return runs.assign(
        data=TABLE,
        method=LASSO,
        seed=scale.seed,
        test_loss=errors,
        **_sparsity([lasso.coef_ for lasso in lassos]),
    )


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    return means(runs, ["data", "method", "strength"], ["exact_zeros", "near_zero", "test_loss"])


def judge(runs: pd.DataFrame) -> Verdict:
    zeros = runs.groupby("method")["exact_zeros"].max()
    near = runs.groupby("method")["near_zero"].max()
    return Verdict(
        [
            Finding(
                "the exact minimum under L1 has zeros",
                bool(zeros[LASSO] > 0),
                f"lasso: up to {zeros[LASSO]:.0%} of the weights",
            ),
            Finding(
                "Keras's L1 under Adam has zeros",
                bool(zeros[L1] > 0),
                f"up to {zeros[L1]:.1%} of the weights are 0, {near[L1]:.0%} are below "
                f"{_NEAR} of the largest",
            ),
            Finding(
                "with the proximal step it has",
                bool(zeros[PROXIMAL] > 0),
                f"up to {zeros[PROXIMAL]:.0%} of the weights",
            ),
            Finding("L2 has none", bool(zeros[L2] == 0), f"{zeros[L2]:.1%}"),
        ]
    )


def draw(runs: pd.DataFrame) -> Figure:
    from kregs.reporting.figures.measured import finish, lines_with_errors, panels

    figure, both = panels(2, height=3.8)
    for axes, data in zip(both, (TABLE, DIGITS), strict=True):
        words = {"xlabel": "λ", "ylabel": "share of weights that are exactly 0"}
        lines_with_errors(
            axes, chosen(runs, data=data), "strength", "exact_zeros", "method", **words
        )
        axes.set_yscale("linear")
        axes.set_ylim(-0.05, 1.05)
        axes.set_title(data, fontsize=10)
    return finish(figure, "Which penalty makes zeros", columns=4)
