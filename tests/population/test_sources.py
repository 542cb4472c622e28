"""Rules that the sources of `kregs.population` keep: what they name and what they import."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import kregs.population

FOLDER = Path(kregs.population.__file__).parent
INTERNALS = FOLDER / "keras_internals.py"
SOURCES = sorted(FOLDER.rglob("*.py"))
ABOVE = ("search", "builders", "reporting", "estimators", "tables", "cli", "catalog")
READ_BY_NAME = ("getattr", "hasattr", "setattr", "attrgetter")


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def private_names(tree):
    """Private attributes of anything but the object or class itself, and imports of `keras.src`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call):
            function = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for argument in node.args if function in READ_BY_NAME else ():
                if isinstance(argument, ast.Constant) and is_private(str(argument.value)):
                    yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else names
            hidden = any(module.startswith("keras.src") for module in modules)
            if hidden or any(map(is_private, names)):
                yield f"line {node.lineno}: {ast.unparse(node)}"


# each promise of the engine's docstring is a line, and below it are its tests
_, _, PROMISES = kregs.population.__doc__.partition("in `tests/population/`:\n\n")
PROVEN = re.findall(r"(\S+\.py)::(test_\w+)", PROMISES)


@pytest.mark.parametrize(("file", "name"), PROVEN, ids=map("::".join, PROVEN))
def test_what_proves_a_promise_is_there(file, name):
    tree = ast.parse((Path(__file__).parent / file).read_text())
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_each_promise_is_proven():
    by_promise = re.split(r"^(?=\S)", PROMISES.strip(), flags=re.M)
    assert len(by_promise) >= 11
    assert [promise for promise in by_promise if promise and "::test_" not in promise] == []


def test_the_rule_sees_each_way():
    source = """
from keras.src.ops import numpy
from kregs.population.lane import _total
model._functional
getattr(tensor, "_keras_mask", None)
import keras.src
self._own, cls._own, keras.ops.abs
"""
    assert len(list(private_names(ast.parse(source)))) == 5


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_private_names_are_in_one_file(path):
    names = list(private_names(ast.parse(path.read_text())))
    if path == INTERNALS:
        assert names  # else the file has lost its purpose
    else:
        assert names == []


def test_every_private_name_says_why():
    tree = ast.parse(INTERNALS.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if "Why: " not in (ast.get_docstring(f) or "")] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_nothing_above_is_imported(path):
    """The engine knows no search, no builders and no reports."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    above = [m for m in modules if m.startswith(tuple(f"kregs.{name}" for name in ABOVE))]
    assert above == []
    assert not any(module.split(".")[0] == "keras_tuner" for module in modules)
