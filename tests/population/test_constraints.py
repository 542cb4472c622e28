"""Constraints and clipping of one member bind no other; a layer called twice moves twice."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import constraints, layers, optimizers

from kregs.population import Population
from kregs.population.layout import Layout
from kregs.population.signature import read_member

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 4)), 3 * RNG.normal(size=(40, 2))
FIT = {"epochs": 2, "batch_size": 8, "shuffle": False}
CONSTRAINTS = (
    lambda: constraints.MaxNorm(1.0),
    lambda: None,
    lambda: constraints.MaxNorm(2.0),
    constraints.NonNeg,
    constraints.UnitNorm,
    lambda: constraints.UnitNorm(axis=1),
    lambda: constraints.MaxNorm(0.5, axis=[0, 1]),
)
CLIPS = ({"clipnorm": 0.3}, {}, {"clipvalue": 0.02}, {"global_clipnorm": 0.2}, {"clipnorm": 0.1})


def build(constraint=None, clip=None):
    hidden = layers.Dense(5, "tanh", kernel_constraint=constraint, bias_constraint=constraint)
    if getattr(constraint, "axis", 0) in (1, [0, 1]):
        hidden.bias_constraint = None
    model = keras.Sequential([keras.Input((4,)), hidden, layers.Dense(2)])
    model.compile(optimizers.SGD(0.3, **(clip or {})), "mse")
    return model


def check_against_keras(build_each, x=X, y=Y):
    models = [each() for each in build_each]
    starts = [model.get_weights() for model in models]
    population = Population.from_models(models)
    population.fit(x, y, accelerate=False, **FIT)
    for each, start, model in zip(build_each, starts, population.unstack(), strict=True):
        reference = each()
        reference.set_weights(start)
        reference.fit(x, y, verbose=0, **FIT)
        for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)


def test_each_member_has_its_own_constraint(double, eager):
    check_against_keras([lambda c=c: build(c()) for c in CONSTRAINTS])


def test_each_member_is_clipped_in_its_own_way(double, eager):
    check_against_keras([lambda c=c: build(clip=c) for c in CLIPS])


@pytest.mark.parametrize("constraint", CONSTRAINTS[2:5])
def test_a_member_that_joins_later_brings_no_constraint(constraint):
    """And one that has none may join those that have."""
    layout = Layout([read_member(build(constraint()))])
    assert layout.fits(read_member(build()))
    assert not Layout([read_member(build())]).fits(read_member(build(constraint())))
    assert not layout.fits(read_member(build(constraints.MaxNorm(1.0, axis=1))))


def test_a_batch_norm_that_is_called_twice_moves_twice(double, eager):
    def twice(momentum, between):
        norm = layers.BatchNormalization(momentum=momentum)
        inputs = keras.Input((4,))
        x = norm(layers.Dense(4)(inputs))
        x = norm(layers.Dense(4, between)(x))
        model = keras.Model(inputs, layers.Dense(2)(norm(x)))
        model.compile(optimizers.SGD(0.05), "mse")
        return model

    check_against_keras([lambda m=m: twice(m, "tanh") for m in (0.6, 0.9, 0.99)])
    # rows are missing in the last batch of some
    check_against_keras([lambda m=m: twice(m, "tanh") for m in (0.6, 0.9)], X[:37], Y[:37])
