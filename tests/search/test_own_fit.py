"""A `fit` of the hypermodel's own, and arguments of `fit` that are functions of hp."""

import contextlib
import json
import math
import warnings
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import kregs
from kregs import PopulationTuner
from kregs.population import NotStackable
from kregs.search.own_fit import OwnFit
from kregs.search.settings import FUNCTION
from kregs.search.storage import TrialRecord
from kregs.search.trainers.feeds import Feeds, with_defaults
from kregs.search.tuner import SequentialFallback

X = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
Y = (X @ [1.0, -2.0, 0.5]).astype("float32")
TRAIN, VALIDATION = (X[:40], Y[:40]), (X[40:], Y[40:])


def bare(hp):
    """The same initial weights whatever the seed."""
    start = keras.initializers.Constant(hp.Choice("start", [0.3, 0.1]))
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer=start)])


def build(hp):
    model = bare(hp)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


class Model(keras_tuner.HyperModel):
    def build(self, hp):
        return build(hp)


def tuner_of(hypermodel, tmp_path, *arguments, **named):
    named = {"engine": "population", "seed": 1, "directory": tmp_path, **named}
    return PopulationTuner(hypermodel, "val_loss", *arguments, **named)


def values_of(tuner):
    trials = sorted(tuner.oracle.trials.items())
    return [(trial.hyperparameters, trial.score) for _, trial in trials]


# ---- what a `fit` asks ---------------------------------------------------------------------


def batch_size(self, hp, model, *args, **kwargs):
    return model.fit(*args, **kwargs | {"batch_size": hp.Int("batch_size", 4, 8)})


def by_the_base_class(self, hp, model, *args, **kwargs):
    kwargs["batch_size"] = hp.Int("batch_size", 4, 8)
    model.compile("adam", "mae")
    result = keras_tuner.HyperModel.fit(self, hp, model, *args, **kwargs)
    return result  # noqa: RET504


def twice(self, hp, model, *args, **kwargs):
    model.fit(*args, **kwargs)
    return model.fit(*args, **kwargs)


def best_of(self, hp, model, *args, **kwargs):
    return min(model.fit(*args, **kwargs).history["loss"])


def by_index(self, hp, model, *args, **kwargs):
    return model.fit(*args, **kwargs)["loss"]


def returns_nothing(self, hp, model, *args, **kwargs):
    model.fit(*args, **kwargs)


def returns_numbers(self, hp, model, *args, **kwargs):
    model.fit(*args, **kwargs)
    return {"loss": 1.0}


def evaluates(self, hp, model, *args, **kwargs):
    result = model.fit(*args, **kwargs)
    with contextlib.suppress(Exception):  # must not hide it
        model.evaluate(*args)
    return result


def keeps(self, hp, model, *args, **kwargs):
    self.history = model.fit(*args, **kwargs)
    return self.history


def loop(self, hp, model, x, y, **kwargs):
    return float(np.mean(model(x)))


def no_model(self, hp, model, *args, **kwargs):
    return 1.0


MORE = {
    twice: "calls `model.fit` twice",
    best_of: "uses what `model.fit` returns: its `history`",
    by_index: "raises TypeError: '_Result' object is not subscriptable",
    returns_nothing: "returns something else",
    returns_numbers: "returns something else",
    evaluates: "uses `model.evaluate` after `model.fit`",
    keeps: "keeps what",
    loop: "calls the model",
    no_model: "does not call `model.fit`",
}


@pytest.mark.parametrize("fit", [by_the_base_class, batch_size, *MORE])
def test_what_a_fit_asks_is_noted_without_training(fit):
    hp = keras_tuner.HyperParameters()
    model, own = build(hp), OwnFit(type("Own", (Model,), {"fit": fit})())
    weights = model.get_weights()
    given = {"epochs": 3, "callbacks": []}
    if fit not in MORE:
        asked = own.arguments(hp, model, TRAIN, given)
        assert asked.pop("x") is TRAIN[0]
        assert asked.pop("y") is TRAIN[1]
        assert asked == {**given, "batch_size": 4}
        assert hp.values["batch_size"] == 4
    else:
        for _ in range(2):  # it is not called again
            with pytest.raises(NotStackable, match=f"own `fit` .*{MORE[fit]}"):
                own.arguments(hp, model, TRAIN, given)
    assert type(model) is keras.Sequential
    assert model.fit.__func__ is keras.Model.fit
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_fit_that_raises_may_be_another_in_the_next_trial():
    def fit(self, hp, model, *args, **kwargs):
        if hp.values.get("bad"):
            raise ZeroDivisionError("on purpose")
        return model.fit(*args, **kwargs)

    own, hp = OwnFit(type("Own", (Model,), {"fit": fit})()), keras_tuner.HyperParameters()
    model = build(hp)
    hp.values["bad"] = True
    with pytest.raises(NotStackable, match="raises ZeroDivisionError: on purpose"):
        own.arguments(hp, model, TRAIN, {})
    hp.values["bad"] = False
    assert own.arguments(hp, model, TRAIN, {})["y"] is TRAIN[1]


def iter_of():
    yield TRAIN


def test_feeds_share_rows():
    def asked(**changes):
        fit = {"x": TRAIN[0], "y": TRAIN[1], "validation_data": VALIDATION, "batch_size": 8}
        return with_defaults(fit | changes)

    feeds = Feeds((TRAIN, VALIDATION), folds=False)
    key, feed = feeds.get(asked())
    for changes in ({"batch_size": 16}, {"shuffle": False}, {"validation_batch_size": 5}):
        other_key, other = feeds.get(asked(**changes))
        assert other_key != key
        assert other.data is feed.data
        assert other.validation is feed.validation
    assert feeds.get(asked(epochs=9, callbacks=[1]))[1] is feed
    own = feeds.get(asked(x=2 * TRAIN[0]))
    assert feeds.get(asked(x=2 * TRAIN[0]))[0] == own[0]  # other arrays of the same numbers
    assert own[0] != key
    for number in range(7):
        feeds.get(asked(class_weight={0: number}))
    with pytest.raises(NotStackable, match="more than 8 kinds of rows"):
        feeds.get(asked(class_weight={0: 7.5}))
    for changes in ({"x": iter_of(), "y": None}, {"validation_data": iter_of()}):
        with pytest.raises(NotStackable, match="a generator, which can be read once only"):
            feeds.get(asked(**changes))
    for changes in ({"steps_per_epoch": 2}, {"validation_steps": 1}):
        stepped_key, stepped = feeds.get(asked(**changes))
        assert stepped_key != key
        assert stepped.data is feed.data
    for name, steps in (("steps_per_epoch", 0), ("validation_steps", 1.5)):
        with pytest.raises(NotStackable, match=f"`{name}` is {steps}, no integer"):
            feeds.get(asked(**{name: steps}))


# ---- searches ------------------------------------------------------------------------------


class Asks(Model):
    """Compiles, and changes the arguments of `fit`."""

    def build(self, hp):
        return bare(hp)

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        model.compile(keras.optimizers.SGD(0.05), "mse")
        kwargs |= {"epochs": hp.Int("epochs", 1, 2), "batch_size": 16}
        if hp.Boolean("schedule"):
            callbacks = [*callbacks, keras.callbacks.LearningRateScheduler(lambda epoch: 0.01)]
        return model.fit(*args, callbacks=callbacks, shuffle=False, **kwargs)


def test_trials_are_those_of_keras(tmp_path, eager, capsys):
    tuner = tuner_of(Asks(), tmp_path, 6)
    tuner.search(*TRAIN, validation_data=VALIDATION, verbose=2)
    assert capsys.readouterr().out.splitlines()[-1] == "6 trials: all stacked"
    trials = values_of(tuner)
    for name in ("epochs", "schedule"):  # known before the first trial was proposed
        assert len({hp.get(name) for hp, _ in trials}) > 1
    for hp, score in trials[:2]:
        own = Asks().build(hp)
        history = Asks().fit(hp, own, *TRAIN, validation_data=VALIDATION, verbose=0).history
        assert len(history["val_loss"]) == hp.get("epochs")
        assert min(history["val_loss"]) == pytest.approx(score, rel=1e-5)
    kept = tuner.get_best_models()[0]
    kept.compile(loss="mse")
    best = min(score for _, score in trials)
    assert kept.evaluate(*VALIDATION, verbose=0) == pytest.approx(best, rel=1e-5)


def test_a_fit_that_does_more_is_called_and_said(tmp_path, eager):
    class Twice(Model):
        def fit(self, hp, model, *args, **kwargs):
            model.fit(*args, **kwargs)
            return model.fit(*args, **kwargs | {"batch_size": hp.Choice("batch", [20, 40])})

    tuner = tuner_of(Twice(), tmp_path, 2, engine="auto")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SequentialFallback)
        tuner.search(*TRAIN, validation_data=VALIDATION, epochs=1, verbose=0)
    (message,) = [str(w.message) for w in said if w.category is SequentialFallback]
    assert "own `fit` calls `model.fit` twice" in message
    for hp, score in values_of(tuner):
        assert "batch" in hp.values
        assert math.isfinite(score)
    record = TrialRecord.read(tuner.get_trial_dir("0"))
    assert record.engine == "sequential"
    assert record.unstacked in message
    with pytest.raises(NotStackable, match="twice"):
        tuner_of(Twice(), tmp_path / "strict", 2).search(*TRAIN, verbose=0)


def test_a_fold_has_its_own_rows(tmp_path):
    class Counts(Model):
        def build(self, hp):
            return kregs.compile_model(bare(hp), "mse", learning_rate=0.05)

        def fit(self, hp, model, x, y, **kwargs):
            self.seen = [*getattr(self, "seen", []), len(x)]
            return model.fit(x, y, **kwargs | {"batch_size": hp.Choice("batch", [40, len(x)])})

    hypermodel = Counts()
    result = kregs.tune(
        hypermodel, X, Y, folds=3, oracle="grid", epochs=1, engine="population",
        directory=tmp_path, verbose=0,
    )  # fmt: skip
    assert {*hypermodel.seen[:-1]} == {40}
    assert hypermodel.seen[-1] == 60  # the training on all rows
    assert len(result.trials()) == 2
    assert set(result.trials()["batch"]) == {40}
    seen = len(hypermodel.seen)

    def doubled(self, hp, model, x, y, **kwargs):
        return model.fit(2 * x, y, **kwargs)

    other = type("Doubles", (Counts,), {"fit": doubled})()
    with pytest.raises(NotStackable, match="changes the rows of a fold"):
        kregs.tune(
            other, X, Y, folds=3, epochs=1, engine="population", project_name="other",
            directory=tmp_path, verbose=0,
        )  # fmt: skip
    assert seen == len(hypermodel.seen)


def test_first_epoch_and_validation_frequency(tmp_path, eager):
    fit = {"validation_data": VALIDATION, "epochs": 4, "initial_epoch": 1, "shuffle": False}
    fit |= {"batch_size": 16, "validation_freq": [3, 4]}
    tuner = tuner_of(build, tmp_path, 1)
    tuner.search(*TRAIN, **fit, verbose=0)
    folder = tuner.get_trial_dir("0")
    hp, score = values_of(tuner)[0]
    expected = build(hp).fit(*TRAIN, **fit, verbose=0).history
    record = TrialRecord.read(folder)
    (history,) = record.histories
    assert len(history["val_loss"]) == 2  # as in Keras, no entry for what was not validated
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    assert record.logged_epochs == [{"val_loss": [1, 2]}]
    assert score == pytest.approx(min(expected["val_loss"]), rel=1e-5)
    assert record.best_epoch == 4
    alone = tuner_of(build, tmp_path / "alone", 1, engine="sequential")
    alone.search(*TRAIN, **fit, verbose=0)
    same = TrialRecord.read(alone.get_trial_dir("0"))
    assert same.logged_epochs == record.logged_epochs
    np.testing.assert_allclose(same.histories[0]["val_loss"], history["val_loss"], rtol=1e-5)


@pytest.mark.slow
def test_a_result_tells_which_epochs_were_validated(tmp_path):
    class Rarely(Model):
        def build(self, hp):
            return kregs.compile_model(bare(hp), "mse", learning_rate=0.05)

        def fit(self, hp, model, *args, **kwargs):
            return model.fit(*args, **kwargs | {"validation_freq": 2})

    result = kregs.tune(
        Rarely(), *TRAIN, folds=2, max_trials=1, epochs=5, engine="population", seed=1,
        oracle="random", objective="val_loss", callbacks=[], directory=tmp_path, verbose=0,
    )  # fmt: skip
    history = result.history(0)
    for _, fold in history.groupby("fold"):
        assert fold["epoch"].tolist() == [1, 2, 3, 4, 5]
        assert fold["val_loss"].isna().tolist() == [True, False, True, False, True]
        assert not fold["loss"].isna().any()


STEPS = {
    "arrays": (lambda: TRAIN, {"steps_per_epoch": 2, "validation_steps": 1}),
    "no batch size": (lambda: TRAIN, {"steps_per_epoch": 3, "batch_size": None}),
    "repeated": (
        lambda: (tf.data.Dataset.from_tensor_slices(TRAIN).batch(16).repeat(), None),
        {"steps_per_epoch": 4, "batch_size": None},
    ),
    "held out": (
        lambda: (tf.data.Dataset.from_tensor_slices(TRAIN).batch(16), None),
        {
            "batch_size": None,
            "validation_data": tf.data.Dataset.from_tensor_slices(VALIDATION).batch(4).repeat(),
            "validation_steps": 2,
        },
    ),
    "executions": (lambda: TRAIN, {"steps_per_epoch": 1, "batch_size": 8, "executions": 2}),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=getattr(pytest.mark, tier))
        for name in STEPS
        for tier in ["slow" if name in ("arrays", "repeated") else "nightly"]
    ],
)
def test_steps_are_those_of_keras(tmp_path, name):
    make, given = STEPS[name]
    fit = {"validation_data": VALIDATION, "epochs": 4, "batch_size": 16, "shuffle": False, **given}
    per_execution = fit.pop("executions", 1)

    def compiled(hp):
        model = bare(hp)
        rate = keras.optimizers.schedules.CosineDecay(hp.Choice("rate", [0.1, 0.05]), 8)
        model.compile(keras.optimizers.SGD(rate), "mse", steps_per_execution=per_execution)
        return model

    tuner = tuner_of(compiled, tmp_path, 3)
    tuner.search(*make(), **fit, verbose=0)
    for number, (hp, score) in enumerate(values_of(tuner)):
        expected = compiled(hp).fit(*make(), verbose=0, **fit).history
        (history,) = TrialRecord.read(tuner.get_trial_dir(str(number))).histories
        for metric, values in expected.items():
            np.testing.assert_allclose(history[metric], values, rtol=1e-4)
        assert score == pytest.approx(min(expected["val_loss"]), rel=1e-4)
    best = tuner.get_best_models()[0]
    held_out = fit["validation_data"]
    held_out = held_out if isinstance(held_out, tuple) else (held_out, None)
    evaluated = best.evaluate(
        *held_out, batch_size=fit["batch_size"], steps=fit.get("validation_steps"), verbose=0
    )
    assert evaluated == pytest.approx(min(score for _, score in values_of(tuner)), rel=1e-4)


def test_no_epoch_is_no_trial(tmp_path):
    tuner = tuner_of(build, tmp_path, 1)
    with pytest.raises(ValueError, match="`initial_epoch` must be below `epochs`"):
        tuner.search(*TRAIN, validation_data=VALIDATION, epochs=2, initial_epoch=2, verbose=0)


@pytest.mark.slow
def test_a_metric_of_some_epochs(tmp_path, eager):
    class Probe(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            if epoch % 2:
                logs["probe"] = float(epoch)

    for engine in ("population", "sequential"):
        tuner = tuner_of(build, tmp_path / engine, 1, engine=engine)
        fit = {"validation_data": VALIDATION, "epochs": 4, "callbacks": [Probe()], "verbose": 0}
        tuner.search(*TRAIN, **fit)
        record = TrialRecord.read(tuner.get_trial_dir("0"))
        assert record.histories[0]["probe"] == [1.0, 3.0]
        assert record.logged_epochs == [{"probe": [1, 3]}]
        assert record.best_epoch == 1 + int(np.argmin(record.histories[0]["val_loss"]))


# ---- functions of hp -----------------------------------------------------------------------


def for_tune(hp):
    start = keras.initializers.Constant(0.3)
    layers = [keras.Input((3,)), keras.layers.Dense(1, kernel_initializer=start)]
    return kregs.compile_model(keras.Sequential(layers), "mse", learning_rate=0.05)


def rows_a_step(hp):
    return hp.Choice("rows", [16, 48])


def twice_n(hp):
    return 2 * hp.Int("n", 1, 2)


SEARCH = {
    "epochs": twice_n, "batch_size": rows_a_step, "oracle": "grid", "callbacks": [], "verbose": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return kregs.tune(for_tune, X, Y, **SEARCH, engine="population", directory=folder)


def test_batch_size_and_epochs_are_searched(searched):
    assert set(searched.best_hyperparameters) == {"rows", "n"}
    assert searched.trained == "4 trials: all stacked"
    trials = searched.trials()
    assert len(trials) == 4
    records = json.loads(Path(searched.path, "result.json").read_text())["trials"]
    arguments = {trial["trial"]: trial["arguments"] for trial in records}
    for trial in trials.itertuples():
        assert len(searched.history(trial.trial)) == 2 * trial.n
        assert arguments[trial.trial] == {"batch_size": trial.rows, "epochs": 2 * trial.n}
    assert (searched.protocol.epochs, searched.protocol.batch_size) == (FUNCTION, FUNCTION)
    assert "batch_size=batch_size,  # yours: a function of hp" in searched.protocol.call()
    # the functions are gone: the trial's batch size is not
    loaded = kregs.load_result(searched.path, build=for_tune)
    steps = loaded.refit(X, Y, epochs=3, verbose=0).optimizer.iterations
    assert int(steps) == 3 * math.ceil(60 / searched.best_hyperparameters["rows"])


def test_they_are_searched_one_by_one_too(searched, tmp_path, eager):
    search = {**SEARCH, "directory": tmp_path, "max_trials": 1, "engine": "sequential"}
    alone = kregs.tune(for_tune, X, Y, **search)
    first = searched.trials().set_index("trial").loc[0]
    assert alone.trials()["score"][0] == pytest.approx(first["score"], rel=1e-4)
    assert len(kregs.tune(for_tune, X, Y, **search, resume=True).trials()) == 1
    with pytest.raises(ValueError, match=r"Expected batch_size: function of hp. Received: 8"):
        kregs.tune(for_tune, X, Y, **search | {"batch_size": 8}, resume=True)


def raises(hp):
    return hp.get("no such name")


@pytest.mark.parametrize(
    ("argument", "error", "words"),
    [
        ({"epochs": lambda hp: "a"}, TypeError, "`epochs` must be .*function that returned 'a'"),
        ({"batch_size": lambda hp: 0}, ValueError, "`batch_size` must be .* that returned 0"),
        ({"batch_size": lambda hp: 2.5}, TypeError, "`batch_size` must be .* that returned 2.5"),
        ({"batch_size": raises}, KeyError, "no such name"),
        ({"batch_size": "32"}, TypeError, "`batch_size` must be .* or a function of hp"),
        ({"epochs": twice_n, "oracle": "hyperband"}, ValueError, "`epochs` .* with Hyperband"),
        ({"epochs": lambda hp: 2, "workers": 2}, TypeError, "`epochs` .* no lambda"),
    ],
)
def test_bad_functions(tmp_path, argument, error, words):
    with pytest.raises(error, match=words) as raised:
        kregs.tune(for_tune, X, Y, directory=tmp_path, verbose=0, **argument)
    if error is KeyError:
        assert raised.value.__notes__ == ["`batch_size`, a function of hp, raised this"]
    assert not list(tmp_path.iterdir())


def test_a_dataset_makes_its_own_batches(tmp_path):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(TRAIN).batch(10)
    with pytest.raises(ValueError, match="`batch_size` must be left out with a dataset"):
        kregs.tune(for_tune, data, validation_data=data, batch_size=rows_a_step, directory=tmp_path)
