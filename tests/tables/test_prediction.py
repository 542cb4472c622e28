"""Rows and folders that cannot be predicted on."""

from __future__ import annotations

import dataclasses
import json

import pytest

import kregs


@pytest.fixture
def folder(people, tmp_path):
    """The folder of a run, with nothing in it that is not read before the rows are checked."""
    table = kregs.read_table(people(), "y")
    record = {"format": 1, "columns": [dataclasses.asdict(column) for column in table.columns]}
    run = tmp_path / "run"
    run.mkdir()
    (run / "table.json").write_text(json.dumps(record))
    for name in ("best.keras", "preprocessing.joblib"):
        (run / name).touch()
    return run


def test_unfit_rows(folder, people, tmp_path):
    with pytest.raises(ValueError, match="lack columns 'age', 'city'"):
        kregs.predict_table(folder, people().drop(columns=["age", "city"]))
    renamed = people().rename(columns={"income": "incomes"})
    with pytest.raises(ValueError, match=r"lack column 'income'.*Did you mean 'incomes'"):
        kregs.predict_table(folder, renamed)
    with pytest.raises(FileNotFoundError, match=r"rows\.csv"):
        kregs.predict_table(folder, tmp_path / "rows.csv")


def test_unfit_folders(folder, people, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        kregs.predict_table(tmp_path / "nowhere", people())
    with pytest.raises(ValueError, match=r"no finished run.*no table\.json"):
        kregs.predict_table(tmp_path, people())
    (folder / "table.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        kregs.predict_table(folder, people())
    (folder / "table.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="format 99"):
        kregs.predict_table(folder, people())
    (folder / "best.keras").unlink()
    with pytest.raises(ValueError, match=r"no best\.keras"):
        kregs.predict_table(folder, people())
