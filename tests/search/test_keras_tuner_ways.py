"""What keras-tuner's documentation says of `run_trial`, `compile` and the space."""

import keras
import keras_tuner
import numpy as np
import pytest

from kregs import PopulationTuner

X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
Y = X.sum(1)
FIT = {"validation_data": (X[30:], Y[30:]), "epochs": 1, "verbose": 0}


def history(value):
    made = keras.callbacks.History()
    made.history, made.epoch = {"cost": [9.0, value, 8.0]}, [0, 1, 2]
    return made


RESULTS = {
    "history": history,
    "dictionary": lambda value: {"cost": value, "other": 1.0},
    "NumPy's number": np.float32,
    "list": lambda value: [value - 1, value + 1, value],
    "list of dictionaries": lambda value: [{"cost": value + 2}, {"cost": value - 2}],
}


def own_trials(result, tmp_path, objective):
    class Own(PopulationTuner):
        def run_trial(self, trial, *args, **kwargs):
            return result(trial.hyperparameters.Float("value", 0.5, 1.5))

    return Own(objective=objective, max_trials=3, seed=1, directory=tmp_path)


@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
@pytest.mark.parametrize("name", RESULTS)
def test_what_run_trial_returns(tmp_path, name):
    tuner = own_trials(RESULTS[name], tmp_path, keras_tuner.Objective("cost", "min"))
    tuner.search(verbose=0)
    trials = tuner.oracle.trials.values()
    assert len(trials) == 3
    for trial in trials:
        assert trial.score == pytest.approx(trial.hyperparameters.get("value"), rel=1e-6)
    best = tuner.get_best_hyperparameters()[0]
    assert best.get("value") == min(trial.hyperparameters.get("value") for trial in trials)


@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
def test_without_an_objective_a_number_is_it(tmp_path):
    tuner = own_trials(float, tmp_path, None)
    tuner.search(verbose=0)
    assert all(t.score == t.hyperparameters.get("value") for t in tuner.oracle.trials.values())


@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
@pytest.mark.parametrize(
    ("result", "error"),
    [
        (lambda value: None, keras_tuner.errors.FatalTypeError),
        (lambda value: "a", keras_tuner.errors.FatalTypeError),
        (lambda value: {"b": value}, keras_tuner.errors.FatalValueError),
    ],
)
def test_what_is_no_result_ends_the_search(tmp_path, result, error):
    tuner = own_trials(result, tmp_path, keras_tuner.Objective("cost", "min"))
    with pytest.raises(error, match=r"result of Tuner.run_trial\(\) to be one of: .*'cost'"):
        tuner.search(verbose=0)
    assert len(tuner.oracle.trials) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
@pytest.mark.parametrize("judged_by_itself", [False, True])
def test_run_trial_can_change_arguments_of_fit_and_look_at_the_histories(
    tmp_path, judged_by_itself
):
    seen = []

    class BatchSize(PopulationTuner):
        def run_trial(self, trial, *args, **kwargs):
            kwargs["batch_size"] = trial.hyperparameters.Choice("batch_size", [5, 15])
            histories = super().run_trial(trial, *args, **kwargs)
            seen.append(histories)
            if judged_by_itself:
                return {"val_loss": max(min(h.history["val_loss"]) for h in histories) + 1}
            return histories

    tuner = BatchSize(
        compiled,
        "val_loss",
        seed=1,
        max_trials=2,
        executions_per_trial=2,
        directory=tmp_path,
    )
    tuner.search(X[:30], Y[:30], **{**FIT, "epochs": 3})
    for histories, trial in zip(seen, tuner.oracle.trials.values(), strict=True):
        assert [type(h).__mro__[1] for h in histories] == [keras.callbacks.History] * 2
        assert [h.epoch for h in histories] == [[0, 1, 2]] * 2
        lowest = [min(h.history["val_loss"]) for h in histories]
        score = max(lowest) + 1 if judged_by_itself else np.mean(lowest)
        assert trial.score == pytest.approx(score, rel=1e-6)
    best = tuner.oracle.get_best_trials()[0]
    found = tuner.get_best_models()[0].evaluate(X[30:], Y[30:], verbose=0)
    lowest = seen[list(tuner.oracle.trials).index(best.trial_id)]
    expected = min(min(history.history["val_loss"]) for history in lowest)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_private_method_that_is_not_called_may_not_be_overridden(tmp_path):
    class Own(PopulationTuner):
        def _build_and_fit_model(self, trial, *args, **kwargs):
            raise AssertionError

    with pytest.raises(TypeError, match="Own must not override `_build_and_fit_model`"):
        Own(bare, "val_loss", directory=tmp_path)


@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
@pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")  # its own
def test_update_trial_in_run_trial_is_deprecated(tmp_path):
    class Old(PopulationTuner):
        def run_trial(self, trial, *args, **kwargs):
            value = trial.hyperparameters.Float("value", 0.5, 1.5)
            self.oracle.update_trial(trial.trial_id, {"cost": value})

    goal = keras_tuner.Objective("cost", "min")
    tuner = Old(objective=goal, max_trials=2, seed=1, directory=tmp_path)
    with pytest.warns(DeprecationWarning, match="Please remove the call"):
        tuner.search(verbose=0)
    assert all(t.score == t.hyperparameters.get("value") for t in tuner.oracle.trials.values())


@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
def test_without_an_objective_nothing_else_is_it(tmp_path):
    tuner = own_trials(lambda value: {"cost": value}, tmp_path, None)
    with pytest.raises(keras_tuner.errors.FatalTypeError, match="single float, as no objective"):
        tuner.search(verbose=0)


@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
@pytest.mark.parametrize("oracle", ["random", "grid"])
def test_a_fit_that_trains_by_itself_needs_no_compiled_model(tmp_path, oracle):
    class Alone(keras_tuner.HyperModel):
        def build(self, hp):
            return bare(hp)

        def fit(self, hp, model, x, y, **kwargs):
            weight = hp.Choice("weight", [0.0, 1.0, 2.0])
            model.set_weights([np.full_like(w, weight) for w in model.get_weights()])
            return float(np.mean((model(x).numpy()[:, 0] - y) ** 2))

    tuner = PopulationTuner(Alone(), oracle=oracle, seed=1, max_trials=4, directory=tmp_path)
    tuner.search(X, Y, verbose=0)
    best = tuner.oracle.get_best_trials()[0]
    kept = tuner.get_best_models()[0]
    error = np.mean((kept(X).numpy()[:, 0] - Y) ** 2)
    assert best.score == pytest.approx(error, rel=1e-5)
    assert best.hyperparameters.get("weight") == kept.get_weights()[0][0, 0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::kregs.search.tuner.SequentialFallback")
def test_a_training_loop_of_ones_own_calls_two_hooks(tmp_path):
    class Loop(keras_tuner.HyperModel):
        def build(self, hp):
            return bare(hp)

        def fit(self, hp, model, x, y, epochs, callbacks=None, **kwargs):
            shift = hp.Choice("shift", [0.5, 1.0])
            for callback in callbacks:
                callback.set_model(model)
            errors = []
            for epoch in range(epochs):
                model.set_weights([weight + shift for weight in model.get_weights()])
                errors.append(float(abs(model.get_weights()[1][0] - 1.0)))  # of a bias
                for callback in callbacks:
                    callback.on_epoch_end(epoch, logs={"error": errors[-1]})
            return min(errors)

    goal = keras_tuner.Objective("error", "min")
    for oracle in ("random", "hyperband"):
        bounds = {"max_trials": 2} if oracle == "random" else {"max_epochs": 3}
        tuner = PopulationTuner(
            Loop(), goal, oracle=oracle, seed=1, directory=tmp_path / oracle, **bounds
        )
        tuner.search(X, Y, epochs=3, verbose=0)
        assert {trial.status for trial in tuner.oracle.trials.values()} == {"COMPLETED"}
        # 0.5 is at 1 after two epochs, 1.0 after one: the best epoch is kept
        assert tuner.oracle.get_best_trials()[0].score == 0.0
        assert tuner.get_best_models()[0].get_weights()[1][0] == 1.0


def test_the_directory_is_as_it_was_given(tmp_path):
    tuner = PopulationTuner(bare, "val_loss", directory=tmp_path)
    assert tuner.directory == tmp_path
    assert PopulationTuner(bare, "val_loss", directory=str(tmp_path)).directory == str(tmp_path)


def test_a_hypermodel_is_needed_otherwise(tmp_path):
    with pytest.raises(ValueError, match="`hypermodel` must be given"):
        PopulationTuner(objective="val_loss", directory=tmp_path)
    with pytest.raises(TypeError, match="`hypermodel` must be a function"):
        PopulationTuner(3, "val_loss", directory=tmp_path)
    tuner = PopulationTuner(lambda hp: None, "val_loss", 2, directory=tmp_path)
    with pytest.raises(
        keras_tuner.errors.FatalTypeError, match="model-building function to return"
    ):
        tuner.search(X, Y, **FIT)


def bare(hp):
    hidden = keras.layers.Dense(hp.Choice("units", [1, 2]))
    return keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1)])


def test_what_the_tuner_compiles(tmp_path):
    tuner = PopulationTuner(
        bare, "val_loss", 1, seed=1, engine="population", directory=tmp_path,
        optimizer=keras.optimizers.SGD(0.25), loss="mae", metrics=["mse"],
    )  # fmt: skip
    tuner.search(X[:30], Y[:30], **FIT)
    (model,) = tuner.get_best_models()
    assert (type(model.optimizer), model.loss) == (keras.optimizers.SGD, "mae")
    assert float(model.optimizer.learning_rate) == 0.25
    metrics = tuner.oracle.get_best_trials()[0].metrics
    assert metrics.exists("val_mse")
    scores = model.evaluate(X[30:], Y[30:], verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(metrics.get_last_value("val_loss"), rel=1e-5)


def compiled(hp):
    model = bare(hp)
    model.compile(keras.optimizers.SGD(hp.Float("rate", 0.01, 0.1)), "mse")
    return model


def test_given_hyperparameters_and_those_of_the_build_are_the_space(tmp_path):
    def space(given, **named):
        tuner = PopulationTuner(
            compiled, "val_loss", 2, hyperparameters=given, directory=tmp_path,
            project_name=str(named), **named,
        )  # fmt: skip
        return {hp.name: type(hp).__name__ for hp in tuner.oracle.get_space().space}

    fixed, units = keras_tuner.HyperParameters(), keras_tuner.HyperParameters()
    fixed.Fixed("rate", 0.05)
    units.Choice("units", [1, 2])
    assert space(fixed) == {"rate": "Fixed", "units": "Choice"}
    assert space(units, tune_new_entries=False) == {"units": "Choice"}
    units = keras_tuner.HyperParameters()
    units.Choice("units", [1, 2])
    with pytest.raises(RuntimeError, match="`allow_new_entries` is `False`"):
        space(units, allow_new_entries=False)
