"""Optimizers without a stacked form: members end where `fit` ends, and a second `fit` goes on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, optimizers

from kregs.population import NotStackable, Population
from kregs.population.signature import read_member

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(23, 3)).astype("float32"), RNG.normal(size=(23, 2)).astype("float32")
FIT = {"batch_size": 8, "epochs": 2, "shuffle": False}


class Signs(optimizers.Optimizer):
    """One of a user's own, with a slot."""

    def build(self, variables):
        super().build(variables)
        self.past = self.add_optimizer_variables(variables, "past")

    def update_step(self, gradient, variable, learning_rate):
        past = self.past[self._get_variable_index(variable)]
        self.assign(past, 0.5 * past + gradient)
        self.assign_sub(variable, learning_rate * keras.ops.sign(past))


OPTIMIZERS = {
    "nadam": lambda n: optimizers.Nadam(n, weight_decay=n),
    "adagrad": lambda n: optimizers.Adagrad(n, initial_accumulator_value=0.2),
    "adafactor": lambda n: optimizers.Adafactor(n),
    "lamb": lambda n: optimizers.Lamb(n, clipnorm=0.1),
    "muon": lambda n: optimizers.Muon(n, weight_decay=n),
    "averages": lambda n: optimizers.SGD(n, momentum=0.5, use_ema=True, ema_momentum=0.8),
    "accumulated": lambda n: optimizers.SGD(n, gradient_accumulation_steps=4, clipvalue=0.1),
    "scaled": lambda n: optimizers.Adam(n, loss_scale_factor=8.0, weight_decay=n),
    "schedule": lambda n: optimizers.Nadam(optimizers.schedules.CosineDecay(n, 9)),
    "own": lambda n: Signs(learning_rate=n),
    # the first steps overflow, and are left out
    "dynamic scale": lambda n: optimizers.LossScaleOptimizer(
        optimizers.Adam(n), initial_scale=2.0**127, dynamic_growth_steps=3
    ),
}


def build(optimizer):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_members_end_where_keras_ends(name):
    rates = (0.05, 0.01)
    models = [build(OPTIMIZERS[name](n)) for n in rates]
    starts = [model.get_weights() for model in models]
    population = Population.from_models(models)
    population.fit(X, Y, **FIT)
    population.fit(X, Y, **FIT)
    trained = population.unstack()
    n, start, ours = rates[1], starts[1], trained[1]  # not the one that stands for all
    alone = build(OPTIMIZERS[name](n))
    alone.set_weights(start)
    alone.fit(X, Y, verbose=0, **FIT)
    alone.fit(X, Y, verbose=0, **FIT)
    for value, expected in zip(ours.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=2e-4, atol=2e-5)
    pairs = zip(ours.optimizer.variables, alone.optimizer.variables, strict=True)
    for variable, expected in pairs:  # so that Keras goes on from there
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=2e-3, atol=2e-4)
    moved = [abs(a - b).max() for a, b in zip(trained[0].get_weights(), starts[0], strict=True)]
    assert max(moved) > 1e-4


def test_settings_are_structure_and_rates_are_not():
    def signature(optimizer):
        return read_member(build(optimizer)).signature

    base = signature(optimizers.Nadam(0.1, weight_decay=0.1))
    assert base == signature(optimizers.Nadam(0.2, weight_decay=0.3))
    assert base != signature(optimizers.Nadam(0.1, weight_decay=0.1, beta_1=0.8))
    assert base != signature(optimizers.Nadam(0.1))
    excluded = optimizers.Nadam(0.1, weight_decay=0.1)
    excluded.exclude_from_weight_decay(var_names=["bias"])
    assert base != signature(excluded)


class Broken(Signs):
    def get_config(self):
        raise NotImplementedError("no config")


REFUSED = {
    "scale": (
        lambda: optimizers.LossScaleOptimizer(
            optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 9))
        ),
        "a schedule of the learning rate",
    ),
    "config": (lambda: Broken(learning_rate=0.1), "cannot be made anew .* no config"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_stacked_is_a_clear_error(name):
    make, message = REFUSED[name]
    with pytest.raises(NotStackable, match=message):
        Population.from_models([build(make())])
