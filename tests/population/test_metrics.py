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

import kregs
from kregs.population import NotStackable, Population
from kregs.population.objective import StackedLoss

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


@pytest.mark.nightly
@pytest.mark.parametrize("family", FAMILIES)
def test_all_names_are_there_and_no_others(family):
    of_keras, histories, evaluated = both(family)
    for (history, values), ours in zip(of_keras, histories, strict=True):
        assert set(ours) == set(history)
        assert set(evaluated) == set(values)
    assert "data_loss" not in evaluated
    assert of_keras[0][0]["loss"] != pytest.approx(of_keras[1][0]["loss"], rel=0.01)


@pytest.mark.slow  # the programs are shared
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


@pytest.mark.slow
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


def outcome(function, *args, **kwargs):
    """What a function returns, or the error that it raises about its arguments."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        return error


def assert_same_outcome(ours, theirs, case):
    """Return whether both are errors."""
    assert isinstance(ours, Exception) == isinstance(theirs, Exception), (case, ours, theirs)
    if isinstance(theirs, Exception):
        return True
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, err_msg=case)
    return False


def targets_of(loss, rows, shape):
    y = np.random.default_rng(2).uniform(size=(rows, *shape)).astype("float32")
    return (y > 0.5).astype("int32") if loss == "sparse" else y


@pytest.mark.filterwarnings("ignore:In loss categorical_crossentropy")  # of one column
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_shapes_have_the_same_loss_or_an_error_as_in_keras(loss, weighted, masked):
    """Of a batch: `compute_loss` of Keras tells what the second of two members has."""
    rows, real = 6, 4 if masked else 6
    weight = np.linspace(0.5, 2, rows).astype("float32") if weighted else None
    mask = np.broadcast_to(np.arange(rows) < real, (2, rows)).astype("float32")
    fails = []
    for target, output in SHAPES:
        y = targets_of(loss, rows, target)
        prediction = np.random.default_rng(3).uniform(0.1, 0.9, (rows, *output)).astype("float32")
        model = shaped((3,), loss)
        theirs = outcome(
            model.compute_loss, y=tf.constant(y[:real]), y_pred=tf.constant(prediction[:real]),
            sample_weight=None if weight is None else tf.constant(weight[:real]),
        )  # fmt: skip

        def pair(array):
            return None if array is None else tf.constant(np.stack([array[::-1], array]))

        def ours(y=y, prediction=prediction, model=model, pair=pair):
            stacked = StackedLoss(model, tf.constant(y[:2]), tf.constant(prediction[:2]))
            smoothing = [tf.constant([0.0, 0.3 if loss == "smoothed" else 0.0])]
            rows = tf.constant(mask) if masked else None
            (value,) = stacked([pair(y)], [pair(prediction)], pair(weight), rows, smoothing)
            return value[1]

        case = f"targets {target}, outputs {output}"
        fails.append(assert_same_outcome(outcome(ours), theirs, case))
    assert any(fails) != all(fails)


@pytest.mark.parametrize(
    ("target", "output"), [((), (10,)), ((), (1,)), ((), (4,)), ((3,), (3, 1)), ((1,), (2,))]
)
def test_fit_of_shapes_is_that_of_keras_or_an_error(target, output):
    x = np.random.default_rng(1).normal(size=(8, 3)).astype("float32")
    y = targets_of("mse", 8, target)
    fit = {"batch_size": 4, "shuffle": False}
    reference = shaped(output, "mse")
    reference.run_eagerly = True  # the same sums without a trace
    theirs = outcome(lambda: reference.fit(x, y, verbose=0, **fit).history["loss"][0])
    population = Population.from_models([shaped(output, "mse", k) for k in (0, 1)])
    ours = outcome(lambda: population.fit(x, y, **fit)[0]["loss"][0])
    if output in ((4,), (2,)):  # Keras broadcasts: a number a row against several, a batch of 4
        assert isinstance(ours, ValueError)
        assert isinstance(theirs, float)
        return
    failed = assert_same_outcome(ours, theirs, f"targets {target}, outputs {output}")
    assert failed == (output == (10,))


# ---- label smoothing and the data loss --------------------------------------------------------


class RowLoss(losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


def smoothed_model(k, loss="categorical", compile_with=kregs.compile_model):
    """The first member smooths, the second does not."""
    keras.utils.set_random_seed(3 + k)
    smoothing = (0.3, 0.0)[k]
    head, made = {
        "categorical": ("softmax", losses.CategoricalCrossentropy(label_smoothing=smoothing)),
        "binary": ("sigmoid", losses.BinaryCrossentropy(label_smoothing=smoothing)),
        "sum": (
            "softmax",
            losses.CategoricalCrossentropy(label_smoothing=smoothing, reduction="sum"),
        ),
        "axis": ("softmax", losses.CategoricalCrossentropy(label_smoothing=smoothing, axis=1)),
        "own class": ("softmax", RowLoss()),
        "function": ("softmax", own_error),
    }[loss]
    penalty = keras.regularizers.L2((0.02, 0.001)[k])
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, head, kernel_regularizer=penalty)])
    if compile_with is kregs.compile_model:
        return kregs.compile_model(model, made, optimizer="sgd", learning_rate=0.1)
    model.compile(keras.optimizers.SGD(0.1), made, **compile_with())
    return model


@pytest.mark.parametrize(
    "loss",
    [
        "categorical",
        "axis",
        "own class",
        *(pytest.param(loss, marks=pytest.mark.nightly) for loss in ("binary", "sum", "function")),
    ],
)
def test_data_loss_of_members_is_that_of_keras(loss):
    check_data_loss(loss, kregs.compile_model)


@pytest.mark.parametrize(
    "measured", [losses.CategoricalCrossentropy(), losses.MeanSquaredError(), own_error, "plain"]
)
def test_data_loss_of_another_loss(measured):
    """A `DataLoss` measures what it is given; a metric of its name is a metric."""

    def compile_with():
        metric = metrics.MeanSquaredError(name="data_loss")
        if measured != "plain":
            metric = kregs.DataLoss(measured)
        return {"loss_weights": [2.0], "weighted_metrics": [metric]}

    check_data_loss("categorical", compile_with)


def check_data_loss(loss, compile_with):
    y = np.eye(3, dtype="float32")[np.random.default_rng(4).integers(0, 3, ROWS)]
    fit = {
        "sample_weight": WEIGHT, "batch_size": BATCH, "epochs": 2, "shuffle": False,
        "validation_data": (X[:9], y[:9]),
    }  # fmt: skip
    models = [smoothed_model(k, loss, compile_with) for k in (0, 1)]
    population = Population.from_models(models)
    histories = population.fit(X, y, **fit)
    evaluated = population.evaluate(X, y, batch_size=BATCH, sample_weight=WEIGHT)
    for k in (0, 1):
        model = smoothed_model(k, loss, compile_with)
        history = model.fit(X, y, verbose=0, **fit).history
        values = model.evaluate(
            X, y, batch_size=BATCH, sample_weight=WEIGHT, verbose=0, return_dict=True
        )
        assert "data_loss" in values
        assert set(evaluated) == set(values)
        assert set(history) == set(histories[k])
        for name, expected in history.items():
            np.testing.assert_allclose(histories[k][name], expected, rtol=1e-4, err_msg=name)
        for name, expected in values.items():
            assert evaluated[name][k] == pytest.approx(expected, rel=1e-4), name


# ---- evaluate and predict ---------------------------------------------------------------------


def plain_model(k, loss="mse", metrics=()):
    keras.utils.set_random_seed(5 + k)
    body = [layers.Dense(4, "relu"), layers.Dropout((0.5, 0.1)[k]), layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *body])
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=list(metrics))
    return model


def inner_loss(weight):
    def loss(y_true, y_pred):
        return weight * ops.mean(ops.square(y_true - y_pred), axis=-1)

    return loss


def refusing(y_true, y_pred):
    raise ValueError("the function is called")


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("loss", ["mse", inner_loss(2.0), losses.Huber(), OwnLoss()])
def test_evaluate_and_predict_are_those_of_the_models(fitted, loss):
    population = Population.from_models([plain_model(k, loss) for k in (0, 1)])
    y = np.random.default_rng(6).normal(size=(ROWS, 3)).astype("float32")
    if fitted:
        population.fit(X, y, epochs=2)
    predictions = population.predict(X, batch_size=8)
    scores = population.evaluate(X, y, batch_size=8)
    assert set(scores) == {"loss"}
    for k, model in enumerate(population.unstack()):
        np.testing.assert_allclose(predictions[k], model.predict(X, verbose=0), atol=1e-5)
        expected = model.evaluate(X, y, batch_size=8, verbose=0)
        assert scores["loss"][k] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("loss", "asked"), [(refusing, ()), ("mse", (refusing,))])
def test_predict_asks_neither_loss_nor_metrics(loss, asked):
    population = Population.from_models([plain_model(k, loss, asked) for k in (1, 0)])
    predictions = population.predict(X, batch_size=7)
    for k, model in enumerate(population.models):
        np.testing.assert_allclose(predictions[k], model.predict(X, verbose=0), atol=1e-5)
    with pytest.raises(ValueError, match="the function is called"):
        population.evaluate(X, np.zeros((ROWS, 3)))


# ---- what members may differ in ---------------------------------------------------------------


def with_metric(metric, k=0):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD((0.1, 0.01)[k]), "mse", metrics=[metric])
    return model


def threshold(value):
    def metric(y_true, y_pred):
        return ops.cast(ops.abs(y_true - y_pred) < value, "float32")

    return metric


class Above(metrics.Mean):
    def __init__(self, bound):
        super().__init__(name="above")
        self._bound = bound

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(ops.cast(y_pred > self._bound, "float32"), sample_weight)


OWN_METRICS = {
    "closure": threshold,
    "wrapped": lambda value: metrics.MeanMetricWrapper(threshold(value), name="wrapped"),
    "partial": lambda value: functools.partial(losses.huber, delta=value),
    "class": Above,
    "loss object": lambda value: losses.Huber(delta=value),
}


@pytest.mark.parametrize("kind", OWN_METRICS)
def test_metrics_made_anew_are_one_structure_unless_they_differ(kind):
    make = OWN_METRICS[kind]
    Population.from_models([with_metric(make(0.5), k) for k in (0, 1)])
    with pytest.raises(NotStackable, match="metrics"):
        Population.from_models([with_metric(make(value)) for value in (0.5, 0.7)])


def test_metrics_that_keras_names_by_itself_are_one_structure():
    population = Population.from_models([with_metric(metrics.R2Score(), k) for k in (0, 1)])
    y = X[:, :2]
    histories = population.fit(X, y)
    assert len({tuple(history) for history in histories}) == 1
    assert "loss" in histories[1]
    assert sum(name.startswith("r2_score") for name in histories[1]) == 1


@pytest.mark.parametrize("kind", ["closure", "class"])
def test_losses_made_anew_are_one_structure_unless_they_differ(kind):
    class Weighted(losses.Loss):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def call(self, y_true, y_pred):
            return self.factor * ops.square(y_true - y_pred)

    make = {"closure": inner_loss, "class": Weighted}[kind]
    Population.from_models([plain_model(k, make(2.0)) for k in (0, 1)])
    with pytest.raises(NotStackable, match="loss"):
        Population.from_models([plain_model(0, make(value)) for value in (2.0, 3.0)])


def test_the_members_own_metrics_are_left_as_new():
    """Else Keras, which does not reset metrics that it has not built, would count them on."""
    y = X[:, :2]
    population = Population.from_models(
        [with_metric(metrics.R2Score(name="r2"), k) for k in (0, 1)]
    )
    population.fit(X, y)
    for model, expected in zip(population.unstack(), population.evaluate(X, y)["r2"], strict=True):
        values = model.evaluate(X, y, verbose=0, return_dict=True)
        assert values["r2"] == pytest.approx(expected, rel=1e-5)


def test_a_member_that_diverges_harms_no_metric_of_the_others():
    def model(rate):
        keras.utils.set_random_seed(8)
        made = keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")])
        made.compile(
            keras.optimizers.SGD(rate),
            "categorical_crossentropy",
            metrics=[
                metrics.MeanIoU(3, sparse_y_true=False, sparse_y_pred=False, name="iou"),
                "mae",
            ],
        )
        return made

    y = np.eye(3, dtype="float32")[np.random.default_rng(4).integers(0, 3, ROWS)]
    population = Population.from_models([model(np.inf), model(0.01)])
    histories = population.fit(X, y, epochs=2, validation_data=(X, y), shuffle=False)
    expected = (
        model(0.01).fit(X, y, epochs=2, validation_data=(X, y), shuffle=False, verbose=0).history
    )
    assert population.failures[0] is not None
    for name, values in expected.items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5, err_msg=name)


# ---- what Keras's own objects are left with ---------------------------------------------------


def binary_model(k, metrics_given):
    keras.utils.set_random_seed(k)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.1 + 0.1 * k), "binary_crossentropy", metrics=metrics_given)
    return model


def binary_rows():
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    return x, (x[:, :1] > 0).astype("float32")


def test_a_metric_given_as_a_class_keeps_its_name():
    population = Population.from_models([binary_model(k, [metrics.AUC]) for k in (1, 0)])
    first = set(population.fit(*binary_rows(), epochs=1)[0])
    assert set(population.fit(*binary_rows(), epochs=1)[0]) == first
    assert set(population.evaluate(*binary_rows())) == first
    assert any(name.startswith("auc") for name in first)


class Broken(metrics.Metric):
    def update_state(self, y_true, y_pred, sample_weight=None):
        raise ValueError("never")

    def result(self):
        return 0.0


def test_a_metric_that_fails_leaves_no_rows_in_the_others():
    own = metrics.BinaryAccuracy(name="own")
    population = Population.from_models([binary_model(0, [own, Broken(name="broken")])])
    with pytest.raises(ValueError, match="never"):
        population.fit(*binary_rows(), epochs=1)
    assert float(own.count) == 0


def test_keras_evaluates_the_models_as_the_population_does():
    models = [
        kregs.compile_model(binary_model(k, []), "binary_crossentropy", learning_rate=0.1)
        for k in (1, 0)
    ]
    population = Population.from_models(models)
    population.fit(*binary_rows(), epochs=1)
    ours = population.evaluate(*binary_rows())["data_loss"]
    theirs = [
        model.evaluate(*binary_rows(), batch_size=5, verbose=0, return_dict=True)["data_loss"]
        for model in population.unstack()
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_models_that_were_compiled_anew_train_as_they_are_now():
    population = Population.from_models([binary_model(k, []) for k in (1, 0)])
    population.fit(*binary_rows(), epochs=1)
    models = population.unstack()
    before = [model.get_weights() for model in models]
    for model in models:
        model.compile(keras.optimizers.Adam(0.1, clipnorm=1e-12, epsilon=1.0), "mse")
    population.fit(*binary_rows(), epochs=1)
    for old, model in zip(before, population.unstack(), strict=True):
        for a, b in zip(old, model.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
