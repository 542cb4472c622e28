"""Jobs that go on from earlier ones, as Hyperband's trials do."""

from __future__ import annotations

import collections

import keras
import numpy as np
import pytest
from keras import layers

from kregs.population.jobs import Job
from kregs.population.lane import Feed
from kregs.population.layout import Layout
from kregs.population.loop import Training
from kregs.population.rows import as_rows
from kregs.population.structure import read_member

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 5)), RNG.normal(size=(60, 1))


def member(optimizer):
    kernel = keras.initializers.GlorotUniform(seed=1)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(8, "tanh", kernel_initializer=kernel),
            layers.Dropout(0.3),
            layers.Dense(1, kernel_initializer=kernel),
        ]
    )
    model.compile(optimizer(), "mse")
    return read_member(model)


def train(own, **job):
    layout = Layout([own])
    training = Training(layout, 1, Feed(as_rows(X, Y), None, 16), keep_state=True)
    arguments = {"member": own, "weights": None, "seed": 7, "callbacks": [], "epochs": 4}
    done = Job(**{**arguments, **job})
    training.run(collections.deque([done]))
    return done


def schedule():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 16), momentum=0.9)


@pytest.mark.parametrize(
    "optimizer", [keras.optimizers.Adam, keras.optimizers.RMSprop, schedule, keras.optimizers.Lion]
)
def test_two_halves_are_the_whole(double, optimizer):
    """Weights, momenta, step count, learning rate, order of rows and noise all go on."""
    whole = train(member(optimizer))
    first = train(member(optimizer), epochs=2)
    second = train(
        member(optimizer), first_epoch=2, weights=first.best_weights, state=first.end_state
    )
    assert first.history["loss"] + second.history["loss"] == pytest.approx(whole.history["loss"])
    for one, other in zip(whole.best_weights, second.best_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    forgetful = train(member(optimizer), first_epoch=2, weights=first.best_weights)
    assert forgetful.history["loss"] != pytest.approx(second.history["loss"])
