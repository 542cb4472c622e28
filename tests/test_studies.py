"""`run_study`: both searches have one budget and the same rows; a file is a study like a recipe."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
import sys
import textwrap
from types import SimpleNamespace

import joblib
import keras
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import kregs
from kregs import Regularization, catalog
from kregs.catalog import records

FILE = """\
import helper_beside_it
import kregs
import numpy as np
from sklearn.preprocessing import StandardScaler

PROTOCOL = {
    "folds": 3, "epochs": 6, "batch_size": 16, "max_trials": 4, "verbose": 0,
    "preprocess": StandardScaler(), "objective": "val_data_loss",
}


def load_data():
    rng = np.random.default_rng(1)
    x = rng.normal(5.0, 3.0, (90, 4)).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype("int32")
    return (x[:60], y[:60]), (x[60:], y[60:])


def make_model(regularization, learning_rate):
    model = kregs.mlp((4,), 2, units=(8,), regularization=regularization)
    return kregs.compile_model(
        model, helper_beside_it.LOSS, learning_rate=learning_rate, metrics=["accuracy"]
    )


def sample(hp, regularization=None):
    r = regularization or kregs.Regularization.from_hp(
        hp, l2=(1e-5, 1e-1), dropout=(0.1, 0.6), normalization=["batch", None]
    )
    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")
    return {"regularization": r, "learning_rate": rate}


def build(hp):
    return make_model(**sample(hp))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with `mine.py` and what it imports."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mine.py").write_text(FILE)
    (folder / "helper_beside_it.py").write_text('LOSS = "sparse_categorical_crossentropy"\n')
    return folder


@pytest.fixture(scope="module")
def outcome(folder, tmp_path_factory):
    """A finished study of `mine.py`, and what was said; do not write into its folder."""
    said = []
    output = tmp_path_factory.mktemp("runs")
    path = str(folder / "mine.py")
    return catalog.run_study(path, test_seeds=3, seed=3, output=output, log=said.append), said


def test_both_searches_have_one_budget_and_the_same_rows(outcome):
    run, _ = outcome
    tuned, control = (json.loads((s.path / "result.json").read_text()) for s in
                      (run.search, run.control))  # fmt: skip
    assert tuned["protocol"] == control["protocol"]  # rows and folds by their checksums
    assert run.search.seed == run.control.seed == 3
    assert len(run.search.trials()) == len(run.control.trials()) == 4


def test_no_hyperparameter_of_the_control_search_is_idle(outcome):
    run, _ = outcome
    assert {hp["config"]["name"] for hp in run.control.space} == {"learning_rate"}
    rates = run.control.trials()["learning_rate"]
    assert rates.nunique() == 4
    assert run.control.trials()["score"].nunique() == 4


def test_the_unregularized_network_has_its_own_search_s_values(outcome, folder):
    run, _ = outcome
    best = run.record["best_trials"]
    for kind, search in (("tuned", run.search), ("unregularized", run.control)):
        first = search.trials().iloc[0]
        assert best[kind]["val_data_loss"] == first["score"]
        assert best[kind]["epochs"] == first["best_epoch"]
        assert best[kind]["learning_rate"] == pytest.approx(first["learning_rate"], rel=1e-6)
    assert best["tuned"]["learning_rate"] != best["unregularized"]["learning_rate"]
    regularization = Regularization.from_config(best["tuned"]["regularization"])
    assert regularization.dropout >= 0.1
    plain = Regularization.from_config(best["unregularized"]["regularization"])
    assert plain == Regularization(normalization=regularization.normalization)


def test_final_models_repeat_what_keras_fit_would_do(outcome):
    """The scores on record are those of the saved model, on rows that it takes transformed."""
    run, _ = outcome
    rng = np.random.default_rng(1)
    x = rng.normal(5.0, 3.0, (90, 4)).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype("int32")
    scaler = joblib.load(run.files["preprocessing"])
    np.testing.assert_allclose(scaler.mean_, x[:60].mean(axis=0), rtol=1e-5)
    model = keras.models.load_model(run.files["tuned model"])
    probabilities = model.predict(scaler.transform(x[60:]), verbose=0)
    scores = run.record["test"]["tuned"]
    assert list(scores) == ["data_loss", "accuracy"]  # the objective's metric is the first
    accuracy = np.mean(probabilities.argmax(axis=1) == y[60:])
    assert scores["accuracy"]["values"][0] == pytest.approx(accuracy)
    cross_entropy = -np.log(probabilities[np.arange(30), y[60:]]).mean()
    assert scores["data_loss"]["values"][0] == pytest.approx(cross_entropy, rel=1e-4)
    for kind in ("tuned", "unregularized"):
        values = run.record["test"][kind]["data_loss"]["values"]
        assert len(set(values)) == 3
    assert run.record["test_seeds"] == [3, 4, 5]


def test_a_study_of_a_file_leaves_no_trace_in_the_process(outcome, folder):
    assert str(folder) not in sys.path
    assert "mine" not in sys.modules


@pytest.mark.nightly  # four searches
def test_resume_goes_on_with_both_searches(folder, tmp_path):
    path = str(folder / "mine.py")
    options = {"test_seeds": 1, "epochs": 2, "folds": 2, "output": tmp_path, "resume": True}
    first = catalog.run_study(path, max_trials=2, **options)
    scores = [s.trials().set_index("trial")["score"] for s in (first.search, first.control)]
    times = [(s.path / "trial_0" / "trial.json").stat().st_mtime_ns for s in
             (first.search, first.control)]  # fmt: skip
    again = catalog.run_study(path, max_trials=3, **options)
    assert len(again.search.trials()) == 3
    np.testing.assert_array_equal(
        again.search.trials().set_index("trial")["score"].loc[[0, 1]], scores[0].loc[[0, 1]]
    )
    before, after = (
        Regularization.from_config(run.record["best_trials"]["tuned"]["regularization"])
        for run in (first, again)
    )
    assert len(again.control.trials()) == 3
    if before.normalization == after.normalization:
        assert again.control.path == first.control.path
        assert (again.control.path / "trial_0" / "trial.json").stat().st_mtime_ns == times[1]
    else:
        assert again.control.path != first.control.path
    with pytest.raises(FileExistsError, match="mine"):
        catalog.run_study(path, output=tmp_path)


@pytest.mark.nightly  # two more searches
def test_seeds_are_models_per_trial_and_test_seeds_models_at_the_end(folder, tmp_path):
    path = str(folder / "mine.py")
    run = catalog.run_study(
        path, max_trials=2, epochs=2, folds=2, seeds=3, test_seeds=2, output=tmp_path
    )
    for search in (run.search, run.control):
        assert search.protocol.seeds == 3
        assert len(search.scores(0)) == 6
    assert len(run.record["test"]["tuned"]["data_loss"]["values"]) == 2
    assert "--seeds 3 --test-seeds 2" in run.record["command"]


@pytest.mark.nightly  # two processes that load TensorFlow, for each of the searches
def test_workers_import_the_file(folder, tmp_path):
    path = str(folder / "mine.py")
    run = catalog.run_study(
        path, max_trials=2, epochs=1, folds=2, test_seeds=1, workers=2, output=tmp_path
    )
    for search in (run.search, run.control):
        assert search.trials()["status"].tolist() == ["completed"] * 2
        assert len(list((search.path / "workers").glob("*.log"))) == 2


@pytest.mark.nightly  # two more searches
@pytest.mark.parametrize("oracle", ["hyperband", "grid"])
def test_an_empty_space_is_tried_once_by_any_oracle(folder, tmp_path, oracle):
    text = (folder / "mine.py").read_text()
    rate = '    rate = hp.Float("learning_rate", 1e-3, 1e-1, sampling="log")\n'
    assert rate in text
    (tmp_path / "fixed.py").write_text(text.replace(rate, "    rate = 0.02\n"))
    shutil.copy(folder / "helper_beside_it.py", tmp_path)
    run = catalog.run_study(
        str(tmp_path / "fixed.py"),
        oracle=oracle, max_trials=4, epochs=3, folds=2, test_seeds=1, output=tmp_path / "runs",
    )  # fmt: skip
    assert run.search.protocol.oracle == oracle
    assert len(run.control.trials()) == 1
    assert 1 <= run.control.best_epoch <= 3
    assert run.record["best_trials"]["unregularized"]["hyperparameters"] == {}


@pytest.mark.nightly  # two more searches
def test_a_protocol_of_objects_is_described_and_serves_both_searches(folder, tmp_path):
    text = (folder / "mine.py").read_text().replace(
        "PROTOCOL = {",
        "import keras\nimport keras_tuner\n\nPROTOCOL = {\n"
        '    "oracle": keras_tuner.oracles.RandomSearchOracle('
        'keras_tuner.Objective("val_data_loss", "min"), max_trials=3, seed=5),\n'
        '    "sample_weight": np.linspace(0.5, 1.5, 60),\n'
        '    "callbacks": [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)],',
    )  # fmt: skip
    (tmp_path / "objects.py").write_text(text.replace('"max_trials": 4,', ""))
    shutil.copy(folder / "helper_beside_it.py", tmp_path)
    run = catalog.run_study(
        str(tmp_path / "objects.py"), epochs=2, folds=2, test_seeds=1, output=tmp_path / "runs"
    )
    assert len(run.search.trials()) == len(run.control.trials()) == 3
    described = run.record["protocol"]
    assert described["callbacks"] == ["LearningRateScheduler"]
    assert described["sample_weight"] == "ndarray of 60"
    assert json.loads(run.files["study"].read_text())["protocol"] == described
    for kind, search in (("tuned", run.search), ("unregularized", run.control)):
        rate = search.best_hyperparameters["learning_rate"]  # the one that it begins with
        assert run.record["best_trials"][kind]["learning_rate"] == pytest.approx(rate, rel=1e-6)


@pytest.mark.nightly  # two more searches
@pytest.mark.parametrize(
    ("restraint", "left"),
    [(["l2", "-learning_rate"], ("-learning_rate",)), (["-dropout", "l2"], None)],
)
def test_the_control_search_is_restrained_by_what_it_has(folder, tmp_path, restraint, left):
    text = (folder / "mine.py").read_text()
    rule = f'"selection": "one_standard_error", "restraint": {restraint!r},'
    (tmp_path / "restrained.py").write_text(
        text.replace("PROTOCOL = {", "PROTOCOL = {\n    " + rule)
    )
    shutil.copy(folder / "helper_beside_it.py", tmp_path)
    run = catalog.run_study(
        str(tmp_path / "restrained.py"),
        epochs=1, folds=2, max_trials=2, test_seeds=1, output=tmp_path / "runs",
    )  # fmt: skip
    assert run.search.protocol.restraint == tuple(restraint)
    assert run.control.protocol.restraint == left
    assert run.control.protocol.selection == "one_standard_error"


@pytest.mark.nightly  # to convergence
def test_what_has_nothing_left_to_search_is_tried_once_and_stacked(tmp_path, monkeypatch):
    said = []
    study = importlib.import_module("kregs.tuning.diabetes_elastic_net")
    assert study.PROTOCOL["score_at"] == "last_epoch"
    monkeypatch.setitem(study.PROTOCOL, "engine", "population")  # an error if it cannot be
    run = catalog.run_study(
        "diabetes_elastic_net", max_trials=3, epochs=300, folds=2, output=tmp_path, log=said.append
    )
    assert len(run.search.trials()) == 3
    assert len(run.control.trials()) == 1
    assert run.control.best_epoch == run.search.best_epoch == 300  # the last one, for both
    assert not [line for line in said if "One by one" in line]
    # without penalties it converges to least squares, which starts from 0 like all seeds
    (x, y), (x_test, y_test) = catalog.load("diabetes_elastic_net").load_data()
    scores = run.record["test"]["unregularized"]["data_loss"]
    assert np.ptp(scores["values"]) < 1e-4  # convex: all seeds end in one place
    least_squares = LinearRegression().fit(x, y).predict(x_test)
    assert scores["mean"] == pytest.approx(np.mean((least_squares - y_test) ** 2), rel=0.3)
    assert scores["mean"] > run.record["test"]["tuned"]["data_loss"]["mean"]


def test_a_file_without_test_data_and_control(tmp_path):
    """Only `build` and `load_data`, by `kregs.tune`'s defaults, `loss` where there is no other."""
    path = tmp_path / "small.py"
    path.write_text(
        textwrap.dedent("""
        import keras
        import numpy as np

        PROTOCOL = {"objective": "val_loss", "verbose": 0}


        def load_data():
            x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
            return x, x.sum(axis=1)


        def build(hp):
            l2 = hp.Float("l2", 1e-4, 1e-1, sampling="log")
            layer = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(l2))
            model = keras.Sequential([keras.Input((2,)), layer])
            model.compile("adam", "mse")
            return model
        """)
    )
    said = []
    run = catalog.run_study(
        str(path), max_trials=2, epochs=2, test_seeds=2, output=tmp_path / "runs", log=said.append
    )
    assert run.control is None
    assert run.record["test"] == {}
    assert list(run.record["best_trials"]) == ["tuned"]
    assert "sample(hp, regularization=None)" in said[0]
    assert keras.models.load_model(run.files["tuned model"]).output_shape == (None, 1)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["breast_cancer_mlp", "digits_mlp"])
def test_initial_weights_follow_the_seed_and_are_paired_across_trials(name, tmp_path):
    recipe = catalog.load(name)
    (x, y), _ = recipe.load_data()
    built = []

    def build(hp):
        model = recipe.build(hp)
        kernels = [v.numpy() for v in model.weights if v.path.endswith("kernel")]
        built.append((dict(hp.values), kernels))
        return model

    result = kregs.tune(
        build, x[:80], y[:80], max_trials=6, epochs=1, seeds=2, verbose=0, directory=tmp_path
    )
    rates = set(result.trials()["learning_rate"])
    by_trial = {}
    for values, kernels in built:
        if values["learning_rate"] in rates:
            by_trial.setdefault(json.dumps(values), []).append(kernels)
    by_trial = {values: builds[:2] for values, builds in by_trial.items()}  # then the best again
    assert len(by_trial) == 6
    if name == "digits_mlp":  # also across structures
        assert len({json.loads(values)["normalization"] for values in by_trial}) == 2
    first, *others = by_trial.values()
    assert len(first) == 2
    for a, b in zip(*first, strict=True):
        assert (a != b).mean() > 0.99  # the two seeds differ in every layer
    for other in others:
        for seed in (0, 1):
            for a, b in zip(first[seed], other[seed], strict=True):
                np.testing.assert_array_equal(a, b)


# ---- files that are no studies -------------------------------------------------------------

GOOD = "def build(hp): ...\ndef load_data(): ...\n"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("def build(hp): ...\n", ValueError, r"no load_data\(\), which returns"),
        ("def biuld(hp): ...\ndef load_data(): ...\n", ValueError, r"build\(hp\).*mean 'biuld'"),
        ("build = 3\ndef load_data(): ...\n", TypeError, "`build` .* must be a function"),
        (GOOD + "PROTOCOL = [3]\n", TypeError, r"`PROTOCOL` .* Received: \[3\]"),
        (GOOD + "PROTOCOL = {'max_trails': 3}\n", ValueError, "'max_trails'.*mean 'max_trials'"),
        (GOOD + "PROTOCOL = {'directory': 'x'}\n", ValueError, "'directory', which is not one"),
        ("x = 1\ndef build(hp:\n", ValueError, r"bad\.py, line 2: .*"),
        ("import kregs\nimport no_such_module\n", ValueError, "line 2: ModuleNotFoundError"),
        ("def f():\n    return g()\nf()\n", ValueError, "line 2: NameError: .*'g'"),
        (GOOD, ValueError, r"load_data\(\) must return .* Received: NoneType"),
        (
            "def build(hp): ...\ndef load_data(): return ([1], [2]), None\n",
            ValueError,
            r"Received: \(\(list, list\), NoneType\)",
        ),
    ],
)  # fmt: skip
def test_a_file_that_lacks_something_is_told_so(tmp_path, text, error, message):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(error, match=message):
        catalog.run_study(str(path), output=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert "bad" not in sys.modules


def test_names_of_files_that_cannot_be_imported(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"'nowhere\.py' does not exist"):
        catalog.study_name("nowhere.py")
    for name, message in (("my-file.py", "letters, digits"), ("json.py", "another module")):
        (tmp_path / name).write_text(GOOD)
        with pytest.raises(ValueError, match=message):
            catalog.study_name(str(tmp_path / name))
    (tmp_path / "mine.py").write_text(GOOD)
    assert catalog.study_name(str(tmp_path / "mine.py")) == "mine"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no recipe 'mine'\. Did you mean 'mine\.py'"):
        catalog.study_name("mine")


# ---- what quotes a record ------------------------------------------------------------------


def a_record(**changes):
    """A record with the fields that sources quote."""
    scores = {"mean": 0.25, "sd": 0.0125, "values": [0.2375, 0.2625]}
    test = {kind: dict.fromkeys(("data_loss", "r2"), scores) for kind in ("tuned", "unregularized")}
    r = Regularization(l2=0.000123456, dropout=0.567, normalization="batch")
    return {
        "study": "digits_mlp",
        "seconds": {"tuned search": 60.0, "evaluation": 31.0, "recipe": 12.34},
        "machine": {"cores": 2},
        "best_trials": {
            "tuned": {
                "regularization": r.get_config(),
                "hyperparameters": {"learning_rate": 0.0034567},
                "epochs": 31,
            }
        },
        "test": test,
    } | changes


def test_a_recipe_is_rewritten_by_its_record():
    source = catalog.show("digits_mlp")
    updated = catalog.update_recipe(source, a_record())
    assert (
        'TUNED = kregs.Regularization(l2=0.00012, dropout=0.57, normalization="batch")' in updated
    )
    assert "\nLEARNING_RATE = 0.0035\nEPOCHS = 31\n" in updated
    assert "\nTime:     12 s on 2 CPU cores\n" in updated
    assert (
        "\nResult:   test data loss 0.2500 ± 0.0125, unregularized 0.2500 ± 0.0125; "
        "r2 0.2500 ± 0.0125,\n"
        "          unregularized 0.2500 ± 0.0125 (2 seeds)\nData:"
    ) in updated
    assert catalog.update_recipe(updated, a_record()) == updated
    changed = [a for a in updated.splitlines() if a not in source.splitlines()]
    assert len(changed) <= 6
    compile(updated, "recipe", "exec")


def test_a_long_regularization_is_wrapped():
    r = Regularization(
        l1=0.1, l2=0.00033, max_norm=3.0, dropout=0.34, spatial_dropout=0.49, normalization="batch"
    )
    record = a_record()
    record["best_trials"]["tuned"]["regularization"] = r.get_config()
    updated = catalog.update_recipe(catalog.show("digits_mlp"), record)
    assert max(map(len, updated.splitlines())) <= 100
    module = {}
    (statement,) = [s for s in updated.split("\n\n") if "TUNED = " in s]
    exec(statement.replace("BATCH_SIZE", "_"), {"kregs": kregs}, module)
    assert module["TUNED"] == r


def test_readme_and_study_are_rewritten_by_the_record():
    text = "a\n| `digits_convnet` | 1 |\n| `digits_mlp` | 2 | 3 |\nb\n"
    assert catalog.update_readme(text, a_record()) == (
        "a\n| `digits_convnet` | 1 |\n"
        "| `digits_mlp` | data loss 0.2500 ± 0.0125 | 0.2500 ± 0.0125 | r2 0.2500 ± 0.0125 | "
        "0.2500 ± 0.0125 |\nb\n"
    )
    with pytest.raises(ValueError, match="no row of `other`"):
        catalog.update_readme(text, a_record(study="other"))
    assert "Time:     2 min on 2" in catalog.update_study("Time:     1 s\n", a_record())


@pytest.mark.nightly  # a study and a run of its recipe
def test_recording_a_study_updates_all_that_quotes_it(repository, tmp_path, monkeypatch, capsys):
    for name in ("recipes/forkme.py", "tuning/forkme.py", "README.md", "pyproject.toml"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        target.write_text((repository / name).read_text(encoding="utf-8"), encoding="utf-8")
    files = SimpleNamespace(files=lambda package: tmp_path / package.removeprefix("kregs."))
    monkeypatch.setattr(records, "resources", files)
    short = functools.partial(catalog.run_study, max_trials=2, epochs=3, folds=2, test_seeds=2)
    monkeypatch.setattr(records, "run_study", short)

    path = catalog.record_study("forkme")
    assert path == tmp_path / "tuning" / "results" / "forkme.json"
    record = json.loads(path.read_text())
    assert record["command"] == "python -m kregs.tuning.forkme"
    assert record["seconds"]["recipe"] > 0
    recipe = (tmp_path / "recipes" / "forkme.py").read_text()
    assert "EPOCHS = 3\n" in recipe or "EPOCHS = 2\n" in recipe or "EPOCHS = 1\n" in recipe
    words = " ".join(recipe.split())
    assert catalog.result_line(record) in words
    row = (tmp_path / "README.md").read_text().partition("| `forkme` | data loss ")[2]
    assert row.startswith(catalog.spread(record["test"]["tuned"]["data_loss"]))
    assert catalog.update_sources("forkme") == []  # nothing is left to do
    printed = capsys.readouterr().out
    assert str(tmp_path / "README.md") in printed
    (tmp_path / "pyproject.toml").unlink()
    with pytest.raises(RuntimeError, match="checkout"):
        catalog.update_sources("forkme")
