"""Shake-Shake and ShakeDrop against their papers' formulas, alone, stacked, and in `resnet`."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras import layers

import kregs
from kregs.layers import ShakeDrop, ShakeShake
from kregs.population import Population

RNG = np.random.default_rng(0)
ONE, OTHER = (RNG.normal(size=(6, 3)).astype("float32") for _ in "ab")


def shaken_shake(layer):
    """Return what weighs the first branch forward and backward, (rows,) each."""
    one, other = tf.constant(ONE), tf.constant(OTHER)
    with tf.GradientTape() as tape:
        tape.watch([one, other])
        y = layer([one, other], training=True)
    gradients = tape.gradient(y, [one, other])
    a = (y - OTHER) / (ONE - OTHER)
    np.testing.assert_allclose(a, np.tile(a[:, :1], 3), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(gradients[0] + gradients[1], np.ones((6, 3)), rtol=1e-5)
    return a[:, 0].numpy(), gradients[0][:, 0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize("forward", ["shake", "even"])
@pytest.mark.parametrize("backward", ["shake", "even", "keep"])
@pytest.mark.parametrize("level", ["sample", "batch"])
def test_shake_shake(forward, backward, level):
    layer = ShakeShake(forward=forward, backward=backward, level=level, seed=0)
    np.testing.assert_allclose(layer([ONE, OTHER]), (ONE + OTHER) / 2, rtol=1e-6)
    pairs = [shaken_shake(layer) for _ in range(60)]
    a, b = (np.array(values) for values in zip(*pairs, strict=True))
    for values, mode in ((a, forward), (b, backward)):
        if mode == "even" or (mode == "keep" and forward == "even"):
            np.testing.assert_allclose(values, 0.5, atol=1e-3)
            continue
        each = values.ravel() if level == "sample" else values[:, 0]
        assert scipy.stats.kstest(each, "uniform").pvalue > 1e-4
        assert np.ptp(values, axis=1).max() < 2e-3 or level == "sample"
    if backward == "keep":
        np.testing.assert_allclose(a, b, atol=2e-3)
    elif forward == backward == "shake":
        assert abs(np.corrcoef(a[:, 0], b[:, 0])[0, 1]) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("ranges", [((-1, 1), (0, 1)), ((0.5, 0.5), (0.5, 0.5))], ids=str)
def test_shake_drop(rate, ranges):
    """Yamada et al. 2019, equation 6: b + alpha - b alpha forward, b + beta - b beta backward."""
    (alpha, beta), p = ranges, 1 - rate
    layer = ShakeDrop(rate, alpha=alpha, beta=beta, seed=0)
    mean = np.mean(alpha)
    np.testing.assert_allclose(layer(ONE), (p + mean - p * mean) * ONE, rtol=1e-5, atol=1e-7)
    factors, gradients = [], []
    for _ in range(150):
        x = tf.constant(ONE)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        factors.append((y / ONE).numpy()[:, 0])
        gradients.append(tape.gradient(y, x).numpy()[:, 0])
    factors, gradients = np.array(factors), np.array(gradients)
    drawn = (np.abs(factors - 1) > 1e-5).any(1)
    assert drawn.mean() == pytest.approx(rate, abs=0.15)
    np.testing.assert_allclose(gradients[~drawn], 1.0)
    for values, (low, high) in ((factors[drawn], alpha), (gradients[drawn], beta)):
        if not values.size:
            continue
        assert low - 1e-5 <= values.min() <= values.max() <= high + 1e-5
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.15)


def test_no_alpha_is_stochastic_depth():
    layer = ShakeDrop(0.5, alpha=(0, 0), beta=(0, 0), seed=1)
    factors = {float((layer(ONE, training=True) / ONE)[0, 0]) for _ in range(30)}
    assert factors == {0.0, 1.0}


@pytest.mark.parametrize("layer", [ShakeShake(level="batch", seed=1), ShakeDrop(0.3, seed=2)])
def test_round_trip(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()


@pytest.mark.slow
@pytest.mark.parametrize("shake", ["drop", "shake"])
@pytest.mark.parametrize("pre_activation", [True, False])
def test_resnet(tmp_path, shake, pre_activation):
    r = kregs.Regularization(drop_path=0.4 if shake == "drop" else 0.0, normalization="batch")
    model = kregs.resnet(
        (8, 8, 1), 3, filters=(4, 8), blocks_per_stage=1, pre_activation=pre_activation,
        regularization=r, shake=shake, seed=0,
    )  # fmt: skip
    kinds = [type(layer).__name__ for layer in model.layers]
    if shake == "drop":
        rates = [layer.rate for layer in model.layers if isinstance(layer, ShakeDrop)]
        assert rates == pytest.approx([0.2, 0.4])
        assert "Dropout" not in kinds
    else:
        assert kinds.count("ShakeShake") == 2
        plain = kregs.resnet((8, 8, 1), 3, filters=(4, 8), blocks_per_stage=1, regularization=r)
        assert kinds.count("Conv2D") > len(
            [x for x in plain.layers if isinstance(x, layers.Conv2D)]
        )
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 8, 8, 1))
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5)
    with pytest.raises(ValueError, match="`shake` must be"):
        kregs.resnet((8, 8, 1), 3, shake="drp")
    with pytest.raises(ValueError, match=r"`regularization\.drop_path` must be above 0 with shake"):
        kregs.resnet((8, 8, 1), 3, shake="drop")


# ---- populations ---------------------------------------------------------------------------


def member(kind, k, learning_rate=0.0):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    x = layers.Dense(5, "tanh")(inputs)
    one, other = layers.Dense(5, "tanh")(x), layers.Dense(5)(x)
    if kind == "shake":
        branch = ShakeShake(level="batch")([one, other])
    elif kind == "even":
        branch = ShakeShake(forward="even", backward="even")([one, other])
    else:
        branch = ShakeDrop((0.7, 0.0, 0.3)[k], level=kind.split()[1])(one)
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()([x, branch])))
    model.compile(keras.optimizers.SGD(learning_rate), "mse")
    return model


X, Y = RNG.normal(size=(50, 4)).astype("float32"), RNG.normal(size=(50, 1)).astype("float32")
MEMBERS = 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shake", "drop sample", "drop batch"])
def test_members_shake_as_keras_does(kind):
    """With a learning rate of 0 the loss of an epoch depends on what is drawn alone."""
    population = Population.from_models([member(kind, k) for k in range(MEMBERS)], seeds=range(3))
    fit = {"batch_size": 16, "epochs": 40}
    histories = population.fit(X, Y, **fit)
    evaluated = population.evaluate(X, Y)["loss"]
    for k in range(MEMBERS):
        alone = member(kind, k)
        assert evaluated[k] == pytest.approx(alone.evaluate(X, Y, verbose=0), rel=1e-5)
        a, b = (
            np.array(histories[k]["loss"]),
            np.array(alone.fit(X, Y, verbose=0, **fit).history["loss"]),
        )
        error = np.sqrt(a.var() / a.size + b.var() / b.size)
        assert abs(a.mean() - b.mean()) < 5 * error + 1e-6
        assert a.std() == pytest.approx(b.std(), rel=0.7, abs=1e-6)


@pytest.mark.slow
def test_what_is_not_drawn_is_exact(double):
    """Even branches, and a branch that is never drawn, end where `fit` ends."""
    for kind, which in (("even", (0, 1)), ("drop sample", (0, 1))):
        models = [member(kind, k, learning_rate=0.1) for k in which]
        population = Population.from_models(models)
        fit = {"batch_size": 16, "epochs": 3, "shuffle": False}
        population.fit(X, Y, **fit)
        alone = member(kind, 1, learning_rate=0.1)
        alone.fit(X, Y, verbose=0, **fit)
        for ours, theirs in zip(
            population.unstack()[1].get_weights(), alone.get_weights(), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ShakeShake(forward="keep"), "`forward` must be"),
        (lambda: ShakeShake(backward="none"), "`backward` must be"),
        (lambda: ShakeShake(level="image"), "`level` must be"),
        (lambda: ShakeShake()([ONE, OTHER, ONE]), "needs a list of two tensors"),
        (lambda: ShakeShake()([ONE, OTHER[:, :2]]), "needs a list of two tensors"),
        (lambda: ShakeDrop(1.1), "`rate` must be"),
        (lambda: ShakeDrop(0.5, alpha=(1, 0)), "low <= high"),
        (lambda: ShakeDrop(0.5, level="pixel"), "`level` must be"),
    ],
    ids=range(8),
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match=r"`beta` must be \(low, high\)"):
        ShakeDrop(0.5, beta=0.5)
