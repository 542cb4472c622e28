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


def run(training, own, **job):
    arguments = {"member": own, "weights": None, "seed": 7, "callbacks": [], "epochs": 4}
    done = Job(**{**arguments, **job})
    training.run(collections.deque([done]))
    return done


def schedule():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 16), momentum=0.9)


@pytest.mark.parametrize(
    ("optimizer", "accelerate"),
    [
        (keras.optimizers.Adam, True),
        (keras.optimizers.RMSprop, False),
        (schedule, False),
        (keras.optimizers.Lion, False),
    ],
)
def test_two_halves_are_the_whole(double, optimizer, accelerate):
    """Weights, momenta, step count, learning rate, order of rows and noise all go on."""
    own = member(optimizer)
    feed = Feed(as_rows(X, Y), None, 16)
    # one slot: each job finds there what the one before it has left
    training = Training(Layout([own]), 1, feed, accelerate=accelerate, keep_state=True)
    first = run(training, own, epochs=2)
    whole = run(training, own)
    second = run(training, own, first_epoch=2, weights=first.best_weights, state=first.end_state)
    assert first.history["loss"] + second.history["loss"] == pytest.approx(whole.history["loss"])
    for one, other in zip(whole.best_weights, second.best_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    forgetful = run(training, own, first_epoch=2, weights=first.best_weights)
    assert forgetful.history["loss"] != pytest.approx(second.history["loss"])
