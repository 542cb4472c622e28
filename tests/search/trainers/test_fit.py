from __future__ import annotations

import json

import keras
import keras_tuner
import numpy as np
import pytest

import kregs
from kregs.search import PopulationTuner
from kregs.search.build import explore, make_hypermodel
from kregs.search.checkpoints import load_checkpoint
from kregs.search.failures import reason_of
from kregs.search.objective import make_objective
from kregs.search.oracles import make_oracle
from kregs.search.progress import Progress
from kregs.search.storage import TrialRecord


def tuner_for(build, path, *, oracle="random", objective="val_data_loss", max_trials=4, **settings):
    hypermodel = make_hypermodel(build)
    space, _ = explore(hypermodel)
    fresh = make_oracle(
        oracle,
        objective=make_objective(objective),
        space=space,
        max_trials=max_trials,
        epochs=4,
        seed=0,
    )
    return PopulationTuner(
        hypermodel,
        oracle=fresh,
        engine="sequential",
        seed=0,
        progress=Progress(),
        directory=path,
        project_name="p",
        **settings,
    )


def linear(hp):
    zeros = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), zeros])
    return kregs.compile_model(model, "mse", learning_rate=hp.Float("rate", 0.03, 0.05))


def test_the_checkpoint_is_that_of_the_best_epoch(tmp_path, linear_data, eager):
    x, y = linear_data
    # on its way from 0 to y the model passes what the validation rows ask for
    data = {"x": x[:40], "y": y[:40], "validation_data": (x[40:], 0.3 * y[40:])}
    tuner = tuner_for(linear, tmp_path, max_trials=2)
    tuner.search(**data, epochs=6, batch_size=10)
    best_epochs = set()
    for trial in tuner.oracle.trials.values():
        record = TrialRecord.read(tuner.get_trial_dir(trial.trial_id))
        values = record.histories[0]["val_data_loss"]
        assert trial.score == min(values)
        assert record.best_epoch == 1 + int(np.argmin(values))
        model = tuner.load_model(trial)
        scores = model.evaluate(x[40:], 0.3 * y[40:], verbose=0, return_dict=True)
        assert scores["data_loss"] == pytest.approx(trial.score, rel=1e-5)
        assert int(model.optimizer.iterations) == 4 * record.best_epoch
        best_epochs.add(record.best_epoch)
    assert not best_epochs & {1, 6}  # else nothing is shown


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")  # keras-tuner's
def test_a_finished_project_reloads_in_plain_keras_tuner(project, linear_data, capsys):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_data_loss", "min"), max_trials=4
    )
    tuner = keras_tuner.Tuner(
        oracle=oracle,
        hypermodel=project.build,
        directory=str(project.path.parent),
        project_name=project.path.name,
    )
    assert "Reloading" in capsys.readouterr().out
    best = tuner.oracle.get_best_trials()[0]
    assert best.score == project.best_score
    ours = project.best_model().get_weights()
    theirs = keras.Model.get_weights(project.build.build(best.hyperparameters))
    assert not np.array_equal(ours[0], theirs[0])
    loaded = tuner.get_best_models()[0].get_weights()
    for a, b in zip(ours, loaded, strict=True):
        np.testing.assert_array_equal(a, b)


def test_hyperband_goes_on_from_the_earlier_trial(tmp_path, build, linear_data, eager):
    x, y = linear_data
    first_losses = {}

    class Spy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            logs = self.model.evaluate(x[40:], y[40:], verbose=0, return_dict=True)
            first_losses[len(first_losses)] = logs["data_loss"]

        def __deepcopy__(self, memo):
            return Spy()

    oracle = keras_tuner.oracles.HyperbandOracle(
        objective=make_objective("val_data_loss"), max_epochs=4, factor=2, seed=1
    )
    hypermodel = make_hypermodel(build)
    oracle.update_space(explore(hypermodel)[0])
    oracle.max_trials = 7  # 4 trials of one epoch, 2 of them to two epochs, 1 of these to four
    tuner = PopulationTuner(
        hypermodel, oracle=oracle, engine="sequential", directory=tmp_path, project_name="p"
    )
    data = {"validation_data": (x[40:], y[40:]), "callbacks": [Spy()], "batch_size": 20}
    tuner.search(x[:40], y[:40], verbose=0, **data)
    promoted = 0
    for number, trial in enumerate(oracle.trials.values()):
        values = trial.hyperparameters.values
        record = TrialRecord.read(tuner.get_trial_dir(trial.trial_id))
        epochs = values["tuner/epochs"] - values["tuner/initial_epoch"]
        assert len(record.histories[0]["loss"]) == epochs
        if "tuner/trial_id" in values:
            promoted += 1
            earlier = oracle.trials[values["tuner/trial_id"]]
            assert first_losses[number] == pytest.approx(earlier.score, rel=1e-5)
            assert record.initial_epoch == values["tuner/initial_epoch"]
    assert promoted >= 2


class Failing:
    """Fails by an exception, by NaN from the first epoch, by NaN later, or not at all."""

    def __call__(self, hp):
        kind = hp.Choice("kind", ["good", "raises", "nan", "nan later"])
        if kind == "raises":
            raise ZeroDivisionError("on purpose")
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        rate = {"nan": 1e30, "nan later": 1e9}.get(kind, 0.01)
        return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=rate)


def test_failures_are_recorded_and_never_the_best(tmp_path, linear_data):
    x, y = linear_data
    result = kregs.tune(
        Failing(), x, y, oracle="grid", epochs=4, batch_size=80, directory=tmp_path, verbose=0
    )
    trials = result.trials().set_index("kind")
    assert trials.loc["good", "status"] == "completed"
    assert trials.loc["raises", "status"] == trials.loc["nan", "status"] == "failed"
    # one step takes the weights to about 1e9: bad, but a number
    assert trials.loc["nan later", "status"] == "completed"
    assert trials.loc["nan later", "best_epoch"] < 4
    assert np.isfinite(trials.loc["nan later", "score"])
    assert np.isnan(result.history(trials.loc["nan later", "trial"])["val_data_loss"]).any()
    assert result.best_hyperparameters == {"kind": "good"}
    messages = result.failures().set_index("trial")["message"]
    assert messages[trials.loc["raises", "trial"]] == "ZeroDivisionError: on purpose"
    assert "never a finite number" in messages[trials.loc["nan", "trial"]]


def test_reason_of_a_tensorflow_error():
    text = (
        "Graph execution error:\n\nDetected at node A defined at (most recent call last):\n"
        '  File "a.py", line 3, in f\n\nReceived a label value of 9.\n'
        "\t [[{{node A}}]] [Op:__inference_f_12]"
    )
    assert reason_of(ValueError(text)) == "ValueError: Received a label value of 9."
    assert len(reason_of(ValueError("long " * 1000))) < 400
    assert reason_of(ValueError()) == "ValueError"


def test_executions_are_averaged_and_differ(tmp_path, build, linear_data):
    x, y = linear_data
    result = kregs.tune(
        build,
        x,
        y,
        validation_data=(x[:20], y[:20]),
        max_trials=1,
        epochs=2,
        seeds=2,
        directory=tmp_path,
        verbose=0,
    )
    history = result.history(0)
    bests = history.groupby("seed")["val_data_loss"].min()
    assert len(history) == 4
    assert bests[0] != bests[1]
    assert result.best_score == pytest.approx(bests.mean())
    # the checkpoint is that of the better one
    scores = result.best_model().evaluate(x[:20], y[:20], verbose=0, return_dict=True)
    assert scores["data_loss"] == pytest.approx(bests.min(), rel=1e-5)


class OwnFit(keras_tuner.HyperModel):
    """A user's own training, which returns the objective as a number."""

    def build(self, hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        self.a = hp.Float("a", 0.0, 1.0)
        return model

    def fit(self, hp, model, x, y, **kwargs):
        return abs(hp.get("a") - 0.5)


def test_a_hypermodel_with_its_own_fit(tmp_path, linear_data):
    result = kregs.tune(
        OwnFit(), *linear_data, max_trials=3, objective="val_loss", directory=tmp_path, verbose=0
    )
    trials = result.trials()
    np.testing.assert_allclose(trials["score"], (trials["a"] - 0.5).abs())
    assert isinstance(result.best_model(), keras.Model)


def test_load_checkpoint_builds_what_is_not_built(tmp_path):
    def make():
        model = keras.Sequential([keras.layers.Dense(2)])
        model.compile("adam", "mse")
        return model

    model = make()
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    model.save_weights(tmp_path / "checkpoint.weights.h5")
    (tmp_path / "build_config.json").write_text(json.dumps(model.get_build_config()))
    fresh = make()
    load_checkpoint(fresh, tmp_path)
    np.testing.assert_array_equal(fresh.get_weights()[0], model.get_weights()[0])
    assert int(fresh.optimizer.iterations) == 1
