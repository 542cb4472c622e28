"""Demos run: tables, figures, the command, the pages; tiny, and the same for the same seed."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import kregs
from kregs import demos
from kregs.cli import main
from kregs.demos.measuring import Scale, diabetes, digits, full_batches, means, readable

NAMES = [entry.name for entry in demos.demos()]
# what each table has beside the claims' own names
COLUMNS = {
    "augmentation_dropout": {"method", "test_loss", "moved_loss"},
    "bias_batch_norm": {"method", "bias_gradient", "moved_output", "test_loss"},
    "cost_epochs": {"method", "best_epochs", "epochs_to_same", "best_val_loss"},
    "dropout_batch_norm": {"dropout", "variance_shift", "test_loss"},
    "dropout_ensemble": {"method", "size", "test_loss", "test_accuracy"},
    "early_stopping_l2": {"steps", "l2", "apart", "test_loss", "test_loss_ridge"},
    "he_glorot": {"depth", "method", "signal", "test_accuracy"},
    "inverted_dropout": {"dropout", "largest_difference", "test_loss"},
    "l1_zeroes": {"data", "method", "strength", "exact_zeros", "near_zero", "test_loss"},
    "more_data": {"rows", "λ", "l2", "test_loss", "test_accuracy"},
    "priors": {"prior", "penalty", "factor", "error", "from_exact"},
    "val_loss_lambda": {"data", "l2", "val_loss", "val_data_loss", "test_loss"},
    "weight_decay_adam": {"method", "learning_rate", "strength", "test_loss", "apart"},
}


@pytest.fixture
def untraced():
    """Let the few steps of a quick demo run without being compiled, most of their time."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


# models with many layers, which take as long to build as all others together
_LONG = ("augmentation_dropout", "bias_batch_norm", "dropout_batch_norm", "he_glorot")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.nightly] if n in _LONG else []) for n in NAMES],
)
def test_each_measures_judges_and_draws(name, untraced):
    shown = demos.run(name, quick=True, seed=3)
    assert COLUMNS[name] <= set(shown.table.columns)
    if name not in ("dropout_ensemble", "priors"):  # which count groups and draws
        assert set(shown.runs["seed"]) == {3, 4}
    numbers = shown.table[[c for c in shown.table.columns if f"{c}_error" in shown.table.columns]]
    assert np.isfinite(numbers).any().all()  # none is of nothing but NaN
    assert str(shown.verdict).startswith(("Holds", "Does not hold"))
    assert all(re.search(r"\d", finding.numbers) for finding in shown.verdict.findings)
    assert shown.claim.endswith(".")
    assert len(shown.source) > 20
    figure = shown.plot()
    assert figure.get_suptitle()
    for axes in figure.axes:
        assert axes.get_xlabel() or axes.get_ylabel()
        assert axes.lines or axes.images or axes.collections


def test_the_list_loads_no_tensorflow():
    program = (
        "import sys; from kregs.cli import main; main(['demo']);"
        "print(sorted({'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True
    )
    *lines, loaded = run.stdout.splitlines()
    assert loaded == "[]"
    assert [line.split()[0] for line in lines if line[:1] not in ("", " ")][1:] == NAMES


def test_the_command_prints_and_writes(untraced, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    folder = tmp_path / "new" / "folder"
    argv = ["demo", "priors", "--quick", "--seed", "3", "--output", str(folder)]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    shown = demos.run("priors", quick=True, seed=3)
    assert shown.claim in printed
    assert " ".join(str(shown.verdict).split()) in " ".join(printed.split())
    for words in shown.to_frame()["error"]:
        assert words in printed
    assert (folder / "priors.png").read_bytes().startswith(b"\x89PNG")
    assert list(folder.iterdir()) == [folder / "priors.png"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["demo", "l1_zeros"], "Did you mean 'l1_zeroes'?"),
        (["demo", "l1_zeroes", "--seed", "-1"], "kregs: --seed must be an integer >= 0"),
        (["demo", "l1_zeros", "--seed", "-1"], "Did you mean 'l1_zeroes'?"),
        (["demo", "l1_zeroes", "--output", "/dev/null"], "kregs: --output must be a folder"),
    ],
)
def test_bad_use(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("argument", "value"), [("quick", 1), ("seed", -1), ("seed", 0.5)])
def test_bad_arguments_name_themselves(argument, value):
    with pytest.raises((TypeError, ValueError), match=f"`{argument}`"):
        demos.run("l1_zeroes", **{argument: value})


def test_parts_of_a_split_share_no_row():
    for load in (digits, diabetes):
        split = load(Scale(quick=False, seed=1), train=100, validation=50)
        parts = [split.train[0], split.validation[0], split.test[0]]
        assert [len(part) for part in parts[:2]] == [100, 50]
        rows = np.concatenate(parts)
        assert len(np.unique(rows, axis=0)) == len(rows)
        again = load(Scale(quick=False, seed=1), train=100, validation=50)
        np.testing.assert_array_equal(again.train[0], split.train[0])
        other = load(Scale(quick=False, seed=2), train=100, validation=50)
        assert (other.train[0] != split.train[0]).any()


def test_the_table_is_scaled_by_its_training_rows_alone():
    x, y = diabetes(Scale(quick=False, seed=0), train=100).train
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(y.std(), 1, atol=1e-6)


def test_full_batches_are_gradient_descent(untraced):
    """Against NumPy: an epoch of 5 steps is 5 steps on all rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)).astype("float32"), rng.normal(size=(7, 1)).astype("float32")
    model = kregs.compile_model(kregs.linear((3,)), "mse", optimizer="sgd", learning_rate=0.1)
    population = kregs.Population.from_models([model])
    options = full_batches((x, y), 5)
    population.fit(*options.pop("rows"), epochs=2, **options)
    weights, bias = np.zeros((3, 1)), 0.0
    for _ in range(10):
        residual = x @ weights + bias - y
        weights, bias = weights - 0.2 * x.T @ residual / 7, bias - 0.2 * residual.mean()
    (trained,) = population.unstack()
    np.testing.assert_allclose(trained.get_weights()[0], weights, atol=1e-6)


def test_means_are_those_of_pandas_and_readable():
    runs = pd.DataFrame({"rate": [0.1, 0.1, 0.5], "loss": [1.0, 3.0, 5.0]})
    table = means(runs, ["rate"], ["loss"])
    assert table["loss"].tolist() == [2.0, 5.0]
    assert table["loss_error"][0] == 1.0
    assert readable(table)["loss"].tolist() == ["2 ± 1", "5"]  # of one run there is no error


PAGES = {name: f"docs/taught/{name}.md" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_each_claim_has_its_page(name, repository):
    text = (repository / PAGES[name]).read_text(encoding="utf-8")
    module = importlib.import_module(f"kregs.demos.claims.{name}")
    claim = module.__doc__.partition("\n")[0].rstrip(".")
    assert text.startswith(f"# {claim}\n")
    assert f"kregs demo {name}\n" in text
    assert f"]({name}.png)" in text
    assert "Source: " in text
    picture = repository / "docs/taught" / f"{name}.png"
    assert picture.stat().st_size < 80_000


def test_the_index_has_every_claim_with_its_verdict(repository):
    index = (repository / "docs/taught/index.md").read_text(encoding="utf-8")
    for name in NAMES:
        page = (repository / PAGES[name]).read_text(encoding="utf-8")
        (verdict,) = re.findall(r"^\*\*(Holds|Holds in part|Does not hold)\*\*", page, re.M)
        (line,) = [line for line in index.splitlines() if f"]({name}.md)" in line]
        assert f"| {verdict.lower()} |" in line
