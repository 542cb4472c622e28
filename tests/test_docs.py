"""README.md and docs/: the code runs, section by section, and prints what the pages say.

The blocks of a section are one program; those under a page's title come first in each program of
the page. Numbers differ a little from machine to machine, so that outputs are compared without
them. `<!-- slow -->` above a block of README marks its section as slow; those of docs/ all are.
The `kregs` commands take minutes: they run where KREGS_README_COMMANDS is set.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import kregs

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^(<!-- slow -->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_TIMEOUT = 300.0  # seconds a section
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg", "COLUMNS": "100"}

# one process for all quick sections, which would else import TensorFlow each
_RUNNER = """\
import contextlib, io, json, os, runpy, sys, traceback

for line in sys.stdin:
    path = json.loads(line)
    os.chdir(os.path.dirname(path))
    printed, error = io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(path)
        except BaseException:
            error = traceback.format_exc()
    sys.modules.get("keras") and sys.modules["keras"].backend.clear_session()
    print(json.dumps([printed.getvalue(), error]), flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """What stands under one heading of a page."""

    page: Path
    heading: str
    blocks: list[tuple[str, str]]  # (language, text)
    slow: bool
    first: str = ""  # the program under the page's title

    @property
    def program(self) -> str:
        own = "\n".join(text for language, text in self.blocks if language == "python")
        return f"{self.first}\n{own}" if own else ""

    @property
    def output(self) -> list[str]:
        return [
            line for language, text in self.blocks if language == "text" for line in shape_of(text)
        ]


def shape_of(text: str) -> list[str]:
    """Return the lines of an output with numbers, rulers and runs of spaces made alike."""
    lines = (re.sub(r"[\s─━┄]+", " ", _NUMBER.sub("0", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


def sections(page: Path) -> list[Section]:
    """Return the sections of a page that have blocks."""
    text = page.read_text(encoding="utf-8")
    # a comment in a block is no heading
    hidden = re.sub(r"^```.*?^```$", lambda m: "." * len(m[0]), text, flags=re.M | re.S)
    headings = list(_HEADING.finditer(hidden))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    parts = []
    for heading, end in zip(headings, ends, strict=True):
        found = _BLOCK.findall(text[heading.end() : end])
        if found:
            blocks = [(language, body) for _, language, body in found]
            slow = any(mark for mark, _, _ in found)
            first = parts[0].program if parts and parts[0].heading == headings[0][1] else ""
            parts.append(Section(page, heading[1], blocks, slow, first))
    return parts


SECTIONS = [section for page in PAGES for section in sections(page)]
WITH_PYTHON = [
    pytest.param(
        section,
        id=f"{section.page.stem}-{section.heading}",
        # those of README are quick tests, those of the other pages many minutes together
        marks=pytest.mark.nightly
        if section.page.name != "README.md"
        else (pytest.mark.slow if section.slow else pytest.mark.quick),
    )
    for section in SECTIONS
    if section.program
]
COMMANDS = [
    pytest.param(
        section,
        id=f"{section.page.stem}-{section.heading}",
        marks=pytest.mark.quick if section.page.name == "README.md" else pytest.mark.nightly,
    )
    for section in SECTIONS
    if any(kind == "bash" and re.search("^kregs ", text, re.M) for kind, text in section.blocks)
    and section.page.parent.name != "taught"  # tests/demos runs each at a tiny size
]


@pytest.fixture(scope="module")
def run_quick():
    """A function that runs a file in a process that stays, and returns (stdout, traceback)."""
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _RUNNER],
        env=os.environ | _ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def run(path: Path) -> tuple[str, str]:
            timer = threading.Timer(_TIMEOUT, process.kill)
            timer.start()
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            timer.cancel()
            return tuple(json.loads(answer)) if answer else ("", "the process ended")

        yield run
        process.stdin.close()


def run_alone(path: Path) -> tuple[str, str]:
    """Run a file as a script of its own, which may start workers."""
    run = subprocess.run(
        [sys.executable, "-P", str(path)],
        cwd=path.parent,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
    return run.stdout, run.stderr if run.returncode else ""


@pytest.mark.parametrize("section", WITH_PYTHON)
def test_code_prints_what_the_page_says(section, request, tmp_path):
    script = tmp_path / "section.py"
    script.write_text(section.program, encoding="utf-8")
    # a slow one has a process of its own
    run = run_alone if section.slow else request.getfixturevalue("run_quick")
    printed, error = run(script)
    assert not error, error
    if section.output:
        assert shape_of(printed) == section.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_are_of_known_kinds(page):
    text = page.read_text(encoding="utf-8")
    found = _BLOCK.findall(text)
    assert {language for _, language, _ in found} <= {"python", "bash", "text"}
    assert text.count("```") == 2 * len(found)
    assert text.count("<!-- slow -->") == sum(bool(slow) for slow, _, _ in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page):
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_public_name_has_its_place_in_the_api_pages():
    pages = (REPOSITORY / "docs" / "api").glob("*.md")
    listed = [
        name
        for page in pages
        for name in re.findall(r"^::: kregs\.(\w+)$", page.read_text(encoding="utf-8"), re.M)
    ]
    modules = {"__version__", *kregs._SUBPACKAGES}
    assert sorted(listed) == sorted(set(kregs.__all__) - modules)


@pytest.mark.nightly
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds(tmp_path):
    run = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert 'id="kregs.mlp"' in (tmp_path / "api" / "builders.html").read_text(encoding="utf-8")


def write_tables(folder: Path) -> None:
    """Write the tables that the commands read."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(18, 80, 120), "plan": rng.choice(list("abc"), 120)})
    frame["churned"] = np.where(frame["age"] + rng.normal(0, 10, 120) > 50, "yes", "no")
    frame.to_csv(folder / "customers.csv", index=False)
    frame.drop(columns="churned").head(5).to_csv(folder / "new_rows.csv", index=False)


@pytest.mark.skipif(
    "KREGS_README_COMMANDS" not in os.environ, reason="minutes: set KREGS_README_COMMANDS=1"
)
@pytest.mark.parametrize("section", COMMANDS)
def test_commands_run(section, tmp_path):
    write_tables(tmp_path)
    for kind, text in section.blocks:
        if kind == "python" and (name := re.match(r"# (\w+\.py)\n", text)):
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
    lines = [line for kind, text in section.blocks if kind == "bash" for line in text.splitlines()]
    for command in lines:
        if not command.startswith("kregs "):
            continue
        run = subprocess.run(
            [sys.executable, "-P", "-m", *shlex.split(command, comments=True)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert run.returncode == 0, (command, run.stderr)
