from __future__ import annotations

import ast
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_result import make_trials
from rich.console import Console

import kregs
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


def test_names_with_brackets_are_no_markup():
    """Also on a console of the user's, which takes strings for markup."""
    frame = pd.DataFrame({"l2[0]": [0.5], "weight [kg]": ["[/a]"], "[bold]c": [":warning:"]})
    console = Console(file=io.StringIO(), width=120)
    console.print(make_table(frame, title="[red]Trials[/]"))
    printed = console.file.getvalue()
    for text in ("l2[0]", "weight [kg]", "[/a]", "[bold]c", ":warning:", "[red]Trials[/]"):
        assert text in printed


def test_every_console_is_made_in_one_place():
    """Elsewhere rich would read markup in names."""
    package = Path(kregs.__file__).parent
    makers = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "id", None) or getattr(node.func, "attr", None))
        in ("Console", "get_console", "from_markup")
    }
    assert makers == {"reporting/console.py"}


def test_table():
    table = make_table(make_trials(), title="Trials", rows=3)
    assert table.row_count == 3
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    assert "dropout" in console.file.getvalue()
    assert [column.justify for column in table.columns][-2:] == ["left", "right"]
