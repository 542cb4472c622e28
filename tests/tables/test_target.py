"""The target of a table: its task, its classes, the rows that are left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import kregs


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        ([0, 1], "classification", [0, 1]),
        (["1", "2"], "classification", [1, 2]),
        (["1.5", "2.25"], "regression", None),
        ([True, False], "classification", [0, 1]),
        (["b", "a"], "classification", ["a", "b"]),
        (range(40), "regression", None),
    ],
)
def test_the_task_is_guessed(values, task, classes):
    values = list(values)
    frame = pd.DataFrame({"x": np.cos(range(40)), "y": values * (40 // len(values))})
    table = kregs.read_table(frame, "y")
    assert (table.task, table.classes) == (task, classes)
    assert any("by the look" in note for note in table.notes)


def test_rows_without_a_target_and_of_rare_classes_are_left_out():
    frame = pd.DataFrame({"x": np.cos(range(44)), "y": ["a", "b"] * 20 + ["c", "d", "d", None]})
    table = kregs.read_table(frame, "y")
    assert table.classes == ["a", "b"]
    assert len(table.features) == len(table.target) == 40
    notes = " ".join(table.notes)
    assert "1 of 44 rows left out: they have no 'y'" in notes
    assert "3 rows left out: fewer than 3 of class 'c', 'd'" in notes
