"""The training loop: jobs that go on from earlier ones, and what drivers do while it runs."""

from __future__ import annotations

import collections
import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kregs
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.program import Program
from kregs.population.rows import Feed, as_rows
from kregs.population.signature import read_member
from kregs.population.training import Training

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


def run(training, trained, **job):
    arguments = {"member": trained, "weights": None, "seed": 7, "callbacks": [], "epochs": 4}
    (ended,) = training.run(collections.deque([Job(**{**arguments, **job})]))
    return ended


def schedule_of(rate):
    return keras.optimizers.schedules.CosineDecay(rate, 16)


def schedule():
    return keras.optimizers.SGD(schedule_of(0.1), momentum=0.9)


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
    trained = member(optimizer)
    feed = Feed(as_rows(X, Y), None, 16)
    # one slot: each job finds there what the one before it has left
    training = Training(Layout([trained]), 1, feed, accelerate=accelerate)
    first = run(training, trained, epochs=2, keep_end=True)
    in_one = run(training, trained)
    assert in_one.end_state is None
    second = run(training, trained, first_epoch=2, weights=first.end_weights, state=first.end_state)
    assert first.history["loss"] + second.history["loss"] == pytest.approx(in_one.history["loss"])
    for one, other in zip(in_one.best_weights, second.best_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    forgetful = run(training, trained, first_epoch=2, weights=first.best_weights)
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
    training = Training(Layout(members), 4, Feed(as_rows(X, Y), None, 16), accelerate=False)
    queue = collections.deque(Job(m, None, k, [], 2, name=k) for k, m in enumerate(members))
    ended = [job.name for job in training.run(queue)]
    assert (sorted(ended), failed, training.slots) == ([0, 1, 2, 3], [4], 2)


def jobs_of(members, epochs, **arguments):
    pairs = enumerate(zip(members, epochs, strict=True))
    return [Job(m, None, 0, [], n, name=k, **arguments) for k, (m, n) in pairs]


@pytest.fixture(scope="module")
def trainings():
    """Members, and a training of them in two slots, compiled once for all tests."""
    members = [member(keras.optimizers.Adam) for _ in range(4)]
    shared = Training(Layout(members), 2, Feed(as_rows(X, Y), None, 16), accelerate=False)

    def prepared(on_epoch=lambda job: None):
        shared.on_epoch = on_epoch
        return members, shared

    return prepared


def test_jobs_that_are_handed_in_meanwhile_are_trained(trainings):
    members, training = trainings()
    first, second, *late = jobs_of(members, (1, 3, 2, 1))
    queue = collections.deque([first, second])
    ended = []
    for job in training.run(queue):
        ended.append(job.name)
        if late:
            queue.append(late.pop(0))
    # the slot of the first was given on while the second still trained
    assert ended == [0, 2, 1, 3]
    assert [len(job.history["loss"]) for job in (first, second)] == [1, 3]


def test_a_consumer_that_stops_early_loses_nothing(trainings):
    members, training = trainings()
    jobs = jobs_of(members[:3], (1, 1, 2))
    queue = collections.deque(jobs)
    with contextlib.closing(training.run(queue)) as ended:
        first = next(ended)
        with pytest.raises(RuntimeError, match="runs already"):
            next(training.run(queue))
    assert (first.name, training.running, [job.name for job in queue]) == (0, [], [2])
    assert [job.name for job in training.run(queue)] == [1, 2]  # 1 had ended with 0
    assert [len(job.history["loss"]) for job in jobs] == [1, 1, 2]

    # while a job is under way
    queue = collections.deque(jobs_of(members[:3], (1, 3, 2)))
    with contextlib.closing(training.run(queue)) as ended:
        assert next(ended).name == 0
        assert [job.epoch for job in training.running] == [1]
    assert [(job.name, job.epoch, job.history) for job in queue] == [(1, 0, {}), (2, 0, {})]
    assert [len(job.history["loss"]) for job in training.run(queue)] == [2, 3]


def test_an_error_comes_after_what_has_ended(trainings):
    def fail(job):
        if job.epoch == 2:
            raise KeyError("a driver's own")

    members, training = trainings(fail)
    queue = collections.deque(jobs_of(members[:2], (3, 2)))
    ended = training.run(queue)
    assert next(ended).name == 1
    with pytest.raises(KeyError, match="own"):
        next(ended)
    assert [job.name for job in queue] == [0]
    assert training.running == []


def test_a_driver_stops_members(trainings):
    def stop(job):
        job.stop_training = job.name == 1 and job.epoch == 2

    members, training = trainings(stop)
    jobs = jobs_of(members[:2], (4, 4))
    assert [job.name for job in training.run(collections.deque(jobs))] == [1, 0]
    assert [len(job.history["loss"]) for job in jobs] == [4, 2]
    assert jobs[1].stopped_epoch == 1


def test_a_member_goes_on_as_a_copy_of_another(double):
    """Weights, optimizer, numbers, schedule of the better one: population-based training."""
    rates = (0.01, 0.2)
    members = [
        member(lambda rate=rate: keras.optimizers.SGD(schedule_of(rate), momentum=0.9))
        for rate in rates
    ]
    good, bad = jobs = jobs_of(members, (5, 5))

    def exploit(job):
        if job is bad and job.epoch == 2:
            state = training.state_of(good)
            training.replace(bad, member=members[0], weights=training.weights_of(good), state=state)

    feed = Feed(as_rows(X, Y), None, 16)
    training = Training(Layout(members), 2, feed, accelerate=False, on_epoch=exploit)
    list(training.run(collections.deque(jobs)))
    assert good.history["loss"][:2] != bad.history["loss"][:2]
    assert good.history["loss"][2:] == bad.history["loss"][2:]
    with pytest.raises(ValueError, match="must train at the moment"):
        training.replace(bad, member=members[1])


def test_a_program_that_was_compiled_takes_jobs_that_come_later(double):
    """A job that began alone goes on beside others as if it were still alone."""
    members = [member(lambda rate=rate: keras.optimizers.Adam(rate)) for rate in (0.1, 0.03, 0.01)]
    feed = Feed(as_rows(X, Y), None, 16)
    sizes: list[int] = []
    later: list[Job] = []
    queue: collections.deque[Job] = collections.deque()

    def on_epoch(job):
        sizes.append(len(training._lanes[0].slots))
        if job.epoch == 2:
            queue.extend(later)
            later.clear()

    def jobs():
        return [Job(m, None, seed=k, callbacks=[], epochs=5, name=k) for k, m in enumerate(members)]

    training = Training(Layout(members), 4, feed, on_epoch=on_epoch)
    together = {job.name: job for job in training.run(collections.deque(jobs()))}
    assert set(sizes) == {3}
    sizes.clear()
    first, *others = jobs()
    queue.append(first)
    later.extend(others)
    ended = {job.name: job for job in training.run(queue)}
    assert sizes[:2] == [1, 1]
    assert set(sizes[2:]) == {3}
    for name, job in ended.items():
        assert job.history["loss"] == pytest.approx(together[name].history["loss"], rel=1e-9)
        for one, other in zip(job.best_weights, together[name].best_weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9)
    # three jobs find the program of three, two do not get one of their own
    sizes.clear()
    assert len(list(training.run(collections.deque(jobs()[:2])))) == 2
    assert set(sizes) == {3}


@pytest.mark.slow
def test_callbacks_see_what_a_driver_has_put_in_place():
    seen = collections.defaultdict(list)

    class Looking(keras.callbacks.Callback):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def on_epoch_begin(self, epoch, logs=None):
            seen[self.name].append(self.model.get_weights()[0])

        on_epoch_end = on_epoch_begin

    def replace(job):
        if job.name == 1 and job.epoch == 2:
            ones = [np.ones(weight.shape) for weight in training.weights_of(job)]
            training.replace(job, weights=ones)

    members = [member(keras.optimizers.SGD) for _ in range(2)]
    jobs = [
        Job(m, None, seed=7, callbacks=[Looking(name)], epochs=3, name=name)
        for name, m in enumerate(members)
    ]
    feed = Feed(as_rows(X, Y), None, 30)
    training = Training(Layout(members), 2, feed, accelerate=False, on_epoch=replace)
    list(training.run(collections.deque(jobs)))
    # begin and end of each epoch: the third begins with what was put there
    assert [bool((kernel == 1).all()) for kernel in seen[1]] == [False] * 4 + [True, False]
    assert not any((kernel == 1).any() for kernel in seen[0])


@pytest.mark.parametrize(
    "schedule",
    [
        keras.optimizers.schedules.CosineDecay(0.0, 40, warmup_target=0.3, warmup_steps=7),
        keras.optimizers.schedules.PiecewiseConstantDecay([3, 9], [0.1, 0.02, 0.003]),
        kregs.CosLog4(0.1, steps=50),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_the_rates_of_a_schedule_are_tabled_once(schedule, monkeypatch):
    from kregs.population import optimizers

    made = []
    table = optimizers._table
    monkeypatch.setattr(optimizers, "_table", lambda *args: made.append(1) or table(*args))
    optimizers._stock_table.cache_clear()
    expected = [float(schedule(step)) for step in range(5, 35)]
    for _ in range(3):
        other = type(schedule).from_config(schedule.get_config())
        found = optimizers.schedule_table(keras.optimizers.SGD(other), 5, 30)
        np.testing.assert_allclose(found, expected, rtol=1e-4)  # of float32
    assert len(made) == 1

    class Own(keras.optimizers.schedules.LearningRateSchedule):  # may do what its config hides
        def __call__(self, step):
            return 0.1

        def get_config(self):
            return {}

    for _ in range(2):
        optimizers.schedule_table(keras.optimizers.SGD(Own()), 0, 3)
    assert len(made) == 3
