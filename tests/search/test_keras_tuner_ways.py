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
    with pytest.raises(error, match=r"`run_trial` must return .*'cost'"):
        tuner.search(verbose=0)
    assert len(tuner.oracle.trials) == 1


def test_a_hypermodel_is_needed_otherwise(tmp_path):
    with pytest.raises(TypeError, match="`build` must be a function"):
        PopulationTuner(objective="val_loss", directory=tmp_path)
    tuner = PopulationTuner(lambda hp: None, "val_loss", 2, directory=tmp_path)
    with pytest.raises(keras_tuner.errors.FatalTypeError, match="`build` must return"):
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
