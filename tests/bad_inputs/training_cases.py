"""Bad inputs of `compile_model`, losses, schedules, callbacks, augmentation and checks of data."""

from __future__ import annotations

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from data_values import bad_data
from harness import (
    NO_COUNTS,
    NO_FINITE,
    NO_FLAGS,
    NO_INTEGERS,
    NO_NUMBERS,
    NO_RATES,
    NO_SEEDS,
    Bad,
    Case,
    Lazy,
    bad,
)

import kregs
from kregs.training import check_data

POSITIVE = tuple(v for v in (*NO_NUMBERS, *NO_FINITE, 0, 0.0, -0.1) if v is not None)
NON_NEGATIVE = (*NO_NUMBERS, *NO_FINITE, -1e-9)
NO_COUNTS_FROM_0 = (*NO_INTEGERS, -1, 2**70)


def network(outputs: int = 3, loss: object = None) -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(outputs, name="out")])
    if loss is not None:
        model.compile("sgd", loss)
    return model


def compilation() -> list[Case]:
    sgd = keras.optimizers.SGD
    smoothing = {"loss": "categorical_crossentropy"}
    twice = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=0)
    cases = bad(
        kregs.compile_model,
        {"model": Lazy(network), "loss": "mse"},
        {
            "model": [None, "mlp", 3, [], keras.Sequential, keras.layers.Dense(3)],
            "loss": [
                "mes", "", "accuracy", "sparse_categorical_crosentropy", None, 3, True, ["mse"],
                {"out": "mse"}, keras.Sequential, object(), keras.losses.Loss, keras.metrics.AUC(),
                keras.losses.MeanSquaredError(reduction="none"), lambda y: y, lambda: 0,
            ],
            "optimizer": ["adma", "", None, 3, True, sgd, ["sgd"], {"name": "sgd"}, object()],
            "learning_rate": [
                *(v for v in POSITIVE), "fast", lambda step: 0.1,
                Bad(0.1, "learning_rate", "optimizer", call={"optimizer": Lazy(sgd)}),
            ],
            "weight_decay": [
                *(v for v in NON_NEGATIVE if v is not None),
                Bad(0.1, "weight_decay", call={"optimizer": Lazy(sgd)}),
            ],
            "label_smoothing": [
                *(Bad(v, "label_smoothing", call=smoothing) for v in NO_RATES),
                Bad(0.1, "label_smoothing", "MeanSquaredError|mse"),
                Bad(0.1, "label_smoothing", "ignore_class", call={"loss": ignoring}),
                Bad(0.1, "label_smoothing", "0.2", call={"loss": twice}),
                Bad(0.1, "label_smoothing", call={"loss": lambda y_true, y_pred: y_true - y_pred}),
            ],
            "metrics": [
                "accuracy", None, 3, {"out": "mae"}, ["acuracy"], [""], [None], [3], [True],
                [["mae"]], ["loss"], ["data_loss"], [keras.metrics.Mean(name="data_loss")],
                [keras.Sequential], ["mae", "mae"], [object()], [lambda y: y], True,
                [functools.partial(keras.losses.mean_absolute_error)], [keras.losses.Loss],
                [keras.metrics.AUC(name="auc"), keras.metrics.Mean(name="auc")],
            ],
            "regularization": [
                "l2", 0.1, {}, Bad(kregs.Regularization(label_smoothing=0.1), "label_smoothing"),
            ],
            "leraning_rate": [0.1],
        },
    )  # fmt: skip
    cases += bad(
        kregs.SmoothedSparseCategoricalCrossentropy,
        {},
        {
            "label_smoothing": NO_RATES, "ignore_class": [0],
        },
    )  # fmt: skip
    return cases + bad(
        kregs.DataLoss,
        {"loss": keras.losses.MeanSquaredError()},
        {"loss": ["mse", None, 3, [], keras.losses.MeanSquaredError, True], "name": [3, "", True]},
    )


def schedules_and_callbacks() -> list[Case]:
    cases = bad(
        kregs.warmup_cosine,
        {"learning_rate": 0.1, "steps": 100},
        {
            "learning_rate": [None, *POSITIVE], "steps": NO_COUNTS, "warmup": NO_RATES,
            "final": [*NON_NEGATIVE, 1.1],
        },
    )  # fmt: skip
    for kind in (kregs.FlatCosine, kregs.CosLog4):
        cases += bad(
            kind,
            {"learning_rate": 0.1, "steps": 100},
            {"learning_rate": [None, *POSITIVE], "steps": NO_COUNTS},
        )
    cases += bad(
        kregs.FlatCosine,
        {"learning_rate": 0.1, "steps": 100},
        {"flat": NO_RATES, "final": [*NON_NEGATIVE, 1.1]},
    )
    monitors = [None, "", 3, True, ["val_loss"], b"val_loss", Bad("val_strange", "val_strange")]
    common = {
        "monitor": monitors,
        "patience": NO_COUNTS_FROM_0,
        "min_delta": NON_NEGATIVE,
        "mode": ["auto", "minimum", "MIN", "", 3, True, ["min"]],
        "restore_best_weights": NO_FLAGS,
    }
    cases += bad(
        kregs.early_stopping,
        {},
        {
            **common, "start_from_epoch": NO_COUNTS_FROM_0,
            "baseline": [v for v in (*NO_NUMBERS, *NO_FINITE) if v is not None],
            "verbose": [2.5, "yes", None, [1], -1],
        },
    )  # fmt: skip
    paths = [3, True, ["a"], b"\0", ""]
    return cases + bad(kregs.default_callbacks, {}, {**common, "csv": paths, "tensorboard": paths})


def augmentation() -> list[Case]:
    part = [*NON_NEGATIVE, 1.5]
    common = {
        "flip": ["horizontl", "", True, 1, ["horizontal"], "HORIZONTAL"],
        "rotation": part,
        "translation": part,
        "zoom": NO_RATES,
        "rand_augment": part,
        "rand_augment_ops": NO_COUNTS,
        "value_range": [
            None, 255, "0-255", (0,), (0, 1, 2), (255, 0), (0, 0), (0, math.nan), ("0", "255"),
            (None, 1), {}, (False, True),
        ],
        "seed": NO_SEEDS,
    }  # fmt: skip
    cases = bad(kregs.augmentation_layers, {}, common)
    images, labels = np.zeros((6, 4, 4, 1), "float32"), np.arange(6) % 3
    spoilt = images.copy()
    spoilt[2, 1, 1, 0] = np.nan

    def dataset(*parts: object) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0])

    batched = Lazy(lambda: dataset(images, labels).batch(2))
    return cases + bad(
        kregs.augment,
        {"x": images, "y": labels, "batch_size": 2},
        {
            **common,
            "x": [
                None, "images", 3, [], images[0, 0], images[:0], images[0], images.astype(object),
                images.astype(complex), images.astype("<U3"), spoilt,
                Bad(batched, "`y`", "dataset"),
                Bad(Lazy(lambda: dataset(images, labels)), "`batch_size`",
                    call={"y": None, "batch_size": None}),
                Bad(batched, "`batch_size`", "2", call={"y": None}),
                Bad(Lazy(lambda: dataset(labels)), "`x`", "images", call={"y": None}),
                iter([images]),
            ],
            "y": [
                labels[:3], "labels", 3, np.array(list("abcabc")), labels[:0],
                np.array([0, 1, np.nan, 0, 1, 2]),
                Bad(np.array([0, 1, 2, 3, 1, 2]), "3|classes", call={"classes": 3}),
                Bad(None, "`mixup`", call={"mixup": 0.2}),
                Bad(labels, "`classes`", call={"mixup": 0.2}),
            ],
            "batch_size": NO_COUNTS,
            "classes": [*(v for v in NO_COUNTS if v is not None), 1, 2],
            "mixup": NON_NEGATIVE,
            "cutmix": part,
            "shuffle": ["yes", 1, 0, [True], "", Bad(True, "`shuffle`", call={
                "x": batched, "y": None, "batch_size": None})],
        },
    )  # fmt: skip


def devices() -> list[Case]:
    return bad(kregs.set_up_gpu, {}, {"mixed_precision": NO_FLAGS, "memory_growth": NO_FLAGS})


def data() -> list[Case]:
    cases = []
    for kind in ("classes", "one-hot", "numbers"):
        good, xs, ys = bad_data(kind)
        model = kregs.compile_model(network(good["outputs"]), good["loss"])
        cases += bad(
            check_data,
            {"x": good["x"], "y": good["y"], "model": model, "training": True},
            {"x": xs, "y": [y for y in ys if y is not None]},  # None checks x alone
        )
    return cases


def cases(folder: str) -> list[Case]:
    return [
        *compilation(), *schedules_and_callbacks(), *augmentation(), *devices(), *data(),
    ]  # fmt: skip


def good_calls(folder: str) -> dict:
    """Return calls without the bad value, which must pass: else the cases prove nothing."""
    images, labels = np.zeros((6, 4, 4, 1), "float32"), np.arange(6) % 3
    good = {kind: bad_data(kind)[0] for kind in ("classes", "one-hot", "numbers")}
    return {
        "compile_model": lambda: kregs.compile_model(network(), "mse", metrics=["mae", "mape"]),
        "a function": lambda: kregs.compile_model(network(), lambda y_true, y_pred: y_true),
        "DataLoss": lambda: kregs.DataLoss(keras.losses.MeanSquaredError()),
        "warmup_cosine": lambda: kregs.warmup_cosine(np.float32(0.1), steps=np.int64(100)),
        "early_stopping": lambda: kregs.early_stopping(restore_best_weights=np.True_),
        "default_callbacks": lambda: kregs.default_callbacks(csv="log.csv"),
        "augment": lambda: kregs.augment(images, labels, batch_size=2, classes=3, mixup=0.2),
        "set_up_gpu": kregs.set_up_gpu,
        **{
            kind: lambda data=data: check_data(
                data["x"],
                data["y"],
                model=kregs.compile_model(network(data["outputs"]), data["loss"]),
                training=True,
            )
            for kind, data in good.items()
        },
    }
