from __future__ import annotations

import io

import numpy as np
import pytest
from fake_result import make_trials
from rich.console import Console

from kregs.reporting import format_duration, format_value, make_table


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.float64(1e-6), "1.00e-06"),
        (np.int64(3), "3"),
        (np.True_, "yes"),
        (0.0, "0"),
        (float("nan"), "-"),
        (None, "-"),
        ("batch", "batch"),
    ],
)
def test_format_value(value, words):
    assert format_value(value) == words


def test_format_duration():
    assert [format_duration(s) for s in (9.96, 59.4, 59.9, 3599.9)] == [
        "10.0 s",
        "59 s",
        "1 min 0 s",
        "1 h 0 min",
    ]


def test_table():
    table = make_table(make_trials(), title="Trials", rows=3)
    assert table.row_count == 3
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    assert "dropout" in console.file.getvalue()
    assert [column.justify for column in table.columns][-2:] == ["left", "right"]
