"""Bad inputs of audits, diagnoses, range tests, sparsity, uncertainty, calibration, proximal steps."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
from harness import NO_COUNTS, NO_FINITE, NO_NUMBERS, NO_RATES, NO_SEEDS, Bad, Case, Lazy, bad

import kregs

NO_MODELS = (None, "model.keras", 3, [], keras.Sequential, Lazy(lambda: keras.layers.Dense(3)))
NOT_BELOW_0 = tuple(v for v in (*NO_NUMBERS, *NO_FINITE, -0.1) if v is not None)
X, Y = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) % 3


@functools.cache
def network() -> keras.Model:
    """Return a compiled classifier of 4 inputs and 3 classes, with dropout."""
    r = kregs.Regularization(dropout=0.2, l2=1e-3)
    model = kregs.mlp((4,), 3, units=(5,), regularization=r, seed=0)
    return kregs.compile_model(model, "sparse_categorical_crossentropy", metrics=["accuracy"])


@functools.cache
def not_compiled() -> keras.Model:
    return kregs.mlp((4,), 3, units=(5,), seed=0)


@functools.cache
def mostly_right() -> np.ndarray:
    """Return labels of which the network predicts three wrongly, so that a temperature fits."""
    predicted = network().predict(X, verbose=0).argmax(axis=1)
    predicted[:3] = (predicted[:3] + 1) % 3
    return predicted


def not_built() -> keras.Model:
    return keras.Sequential([keras.layers.Dense(3)])


def looking_at_a_model() -> list[Case]:
    model = Lazy(network)
    cases = bad(
        kregs.audit,
        {"model": model},
        {
            "model": NO_MODELS,
            "optimizer": ["adma", 3, keras.optimizers.SGD],
            "callbacks": [3, ["early_stopping"], [keras.callbacks.EarlyStopping], [None]],
            "batch_size": [v for v in NO_COUNTS if v is not None],
            "ignore": ["KR999", ["KR999"], 3, [3]],
            "loss": ["nonsense", 5, ["mse"], keras.losses.Loss],
            "x": ["rows", 3, np.zeros((12, 3)), np.zeros((0, 4)), np.full((12, 4), math.nan)],
            "y": [
                Bad(Y, "`x`|`y`"),
                *(Bad(v, "`y`", call={"x": X}) for v in (np.arange(5), "labels", Y.astype(str))),
            ],
        },
    )
    cases += bad(
        kregs.penalties,
        {"model": model, "x": X, "y": Y},
        {
            "model": [*NO_MODELS, Lazy(not_built)],
            "x": ["rows", np.zeros((12, 3), "float32"), np.zeros((0, 4), "float32")],
            "y": [np.arange(5), "labels"],
            "batch_size": NO_COUNTS,
        },
    )
    cases += bad(
        kregs.gradient_flow,
        {"model": model, "x": X, "y": Y},
        {
            "model": [*NO_MODELS, Bad(Lazy(not_compiled), "compile")],
            "x": [None, "rows", np.zeros((12, 3), "float32"), np.zeros((0, 4), "float32")],
            "y": [None, np.arange(5), "labels"],
            "rows": [v for v in NO_COUNTS if v is not None],
            "vanishing": NOT_BELOW_0,
            "exploding": NOT_BELOW_0,
        },
    )
    cases += bad(kregs.sparsity, {}, {"model": [*NO_MODELS, Lazy(not_built)]})
    return cases + bad(kregs.shrink, {}, {"model": [*NO_MODELS, Lazy(not_built)]})


def _is_large(value: object) -> bool:
    """Whether it is the one that is finite, and so a loss."""
    return isinstance(value, float) and value == 1e300


def looking_at_a_training() -> list[Case]:
    curve = {"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.6, 0.7]}
    return bad(
        kregs.diagnose,
        {"history": curve},
        {
            "history": [
                None, 3, "history.csv", [], {}, {"accuracy": [0.1, 0.2]}, {"loss": []},
                {"loss": ["a", "b"]}, {"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.8]}, {"loss": 0.5},
                keras.callbacks.History,
            ],
            "baseline": [v for v in (*NO_NUMBERS, *NO_FINITE) if v is not None and not _is_large(v)],
            "held_out": [v for v in NO_NUMBERS if v is not None],
            "best_epoch": [v for v in (*NO_COUNTS, 9) if v is not None],
        },
    )  # fmt: skip


def range_tests() -> list[Case]:
    common = {
        "x": [None, "rows", np.zeros((12, 3), "float32"), np.zeros((0, 4), "float32")],
        "y": [None, np.arange(5), "labels"],
        "batch_size": NO_COUNTS,
        "seeds": NO_COUNTS,
        "seed": NO_SEEDS,
        "steps": [v for v in NO_COUNTS if v is not None],
        "epochs": [v for v in NO_COUNTS if v is not None],
        "build_or_model": [
            None, "mlp", 3, Lazy(lambda: keras.layers.Dense(1)),
            Bad(Lazy(not_compiled), "build_or_model|compile"),
        ],
        "validation_split": [v for v in NO_RATES if v not in (0.1, [0.1])],
    }  # fmt: skip
    good = {"build_or_model": Lazy(network), "x": X, "y": Y}
    rates = [3, "fast", [], [0.0], [-0.1], ["a"], [math.nan], [None]]
    cases = bad(kregs.learning_rate_curve, good, {**common, "learning_rates": rates})
    values = [3, "strong", [], [-0.1], ["a"], [math.nan], [None]]
    penalties = ["l3", "", None, 3, ["l2"]]
    return cases + bad(
        kregs.penalty_curve, good, {**common, "values": values, "penalty": penalties}
    )


def sparse_training() -> list[Case]:
    cases = bad(
        kregs.proximal,
        {"optimizer": "adam"},
        {
            "optimizer": ["adma", "", None, 3, keras.optimizers.SGD, ["adam"], "muon"],
            "l1": NOT_BELOW_0,
            "group_l1": NOT_BELOW_0,
            "variables": ["kernel", 3, ["("], [3]],
            "model": ["mlp", 3, Lazy(lambda: keras.layers.Dense(1))],
        },
    )

    def build(proximal_l1: float) -> keras.Model:
        r = kregs.Regularization(proximal_l1=proximal_l1)
        model = kregs.linear((4,), 3, regularization=r)
        return kregs.compile_model(model, "sparse_categorical_crossentropy", regularization=r)

    return cases + bad(
        kregs.feature_selection,
        {"build": build, "x": X, "y": Y, "proximal_l1": [0.1], "epochs": 1, "folds": 2},
        {
            "build": [None, "linear", 3],
            "x": [None, "rows", np.zeros((0, 4), "float32"), X[:, 0]],
            "y": [None, np.arange(5)],
            "folds": [None, "five", 1, 0, 2.5, True, 13],
            "epochs": NO_COUNTS,
            "batch_size": NO_COUNTS,
            "threshold": [*NOT_BELOW_0, 0.5, 1.5],
            "names": [["a"], "abcd", 3, ["a", "b", "c", "c"]],
            "seed": NO_SEEDS,
            "proximal_l1": [[], 0.1, ["a"], [-1.0], [math.nan]],
        },
    )


def uncertainty() -> list[Case]:
    model = Lazy(network)
    cases = bad(
        kregs.mc_dropout,
        {"model": model, "x": X, "samples": 2},
        {
            "model": [*NO_MODELS, Bad(Lazy(not_compiled), "dropout")],
            "x": [None, "rows", np.zeros((12, 3), "float32"), np.zeros((0, 4), "float32")],
            "samples": NO_COUNTS,
            "batch_size": NO_COUNTS,
            "seed": NO_SEEDS,
            "from_logits": [0, 1, "yes", []],
            "output": ["nothing", 3, -2, True, 1.5],
        },
    )
    cases += bad(
        kregs.ensemble,
        {"models": Lazy(lambda: [network(), network()])},
        {
            "models": [None, "two", [], 3, Lazy(network), Lazy(lambda: [network(), None])],
            "how": ["average", "", None, 3, ["mean"]],
            "weights": [[1.0], "ab", 3, [0, 0], [-1, 1], [math.nan, 1], ["a", "b"]],
        },
    )
    common = {
        "from_logits": [0, 1, "yes", []],
        "bins": NO_COUNTS,
        "batch_size": NO_COUNTS,
    }
    cases += bad(
        kregs.calibration,
        {"model": model, "x": X, "y": Y},
        {
            "model": [
                None,
                "model.keras",
                3,
                keras.Sequential,
                Bad(np.zeros((0, 3)), "`model`", r"\(0, 3\)", call={"x": None}),
            ],
            "x": ["rows", np.zeros((12, 3), "float32"), np.zeros((0, 4), "float32")],
            "y": [None, np.arange(5), "labels", np.full(12, 7), np.full(12, -1)],
            **common,
        },
    )
    return cases + bad(
        kregs.temperature_scaling,
        {"model": model, "x_val": X, "y_val": Lazy(mostly_right)},
        {
            "model": [*NO_MODELS],
            "x_val": [None, "rows", np.zeros((12, 3), "float32"), np.zeros((0, 4), "float32")],
            "y_val": [None, np.arange(5), "labels", np.full(12, 7)],
            "test_data": [3, "rows", (X,), (X, Y, Y, Y)],
            **common,
        },
    )


def cases(folder: str) -> list[Case]:
    return [
        *looking_at_a_model(),
        *looking_at_a_training(),
        *range_tests(),
        *sparse_training(),
        *uncertainty(),
    ]


def good_calls(folder: str) -> dict:
    """Return calls without the bad value, which must pass: else the cases prove nothing."""
    curve = {"loss": [1.0, 0.5, 0.4], "val_loss": [1.0, 0.6, 0.7]}
    return {
        "audit": lambda: kregs.audit(
            network(),
            x=X,
            y=Y,
            loss="sparse_categorical_crossentropy",
            batch_size=np.int64(2),
            ignore=["KR001"],
        ),
        "penalties": lambda: kregs.penalties(network(), X, Y),
        "gradient_flow": lambda: kregs.gradient_flow(network(), X, Y),
        "sparsity": lambda: kregs.sparsity(network()),
        "shrink": lambda: kregs.shrink(network()),
        "diagnose": lambda: kregs.diagnose(curve, baseline=1.1, held_out=np.float32(0.7)),
        "learning_rate_curve": lambda: kregs.learning_rate_curve(
            network(), X, Y, learning_rates=[0.1, 0.2], steps=1
        ),
        "penalty_curve": lambda: kregs.penalty_curve(network(), X, Y, values=[0, 0.1], epochs=1),
        "proximal": lambda: kregs.proximal("adam", l1=np.float32(0.1), group_l1=0),
        "mc_dropout": lambda: kregs.mc_dropout(network(), X, samples=2),
        "ensemble": lambda: kregs.ensemble([network(), network()], weights=[1, 2]),
        "calibration": lambda: kregs.calibration(network(), X, Y),
        "temperature_scaling": lambda: kregs.temperature_scaling(network(), X, mostly_right()),
    }
