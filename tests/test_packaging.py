"""What is installed: every module, the command, the types, and nothing that loads too much."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from importlib.resources import files

import pytest

import kregs


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_with_modules_is_a_package(project, repository):
    setuptools = project["tool"]["setuptools"]
    places = {"kregs.recipes": "recipes", "kregs.tuning": "tuning"}
    assert setuptools["package-dir"] == places
    folders = {
        ".".join(path.parent.relative_to(repository).parts)
        for path in (repository / "kregs").rglob("__init__.py")
    }
    assert set(setuptools["packages"]) == folders | set(places)


def test_version_is_the_same_everywhere(project, repository):
    assert project["project"]["version"] == kregs.__version__
    assert importlib.metadata.version("kregs") == kregs.__version__
    changes = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{kregs.__version__}]" in changes


def test_data_files_are_installed():
    assert files("kregs").joinpath("py.typed").is_file()
    results = [path.name for path in files("kregs.tuning").joinpath("results").iterdir()]
    assert "digits_mlp.json" in results


def test_command_is_installed():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="kregs")
    assert entry.load() is importlib.import_module("kregs.cli").main


@pytest.mark.parametrize("name", kregs.__all__)
def test_every_public_name_loads(name):
    assert getattr(kregs, name) is not None
    assert name in dir(kregs)


def test_unknown_name_says_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean 'convnet'"):
        _ = kregs.convnett


def test_import_loads_no_tensorflow():
    program = (
        "import sys, kregs; kregs.Regularization(l2=0.1);"
        "print({'tensorflow', 'keras', 'keras_tuner', 'numpy'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("set()\n", "")
