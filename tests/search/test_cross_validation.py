"""`kregs.tune` by cross-validation: both engines, against Keras's `fit` on each fold."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold, ShuffleSplit, TimeSeriesSplit
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import kregs
from kregs.search.data import prepare_data

X, Y = load_digits(return_X_y=True)
X, Y = (X[:240] / 16).astype("float32"), Y[:240]
SPLITTER = KFold(3, shuffle=True, random_state=0)
EPOCHS = 4


def build(hp):
    l2 = hp.Float("l2", 1e-6, 1e-1, sampling="log")
    kernel = keras.initializers.GlorotUniform(seed=3)
    regularizer = keras.regularizers.L2(l2)
    dense = keras.layers.Dense(
        10, "softmax", kernel_initializer=kernel, kernel_regularizer=regularizer
    )
    model = keras.Sequential([keras.Input((64,)), dense])
    return kregs.compile_model(
        model, "sparse_categorical_crossentropy", optimizer="sgd", learning_rate=0.5
    )


def tune(path, build=build, x=X, y=Y, **changes):
    # one batch an epoch: engines may order the rows as they like
    arguments = {
        "folds": SPLITTER,
        "max_trials": 2,
        "epochs": EPOCHS,
        "batch_size": 240,
        "callbacks": [],
    }
    return kregs.tune(build, x, y, directory=path, verbose=0, **{**arguments, **changes})


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return tune(tmp_path_factory.mktemp("folds"), engine="population")


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """A search of one trial in which one class counts for more."""
    path = tmp_path_factory.mktemp("heavy")
    return tune(path, engine="population", max_trials=1, epochs=2, class_weight={3: 5.0})


@pytest.mark.nightly
def test_folds_are_what_fit_makes_of_them(result):
    for trial in (0, 1):
        history = result.history(trial)
        for fold, (train, held) in enumerate(SPLITTER.split(X)):
            model = build(result.hyperparameters(trial))
            own = model.fit(
                X[train], Y[train], validation_data=(X[held], Y[held]), epochs=EPOCHS,
                batch_size=240, verbose=0,
            ).history  # fmt: skip
            ours = history[history["fold"] == fold]
            assert ours["epoch"].tolist() == list(range(1, EPOCHS + 1))
            for name in ("loss", "val_data_loss"):
                np.testing.assert_allclose(ours[name], own[name], rtol=1e-4)
        scores = result.scores(trial)
        assert result.trials().set_index("trial").loc[trial, "score"] == pytest.approx(
            scores["score"].mean()
        )


def test_engines_agree(result, tmp_path):
    sequential = tune(tmp_path, engine="sequential")
    one, other = (
        r.trials().sort_values("trial").reset_index(drop=True) for r in (result, sequential)
    )
    np.testing.assert_allclose(one["score"], other["score"], rtol=1e-4)
    np.testing.assert_allclose(one["standard_error"], other["standard_error"], rtol=1e-3)
    assert one["best_epoch"].tolist() == other["best_epoch"].tolist()
    ours, theirs = result.best_model(), sequential.best_model()
    np.testing.assert_allclose(
        ours.predict(X, verbose=0), theirs.predict(X, verbose=0), rtol=1e-3, atol=1e-5
    )


def test_the_model_is_trained_on_all_rows(result):
    hp = result.hyperparameters()
    model = build(hp)
    model.fit(X, Y, epochs=result.best_epoch, batch_size=240, verbose=0)
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(result.best_model().predict(X, verbose=0), expected, atol=1e-5)
    saved = keras.models.load_model(result.path / "best.keras")
    np.testing.assert_allclose(saved.predict(X, verbose=0), expected, atol=1e-5)
    assert isinstance(result.compare(0, 1).p_value, float)


class Halves(keras.callbacks.Callback):
    """Keras's own evaluation of two halves after every epoch."""

    def __init__(self, x, y, halves):
        super().__init__()
        self.parts = [(x[half], y[half]) for half in halves]
        self.curves = [[], []]

    def on_epoch_end(self, epoch, logs=None):
        for curve, part in zip(self.curves, self.parts, strict=True):
            logs = self.model.evaluate(*part, verbose=0, return_dict=True)
            curve.append(logs["data_loss"])


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["population", "sequential"])
@pytest.mark.parametrize(
    ("folds", "preprocess"),
    [
        (ShuffleSplit(3, test_size=0.4, random_state=1), StandardScaler()),
        (TimeSeriesSplit(2), None),
    ],
    ids=["overlapping", "time"],
)
def test_halves_of_a_fold_choose_the_epoch_for_one_another(tmp_path, eager, engine, folds,
                                                           preprocess):  # fmt: skip
    y = np.random.default_rng(0).permutation(Y)  # nothing to learn: the last epoch is not the best
    few = {"max_trials": 1, "epochs": 3, "folds": folds, "preprocess": preprocess}
    result = tune(tmp_path, y=y, engine=engine, **few)
    assert result.protocol.epoch_chosen_on == "the other half"
    data = prepare_data(
        X, y, validation_data=None, validation_split=0.2, sample_weight=None, seed=0, folds=folds,
        model=build(keras_tuner.HyperParameters()),
    )  # fmt: skip
    for fold, (train, held) in enumerate(folds.split(X)):
        halves = data.splits[fold].halves
        assert sorted(np.concatenate(halves)) == list(range(len(held)))
        scaler = StandardScaler().fit(X[train])
        rows, held_rows = (scaler.transform(X[k]) if preprocess else X[k] for k in (train, held))
        model, own = build(result.hyperparameters(0)), Halves(held_rows, y[held], halves)
        model.fit(rows, y[train], epochs=3, batch_size=240, callbacks=[own], verbose=0)
        a, b = (np.array(curve) for curve in own.curves)
        score = np.average([a[b.argmin()], b[a.argmin()]], weights=[len(h) for h in halves])
        assert result.scores(0)["score"][fold] == pytest.approx(score, rel=1e-4)


def test_no_rows_are_copied():
    model = build(keras_tuner.HyperParameters())
    data = prepare_data(
        X, Y, validation_data=None, validation_split=0.2, sample_weight=None, seed=0, model=model,
        folds=5,
    )  # fmt: skip
    assert data.fit["x"] is X
    assert len(data.splits) == 5


def test_seeds_are_runs_too(tmp_path):
    result = tune(tmp_path, seeds=2, max_trials=1, epochs=2, batch_size=32)
    assert len(result.scores(0)) == 6
    assert set(result.history(0)["seed"]) == {0, 1}
    assert result.trials()["standard_error"].notna().all()


@pytest.mark.nightly
def test_sample_and_class_weights_reach_the_folds(result, heavy, tmp_path):
    def curve(search):
        history = search.history(0)
        return history[history["epoch"] <= 2]["val_data_loss"].to_numpy()

    few = {"max_trials": 1, "epochs": 2}
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    sampled, other = (
        tune(tmp_path / engine, engine=engine, sample_weight=weight, **few)
        for engine in ("population", "sequential")
    )
    sequential = tune(tmp_path / "heavy", engine="sequential", class_weight={3: 5.0}, **few)
    np.testing.assert_allclose(curve(sampled), curve(other), rtol=1e-4)
    np.testing.assert_allclose(curve(heavy), curve(sequential), rtol=1e-4)
    assert sampled.best_score == pytest.approx(other.best_score, rel=1e-4)
    assert heavy.best_score == pytest.approx(sequential.best_score, rel=1e-4)
    for weighted in (sampled, heavy):  # the same trial without weights
        assert (np.abs(curve(weighted) / curve(result) - 1) > 1e-4).all()


@pytest.mark.parametrize("folds", [3, None])
def test_raw_tables_are_prepared_inside_the_folds(tmp_path, folds):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(5, 2, 120), "kind": np.tile(list("abc"), 40)})
    y = (frame["size"] > 5).to_numpy().astype(int)

    def build_table(hp):
        layer = keras.layers.Dense(2, "softmax")
        model = keras.Sequential([keras.Input((4,)), layer])
        rate = hp.Float("learning_rate", 1e-2, 1e-1)
        return kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=rate)

    encoder = ColumnTransformer(
        [("numbers", StandardScaler(), ["size"]), ("kinds", OneHotEncoder(), ["kind"])]
    )
    result = tune(
        tmp_path, build_table, frame, y, folds=folds, preprocess=encoder, max_trials=2, epochs=3,
        batch_size=16,
    )  # fmt: skip
    model = result.refit(frame, y)
    fitted = result.preprocess_
    assert fitted.named_transformers_["numbers"].mean_ == pytest.approx(frame["size"].mean())
    assert model.predict(fitted.transform(frame), verbose=0).shape == (120, 2)
    assert not hasattr(encoder, "transformers_")  # the caller's own is not fitted


@pytest.mark.parametrize("engine", ["population", "sequential"])
def test_hyperband_goes_on_in_the_same_fold(tmp_path, eager, engine):
    oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=2, factor=2, seed=1)
    result = tune(
        tmp_path, oracle=oracle, engine=engine, max_trials=None, epochs=2, folds=KFold(2),
        batch_size=60,
    )  # fmt: skip
    states = [
        json.loads(path.read_text())["hyperparameters"]["values"]
        for path in sorted(result.path.glob("trial_*/trial.json"))
    ]
    promoted = [(k, v) for k, v in enumerate(states) if "tuner/trial_id" in v]
    assert promoted
    for number, values in promoted:
        earlier, later = result.history(int(values["tuner/trial_id"])), result.history(number)
        for fold in range(2):
            before, after = (h[h["fold"] == fold] for h in (earlier, later))
            assert after["epoch"].min() == values["tuner/initial_epoch"] + 1
            # it goes on: no jump back to the loss of fresh weights
            assert after["loss"].iloc[0] < before["loss"].iloc[0]
            assert after["loss"].iloc[0] < 1.05 * before["loss"].min()


@pytest.mark.nightly
@pytest.mark.parametrize("folds", [None, KFold(2)], ids=["split", "folds"])
def test_hyperband_keeps_no_more_weights_than_it_is_told_to(tmp_path, folds):
    few = {"oracle": "hyperband", "epochs": 4, "batch_size": 60, "keep": 2, "folds": folds}
    result = tune(tmp_path, max_trials=3, **few)
    assert len(result.trials()) == 3  # the smallest bracket
    result = tune(tmp_path, max_trials=None, resume=True, **few)  # the other one, too
    assert len(result.trials()) > 3
    kept = {int(p.parent.name.split("_")[1]) for p in result.path.glob("trial_*/*.weights.h5")}
    assert kept == set(result.trials()["trial"][:2])
    assert not list(result.path.glob("trial_*/run_*"))  # no trial can go on any more
    entries = {entry["trial"]: entry for entry in result.record.trials}
    assert any(result.earlier_trial(number) is not None for number in entries)


@pytest.mark.parametrize("engine", ["population", "sequential"])
def test_the_last_epoch_is_scored_where_none_is_to_be_chosen(tmp_path, engine):
    y = np.random.default_rng(0).permutation(Y)  # nothing to learn: the last is not the best
    result = tune(
        tmp_path, y=y, engine=engine, score_at="last_epoch", max_trials=1, epochs=3, batch_size=16
    )
    curves = result.history(0).pivot(index="fold", columns="epoch", values="val_data_loss")
    assert (curves.idxmin(axis=1) < 3).any()
    assert result.scores(0)["epoch"].tolist() == [3, 3, 3]
    np.testing.assert_allclose(result.scores(0)["score"], curves[3])
    assert result.best_epoch == 3


@pytest.mark.nightly
def test_nested_folds_score_the_whole_search(tmp_path):
    outer = KFold(2, shuffle=True, random_state=1)
    few = {"preprocess": StandardScaler(), "folds": 2, "epochs": 3}
    result = tune(tmp_path, nested=outer, **few)
    assert result.nested["fold"].tolist() == [0, 1]
    # the model on all outer training rows is trained once, by whoever scores it
    assert not list((result.path / "nested").rglob("best.keras"))
    assert result.nested["score"].nunique() == 2
    train, held = list(outer.split(X))[1]
    inner = tune(tmp_path / "inner", x=X[train], y=Y[train], **few)
    assert inner.best_hyperparameters["l2"] == pytest.approx(result.nested["l2"][1])
    # trained on all rows of the outer fold
    rows = inner.preprocess_.transform(X[held])
    expected = inner.best_model().evaluate(rows, Y[held], verbose=0, return_dict=True)["data_loss"]
    assert result.nested["score"][1] == pytest.approx(expected, rel=1e-3)
    saved = kregs.load_result(result.path)
    pd.testing.assert_frame_equal(saved.nested, result.nested)
    with pytest.raises(ValueError, match="`nested` and `validation_data`"):
        tune(tmp_path / "bad", nested=2, folds=None, validation_data=(X, Y))
    oracle = keras_tuner.oracles.RandomSearchOracle()
    with pytest.raises(ValueError, match="Oracle object"):
        tune(tmp_path / "bad", nested=2, oracle=oracle, max_trials=None)


def test_the_best_trials_keep_their_weights(tmp_path):
    result = tune(tmp_path, folds=None, validation_split=0.3, max_trials=6, epochs=2, keep=2)
    kept = [n for n in range(6) if (result.path / f"trial_{n}/checkpoint.weights.h5").exists()]
    assert sorted(kept) == sorted(result.trials()["trial"][:2])
    assert len(result.history(int(result.trials()["trial"].iloc[-1]))) == 2


LINEAR = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
SUM = LINEAR.sum(axis=1)


def linear(hp, rate=0.05):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    hp.Choice("a", [1, 2])
    return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=rate)


def test_lists_are_data_too(tmp_path):
    arguments = {"max_trials": 1, "epochs": 2, "sample_weight": [1.0] * 60}
    result = tune(tmp_path, linear, LINEAR.tolist(), SUM.tolist(), **arguments)
    assert result.best_model().predict(LINEAR, verbose=0).shape == (60, 1)


def test_several_outputs_are_divided_by_rows(tmp_path):
    def build(hp):
        inputs = keras.Input((3,))
        outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("one", "two")}
        model = keras.Model(inputs, outputs)
        model.compile("sgd", "mse")
        hp.Choice("a", [1, 2])
        return model

    y = {"one": SUM, "two": -SUM}
    result = tune(
        tmp_path, build, LINEAR, y, folds=2, max_trials=1, epochs=1, objective="val_loss",
        engine="population",
    )  # fmt: skip
    assert result.protocol.data.held_out_share == 1.0
    assert result.protocol.data.rows == 60


def test_a_learning_rate_schedule_reaches_the_training_on_all_rows(tmp_path):
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.05)

    def wild(hp):
        return linear(hp, rate=10.0)

    few = {"max_trials": 1, "epochs": 5, "batch_size": 10}
    result = tune(tmp_path, wild, LINEAR, SUM, callbacks=[schedule], **few)
    assert result.best_model().evaluate(LINEAR, SUM, verbose=0)[0] < 2 * result.best_score
    again = result.refit(LINEAR, SUM).get_weights()
    np.testing.assert_allclose(again[0], result.best_model().get_weights()[0], rtol=1e-4)
    with pytest.warns(UserWarning, match="not finite"):
        result.refit(LINEAR, SUM, epochs=5, batch_size=4, callbacks=[])


class Shrink(keras.callbacks.Callback):
    """Acts on the weights, and watches nothing."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.layers[-1].kernel.assign(0.9 * self.model.layers[-1].kernel)


class HalveOnRise(keras.callbacks.Callback):
    """Watches validation rows, and tells Keras nothing of it."""

    def on_train_begin(self, logs=None):
        self.last = np.inf

    def on_epoch_end(self, epoch, logs=None):
        if logs["val_data_loss"] > 0.8 * self.last:
            self.model.optimizer.learning_rate *= 0.5
        self.last = logs["val_data_loss"]


def averaged(hp):
    """A linear model from zeros whose weights are averaged."""
    kernel = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), kernel])
    hp.Choice("a", [1, 2])
    optimizer = keras.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.7)
    return kregs.compile_model(model, "mse", optimizer=optimizer)


def plain(hp):
    kernel = keras.layers.Dense(1, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((3,)), kernel])
    hp.Choice("a", [1, 2])
    return kregs.compile_model(model, "mse", optimizer="sgd", learning_rate=0.2)


def plateau():
    return keras.callbacks.ReduceLROnPlateau(
        "val_data_loss", factor=0.5, patience=1, min_delta=0.3, mode="min"
    )


REPLAYED = {
    "plateau": (plain, plateau, [], None),
    "plateau and own": (plain, plateau, [Shrink()], None),
    "averages": (averaged, lambda: keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
                 [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)], None),
    "averages and own": (averaged, keras.callbacks.SwapEMAWeights,
                         [keras.callbacks.SwapEMAWeights(), Shrink()], None),
    "watching": (plain, HalveOnRise, [], "HalveOnRise watches 'val_data_loss'"),
}  # fmt: skip


@contextlib.contextmanager
def warned(words):
    """Expect a warning that begins so, or none; others are errors as everywhere."""
    with warnings.catch_warnings(record=True) as said:
        if words is not None:
            warnings.filterwarnings("always", message=words)
        yield
    assert len(said) == (words is not None)


@pytest.mark.parametrize("name", REPLAYED)
def test_the_model_of_all_rows_is_trained_as_those_that_were_judged(tmp_path, eager, name):
    make, watcher, others, warning = REPLAYED[name]
    given = [watcher(), *(c for c in others if isinstance(c, Shrink))]
    with warned(warning):
        result = tune(
            tmp_path, make, LINEAR, SUM + np.sin(9 * SUM), max_trials=1, epochs=5, batch_size=60,
            callbacks=[*given, kregs.early_stopping(patience=5)],
        )  # fmt: skip
    callbacks = [copy.deepcopy(callback) for callback in others]
    if watcher is plateau or watcher is HalveOnRise:
        history = result.history(0)
        folds = history.pivot(index="epoch", columns="fold", values="learning_rate")
        assert folds.loc[5].min() < 0.19
        assert folds.loc[1].tolist() == pytest.approx([0.2] * 3)
        median = folds.median(axis=1)  # of three folds
        assert (folds.nunique(axis=1) > 1).any() or name == "watching"
        callbacks.append(
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: float(median[epoch + 1]))
        )
    keras.utils.set_random_seed(0)
    model = make(result.hyperparameters())
    model.fit(
        LINEAR, SUM + np.sin(9 * SUM), epochs=result.best_epoch, batch_size=60, verbose=0,
        callbacks=callbacks,
    )  # fmt: skip
    for saved, expected in zip(result.best_model().get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(saved, expected, rtol=1e-4, atol=1e-6)
    assert result.best_epoch > 1
    # the rates are on disk; callbacks are not
    loaded = kregs.load_result(result.path, build=make, callbacks=given)
    with warned(warning):
        again = loaded.refit(LINEAR, SUM + np.sin(9 * SUM), batch_size=60)
    np.testing.assert_allclose(again.get_weights()[0], model.get_weights()[0], rtol=1e-4)
    if name == "plateau":
        forgotten = kregs.load_result(result.path, build=make).refit(
            LINEAR, SUM + np.sin(9 * SUM), batch_size=60
        )
        np.testing.assert_allclose(forgotten.get_weights()[0], again.get_weights()[0], rtol=1e-5)


def test_a_trial_is_kept_with_the_averages_that_it_was_judged_by(tmp_path, eager):
    few = {"max_trials": 1, "epochs": 4, "batch_size": 20, "score_at": "last_epoch"}
    rows = {"folds": None, "validation_data": (LINEAR[:20], SUM[:20])}
    callbacks = [keras.callbacks.SwapEMAWeights()]
    result = tune(tmp_path, averaged, LINEAR, SUM, callbacks=callbacks, **rows, **few)
    logs = result.best_model().evaluate(LINEAR[:20], SUM[:20], verbose=0, return_dict=True)
    assert logs["data_loss"] == pytest.approx(result.best_score, rel=1e-5)


@pytest.mark.nightly
def test_the_model_of_an_earlier_choice_is_not_left(tmp_path, monkeypatch):
    tune(tmp_path, max_trials=1, epochs=1)
    assert (tmp_path / "search" / "best.keras").exists()
    with monkeypatch.context() as patched:
        patched.setattr(kregs.SearchResult, "refit", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(tmp_path, max_trials=2, epochs=1, resume=True)
    partial = kregs.load_result(tmp_path / "search", build=build)
    with pytest.raises(ValueError, match="before its model was trained on all rows"):
        partial.best_model()


def test_transformers_of_folds_make_no_ensemble(tmp_path):
    result = tune(tmp_path, preprocess=StandardScaler(), max_trials=2, epochs=1)
    with pytest.raises(ValueError, match="they make no ensemble"):
        result.ensemble(2)


def test_the_transformer_of_a_single_split_is_kept(tmp_path):
    arguments = {"folds": None, "preprocess": StandardScaler(), "max_trials": 1, "epochs": 1}
    result = tune(tmp_path, **arguments)
    assert result.preprocess_.transform(X).shape == X.shape
    assert (result.path / "preprocessing.joblib").exists()


def test_other_class_weights_or_folds_are_another_search(heavy):
    again = {"max_trials": 1, "epochs": 2, "engine": "population", "resume": True}
    path = heavy.path.parent
    with pytest.raises(ValueError, match="class_weight"):
        tune(path, class_weight={3: 3.0}, **again)
    other = KFold(3, shuffle=True, random_state=1)
    with pytest.raises(ValueError, match="Expected validation: KFold"):
        tune(path, class_weight={3: 5.0}, folds=other, **again)


class Count(keras_tuner.HyperModel):
    """A user's own training, which returns a number."""

    def build(self, hp):
        return linear(hp)

    def fit(self, hp, model, x, y, **kwargs):
        return float(len(x))


def test_a_fit_of_ones_own_sees_its_fold(tmp_path):
    result = tune(tmp_path, Count(), LINEAR, SUM, max_trials=1, objective="val_loss")
    assert result.best_score == 40.0


@pytest.mark.parametrize(
    ("nested", "error", "words"),
    [
        (1, ValueError, "`nested`"),
        ("5", TypeError, "`nested` must be"),
        (2.5, TypeError, "`nested`"),
    ],
)
def test_bad_outer_folds_are_said_before_the_search(tmp_path, nested, error, words):
    with pytest.raises(error, match=words):
        tune(tmp_path, nested=nested)
    assert not list(tmp_path.iterdir())


SEARCH = textwrap.dedent(
    """
    import sys
    import numpy as np
    from sklearn.datasets import load_digits
    import keras, kregs

    x, y = load_digits(return_X_y=True)
    x, y = (x[:400] / 16).astype("float32"), y[:400]

    def build(hp):
        r = kregs.Regularization.from_hp(hp, l2=(1e-6, 1e-1), dropout=(0.0, 0.6))
        model = kregs.mlp((64,), 10, units=(32,), regularization=r)
        return kregs.compile_model(model, "sparse_categorical_crossentropy")

    kregs.tune(
        build, x, y, folds=3, seeds=2, max_trials=int(sys.argv[2]), epochs=int(sys.argv[3]),
        callbacks=[], directory=sys.argv[1], resume=True, verbose=0,
    )
    print("done")
    """
)


def run_search(path, trials, kill_after=None):
    """Run the search in a process of its own; return whether it came to its end."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(path), str(trials), "40"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode == 0, err[-3000:]
    return "done" in out


def table(path):
    frame = kregs.load_result(path / "search").trials().drop(columns="seconds")
    return frame.sort_values("trial").reset_index(drop=True)


def finished(path):
    """The trials that stand on disk as finished."""
    return {p.parent.name for p in path.glob("search/trial_*/training.json")}


def check_kills(path, kills, trials):
    assert run_search(path / "whole", trials)
    began = time.monotonic()
    generator = random.Random(0)
    seen_trials, killed = set(), 0
    while killed < kills:
        if run_search(path / "killed", trials, kill_after=generator.uniform(4.0, 12.0)):
            break
        killed += 1
        now = finished(path / "killed")
        assert seen_trials <= now, "a finished trial was lost"
        seen_trials = now
        for file in (path / "killed").rglob("*.json"):
            json.loads(file.read_text())  # whole, not cut off
    assert killed > 0
    assert run_search(path / "killed", trials)
    one, other = table(path / "whole"), table(path / "killed")
    assert one["trial"].tolist() == other["trial"].tolist()
    pd.testing.assert_frame_equal(one, other, rtol=1e-3)
    return killed, time.monotonic() - began


def search_here(path, trials, monkeypatch):
    """The same search in this process."""
    monkeypatch.setattr(sys, "argv", ["search", str(path), str(trials), "5"])
    exec(compile(SEARCH, "search", "exec"), {"__name__": "__main__"})


KILL = textwrap.dedent(
    """
    import os, signal
    from kregs import PopulationTuner

    ended, on_trial_end = [], PopulationTuner.on_trial_end

    def end(tuner, trial):
        ended.append(trial)
        if len(ended) == 3:  # its files are there, and the oracle does not know of it
            os.kill(os.getpid(), signal.SIGKILL)
        on_trial_end(tuner, trial)

    PopulationTuner.on_trial_end = end
    """
)


@pytest.mark.nightly
def test_a_killed_search_loses_nothing(tmp_path, monkeypatch):
    """One kill, at the worst moment; `test_twenty_kills` kills at any."""
    trials = 5
    run = subprocess.run(
        [sys.executable, "-c", KILL + SEARCH, str(tmp_path / "killed"), str(trials), "5"],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr[-3000:]
    for file in (tmp_path / "killed").rglob("*.json"):
        json.loads(file.read_text())  # whole, not cut off
    states = [json.loads(p.read_text()) for p in tmp_path.glob("killed/search/trial_*/trial.json")]
    ended = [state["trial_id"] for state in states if state["status"] == "COMPLETED"]
    assert len(ended) == 2
    assert len(finished(tmp_path / "killed")) == 3
    records = [tmp_path / f"killed/search/trial_{n}/training.json" for n in ended]
    before = [record.read_bytes() for record in records]

    search_here(tmp_path / "killed", trials, monkeypatch)
    # not trained again: the seconds that it took are the same
    assert [record.read_bytes() for record in records] == before
    search_here(tmp_path / "whole", trials, monkeypatch)
    one, other = table(tmp_path / "whole"), table(tmp_path / "killed")
    assert one["trial"].tolist() == other["trial"].tolist()
    pd.testing.assert_frame_equal(one, other, rtol=1e-3)


@pytest.mark.nightly
def test_twenty_kills(tmp_path):
    killed, seconds = check_kills(tmp_path, 20, 500)
    print(f"{killed} kills, {seconds:.0f} s")
    assert killed == 20
