"""Jobs that go on from earlier ones, as Hyperband's trials do."""

from __future__ import annotations

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kregs.population.jobs import Job
from kregs.population.lane import Feed
from kregs.population.layout import Layout
from kregs.population.loop import Training
from kregs.population.program import Program
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


@pytest.mark.parametrize("where", ["fill", "train"])
def test_out_of_memory_halves_the_members_and_loses_none(monkeypatch, where):
    real, failed = getattr(Program, where), []

    def scarce(self, *arguments, **named):
        if self.slots > 2:
            failed.append(self.slots)
            raise tf.errors.ResourceExhaustedError(None, None, "no memory")
        return real(self, *arguments, **named)

    monkeypatch.setattr(Program, where, scarce)
    members = [member(keras.optimizers.Adam) for _ in range(4)]
    training = Training(Layout(members), 4, Feed(as_rows(X, Y), None, 16))
    done = []
    training.on_done = lambda job: done.append(job.name)
    training.run(collections.deque(Job(m, None, k, [], 2, name=k) for k, m in enumerate(members)))
    assert (sorted(done), failed, training.slots) == ([0, 1, 2, 3], [4], 2)
