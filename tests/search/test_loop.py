"""The course of a search: time that is up, errors while others are under way."""

from __future__ import annotations

import json
import time
import warnings

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from keras_tuner.errors import FatalError, FatalValueError
from keras_tuner.src.engine import metrics_tracking

import kregs
from kregs.search import PopulationTuner, SequentialFallback, nested
from kregs.search.loop import SearchLoop
from kregs.search.progress import Progress
from kregs.search.storage import CUT_SHORT, TrialRecord


def same_trials(a, b, rtol=1e-5):
    frames = [r.trials().drop(columns="seconds").sort_values("trial") for r in (a, b)]
    one, other = (frame.reset_index(drop=True) for frame in frames)
    pd.testing.assert_frame_equal(one, other, rtol=rtol)


def run(build, data, path, **changes):
    arguments = {"max_trials": 4, "epochs": 3, "directory": path, "verbose": 0, "max_time": 1e6}
    return kregs.tune(build, *data, **arguments | changes)


@pytest.fixture
def time_for():
    """Let the time be up when so many epochs, of all trials together, have ended."""
    patches = []

    def limit(epochs):
        told = []

        def epoch_ended(self, *arguments, original=PopulationTuner._epoch_ended):
            told.append(1)
            original(self, *arguments)

        patch = pytest.MonkeyPatch()
        patches.append(patch)
        patch.setattr(PopulationTuner, "_epoch_ended", epoch_ended)
        up = property(lambda self: len(told) >= epochs)
        patch.setattr(PopulationTuner, "time_is_up", up)
        return patch.undo

    yield limit
    for patch in patches:
        patch.undo()


# ---- the time is up ------------------------------------------------------------------------


def test_every_member_with_an_epoch_is_a_trial(
    project, build, linear_data, tmp_path, time_for, capsys
):
    ends = time_for(5)  # the second epoch of all four
    result = run(build, linear_data, tmp_path, verbose=2)
    ends()
    assert "4 trials are cut short" in capsys.readouterr().out
    trials = result.trials()
    assert trials["status"].tolist() == [CUT_SHORT] * 4
    assert "0 of 4 trials completed, 4 cut short" in repr(result)
    for trial in trials["trial"]:
        history, whole = result.history(trial), project.history(trial)
        assert len(history) == 2
        pd.testing.assert_frame_equal(history, whole[:2], rtol=1e-5)
        message = result.record.trials[trial]["message"]
        assert message == "max_time was up after 2 of 3 epochs"
    # the score is honest: that of half the rows at the epoch that is best on the others
    record = TrialRecord.read(result.trial_folder(result.chosen_trial))
    (a, b) = (half["val_data_loss"] for half in record.halves[0])
    assert result.best_score == pytest.approx((a[np.argmin(b)] + b[np.argmin(a)]) / 2, rel=1e-5)
    stored = keras.models.load_model(result.path / "best.keras")
    np.testing.assert_array_equal(result.best_model().get_weights()[0], stored.get_weights()[0])
    loaded = kregs.load_result(result.path)
    pd.testing.assert_frame_equal(loaded.trials(), result.trials())
    # trained from their start: as if there had been no limit
    resumed = run(build, linear_data, tmp_path, resume=True, verbose=2)
    said = capsys.readouterr().out
    assert "going on with 0 finished trials; 4 that were under way are trained from their" in said
    same_trials(project, resumed)
    assert set(resumed.trials()["status"]) == {"completed"}


def test_a_limit_by_the_clock(build, linear_data, tmp_path):
    began = time.monotonic()
    result = run(build, linear_data, tmp_path, max_time=2.0, epochs=10**6, callbacks=[])
    assert 2.0 < time.monotonic() - began < 60
    assert result.trials()["status"].tolist() == [CUT_SHORT] * 4
    assert len(result.history(0)) >= 1  # a slow machine has time for no more
    assert np.isfinite(result.best_score)


def test_a_shorter_second_part_does_not_replace_a_longer_first(
    build, linear_data, tmp_path, time_for
):
    ends = time_for(5)
    first = run(build, linear_data, tmp_path)
    ends()
    ends = time_for(1)
    second = run(build, linear_data, tmp_path, resume=True)
    ends()
    same_trials(first, second)
    assert [len(second.history(trial)) for trial in range(4)] == [2] * 4


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["population", "sequential"])
def test_trials_that_ended_and_those_that_did_not(
    build, linear_data, tmp_path, time_for, monkeypatch, eager, engine
):
    few = {"max_trials": 6, "epochs": 2, "engine": engine, "callbacks": []}
    ends = time_for(5)
    with monkeypatch.context() as patch:
        patch.setattr(SearchLoop, "_most_runs", lambda self: 2)  # trained together; else all are
        result = run(build, linear_data, tmp_path, **few)
    ends()
    statuses = {t["trial"]: t["status"] for t in result.record.trials}
    waiting = CUT_SHORT if engine == "population" else "interrupted"
    assert statuses == {0: "completed", 1: "completed", 2: CUT_SHORT, 3: waiting}
    assert isinstance(result.best_model(), keras.Model)
    resumed = run(build, linear_data, tmp_path, resume=True, **few)
    assert resumed.trials()["status"].tolist() == ["completed"] * 6
    for trial in (0, 1):  # not trained again
        assert resumed.record.trials[trial] == result.record.trials[trial]


@pytest.mark.nightly
def test_what_has_ended_counts_before_what_lacks_folds(
    build, linear_data, tmp_path, time_for, eager
):
    few = {"folds": 2, "engine": "sequential", "max_trials": 3, "epochs": 2, "callbacks": []}
    ends = time_for(5)  # two runs of trial 0, one epoch of the first of trial 1
    result = run(build, linear_data, tmp_path, **few)
    ends()
    states = {t["trial"]: (t["status"], len(t["scores"])) for t in result.record.trials}
    assert states == {0: ("completed", 2), 1: (CUT_SHORT, 1)}
    assert result.record.trials[1]["message"].endswith("1 of 2 epochs and 1 of 2 runs")
    record = result.record
    better = [dict(t, score=-1.0) if t["trial"] == 1 else t for t in record.trials]
    assert record.with_trials(better).chosen["trial"] == 0
    result.record = record.with_trials(better)
    assert result.trials()["trial"].tolist() == [0, 1]
    # with all its runs it is one like the others
    whole = [dict(t, scores=[{}, {}]) if t["trial"] == 1 else t for t in better]
    assert record.with_trials(whole).chosen["trial"] == 1
    resumed = run(build, linear_data, tmp_path, resume=True, **few)
    same_trials(run(build, linear_data, tmp_path / "whole", **few), resumed)


def test_without_an_epoch_there_is_no_result_and_resume_goes_on(
    build, linear_data, tmp_path, time_for
):
    ends = time_for(0)
    with pytest.raises(RuntimeError, match="no trial had an epoch within max_time"):
        run(build, linear_data, tmp_path)
    ends()
    resumed = run(build, linear_data, tmp_path, resume=True, max_trials=2)
    assert len(resumed.trials()) == 2


@pytest.mark.nightly
def test_hyperband_goes_on_after_the_time_was_up(build, linear_data, tmp_path, time_for):
    few = {"oracle": "hyperband", "max_trials": None, "epochs": 3}
    ends = time_for(2)
    result = run(build, linear_data, tmp_path, **few)
    ends()
    assert CUT_SHORT in set(result.trials()["status"])
    resumed = run(build, linear_data, tmp_path, resume=True, **few)
    # a checkpoint, from which a promoted trial goes on then, has no momenta
    same_trials(run(build, linear_data, tmp_path / "whole", **few), resumed, rtol=1e-2)


@pytest.mark.nightly
def test_nested_searches_share_the_time(says, build, linear_data, tmp_path, monkeypatch):
    given, now = [], [0.0]
    monkeypatch.setattr(nested.time, "monotonic", lambda: now[0])
    real = nested.run_search

    def search(*arguments, max_time, **options):
        given.append(max_time)
        now[0] += 100.0
        return real(*arguments, max_time=max_time, **options)

    monkeypatch.setattr(nested, "run_search", search)
    few = {"max_trials": 1, "epochs": 1, "nested": 3}
    with says("after 2 of the 3 outer folds"):
        result = run(build, linear_data, tmp_path, max_time=160.0, **few)
    assert given == [pytest.approx(160 / 3), pytest.approx(60 / 2)]
    assert result.nested["fold"].tolist() == [0, 1]
    resumed = run(build, linear_data, tmp_path, max_time=None, resume=True, **few)
    assert given[2:] == [None] * 3
    assert resumed.nested["fold"].tolist() == [0, 1, 2]


# ---- errors --------------------------------------------------------------------------------


def plain(hp):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(hp.Int("units", 2, 40)), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    return model


def tuner_of(build, path, trials=3, **options):
    return PopulationTuner(build, "val_loss", trials, seed=1, directory=path, **options)


def search(tuner, data, **fit):
    x, y = data
    fit = {"validation_data": (x, y), "epochs": 2, "verbose": 0, **fit}
    tuner.search(x, y, **fit)
    return tuner


def test_a_fatal_error_ends_the_search(linear_data, tmp_path, eager):
    for engine in ("population", "sequential"):
        builds = []

        def build(hp, builds=builds):
            builds.append(1)
            if len(builds) == 4:  # one explores the space
                raise FatalError("this ends it")
            return plain(hp)

        tuner = tuner_of(build, tmp_path / engine, engine=engine)
        with pytest.raises(FatalError, match="this ends it"):
            search(tuner, linear_data)
        assert "FAILED" not in {trial.status for trial in tuner.oracle.trials.values()}


@pytest.mark.parametrize("engine", ["auto", "sequential"])
def test_a_fatal_error_in_training_is_no_refusal(linear_data, tmp_path, engine):
    def build(hp):
        def loss(y, prediction):
            raise FatalValueError("no such loss")

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(hp.Float("rate", 0.1, 0.2)), loss)
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("error", SequentialFallback)
        with pytest.raises(FatalValueError, match="no such loss"):
            search(tuner_of(build, tmp_path, engine=engine), linear_data)


class Reporting(Progress):
    def epoch_ended(self, trial, epoch, epochs):
        raise ValueError("the display is broken")


@pytest.mark.parametrize("engine", ["auto", "sequential"])
def test_an_error_of_the_display_is_no_fault_of_a_trial(linear_data, tmp_path, engine, eager):
    """Nor is it a reason not to stack."""
    tuner = tuner_of(plain, tmp_path, progress=Reporting(), engine=engine)
    with pytest.raises(ValueError, match="the display is broken"):
        search(tuner, linear_data)
    assert not tuner._reasons
    assert {trial.status for trial in tuner.oracle.trials.values()} == {"RUNNING"}


class Flaky(keras_tuner.HyperModel):
    """Its first training fails while the other runs of its trial are under way."""

    def __init__(self):
        super().__init__()
        self.fits = 0

    def build(self, hp):
        return plain(hp)

    def fit(self, hp, model, *args, **kwargs):
        self.fits += 1
        if self.fits in (2, 3):
            raise KeyError("mine")
        return super().fit(hp, model, *args, **kwargs)


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::kregs.search.SequentialFallback")
def test_a_trial_that_is_tried_again_is_not_mixed_with_its_first_attempt(
    linear_data, tmp_path, eager
):
    model = Flaky()
    tuner = tuner_of(model, tmp_path, executions_per_trial=3, max_retries_per_trial=2)
    search(tuner, linear_data)
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 3
    # 1 + 1 were in vain, 1 failed at once
    assert model.fits == 3 * 3 + 3
    assert sorted(tuner.oracle.end_order) == ["00", "01", "02"] or len(tuner.oracle.end_order) == 3


@pytest.mark.nightly
def test_jobs_of_a_failed_trial_do_not_count_for_its_second_attempt(
    linear_data, tmp_path, monkeypatch
):
    """In a population the other runs of a failed trial are under way still, and end later."""
    from kregs.search.trainers.stacked import StackedTrainer

    original, failed = StackedTrainer._outcome, []

    def outcome(self, member_job):
        found = original(self, member_job)
        if len(failed) < 2:  # of one trial
            failed.append(found.job)
            found.error = ValueError("only this time")
        return found

    monkeypatch.setattr(StackedTrainer, "_outcome", outcome)
    tuner = tuner_of(plain, tmp_path, executions_per_trial=3, max_retries_per_trial=1)
    search(tuner, linear_data)
    assert len({job.trial_id for job in failed}) == 1
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 3
    assert len(tuner.oracle.end_order) == len(set(tuner.oracle.end_order)) == 3
    scores = {t.trial_id: t.score for t in tuner.oracle.trials.values()}
    monkeypatch.undo()
    again = search(tuner_of(plain, tmp_path / "again", executions_per_trial=3), linear_data)
    for trial in again.oracle.trials.values():
        assert scores[trial.trial_id] == pytest.approx(trial.score, rel=1e-5)


@pytest.mark.parametrize("engine", ["population", "sequential"])
def test_a_failed_trial_keeps_its_traceback(linear_data, tmp_path, engine, eager):
    def a_function_of_mine(units):
        raise ArithmeticError("too many")

    def build(hp):
        model = plain(hp)
        if hp.get("units") > 10:
            a_function_of_mine(hp.get("units"))
        return model

    search(
        tuner := tuner_of(build, tmp_path, 4, engine=engine, max_consecutive_failed_trials=9),
        linear_data,
    )
    trials = tuner.oracle.trials.values()
    failed = [trial for trial in trials if trial.hyperparameters.get("units") > 10]
    assert 0 < len(failed) < 4
    assert len([trial for trial in trials if trial.status == "COMPLETED"]) == 4 - len(failed)
    for trial in failed:
        folder = tuner.get_trial_dir(trial.trial_id)
        with open(f"{folder}/trial.json") as file:
            message = json.load(file)["message"]
        assert "Traceback" in message
        assert "in a_function_of_mine" in message
        record = TrialRecord.read(folder)
        assert record.message == "ArithmeticError: too many"
        assert record.traceback == message


# ---- keras-tuner's hooks -------------------------------------------------------------------


class Hooked(PopulationTuner):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.told = []

    def on_epoch_end(self, trial, model, epoch, logs=None):
        self.told.append(("epoch", trial.trial_id, epoch, type(model)))

    def on_batch_end(self, trial, model, batch, logs=None):
        self.told.append(("batch", trial.trial_id, batch, type(model)))


def test_own_hooks_are_called_trial_by_trial_and_said(says, linear_data, tmp_path):
    tuner = Hooked(plain, "val_loss", 2, seed=1, directory=tmp_path)
    with says("`on_epoch_end` of its own"):
        search(tuner, linear_data, batch_size=40)
    for trial in tuner.oracle.trials:
        told = [entry for entry in tuner.told if entry[1] == trial]
        assert {entry[3] for entry in told} == {keras.Sequential}
        assert [entry[2] for entry in told if entry[0] == "epoch"] == [0, 1]
        assert [entry[2] for entry in told if entry[0] == "batch"] == [0, 1] * 2
    strict = Hooked(plain, "val_loss", 2, engine="population", directory=tmp_path / "strict")
    with pytest.raises(kregs.population.NotStackable, match="on_epoch_end"):
        search(strict, linear_data)


def test_a_model_that_is_too_large_fails(linear_data, tmp_path):
    tuner = tuner_of(plain, tmp_path, 6, max_model_size=101, max_consecutive_failed_trials=9)
    search(tuner, linear_data)
    sizes = {}
    for trial in tuner.oracle.trials.values():
        units = trial.hyperparameters.get("units")
        sizes[3 * units + units + units + 1] = trial.status, trial.message or ""
    assert {size: status for size, (status, _) in sizes.items()} == {
        size: "FAILED" if size > 101 else "COMPLETED" for size in sizes
    }
    assert len({status for status, _ in sizes.values()}) == 2
    for size, (status, message) in sizes.items():
        assert (f"{size} parameters, more than max_model_size=101" in message) == (
            status == "FAILED"
        )


def test_a_grid_without_a_bound_is_whole(linear_data, tmp_path):
    def build(hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        rate = hp.Choice("rate", [0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
        model.compile(keras.optimizers.SGD(rate, momentum=hp.Choice("momentum", [0.0, 0.5])), "mse")
        return model

    tuner = PopulationTuner(build, "val_loss", oracle="grid", seed=1, directory=tmp_path)
    search(tuner, linear_data, epochs=1)
    assert len(tuner.oracle.trials) == 12
    bounded = PopulationTuner(build, "val_loss", 5, oracle="grid", directory=tmp_path / "bounded")
    search(bounded, linear_data, epochs=1)
    assert len(bounded.oracle.trials) == 5
    few = PopulationTuner(build, "val_loss", directory=tmp_path / "random")
    assert few.oracle.max_trials == 10


def test_directions_of_metrics_are_inferred_once_for_all_trials(
    build, linear_data, tmp_path, monkeypatch
):
    infer, asked = metrics_tracking.infer_metric_direction, []
    monkeypatch.setattr(
        metrics_tracking, "infer_metric_direction", lambda name: asked.append(name) or infer(name)
    )
    kregs.tune(build, *linear_data, max_trials=3, epochs=1, directory=tmp_path, verbose=0)
    trials = [json.loads(path.read_text()) for path in tmp_path.rglob("trial.json")]
    directions = [
        {name: metric["direction"] for name, metric in trial["metrics"]["metrics"].items()}
        for trial in trials
    ]
    assert directions[0] == directions[1] == directions[2]
    assert directions[0].pop("val_data_loss") == "min"
    assert directions[0] == {name: infer(name) or "min" for name in directions[0]}
    assert sorted(asked) == sorted(directions[0])
