"""`kregs tune table` and `kregs predict`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import pandas as pd
import pytest

import kregs
from kregs.cli import main


def test_commands(people_csv, tmp_path, capsys, monkeypatch, people, eager):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    argv = ["tune", "table", "--data", "people.csv", "--target", "y", "--folds", "2"]
    argv += ["--max-trials", "1", "--epochs", "2", "--drop", "remark"]
    with eager():
        assert main(argv) == 0
    printed = capsys.readouterr().out
    for word in ("left out as asked", "category", "logistic regression", "24 rows that the search"):
        assert word in printed
    assert "kregs predict kregs_runs/people ROWS.csv" in printed
    assert main(argv) == 2
    assert f"kregs {' '.join(argv)} --resume" in capsys.readouterr().err

    rows = people().drop(columns="y").iloc[:5].assign(age="old")
    rows.to_csv("rows.csv", index=False)
    assert main(["predict", "kregs_runs/people", "rows.csv"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "prediction,probability_no,probability_yes"
    assert len(said.out.splitlines()) == 6
    assert "kregs: warning: column 'age': 5 of 5 values are no number" in said.err
    assert main(["predict", "kregs_runs/people", "rows.csv", "--output", "out.csv"]) == 0
    assert (tmp_path / "out.csv").read_text() == said.out


@pytest.mark.slow
def test_names_in_brackets_are_printed_and_options_reach_the_table(
    people, tmp_path, capsys, monkeypatch, eager
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    frame = people().rename(columns={"age": "weight [kg]", "city": "[/a]", "income": "[red]x"})
    frame.to_csv("people.csv", index=False, sep=";", encoding="cp1252")
    frame.iloc[:30].to_csv("test.csv", index=False, sep=";", encoding="cp1252")
    argv = ["tune", "table", "--data", "people.csv", "--target", "y", "--encoding", "cp1252"]
    argv += ["--keep", "customer", "--categorical", "since", "--test-file", "test.csv"]
    argv += ["--folds", "2", "--max-trials", "1", "--epochs", "1", "--selection", "best"]
    argv += ["--scaling", "quantile", "--max-time", "300", "--decimal", "."]
    with eager():
        assert main(argv) == 0
    printed, complaints = capsys.readouterr()
    warning = "kregs: warning: column 'weight [kg]': 1 of 30 values are no number"
    assert complaints.count(warning) == 1
    for word in (
        "│ weight [kg] │ number   │",
        "│ [/a]        │ category │",
        "│ [red]x      │ number   │",
        "--categorical 'weight [kg]'",
        "categories, as asked",
        "Test part, 30 rows that the search has not seen",
        "test rows      the rows of the test file",
    ):
        assert word in printed, word
    frame.drop(columns="y").iloc[:4].to_csv("rows.csv", index=False, sep=";", encoding="cp1252")
    assert main(["predict", "kregs_runs/people", "rows.csv", "--id", "customer"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "customer,prediction,probability_no,probability_yes"
    assert [line.split(",")[0] for line in said[1:]] == ["1000", "1001", "1002", "1003"]
    page = (tmp_path / "kregs_runs/people/report.html").read_text()
    assert "weight [kg]" in page
    assert "kregs tune table --data people.csv" in page
    assert "kregs.tune_table(" in page


def test_what_is_said_while_tensorflow_is_loaded_is_not_lost(monkeypatch, capfd):
    def predict_table(*_, **__):
        os.write(2, b"TensorFlow's first lines")
        warnings.warn("column 'city': 1 of 2 values were never seen", stacklevel=1)
        if failing:
            raise ValueError("'best.keras' cannot be read")
        return pd.DataFrame({"prediction": [1, 2]})

    monkeypatch.setitem(vars(kregs), "predict_table", predict_table)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    failing = False
    assert main(["predict", "run", "rows.csv"]) == 0
    said = capfd.readouterr()
    assert said.out == "prediction\n1\n2\n"
    assert said.err == "kregs: warning: column 'city': 1 of 2 values were never seen\n"
    failing = True
    assert main(["predict", "run", "rows.csv"]) == 2
    assert capfd.readouterr().err.splitlines() == [
        "kregs: warning: column 'city': 1 of 2 values were never seen",
        "kregs: 'best.keras' cannot be read",
    ]


BAD_USE = [
    (["tune", "table"], "--data, --target"),
    (["tune", "table", "--data", "x.csv", "--target", "y"], "x.csv"),
    (["tune", "table", "--data", "people.csv", "--target", "z"], "Received: 'z'"),
    (["tune", "table", "--data", "people.csv", "--target", "country"], "at least two classes"),
    (["tune", "table", "--data", "people.csv", "--target", "y", "--number", "agee"], "'age'"),
    (["tune", "table", "--data", "people.csv", "--target", "y", "--date", "city"], "holds no date"),
    (["tune", "table", "--data", "people.csv", "--target", "y", "--decimal", ";"], "--decimal"),
    (["tune", "table", "--data", "people.csv", "--target", "y", "--test-share", "2"], "< 1.0"),
    (["tune", "table", "--data", "people.csv", "--target", "y", "--test-file", "z.csv"], "z.csv"),
    (["predict"], "RUN"),
    (["predict", "nowhere", "people.csv"], "nowhere"),
    (["predict", ".", "people.csv"], "no table.json"),
]


def test_bad_use_loads_no_tensorflow(people_csv):
    program = (
        "import contextlib, io, json, sys; from kregs.cli import main\n"
        f"for argv in {[argv for argv, _ in BAD_USE]!r}:\n"
        "    out, error = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):\n"
        "        code = main(argv)\n"
        "    loaded = sorted({'tensorflow', 'keras'} & set(sys.modules))\n"
        "    print(json.dumps([code, out.getvalue(), error.getvalue(), loaded]))"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=people_csv.parent
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    for line, (argv, message) in zip(run.stdout.splitlines(), BAD_USE, strict=True):
        code, out, error, loaded = json.loads(line)
        assert (code, out, loaded) == (2, "", []), argv
        assert error.startswith("kregs: "), argv
        assert error.count("\n") == 1, argv
        assert message in error
