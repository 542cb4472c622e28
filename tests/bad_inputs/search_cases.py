"""Bad inputs of `tune`, `PopulationTuner`, `regularization_path`, `validation_map`, estimators."""

from __future__ import annotations

import math
import tempfile
import threading
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pandas as pd
import sklearn
import tensorflow as tf
from data_values import ROWS, bad_data, spoilt
from harness import (
    NO_COUNTS,
    NO_FINITE,
    NO_FLAGS,
    NO_NUMBERS,
    NO_RATES,
    NO_SEEDS,
    Bad,
    Case,
    Lazy,
    bad,
)
from population_cases import NO_CLASS_WEIGHTS, weights
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit
from sklearn.preprocessing import StandardScaler

import kregs

HERE = (Path(__file__).parent,)
OBJECTIVES = [
    None, "", 3, True, "val_strange", ["val_loss", "val_accuracy"], [], {}, b"val_loss",
    keras_tuner.Objective, keras.losses.MeanSquaredError(), keras_tuner.Objective("val_loss", "up"),
    keras_tuner.Objective("val_loss", None),
]  # fmt: skip
POSITIVE = [v for v in (*NO_NUMBERS, *NO_FINITE, 0, 0.0, -1) if v is not None]


def oracle(objective: object = keras_tuner.Objective("val_data_loss", "min")) -> Lazy:
    oracles = keras_tuner.oracles
    return Lazy(lambda: oracles.RandomSearchOracle(objective=objective, max_trials=1))


def builder(kind: str = "classes"):
    good, _, _ = bad_data(kind)

    def build(hp):
        regularization = kregs.Regularization.from_hp(hp, l2=(1e-4, 1.0))
        model = kregs.mlp(
            (4,), good["outputs"], units=(2,), regularization=regularization,
            head_activation=None if kind == "numbers" else "softmax",
        )  # fmt: skip
        return kregs.compile_model(model, good["loss"])

    return build


class Batches(keras.utils.PyDataset):
    def __init__(self, *parts, length=3):
        super().__init__()
        self.parts, self.length = parts, length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.parts if len(self.parts) != 1 else self.parts[0]


class NoCopy(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


def bad_builds() -> list[Bad]:
    class OwnBuild(keras_tuner.HyperModel):
        pass

    class NoModel(keras_tuner.HyperModel):
        def build(self, hp):
            return None

    def uncompiled(hp):
        return kregs.mlp((4,), 3, units=(2,))

    def compiled_sometimes(hp):
        model = kregs.mlp((4,), 3, units=(2,))
        if hp.Boolean("deep"):
            with hp.conditional_scope("deep", [True]):
                hp.Float("rate", 0.0, 0.5)
            return model
        with hp.conditional_scope("deep", [True]):
            hp.Float("rate", 0.0, 0.5)
        return kregs.compile_model(model, "sparse_categorical_crossentropy")

    def never_ends(hp, calls=[0]):  # noqa: B006
        calls[0] += 1
        hp.Boolean(f"more_{calls[0]}")
        with hp.conditional_scope(f"more_{calls[0]}", [True]):
            hp.Float(f"rate_{calls[0]}", 0.0, 1.0)
        return kregs.compile_model(kregs.linear((4,), 3), "mse")

    def raises(hp):
        raise KeyError("units")

    def asks_wrongly(hp):
        return kregs.mlp((4,), 3, units=(hp.Choice("units", ["2", "4"]),))

    words = ("`build`", "Received")
    silent = [
        None, 3, "mlp", b"mlp", True, [], {}, object(), keras.Sequential, keras_tuner.HyperModel,
        OwnBuild, OwnBuild(), NoModel(), keras_tuner.HyperModel(), keras.Sequential(),
        lambda: None, lambda hp, more: None, lambda hp: None, lambda hp: 3, lambda hp: [builder()(hp)],
        lambda hp: keras.Sequential, uncompiled, compiled_sometimes, never_ends, print, raises,
        lambda hp: builder()(hp).layers[0], kregs.mlp, asks_wrongly, lambda *, hp: None,
    ]  # fmt: skip
    return [Bad(value, *words) for value in silent]


def tune_cases(folder: str) -> list[Case]:
    good, xs, ys = bad_data("classes")
    x, y = good["x"], good["y"]
    taken = Path(folder, "taken", "search")
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("something else")
    file = Path(folder, "file")
    file.write_text("")
    fixed = {
        "build": builder(), "x": x, "y": y, "max_trials": 1, "epochs": 1, "verbose": 0,
        "directory": Lazy(lambda: tempfile.mkdtemp(dir=folder)),
    }  # fmt: skip

    def dataset(*parts: np.ndarray, batch: int = 8) -> Lazy:
        return Lazy(lambda: tf.data.Dataset.from_tensor_slices(parts).batch(batch))

    streamed = {"y": None, "validation_data": (x, y)}
    folded = {"folds": 3}
    validation = [
        "x", 3, True, (), (x,), (x, y, None, None), x, {"x": x}, (x, None), (x[:5], y), {},
        (spoilt(x, np.nan), y), (x, y + 5), (x, y, -np.ones(ROWS)), (x[:, :2], y), (x[:0], y[:0]),
        (x.astype(complex), y), (x, np.array(["a"] * ROWS)), (x, y, 0 * y), Lazy(lambda: iter([x])),
        Bad((x, y), "folds", "validation_data", call=folded), Batches(x), Batches(x, y, length=0),
        Bad(dataset(x), "`validation_data`", "dataset"),
    ]  # fmt: skip
    leaky = np.where(np.arange(ROWS) < 12, 0, y)  # a class that stands only in the later folds
    values = {
        "build": bad_builds(),
        "x": [
            *xs, Bad(dataset(x, y), "`y`"), Bad(dataset(x, y), "`validation_data`", call={"y": None}),
            Bad(dataset(x), "`x`", call=streamed), Bad(Batches(x), "`x`", call=streamed),
            Bad(Lazy(lambda: dataset(x, y).make().repeat()), "`x`", "infinite", call=streamed),
            Bad(dataset(x[:, :2], y), "`x`", call=streamed), Bad(Batches(), "`x`", call=streamed),
            Bad(dataset(x, y + 7), "`y`", call=streamed),
            Bad(dataset(spoilt(x, np.nan), y), "`x`", call=streamed),
            Bad(dataset(x, 0 * y), "class", call=streamed),
            Bad(Lazy(lambda: dataset(x, y).make().take(0)), "`x`", "empty", call=streamed),
        ],
        "y": ys,
        "validation_data": validation,
        "validation_split": [*NO_RATES, 0.0, 0.001, 0.999],
        "folds": [
            True, 0, 1, -1, 2.5, "3", "", ROWS + 1, math.nan, object(), KFold, [], [(0, 1)], {}, 2**40,
            [([0, 1], [2, 3])], [([0, 1], [99]), ([2, 3], [4])], [(np.arange(24), [])] * 2,
            [([], [0]), ([1], [2])], KFold(ROWS + 1), GroupKFold(3), PredefinedSplit([-1] * ROWS),
            [([0.5, 1], [2]), ([1], [2])], [(["a"], [2]), ([1], [2])], [([0, 3], [6]), ([0, 3], [9])],
            [3, 4], [None, None],
        ],
        "groups": [
            *(Bad(v, "`groups`", call=folded) for v in (
                "g", 3, [], np.arange(5), np.zeros((ROWS, 2)), np.zeros(ROWS), {}, [None] * ROWS,
            )),
        ],
        "seeds": NO_COUNTS,
        "preprocess": [
            3, "scale", True, StandardScaler, object(), [], {}, np.log, lambda rows: rows,
            Bad(StandardScaler(), "`preprocess`", call={"x": dataset(x, y), **streamed}),
            Bad(StandardScaler(), "`preprocess`", call={"x": {"a": x}}),
            *(Bad(StandardScaler(), words, call=call) for words, call in (
                ("`x`", {"x": 3}), ("`x`", {"x": []}), ("`x`", {"x": "rows"}),
                ("`x`", {"x": x.astype(complex)}), ("`x`", {"x": x[:-1]}), ("`y`", {"y": 3}),
                ("`x`|preprocess", {"x": x.astype("<U3") + "a"}), ("`y`", {"y": []}),
                ("`x`|preprocess", {"x": pd.DataFrame({"a": ["x"] * ROWS})}),
                ("`x`", {"x": [[1.0], [1.0, 2.0]]}), ("`y`", {"y": np.zeros(ROWS, int)}),
            )),
        ],
        "selection": [None, "", "bset", 3, True, ["best"], Bad("one_standard_error", "folds", "seeds")],
        "score_at": [None, "", "best", "epoch", 3, True, ["best_epoch"]],
        "nested": [
            True, 0, 1, -1, 2.5, "3", "", object(), KFold, {}, ROWS + 1,
            Bad(2, "`nested`", call={"validation_data": (x, y)}),
            Bad(2, "`nested`", call={"x": dataset(x, y), "y": None}),
            Bad(2, "`nested`", call={"oracle": oracle(), "max_trials": None}),
            Bad(2, "`nested`", call={"x": {"a": x}}),
        ],
        "sample_weight": [
            *weights(x),
            Bad(np.ones(ROWS), "sample_weight", call={"x": dataset(x, y), **streamed}),
            Bad(np.ones(ROWS), "sample_weight", "class_weight", call={"class_weight": {0: 1.0}}),
            Bad((np.arange(ROWS) == 3) * 1.0, "`sample_weight`", "0"),
            Bad((np.arange(ROWS) == 3) * 1.0, "`sample_weight`", "fold", call=folded),
        ],
        "class_weight": [
            *NO_CLASS_WEIGHTS,
            Bad("balanced", "class_weight", call={"x": dataset(x, y), **streamed}),
            *(Bad(value, "class_weight", "mean_squared", call={
                "build": builder("numbers"), "y": x.sum(1)}) for value in ("balanced", {0: 1.0})),
        ],
        "oracle": [
            None, "", "randm", 3, True, ["random"], keras_tuner.oracles.RandomSearchOracle, object(),
            Bad(oracle(), "`max_trials`", "1"),
            Bad(oracle("val_loss"), "`objective`", "val_loss", call={"max_trials": None}),
            Bad(oracle(), "`objective`", "val_loss", call={"max_trials": None, "objective": "val_loss"}),
            Bad(oracle(["val_loss", "loss"]), "objective", call={"max_trials": None}),
        ],
        "max_trials": [v for v in NO_COUNTS if v is not None],
        "epochs": NO_COUNTS,
        "batch_size": NO_COUNTS,
        "objective": [
            *OBJECTIVES, "val_acuracy", "val_dataloss", "val_data_loss ", "rock_auc", "NEG_LOG_LOSS",
            keras_tuner.Objective("val_x", "min"), Bad("rmse", "rmse|root_mean", "numbers"),
            Bad("accuracy", "arrays", call={"x": dataset(x, y), **streamed}),
            Bad("r2", "`objective`", call={"max_trials": None, "oracle": oracle()}),
        ],
        "callbacks": [
            3, True, "early", kregs.early_stopping(), keras.callbacks.EarlyStopping,
            [keras.callbacks.EarlyStopping], [None], [3], ["early"], {"a": 1},
            Bad([NoCopy()], "`callbacks`", "copy"),
        ],
        "max_time": POSITIVE,
        "keep": NO_COUNTS,
        "keep_folds": NO_FLAGS,
        "seed": [*NO_SEEDS, None],
        "directory": [3, True, None, ["a"], b"a", "", "a\0", str(file), "/proc/kregs", object()],
        "project_name": [
            3, True, None, "", ".", "..", "a/b", "/", "/tmp", "a/", "a\0b", b"a", ["a"],
            Bad("a" * 300, "project_name|directory"),
            Bad("search", "search", "resume", call={"directory": str(taken.parent)}),
        ],
        "resume": [
            *NO_FLAGS, Bad(True, "`resume`", "search", call={"directory": str(taken.parent)}),
        ],
        "engine": [None, "", "population ", "stacked", 3, True, ["auto"]],
        "workers": [
            *(v for v in NO_COUNTS if v is not None), Bad(2, "`build`"),
            Bad(2, "`x`", call={"x": dataset(x, y), **streamed}),
            Bad(2, "`oracle`", call={"oracle": oracle(), "max_trials": None}),
        ],
        "verbose": [None, 3, -1, "yes", "", [1], 2.5],
        "max_trial": [3],
    }  # fmt: skip
    cases = bad(kregs.tune, fixed, values, frames=HERE, types=(Exception,))
    later = {"build": builder(), "y": leaky, "folds": KFold(2)}
    cases += bad(kregs.tune, {**fixed, **later}, {"x": [Bad(x, "`folds`|`y`", "class")]})
    for kind in ("one-hot", "numbers"):
        good, xs, ys = bad_data(kind)
        arguments = {**fixed, "build": builder(kind), "x": good["x"], "y": good["y"]}
        cases += bad(kregs.tune, arguments, {"y": ys})
    return cases


def tuner_cases(folder: str) -> list[Case]:
    file = Path(folder, "not_a_folder")
    file.write_text("")
    good = {"hypermodel": builder(), "objective": "val_loss", "directory": folder}
    without = {**good, "objective": None}
    build_words = [Bad(b.value, "`hypermodel`", "Received") for b in bad_builds()]
    # what a build returns is seen when it is called
    static = [b for b in build_words if not callable(b.value) or isinstance(b.value, type)]
    static = [b for b in static if type(b.value).__name__ != "NoModel"]
    cases = bad(
        kregs.PopulationTuner,
        good,
        {
            "hypermodel": static,
            "objective": [v for v in OBJECTIVES[1:] if not isinstance(v, list)],
            "max_trials": [
                *(v for v in NO_COUNTS if v is not None),
                Bad(3, "`max_trials`", "3", call={"oracle": oracle("val_loss")}),
                Bad(3, "`max_trials`", "3", call={"oracle": "hyperband"}),
            ],
            "oracle": [
                None, "", "randm", 3, True, ["random"], keras_tuner.oracles.RandomSearchOracle,
                Bad(oracle("val_accuracy"), "`objective`", "val_accuracy"),
            ],
            "seed": NO_SEEDS,
            "executions_per_trial": NO_COUNTS,
            "max_members": [v for v in NO_COUNTS if v is not None],
            "devices": ["CPU:0", 3, True, [], ["CPU:7"], [None]],
            "engine": [None, "", "stacked", 3, ["auto"]],
            "directory": [3, True, ["a"], b"a", "", "a\0", str(file)],
            "project_name": [3, True, "", ".", "..", "a/b", "a\0b", ["a"]],
            "overwrite": NO_FLAGS,
            "keep": [v for v in NO_COUNTS if v is not None],
            "keep_folds": NO_FLAGS,
            "score_at": [None, "", "best", 3],
            "max_time": POSITIVE,
            "progress": [3, "bar", True, print],
            "executions_per_trials": [Bad(2, "'executions_per_trials'", "'executions_per_trial'")],
            "max_trails": [Bad(2, "'max_trails'", "'max_trials'")],
            "overwrit": [Bad(2, "'overwrit'", "'overwrite'")],
            "hyperparameter": [Bad(2, "'hyperparameter'", "'hyperparameters'")],
            "distribution_stratgy": [Bad(2, "'distribution_strategy'")],
            "enigne": [Bad("auto", "'enigne'", "'engine'", call={
                "oracle": oracle("val_loss"), "objective": None})],
            "num_initial_points": [Bad(3, "num_initial_points")],
        },
    )  # fmt: skip
    x = np.zeros((4, 4))

    def search(given=good, **fit):
        tuner = kregs.PopulationTuner(**given, max_trials=1, overwrite=True)
        tuner.search(x, np.zeros(4), **{"verbose": 0, "validation_split": 0.5, **fit})

    cases.append(
        Case(
            "PopulationTuner",
            "search without an objective",
            lambda: search(without),
            ("`objective`", "None"),
        )
    )
    return cases + bad(
        search,
        {},
        {
            "epochs": [v for v in NO_COUNTS if v is not None],
            "steps_per_epoch": [0, -1, 2.5, "3"],
            "initial_epoch": [-1, 1.5, Bad(3, "`initial_epoch`", "3", call={"epochs": 3})],
            "callbacks": [3, True], "class_weight": ["balanced", 3],
        },
        entry="PopulationTuner.search",
    )  # fmt: skip


def paths_cases(folder: str) -> list[Case]:
    good, xs, ys = bad_data("numbers")

    def build(l2=0.0, dropout=0.0):
        model = kregs.linear((4,), 1, regularization=kregs.Regularization(l2=l2))
        return kregs.compile_model(model, "mse")

    values = [
        None, 3, "ab", "", True, [], [0.1], [0.1, 0.1], [0.1, -1], [0.1, math.nan], [0.1, math.inf],
        ["a", "b"], [None, 1], [True, False], {"low": 0}, [[0.1, 0.2]], [0.1, 1j], Lazy(lambda: iter([])),
        {0.1, 0.2}, [0.1, "0.2"], np.array(0.1), (0.1, 10**400),
    ]  # fmt: skip
    common = {
        "build": [None, 3, "linear", keras.Sequential, lambda: None, lambda hp: None, lambda l2: None],
        "x": xs[:20],
        "y": ys[:12],
        "folds": [None, True, 1, 0, -1, 2.5, "5", ROWS + 1, KFold],
        "seeds": NO_COUNTS,
        "epochs": NO_COUNTS,
        "directory": [3, True, ["a"], "", b"a"],
        "search": [
            3, "batch_size", ["batch_size"], True, {"batch_siz": 3}, {"build": 3},
            Bad({"batch_size": 0}, "batch_size", "0"), Bad({"seed": -1}, "seed", "-1"),
            {3: 4}, {"epochs": 3},
            {"oracle": "random"},
        ],
    }  # fmt: skip
    arguments = {"build": build, "x": good["x"], "y": good["y"], "folds": 2, "epochs": 1}
    two = {"l2": [0.1, 1.0], "dropout": [0.1, 0.2]}
    one = {**arguments, "l2": two["l2"]}
    both = {**arguments, **two}
    cases = bad(kregs.regularization_path, one, {**common, "l2": values, "dropout": [[0.1, 0.2]]})
    cases += bad(kregs.regularization_path, arguments, {"epochs": [Bad(1, "hyperparameter")]})
    cases += bad(
        kregs.validation_map, both, {"l2": values, "folds": common["folds"], "l1": [[0.1, 0.2]]}
    )
    return cases + bad(kregs.validation_map, one, {"epochs": [Bad(1, "hyperparameter")]})


def estimator_cases() -> list[Case]:
    sklearns = (Path(sklearn.__file__).parent,)
    x = np.random.default_rng(0).normal(size=(ROWS, 4))
    labels, targets = np.arange(ROWS) % 3, x.sum(1)

    def fitted(kind: type, y: np.ndarray):
        def fit(X=x, y=y, sample_weight=None, **parameters):
            small = {"epochs": 1, "units": (2,), "network": kregs.mlp}
            return kind(**{**small, **parameters}).fit(X, y, sample_weight)

        fit.__qualname__ = kind.__name__
        return fit

    counts = [value for value in NO_COUNTS if value is not None]
    parameters = {
        "units": [64, "64", (), (0,), (2.5,), ("8",)],
        "activation": ["rely", 3, ["relu"]],
        "regularization": [
            0.1,
            "l2",
            kregs.Regularization,
            kregs.Regularization(drop_path=0.1),
            Bad({"droput": 0.1}, "dropout"),
            Bad({"dropout": 2}, "dropout"),
        ],
        "optimizer": ["adma", "", 3, keras.optimizers.Adam()],
        "learning_rate": POSITIVE,
        "weight_decay": [*(v for v in NO_NUMBERS if v is not None), -0.1, math.nan],
        "epochs": counts,
        "batch_size": counts,
        "early_stopping": [None, "yes", "", [True], 2],
        "metric": ["", "acuracy", 3, True, ["accuracy"], np.mean],
        "network": [
            None,
            "mlp",
            3,
            True,
            keras.Sequential(),
            [kregs.mlp],
            Bad(kregs.linear, "`network`", "units", "linear"),
        ],
        "folds": [
            1,
            0,
            -2,
            True,
            2.5,
            "five",
            "",
            [],
            [3],
            [([0], [ROWS])],
            np.array([1, 2]),
            KFold,
            ROWS + 1,
            {},
            Bad(3, "validation_fraction", call={"validation_fraction": 0.2}),
        ],
        "validation_fraction": [*(v for v in NO_RATES if v is not None), 0.0, 0.999],
        "n_iter_no_change": counts,
        "random_state": ["0", 1.5, -1, 2**32, [0], math.nan],
        "verbose": [None, 3, -1, "yes", [1]],
        "unit": [Bad((2,), "'unit'")],
    }
    data = [
        spoilt(x, np.nan), spoilt(x, np.inf), x.astype(complex), x[:0], x[:, :0], x[0], 3, None, "x",
        x[:-1], x.astype("<U4") + "a", [[1.0], [1.0, 2.0]], np.array(3.0), x[:, None], {}, [],
        pd.DataFrame({"a": ["x"] * ROWS, "b": math.nan}), Lazy(lambda: iter(x)), object(),
    ]  # fmt: skip
    x_words = r"(?i)\bX\b|sample|array|shape|string|complex|0-dim|scalar|dtype|float"
    y_words = r"\by\b|target|label|sample|class|at least 1 dimension"
    own = {"frames": (*sklearns, *HERE)}
    cases = []
    y_bad = [
        labels[:-1], None, 3, "y", [], spoilt(labels, np.nan), np.zeros((ROWS, 2, 2)),
        labels.astype(complex), {}, np.array([None] * ROWS),
    ]  # fmt: skip
    row_weights = [
        -np.ones(ROWS), np.zeros(ROWS), spoilt(np.ones(ROWS), np.nan), np.ones(3), "balanced",
        np.ones((ROWS, 2)), spoilt(np.ones(ROWS), np.inf), np.ones(ROWS).astype(complex),
    ]  # fmt: skip
    for kind, y in ((kregs.KregsClassifier, labels), (kregs.KregsRegressor, targets)):
        fit = fitted(kind, y)
        cases += bad(fit, {}, parameters, **own)
        of_preset = {name: values for name, values in parameters.items() if name != "network"}
        cases += bad(fit, {"network": "preset"}, of_preset, **own)
        cases += bad(
            fit,
            {},
            {
                "X": [Bad(value, x_words) for value in data],
                "y": [Bad(value, y_words) for value in y_bad],
                "sample_weight": [
                    Bad(value, r"(?i)sample.weight|float|complex") for value in row_weights
                ],
            },
            **own,
        )
        model = fit()
        several = [v for v in data if not (isinstance(v, np.ndarray) and v.shape == (ROWS - 1, 4))]
        wrong = [Bad(v, x_words) for v in (*several, x[:, :3])]
        cases += bad(model.predict, {}, {"X": wrong}, **own)
    fit = fitted(kregs.KregsClassifier, labels)
    cases += bad(
        fit,
        {},
        {
            "y": [
                Bad(np.zeros(ROWS, int), "`y`", "one class"), Bad(targets, "(?i)continuous|label"),
                Bad(np.eye(3)[labels], "(?i)multilabel|1d|target"),
            ],
            "class_weight": ["balance", "", 3, True, [1, 2], {0: -1.0}, {0: "a"}, {0: math.nan}],
            "calibrate": [None, "yes", 3, Bad(True, "early_stopping", call={"early_stopping": False})],
        },
        **own,
    )  # fmt: skip
    for kind in (kregs.KregsClassifier, kregs.KregsRegressor):
        cases.append(
            Case(kind.__name__, "predict before fit", lambda kind=kind: kind().predict(x),
                 ("not fitted",), frames=sklearns)
        )  # fmt: skip
    return cases


def cases(folder: str) -> list[Case]:
    return [
        *tune_cases(folder), *tuner_cases(folder), *paths_cases(folder), *estimator_cases(),
    ]  # fmt: skip


def good_calls(folder: str) -> dict:
    """Return calls without the bad value, which must pass: else the cases prove nothing."""
    good, _, _ = bad_data("classes")

    def tune() -> None:
        kregs.tune(
            builder(), good["x"], good["y"], max_trials=1, epochs=1, verbose=0, seed=2**32 - 1,
            directory=Path(folder, "good"), batch_size=2**31 - 1, class_weight="balanced",
        )  # fmt: skip

    def classifier() -> None:
        kregs.KregsClassifier((2,), epochs=1).fit(good["x"], good["y"])

    return {"tune": tune, "classifier": classifier}
