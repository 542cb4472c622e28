"""Members with proximal λ of their own: as Keras's fit, independent, and along the lasso's path."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers
from sklearn.datasets import load_diabetes
from sklearn.linear_model import lasso_path

import kregs
from kregs.population import NotStackable, Population
from kregs.population.signature import read_member

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5, 5, 2))
Y = RNG.normal(size=(16, 3))
FIT = {"batch_size": 8, "shuffle": False}

OPTIMIZERS = {
    "momentum": lambda: optimizers.SGD(optimizers.schedules.CosineDecay(0.05, 12), momentum=0.8),
    "nesterov": lambda: optimizers.SGD(
        0.02, momentum=0.9, nesterov=True, clipnorm=1.0, weight_decay=0.1
    ),
    "adam": lambda: optimizers.Adam(0.02),
    "amsgrad": lambda: optimizers.AdamW(0.02, amsgrad=True, weight_decay=0.1),
    "rmsprop_all": lambda: optimizers.RMSprop(0.005, momentum=0.7, centered=True),
    "lion": lambda: optimizers.Lion(0.01),
}
# of each member; the first has the stock optimizer, as a search's that samples exactly 0
COEFFICIENTS = ({}, {"l1": 0.03}, {"l1": 0.01, "group_l1": 0.1}, {"group_l1": 0.2})


def build(optimizer, coefficients, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    if coefficients:
        optimizer = kregs.proximal(optimizer, **coefficients, **options)
    model.compile(optimizer, "mse")
    return model


QUICK = ("momentum", "adam")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.nightly] * (n not in QUICK)) for n in OPTIMIZERS]
)
def test_each_member_ends_where_fit_ends(double, eager, name):
    models = [build(OPTIMIZERS[name](), each) for each in COEFFICIENTS]
    population = Population.from_models(models)
    histories = [population.fit(X, Y, epochs=2, accelerate=False, **FIT) for _ in range(2)]
    trained = population.unstack()
    zeros = []
    for k, coefficients in enumerate(COEFFICIENTS):
        model = build(OPTIMIZERS[name](), coefficients)
        for history in histories:
            expected = model.fit(X, Y, epochs=2, verbose=0, **FIT).history["loss"]
            np.testing.assert_allclose(history[k]["loss"], expected, rtol=1e-8)
        for ours, theirs in zip(trained[k].get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)
            np.testing.assert_array_equal(ours == 0, theirs == 0)
        zeros.append(sum((v.numpy() == 0).sum() for v in trained[k].trainable_weights[::2]))
    # and Keras goes on from the state that the population has left
    for each in (trained[-1], model):
        each.fit(X, Y, epochs=1, verbose=0, **FIT)
    for ours, theirs in zip(trained[-1].get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-8)
    assert zeros[0] == 0
    assert min(zeros[1:3]) > 0


@pytest.mark.nightly
def test_a_member_does_not_depend_on_the_others(eager):
    def ends(coefficients):
        models = [build(optimizers.Adam(0.02), each) for each in coefficients]
        population = Population.from_models(models)
        population.fit(X, Y, epochs=3, accelerate=False, max_members=2, **FIT)
        return [model.get_weights() for model in population.unstack()]

    together = ends(COEFFICIENTS)
    with_nan = ends([{"l1": 0.03}, {"l1": 1e30, "group_l1": 1e30}])
    for one, other in zip(together[1], with_nan[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for one, other in zip(together[0], ends([{}, {}])[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_support_along_the_path_of_the_lasso_in_one_population():
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    alphas = np.geomspace(0.4, 0.006, 10)
    _, path, _ = lasso_path(x, y, alphas=alphas, tol=1e-12, max_iter=10**6)
    epochs, copies = 15, 100  # a step takes all rows

    def member(alpha):
        model = keras.Sequential([keras.Input((10,)), layers.Dense(1, use_bias=False)])
        schedule = optimizers.schedules.CosineDecay(0.05, epochs * copies)
        model.compile(kregs.proximal(optimizers.Adam(schedule), l1=2 * alpha), "mse")
        return model

    population = Population.from_models([member(alpha) for alpha in alphas])
    rows = {"x": np.tile(x, (copies, 1)), "y": np.tile(y, copies)}
    population.fit(**rows, epochs=epochs, batch_size=len(x), shuffle=False)
    found = np.stack([model.get_weights()[0].ravel() for model in population.unstack()])
    np.testing.assert_array_equal(found != 0, path.T != 0)
    np.testing.assert_allclose(found, path.T, atol=1e-3)
    sizes = (path != 0).sum(0)
    assert sizes[0] < 3
    assert sizes[-1] > 6


def test_what_structure_is():
    def signature(**options):
        return read_member(build(optimizers.SGD(0.1), **options)).signature

    plain = signature(coefficients={})
    assert signature(coefficients={"l1": 0.1}) == plain
    assert signature(coefficients={"l1": 0.2, "group_l1": 0.3}) == plain
    # each weight has λ of its own, so that a member may threshold other weights
    assert signature(coefficients={"l1": 0.1}, variables=["bias"]) == plain
    # but groups have one shape for all
    assert signature(coefficients={"group_l1": 0.1}, variables=["bias"]) != plain


def test_members_that_threshold_other_weights(double, eager):
    choices = (["conv"], ["dense"], None)
    models = [build(optimizers.SGD(0.1), {"l1": 0.1}, variables=chosen) for chosen in choices]
    population = Population.from_models(models)
    population.fit(X, Y, epochs=2, accelerate=False, **FIT)
    for model, chosen in zip(population.unstack(), choices, strict=True):
        twin = build(optimizers.SGD(0.1), {"l1": 0.1}, variables=chosen)
        twin.fit(X, Y, epochs=2, verbose=0, **FIT)
        for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-8)


def test_an_optimizer_without_a_stacked_form():
    with pytest.raises(NotStackable, match="the proximal step of the optimizer"):
        Population.from_models([build(optimizers.Nadam(), {"l1": 0.1})])
