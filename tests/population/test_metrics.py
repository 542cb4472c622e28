"""Metrics of members, of every kind that Keras knows, are what Keras's `fit` and `evaluate` report.

The first member is never the one at the defaults, and what the second one is compared with is
built and trained by Keras alone.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses, metrics, ops

from kregs.population import Population

ROWS, VALIDATION, BATCH, EPOCHS = 45, 21, 16, 2
RNG = np.random.default_rng(0)
X, VALIDATION_X = (RNG.normal(size=(rows, 5)).astype("float32") for rows in (ROWS, VALIDATION))
WEIGHT, VALIDATION_WEIGHT = (
    RNG.uniform(0, 3, rows).astype("float32") for rows in (ROWS, VALIDATION)
)


def spread(y_true, y_pred):
    """One number for a batch: no mean over rows."""
    return ops.max(y_pred) - ops.min(y_pred) + ops.mean(y_true)


def own_error(y_true, y_pred):
    return ops.mean(ops.abs(y_true - y_pred) ** 1.5, axis=-1)


class WorstBatch(metrics.Metric):
    """Depends on how rows are cut into batches, and has a state of its own."""

    def __init__(self, name="worst", factor=1.0):
        super().__init__(name=name)
        self.factor = factor
        self.worst = self.add_weight(shape=(), initializer="zeros", name="worst")
        self.batches = self.add_weight(shape=(), initializer="zeros", name="batches")

    def update_state(self, y_true, y_pred, sample_weight=None):
        error = ops.abs(ops.cast(y_true, y_pred.dtype) - y_pred)
        if sample_weight is not None:
            error = error * ops.cast(sample_weight, error.dtype)[:, None]
        self.worst.assign(ops.maximum(self.worst, ops.mean(error)))
        self.batches.assign_add(1.0)

    def result(self):
        return self.factor * self.worst * self.batches


class PerColumn(metrics.Metric):
    """Its value is a vector, and a dictionary when asked for."""

    def __init__(self, columns, name="columns", parts=False):
        super().__init__(name=name)
        self.columns, self.parts = columns, parts
        self.total = self.add_weight(shape=(columns,), initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(ops.sum(y_pred, axis=0))

    def result(self):
        if self.parts:
            return {f"column_{i}": self.total[i] for i in range(self.columns)}
        return 2.0 * self.total


class RootOfMean(metrics.MeanMetricWrapper):
    """A mean of Keras's own numbers whose result is none."""

    def __init__(self, name="root"):
        super().__init__(losses.mean_squared_error, name=name)

    def result(self):
        return ops.sqrt(super().result())


def binary(scale):
    """Head, loss, metrics and targets; `scale` is what a closure within the build holds."""

    def near(y_true, y_pred):
        return ops.cast(ops.abs(y_true - y_pred) < 0.1 * scale, "float32")

    return (
        layers.Dense(1, "sigmoid"),
        "binary_crossentropy",
        [
            metrics.AUC(name="auc"),
            metrics.AUC(curve="PR", num_thresholds=20, name="auc_pr"),
            metrics.Precision(name="precision"),
            metrics.Recall(thresholds=[0.3, 0.6], name="recalls"),
            metrics.SpecificityAtSensitivity(0.5, name="specificity"),
            metrics.BinaryIoU(name="iou", dtype="float32"),
            metrics.F1Score(threshold=0.5, name="f1"),
            metrics.FalseNegatives(name="missed"),
            "accuracy",
            "binary_crossentropy",
            metrics.BinaryAccuracy(threshold=0.4, name="accuracy_04"),
            near,
            metrics.MeanMetricWrapper(near, name="wrapped_near"),
            spread,
            WorstBatch(),
        ],
        lambda n: np.random.default_rng(n).integers(0, 2, (n, 1)).astype(float),
    )


def one_hot(scale):
    del scale
    return (
        layers.Dense(3, "softmax"),
        losses.CategoricalCrossentropy(),
        [
            metrics.F1Score(name="f1"),
            metrics.F1Score(average="macro", name="f1_macro"),
            metrics.FBetaScore(average="weighted", beta=2.0, name="f2"),
            metrics.AUC(multi_label=True, num_labels=3, name="auc"),
            metrics.Precision(class_id=1, top_k=2, name="precision"),
            metrics.OneHotMeanIoU(3, name="iou", dtype="float32"),
            metrics.CategoricalAccuracy(name="accuracy"),
            metrics.TopKCategoricalAccuracy(2, name="top_2"),
            metrics.CosineSimilarity(name="cosine"),
            metrics.CosineSimilarity(axis=1, name="cosine_1"),
            metrics.KLDivergence(name="kl"),
            metrics.CategoricalCrossentropy(label_smoothing=0.2, name="smoothed"),
            metrics.MeanMetricWrapper(losses.dice, name="dice"),
            losses.CategoricalCrossentropy(label_smoothing=0.1, name="loss_object"),
            PerColumn(3),
            PerColumn(3, name="parts", parts=True),
            RootOfMean(),
            WorstBatch(factor=2.0),
        ],
        lambda n: np.eye(3)[np.random.default_rng(n).integers(0, 3, n)],
    )


def labels(scale):
    del scale
    return (
        layers.Dense(4, "softmax"),
        "sparse_categorical_crossentropy",
        [
            "accuracy",
            metrics.SparseTopKCategoricalAccuracy(2, name="top_2"),
            metrics.SparseCategoricalCrossentropy(ignore_class=1, name="ignoring"),
            metrics.MeanIoU(4, sparse_y_pred=False, name="iou", dtype="float32"),
            metrics.SparseCategoricalCrossentropy(name="crossentropy"),
        ],
        lambda n: np.random.default_rng(n).integers(0, 4, n),
    )


def numbers(scale):
    class Scaled(metrics.Mean):
        """A class of the build, whose attribute says what it does."""

        def __init__(self):
            super().__init__(name="scaled")
            self.scale = scale

        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(ops.square(y_true - y_pred) * self.scale, sample_weight)

    return (
        layers.Dense(2),
        "mse",
        [
            metrics.R2Score(name="r2"),
            metrics.R2Score(class_aggregation=None, name="r2_each"),
            metrics.RootMeanSquaredError(name="rmse"),
            metrics.PearsonCorrelation(name="pearson"),
            metrics.ConcordanceCorrelation(name="concordance"),
            "mae",
            losses.huber,
            own_error,
            spread,
            Scaled(),
        ],
        lambda n: np.random.default_rng(n).normal(size=(n, 2)),
    )


FAMILIES = {"binary": binary, "one_hot": one_hot, "labels": labels, "numbers": numbers}
NAMES = {
    family: [
        metric if isinstance(metric, str) else getattr(metric, "name", None) or metric.__name__
        for metric in make(1.0)[2]
    ]
    for family, make in FAMILIES.items()
}
CASES = [(family, name) for family, names in NAMES.items() for name in names]


# one number for a batch, which Keras cannot weight by row
UNWEIGHTED = ("spread", "dice", "loss_object")


def weighted(family):
    """The metrics of a family again, for `weighted_metrics`."""
    pairs = zip(FAMILIES[family](1.5)[2], NAMES[family], strict=True)
    chosen = [metric for metric, name in pairs if name not in UNWEIGHTED]
    for metric in chosen:
        if isinstance(metric, metrics.Metric):
            metric.name = f"w_{metric.name}"
    return chosen


def build(family, k):
    """The compiled model of member k; the first has penalties and a rate of its own."""
    keras.utils.set_random_seed(k)
    head, loss, plain, _ = FAMILIES[family](1.5)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, "tanh", kernel_regularizer=keras.regularizers.L2((0.03, 0.0)[k])),
            head,
        ]
    )
    rate = (0.3, 0.001)[k]
    model.compile(
        keras.optimizers.SGD(rate), loss, metrics=plain, weighted_metrics=weighted(family)
    )
    return model


@functools.lru_cache
def both(family):
    """History and values of `evaluate` of each member: those of Keras, and the population's."""
    make_y = FAMILIES[family](1.0)[-1]
    y, validation_y = make_y(ROWS), make_y(VALIDATION)
    fit = {
        "sample_weight": WEIGHT,
        "validation_data": (VALIDATION_X, validation_y, VALIDATION_WEIGHT),
        "batch_size": BATCH, "epochs": EPOCHS, "shuffle": False,
    }  # fmt: skip
    on = {"sample_weight": VALIDATION_WEIGHT, "batch_size": 8}
    of_keras = []
    for k in (0, 1):
        model = build(family, k)
        history = model.fit(X, y, verbose=0, **fit).history
        values = model.evaluate(VALIDATION_X, validation_y, verbose=0, return_dict=True, **on)
        of_keras.append((history, values))
    population = Population.from_models([build(family, k) for k in (0, 1)])
    histories = population.fit(X, y, **fit)
    return of_keras, histories, population.evaluate(VALIDATION_X, validation_y, **on)


def assert_same(ours, theirs, name):
    assert np.shape(ours) == np.shape(theirs), name
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_names_are_there_and_no_others(family):
    of_keras, histories, evaluated = both(family)
    for (history, values), ours in zip(of_keras, histories, strict=True):
        assert set(ours) == set(history)
        assert set(evaluated) == set(values)
    assert "data_loss" not in evaluated
    assert of_keras[0][0]["loss"] != pytest.approx(of_keras[1][0]["loss"], rel=0.01)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_metric_is_that_of_keras(family, name):
    """In the history of training, of validation, and in `evaluate`; weighted and not."""
    of_keras, histories, evaluated = both(family)
    keys = [
        key for key in of_keras[0][1]
        if key in (name, f"w_{name}", f"weighted_{name}")
        or (name == "parts" and key.startswith("column_"))
    ]  # fmt: skip
    assert len(keys) >= (1 if name in UNWEIGHTED else 2)
    for k, (history, values) in enumerate(of_keras):
        for key in keys:
            for side in ("", "val_"):
                assert len(histories[k][side + key]) == EPOCHS
                for ours, theirs in zip(histories[k][side + key], history[side + key], strict=True):
                    assert_same(ours, theirs, side + key)
            assert_same(evaluated[key][k], values[key], key)


def test_losses_of_the_same_fits():
    for family in FAMILIES:
        of_keras, histories, evaluated = both(family)
        for k, (history, values) in enumerate(of_keras):
            for name in ("loss", "val_loss"):
                np.testing.assert_allclose(histories[k][name], history[name], rtol=2e-5)
            assert evaluated["loss"][k] == pytest.approx(values["loss"], rel=2e-5)


# ---- targets and outputs of several shapes ----------------------------------------------------

SHAPES = [  # of a target and of an output row; batches have 4 rows
    ((), ()), ((), (1,)), ((1,), ()), ((1,), (1,)), ((), (10,)), ((1,), (10,)), ((10,), (10,)),
    ((10,), (1,)), ((), (4,)), ((3,), (3, 1)), ((3, 1), (3,)), ((3,), (3, 2)), ((3, 2), (3, 2)),
    ((4,), (4, 2)), ((5,), (10,)),
]  # fmt: skip
LOSSES = {
    "mse": lambda: "mse",
    "kl_divergence": lambda: "kl_divergence",
    "sparse": lambda: losses.SparseCategoricalCrossentropy(from_logits=True),
    "own": lambda: own_error,
    "whole_batch": lambda: losses.Dice(),
    "smoothed": lambda: losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3),
    "class": lambda: OwnLoss(),
}


class OwnLoss(losses.Loss):
    def call(self, y_true, y_pred):
        return ops.square(y_true - y_pred)


def shaped(output, loss, k=0):
    keras.utils.set_random_seed(k)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(int(np.prod(output, dtype=int)), "softplus"),
            layers.Reshape(output),
        ]
    )
    model.compile(keras.optimizers.SGD((0.05, 0.01)[k]), LOSSES[loss]())
    return model


def outcome(action):
    """What an action returns, or that it fails."""
    try:
        return action()
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        return error


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_shapes_have_the_same_loss_or_an_error_as_in_keras(loss, weighted):
    x = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
    fit = {"batch_size": 4, "shuffle": False}
    on = {"sample_weight": np.linspace(0.5, 2, 8).astype("float32")} if weighted else {}
    fails = []
    for target, output in SHAPES:
        case = f"targets {target}, outputs {output}"
        y = np.random.default_rng(2).uniform(size=(8, *target)).astype("float32")
        y = (y > 0.5).astype("int32") if loss == "sparse" else y
        model = shaped(output, loss)
        model.run_eagerly = True  # the same sums without a trace
        theirs = outcome(lambda: model.fit(x, y, verbose=0, **fit, **on).history["loss"][0])
        population = Population.from_models([shaped(output, loss), shaped(output, loss, 1)])
        ours = outcome(lambda: population.fit(x, y, **fit, **on)[0]["loss"][0])
        assert isinstance(ours, Exception) == isinstance(theirs, Exception), (case, ours, theirs)
        fails.append(isinstance(theirs, Exception))
        if not fails[-1]:
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=case)
    assert any(fails) != all(fails)
