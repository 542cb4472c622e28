"""A search on a table: the test part, the saved pipeline and what it predicts."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys

import joblib
import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.metrics import accuracy_score, log_loss, r2_score
from sklearn.model_selection import KFold
from sklearn.utils.class_weight import compute_sample_weight

import kregs
from kregs.cli import main
from kregs.search.failures import NothingCompleted
from kregs.tables.holdout import split_rows
from kregs.tables.record import call_of
from kregs.tables.runs import _rows_of_a_fold

QUICK = {"folds": 2, "max_trials": 2, "epochs": 3, "max_time": None, "verbose": 0}


@pytest.fixture(scope="module")
def run(people, eager, tmp_path_factory):
    with eager():
        return kregs.tune_table(
            people(), "y", **QUICK | {"max_trials": 1}, directory=tmp_path_factory.mktemp("runs")
        )


@pytest.mark.slow
def test_a_preset_without_a_search_is_trained_to_its_end(tmp_path, people, monkeypatch):
    monkeypatch.setattr("kregs.tables.runs.search_seconds", lambda rows: 1e-3)
    call = {"folds": 2, "epochs": 2, "ensemble": False, "verbose": 0, "directory": tmp_path}
    run = kregs.tune_table(people(), "y", max_trials=0, **call)
    assert run.search.trials()["status"].tolist() == ["completed"]
    with pytest.raises(NothingCompleted, match="`max_time` must be longer"):
        kregs.tune_table(people(), "y", max_trials=2, project_name="searched", **call)


@pytest.mark.nightly
def test_the_test_part_is_kept_and_scored_once(run):
    assert run.record["rows"] == {"train": 96, "test": 24, "saved_model": 120}
    assert run.scores.index[:2].tolist() == ["network", "HistGradientBoosting"]
    assert {"HistGradientBoosting", "logistic regression"} <= {*run.scores.index}
    assert run.scores.index[-1] == "most frequent class"
    assert (run.search.trials()["status"] == "completed").all()
    protocol = json.loads(run.files["result"].read_text())["protocol"]["data"]
    assert protocol["rows"] == 96
    assert protocol["folds"] == 2


@pytest.mark.slow
def test_the_saved_folder_predicts_what_the_model_in_memory_does(run, people):
    frame = people().drop(columns=["y", "empty"]).replace("unknown", "")
    found = kregs.predict_table(run.search.path, frame[frame.columns[::-1]])
    x = run.search.preprocess_.transform(run.table.features).astype("float32")
    expected = run.search.best_model().predict(x, verbose=0)[:, 0]
    np.testing.assert_allclose(found["probability_yes"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["probability_no"] + found["probability_yes"], 1)
    np.testing.assert_array_equal(found["prediction"] == "yes", expected > 0.5)


@pytest.mark.slow
def test_the_scores_are_those_of_the_networks_that_have_not_seen_the_test_part(run):
    train, test = split_rows(run.table.target, 2, 0.2, 0)
    y = run.table.target
    counts = {m["trial"]: m["networks"] for m in run.record["ensemble"]["members"]}
    assert sum(counts.values()) == 8
    search = copy.copy(run.search)
    model = search.refit_ensemble(run.table.features.iloc[train], y[train], counts=counts)
    x = search.preprocess_.transform(run.table.features.iloc[test]).astype("float32")
    p = model.predict(x, verbose=0)[:, 0]
    logit = np.log(p / (1 - p)) / run.record["calibration"]["temperature"]
    expected = 1 / (1 + np.exp(-logit))
    network = run.record["test"]["network"]
    assert network["accuracy"] == pytest.approx(accuracy_score(y[test], expected > 0.5))
    assert network["log_loss"] == pytest.approx(log_loss(y[test], expected), rel=1e-4)


@pytest.mark.slow
def test_the_saved_model_has_seen_all_rows_and_the_record_says_so(run):
    assert run.record["rows"]["saved_model"] == 120
    saved = joblib.load(run.files["preprocessing"])
    everything = clone(saved).fit(run.table.features)
    centers = [t.named_transformers_["numbers"][-1].center_ for t in (saved, everything)]
    np.testing.assert_array_equal(*centers)
    page = run.files["report"].read_text()
    assert "trained on all 120 rows" in page
    assert "HistGradientBoosting" in page
    assert "Each network had a search of its own" not in page
    run.files["report"].unlink()
    assert main(["report", str(run.search.path)]) == 0
    assert "HistGradientBoosting" in run.files["report"].read_text()


@pytest.mark.slow
def test_the_temperature_is_that_of_the_out_of_fold_predictions(run):
    chosen = run.search.fold_ensemble(8)
    train, _ = split_rows(run.table.target, 2, 0.2, 0)
    y, p = run.table.target[train], chosen.out_of_fold[:, 0]
    found = run.record["calibration"]
    assert found["rows"] == 96
    assert found["log_loss_before"] == pytest.approx(log_loss(y, p), rel=1e-6)
    assert found["log_loss_after"] <= found["log_loss_before"]
    logit = np.log(p / (1 - p))
    for factor, better in ((1.0, True), (0.9, False), (1.1, False)):
        loss = log_loss(y, 1 / (1 + np.exp(-logit / (factor * found["temperature"]))))
        assert (loss <= found["log_loss_after"] + 1e-7) == better
    assert run.record["ensemble"]["out_of_fold"]["val_data_loss"] == pytest.approx(
        log_loss(y, p), rel=1e-4
    )


@pytest.mark.slow
def test_all_files_are_there(run):
    for path in run.files.values():
        assert path.stat().st_size > 0, path
    record = json.loads(run.files["table"].read_text())
    assert record["classes"] == ["no", "yes"]
    assert record["columns"][1]["name"] == "age"
    assert record["versions"]["scikit-learn"]
    keras.models.load_model(run.files["model"])


@pytest.mark.slow
def test_rows_keep_their_index_and_an_identifier(run, people):
    rows = people().drop(columns="y").sample(frac=0.2, random_state=0)
    found = kregs.predict_table(run.search.path, rows, keep=["customer"])
    assert found.index.tolist() == rows.index.tolist()
    assert found["customer"].tolist() == rows["customer"].tolist()
    assert found.columns[0] == "customer"
    alone = kregs.predict_table(run.search.path, rows.iloc[[3]])
    expected = found["probability_yes"].iloc[3]
    np.testing.assert_allclose(alone["probability_yes"], expected, rtol=1e-5)


@pytest.mark.slow
def test_a_broken_network_is_one_clear_error(run, people, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.search.path, folder)
    (folder / "best.keras").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"best\.keras' cannot be read: it is broken"):
        kregs.predict_table(folder, people().assign(age="30"))


@pytest.mark.slow
def test_the_record_says_how_to_repeat_it(run):
    assert run.record["split"] == "at random"
    assert run.record["call"].startswith("kregs.tune_table(\n    data,\n    'y',\n")
    assert "max_trials=1," in run.record["call"]
    assert run.record["categories"]["city"] == ["Bonn", "Köln", "Ulm"]


@pytest.mark.slow
def test_unseen_categories_and_wrong_values(run, people):
    rows = people().iloc[:3].assign(city="Rom", since="soon")
    with (
        pytest.warns(UserWarning, match="'since': 3 of 3 values are no date"),
        pytest.warns(UserWarning, match="'city': 3 of 3 values were never seen.*such as 'Rom'"),
    ):
        found = kregs.predict_table(run.search.path, rows)
    assert found["probability_yes"].between(0, 1).all()
    assert len(kregs.predict_table(run.search.path, people().iloc[:0])) == 0


@pytest.mark.nightly
def test_numbers_are_predicted_in_their_own_units_without_folds_too(tmp_path):
    frame = load_diabetes(as_frame=True).frame
    frame.loc[::9, "bmi"] = np.nan
    run = kregs.tune_table(
        frame, "target", folds=None, max_trials=1, epochs=12, directory=tmp_path, verbose=0
    )
    ensemble = run.record["ensemble"]  # without folds there is nothing to choose by
    assert [m["networks"] for m in ensemble["members"]] == [8]
    assert ensemble["out_of_fold"] is None
    assert run.record["calibration"] is None
    assert run.scores.index[[0, -2, -1]].tolist() == ["network", "ridge regression", "mean"]
    assert run.scores.loc["network", "r2"] > 0.2
    found = kregs.predict_table(run.search.path, frame)
    assert r2_score(frame["target"], found["prediction"]) > 0.3
    assert found.columns.tolist() == ["prediction"]
    # the saved model is one that was trained on all rows but the test's
    x = run.search.preprocess_.transform(run.table.features).astype("float32")
    outputs = keras.models.load_model(run.files["model"]).predict(x, verbose=0)[:, 0]
    units = run.record["target_units"]
    np.testing.assert_allclose(
        found["prediction"], outputs * units["sd"] + units["mean"], rtol=1e-5
    )


@pytest.mark.nightly
def test_classes_are_weighted_if_asked_for(tmp_path):
    x, y = load_breast_cancer(return_X_y=True, as_frame=True)
    keep = np.r_[np.flatnonzero(y == 1)[:240], np.flatnonzero(y == 0)[:30]]
    frame = x[["mean radius", "mean texture", "mean smoothness"]].iloc[keep].assign(y=y.iloc[keep])
    run = kregs.tune_table(
        frame, "y", folds=KFold(2, shuffle=True, random_state=0), max_trials=1, epochs=8,
        class_weight="balanced", metric="balanced_accuracy", ensemble=False,
        directory=tmp_path, verbose=0,
    )  # fmt: skip
    assert run.record["class_weight"] == run.search.protocol.class_weight == "balanced"
    assert run.search.objective == "val_balanced_accuracy"
    assert run.record["ensemble"] is None
    assert run.record["calibration"]["rows"] == run.record["rows"]["train"]
    assert run.scores.loc["network", "balanced_accuracy"] > 0.8
    again = kregs.tune_table(
        frame, "y", folds=KFold(2, shuffle=True, random_state=0), max_trials=1, epochs=8,
        class_weight="balanced", metric="balanced_accuracy", ensemble=False,
        directory=tmp_path, resume=True, verbose=0,
    )  # fmt: skip
    assert again.record["test"] == run.record["test"]


@pytest.mark.parametrize(
    "by_file",
    [pytest.param(False, marks=pytest.mark.nightly), pytest.param(True, marks=pytest.mark.slow)],
)
def test_what_is_saved_knows_the_categories_of_the_test_rows(by_file, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=100), "day": range(100)})
    frame["city"] = np.where(frame["day"] < 80, rng.choice(["Bonn", "Ulm"], 100), "Rom")
    frame["y"] = frame["size"] + (frame["city"] == "Rom")
    rows = {"test_file": frame[80:]} if by_file else {"time": "day"}
    run = kregs.tune_table(
        frame[:80] if by_file else frame, "y", **rows, folds=2, max_trials=1, epochs=1,
        ensemble=False, directory=tmp_path, verbose=0,
    )  # fmt: skip
    assert run.record["rows"]["saved_model"] == 100
    assert run.record["categories"]["city"] == ["Bonn", "Rom", "Ulm"]
    codes = run.search.preprocess_.transform(frame[["size", "day", "city"]].astype({"day": float}))
    assert set(codes[:80, -1]) == {1, 3}
    assert set(codes[80:, -1]) == {2}
    kregs.predict_table(run.search.path, frame[80:])  # without a warning, which is an error here
    with pytest.warns(UserWarning, match="1 of 1 values were never seen in training"):
        kregs.predict_table(run.search.path, frame[:1].assign(city="Köln"))


@pytest.mark.nightly
def test_balanced_classes_count_the_same_in_what_is_chosen(tmp_path):
    rng = np.random.default_rng(0)
    y = (np.arange(200) % 10 == 0).astype(int)
    frame = pd.DataFrame({"a": rng.normal(size=200) + y, "b": rng.normal(size=200), "y": y})
    run = kregs.tune_table(
        frame, "y", folds=2, max_trials=1, epochs=2, class_weight="balanced", ensemble=False,
        directory=tmp_path, verbose=0,
    )  # fmt: skip
    assert run.record["class_weight"] == "balanced"
    assert run.search.objective == "val_data_loss"
    chosen = run.search.fold_ensemble(1)
    train, _ = split_rows(y, 2, 0.2, seed=0)
    y_rows = y[train]
    p = np.hstack([1 - chosen.out_of_fold, chosen.out_of_fold])
    balanced = log_loss(y_rows, p, sample_weight=compute_sample_weight("balanced", y_rows))
    assert chosen.score == pytest.approx(balanced, rel=1e-5)
    assert run.record["calibration"]["log_loss_before"] == pytest.approx(balanced, rel=1e-5)
    assert chosen.score != pytest.approx(log_loss(y_rows, p), rel=0.02)
    # the best epochs of the folds, whose sizes are equal
    by_fold = run.search.history(0).groupby("fold")["val_data_loss"].min()
    assert by_fold.mean() == pytest.approx(balanced, rel=1e-4)


@pytest.mark.nightly
def test_a_real_table_with_injected_gaps_beats_the_guess(tabular, tmp_path):
    x, y, _ = tabular("credit-g")
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])])
    rng = np.random.default_rng(0)
    frame = frame.mask(rng.random(frame.shape) < 0.1).assign(y=y)
    run = kregs.tune_table(
        frame, "y", folds=2, max_trials=1, epochs=8, directory=tmp_path, verbose=0
    )
    scores = run.scores
    assert scores.loc["network", "roc_auc"] > 0.7
    assert scores.loc["network", "log_loss"] < scores.loc["most frequent class", "log_loss"]


@pytest.mark.nightly
def test_the_preset_without_a_search_predicts_in_another_process(tmp_path, people, eager):
    with eager():
        run = kregs.tune_table(
            people(), "y", folds=2, max_trials=0, epochs=2, ensemble=False, verbose=0,
            directory=tmp_path,
        )  # fmt: skip
    assert run.search.best_hyperparameters == {}
    assert len(run.search.trials()) == 1
    # what is saved may be within a model that scales its probabilities
    layers = run.search.best_model()._flatten_layers(include_self=False)
    names = [layer.name for layer in layers]
    assert "category_embedding" in names
    assert ("average" in names) == (kregs.presets.for_table(2).ensemble is not None)
    people().to_csv(tmp_path / "people.csv", index=False)
    done = subprocess.run(
        [sys.executable, "-m", "kregs", "predict", run.search.path, tmp_path / "people.csv"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "prediction" in done.stdout


@pytest.mark.slow
def test_a_preset_of_ones_own_is_what_is_trained(tmp_path, people, eager):
    preset = kregs.presets.TablePreset(units=(6, 5), activation="tanh", epochs=2)
    with eager():
        run = kregs.tune_table(
            people(), "y", preset=preset, folds=2, max_trials=0, ensemble=False, verbose=0,
            directory=tmp_path,
        )  # fmt: skip
    layers = {layer.name: layer for layer in run.search.best_model()._flatten_layers()}
    assert (layers["dense_1"].units, layers["dense_2"].units) == (6, 5)
    assert {layer.activation for name, layer in layers.items() if "activation_" in name} == {
        keras.activations.tanh
    }
    assert len(run.search.trials()) == 1
    assert run.search.protocol.epochs == 2
    assert "preset=TablePreset(units=(6, 5), activation='tanh'" in run.record["call"]


def test_wrong_arguments(tmp_path, people):
    table = kregs.read_table(people(), "y")
    with pytest.raises(ValueError, match="a Table has its target"):
        kregs.tune_table(table, "y")
    with pytest.raises(ValueError, match="`target` must be the column"):
        kregs.tune_table(people())
    with pytest.raises(ValueError, match=r"test_share=0\.99"):
        kregs.tune_table(table, test_share=0.99, directory=tmp_path)
    with pytest.raises(ValueError, match="test_share"):
        kregs.tune_table(table, test_share=1.5, directory=tmp_path)
    with pytest.raises(ValueError, match="`max_trials` must be an integer >= 0"):
        kregs.tune_table(table, max_trials=-1, directory=tmp_path)
    with pytest.raises(ValueError, match="folds"):
        kregs.tune_table(table, folds=1, directory=tmp_path)
    with pytest.raises(TypeError, match=r"`folds` must be .*'auto'.*'many'"):
        kregs.tune_table(table, folds="many", directory=tmp_path)
    with pytest.raises(TypeError, match=r"`preset` must be a kregs\.presets\.TablePreset.*'big'"):
        kregs.tune_table(table, preset="big", directory=tmp_path)
    with pytest.raises(ValueError, match="`metric` must be one of a classification: log_loss"):
        kregs.tune_table(table, metric="rmse", directory=tmp_path)
    with pytest.raises(ValueError, match=r"`metric`.*Did you mean 'accuracy'"):
        kregs.tune_table(table, metric="acuracy", directory=tmp_path)
    with pytest.raises(ValueError, match="`class_weight` must be"):
        kregs.tune_table(table, class_weight="rare", directory=tmp_path)
    with pytest.raises(ValueError, match=r"`max_time` must be .* 'auto' or None.*'soon'"):
        kregs.tune_table(table, max_time="soon", directory=tmp_path)
    with pytest.raises(ValueError, match=r"`max_time` must be .*> 0"):
        kregs.tune_table(table, max_time=0, directory=tmp_path)
    with pytest.raises(ValueError, match=r"`groups` is for kregs\.read_table.*'city'"):
        kregs.tune_table(table, groups="city", directory=tmp_path)
    alone = pd.DataFrame({"word": [f"w{i}" for i in range(40)], "y": [0, 1] * 20})
    with pytest.raises(ValueError, match="must have a column to learn from"):
        kregs.tune_table(alone, "y", keep=["word"], directory=tmp_path)
    numbers = people().assign(y=np.linspace(0, 1, 120) ** 2)
    with pytest.raises(ValueError, match="`class_weight` is for a classification"):
        kregs.tune_table(numbers, "y", class_weight="balanced", directory=tmp_path)


def test_the_call_says_what_is_none_and_not_the_default():
    table = kregs.read_table(pd.DataFrame({"x": [0.5, 2.5] * 20, "y": [0, 1] * 20}), "y")
    call = call_of(table, {"folds": None, "max_time": None, "metric": None})
    assert "folds=None" in call
    assert "max_time=None" in call
    assert "metric" not in call


def test_a_schedule_counts_the_steps_of_a_fold():
    assert _rows_of_a_fold(5, 100) == 80
    assert _rows_of_a_fold(None, 100) == 100
    assert _rows_of_a_fold([(np.arange(30), np.arange(5)), (np.arange(50), np.arange(5))], 99) == 40


@pytest.mark.nightly
def test_a_run_divided_by_time_and_one_by_groups(tmp_path, eager):
    rng = np.random.default_rng(0)
    x = rng.normal(size=120)
    frame = pd.DataFrame(
        {"t": np.arange(120) / 3, "x": x, "z": 3 * x, "k": rng.integers(0, 60, 120).astype(str)}
    )
    frame["y"] = np.where(rng.random(120) < 0.3, "c", np.where(x > 0, "b", "a"))
    frame.loc[90:, "y"] = frame.loc[90:, "y"].replace("c", "a")  # a class of the past
    options = QUICK | {"epochs": 1, "directory": tmp_path}
    with eager():
        run = kregs.tune_table(frame, "y", time="t", categorical=["k"], scaling="search", **options)
        again = kregs.tune_table(
            frame, "z", groups="k", drop=["y"], project_name="groups", **options
        )
    assert run.record["split"] == "the latest rows by 't'"
    assert run.record["scaling"] == min(
        run.record["scaling_losses"], key=run.record["scaling_losses"].get
    )
    assert run.scores["roc_auc"].isna().all()
    assert np.isfinite(run.scores["log_loss"]).all()
    protocol = json.loads(run.files["result"].read_text())["protocol"]["data"]
    assert "TimeSeriesSplit" in protocol["validation"]
    assert (
        "GroupKFold"
        in json.loads(again.files["result"].read_text())["protocol"]["data"]["validation"]
    )
    assert again.record["split"] == "whole groups by 'k', at random"
    found = kregs.predict_table(again.search.path, frame.tail(3), keep=["k"])
    assert found["k"].tolist() == frame["k"].tail(3).tolist()
