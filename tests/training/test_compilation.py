"""`compile_model`: what it accepts, what it refuses, what its files hold."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

import kregs
from kregs.training.compilation import optimizer_classes

L = keras.layers
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype("float32"), RNG.integers(0, 3, 32)
WEIGHTS = RNG.uniform(0, 2, 32)
SPARSE = "sparse_categorical_crossentropy"


def small_model(activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(8, "relu", kernel_regularizer="l2"),
            L.BatchNormalization(),
            L.Dense(3, activation, kernel_regularizer="l2"),
        ]
    )


def test_returns_the_same_model_with_the_logs():
    model = small_model()
    assert kregs.compile_model(model, SPARSE, metrics=["accuracy"]) is model
    history = model.fit(X, Y, validation_split=0.25, epochs=2, verbose=0).history
    names = {"loss", "data_loss", "accuracy"}
    assert set(history) == names | {f"val_{name}" for name in names}


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        ("mze", ValueError, r"Received: loss='mze'\. Did you mean 'ms?[ae]e?'"),
        ("categorical_crossentropi", ValueError, "Did you mean 'categorical_crossentropy'"),
        ("crossentropy", ValueError, "such as 'sparse_categorical_crossentropy'"),
        (["mse", "mse"], ValueError, "`loss` must be one loss"),
        ({"a": "mse"}, ValueError, "`loss` must be one loss"),
        (None, TypeError, "`loss` must be a name"),
        (3, TypeError, "`loss` must be a name"),
        (keras.losses.MeanSquaredError(reduction="none"), ValueError, "reduce to one number"),
        (keras.losses.MeanSquaredError(reduction=None), ValueError, "reduce to one number"),
    ],
)
def test_wrong_losses(loss, error, message):
    with pytest.raises(error, match=message):
        kregs.compile_model(small_model(), loss)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "addam"}, ValueError, "Did you mean 'adam'"),
        ({"optimizer": "multioptimizer"}, ValueError, "`optimizer` must be one of"),
        ({"optimizer": keras.optimizers.Adam}, TypeError, "`optimizer` must be a name"),
        ({"optimizer": None}, TypeError, "`optimizer` must be a name"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be a finite number > 0"),
        ({"learning_rate": "fast"}, TypeError, "`learning_rate` must be"),
        ({"weight_decay": -1.0}, ValueError, "`weight_decay` must be"),
        ({"label_smoothing": 1.0}, ValueError, "`label_smoothing` must be"),
        ({"metrics": ["acuracy"]}, ValueError, "Did you mean 'accuracy'"),
        ({"metrics": "accuracy"}, TypeError, r"metrics=\['accuracy'\]"),
        ({"metrics": [3]}, TypeError, "`metrics` must hold names"),
        ({"metrics": [keras.metrics.Mean(name="loss")]}, ValueError, "named 'loss'"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        kregs.compile_model(small_model(), SPARSE, **options)


@pytest.mark.parametrize("options", [{"learning_rate": 0.1}, {"weight_decay": 0.1}])
def test_optimizer_object_excludes_its_settings(options):
    with pytest.raises(ValueError, match="`optimizer` as an object has its own settings"):
        kregs.compile_model(small_model(), SPARSE, optimizer=keras.optimizers.Adam(), **options)


def two_outputs():
    x = keras.Input((4,))
    outputs = [keras.layers.Dense(n, name=name)(x) for n, name in ((2, "a"), (3, "b"))]
    return keras.Model(x, outputs)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": ["mse"]}, ValueError, "one entry for each of the 2 outputs, 'a', 'b'"),
        ({"loss": {"aa": "mse"}}, ValueError, r"names of outputs.* 'aa'.*'a'"),
        ({"loss": {}}, ValueError, "one output at least"),
        ({"loss": {"a": "msee"}}, ValueError, "name of a Keras loss"),
        ({"loss": "mse", "loss_weights": 2.0}, TypeError, "`loss_weights` must be a list"),
        ({"loss": "mse", "loss_weights": {"a": "2"}}, TypeError, r"`loss_weights\['a'\]`"),
        ({"loss": {"a": "mse"}, "loss_weights": {"b": 2.0}}, ValueError, "names of outputs: 'a'"),
        ({"loss": "mse", "metrics": ["mae"]}, TypeError, "must be a dictionary of lists by output"),
        ({"loss": "mse", "metrics": {"a": ["maee"]}}, ValueError, "names of Keras metrics"),
    ],
)
def test_wrong_arguments_for_several_outputs(arguments, error, message):
    with pytest.raises(error, match=message):
        kregs.compile_model(two_outputs(), **arguments)


def test_a_layer_is_no_model():
    with pytest.raises(TypeError, match=r"`model` must be a keras\.Model"):
        kregs.compile_model(L.Dense(1), "mse")


def test_loss_weights_are_for_several_outputs():
    with pytest.raises(ValueError, match="`loss_weights` are for models with several outputs"):
        kregs.compile_model(small_model(), SPARSE, loss_weights=[2.0])


def test_an_output_without_a_loss(eager):
    model = kregs.compile_model(two_outputs(), {"b": "mse"}, loss_weights={"b": 0.5})
    x, y = np.ones((4, 4)), [np.zeros((4, 2)), np.ones((4, 3))]
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    b = model.predict(x, verbose=0)[1]
    assert logs["data_loss"] == pytest.approx(0.5 * ((b - 1) ** 2).mean(), rel=1e-5)
    assert logs["loss"] == pytest.approx(logs["data_loss"], rel=1e-5)


@pytest.mark.parametrize("name", sorted(optimizer_classes()))
def test_every_optimizer_by_name(name):
    model = kregs.compile_model(
        small_model(), SPARSE, optimizer=name, learning_rate=0.01, weight_decay=0.01
    )
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert model.optimizer.weight_decay == 0.01
    assert type(model.optimizer).__name__.lower() == name


def test_learning_rate_schedule():
    schedule = kregs.warmup_cosine(0.1, steps=10)
    model = kregs.compile_model(small_model(), SPARSE, optimizer="sgd", learning_rate=schedule)
    assert float(model.optimizer.learning_rate) == 0.0


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_weight_decay_shrinks_kernels_only(policy, eager):
    # without gradients (a constant loss) a step of SGD is the decay alone
    model = small_model()
    model.dtype_policy = keras.DTypePolicy(policy)
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    for layer in model.layers:
        layer.kernel_regularizer = None
    for variable in model.trainable_variables:
        variable.regularizer = None
    kregs.compile_model(
        model,
        lambda y_true, y_pred: 0.0 * keras.ops.sum(y_pred, axis=-1),
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0.5,
    )
    model.fit(X, Y, batch_size=16, verbose=0)
    for variable in model.trainable_variables:
        expected = 2.0 * (1 - 0.1 * 0.5) ** 2 if variable.name == "kernel" else 2.0
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6, err_msg=variable.path)


def test_weight_decay_leaves_out_biases_scales_and_embeddings():
    tokens = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(5, 6)(tokens)
    for layer in (
        keras.layers.RMSNormalization(), keras.layers.LayerNormalization(),
        keras.layers.GroupNormalization(2), keras.layers.PReLU(),
        keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True)),
        keras.layers.SeparableConv1D(6, 2, padding="same"),
    ):  # fmt: skip
        x = layer(x)
    x = keras.layers.MultiHeadAttention(2, 3)(x, x)
    x = keras.layers.AdditiveAttention()([x, x])
    tied = kregs.layers.TiedDense(4)
    x = tied(tied(x), reverse=True)
    model = keras.Model(tokens, keras.layers.GlobalAveragePooling1D()(x))
    for variable in model.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    kregs.compile_model(
        model, lambda y_true, y_pred: 0.0 * keras.ops.sum(y_pred, axis=-1),
        optimizer="sgd", learning_rate=0.1, weight_decay=0.5,
    )  # fmt: skip
    model.run_eagerly = True
    model.fit(np.ones((4, 4), "int32"), np.ones((4, 1)), verbose=0)
    changed = {v.name: float(np.min(v.numpy())) != 2.0 for v in model.trainable_variables}
    kernels = {"kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel"}
    assert {name for name, is_changed in changed.items() if is_changed} == kernels
    left_out = {"embeddings", "scale", "gamma", "beta", "alpha", "bias", "reverse_bias"}
    assert set(changed) - kernels == left_out


@pytest.mark.parametrize("name", ["categorical_crossentropy", "binary_crossentropy"])
def test_label_smoothing(name, eager):
    # sigmoid for binary: given softmax, Keras would take its logits for those of a sigmoid
    model = small_model("softmax" if name == "categorical_crossentropy" else "sigmoid")
    one_hot = np.eye(3)[Y]
    kregs.compile_model(model, name, label_smoothing=0.2)
    logs = model.evaluate(X, one_hot, verbose=0, return_dict=True)
    smoothed = logs["loss"] - float(sum(model.losses))
    p = model.predict(X, verbose=0).astype("float64")
    if name == "categorical_crossentropy":
        expected = -((0.8 * one_hot + 0.2 / 3) * np.log(p)).sum(axis=1).mean()
    else:
        y = 0.8 * one_hot + 0.1
        expected = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert smoothed == pytest.approx(expected, rel=1e-4)


def test_label_smoothing_is_refused_where_keras_has_none_or_has_it_already():
    with pytest.raises(ValueError, match="known to these losses only: BinaryCrossentropy, "):
        kregs.compile_model(small_model(), "mse", label_smoothing=0.1)
    own = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    with pytest.raises(ValueError, match="set twice"):
        kregs.compile_model(small_model(), own, label_smoothing=0.1)


@pytest.mark.nightly  # a process; builders' files are loaded without kregs in the quick tests
def test_files_load_and_train_without_kregs(tmp_path, eager):
    losses = {"mean": SPARSE, "sum": keras.losses.SparseCategoricalCrossentropy(reduction="sum")}
    expected = {}
    for name, loss in losses.items():
        model = kregs.compile_model(small_model(), loss, weight_decay=0.01, metrics=["accuracy"])
        if name == "mean":
            model.fit(X, Y, verbose=0)
        model.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.npy", model(X))
        logs = model.evaluate(X, Y, batch_size=10, verbose=0, return_dict=True)
        expected[name] = logs["data_loss"]
    np.savez(tmp_path / "data.npz", x=X, y=Y, w=WEIGHTS)
    script = textwrap.dedent(
        """
        import json, sys
        sys.modules["kregs"] = None  # any import of it fails
        import keras, numpy as np
        data, logs = np.load("data.npz"), {}
        for name in ("mean", "sum"):
            model = keras.models.load_model(name + ".keras")
            model.run_eagerly = True
            assert int(model.optimizer.iterations) == (name == "mean")
            np.testing.assert_allclose(model(data["x"]), np.load(name + ".npy"), rtol=1e-5)
            logs[name] = model.evaluate(
                data["x"], data["y"], batch_size=10, verbose=0, return_dict=True
            )["data_loss"]
            if name == "mean":
                model.fit(data["x"], data["y"], sample_weight=data["w"], verbose=0)
                assert int(model.optimizer.iterations) == 2
                model.save("mean_again.keras")
        print("LOGS" + json.dumps(logs))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logs = json.loads(done.stdout.split("LOGS")[1])
    assert logs["mean"] == pytest.approx(expected["mean"], rel=1e-5)
    # batches of 10, 10, 10 and 2: the stock metric takes the mean per sample, not the sum
    assert logs["sum"] < expected["sum"] / 5
    restored = keras.models.load_model(tmp_path / "mean_again.keras")
    assert int(restored.optimizer.iterations) == 2


def test_copies_train_on(eager):
    model = kregs.compile_model(small_model(), SPARSE, learning_rate=0.02)
    model.fit(X, Y, verbose=0)
    wanted = model.evaluate(X, Y, verbose=0, return_dict=True)
    for twin in (copy.deepcopy(model), keras.models.clone_model(model)):
        twin.set_weights(model.get_weights())
        logs = twin.evaluate(X, Y, verbose=0, return_dict=True)
        assert logs == pytest.approx(wanted, rel=1e-5)
        assert float(twin.optimizer.learning_rate) == pytest.approx(0.02)
        twin.fit(X, Y, verbose=0)


def test_compiling_again_by_hand_forgets_data_loss(tmp_path, eager):
    model = kregs.compile_model(small_model(), SPARSE)
    model.compile(loss=SPARSE, weighted_metrics=["accuracy"])
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert set(loaded.evaluate(X, Y, verbose=0, return_dict=True)) == {"loss", "accuracy"}


def test_compiling_again_by_kregs_restores_the_exact_metric(tmp_path, eager):
    model = kregs.compile_model(small_model(), SPARSE)
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = kregs.compile_model(keras.models.load_model(tmp_path / "model.keras"), SPARSE)
    options = {"sample_weight": WEIGHTS, "verbose": 0, "return_dict": True}
    assert again.evaluate(X, Y, **options) == pytest.approx(model.evaluate(X, Y, **options))


def test_a_model_that_is_not_built_yet():
    model = keras.Sequential([L.Dense(3, "softmax", kernel_regularizer="l2")])
    kregs.compile_model(model, SPARSE, weight_decay=0.1)
    logs = model.fit(X, Y, verbose=0).history
    assert logs["loss"][0] > logs["data_loss"][0]
