"""Rows and folders that cannot be predicted on."""

from __future__ import annotations

import dataclasses
import json

import pytest

import kregs
from kregs.tables.prediction import read_rows


@pytest.fixture
def folder(people, tmp_path):
    """The folder of a run, with nothing in it that is not read before the rows are checked."""
    table = kregs.read_table(people(), "y")
    record = {"format": 1, "columns": [dataclasses.asdict(column) for column in table.columns]}
    record |= {"classes": ["no", "yes"], "categories": {"city": ["Bonn", "Köln", "Ulm"]}}
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


def test_a_broken_pipeline_is_one_clear_error(folder, people):
    for content in (b"", b"no joblib file", b"\x80\x04\x95"):
        (folder / "preprocessing.joblib").write_bytes(content)
        with pytest.raises(ValueError, match=r"preprocessing\.joblib' cannot be read: it is br"):
            kregs.predict_table(folder, people().assign(age="30"))


def test_columns_that_are_kept(folder, people):
    with pytest.raises(ValueError, match=r"`keep` must be columns.*Did you mean 'customer'"):
        kregs.predict_table(folder, people().assign(age="30"), keep=["custommer"])
    with pytest.raises(ValueError, match="`keep` may not hold a column that the predictions have"):
        kregs.predict_table(folder, people().assign(prediction=1, age="30"), keep=["prediction"])
    none = kregs.predict_table(folder, people().iloc[:0], keep=["customer"])
    assert none.columns.tolist() == ["customer", "prediction", "probability_no", "probability_yes"]


def test_unseen_categories_are_told(people):
    columns = kregs.read_table(people(), "y").columns
    rows = people().assign(age="30", city=["Rom"] * 3 + ["Bonn", None] + ["Oslo"] * 115)
    with pytest.warns(UserWarning, match="118 of 119 values were never seen.*'Rom', 'Oslo'"):
        read_rows(rows, columns, seen={"city": ["Bonn", "Ulm"]})


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
