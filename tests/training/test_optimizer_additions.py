"""Lookahead and the schedule of the weight decay against their papers' formulas in NumPy."""

import copy

import keras
import numpy as np
import pytest
from keras import optimizers

import kregs
from kregs.training.optimizer_additions import is_extended

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 1))


def linear(optimizer, weights=None):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, "mse")
    model.set_weights([np.zeros((3, 1))] if weights is None else weights)
    return model


def gradient(w):
    return 2 * X.T @ (X @ w - Y) / len(X)


@pytest.mark.parametrize(("k", "alpha"), [(1, 0.5), (3, 0.6), (4, 1.0)])
def test_lookahead_is_algorithm_1(double, k, alpha):
    """Zhang et al. 2019, algorithm 1, around gradient descent."""
    start = RNG.normal(size=(3, 1))
    model = linear(kregs.lookahead(optimizers.SGD(0.1), steps=k, alpha=alpha), [start])
    model.fit(X, Y, batch_size=6, epochs=11, verbose=0)
    slow = fast = start
    for step in range(1, 12):
        fast = fast - 0.1 * gradient(fast)
        if step % k == 0:
            slow = slow + alpha * (fast - slow)
            fast = slow
    np.testing.assert_allclose(model.get_weights()[0], fast, rtol=1e-6)


def test_decay_schedule_is_flat_then_cosine(double):
    """RealMLP: w <- w - rate * decay * flat_cos(t / steps) * w, before the step."""
    start = RNG.normal(size=(3, 1))
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    model = linear(kregs.decay_schedule(optimizer, steps=8, flat=0.25), [start])
    model.fit(X, Y, batch_size=6, epochs=10, verbose=0)
    w = start
    for step in range(10):
        t = step / 8
        part = 0.5 * (1 + np.cos(np.pi * np.clip((t - 0.25) / 0.75, 0, 1)))
        w = w - 0.1 * 0.5 * part * w - 0.1 * gradient(w)
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-6)


def test_both_in_any_order_and_by_name():
    one = kregs.decay_schedule(kregs.lookahead("adamw", steps=5, alpha=0.8), steps=9)
    other = kregs.lookahead(kregs.decay_schedule("adamw", steps=9), steps=5, alpha=0.8)
    assert one.get_config() | {"name": ""} == other.get_config() | {"name": ""}
    assert (one.looks_ahead, one.lookahead_steps, one.decay_steps) == (True, 5, 9)
    assert one.weight_decay == 0.004


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd", "adam", "nadam", "rmsprop", "ftrl"])
def test_alpha_1_is_the_optimizer_itself(double, name):
    start = RNG.normal(size=(3, 1))
    ends = []
    for optimizer in (name, kregs.lookahead(name, steps=2, alpha=1.0)):
        model = linear(optimizer, [start])
        model.fit(X, Y, batch_size=2, epochs=2, verbose=0, shuffle=False)
        ends.append(model.get_weights()[0])
    np.testing.assert_allclose(*ends, rtol=1e-12)


@pytest.mark.slow
def test_round_trips(tmp_path):
    schedule = kregs.FlatCosine(0.1, steps=9)
    optimizer = kregs.lookahead(optimizers.AdamW(schedule, weight_decay=0.1), steps=3, alpha=0.4)
    optimizer = kregs.decay_schedule(optimizer, steps=9, flat=0.1)
    for again in (
        type(optimizer).from_config(optimizer.get_config()),
        keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)),
        copy.deepcopy(optimizer),
    ):
        assert is_extended(again)
        assert again.get_config() == optimizer.get_config()
    model = linear(optimizer)
    model.fit(X, Y, batch_size=2, epochs=2, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    kregs.lookahead("sgd")  # the class that is registered last is another one
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        each.fit(X, Y, batch_size=2, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_allclose(loaded.get_weights()[0], model.get_weights()[0], rtol=1e-6)


def test_compile_model_gives_it_a_decay():
    r = kregs.Regularization(weight_decay=0.2)
    model = kregs.mlp((3,), 1, units=(2,), head_activation=None, regularization=r)
    optimizer = kregs.decay_schedule(kregs.lookahead("adam"), steps=9)
    kregs.compile_model(model, "mse", optimizer=optimizer, regularization=r)
    assert is_extended(model.optimizer)
    assert (model.optimizer.weight_decay, model.optimizer.decay_steps) == (0.2, 9)
    excluded = [model.optimizer._use_weight_decay(v) for v in model.trainable_variables]
    assert excluded == [True, False, True, False]


def built():
    optimizer = optimizers.SGD()
    optimizer.build([keras.Variable(1.0)])
    return optimizer


class OwnOptimizer(optimizers.SGD):
    pass


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        ("adma", ValueError, "Did you mean 'adamax'"),
        (3, TypeError, "`optimizer` must be a name"),
        (optimizers.SGD, TypeError, "`optimizer` must be a name"),
        (lambda: kregs.proximal("adam", l1=0.1), ValueError, "must be one of .*proximal"),
        (lambda: OwnOptimizer(), ValueError, "must be one of"),
        (lambda: optimizers.LossScaleOptimizer(optimizers.SGD()), ValueError, "must be one of"),
        (built, ValueError, "must be a fresh one"),
        (lambda: optimizers.SGD(gradient_accumulation_steps=2), ValueError, "gather gradients"),
        (lambda: kregs.lookahead("sgd"), ValueError, "look ahead already"),
    ],
    ids=range(9),
)
def test_refused_optimizers(optimizer, error, message):
    optimizer = (
        optimizer() if callable(optimizer) and optimizer is not optimizers.SGD else optimizer
    )
    with pytest.raises(error, match=message):
        kregs.lookahead(optimizer)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: kregs.lookahead("sgd", steps=0), "steps"),
        (lambda: kregs.lookahead("sgd", alpha=0.0), "alpha"),
        (lambda: kregs.lookahead("sgd", alpha=1.1), "alpha"),
        (lambda: kregs.decay_schedule("sgd", steps=0), "steps"),
        (lambda: kregs.decay_schedule("sgd", steps=9, flat=1.1), "flat"),
    ],
)
def test_refused_numbers(call, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        call()
    twice = kregs.decay_schedule("adamw", steps=3)
    with pytest.raises(ValueError, match="no schedule of its decay yet"):
        kregs.decay_schedule(twice, steps=3)
