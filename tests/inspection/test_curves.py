"""Range tests: against gradient descent in NumPy, Keras's `fit`, and one another."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

import kregs
from kregs.population.rows import epoch_order

L = keras.layers
RATES = [1e-3, 0.01, 0.05, 0.4, 4.0]


def regression(rows=60, noise=0.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3)).astype("float32") * [1.0, 2.0, 0.5]
    y = x @ [1.0, -2.0, 0.5] + 0.3 + noise * rng.normal(size=rows)
    return x.astype("float32"), y.astype("float32")[:, None]


def linear(l2=0.0, optimizer="sgd"):
    penalty = keras.regularizers.L2(l2)
    model = keras.Sequential([keras.Input((3,)), L.Dense(1, kernel_regularizer=penalty)])
    model.compile(optimizer, "mse")
    return model


def descend(weights, x, y, rate, *, seed, epochs, batch, l2=0.0):
    """Plain gradient descent, and the mean squared error after it."""
    w, b = (np.asarray(part, "float64") for part in weights)
    for epoch in range(epochs):
        order = epoch_order(seed, epoch, len(x))
        for first in range(0, len(x), batch):
            rows = order[first : first + batch]
            error = 2 * (x[rows] @ w + b - y[rows]) / len(rows)
            w, b = w - rate * (x[rows].T @ error + 2 * l2 * w), b - rate * error.sum(0)
    return lambda x, y: float(((x @ w + b - y) ** 2).mean())


def test_each_rate_is_gradient_descent_from_the_same_start():
    x, y = regression()
    model = linear()
    weights = model.get_weights()
    curve = kregs.learning_rate_curve(
        model, x, y, learning_rates=RATES, epochs=2, batch_size=16, seeds=2, seed=7
    )
    assert curve.one_by_one is None
    runs = curve.runs.set_index(["learning_rate", "seed"])["loss"]
    for rate in RATES[:4]:
        for seed in (7, 8):
            expected = descend(weights, x, y, rate, seed=seed, epochs=2, batch=16)(x, y)
            assert runs[rate, seed] == pytest.approx(expected, rel=1e-3), rate
    first = float(np.mean((x @ weights[0] + weights[1] - y) ** 2))
    assert curve.start == pytest.approx(first, rel=1e-5)
    # the eigenvalues say where descent must diverge: 4 is far beyond
    assert np.isnan(runs[4.0, 7]) or runs[4.0, 7] > 1e3 * first
    frame = curve.to_frame()
    assert frame["loss"].iloc[0] == pytest.approx((runs[1e-3, 7] + runs[1e-3, 8]) / 2)
    assert curve.best == 0.05
    assert curve.suggestion == pytest.approx(curve.interval[1] / 5)
    # the model is as it was
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)
    assert int(model.optimizer.iterations) == 0


def test_each_strength_is_gradient_descent_judged_without_penalty():
    x, y = regression(80, noise=2.0)
    model = linear(l2=3.0)
    weights = model.get_weights()
    curve = kregs.penalty_curve(
        model, x, y, values=[0.01, 0.1, 1.0], epochs=3, batch_size=16, seed=3, validation_split=0.25
    )
    assert curve.one_by_one is None
    for strength, loss in zip([0.01, 0.1, 1.0], curve.to_frame()["loss"], strict=True):
        measure = descend(weights, x[:60], y[:60], 0.01, seed=3, epochs=3, batch=16, l2=strength)
        assert loss == pytest.approx(measure(x[60:], y[60:]), rel=1e-4), strength
    assert float(model.layers[0].kernel_regularizer.l2) == 3.0
    assert float(model.losses[0]) == pytest.approx(3.0 * (weights[0] ** 2).sum(), rel=1e-6)


class Own(keras.Model):
    """The same network as a subclass, which cannot be stacked."""

    def __init__(self, l2=0.0):
        super().__init__()
        self.hidden = L.Dense(4, "tanh", kernel_regularizer=keras.regularizers.L2(l2))
        self.out = L.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


def twins(l2):
    stacked = keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(4, "tanh", kernel_regularizer=keras.regularizers.L2(l2)),
            L.Dense(1),
        ]
    )
    own = Own(l2)
    own(np.zeros((1, 3)))
    own.set_weights(stacked.get_weights())
    for model in (stacked, own):
        model.compile(keras.optimizers.Adam(0.02), "mse")
    return stacked, own


@pytest.mark.nightly
def test_what_cannot_be_stacked_is_trained_one_by_one_to_the_same_end(eager):
    x, y = regression()
    stacked, own = twins(0.01)
    options = {"learning_rates": [1e-3, 0.03, 0.3], "steps": 3, "batch_size": 16}
    options["validation_data"] = (x[:20], y[:20])
    before = own.get_weights()
    curves = [kregs.learning_rate_curve(model, x, y, **options) for model in (stacked, own)]
    assert curves[0].one_by_one is None
    assert "Own" in curves[1].one_by_one
    assert "one by one" in str(curves[1])
    for column in ("loss", "train"):
        values = [curve.to_frame()[column].to_numpy() for curve in curves]
        assert values[0] == pytest.approx(values[1], rel=1e-4), column
    assert curves[0].start == pytest.approx(curves[1].start, rel=1e-5)
    options = {"values": [0.0, 0.1], "penalty": "l1", "epochs": 2, "validation_split": 0.3}
    curves = [kregs.penalty_curve(model, x, y, **options) for model in (stacked, own)]
    values = [curve.to_frame()["loss"].to_numpy() for curve in curves]
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(before, own.get_weights(), strict=True))
    assert isinstance(own.hidden.kernel.regularizer, keras.regularizers.L2)
    assert float(own.optimizer.learning_rate) == pytest.approx(0.02)
    assert not any(np.any(v.numpy()) for v in own.optimizer.variables[2:])


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return StandardScaler().fit_transform(x[order]).astype("float32"), y[order]


def digits_model(hp):
    r = kregs.Regularization(dropout=hp.Float("dropout", 0.1, 0.3))
    model = kregs.mlp((64,), 10, units=(32,), regularization=r)
    return kregs.compile_model(model, "sparse_categorical_crossentropy")


@pytest.mark.nightly
def test_a_build_function_on_digits(digits):
    x, y = (part[:800] for part in digits)
    curve = kregs.learning_rate_curve(
        digits_model, x, y, learning_rates=np.logspace(-5, 1, 7), validation_split=0.25, seeds=2
    )
    assert curve.one_by_one is None
    assert curve.judged_on == "200 validation rows"
    assert 1e-3 < curve.suggestion < 0.1
    frame = curve.to_frame()
    assert frame["standard_error"].gt(0).all()
    assert (frame["loss"].iloc[-1] > curve.start) or frame["diverged"].iloc[-1]
    axes = curve.plot().axes[0]
    assert axes.get_xscale() == "log"
    assert f"suggestion: {curve.suggestion:.3g}" in axes.get_legend_handles_labels()[1]
    # a further call gives the same
    again = kregs.learning_rate_curve(
        digits_model, x, y, learning_rates=np.logspace(-5, 1, 7), validation_split=0.25, seeds=2
    )
    assert again.runs["loss"].tolist() == pytest.approx(curve.runs["loss"].tolist(), nan_ok=True)


@pytest.mark.nightly
def test_suggestions_that_cannot_be_made():
    x, y = regression()
    low = kregs.learning_rate_curve(linear(), x, y, learning_rates=[1e-8, 1e-7], steps=2)
    assert low.suggestion is None
    assert "no rate lowers the loss" in str(low)
    rising = kregs.learning_rate_curve(linear(), x, y, learning_rates=[1e-3, 1e-2], epochs=1)
    assert "try larger ones" in str(rising)
    gone = kregs.learning_rate_curve(linear(), x, y, learning_rates=[1e9, 1e12], epochs=9)
    assert gone.suggestion is None
    assert gone.best is None
    assert "all trainings diverged" in str(gone)
    assert gone.plot()


def schedule_model():
    return linear(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)))


def uncompiled():
    return keras.Sequential([keras.Input((3,)), L.Dense(1)])


@pytest.mark.parametrize(
    ("function", "changed", "error", "words"),
    [
        ("learning_rate_curve", {"build_or_model": uncompiled}, ValueError, "must be compiled"),
        (
            "learning_rate_curve",
            {"build_or_model": schedule_model},
            ValueError,
            "no schedule|a schedule",
        ),
        ("learning_rate_curve", {"build_or_model": lambda: 3}, TypeError, "Received: int, 3"),
        ("learning_rate_curve", {"build_or_model": "model"}, TypeError, "function that returns"),
        ("learning_rate_curve", {"learning_rates": [0.0, 0.1]}, ValueError, r"learning_rates\[0\]"),
        ("learning_rate_curve", {"learning_rates": [0.1]}, ValueError, "at least 2 different"),
        ("learning_rate_curve", {"learning_rates": 0.1}, TypeError, "a list of numbers"),
        ("learning_rate_curve", {"steps": 3, "epochs": 2}, ValueError, "both given"),
        ("learning_rate_curve", {"y": np.ones((60, 2))}, ValueError, "shape of the model's output"),
        ("learning_rate_curve", {"x": np.full((60, 3), np.nan)}, ValueError, "must be finite"),
        ("learning_rate_curve", {"validation_data": 3}, TypeError, r"\(x, y\)"),
        ("penalty_curve", {"penalty": "l3"}, ValueError, "`penalty` must be one of 'l2', 'l1'"),
        ("penalty_curve", {"values": [-1, 1]}, ValueError, r"`values\[0\]` must be"),
        ("penalty_curve", {"validation_split": 0}, ValueError, "prefer λ = 0"),
        ("penalty_curve", {"validation_split": 0.99}, ValueError, "rows on both sides"),
    ],
)
def test_errors(function, changed, error, words):
    x, y = regression()
    arguments = {"build_or_model": linear, "x": x, "y": y, **changed}
    with pytest.raises(error, match=words):
        getattr(kregs, function)(**arguments)


def test_a_model_without_kernels_has_no_penalty_curve():
    model = keras.Sequential([keras.Input((3,)), L.BatchNormalization()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have a kernel that is trained"):
        kregs.penalty_curve(model, *[regression()[0]] * 2)


@pytest.mark.parametrize(("group_l1", "l1"), [(0.5, 0.0), (0.0, 0.3)])
def test_a_proximal_step_that_knows_its_model_is_kept(group_l1, l1):
    x, y = regression()
    fields = kregs.Regularization(group_l1=group_l1, proximal_l1=l1)
    model = kregs.regularize(kregs.linear((3,), 1, head_activation=None), fields)
    kregs.compile_model(model, "mse", optimizer="sgd", regularization=fields)
    start = model.get_weights()
    arguments = {"epochs": 2, "batch_size": 60}
    curve = kregs.learning_rate_curve(model, x, y, learning_rates=[0.01, 0.05], **arguments)
    strengths = kregs.penalty_curve(model, x, y, values=[0.0, 0.1], validation_data=(x, y),
                                    **arguments)  # fmt: skip
    assert curve.one_by_one is strengths.one_by_one is None
    model.optimizer.learning_rate = 0.05
    model.fit(x, y, batch_size=60, epochs=2, verbose=0)
    theirs = model.evaluate(x, y, verbose=0, return_dict=True)["data_loss"]
    assert curve.to_frame()["loss"][1] == pytest.approx(theirs, rel=1e-4)
    at_own_rate = descend(start, x, y, 0.05, seed=0, epochs=2, batch=60)(x, y)
    assert theirs != pytest.approx(at_own_rate, rel=1e-2)  # nor is it without the step
    assert strengths.to_frame()["loss"][0] == pytest.approx(curve.to_frame()["loss"][0], rel=1e-4)


def test_the_rule_of_the_suggestion():
    """A fifth of the largest rate that gives up at most a tenth of what the best one gains."""
    from kregs.inspection.curves import _suggest_rate, _with_suggestion

    def suggested(losses):
        runs = pd.DataFrame({"learning_rate": [0.01, 0.02, 0.04, 0.08], "loss": losses})
        runs = runs.assign(seed=0, train=runs["loss"])
        bare = kregs.RangeTest("learning_rate", runs, 1.0, "rows", None, None)
        return _with_suggestion(bare, _suggest_rate)

    result = suggested([0.5, 0.1, 0.15, 0.9])
    assert result.suggestion == pytest.approx(0.04 / 5)
    assert result.interval == (0.02, 0.04)
    assert result.notes == ()
    assert "try larger ones" in suggested([0.5, 0.4, 0.2, 0.1]).notes[0]
    assert "try smaller ones" in suggested([0.1, 0.5, 0.9, np.nan]).notes[0]
