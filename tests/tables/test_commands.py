"""`kregs tune table` and `kregs predict`."""

from __future__ import annotations

import json
import subprocess
import sys

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


BAD_USE = [
    (["tune", "table"], "--data, --target"),
    (["tune", "table", "--data", "x.csv", "--target", "y"], "x.csv"),
    (["tune", "table", "--data", "people.csv", "--target", "z"], "Received: 'z'"),
    (["tune", "table", "--data", "people.csv", "--target", "country"], "at least two classes"),
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
