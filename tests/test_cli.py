"""The command `kregs`: exit codes, what it prints, what it leaves."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import webbrowser
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

import kregs
from kregs import catalog
from kregs.cli import main
from kregs.cli.doctor import README_SECTION
from kregs.cli.terminal import interrupts_repeated, make_console
from kregs.reporting import make_table
from kregs.search.storage import LOCK_FILE


def test_list_names_every_recipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for entry in catalog.recipes():
        line = next(line for line in printed.splitlines() if line.startswith(entry.name))
        assert entry.summary[:40] in line


def test_show_prints_the_source(capsys):
    assert main(["show", "forkme"]) == 0
    assert capsys.readouterr().out == catalog.show("forkme")


def test_copy(capsys, tmp_path):
    assert main(["copy", "forkme", str(tmp_path)]) == 0
    assert str(tmp_path / "forkme.py") in capsys.readouterr().out
    assert main(["copy", "forkme", str(tmp_path)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["copy", "forkme", str(tmp_path), "--force"]) == 0


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kregs {kregs.__version__}\n"
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for word in (
        "list",
        "show",
        "run",
        "tune",
        "tune table",
        "predict",
        "report",
        "copy",
        "doctor",
    ):
        assert word in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "COMMAND"),
        (["lst"], "'list'"),
        (["show"], "NAME"),
        (["show", "digit_mlp"], "Did you mean 'digits_mlp'?"),
        (["run", "digit_mlp"], "Did you mean 'digits_mlp'?"),
        (["tune", "digit_mlp"], "Did you mean 'digits_mlp'?"),
        (["copy", "digit_mlp"], "Did you mean 'digits_mlp'?"),
        (["copy", "digits_mlp", "no/such/folder/file.py"], "no/such/folder"),
        (["run", "forkme", "--seed", "-1"], "Received: --seed -1"),
        (["run", "forkme", "--seed", "x"], "'x'"),
        (["run", "forkme", "--quik"], "--quik"),
        (["tune", "forkme", "--max-trials", "0"], "Received: --max-trials 0"),
        (["tune", "forkme", "--epochs", "0"], "Received: --epochs 0"),
        (["tune", "forkme", "--seeds", "0"], "Received: --seeds 0"),
        (["tune", "forkme", "--test-seeds", "0"], "Received: --test-seeds 0"),
        (["tune", "forkme", "--oracle", "baysian"], "Did you mean 'bayesian'?"),
        (["tune", "forkme", "--output", "/dev/null"], "/dev/null"),
        (["tune", "nowhere.py"], "'nowhere.py' does not exist"),
        (["tune", "no/such/file"], "'no/such/file' does not exist"),
        (["report"], "RUN"),
        (["report", "nowhere"], "nowhere"),
        (["report", "."], "result.json"),
    ],
)
def test_bad_use_is_exit_2_and_one_line(argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("kregs: ")
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        (
            ["tune", "digits_mlp", "--max-trials", "0", "--epochs", "-1", "--folds", "1"],
            ["--max-trials must be an integer >= 1", "--epochs must be", "Received: --folds 1"],
        ),
        (
            ["tune", "forkme", "--seeds", "x", "--max-time", "-3", "--oracle", "baysian"],
            ["--seeds 'x'", "--max-time must be a finite number > 0", "Did you mean 'bayesian'?"],
        ),
        (
            ["tune", "forkme", "--selection", "bset", "--workers", "0", "--seed", "1.5"],
            ["Did you mean 'best'?", "--workers 0", "--seed must be an integer >= 0"],
        ),
        (
            ["tune", "table", "--data", "no.csv", "--target", "a", "--folds", "0", "--seed", "-1"],
            ["--folds 0", "--seed -1"],
        ),
        (
            ["tune", "digit_mlp", "--epochs", "0"],
            ["Did you mean 'digits_mlp'?", "--epochs must be an integer >= 1"],
        ),
        (["run", "forkme", "--seed", "x"], ["--seed must be an integer >= 0"]),
        # a path, though no recipe is named so
        (["tune", os.path.join(".", "mine"), "--epochs", "0"], ["Received: --epochs 0"]),
    ],
)
def test_all_that_is_wrong_is_said_at_once(argv, messages, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert len(lines) == len(messages)
    assert all(line.startswith("kregs: ") for line in lines)
    for message in messages:
        assert sum(message in line for line in lines) == 1, message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "argv",
    [
        ["tune", "forkme", "--folds", "100000"],
        ["tune", "forkme", "--output", "file.txt"],
        ["tune", "forkme", "--output", "file.txt/deeper", "--epochs", "1"],
        ["tune", "table", "--data", "file.txt", "--target", "b"],
        ["tune", "table", "--data", "table.csv", "--target", "y", "--folds", "500"],
        ["tune", "table", "--data", "table.csv", "--target", "y", "--task", "regresion"],
        ["tune", "table", "--data", "table.csv", "--target", "y", "--drop", "z"],
        ["tune", "digits_mlp", "--selection", "one_standard_error", "--output", "runs/deeper"],
    ],
)
def test_a_refused_command_leaves_no_folder(argv, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.txt").write_text("no table")
    rows = [f"{number},{'ab'[number % 2]}" for number in range(60)]
    (tmp_path / "table.csv").write_text("\n".join(["x,y", *rows]))
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "table.csv"]


BRACKETS = ["[a]", "[/b]", "weight [kg]"]


@pytest.mark.nightly
def test_names_with_brackets_are_printed_as_they_are(capsys, monkeypatch, tmp_path):
    """Columns, classes and folders of a table, from the first line to the predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    rng = np.random.default_rng(0)
    classes = np.array(BRACKETS[:2])[rng.integers(0, 2, 60)]
    frame = pd.DataFrame({
        "weight [kg]": rng.normal(size=60), "[/b]": rng.normal(size=60), "[bold]c": classes,
    })  # fmt: skip
    frame.to_csv("rows[0].csv", index=False)
    argv = ["tune", "table", "--data", "rows[0].csv", "--target", "[bold]c", "--folds", "2"]
    assert main([*argv, "--max-trials", "1", "--epochs", "1", "--output", "[/runs]"]) == 0
    printed = capsys.readouterr().out
    for text in ("weight [kg]", " [/b] ", "of '[bold]c', 2 classes", "[/runs]/rows[0]/best.keras"):
        assert text in printed
    assert main(["predict", "[/runs]/rows[0]", "rows[0].csv"]) == 0
    assert capsys.readouterr().out.startswith("prediction,probability_[/b],probability_[a]\n")


def test_trials_of_names_with_brackets_are_printed_as_they_are(capsys, monkeypatch, tmp_path):
    def build(hp):
        r = kregs.Regularization(l2=hp.Float("l2[0]", 1e-5, 1e-2, sampling="log"))
        hp.Choice("[/kind]", ["[bold]x", "[/]"])
        return kregs.compile_model(kregs.linear((2,), 1, regularization=r), "mse")

    x = np.random.default_rng(0).normal(size=(30, 2)).astype("float32")
    monkeypatch.setenv("COLUMNS", "200")
    result = kregs.tune(
        build, x, x[:, 0], max_trials=2, epochs=1, directory=tmp_path, verbose=2, project_name="[0]"
    )
    progress = capsys.readouterr().out
    make_console().print(make_table(result.trials(), title="[bold]trials"))
    table = capsys.readouterr().out
    assert "l2[0]=" in progress
    assert "[/kind]=[" in progress
    for text in ("[bold]trials", "l2[0]", "[/kind]", result.trials()["[/kind]"][0]):
        assert text in table


def test_failed_download_is_one_line(capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise Exception("URL fetch failure on https://example.org/x.npz: None -- no route")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", fail)
    assert main(["run", "fashion_mnist_convnet", "--quick"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "could not be downloaded" in error


def test_run_prints_the_scores(capsys):
    assert main(["run", "forkme", "--quick", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Device: ")
    assert "test accuracy" in printed


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The folder of a finished `kregs tune`, and what it printed; do not write into it."""
    output = tmp_path_factory.mktemp("runs")
    argv = ["tune", "forkme", "--max-trials", "3", "--epochs", "4", "--folds", "2"]
    argv += ["--test-seeds", "2"]
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code = main([*argv, "--output", str(output)])
    assert (code, errors.getvalue()) == (0, "")
    return output / "forkme", printed.getvalue()


@pytest.mark.nightly
def test_tune_prints_trials_scores_and_paths(tuned):
    folder, printed = tuned
    flat = "".join(printed.split())
    for name in ("best.keras", "tuned.keras", "trials.csv", "result.json", "report.html"):
        assert str(folder / name) in flat
        assert (folder / name).stat().st_size > 0
    for word in ("tuned", "unregularized", "accuracy", "learning rate", "dropout"):
        assert word in printed
    assert printed.index("data loss") < printed.index("accuracy")  # the objective is the first


def test_tune_ends_with_the_diagnosis_the_audit_and_one_next_step(tuned):
    folder, printed = tuned
    lines = printed.splitlines()
    result = kregs.load_result(folder)
    headline = f"Diagnosis of trial {result.chosen_trial}: {result.diagnosis().headline}"
    assert headline in lines
    findings = result.findings()
    assert set(findings["severity"]) <= {"info"}  # or a recipe has a fault
    after = lines[lines.index(headline) :]
    assert f"Audit of the model: {len(findings)} info" in after
    assert [line.split()[0] for line in after if line.startswith("  KR")] == list(findings["code"])
    assert lines[-1].startswith("Next step: ")


def test_tune_prints_both_networks_with_length_and_learning_rate(tuned):
    folder, printed = tuned
    best = json.loads((folder / "study.json").read_text())["best_trials"]
    rows = {cells[1].strip(): cells[2:4] for line in printed.splitlines()
            if len(cells := line.split("│")) == 5}  # fmt: skip
    for column, kind in enumerate(("tuned", "unregularized")):
        assert int(rows["epochs"][column]) == best[kind]["epochs"]
        rate = best[kind]["hyperparameters"]["learning_rate"]
        assert float(rows["learning rate"][column]) == pytest.approx(rate, rel=1e-3)
    found = kregs.Regularization.from_config(best["tuned"]["regularization"])
    assert f"regularization={found!r}, learning_rate=" in printed


def test_every_path_that_tune_prints_is_there(tuned):
    folder, printed = tuned
    paths = [path for path in printed.split() if path.startswith(str(folder))]
    assert len(paths) == 8
    for path in paths:
        assert Path(path).stat().st_size > 0, path


def test_tune_leaves_a_model_that_scores_what_the_record_says(tuned):
    folder, _ = tuned
    record = json.loads((folder / "study.json").read_text())
    model = keras.models.load_model(folder / "tuned.keras")
    _, (x, y) = catalog.load("forkme").load_data()
    probabilities = model.predict(x, verbose=0)
    test = record["test"]["tuned"]
    accuracy = np.mean(probabilities.argmax(axis=1) == y)
    assert accuracy == pytest.approx(test["accuracy"]["values"][0])
    cross_entropy = -np.log(probabilities[np.arange(len(y)), y]).mean()
    assert cross_entropy == pytest.approx(test["data_loss"]["values"][0], rel=1e-4)
    assert len(test["accuracy"]["values"]) == 2
    trials = pd.read_csv(folder / "trials.csv")
    assert len(trials) == 3
    assert record["trials"] == {kind: {"completed": 3} for kind in ("tuned", "unregularized")}


def test_unregularized_differs_only_by_the_penalties(tuned):
    folder, _ = tuned
    best = json.loads((folder / "study.json").read_text())["best_trials"]["unregularized"]
    regularization = kregs.Regularization.from_config(best["regularization"])
    model = catalog.load("forkme").make_model(regularization, seed=0)
    assert not model.losses
    assert not [layer for layer in model.layers if "dropout" in layer.name]


def test_an_earlier_run_is_never_overwritten(tuned, capsys):
    folder, _ = tuned
    before = (folder / "result.json").read_bytes()
    assert main(["tune", "forkme", "--output", str(folder.parent)]) == 2
    error = capsys.readouterr().err
    assert f"kregs tune forkme --output {folder.parent} --resume" in error
    assert (folder / "result.json").read_bytes() == before


def test_the_lock_that_a_killed_process_left_is_no_earlier_run(capsys, monkeypatch, tmp_path):
    """As for `kregs.tune`, which takes it over."""
    (tmp_path / "forkme").mkdir()
    (tmp_path / "forkme" / LOCK_FILE).write_text("{}")
    begun = []

    def begin(name, **options):
        begun.append(options["output"])
        raise ValueError("it has begun")

    monkeypatch.setattr(catalog, "run_study", begin)
    assert main(["tune", "forkme", "--output", str(tmp_path)]) == 2
    assert "it has begun" in capsys.readouterr().err
    assert begun == [str(tmp_path)]
    (tmp_path / "forkme" / "result.json").write_text("{}")
    assert main(["tune", "forkme", "--output", str(tmp_path)]) == 2
    assert "holds an earlier run" in capsys.readouterr().err
    assert len(begun) == 1


def test_a_file_in_the_way_of_the_folder_is_refused(capsys, tmp_path):
    (tmp_path / "forkme").write_text("mine")
    assert main(["tune", "forkme", "--epochs", "1", "--output", str(tmp_path)]) == 2
    assert "must be a folder that can be written" in capsys.readouterr().err
    assert (tmp_path / "forkme").read_text() == "mine"


@pytest.fixture
def documented_file(repository, tmp_path):
    """The file in docs/command-line.md, in a folder of its own."""
    page = (repository / "docs" / "command-line.md").read_text(encoding="utf-8")
    text = re.search(r"```python\n(# my_model\.py\n.*?)```", page, re.DOTALL)[1]
    path = tmp_path / "project" / "my_model.py"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.nightly  # four searches
def test_tune_takes_a_file_from_another_folder(documented_file, tmp_path, capsys, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    argv = ["tune", "../project/my_model.py", "--epochs", "2", "--test-seeds", "2"]
    assert main([*argv, "--max-trials", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Test set, 45 examples: mean ± sd of 2 seeds" in printed
    assert "Best trials without regularization" in printed
    assert "regularization=Regularization(" in printed
    folder = Path("kregs_runs", "my_model")
    record = json.loads((folder / "study.json").read_text())
    assert record["protocol"]["folds"] == 3  # PROTOCOL's
    assert record["protocol"]["epochs"] == 2  # the command's, not PROTOCOL's

    assert main([*argv, "--max-trials", "2"]) == 2
    assert "kregs tune ../project/my_model.py" in capsys.readouterr().err
    assert main([*argv, "--max-trials", "2", "--resume"]) == 0
    capsys.readouterr()
    for search in (folder, folder / "unregularized"):
        assert len(pd.read_csv(search / "trials.csv")) == 2


@pytest.fixture
def copied_search(tuned, tmp_path):
    """A copy of the finished search, to be written into."""
    return Path(shutil.copytree(tuned[0], tmp_path / "search"))


def test_report_is_written_again(copied_search, capsys):
    page = copied_search / "report.html"
    written_by_tune = page.read_text(encoding="utf-8")
    page.unlink()
    assert main(["report", str(copied_search)]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    page_again = page.read_text(encoding="utf-8")
    record = json.loads((copied_search / "study.json").read_text())
    other = copied_search / "unregularized" / "report.html"
    other_by_tune = other.read_text(encoding="utf-8")
    assert main(["report", str(other.parent)]) == 0
    capsys.readouterr()
    for text in (written_by_tune, page_again, other_by_tune, other.read_text(encoding="utf-8")):
        assert record["command"] in text
        assert "Test set, 89 examples: mean ± sd of 2 seeds" in text
        for scores in record["test"].values():
            assert catalog.spread(scores["data_loss"]) in text


def test_report_of_a_search_that_still_runs(copied_search, capsys):
    (copied_search / "study.json").unlink()
    state = json.loads((copied_search / "trial_2" / "trial.json").read_text())
    (copied_search / "trial_2" / "trial.json").write_text(
        json.dumps(state | {"status": "RUNNING", "score": None})
    )
    assert main(["report", str(copied_search)]) == 0
    assert "2 of 3" in repr(kregs.load_result(copied_search))
    assert (copied_search / "report.html").stat().st_size > 0
    capsys.readouterr()


def test_report_opens_a_browser(copied_search, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    monkeypatch.chdir(copied_search.parent)
    assert main(["report", "search", "--open"]) == 0
    assert opened == [(copied_search / "report.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert main(["report", "search", "--open"]) == 1
    assert "browser" in capsys.readouterr().err


def test_report_of_a_search_without_a_completed_trial(copied_search, capsys):
    for state_file in copied_search.glob("trial_*/trial.json"):
        state = json.loads(state_file.read_text())
        state_file.write_text(json.dumps(state | {"status": "RUNNING", "score": None}))
    assert main(["report", str(copied_search)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no trial" in error


@pytest.mark.nightly  # an interrupted search is tested in tests/search, here the command
def test_interrupt_keeps_the_trials_and_says_how_to_go_on(tmp_path, capsys, start_interruptible):
    argv = ["tune", "forkme", "--max-trials", "40", "--epochs", "12", "--folds", "2"]
    argv += ["--test-seeds", "1", "--output", str(tmp_path / "runs")]
    folder = tmp_path / "runs" / "forkme"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    with start_interruptible(
        [sys.executable, "-P", "-m", "kregs", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("trial_*/training.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        try:
            _, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert error.count("\n") == 1  # nor has TensorFlow logged anything
    said, _, command = error.strip().partition("Go on: ")
    finished = len(list(folder.glob("trial_*/training.json")))
    assert f"{finished} finished trials kept" in said
    assert shlex.split(command) == ["kregs", *argv, "--resume"]

    assert finished < 40
    assert main([*argv, "--resume"]) == 0
    capsys.readouterr()
    trials = pd.read_csv(folder / "trials.csv")
    assert trials["status"].tolist() == ["completed"] * 40


@pytest.fixture
def interruptible():
    """Let this process obey SIGINT, also where it was started to ignore it."""
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, inherited)


def test_an_interrupt_in_a_destructor_is_not_lost(interruptible):
    class Destroyed:
        def __del__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), interrupts_repeated():  # noqa: PT012
        destroyed = Destroyed()
        del destroyed
        for _ in range(500):
            time.sleep(0.01)


def test_doctor_is_well(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for package in ("tensorflow", "keras", "keras-tuner", "tensorboard"):
        assert f"{package:14} {importlib.metadata.version(package)}" in printed
    assert "Device: " in printed


@pytest.mark.parametrize(
    ("package", "version", "message"),
    [
        ("tensorboard", None, "tensorboard is missing"),
        ("keras", "3.13.2", "keras 3.13.2 is too old"),
        ("keras-tuner", "1.4.7", "keras-tuner 1.4.7 is too old"),
    ],
)
def test_doctor_says_what_is_wrong(package, version, message, capsys, monkeypatch):
    real = importlib.metadata.version

    def fake(name):
        if name != package:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", fake)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert f"problem: {message}" in printed
    assert printed.endswith(f'see README.md, "{README_SECTION}"\n')
    assert printed.count("problem: ") == 1


def test_what_trains_nothing_loads_no_tensorflow(tmp_path):
    commands = [["--help"], ["list"], ["show", "forkme"], ["copy", "forkme"], ["tune", "x"]]
    program = (
        "import sys; from kregs.cli import main\n"
        f"for argv in {commands!r}:\n"
        "    main(argv)\n"
        "    loaded = {'tensorflow', 'keras', 'keras_tuner'} & set(sys.modules)\n"
        "    print('LOADED', *loaded, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    said = [line for line in run.stderr.splitlines() if line.startswith("LOADED")]
    assert said == ["LOADED"] * len(commands)
