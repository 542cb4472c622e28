"""What every trainer does: outcomes by iteration, failures and refusals, control of runs."""

from __future__ import annotations

import collections
import dataclasses
import functools

import keras
import keras_tuner
import numpy as np
import pytest

from kregs import PopulationTuner
from kregs.population import NotStackable
from kregs.search.loop import TrialUnderWay
from kregs.search.runs import RunJob, make_runs
from kregs.search.trainers import TrainerSettings
from kregs.search.trainers.fit import FitTrainer
from kregs.search.trainers.stacked import StackedTrainer

ROWS = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
FIT = {
    "x": ROWS[:30], "y": ROWS[:30].sum(1), "validation_data": (ROWS[30:], ROWS[30:].sum(1)),
    "epochs": 3, "batch_size": 10, "callbacks": [],
}  # fmt: skip
TRAINERS = {"stacked": StackedTrainer, "fit": FitTrainer}


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def build(hp):
    kind = hp.Choice("kind", ["good", "raises", "own step"])
    if kind == "raises":
        raise ZeroDivisionError("on purpose")
    model_class = OwnStep if kind == "own step" else keras.Sequential
    model = model_class([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.01, 0.1)), "mse")
    return model


@pytest.fixture(params=TRAINERS)
def make(request, tmp_path):
    """Return a function that makes the trainer, told of epochs by a function."""
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=9, seed=1)
    tuner = PopulationTuner(build, oracle=oracle, directory=tmp_path)

    def make(on_epoch=lambda job, epochs, logs, control: None):
        settings = TrainerSettings(
            tuner=tuner, objective=oracle.objective, score_at="best_epoch", on_epoch=on_epoch
        )
        return TRAINERS[request.param](settings, (), FIT)

    make.name = request.param
    return make


def job(number, kind="good", rate=0.05, **changes):
    hp = keras_tuner.HyperParameters()
    hp.values = {"kind": kind, "rate": rate}
    trial = dataclasses.make_dataclass("Trial", ["trial_id", "hyperparameters"])(str(number), hp)

    def fresh(seed):
        keras.utils.set_random_seed(seed)
        return build(hp)

    under_way = TrialUnderWay(trial, fresh)
    (run,) = make_runs(None, 1)
    return RunJob(
        trial=trial,
        run=run,
        seed=7,
        epochs=FIT["epochs"],
        first_epoch=0,
        build=functools.partial(under_way.build, 0),
        shared_model=functools.partial(under_way.model, 0),
        **changes,
    )


def test_an_outcome_for_every_job_and_those_that_are_added(make):
    jobs = collections.deque([job(0), job(1, rate=0.02)])
    outcomes = {}
    for outcome in make().run(jobs):
        outcomes[outcome.job.trial_id] = outcome
        if len(outcomes) == 1:
            jobs.append(job(2, rate=0.03))
            jobs.append(job(3, cancelled=True))
    assert sorted(outcomes) == ["0", "1", "2"]
    for outcome in outcomes.values():
        assert outcome.error is None
        assert outcome.refusal is None
        assert len(outcome.history["val_loss"]) == 3
        assert outcome.best_value == min(outcome.history["val_loss"])
        assert outcome.best_epoch == int(np.argmin(outcome.history["val_loss"]))
        shapes = [weight.shape for weight in outcome.state.weights]
        assert shapes == [tuple(v.shape) for v in outcome.model.weights]


def test_trainers_agree(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=9, seed=1)
    tuner = PopulationTuner(build, oracle=oracle, directory=tmp_path)
    histories = []
    for trainer in TRAINERS.values():
        settings = TrainerSettings(
            tuner=tuner,
            objective=oracle.objective,
            score_at="best_epoch",
            on_epoch=lambda *told: None,
        )
        jobs = collections.deque([job(0, rate=0.03), job(1, rate=0.07)])
        outcomes = {o.job.trial_id: o for o in trainer(settings, (), FIT).run(jobs)}
        histories.append([outcomes[trial].history["val_loss"] for trial in ("0", "1")])
    np.testing.assert_allclose(*histories, rtol=1e-5)
    assert histories[0][0] != histories[0][1]


def test_a_failed_build_is_an_error_of_its_job_alone(make):
    jobs = collections.deque([job(0), job(1, "raises"), job(2)])
    errors = {outcome.job.trial_id: outcome.error for outcome in make().run(jobs)}
    assert isinstance(errors.pop("1"), ZeroDivisionError)
    assert errors == {"0": None, "2": None}


def test_what_cannot_be_stacked_is_refused_with_the_reason(make):
    jobs = collections.deque([job(0), job(1, "own step")])
    refusals = {outcome.job.trial_id: outcome.refusal for outcome in make().run(jobs)}
    assert refusals["0"] is None
    if make.name == "stacked":
        assert "OwnStep, which has a `train_step` of its own" in refusals["1"]
    else:
        assert refusals["1"] is None


def test_a_run_can_be_stopped(make):
    def on_epoch(job, epochs, logs, control):
        assert "val_loss" in logs
        if job.trial_id == "1" and epochs == 2:
            control.stop()

    jobs = collections.deque([job(0), job(1)])
    lengths = {o.job.trial_id: len(o.history["loss"]) for o in make(on_epoch).run(jobs)}
    assert lengths == {"0": 3, "1": 2}


def test_a_run_goes_on_from_the_state_of_another(make):
    states = {}

    def on_epoch(job, epochs, logs, control):
        if epochs == 1:
            states[job.trial_id] = control.state()
            if job.trial_id == "1":
                control.restore(states["0"])

    # learning rates that hardly train: what comes after is what was restored
    jobs = collections.deque([job(0, rate=0.1), job(1, rate=1e-9)])
    outcomes = {o.job.trial_id: o for o in make(on_epoch).run(jobs)}
    first = states["0"].weights[0]
    assert not np.allclose(states["1"].weights[0], first)
    np.testing.assert_allclose(outcomes["1"].state.weights[0], first, atol=1e-6)


def test_a_run_goes_on_with_other_numbers(make):
    other = job(2, rate=1e-9).build()
    seen = []

    def on_epoch(job, epochs, logs, control):
        seen.append(control.state().weights[0])
        if epochs == 1:
            control.change(other)

    jobs = collections.deque([job(0, rate=0.1)])
    outcomes = list(make(on_epoch).run(jobs))
    if make.name == "fit":
        assert isinstance(outcomes[0].error, NotStackable)
    else:
        np.testing.assert_allclose(seen[1], seen[0], atol=1e-6)  # it hardly trains any more
        np.testing.assert_allclose(seen[2], seen[0], atol=1e-6)


def test_who_listens_may_end_all(make):
    class Enough(BaseException):
        pass

    def on_epoch(job, epochs, logs, control):
        raise Enough

    with pytest.raises(Enough):
        list(make(on_epoch).run(collections.deque([job(0)])))


def test_iteration_may_stop_early(make):
    jobs = collections.deque([job(0), job(1, rate=0.02)])
    trainer = make()
    iterator = trainer.run(jobs)
    first = next(iterator)
    iterator.close()
    assert first.error is None
    again = collections.deque([job(3)])
    assert "3" in [outcome.job.trial_id for outcome in trainer.run(again)]
