from __future__ import annotations

import json
import random

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

import kregs
from kregs.search.storage import TrialRecord


def same_trials(a, b):
    """Compare two results' trials, without the seconds they took."""
    pd.testing.assert_frame_equal(
        a.trials().drop(columns="seconds"), b.trials().drop(columns="seconds")
    )


def run(build, data, path, **changes):
    arguments = {"max_trials": 4, "epochs": 3, "directory": path, "verbose": 0}
    return kregs.tune(build, *data, **arguments | changes)


def test_the_same_call_gives_the_same_trials_and_leaves_the_random_state(
    project, build, linear_data, tmp_path
):
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    again = run(build, linear_data, tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
    same_trials(project, again)


def test_trials_differ_by_hyperparameters_only(linear_data, tmp_path):
    """A hyperparameter without effect has none: the weights and batches are the same."""

    def build(hp):
        hp.Choice("nothing", [1, 2])
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return kregs.compile_model(model, "mse")

    scores = run(build, linear_data, tmp_path, oracle="grid").trials()["score"]
    assert len(scores) == 2
    assert scores.nunique() == 1
    other = run(build, linear_data, tmp_path, oracle="grid", seed=1, project_name="other")
    assert other.best_score != scores[0]


class Interrupt:
    """Raises KeyboardInterrupt in one of its builds."""

    def __init__(self, build, at):
        self.build, self.at, self.builds = build, at, 0

    def __call__(self, hp):
        self.builds += 1
        if self.builds == self.at:
            raise KeyboardInterrupt
        return self.build(hp)


@pytest.mark.nightly
def test_an_interrupted_search_is_kept_and_goes_on(build, linear_data, tmp_path, eager):
    few = {"engine": "sequential", "max_trials": 3, "epochs": 2}
    interrupt = Interrupt(build, at=5)  # two builds explore the space, then one per trial
    with pytest.raises(KeyboardInterrupt):
        run(interrupt, linear_data, tmp_path, **few)
    partial = kregs.load_result(tmp_path / "search", build=build)
    assert partial.trials()["status"].tolist().count("completed") == 2
    assert partial.trials()["status"].tolist().count("interrupted") == 1
    assert isinstance(partial.best_model(), keras.Model)
    assert json.loads((tmp_path / "search" / "result.json").read_text())["best"] is not None
    resumed = run(build, linear_data, tmp_path, resume=True, **few)
    same_trials(run(build, linear_data, tmp_path / "whole", **few), resumed)


def test_an_interruption_before_the_first_trial_ends(project, build, linear_data, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(Interrupt(build, at=3), linear_data, tmp_path)
    partial = kregs.load_result(tmp_path / "search")
    assert set(partial.trials()["status"]) == {"interrupted"}
    with pytest.raises(RuntimeError, match="no trial"):
        _ = partial.best_score
    resumed = run(build, linear_data, tmp_path, resume=True)
    assert resumed.trials()["status"].tolist() == ["completed"] * len(partial.trials())


def test_resume_starts_a_new_search_and_may_extend_it(
    project, build, linear_data, tmp_path, capsys
):
    capsys.readouterr()
    first = run(build, linear_data, tmp_path, max_trials=2, resume=True)
    assert len(first.trials()) == 2
    extended = run(build, linear_data, tmp_path, max_trials=4, resume=True)
    same_trials(project, extended)
    assert extended.seconds > first.seconds
    assert capsys.readouterr() == ("", "")  # verbose=0


def test_another_search_is_not_resumed(project, build, linear_data):
    x, y = linear_data
    path = project.path.parent

    def other_space(hp):
        hp.Choice("more", [1, 2])
        return build(hp)

    cases = [
        ({"seed": 1}, "seed: 0. Received: 1"),
        ({"objective": "val_loss"}, "objective"),
        ({"epochs": 9}, "epochs: 3. Received: 9"),
        ({"batch_size": 9}, "batch_size"),
        ({"oracle": "bayesian"}, "oracle"),
        ({"validation_split": 0.3}, "validation_split"),
        ({"build": other_space}, "hyperparameter more"),
        ({"data": (x, y + 1)}, "data"),
    ]
    before = sorted(p.name for p in project.path.iterdir())
    for changes, words in cases:
        data, function = changes.pop("data", (x, y)), changes.pop("build", build)
        with pytest.raises(ValueError, match=words):
            run(function, data, path, resume=True, **changes)
    assert sorted(p.name for p in project.path.iterdir()) == before


def test_an_existing_project_is_not_taken_silently(project, build, linear_data, tmp_path):
    with pytest.raises(FileExistsError, match="resume=True"):
        run(build, linear_data, project.path.parent)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no search"):
        run(build, linear_data, tmp_path, resume=True)


def uncompiled(hp):
    hp.Choice("a", [1, 2])
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def plain(hp):
    model = uncompiled(hp)
    model.compile("sgd", "mse")
    return model


NAN = np.full((80, 3), np.nan, dtype="float32")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"build": 3}, TypeError, "`build` must be a function"),
        ({"build": keras_tuner.HyperModel}, TypeError, "`build` must be a function"),
        ({"build": lambda hp: None}, TypeError, "must return a compiled keras.Model"),
        ({"build": uncompiled}, ValueError, "compile_model"),
        ({"build": plain}, ValueError, "kregs.compile_model"),
        ({"oracle": "baysian"}, ValueError, "Did you mean 'bayesian'"),
        ({"objective": "val_data_los"}, ValueError, "Did you mean 'val_data_loss'"),
        ({"objective": "val_mea"}, ValueError, "Did you mean 'val_mae'"),
        ({"objective": "data_lss"}, ValueError, "Did you mean 'data_loss'"),
        ({"objective": "val_wellbeing"}, ValueError, "must be one of the metrics"),
        ({"objective": "val_mean_loss"}, ValueError, "must be one of the metrics"),
        ({"max_trials": 0}, ValueError, "`max_trials`"),
        ({"max_trials": 2.5}, TypeError, "`max_trials`"),
        ({"epochs": 0}, ValueError, "`epochs`"),
        ({"batch_size": True}, TypeError, "`batch_size`"),
        ({"seed": -1}, ValueError, "`seed`"),
        ({"seeds": 0}, ValueError, "`seeds`"),
        ({"keep": 0}, ValueError, "`keep`"),
        ({"max_time": -1}, ValueError, "`max_time`"),
        ({"selection": "one_se"}, ValueError, "one_standard_error"),
        ({"selection": "one_standard_error"}, ValueError, "several runs"),
        ({"groups": [1, 2]}, ValueError, "one label a row"),
        ({"folds": 1}, ValueError, "`folds`"),
        ({"folds": "five"}, TypeError, "scikit-learn splitter"),
        ({"preprocess": "scale"}, TypeError, "`preprocess`"),
        ({"engine": "sequental"}, ValueError, "Did you mean 'sequential'"),
        ({"verbose": "loud"}, ValueError, "`verbose`"),
        ({"callbacks": keras.callbacks.TerminateOnNaN()}, TypeError, "must be a list"),
        ({"callbacks": ["a"]}, TypeError, "must hold Keras callbacks"),
        ({"project_name": "a/b"}, ValueError, "`project_name`"),
        ({"project_name": ""}, TypeError, "`project_name`"),
        ({"directory": None}, TypeError, "`directory`"),
        ({"x": NAN}, ValueError, "`x` must be finite"),
    ],
)
def test_bad_input_is_an_error_before_any_training(
    changes, error, words, build, linear_data, tmp_path
):
    x, y = linear_data
    changes = dict(changes)
    function, x = changes.pop("build", build), changes.pop("x", x)
    with pytest.raises(error, match=words):
        run(function, (x, y), **{"path": tmp_path, **_as_path(changes)})
    assert not list(tmp_path.glob("*/*"))  # nothing was begun


def _as_path(changes):
    return {"path" if name == "directory" else name: value for name, value in changes.items()}


def test_a_directory_that_cannot_be_written(build, linear_data, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="`directory` must be a folder that can be written"):
        run(build, linear_data, file)


def test_all_trials_failing_is_an_error_with_the_first_reason(linear_data, tmp_path):
    builds = []

    def build(hp):
        hp.Float("a", 0.0, 1.0)
        builds.append(1)
        if len(builds) > 1:
            raise RuntimeError(f"build {len(builds)}")
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return kregs.compile_model(model, "mse")

    with pytest.raises(RuntimeError, match=r"all 4 trials failed.*RuntimeError: build 2"):
        run(build, linear_data, tmp_path)
    assert len(kregs.load_result(tmp_path / "search").failures()) == 4


def test_datasets_and_early_stopping_on_the_objective(linear_data, tmp_path):
    x, y = linear_data
    train = tf.data.Dataset.from_tensor_slices((x[:60], y[:60])).batch(20)
    validation = tf.data.Dataset.from_tensor_slices((x[60:], y[60:])).batch(20)

    def build(hp):
        hp.Choice("a", [1])
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=0.4)

    results = [
        kregs.tune(
            build,
            train,
            validation_data=validation,
            oracle="grid",
            epochs=40,
            directory=tmp_path,
            project_name=name,
            callbacks=callbacks,
            verbose=0,
        )
        for name, callbacks in (("stopped", None), ("long", []))
    ]
    lengths = [len(result.history(0)) for result in results]
    # a fifth of the epochs without improvement
    assert lengths[0] == min(results[0].best_epoch + 8, 40)
    assert lengths[1] == 40


def test_class_and_sample_weights_reach_fit(linear_data, tmp_path):
    x, _ = linear_data
    y = (x[:, 0] > 0).astype(int)

    def build(hp):
        hp.Choice("a", [1])
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, "sigmoid")])
        return kregs.compile_model(model, "binary_crossentropy")

    given = {
        "class": {"class_weight": {0: 0.0, 1: 0.0}},
        "sample": {"sample_weight": np.full(80, 1e-6)},
    }
    losses = {
        name: run(build, (x, y), tmp_path, project_name=name, epochs=1, oracle="grid", **weights)
        .history(0)
        .iloc[0]
        for name, weights in given.items()
    }
    assert losses["class"]["loss"] == 0
    assert losses["class"]["val_data_loss"] > 0
    assert 0 < losses["sample"]["loss"] < 1e-4
    assert 0 < losses["sample"]["val_data_loss"] < 1e-4


@pytest.mark.parametrize("engine", ["population", "sequential"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_trial_is_scored_half_by_half(build, linear_data, tmp_path, eager, engine, weighted):
    x, y = linear_data
    held = (x[:21], -y[:21], *([np.linspace(1, 2, 21)] if weighted else []))
    result = kregs.tune(
        build, x[21:], y[21:], validation_data=held, max_trials=1, epochs=2, engine=engine,
        callbacks=[], directory=tmp_path, verbose=0,
    )  # fmt: skip
    for trial in result.trials().itertuples():
        record = TrialRecord.read(tmp_path / "search" / f"trial_{trial.trial}")
        (whole,), ((a, b),) = record.histories, record.halves
        assert set(a) == set(b) == {name for name in whole if name.startswith("val_")}
        for name in a:
            together = (11 * np.array(a[name]) + 10 * np.array(b[name])) / 21
            np.testing.assert_allclose(together, whole[name], rtol=1e-5, err_msg=name)
        # the targets are the opposite of the training rows': every epoch makes it worse
        assert whole["val_data_loss"] == sorted(whole["val_data_loss"])
        assert trial.best_epoch == 1
        assert trial.score == pytest.approx(whole["val_data_loss"][0], rel=1e-5)
    assert result.protocol.epoch_chosen_on == "the other half"


@pytest.mark.nightly
def test_val_loss_picks_a_smaller_l2_than_val_data_loss(tmp_path):
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype("float32")
    grid = [0.0, 1e-2, 1e-1]

    def build(hp):
        layer = keras.layers.Dense(
            1,
            activation="sigmoid",
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.5, seed=1),
            kernel_regularizer=keras.regularizers.L2(hp.Choice("l2", grid)),
        )
        model = keras.Sequential([keras.Input((30,)), layer])
        return kregs.compile_model(model, "binary_crossentropy", learning_rate=0.1)

    chosen = {}
    for objective in ("val_loss", "val_data_loss"):
        result = run(
            build,
            (x, y),
            tmp_path,
            validation_split=0.8,
            oracle="grid",
            max_trials=None,
            epochs=15,
            batch_size=len(x),
            callbacks=[],
            objective=objective,
            project_name=objective,
        )
        assert sorted(result.trials()["l2"]) == grid
        chosen[objective] = result.best_hyperparameters["l2"]
    assert chosen["val_loss"] < chosen["val_data_loss"]


@pytest.mark.parametrize("changes", [{"folds": 10**6}, {"objective": "val_nothing"}, {"x": "nan"}])
def test_a_refused_search_leaves_no_folder(build, linear_data, tmp_path, changes):
    x, y = linear_data
    changes = dict(changes)
    if changes.pop("x", None):
        x = np.full_like(x, np.nan)
    (tmp_path / "there").mkdir()
    for directory in ("there", "new/inner"):
        with pytest.raises(ValueError, match=r"folds|val_nothing|NaN"):
            run(build, (x, y), tmp_path / directory, **changes)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
