"""The report of a search on a table begins with the table, and ends with the call on it."""

from __future__ import annotations

import json

import matplotlib
import pytest
from fake_result import FakeResult
from page_parser import Page

from kregs.reporting import importance, write_report

RECORD = {
    "task": "classification",
    "target": "ill",
    "classes": ["no", "<b>yes"],
    "rows": {"train": 80, "test": 20},
    "split": "whole groups by 'patient', at random",
    "notes": ["4 of 104 rows left out: they have no 'ill'"],
    "warnings": ["8 of 100 rows stand in the table more than once"],
    "classes_weighted": True,
    "scaling": "quantile",
    "scaling_losses": {"robust": 0.5, "quantile": 0.25},
    "columns": [
        {
            "name": "weight [kg]",
            "kind": "number",
            "missing": 3,
            "distinct": 40,
            "note": "numbers",
            "override": "--categorical 'weight [kg]'",
        },
        {
            "name": "id",
            "kind": "dropped",
            "missing": 0,
            "distinct": 100,
            "note": "numbers the rows",
        },
    ],
    "test": {
        "network": {"accuracy": 0.9, "log_loss": 0.25},
        "most frequent class": {"accuracy": 0.6, "log_loss": 0.7},
    },
    "command": "kregs tune table --data ill.csv",
    "call": "kregs.tune_table(\n    'ill.csv',\n)",
}


@pytest.fixture
def page_of(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, file, **_: None)
    monkeypatch.setattr(importance, "_TREES", 10)
    monkeypatch.setattr(importance, "_REPEATS", 2)

    def page_of(record, **options):
        (tmp_path / "table.json").write_text(record)
        return Page(write_report(FakeResult(tmp_path), tmp_path / "page.html", **options))

    return page_of


def test_the_report_speaks_of_the_table(page_of, tmp_path):
    page = page_of(json.dumps(RECORD))
    for words in (
        "The target is ill : classification of 2 classes: no, <b>yes.",
        "80 rows were trained on, 20 were kept for the test: whole groups by 'patient', at random.",
        "4 of 104 rows left out",
        "8 of 100 rows stand in the table more than once",
        "A class is rare",
        "Numbers are scaled by quantile : a small network's loss",
        "robust 0.5, quantile 0.25",
        "1 columns were learnt from, 1 dropped",
        f"kregs predict {tmp_path} ROWS.csv",
        "kregs tune table --data ill.csv",
        "kregs.tune_table( 'ill.csv', )",
    ):
        assert words in page.text, words
    assert "kregs.tune(" not in page.text
    assert page.table("model", "accuracy") == [
        {"model": "network", "accuracy": "0.9", "log loss": "0.25"},
        {"model": "most frequent class", "accuracy": "0.6", "log loss": "0.7"},
    ]
    weight, identifier = page.table("column", "kind")
    assert weight == {
        "column": "weight [kg]",
        "kind": "number",
        "missing": "3",
        "distinct": "40",
        "why": "numbers",
        "to change it": "--categorical 'weight [kg]'",
    }
    assert identifier["why"] == "numbers the rows"


@pytest.mark.slow
def test_other_searches_have_no_table(page_of):
    for record in ("{", "{}"):
        text = page_of(record).text
        assert "The table" not in text
        assert "kregs.tune(" in text


@pytest.mark.slow
def test_a_command_that_is_given_comes_first(page_of):
    assert "kregs tune x" in page_of(json.dumps(RECORD), command="kregs tune x").text
