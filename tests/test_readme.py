"""README.md: its code runs, section by section, and prints what it says there.

Numbers differ a little from machine to machine, so that outputs are compared without them. The
`kregs` commands in it take minutes: they run where KREGS_README_COMMANDS is set.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return the code blocks, as (language, text), by the heading they stand under."""
    parts = re.split(r"^#+ (.+)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    blocks = {
        heading: _BLOCK.findall(body)
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {heading: found for heading, found in blocks.items() if found}


def shape_of(text: str) -> list[str]:
    """Return the lines of an output with numbers, rulers and runs of spaces made alike."""
    lines = (re.sub(r"[\s─━┄]+", " ", _NUMBER.sub("0", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


SECTIONS = sections()
WITH_PYTHON = [h for h, blocks in SECTIONS.items() if any(kind == "python" for kind, _ in blocks)]
COMMANDS = [
    line
    for blocks in SECTIONS.values()
    for kind, text in blocks
    if kind == "bash"
    for line in text.splitlines()
    if line.startswith("kregs ")
]


def test_blocks_are_of_known_kinds():
    kinds = {kind for blocks in SECTIONS.values() for kind, _ in blocks}
    assert kinds <= {"python", "bash", "text"}
    assert len(WITH_PYTHON) >= 2
    assert COMMANDS


def test_set_up_is_two_commands():
    first = next(iter(SECTIONS.values()))[0]
    assert first == (
        "bash",
        "pip install . && kregs tune digits_mlp    # searches, compares on test data, saves\n"
        'pip install ".[test]" && pytest           # the tests\n',
    )


@pytest.mark.parametrize("heading", WITH_PYTHON)
def test_python_blocks_print_what_they_say(heading, tmp_path):
    program, expected = "", []
    for kind, text in SECTIONS[heading]:
        if kind == "python":
            program += text + "\n"
        elif kind == "text":
            expected += shape_of(text)
    run = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    if expected:
        assert shape_of(run.stdout) == expected


def write_tables(folder):
    """Write the tables that the commands read."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 80, 120), "plan": rng.choice(list("abc"), 120)})
    frame["churned"] = np.where(frame["age"] + rng.normal(0, 10, 120) > 50, "yes", "no")
    frame.to_csv(folder / "customers.csv", index=False)
    frame.drop(columns="churned").head(5).to_csv(folder / "new_rows.csv", index=False)


@pytest.mark.skipif(
    "KREGS_README_COMMANDS" not in os.environ, reason="minutes: set KREGS_README_COMMANDS=1"
)
def test_commands_run(tmp_path):
    write_tables(tmp_path)
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        run = subprocess.run(
            [sys.executable, "-P", "-m", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert run.returncode == 0, (command, run.stderr)
