"""Recipes and studies: each runs, and its header says what its study measured."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import math
import re
import runpy
import sys

import keras_tuner
import numpy as np
import pytest

from kregs import Regularization, catalog

BUNDLED = [
    "breast_cancer_mlp",
    "diabetes_elastic_net",
    "digits_convnet",
    "digits_group_lasso",
    "digits_mlp",
    "forkme",
]
DOWNLOADED = ["fashion_mnist_convnet", "fashion_mnist_resnet", "imdb_text_cnn"]
NAMES = sorted(BUNDLED + DOWNLOADED)

# what guessing reaches; one quick epoch or two on the small sets must be above it
CHANCE = {
    "breast_cancer_mlp": 0.63,
    "digits_convnet": 0.1,
    "digits_group_lasso": 0.1,
    "digits_mlp": 0.1,
    "forkme": 0.4,
}


@pytest.fixture(params=NAMES)
def recipe(request):
    if request.param in DOWNLOADED:
        request.getfixturevalue("keras_datasets")
    return catalog.load(request.param)


_DATA = {}


@pytest.fixture
def data(recipe, monkeypatch):
    """What the recipe's own `load_data` returns: read once, and kept for its other calls."""
    name = name_of(recipe)
    if name not in _DATA:
        _DATA[name] = recipe.load_data()
    monkeypatch.setattr(recipe, "load_data", lambda: _DATA[name])
    return _DATA[name]


def name_of(recipe) -> str:
    return recipe.__name__.rpartition(".")[2]


def test_every_recipe_has_a_study():
    assert [entry.name for entry in catalog.recipes()] == NAMES
    assert [entry.name for entry in catalog.studies()] == NAMES


def test_quick_run_scores_finitely(recipe, data, capsys):
    scores = recipe.main(quick=True, seed=1)
    assert all(math.isfinite(score) for score in scores.values())
    assert scores.get("accuracy", 1.0) >= CHANCE.get(name_of(recipe), 0.0)
    printed = re.findall(r"\d\.\d{4}", capsys.readouterr().out)
    assert f"{scores['data_loss']:.4f}" in printed
    assert f"{scores.get('accuracy', scores.get('r2')):.4f}" in printed


def test_data_are_split_without_overlap_and_labels_fit(recipe, data):
    (x_train, y_train), (x_test, y_test) = data
    assert len(x_train) == len(y_train)
    assert len(x_test) == len(y_test)
    assert x_train.shape[1:] == x_test.shape[1:]
    assert np.isfinite(x_train).all()
    assert np.isfinite(x_test).all()
    model = recipe.make_model(seed=0)
    prediction = model(x_test[:4])
    assert prediction.shape[1] in (1, y_train.max() + 1)
    train_rows = {row.tobytes() for row in x_train}
    shared_rows = sum(row.tobytes() in train_rows for row in x_test)
    assert shared_rows <= 0.02 * len(x_test)  # a few pictures and reviews occur twice in the sets


@pytest.mark.parametrize("name", NAMES)
def test_build_samples_what_make_model_takes(name):
    recipe = catalog.load(name)
    hp = keras_tuner.HyperParameters()
    model = recipe.build(hp)
    assert model.compiled
    assert len(hp.values) >= 2
    arguments = recipe.sample(hp)
    assert isinstance(arguments["regularization"], Regularization)
    inspect.signature(recipe.make_model).bind(**arguments)


@pytest.mark.parametrize("name", NAMES)
def test_sample_keeps_a_given_regularization_and_searches_no_other(name):
    recipe = catalog.load(name)
    given = Regularization(l2=0.0125, normalization=recipe.TUNED.normalization)
    hp = keras_tuner.HyperParameters()
    arguments = recipe.sample(hp, regularization=given)
    assert arguments.pop("regularization") == given
    assert set(hp.values) == set(arguments) <= {"learning_rate"}


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_is_one_model(name):
    recipe = catalog.load(name)
    first, again, other = (recipe.make_model(seed=seed).get_weights() for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    if name != "diabetes_elastic_net":  # its problem is convex: all start at 0
        assert any((a != b).any() for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_stands_alone(name):
    """A copied recipe may import kregs only by its public names, and defines no class."""
    tree = ast.parse(catalog.show(name))
    imported = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    assert not [module for module in imported if module.startswith(("kregs", "keras."))]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def record_of(name):
    try:
        return catalog.result(name)
    except FileNotFoundError:
        pytest.skip("the study has not been run on the present network: README says so")


@pytest.mark.parametrize("name", NAMES)
def test_header_and_tuned_value_are_what_the_study_measured(name):
    record = record_of(name)
    recipe = catalog.load(name)
    source = catalog.show(name)
    assert catalog.update_recipe(source, record) == source  # else run python -m kregs.tuning
    found = Regularization.from_config(record["best_trials"]["tuned"]["regularization"])
    for field, value in recipe.TUNED.get_config().items():
        expected = getattr(found, field)
        if isinstance(expected, float):  # two digits are written down
            expected = pytest.approx(expected, rel=0.051)
        assert value == expected, field
    best = record["best_trials"]["tuned"]
    rate = best["hyperparameters"].get("learning_rate", recipe.LEARNING_RATE)
    assert pytest.approx(rate, rel=0.051) == recipe.LEARNING_RATE
    assert best["epochs"] == recipe.EPOCHS


@pytest.mark.parametrize("name", NAMES)
def test_study_and_readme_say_what_the_record_says(name, repository):
    record = record_of(name)
    for path, update in (
        (repository / "tuning" / f"{name}.py", catalog.update_study),
        (repository / "README.md", catalog.update_readme),
    ):
        text = path.read_text(encoding="utf-8")
        assert update(text, record) == text, "run python -m kregs.tuning"


@pytest.mark.parametrize("name", NAMES)
def test_only_what_was_measured_has_scores(name, repository):
    (row,) = re.findall(
        rf"^\| `{name}` \|(.*)$", (repository / "README.md").read_text("utf-8"), re.M
    )
    try:
        catalog.result(name)
    except FileNotFoundError:
        assert row.startswith(" not measured yet |")
        assert "not measured yet" in catalog.show(name)
    else:
        assert re.search(r"\d\.\d{4}", row)


@pytest.mark.parametrize("name", NAMES)
def test_record_is_of_the_protocol_in_the_study(name):
    record = record_of(name)
    study = importlib.import_module(f"kregs.tuning.{name}")
    assert record["protocol"] == json.loads(json.dumps(catalog.describe(study.PROTOCOL)))
    assert record["command"].endswith(name)
    assert len(record["test_seeds"]) >= 5
    assert list(record["test"]) == list(record["best_trials"]) == ["tuned", "unregularized"]
    for scores in record["test"].values():
        assert next(iter(scores)) == record["objective"].removeprefix("val_")
        for values in scores.values():
            assert len(values["values"]) == len(record["test_seeds"])
            assert values["mean"] == pytest.approx(np.mean(values["values"]))
            assert values["sd"] == pytest.approx(np.std(values["values"], ddof=1))


def test_copied_recipe_runs_by_itself(tmp_path, monkeypatch, capsys):
    script = catalog.copy("forkme", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.name, "--quick"])
    runpy.run_path(script.name, run_name="__main__")
    assert capsys.readouterr().out.startswith("test accuracy")
    assert [path.name for path in tmp_path.iterdir()] == ["forkme.py"]
