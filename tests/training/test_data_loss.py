"""`data_loss` against Keras's own `loss - sum(model.losses)`."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import kregs

L = keras.layers
RNG = np.random.default_rng(0)
PENALTIES = kregs.Regularization(l1=1e-3, l2=1e-2, bias_l1=1e-2, bias_l2=1e-2)


def penalized_model(outputs=3, activation="softmax"):
    """A model whose every kind of penalty counts, and whose last batch differs in size."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(8, "relu", kernel_regularizer="l1", bias_regularizer="l2"),
            L.ActivityRegularization(l2=0.1),
            L.Dropout(0.3, seed=0),
            L.Dense(outputs, activation, kernel_regularizer="l2", bias_initializer="ones"),
        ]
    )


def logs_of(model, *data, **options):
    return model.evaluate(*data, verbose=0, return_dict=True, **options)


def assert_difference(logs, penalty):
    """`loss - data_loss` is the penalty, to 1e-6 of the loss it is a difference of."""
    tolerance = 1e-6 * max(1.0, abs(logs["loss"]))  # float32 keeps seven digits
    assert logs["loss"] - logs["data_loss"] == pytest.approx(penalty, abs=tolerance)


def assert_difference_is_penalty(model, x, y, **options):
    """Over one batch, whose own penalties (the activity's too) `model.losses` then holds."""
    if model.run_eagerly:
        model.reset_metrics()
        logs = model.test_on_batch(x, y, return_dict=True, **options)
    else:
        logs = logs_of(model, x, y, batch_size=len(x), **options)
    model(x, training=False)
    penalty = float(sum(model.losses))
    assert penalty > 1e-3
    assert_difference(logs, penalty)


NOISE = ("input_dropout", "gaussian_noise")
BUILDERS = {
    "mlp": (
        lambda r: kregs.mlp((6,), 3, units=(8, 8), regularization=r),
        lambda n: RNG.normal(size=(n, 6)),
        ("activity_l1", "activity_l2", "dropout", "max_norm", *NOISE, "normalization"),
    ),
    "convnet": (
        lambda r: kregs.convnet((8, 8, 1), 3, filters=(4, 8), regularization=r),
        lambda n: RNG.uniform(0, 255, size=(n, 8, 8, 1)),
        ("activity_l1", "activity_l2", "spatial_dropout", "max_norm", *NOISE, "normalization"),
    ),
    "resnet": (
        lambda r: kregs.resnet((8, 8, 1), 3, filters=(4, 8), regularization=r),
        lambda n: RNG.uniform(0, 255, size=(n, 8, 8, 1)),
        ("activity_l1", "activity_l2", "max_norm", *NOISE, "drop_path", "normalization"),
    ),
    "text_cnn": (
        lambda r: kregs.text_cnn(20, 3, sequence_length=7, filters=4, regularization=r),
        lambda n: RNG.integers(0, 20, size=(n, 7)),
        ("activity_l1", "activity_l2", "spatial_dropout", "dropout", "max_norm", *NOISE),
    ),
    "recurrent": (
        lambda r: kregs.recurrent(20, 3, sequence_length=7, units=(4,), regularization=r),
        lambda n: RNG.integers(0, 20, size=(n, 7)),
        ("activity_l1", "activity_l2", "spatial_dropout", "dropout", "max_norm", *NOISE),
    ),
    "linear": (
        lambda r: kregs.linear((6,), 3, head_activation="softmax", regularization=r),
        lambda n: RNG.normal(size=(n, 6)),
        NOISE,
    ),
    "autoencoder": (
        lambda r: kregs.autoencoder((6,), units=(4,), regularization=r),
        lambda n: RNG.normal(size=(n, 6)),
        ("activity_l1", "activity_l2", *NOISE),
    ),
}
VALUES = {
    "activity_l1": 1e-2,
    "activity_l2": 1e-2,
    "dropout": 0.3,
    "spatial_dropout": 0.3,
    "max_norm": 2.0,
    "input_dropout": 0.1,
    "gaussian_noise": 0.05,
    "drop_path": 0.4,
    "normalization": "batch",
}


# as graphs, one a kind of layer; the others take the same steps eagerly, which is faster
TRACED = ("mlp", "convnet", "recurrent")


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder(name):
    build, make_x, fields = BUILDERS[name]
    model = build(PENALTIES.replace(**{field: VALUES[field] for field in fields}))
    x = make_x(32)
    if name == "autoencoder":
        y, loss = x, "mse"
    else:
        y, loss = RNG.integers(0, 3, 32), "sparse_categorical_crossentropy"
    kregs.compile_model(model, loss, learning_rate=0.05)
    model.run_eagerly = name not in TRACED
    history = model.fit(x, y, epochs=1, validation_data=(x, y), verbose=0).history
    assert set(history) == {"loss", "data_loss", "val_loss", "val_data_loss"}
    assert_difference_is_penalty(model, x, y)


LOSSES = {
    "mse": "regression",
    "mae": "regression",
    "huber": "regression",
    "log_cosh": "regression",
    "MeanSquaredError": "regression",
    "cosine_similarity": "regression",
    "binary_crossentropy": "one_hot",
    "BinaryFocalCrossentropy": "one_hot",
    "categorical_crossentropy": "one_hot",
    "categorical_focal_crossentropy": "one_hot",
    "kl_divergence": "one_hot",
    "categorical_hinge": "one_hot",
    "poisson": "one_hot",
    "sparse_categorical_crossentropy": "numbers",
    "SparseCategoricalCrossentropy": "numbers",
}


def targets(kind, n):
    numbers = RNG.integers(0, 3, n)
    return {
        "regression": RNG.normal(size=(n, 3)),
        "one_hot": np.eye(3)[numbers],
        "numbers": numbers,
    }[kind]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_by_name_with_sample_weights(loss):
    model = kregs.compile_model(penalized_model(), loss)
    model.run_eagerly = True  # the tests above and below evaluate graphs
    x, y = RNG.normal(size=(24, 4)), targets(LOSSES[loss], 24)
    weights = RNG.uniform(0, 3, 24)
    assert_difference_is_penalty(model, x, y, sample_weight=weights)


def absolute_error(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def total_absolute_error(y_true, y_pred):
    return keras.ops.sum(keras.ops.abs(y_true - y_pred))


@pytest.mark.parametrize(
    "loss",
    [
        absolute_error,
        total_absolute_error,
        keras.losses.mean_squared_error,
        keras.losses.MeanSquaredError,
        keras.losses.MeanSquaredError(reduction="sum"),
        keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
        keras.losses.Huber(delta=0.1),
    ],
    ids=lambda loss: getattr(loss, "__name__", type(loss).__name__),
)
@pytest.mark.parametrize("weighted", [False, True])
def test_objects_functions_and_reductions_over_uneven_batches(loss, weighted):
    # without activity penalty, which differs from batch to batch
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, kernel_regularizer="l2")])
    kregs.compile_model(model, loss)
    # the reduction that a graph could get wrong is that of a strategy, tested below
    model.run_eagerly = not (weighted and loss is absolute_error)
    x, y = RNG.normal(size=(25, 4)), RNG.normal(size=(25, 3))
    weights = RNG.uniform(0, 3, 25) if weighted else None
    logs = logs_of(model, x, y, batch_size=10, sample_weight=weights)
    penalty = float(sum(model.losses))
    assert penalty > 1e-3
    assert_difference(logs, penalty)

    object_ = loss() if isinstance(loss, type) else loss
    if not isinstance(object_, keras.losses.Loss):
        return
    prediction = np.asarray(model(x))
    expected = sum(
        len(x[part])
        * float(object_(y[part], prediction[part], None if weights is None else weights[part]))
        for part in (slice(0, 10), slice(10, 20), slice(20, 25))
    )
    assert logs["data_loss"] == pytest.approx(expected / 25, rel=1e-5)


def test_class_weights(eager):
    model = kregs.compile_model(penalized_model(), "sparse_categorical_crossentropy")
    x, y = RNG.normal(size=(32, 4)), RNG.integers(0, 3, 32)
    model.optimizer.learning_rate = 0.0
    plain = model.fit(x, y, verbose=0, shuffle=False).history
    model = kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=1e-9)
    heavy = model.fit(
        x, y, class_weight=dict.fromkeys(range(3), 4.0), verbose=0, shuffle=False
    ).history
    assert heavy["data_loss"][0] > 3 * plain["data_loss"][0]


def test_masked_outputs():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            L.Embedding(10, 4, mask_zero=True, embeddings_regularizer="l2"),
            L.LSTM(4, return_sequences=True),
            L.Dense(3, "softmax", kernel_regularizer="l2"),
        ]
    )
    kregs.compile_model(model, "sparse_categorical_crossentropy")
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0], [7, 0, 0, 0, 0]])
    y = RNG.integers(0, 3, size=(3, 5))
    logs = logs_of(model, x, y)
    assert_difference(logs, float(sum(model.losses)))
    probabilities = np.asarray(model(x))
    picked = np.take_along_axis(probabilities, y[..., None], axis=-1)[..., 0]
    assert logs["data_loss"] == pytest.approx(-np.log(picked[x != 0]).mean(), rel=1e-5)


def test_mixed_precision():
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(8, "relu", kernel_regularizer="l2", dtype=policy),
            L.Dense(3, "softmax", kernel_regularizer="l2", dtype="float32"),
        ]
    )
    model.dtype_policy = policy
    kregs.compile_model(model, "sparse_categorical_crossentropy", weight_decay=1e-3)
    assert type(model.optimizer).__name__ == "LossScaleOptimizer"
    x, y = RNG.normal(size=(32, 4)), RNG.integers(0, 3, 32)
    model.run_eagerly = True
    model.fit(x, y, verbose=0)
    assert_difference_is_penalty(model, x, y)


@pytest.mark.nightly  # a process with two virtual devices
def test_mirrored_strategy_agrees_with_one_device():
    script = textwrap.dedent(
        """
        import json
        import keras, numpy as np, tensorflow as tf
        import kregs

        cpus = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        def make():
            model = keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(3, kernel_initializer="ones", kernel_regularizer="l2"),
                ]
            )
            return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=0.1)

        rng = np.random.default_rng(0)
        x, y, w = rng.normal(size=(28, 4)), rng.normal(size=(28, 3)), rng.uniform(0, 2, 28)
        def run(model):
            logs = model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0, return_dict=True)
            logs["penalty"] = float(sum(model.losses))
            history = model.fit(x[:24], y[:24], batch_size=8, shuffle=False, verbose=0).history
            return logs | {"fit_" + key: value[0] for key, value in history.items()}

        alone = make()
        alone.run_eagerly = True  # of the two it is the known one
        alone = run(alone)
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            model = make()
        assert model.distribute_strategy.num_replicas_in_sync == 2
        print("RESULT" + json.dumps([alone, run(model)]))
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, mirrored = json.loads(done.stdout.split("RESULT")[1])
    assert_difference(mirrored, mirrored["penalty"])
    for name in alone:
        assert mirrored[name] == pytest.approx(alone[name], rel=1e-5), name


def test_stand_in_equals_data_loss_without_weights():
    sparse = keras.losses.SparseCategoricalCrossentropy()
    for loss, kind in ((sparse, "numbers"), (keras.losses.mean_squared_error, "regression")):
        exact = kregs.DataLoss(loss)
        stock = exact.stand_in()
        assert type(stock) is keras.metrics.MeanMetricWrapper
        for size in (10, 3):
            predictions = RNG.dirichlet(np.ones(3), size)
            labels = targets(kind, size)
            exact.update_state(labels, predictions)
            stock.update_state(labels, predictions)
        assert float(exact.result()) == pytest.approx(float(stock.result()), rel=1e-6)


def test_config_round_trip():
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.2)
    metric = kregs.DataLoss(loss, name="own")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert again.name == "own"
    # at logit 0 the loss is log 2 whatever the label
    assert float(again(np.ones((5, 2)), np.zeros((5, 2)))) == pytest.approx(np.log(2), rel=1e-6)
    again.reset_state()
    unsmoothed = np.log1p(np.exp(-1))
    assert float(again(np.ones((5, 2)), np.ones((5, 2)))) == pytest.approx(unsmoothed, rel=1e-6)


class SmoothedSquares(keras.losses.Loss):
    """A loss of one's own that smooths labels."""

    def __init__(self, label_smoothing=0.0, **kwargs):
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        y_true = y_true * (1 - self.label_smoothing) + self.label_smoothing / 3
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def crossentropies(y, p):
    """Per row, by NumPy: categorical and binary."""
    return {
        "categorical": -(y * np.log(p)).sum(-1),
        "binary": -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(-1),
        "squares": ((y - p) ** 2).mean(-1),
    }


def smoothing_losses(smoothing):
    partial = functools.partial(
        keras.losses.categorical_crossentropy, label_smoothing=smoothing, axis=-1
    )
    return {
        "object": (keras.losses.CategoricalCrossentropy(label_smoothing=smoothing), "categorical"),
        "binary": (keras.losses.BinaryCrossentropy(label_smoothing=smoothing), "binary"),
        "sum": (
            keras.losses.CategoricalCrossentropy(label_smoothing=smoothing, reduction="sum"),
            "categorical",
        ),
        "own class": (SmoothedSquares(label_smoothing=smoothing), "squares"),
        "partial": (partial, "categorical"),
    }


@pytest.mark.parametrize("smoothing", [0.3, 0.0])
@pytest.mark.parametrize("kind", smoothing_losses(0.0))
def test_data_loss_is_without_label_smoothing(kind, smoothing):
    """Against NumPy, with weights; and the loss that is trained on is smoothed."""
    loss, which = smoothing_losses(smoothing)[kind]
    head = "sigmoid" if kind == "binary" else "softmax"
    model = kregs.compile_model(penalized_model(activation=head), loss)
    model.run_eagerly = True
    x, y, weights = RNG.normal(size=(20, 4)), targets("one_hot", 20), RNG.uniform(0, 2, 20)
    logs = logs_of(model, x, y, batch_size=20, sample_weight=weights)
    by_row = crossentropies(y, np.asarray(model(x, training=False), "float64"))[which] * weights
    expected = by_row.sum() if kind == "sum" else by_row.mean()
    assert logs["data_loss"] == pytest.approx(expected, rel=1e-4)
    penalty = float(sum(model.losses))
    smoothed = logs["loss"] - penalty - logs["data_loss"]
    assert (abs(smoothed) > 1e-5) == (smoothing > 0)


def test_label_smoothing_of_compile_model_is_left_out_as_well():
    loss = keras.losses.CategoricalCrossentropy(dtype="float64")
    for smoothing in (0.4, 0.0):
        model = kregs.compile_model(penalized_model(), loss, label_smoothing=smoothing)
        assert (model.loss.label_smoothing, model.loss.dtype) == (smoothing, "float64")
        x, y = RNG.normal(size=(20, 4)), targets("one_hot", 20)
        model.run_eagerly = True
        logs = logs_of(model, x, y)
        by_row = crossentropies(y, np.asarray(model(x, training=False)))["categorical"]
        assert logs["data_loss"] == pytest.approx(by_row.mean(), rel=1e-4)


def two_outputs():
    x = keras.Input((4,))
    hidden = L.Dense(5, "tanh", kernel_regularizer="l2")(x)
    first = L.Dense(3, "softmax", name="kinds")(hidden)
    return keras.Model(x, [first, L.Dense(1, name="size")(hidden)])


@pytest.mark.parametrize("smoothing", [0.3, 0.0])
@pytest.mark.parametrize("weights", [{"size": 0.5, "kinds": 3.0}, [3.0, 0.5], None])
def test_several_outputs(smoothing, weights):
    """Keras's own `loss`, less penalties and smoothing, is the weighted sum of the data losses."""
    crossentropy = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    model = kregs.compile_model(
        two_outputs(), {"size": "mse", "kinds": crossentropy}, loss_weights=weights,
        metrics={"size": ["mae"]},
    )  # fmt: skip
    x, y = RNG.normal(size=(25, 4)), [targets("one_hot", 25), RNG.normal(size=(25, 1))]
    history = model.fit(x, y, validation_data=(x, y), verbose=0, epochs=2).history
    logs = logs_of(model, x, y, batch_size=10)
    assert history["val_data_loss"][-1] == pytest.approx(logs["data_loss"], rel=1e-5)
    assert {"data_loss", "kinds_data_loss", "size_data_loss", "size_mae"} < set(history)
    kinds, size = model.predict(x, verbose=0)
    parts = [crossentropies(y[0], kinds)["categorical"].mean(), ((y[1] - size) ** 2).mean()]
    assert logs["kinds_data_loss"] == pytest.approx(parts[0], rel=1e-4)
    assert logs["size_data_loss"] == pytest.approx(parts[1], rel=1e-4)
    factors = [3.0, 0.5] if weights else [1.0, 1.0]
    assert logs["data_loss"] == pytest.approx(np.dot(factors, parts), rel=1e-4)
    smoothed = logs["loss"] - float(sum(model.losses)) - logs["data_loss"]
    assert (abs(smoothed) > 1e-5) == (smoothing > 0)


def test_a_file_of_a_model_with_several_outputs_holds_stock_metrics(tmp_path):
    model = kregs.compile_model(two_outputs(), ["categorical_crossentropy", "mse"])
    config = json.dumps(model.get_compile_config())
    assert "kregs" not in config
    x, y = RNG.normal(size=(6, 4)), [targets("one_hot", 6), RNG.normal(size=(6, 1))]
    model.run_eagerly = True
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    ours, theirs = logs_of(model, x, y), logs_of(again, x, y)
    assert set(ours) - set(theirs) == {"data_loss"}
    for name in theirs:
        assert theirs[name] == pytest.approx(ours[name], rel=1e-5)


def test_wrong_loss():
    with pytest.raises(TypeError, match=r"`loss` must be .* Received: loss='mse'"):
        kregs.DataLoss("mse")
