"""What is loaded by what: a search's progress must not load the libraries of its report."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.resources import files

import pytest

HEAVY = "{'matplotlib', 'sklearn', 'tensorflow', 'keras', 'jinja2'}"


@pytest.mark.parametrize(
    "statement",
    [
        "import kregs.reporting.progress, kregs.reporting.tables",
        "from kregs.reporting import SearchProgress, make_table, format_value",
    ],
)
def test_progress_and_tables_load_little(statement):
    program = f"import sys; {statement}; print({HEAVY} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")


def test_figures_and_report_need_no_tensorflow():
    program = (
        "import sys, kregs.reporting.report; from kregs.reporting.figures import search_map;"
        "from kregs.reporting import search_map as same; assert same is search_map;"
        "print({'keras', 'tensorflow', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")


def test_an_unknown_name_is_an_error():
    import kregs.reporting

    with pytest.raises(AttributeError, match="no attribute 'plots'"):
        _ = kregs.reporting.plots
    assert set(dir(kregs.reporting)) >= {"search_map", "write_report"}


def test_templates_are_installed(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    assert "templates/*" in project["tool"]["setuptools"]["package-data"]["*"]
    assert any(line.startswith("jinja2") for line in project["project"]["dependencies"])
    folder = files("kregs.reporting").joinpath("templates")
    assert {path.name for path in folder.iterdir()} == {
        "report.html.j2",
        "report.css",
        "report.js",
    }
