"""The catalog: what ships is found, read and copied without importing it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from kregs import Population, Regularization, catalog
from kregs.catalog.final_models import ModelGroup, summarize, train_and_score
from kregs.population import NotStackable


def test_entries_are_read_from_the_headers():
    entry = next(entry for entry in catalog.recipes() if entry.name == "digits_mlp")
    assert entry.summary == catalog.show("digits_mlp").splitlines()[0].strip('"')
    assert {"command", "time", "result", "data"} <= set(entry.fields)
    assert entry.fields["command"] == "kregs run digits_mlp"


def test_a_field_may_take_several_lines():
    entry = next(entry for entry in catalog.recipes() if entry.name == "diabetes_elastic_net")
    assert entry.fields["data"].startswith("442 patients")
    assert entry.fields["data"].endswith("something to restrain")


@pytest.mark.parametrize(
    "call",
    [catalog.show, catalog.run, catalog.load, catalog.copy, catalog.run_study, catalog.result],
)
def test_a_misspelt_name_gets_the_nearest_one(call):
    with pytest.raises(ValueError, match=r"digit_mlp.*Did you mean 'digits_mlp'\?"):
        call("digit_mlp")


def test_each_study_is_that_of_a_recipe():
    """What has no recipe, such as the study of presets, has a command line of its own."""
    recipes = {entry.name for entry in catalog.recipes()}
    studies = {entry.name for entry in catalog.studies()}
    assert studies <= recipes
    assert "presets" not in studies


def test_copy_is_the_source_and_is_not_overwritten(tmp_path):
    target = catalog.copy("forkme", tmp_path / "mine.py")
    assert target == tmp_path / "mine.py"
    assert target.read_text(encoding="utf-8") == catalog.show("forkme")
    target.write_text("mine")
    with pytest.raises(FileExistsError, match=r"mine\.py"):
        catalog.copy("forkme", target)
    assert target.read_text() == "mine"
    catalog.copy("forkme", target, force=True)
    assert target.read_text(encoding="utf-8") == catalog.show("forkme")


def test_copy_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        catalog.copy("forkme", tmp_path / "nowhere" / "mine.py")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "`seed`"),
        ({"seeds": 0}, "`seeds`"),
        ({"test_seeds": 0}, "`test_seeds`"),
        ({"max_trials": 0}, "max_trials"),
        ({"epochs": 0}, "epochs"),
        ({"oracle": "baysian"}, "bayesian"),
    ],
)
def test_wrong_study_arguments_leave_nothing_behind(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        catalog.run_study("forkme", output=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_run_repeats_itself_and_leaves_global_randomness_alone(capsys):
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    first, again, other = (catalog.run("forkme", quick=True, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert np.random.rand() == expected  # noqa: NPY002
    capsys.readouterr()


def test_reading_the_catalog_imports_no_tensorflow():
    program = (
        "import sys; from kregs import catalog; catalog.recipes(); catalog.studies();"
        "catalog.show('digits_mlp'); catalog.result('digits_mlp');"
        "print({'tensorflow', 'keras', 'keras_tuner', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")


def train_both_ways(monkeypatch, recipe, **regularization):
    """Return the test metrics of two models as a population, and one by one."""
    train, test = recipe.load_data()
    seeds = (0, 1)

    def scores():
        models = [
            recipe.make_model(Regularization(**regularization), seed=seed, learning_rate=0.01)
            for seed in seeds
        ]
        said = []
        group = ModelGroup(models=models, seeds=seeds, epochs=20)
        scores = train_and_score({"a": group}, train, test, batch_size=64, log=said.append)
        metrics = scores["a"]
        model_loss = models[1].evaluate(*test, verbose=0, return_dict=True)["loss"]
        assert model_loss == pytest.approx(metrics[1]["loss"], rel=1e-4)
        return pd.DataFrame(metrics), said

    together, said = scores()
    assert said == []

    def refuse(models, seeds):
        raise NotStackable("the layer 'odd' has no stacked form")

    monkeypatch.setattr(Population, "from_models", refuse)
    one_by_one, said = scores()
    assert said == ["One by one, since they cannot be stacked: the layer 'odd' has no stacked form"]
    return together, one_by_one


def test_models_of_several_seeds_score_as_if_trained_one_by_one(monkeypatch):
    recipe = catalog.load("breast_cancer_mlp")
    together, one_by_one = train_both_ways(monkeypatch, recipe, dropout=0.1)
    assert set(together) == set(one_by_one) == {"accuracy", "data_loss", "loss"}
    # a seed orders the batches differently in the two ways: the means agree, not the models
    assert together["accuracy"].mean() == pytest.approx(one_by_one["accuracy"].mean(), abs=0.02)
    assert together["data_loss"].mean() == pytest.approx(one_by_one["data_loss"].mean(), rel=0.3)


def test_a_model_that_diverges_does_not_count_as_a_score():
    recipe = catalog.load("breast_cancer_mlp")
    (x, y), test = recipe.load_data()
    models = [recipe.make_model(seed=seed) for seed in (4, 5)]
    models[1].set_weights([np.full_like(weights, np.nan) for weights in models[1].get_weights()])
    said = []
    group = ModelGroup(models=models, seeds=(4, 5), epochs=1)
    scores = train_and_score({"a": group}, (x, y), test, batch_size=64, log=said.append)["a"]
    assert len(said) == 1
    assert "seed 5" in said[0]
    assert np.isfinite(list(scores[0].values())).all()
    assert np.isnan(list(scores[1].values())).all()
    summary = summarize(scores, objective="val_data_loss")
    assert catalog.spread(summary["accuracy"]) == "nan ± nan"


@pytest.mark.parametrize("normalization", [None, "batch"])
def test_groups_train_as_one_population_where_they_have_one_structure(monkeypatch, normalization):
    recipe = catalog.load("breast_cancer_mlp")
    train, test = recipe.load_data()
    sizes, fit = [], Population.fit

    def counted(population, *args, epochs, **kwargs):
        sizes.append((len(population), epochs))
        return fit(population, *args, epochs=epochs, **kwargs)

    monkeypatch.setattr(Population, "fit", counted)
    regularizations = {
        "tuned": Regularization(dropout=0.2, l2=1e-3, normalization=normalization),
        "plain": Regularization(),
    }
    groups = {
        name: ModelGroup(
            models=[recipe.make_model(value, seed=seed) for seed in (0, 1)],
            seeds=(0, 1),
            epochs=epochs,
        )
        for (name, value), epochs in zip(regularizations.items(), (3, 2), strict=True)
    }
    scores = train_and_score(groups, train, test, batch_size=64, log=print)
    together = [(4, [3, 3, 2, 2])]
    assert sizes == (together if normalization is None else [(2, [3, 3]), (2, [2, 2])])
    for name, group in groups.items():
        for model, values in zip(group.models, scores[name], strict=True):
            evaluated = model.evaluate(*test, verbose=0, return_dict=True)
            assert values["data_loss"] == pytest.approx(evaluated["data_loss"], rel=1e-4)


def test_spread_is_the_mean_and_the_sample_standard_deviation():
    values = [{"accuracy": value} for value in (0.9, 0.92, 0.97)]
    scores = summarize(values, objective="val_accuracy")["accuracy"]
    assert scores["mean"] == pytest.approx(np.mean([0.9, 0.92, 0.97]))
    assert scores["sd"] == pytest.approx(np.std([0.9, 0.92, 0.97], ddof=1))
    assert catalog.spread(scores) == "0.9300 ± 0.0361"
    alone = summarize(values[:1], objective="val_accuracy")
    assert catalog.spread(alone["accuracy"]) == "0.9000"
