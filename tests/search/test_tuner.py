"""PopulationTuner: keras-tuner's tuner, its trials trained together."""

import copy
import sys
import warnings

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras import callbacks as C
from keras import layers
from scipy.stats import spearmanr
from sklearn.datasets import load_digits

import kregs
from kregs.population import NotStackable, StackedLayer, register
from kregs.search import PopulationTuner, SequentialFallback

X, Y = load_digits(return_X_y=True)
X = (X / 16.0).astype("float32")
TRAIN, VALIDATION = (X[:300], Y[:300]), (X[300:500], Y[300:500])


def build(hp):
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(
                16,
                "relu",
                kernel_regularizer=keras.regularizers.L2(
                    hp.Float("l2", 1e-6, 1e-1, sampling="log")
                ),
            ),
            layers.Dropout(hp.Float("dropout", 0.0, 0.6)),
            layers.Dense(10, "softmax"),
        ]
    )
    optimizer = keras.optimizers.Adam(hp.Float("learning_rate", 1e-4, 1e-2, sampling="log"))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def search(tuner, **fit):
    fit = {"validation_data": VALIDATION, "epochs": 2, "verbose": 0, **fit}
    with warnings.catch_warnings():
        warnings.simplefilter("error", SequentialFallback)
        tuner.search(*TRAIN, **fit)
    return tuner


def completed(tuner):
    return [t for t in tuner.oracle.trials.values() if t.status == "COMPLETED"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished search of four trials; do not write into it."""
    directory = tmp_path_factory.mktemp("whole")
    return search(
        PopulationTuner(build, "val_loss", 4, seed=1, directory=directory, project_name="p")
    )


@pytest.mark.parametrize(
    ("oracle", "arguments", "count"),
    [
        ("random", {"max_trials": 3}, 3),
        # the last two are proposed by the model of the others
        ("bayesian", {"max_trials": 4, "num_initial_points": 2, "max_members": 2}, 4),
        ("hyperband", {"max_epochs": 2, "factor": 2}, None),
        ("grid", {"max_trials": 3}, 3),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_all_oracles(tmp_path, oracle, arguments, count):
    tuner = PopulationTuner(
        build, "val_accuracy", oracle=oracle, seed=1, directory=tmp_path, **arguments
    )
    search(tuner)
    trials = completed(tuner)
    assert len(trials) == len(tuner.oracle.trials)
    if count is not None:
        assert len(trials) == count
    else:
        epochs = [t.hyperparameters.values["tuner/epochs"] for t in trials]
        earlier = [t for t in trials if t.hyperparameters.values.get("tuner/trial_id")]
        assert max(epochs) == 2
        assert earlier
    best = tuner.oracle.get_best_trials()[0]
    score = tuner.get_best_models()[0].evaluate(*VALIDATION, verbose=0, return_dict=True)
    assert score["accuracy"] == pytest.approx(best.score, abs=1e-6)


def build_of_depth(hp):
    """What is met only where another hyperparameter has some value, as in keras-tuner's guides."""
    model = keras.Sequential([keras.Input((64,))])
    for i in range(hp.Int("layers", 1, 3)):
        model.add(layers.Dense(hp.Int(f"units_{i}", 4, 40, step=4), "relu"))
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(hp.Float("rate", 0.0, 0.5, step=0.25)))
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def build_of_few(hp):
    model = keras.Sequential([keras.Input((64,))])
    for i in range(hp.Int("layers", 1, 2)):
        model.add(layers.Dense(hp.Choice(f"units_{i}", [4, 8, 12]), "relu"))
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


DEPTHS = {
    # with keras-tuner's to compare with
    "random": (build_of_depth, keras_tuner.RandomSearch, {"max_trials": 6}),
    "grid": (build_of_few, keras_tuner.GridSearch, {"max_trials": 20}),
    "hyperband": (build_of_depth, None, {"max_epochs": 4, "factor": 2}),
}


@pytest.mark.parametrize(
    "oracle",
    [
        pytest.param(oracle, marks=pytest.mark.slow if oracle == "random" else pytest.mark.nightly)
        for oracle in DEPTHS
    ],
)
def test_hyperparameters_that_others_lead_to_are_proposed_as_by_keras_tuner(tmp_path, oracle):
    build, theirs, arguments = DEPTHS[oracle]
    kinds = {"ours": lambda **given: PopulationTuner(oracle=oracle, **given), "theirs": theirs}
    proposed = {}
    for name, kind in kinds.items():
        if kind is None:
            continue
        tuner = kind(
            hypermodel=build, objective="val_accuracy", seed=3,
            directory=tmp_path / name, **arguments,
        )  # fmt: skip
        search(tuner, epochs=1)
        proposed[name] = [
            {
                name: value
                for name, value in trial.hyperparameters.values.items()
                if not name.startswith("tuner/")
                # of a grid, what does not act is not compared
                and (oracle != "grid" or name != "units_1" or trial.hyperparameters["layers"] > 1)
            }
            for trial in completed(tuner)
            if not trial.hyperparameters.values.get("tuner/initial_epoch")
        ]
    if oracle == "grid":
        points = {
            name: {tuple(sorted(values.items())) for values in each}
            for name, each in proposed.items()
        }
        assert points["ours"] == points["theirs"]
        assert len(points["ours"]) == 3 + 3 * 3
    elif oracle == "random":
        assert proposed["ours"] == proposed["theirs"]
    deep = [values for values in proposed["ours"] if values["layers"] > 1]
    assert len({values["units_1"] for values in deep}) > 1


def test_a_finished_directory_reloads_in_plain_keras_tuner(whole):
    directory = whole.project_dir.removesuffix("/p")
    plain = keras_tuner.RandomSearch(
        build, "val_loss", 4, seed=1, directory=directory, project_name="p"
    )
    ours, theirs = whole.oracle.get_best_trials(4), plain.oracle.get_best_trials(4)
    assert [t.score for t in ours] == [t.score for t in theirs]
    model = plain.get_best_models()[0]
    assert model.evaluate(*VALIDATION, verbose=0)[0] == pytest.approx(theirs[0].score, rel=1e-5)
    assert plain.get_best_hyperparameters()[0].values == ours[0].hyperparameters.values


def test_a_stopped_search_goes_on(whole, tmp_path):
    class Stop(Exception):
        pass

    tuner = PopulationTuner(build, "val_loss", 4, seed=1, max_members=2, directory=tmp_path)
    ended = []
    tuner.on_trial_end = lambda trial, end=tuner.on_trial_end: (ended.append(trial), end(trial))
    report = tuner.oracle.end_trial

    def end_trial(trial):
        if len(ended) > 2:
            raise Stop
        report(trial)

    tuner.oracle.end_trial = end_trial
    with pytest.raises(Stop):
        search(tuner)
    again = PopulationTuner(build, "val_loss", 4, seed=1, max_members=2, directory=tmp_path)
    before = {t.trial_id: t.score for t in completed(again)}
    assert len(before) == 2
    search(again)
    assert len(completed(again)) == 4
    assert {t.trial_id: t.score for t in completed(again) if t.trial_id in before} == before
    scores = {t.trial_id: t.score for t in completed(whole)}
    for trial in completed(again):
        assert trial.score == pytest.approx(scores[trial.trial_id], rel=1e-4)


def test_executions_are_members_with_seeds_of_their_own(tmp_path):
    tuner = PopulationTuner(
        build, "val_loss", 2, seed=1, executions_per_trial=3, directory=tmp_path
    )
    search(tuner)
    from kregs.search.storage import TrialRecord

    for trial in completed(tuner):
        record = TrialRecord.read(tuner.get_trial_dir(trial.trial_id))
        bests = [min(history["val_loss"]) for history in record.histories]
        assert len(set(bests)) == 3
        assert trial.score == pytest.approx(np.mean(bests))


def structured(hp):
    """The shape of keras-tuner's own getting-started example, which kregs did not write."""
    model = keras.Sequential()
    model.add(layers.Flatten())
    for i in range(hp.Int("num_layers", 1, 2)):
        model.add(
            layers.Dense(
                units=hp.Int(f"units_{i}", min_value=8, max_value=16, step=8),
                activation=hp.Choice("activation", ["relu", "tanh"]),
            )
        )
    if hp.Boolean("dropout"):
        model.add(layers.Dropout(rate=0.25))
    model.add(layers.Dense(10, activation="softmax"))
    learning_rate = hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log")
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate=learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def test_a_keras_tuner_script_with_only_the_class_changed(tmp_path):
    x = X.reshape(-1, 8, 8)
    y = keras.utils.to_categorical(Y, 10)
    tuner = PopulationTuner(
        hypermodel=structured,
        objective="val_accuracy",
        max_trials=3,
        executions_per_trial=2,
        overwrite=True,
        directory=str(tmp_path),
        project_name="helloworld",
    )
    tuner.search_space_summary()
    with warnings.catch_warnings():
        warnings.simplefilter("error", SequentialFallback)
        tuner.search(x[:300], y[:300], epochs=2, validation_data=(x[300:500], y[300:500]))
    assert len(completed(tuner)) == 3
    names = ("num_layers", "units_0", "activation", "dropout")
    structures = {tuple(t.hyperparameters.get(n) for n in names) for t in completed(tuner)}
    assert len(structures) > 1
    models = tuner.get_best_models(num_models=2)
    models[0].summary()
    tuner.results_summary()
    best = tuner.get_best_hyperparameters(5)[0]
    assert structured(best).compiled


def test_a_diverging_trial_fails_with_the_reason_and_harms_no_other(tmp_path):
    def sometimes_mad(hp):
        model = build(hp)
        if hp.values["dropout"] > 0.3:
            model.optimizer.learning_rate = 1e30
        return model

    tuner = PopulationTuner(
        sometimes_mad, "val_loss", 6, seed=1, max_consecutive_failed_trials=10, directory=tmp_path
    )
    search(tuner)
    statuses = {t.trial_id: t.status for t in tuner.oracle.trials.values()}
    mad = {
        t.trial_id for t in tuner.oracle.trials.values() if t.hyperparameters.get("dropout") > 0.3
    }
    assert 0 < len(mad) < 6
    assert {k for k, status in statuses.items() if status == "FAILED"} == mad
    failed = tuner.oracle.trials[next(iter(mad))]
    assert "loss is" in failed.message


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(10, "softmax")

    def call(self, x):
        return self.head(x)


def unstackable(hp):
    model = Subclassed()
    model(np.zeros((1, 64)))
    optimizer = keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1e-1))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def two_inputs(hp):
    inputs = [keras.Input((64,)), keras.Input((64,))]
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.Add()(inputs)))
    optimizer = keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1e-1))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


FALLBACKS = {
    "model": (unstackable, {}, "is a Subclassed; only Sequential and Functional"),
    "callback": (
        build,
        {"callbacks": [C.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]},
        "LambdaCallback has on_train_batch_end",
    ),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_what_cannot_be_stacked_is_trained_one_by_one_and_said(tmp_path, name):
    model, fit, message = FALLBACKS[name]
    tuner = PopulationTuner(model, "val_loss", 2, seed=1, directory=tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SequentialFallback)
        tuner.search(*TRAIN, validation_data=VALIDATION, epochs=2, verbose=0, **copy.copy(fit))
    reasons = [str(w.message) for w in said if w.category is SequentialFallback]
    assert len(reasons) == 1
    assert message in reasons[0]
    assert len(completed(tuner)) == 2
    strict = PopulationTuner(
        model, "val_loss", 2, engine="population", directory=tmp_path / "strict"
    )
    with pytest.raises(NotStackable, match=message):
        strict.search(*TRAIN, validation_data=VALIDATION, verbose=0, **copy.copy(fit))


def test_datasets_are_streamed(tmp_path):
    tuner = PopulationTuner(build, "val_loss", 3, seed=1, engine="population", directory=tmp_path)
    train, held = (
        tf.data.Dataset.from_tensor_slices(part).batch(32) for part in (TRAIN, VALIDATION)
    )
    tuner.search(train, validation_data=held, epochs=2, verbose=0)
    best = tuner.oracle.get_best_trials()[0]
    score = tuner.get_best_models()[0].evaluate(held, verbose=0, return_dict=True)
    assert score["loss"] == pytest.approx(best.metrics.get_last_value("val_loss"), rel=1e-4)


def test_several_inputs_are_stacked(tmp_path):
    tuner = PopulationTuner(
        two_inputs, "val_loss", 2, seed=1, engine="population", directory=tmp_path
    )
    held = [VALIDATION[0]] * 2, VALIDATION[1]
    tuner.search([TRAIN[0]] * 2, TRAIN[1], validation_data=held, epochs=1, verbose=0)
    best = tuner.oracle.get_best_trials()[0]
    score = tuner.get_best_models()[0].evaluate(*held, verbose=0)
    assert score == pytest.approx(best.metrics.get_last_value("val_loss"), rel=1e-4)


def test_tensorboard_with_hparams(tmp_path):
    logs = tmp_path / "logs"
    tuner = PopulationTuner(build, "val_loss", 2, seed=1, directory=tmp_path)
    search(tuner, callbacks=[keras.callbacks.TensorBoard(logs)])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for trial in ("0", "1"):
        events = EventAccumulator(str(logs / trial / "execution0" / "validation")).Reload()
        assert "epoch_loss" in events.Tags()["tensors"]
        hparams = EventAccumulator(str(logs / trial / "execution0")).Reload()
        assert "_hparams_/session_start_info" in hparams.summary_metadata


def test_bad_arguments(tmp_path):
    with pytest.raises(TypeError, match="max_trial"):
        PopulationTuner(build, "val_loss", max_trial=3, directory=tmp_path)
    with pytest.raises(ValueError, match="'bayesian'"):
        PopulationTuner(build, "val_loss", oracle="bayes", directory=tmp_path)
    with pytest.raises(ValueError, match="max_members"):
        PopulationTuner(build, "val_loss", max_members=0, directory=tmp_path)


def test_tune_uses_the_engine_and_says_so(tmp_path):
    arguments = {"max_trials": 4, "epochs": 3, "directory": tmp_path, "verbose": 0}

    def data_loss_build(hp):
        model = build(hp)
        return kregs.compile_model(model, "sparse_categorical_crossentropy")

    result = kregs.tune(data_loss_build, *TRAIN, engine="population", **arguments)
    assert len(result.trials()) == 4
    assert result.best_model().predict(X[:3], verbose=0).shape == (3, 10)


@pytest.mark.nightly
def test_the_same_search_as_keras_tuner(tmp_path):
    """The rank correlation with keras-tuner is that of keras-tuner with itself."""
    values = []
    scores = {}
    fit = {"validation_data": VALIDATION, "epochs": 8, "verbose": 0}
    tuner = PopulationTuner(build, "val_loss", 64, seed=3, directory=tmp_path / "ours")
    tuner.search(*TRAIN, **fit)
    trials = sorted(completed(tuner), key=lambda t: t.trial_id)
    values = [t.hyperparameters for t in trials]
    scores["ours"] = [t.score for t in trials]
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        own = []
        for hp in values:
            history = build(hp).fit(*TRAIN, **fit).history
            own.append(min(history["val_loss"]))
        scores[seed] = own
    itself = spearmanr(scores[1], scores[2]).statistic
    with_ours = spearmanr(scores["ours"], scores[1]).statistic
    assert with_ours >= itself - 0.03


def test_checkpoints_filled_in_are_those_that_keras_writes(tmp_path):
    from kregs.search.checkpoints import CheckpointWriter

    def made(seed):
        keras.utils.set_random_seed(seed)
        hp = keras_tuner.HyperParameters()
        hp.Fixed("learning_rate", 10.0**-seed)
        return build(hp)

    first, second = made(2), made(3)
    variables = [*first.weights, *first.optimizer.variables]
    writer = CheckpointWriter(first, variables)
    assert writer._paths is not None
    before = first.get_weights()
    own = [*second.weights, *second.optimizer.variables]
    writer.write(tmp_path / "a.weights.h5", second, own, [v.value.numpy() for v in own])
    for ours, kept in zip(first.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, kept)
    loaded = made(4)
    loaded.load_weights(tmp_path / "a.weights.h5")
    for one, other in zip(loaded.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert float(loaded.optimizer.learning_rate.numpy()) == pytest.approx(1e-3)


def test_what_shows_only_in_training_is_trained_one_by_one(tmp_path):
    class Unfit(layers.Identity):
        pass

    @register(Unfit)
    class StackedUnfit(StackedLayer):
        def call(self, x, *, context):
            raise NotStackable("found out in the first step")

    def build_unfit(hp):
        model = keras.Sequential([keras.Input((64,)), Unfit(), layers.Dense(10, "softmax")])
        optimizer = keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1e-1))
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    tuner = PopulationTuner(build_unfit, "loss", 2, seed=1, directory=tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SequentialFallback)
        tuner.search(*TRAIN, epochs=1, verbose=0)
    assert any("found out in the first step" in str(w.message) for w in said)
    assert len(completed(tuner)) == 2


def build_for_text(hp):
    words = layers.TextVectorization(20, output_sequence_length=4, vocabulary=["good", "bad"])
    model = keras.Sequential([keras.Input((), dtype="string"), words, layers.Embedding(20, 4)])
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(1, "sigmoid"))
    rate = hp.Float("learning_rate", 1e-2, 1e-1)
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def test_the_best_model_in_mixed_precision_is_loaded_without_a_word(tmp_path):
    """Warnings are errors here; the momenta are left out of a checkpoint."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        tuner = search(PopulationTuner(build, "val_loss", 1, seed=1, directory=tmp_path))
        (model,) = tuner.get_best_models()
        score = tuner.oracle.get_best_trials()[0].score
        assert model.evaluate(*VALIDATION, verbose=0)[0] == pytest.approx(score, rel=1e-3)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")  # which Keras says of datasets
@pytest.mark.parametrize("as_dataset", [False, True])
def test_text_is_trained_one_by_one(tmp_path, as_dataset):
    x, y = tf.constant(["a good one", "a bad one"] * 16), np.array([1, 0] * 16)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    tuner = PopulationTuner(build_for_text, "val_accuracy", 2, seed=1, directory=tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", SequentialFallback)
        fit = {"epochs": 3, "verbose": 0, "validation_data": data if as_dataset else (x, y)}
        tuner.search(*([data] if as_dataset else [x, y]), **fit)
    assert any("the data hold text" in str(warning.message) for warning in said)
    best = tuner.get_best_models()[0].evaluate(data, verbose=0, return_dict=True)
    assert best["accuracy"] == tuner.oracle.get_best_trials()[0].score


def test_what_build_prints_is_shown_and_output_is_left_alone(tmp_path, capsys):
    def build_and_print(hp):
        print("built")
        return build(hp)

    output = sys.stdout
    arguments = {"objective": "val_loss", "max_trials": 1, "seed": 1, "directory": tmp_path}
    PopulationTuner(build_and_print, **arguments).save()
    assert "built" in capsys.readouterr().out
    PopulationTuner(build_and_print, **arguments)  # which keras-tuner says to reload
    assert "Reloading" not in capsys.readouterr().out
    assert sys.stdout is output


def test_several_objectives(tmp_path):
    goals = [keras_tuner.Objective("val_loss", "min"), keras_tuner.Objective("val_accuracy", "max")]
    tuner = search(PopulationTuner(build, goals, 2, seed=1, directory=tmp_path))
    for trial in completed(tuner):
        metrics = {m: trial.metrics.get_last_value(m) for m in ("val_loss", "val_accuracy")}
        assert trial.score == pytest.approx(metrics["val_loss"] - metrics["val_accuracy"])


def test_strict_is_a_deprecated_name(tmp_path):
    with pytest.warns(DeprecationWarning, match="engine='population'"):
        tuner = PopulationTuner(unstackable, "val_loss", 1, strict=True, directory=tmp_path)
    with pytest.raises(NotStackable, match="Subclassed"):
        tuner.search(*TRAIN, validation_data=VALIDATION, verbose=0)
