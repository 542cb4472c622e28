from __future__ import annotations

import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import kregs
from kregs.search.space import samplings


@pytest.fixture(scope="module")
def saved(project, tmp_path_factory):
    return project.save(tmp_path_factory.mktemp("saved") / "result")


def test_trials(project):
    trials = project.trials()
    assert list(trials) == [
        *("trial", "score", "best_epoch", "seconds", "status"),
        *("data_loss", "loss", "mae", "val_loss", "val_mae"),
        *("use_l2", "l2", "learning_rate"),
    ]
    assert project.hyperparameter_names == ["use_l2", "l2", "learning_rate"]
    for row in trials.to_dict("records"):  # at the epoch that the run is scored at
        at = project.history(row["trial"]).set_index("epoch").loc[row["best_epoch"]]
        for name in ("data_loss", "loss", "mae", "val_loss", "val_mae"):
            assert row[name] == pytest.approx(at[name], rel=1e-6)
    assert sorted(trials["trial"]) == [0, 1, 2, 3]
    assert trials["score"].is_monotonic_increasing
    assert (trials["seconds"] > 0).all()
    off = trials[~trials["use_l2"]]
    assert 0 < len(off) < 4
    assert (off["l2"] == 0).all()
    assert (trials[trials["use_l2"]]["l2"] >= 1e-4).all()
    best = trials.iloc[0]
    assert project.best_score == best["score"]
    assert project.best_epoch == best["best_epoch"]
    assert project.best_hyperparameters["learning_rate"] == best["learning_rate"]
    assert (project.objective, project.direction) == ("val_data_loss", "min")


def test_history(project):
    for trial, score, best_epoch in project.trials()[["trial", "score", "best_epoch"]].values:
        history = project.history(trial)
        assert history["epoch"].tolist() == [1, 2, 3]
        assert {"loss", "data_loss", "val_loss", "val_data_loss", "val_mae"} <= set(history)
        row = history.set_index("epoch").loc[best_epoch]
        # each half of the validation rows may be scored at another epoch than all of them
        assert row["val_data_loss"] == history["val_data_loss"].min()
        assert row["val_data_loss"] <= score * (1 + 1e-6)
    with pytest.raises(ValueError, match="trial=17"):
        project.history(17)


def test_best_model_scores_what_the_search_saw(project, build, linear_data):
    model = project.best_model()
    assert model.compiled
    weights = model.get_weights()
    stored = keras.models.load_model(project.path / "best.keras")
    for a, b in zip(weights, stored.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_refit(project, linear_data):
    x, y = linear_data
    models = [project.refit(x, y, seed=seed) for seed in (None, 0, 1)]
    weights = [model.get_weights()[0] for model in models]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    # all 80 rows in batches of 32, for as many epochs as were best
    assert int(models[0].optimizer.iterations) == 3 * project.best_epoch
    longer = project.refit(x, y, epochs=12, batch_size=10)
    before = models[0].evaluate(x, y, verbose=0, return_dict=True)["data_loss"]
    assert longer.evaluate(x, y, verbose=0, return_dict=True)["data_loss"] < before / 2
    with pytest.raises(ValueError, match="`epochs`"):
        project.refit(x, y, epochs=0)
    with pytest.raises(ValueError, match="`x` must be finite"):
        project.refit(x * np.nan, y)


def test_files_of_a_project(project):
    record = json.loads((project.path / "result.json").read_text())
    assert record["versions"]["keras"] == keras.__version__
    assert record["versions"]["kregs"] == kregs.__version__
    assert record["protocol"]["data"]["validation"] == "shuffled split"
    assert record["best"]["score"] == project.best_score
    assert record["seconds"] > 0
    table = pd.read_csv(project.path / "trials.csv")
    assert table["trial"].tolist() == project.trials()["trial"].tolist()
    np.testing.assert_allclose(table["score"], project.trials()["score"])


def test_a_saved_result_loads(project, saved, linear_data, build):
    assert {key: path.name for key, path in saved.items()} == {
        "model": "best.keras",
        "trials": "trials.csv",
        "result": "result.json",
        "histories": "histories.json",
        "plot": "plot.png",
    }
    assert saved["plot"].read_bytes().startswith(b"\x89PNG")
    loaded = kregs.load_result(saved["result"].parent)
    assert repr(loaded).split(", in")[0] == repr(project).split(", in")[0]
    pd.testing.assert_frame_equal(loaded.trials(), project.trials())
    pd.testing.assert_frame_equal(loaded.history(2), project.history(2))
    x, y = linear_data
    np.testing.assert_array_equal(
        loaded.best_model().predict(x, verbose=0), project.best_model().predict(x, verbose=0)
    )
    with pytest.raises(ValueError, match="build="):
        loaded.refit(x, y)
    with_build = kregs.load_result(saved["result"].parent, build=build)
    np.testing.assert_array_equal(
        with_build.refit(x, y).get_weights()[0], project.refit(x, y).get_weights()[0]
    )


def test_a_saved_result_can_be_saved_again_and_is_not_overwritten(project, saved, tmp_path):
    loaded = kregs.load_result(saved["result"].parent)
    again = loaded.save(tmp_path / "again")
    assert again["histories"].read_text() == saved["histories"].read_text()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        project.save(tmp_path / "again")
    project.save(tmp_path / "again", overwrite=True)
    loaded.save(saved["result"].parent)  # onto itself


def test_hyperparameters_build_the_model_again(project, build):
    hp = project.hyperparameters()
    rate = float(build(hp).optimizer.learning_rate)
    assert rate == pytest.approx(project.best_hyperparameters["learning_rate"])
    off = project.trials().query("not use_l2")["trial"].iloc[0]
    assert "l2" not in project.hyperparameters(off)
    assert kregs.Regularization.from_hp(project.hyperparameters(off), l2=(0, 1e-4, 1.0)).l2 == 0


def test_plot(project, tmp_path):
    figure = project.plot(tmp_path / "a.svg")
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("l2", "learning_rate")
    assert "4 trials" in axes.get_title(loc="left")
    assert "<svg" in (tmp_path / "a.svg").read_text()


def test_no_result(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="is not there"):
        kregs.load_result(tmp_path / "none")
    with pytest.raises(ValueError, match=r"no result.json"):
        kregs.load_result(tmp_path)
    with pytest.raises(ValueError, match="Received: the file"):
        kregs.load_result(saved["model"])
    with pytest.raises(TypeError, match="`build`"):
        kregs.load_result(saved["model"].parent, build=3)
    for text, words in (("{", "cannot be read"), ("[]", "is no result"), ('{"a": 1}', "is no")):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            kregs.load_result(tmp_path)
    shutil.copy(saved["result"], tmp_path / "result.json")
    with pytest.raises(ValueError, match="does not exist"):
        kregs.load_result(tmp_path).best_model()
    (tmp_path / "best.keras").write_text("not a model")
    with pytest.raises(ValueError, match=r"is no \.keras file"):
        kregs.load_result(tmp_path)


def test_metrics_are_means_over_runs_and_yield_to_hyperparameters(linear_data, tmp_path):
    def build(hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        return kregs.compile_model(
            model, "mse", learning_rate=hp.Choice("mae", [0.03, 0.1]), metrics=["mae"]
        )

    result = kregs.tune(
        build, *linear_data, folds=2, seeds=2, oracle="grid", epochs=2, directory=tmp_path,
        callbacks=[], verbose=0,
    )  # fmt: skip
    trials = result.trials()
    assert sorted(trials["mae"]) == [0.03, 0.1]
    for row in trials.to_dict("records"):
        history, scores = result.history(row["trial"]), result.scores(row["trial"])
        at = history.merge(scores[["fold", "seed", "epoch"]], on=["fold", "seed", "epoch"])
        assert len(at) == 4
        assert row["val_mae"] == pytest.approx(at["val_mae"].mean(), rel=1e-6)
        assert row["score"] == pytest.approx(at["val_data_loss"].mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("Float", {"sampling": "log"}, "log"),
        ("Int", {"sampling": "linear"}, "linear"),
        ("Boolean", {}, None),
        ("Choice", {"values": ["a", "b"]}, None),
        ("Choice", {"values": [0.0, 1e-4, 1e-2]}, "log"),
        ("Choice", {"values": [16, 32, 64]}, "linear"),
        ("Fixed", {"value": 3}, None),
    ],
)
def test_sampling(kind, config, expected):
    hp = {"class_name": kind, "config": {"name": "a", **config}}
    assert samplings([hp]) == {"a": expected}
