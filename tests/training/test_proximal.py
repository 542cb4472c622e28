"""The proximal step against scikit-learn's lasso and elastic net, closed forms and Keras's fit."""

import copy
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers
from sklearn.datasets import load_diabetes
from sklearn.linear_model import ElasticNet, Lasso

import kregs
from kregs.training.proximal import (
    group_axes,
    group_soft_threshold,
    is_proximal,
    soft_threshold,
)

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


def dense(inputs=10, units=1, **options):
    return keras.Sequential(
        [keras.Input((inputs,)), layers.Dense(units, use_bias=False, **options)]
    )


def minimize(model, optimizer, x, y, *, steps, l2=0.0):
    """Train on all rows at once, many steps in one traced loop; return the kernel."""
    x, y = tf.constant(x, model.dtype), tf.constant(np.reshape(y, (len(x), -1)), model.dtype)
    weights = model.trainable_weights
    optimizer.build(weights)

    @tf.function
    def run():
        for _ in tf.range(steps):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.reduce_sum(tf.square(model(x) - y), 1))
                loss += l2 * tf.reduce_sum(tf.square(weights[0]))
            optimizer.apply(tape.gradient(loss, weights), weights)

    run()
    return weights[0].numpy()


def cosine(rate, steps=1500):
    return optimizers.schedules.CosineDecay(rate, steps)


# ---- the minimizer -------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(cosine(0.02), momentum=0.9),
    "nesterov": lambda: optimizers.SGD(cosine(0.02), momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(cosine(0.05)),
    "amsgrad": lambda: optimizers.Adam(cosine(0.05), amsgrad=True),
    "adamw": lambda: optimizers.AdamW(cosine(0.05), weight_decay=0.0),
    "nadam": lambda: optimizers.Nadam(cosine(0.05)),
    "adamax": lambda: optimizers.Adamax(cosine(0.05)),
    "rmsprop": lambda: optimizers.RMSprop(cosine(0.02)),
    "rmsprop_momentum": lambda: optimizers.RMSprop(cosine(0.01), momentum=0.9),
    "rmsprop_centered": lambda: optimizers.RMSprop(cosine(0.002), centered=True),
    "adagrad": lambda: optimizers.Adagrad(cosine(0.5)),
    "adadelta": lambda: optimizers.Adadelta(cosine(10.0)),
    "adafactor": lambda: optimizers.Adafactor(cosine(1.0)),
    "ftrl": lambda: optimizers.Ftrl(0.5),
    "lamb": lambda: optimizers.Lamb(cosine(0.05)),
    "lion": lambda: optimizers.Lion(cosine(0.02)),
}


QUICK = ("momentum", "adam", "lion")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n not in QUICK)) for n in OPTIMIZERS]
)
def test_each_optimizer_ends_at_the_lasso(diabetes, name):
    x, y = diabetes
    alpha = 0.05
    expected = Lasso(alpha, fit_intercept=False, tol=1e-12, max_iter=10**5).fit(x, y).coef_
    optimizer = kregs.proximal(OPTIMIZERS[name](), l1=2 * alpha)
    found = minimize(dense(), optimizer, x, y, steps=1500).ravel()
    assert 0 < (expected != 0).sum() < 10
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_optimizer_of_keras_is_in_the_table_or_refused():
    known = {type(build()).__name__ for build in OPTIMIZERS.values()}
    refused = {"Muon", "ScheduleFreeAdamW", "LossScaleOptimizer", "MultiOptimizer", "Optimizer"}
    of_keras = {
        name
        for name, value in vars(optimizers).items()
        if isinstance(value, type) and issubclass(value, optimizers.Optimizer)
    }
    assert of_keras - known <= refused
    assert known <= of_keras


def test_elastic_net_is_the_proximal_l1_with_an_l2_penalty(diabetes):
    x, y = diabetes
    alpha, ratio = 0.1, 0.5
    net = ElasticNet(alpha=alpha, l1_ratio=ratio, fit_intercept=False, tol=1e-12, max_iter=10**5)
    expected = net.fit(x, y).coef_
    # scikit-learn: |y - Xw|² / 2n + alpha ratio |w|₁ + alpha (1 - ratio) |w|² / 2
    optimizer = kregs.proximal(optimizers.Adam(cosine(0.05)), l1=2 * alpha * ratio)
    found = minimize(dense(), optimizer, x, y, steps=1500, l2=alpha * (1 - ratio)).ravel()
    assert 0 < (expected != 0).sum() < 10
    np.testing.assert_array_equal(found != 0, expected != 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_orthogonal_design_has_a_closed_form(double):
    x = np.linalg.qr(RNG.normal(size=(40, 6)))[0] * np.sqrt(40)  # x'x / n = 1
    y = x @ [1.0, -0.5, 0.3, 0.2, 0.0, -0.05] + 0.1 * RNG.normal(size=40)
    least_squares = x.T @ y / 40
    expected = np.sign(least_squares) * np.maximum(np.abs(least_squares) - 0.25, 0)
    optimizer = kregs.proximal(optimizers.SGD(0.25), l1=0.5)
    found = minimize(dense(6), optimizer, x, y, steps=200).ravel()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(found == 0, np.abs(least_squares) < 0.25)


def group_lasso(x, y, group_l1, l1=0.0, steps=20000):
    """Proximal gradient in NumPy: the columns of the kernel are the groups."""
    w = np.zeros((x.shape[1], y.shape[1]))
    rate = len(x) / 2 / np.linalg.norm(x, 2) ** 2
    for _ in range(steps):
        w = w - rate * 2 * x.T @ (x @ w - y) / len(x)
        w = np.sign(w) * np.maximum(np.abs(w) - rate * l1, 0)
        norms = np.maximum(np.linalg.norm(w, axis=0), 1e-300)
        w = w * np.maximum(1 - rate * group_l1 / norms, 0)
    return w


@pytest.mark.parametrize(
    "name",
    ["momentum", "adam", *(pytest.param(n, marks=pytest.mark.nightly) for n in ("lion", "lamb"))],
)
def test_group_lasso_against_proximal_gradient(name):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 4)) * [1.0, 3.0, 0.3, 1.0]  # Adam's steps differ within a group
    y = x @ rng.normal(size=(4, 6)) * [1, 0.05, 1, 0.05, 1, 1] + 0.1 * rng.normal(size=(60, 6))
    expected = group_lasso(x, y, 1.0, l1=0.2)
    dead = (expected == 0).all(0)
    assert 0 < dead.sum() < 6
    optimizer = kregs.proximal(OPTIMIZERS[name](), l1=0.2, group_l1=1.0)
    found = minimize(dense(4, 6), optimizer, x, y, steps=1500)
    np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_group_threshold_minimizes_its_objective(double):
    for scale in (1e-6, 1.0, 1e4):
        weight = RNG.normal(size=(7, 5)) * scale
        threshold = np.exp(RNG.normal(size=(7, 5)) * 3) * scale
        result = group_soft_threshold(weight, threshold, (0,)).numpy()
        norms = np.linalg.norm(result, axis=0)
        alive = norms > 0
        assert alive.any() or scale != 1.0
        # (u - w) / threshold + u / |u| = 0, or |w / threshold| <= 1 where u is 0
        stationary = (result - weight)[:, alive] / threshold[:, alive]
        np.testing.assert_allclose(stationary, -result[:, alive] / norms[alive], atol=1e-9)
        assert (np.linalg.norm((weight / threshold)[:, ~alive], axis=0) <= 1).all()


def test_thresholds_of_zero_change_nothing():
    weight = RNG.normal(size=(3, 2)).astype("float32")
    weight[:, 1] = 0
    np.testing.assert_array_equal(soft_threshold(weight, 0.0), weight)
    result = group_soft_threshold(weight, np.float32(0.0), (0,)).numpy()
    np.testing.assert_allclose(result, weight, rtol=1e-6)


# ---- in Keras ------------------------------------------------------------------------------

X = RNG.normal(size=(64, 6)).astype("float32")
Y = (X[:, :1] - X[:, 1:2]).astype("float32")


def network(**options):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, "relu", name="hidden"),
            layers.BatchNormalization(),
            layers.Dense(1, name="head"),
        ],
        **options,
    )


def test_only_kernels_are_thresholded(eager):
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3, name="embedding")(inputs)
    x = layers.LayerNormalization()(layers.Conv1D(4, 2, name="conv")(x))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(3, name="lstm")(x)))
    model.compile(kregs.proximal(optimizers.SGD(1e-3), l1=1e6), "mse")
    model.fit(np.ones((8, 4), "int32"), np.ones((8, 2)), verbose=0)
    for weight in model.trainable_weights:
        is_zero = not weight.numpy().any()
        assert is_zero == ("kernel" in weight.path) or weight.name in ("beta", "bias")
    names = ["embedding/"]
    model.compile(kregs.proximal(optimizers.SGD(1e-3), l1=1e6, variables=names), "mse")
    model.get_layer("conv").kernel.assign(np.ones((2, 3, 4)))
    model.fit(np.ones((8, 4), "int32"), np.ones((8, 2)), verbose=0)
    assert not model.get_layer("embedding").embeddings.numpy()[1].any()
    assert model.get_layer("conv").kernel.numpy().all()


@pytest.mark.nightly
def test_fit_reaches_exact_zeros_that_l1_does_not():
    def zeros(optimizer, penalty):
        keras.utils.set_random_seed(0)
        model = dense(6, kernel_regularizer=penalty)
        model.compile(optimizer, "mse")
        model.fit(X, Y, epochs=40, batch_size=16, verbose=0)
        return (model.get_weights()[0] == 0).sum()

    assert zeros(kregs.proximal(optimizers.Adam(0.05), l1=0.2), None) == 4
    assert zeros(optimizers.Adam(0.05), keras.regularizers.L1(0.2)) == 0


def test_steps_that_only_accumulate_do_not_shrink(double):
    model = dense(6)
    start = model.get_weights()[0]
    sgd = optimizers.SGD(0.1, gradient_accumulation_steps=3)
    optimizer = kregs.proximal(sgd, l1=0.05)
    for step in range(3):
        optimizer.apply([tf.ones((6, 1), tf.float64) * step], model.trainable_weights)
        if step < 2:
            np.testing.assert_array_equal(model.get_weights()[0], start)
    moved = start - 0.1  # the mean of the gradients is 1
    expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.005, 0)
    np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-15)


def test_moving_averages_are_zero_where_weights_are(eager):
    adam = optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)
    model = dense(6)
    model.compile(kregs.proximal(adam, l1=0.2), "mse")
    model.fit(X, Y, epochs=12, batch_size=16, verbose=0)  # ends with the averages
    assert 1 < (model.get_weights()[0] == 0).sum() < 6


@pytest.mark.parametrize(
    "options",
    [{"clipnorm": 0.01}, {"weight_decay": 0.5}, {"global_clipnorm": 0.01}, {"clipvalue": 0.01}],
)
def test_clipping_and_decay_come_before_the_threshold(eager, options):
    plain, sparse = network(), network()
    sparse.set_weights(plain.get_weights())
    plain.compile(optimizers.SGD(0.1, **options), "mse")
    sparse.compile(kregs.proximal(optimizers.SGD(0.1, **options), l1=0.3), "mse")
    for model in (plain, sparse):
        model.fit(X, Y, batch_size=64, epochs=1, shuffle=False, verbose=0)
    for one, other in zip(plain.trainable_weights, sparse.trainable_weights, strict=True):
        expected = soft_threshold(one.numpy(), 0.03) if "kernel" in one.path else one.numpy()
        np.testing.assert_allclose(other.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("jit", [pytest.param(True, marks=pytest.mark.nightly), False])
def test_mixed_precision_and_xla(jit):
    with_policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model = dense(6, 4)
    finally:
        keras.config.set_dtype_policy(with_policy)
    model.compile(kregs.proximal("adam", l1=0.1, group_l1=0.05), "mse", jit_compile=jit)
    assert isinstance(model.optimizer, optimizers.LossScaleOptimizer)
    model.optimizer.learning_rate = 0.1
    model.fit(X, np.repeat(Y, 4, 1), epochs=10, batch_size=16, verbose=0)
    assert not model.get_weights()[0][2:].any()
    assert model.get_weights()[0][:2].all()


@pytest.mark.nightly
def test_a_saved_file_holds_the_optimizer_inside(tmp_path, eager):
    model = network()
    model.compile(kregs.proximal(optimizers.SGD(0.01, momentum=0.9), l1=0.1), "mse")
    model.fit(X, Y, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    code = (
        "import keras, sys, numpy as np\n"
        f"model = keras.models.load_model({str(path)!r})\n"
        "assert type(model.optimizer) is keras.optimizers.SGD, type(model.optimizer)\n"
        "assert int(model.optimizer.iterations) == 2\n"
        "assert abs(model.optimizer.variables[2].numpy()).max() > 0  # a momentum\n"
        "model.fit(np.ones((8, 6)), np.ones((8, 1)), verbose=0)\n"
        "assert 'kregs' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip


def test_weights_of_an_optimizer_go_on_where_they_were(tmp_path, eager):
    def build():
        model = network()
        model.compile(kregs.proximal(optimizers.SGD(0.01, momentum=0.9), l1=0.1), "mse")
        return model

    model = build()
    model.fit(X, Y, shuffle=False, verbose=0)
    model.save_weights(tmp_path / "a.weights.h5")
    other = build()
    other.optimizer.build(other.trainable_variables)
    other.load_weights(tmp_path / "a.weights.h5")
    for each in (model, other):
        each.fit(X, Y, shuffle=False, verbose=0)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_what_an_optimizer_was_told_is_kept():
    given = optimizers.AdamW(cosine(0.1), weight_decay=0.3, clipnorm=2.0, name="mine")
    given.exclude_from_weight_decay(var_names=["bias"])
    result = kregs.proximal(given, l1=0.1, group_l1=0.2)
    assert isinstance(result, optimizers.AdamW)
    assert is_proximal(result)
    assert result.get_config() == given.get_config()
    model = network()
    result.build(model.trainable_variables)
    decayed = {v.path for v in model.trainable_variables if result._use_weight_decay(v)}
    assert {path.split("/")[-1] for path in decayed} == {"kernel", "gamma", "beta"}
    assert result._learning_rate is given._learning_rate
    assert repr(result) == "<proximal AdamW, l1=0.1, group_l1=0.2>"


def test_copies_and_pickles_keep_the_proximal_step():
    given = optimizers.AdamW(cosine(0.1), weight_decay=0.3)
    given.exclude_from_weight_decay(var_names=["bias"])
    first = kregs.proximal(given, l1=0.1, group_l1=0.2, variables=["kernel"])
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert repr(copied) == repr(first)
        assert copied.get_config() == first.get_config()
        weights = network().trainable_variables
        assert copied.thresholds(weights) == first.thresholds(weights)
        copied.build(weights)
        decayed = {v.path.split("/")[-1] for v in weights if copied._use_weight_decay(v)}
        assert decayed == {"kernel", "gamma", "beta"}
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2DTranspose(3, 2)])
    grouped = kregs.proximal("sgd", group_l1=0.2, model=model)
    assert copy.deepcopy(grouped).thresholds(model.weights)[0].axes == (2,)
    with pytest.raises(pickle.PicklingError, match="without it: make it anew"):
        pickle.dumps(grouped)


def test_groups_are_units_and_filters():
    inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)
    x = layers.SeparableConv2D(4, 3, name="separable")(x)
    x = layers.Conv2DTranspose(5, 3, name="transposed")(x)
    x = layers.Conv2D(6, 3, name="conv")(x)
    model = keras.Model(inputs, layers.Dense(2, name="dense")(layers.Flatten()(x)))
    axes = group_axes(model)
    by_path = {v.path: axes.get(id(v)) for v in model.trainable_variables if id(v) in axes}
    assert by_path == {
        "depthwise/kernel": (2, 3), "separable/depthwise_kernel": (2, 3),
        "separable/pointwise_kernel": (3,), "transposed/kernel": (2,), "conv/kernel": (3,),
        "dense/kernel": (1,),
    }  # fmt: skip
    optimizer = kregs.proximal(optimizers.SGD(1.0), group_l1=1.0, model=model)
    kernel = model.get_layer("transposed").kernel
    values = RNG.normal(size=kernel.shape).astype("float32")
    values[:, :, 2] *= 1e-3
    kernel.assign(values)
    optimizer.build(model.trainable_variables)
    optimizer.apply([tf.zeros_like(v.value) for v in model.trainable_variables])
    norms = np.sqrt(np.square(values).sum((0, 1, 3), keepdims=True))
    np.testing.assert_allclose(kernel.numpy(), values * np.maximum(1 - 1 / norms, 0), rtol=1e-5)
    assert not kernel.numpy()[:, :, 2].any()


# ---- wrong arguments -----------------------------------------------------------------------


def built_adam():
    adam = optimizers.Adam()
    adam.build(dense().trainable_variables)
    return adam


class Own(optimizers.SGD):
    pass


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (Own, {}, "must be one of Adadelta, Adafactor, .*SGD. Received: Own, whose step sizes"),
        (optimizers.Muon, {}, "Received: Muon, whose steps are not of single weights"),
        (lambda: "muon", {}, "'muon', whose steps are not of single weights"),
        (lambda: "adm", {}, "'adm'. Did you mean 'adam'"),
        (lambda: optimizers.LossScaleOptimizer(optimizers.SGD()), {}, "goes around"),
        (lambda: kregs.proximal("sgd"), {}, "no proximal step yet"),
        (built_adam, {}, "fresh one"),
        (lambda: "adam", {"l1": -1.0}, "`l1` must be a finite number >= 0"),
        (lambda: "adam", {"group_l1": float("nan")}, "`group_l1` must be a finite number >= 0"),
        (lambda: "adam", {"variables": []}, "`variables` must hold at least one"),
        (lambda: "adam", {"variables": ["("]}, "`variables` must hold regular expressions"),
    ],
)
def test_wrong_values(optimizer, options, message):
    with pytest.raises(ValueError, match=message):
        kregs.proximal(optimizer(), **options)


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (3, {}, "`optimizer` must be a name or a keras.optimizers.Optimizer, one of Adadelta"),
        ("adam", {"l1": "a"}, "`l1` must be a finite number"),
        ("adam", {"variables": "kernel"}, "`variables` must be a list of regular expressions"),
        ("adam", {"model": 3}, "`model` must be a keras.Model"),
    ],
)
def test_wrong_types(optimizer, options, message):
    with pytest.raises(TypeError, match=message):
        kregs.proximal(optimizer, **options)
