"""Bad inputs of `Population`: models, seeds, and the arguments of fit, evaluate and predict."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf
from data_values import ROWS, bad_data, spoilt
from harness import NO_COUNTS, NO_FLAGS, NO_SEEDS, Bad, Case, Lazy, bad

import kregs
from kregs import Population


def member(l2: float = 0.0, units: int = 5, loss: object = "sparse_categorical_crossentropy"):
    model = kregs.mlp((4,), 3, units=(units,), regularization=kregs.Regularization(l2=l2), seed=0)
    return kregs.compile_model(model, loss) if loss is not None else model


def weights(x: np.ndarray) -> list:
    ones = np.ones(ROWS)
    return [
        -ones, 0 * ones, spoilt(ones, -1), spoilt(ones, np.nan), spoilt(ones, np.inf), ones[:-1],
        np.ones((ROWS, 2)), np.ones((ROWS, 1)), "balanced", 1.0, True, [], {}, {0: 1.0},
        ones.astype(complex), ones.astype("<U3"), ones.astype(object), np.ones(1),
    ]  # fmt: skip


NO_CLASS_WEIGHTS = (
    "balance", "", 1.0, True, [1.0, 2.0], {0: -1.0}, {0: math.nan}, {0: "1"}, {0: None}, {"0": 1.0},
    {None: 1.0}, {0.5: 1.0}, {True: 1.0}, {0: math.inf}, {0: [1.0]},
    {(0, 1): 1.0}, np.ones(3), {0: True},
)  # fmt: skip


def from_models() -> list[Case]:
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    twin = member()
    two_losses = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    subclassed = Subclassed()
    subclassed.compile("sgd", "mse")
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("sgd", "mse")
    models = [
        None, 3, "mlp", [], (), member(), [None], [3], ["mlp"], [member(loss=None)], [two_losses],
        [subclassed], [unbuilt], [keras.Sequential], [member(), member(units=6)],
        [member(), member(loss="categorical_crossentropy")], [twin, twin], {}, True,
        Lazy(lambda: iter([])),
    ]  # fmt: skip
    words = r"models?\b|members?\b|layer|subclass"
    return bad(
        Population.from_models,
        {"models": [member(), member(0.1)]},
        {
            "models": [Bad(value, words) for value in models],
            "seeds": [
                None, *(v for v in NO_SEEDS), [0], [0, 1, 2], [0, -1], [0, 2**32], [0, "1"],
                [0, None], [0, 1.5], "01", np.array([0.5, 1.5]),
            ],
        },
    )  # fmt: skip


def methods() -> list[Case]:
    good, xs, ys = bad_data("classes")
    x, y = good["x"], good["y"]
    population = Population.from_models([member(), member(0.1)])
    early = kregs.early_stopping("val_loss")

    def dataset(*parts: np.ndarray) -> Lazy:
        return Lazy(lambda: tf.data.Dataset.from_tensor_slices(parts).batch(8))

    class NoCallback:
        pass

    validation = [
        "x", 3, True, (), (x,), (x, y, None, None), x, {"x": x}, (x, None), (None, y), (x[:5], y),
        (spoilt(x, np.nan), y), (x, y + 5), (x, y, -np.ones(ROWS)), (x[:, :2], y), (x[:0], y[:0]),
        (x.astype(complex), y), (x, np.array(["a"] * ROWS)),
    ]  # fmt: skip
    counts = [value for value in NO_COUNTS if value is not None]
    cases = bad(
        population.fit,
        {"x": x, "y": y},
        {
            "x": [*xs, Bad(dataset(x, y), "`y`")],
            "y": ys,
            "validation_data": validation,
            "epochs": [*NO_COUNTS, [1], [1, 2, 3], [1, 0], [1, "2"], [1, None], "12"],
            "initial_epoch": [-1, 1, 1.5, "0", None, True],
            "batch_size": counts,
            "steps_per_epoch": counts,
            "validation_batch_size": counts,
            "validation_steps": counts,
            "validation_freq": [None, True, 1.5, "2", 0, -1, [], [0], ["2"], [None], {2}],
            "validation_split": [1.0, -0.1, 2, "0.2", True, float("nan"), 1e-12 + 1 - 1e-9],
            "splits": [
                3, "KFold", [], {}, [([0], [1])], [3, 3], [([0], [1]), ([0], [ROWS])],
                [([0], [1]), ([-1], [1])], [([0], [1]), ([], [1])], [([0], [1]), ([0], [])],
                [([0.5], [1])] * 2, [(["a"], [1])] * 2, [([0],)] * 2, [(None, [1])] * 2,
                Bad([([0], [1])] * 2, "validation_data", call={"validation_data": (x, y)}),
                Bad([([0], [1])] * 2, "validation_split", call={"validation_split": 0.2}),
                Bad([([0], [1])] * 2, "batch_size", call={"steps_per_epoch": 1}),
                Bad([([0], [1])] * 2, "splits", call={"x": dataset(x, y), "y": None}),
            ],
            "verbose": [3, -1, "on", None, [1]],
            "shuffle": NO_FLAGS,
            "early_stopping": [
                True, 3, "val_loss", keras.callbacks.EarlyStopping, [early],
                keras.callbacks.TerminateOnNaN(),
            ],
            "callbacks": [
                None, early, keras.callbacks.EarlyStopping, [keras.callbacks.EarlyStopping],
                [None], "early", [NoCallback()], 3, [[]], [[], [3]], [[early], [early]],
                Bad([keras.callbacks.CSVLogger("log.csv")], "CSVLogger"),
            ],
            "sample_weight": weights(x),
            "class_weight": [
                *NO_CLASS_WEIGHTS,
                Bad({0: 1.0}, "class_weight", "sample_weight",
                    call={"sample_weight": np.ones(ROWS)}),
                Bad("balanced", "class_weight", call={"x": dataset(x, y), "y": None}),
            ],
            "max_members": counts,
            "accelerate": [0, 1, "yes", [True]],
            "devices": ["CPU:0", 3, True, [], ["CPU:7"], ["cpu"], [None], [3], {}],
            "epoch": [3],
        },
    )  # fmt: skip
    cases += bad(
        population.evaluate,
        {"x": x, "y": y},
        {
            "x": [*xs, Bad(dataset(x, y), "`y`")],
            # all rows of one class can be evaluated
            "y": [value for value in ys if not (isinstance(value, Bad) and "class" in value.words)],
            "batch_size": counts,
            "steps": counts,
            "sample_weight": weights(x),
        },
    )
    longer = [
        v for v in xs if not (isinstance(v, np.ndarray) and v.shape in ((ROWS - 1, 4), (1, 4)))
    ]
    return cases + bad(
        population.predict, {"x": x}, {"x": longer, "batch_size": counts, "steps": counts}
    )


def cases(folder: str) -> list[Case]:
    return [*from_models(), *methods()]


def good_calls(folder: str) -> dict:
    """Return calls without the bad value, which must pass: else the cases prove nothing."""
    good, _, _ = bad_data("classes")
    population = Population.from_models([member(), member(0.1)], seeds=[0, 2**32 - 1])

    def fit() -> None:
        population.fit(
            good["x"],
            good["y"],
            epochs=np.array([1, 2]),
            batch_size=2**31 - 1,
            class_weight="balanced",
            validation_data=(good["x"], good["y"], np.ones(ROWS)),
        )
        population.evaluate(good["x"], good["y"], batch_size=2**31 - 1)
        population.predict(good["x"][:1])

    return {"fit": fit}
