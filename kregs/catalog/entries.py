"""Recipes and studies as files: their headers, their sources, copies of them, and running one.

Listing, showing and copying read the files and import nothing of them: TensorFlow stays unloaded.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from kregs.validation import check_flag, check_path, check_seed, suggestion

if TYPE_CHECKING:
    from types import ModuleType

RECIPES = "kregs.recipes"
STUDIES = "kregs.tuning"
CLAIMS = "kregs.demos.claims"
_KINDS = {RECIPES: "recipe", STUDIES: "study", CLAIMS: "demo"}
_HEADER_LINE = re.compile(r"^([A-Z][a-z]+): +(.+(?:\n +.+)*)", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One recipe, study or demo, as its file's docstring describes it.

    Args:
        name: the file's name without `.py`.
        summary: the docstring's first line.
        fields: the header's `Key: value` lines, keys in lower case: `command`, `time`, `result`,
            `data`, `source`.
    """

    name: str
    summary: str
    fields: Mapping[str, str]


def recipes() -> list[Entry]:
    """Return every recipe, sorted by name.

    Example:

    >>> [entry.name for entry in recipes()][:2]
    ['breast_cancer_mlp', 'diabetes_elastic_net']
    """
    return entries(RECIPES)


def studies() -> list[Entry]:
    """Return every study, sorted by name; a study is called like the recipe that it tunes."""
    return entries(STUDIES)


def show(name: str) -> str:
    """Return a recipe's source; `ValueError` with the nearest name if there is none.

    Example:

    >>> "def make_model(" in show("digits_mlp")
    True
    """
    return _source(RECIPES, check_name(RECIPES, name))


def copy(name: str, destination: str | os.PathLike[str] = ".", *, force: bool = False) -> Path:
    """Copy a recipe's file, for use in another project.

    Args:
        name: the recipe.
        destination: a folder that exists, or the path of the new file.
        force: overwrite a file that exists.

    Returns:
        The path of the copy.

    Raises:
        ValueError: there is no such recipe.
        FileExistsError: the file exists and `force` is not set.
        FileNotFoundError: the folder does not exist.

    Example:

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> copy("digits_mlp", folder).name
    'digits_mlp.py'
    """
    from kregs.files import write_text

    source = show(name)
    target = check_path("destination", destination)
    if target.is_dir():
        target = target / f"{name}.py"
    if not target.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(target.parent)!r} does not exist")
    if target.exists() and not force:
        raise FileExistsError(f"{str(target)!r} exists; pass force=True to overwrite it")
    write_text(target, source)
    return target


def load(name: str) -> ModuleType:
    """Import a recipe and return its module; `ValueError` if there is no such recipe."""
    return importlib.import_module(f"{RECIPES}.{check_name(RECIPES, name)}")


def run(name: str, *, quick: bool = False, seed: int = 0) -> dict[str, float]:
    """Run a recipe: train its tuned model, print and return what it scores on the test set.

    Args:
        name: the recipe.
        quick: a few seconds on a small subset, to see that it runs.
        seed: of the weights, the dropout and the order of batches: integer >= 0.

    Raises:
        ValueError: there is no such recipe.
    """
    seed = check_seed("seed", seed)
    check_flag("quick", quick)
    recipe = load(name)

    import keras

    from kregs.search.randomness import preserved_state

    with preserved_state():
        keras.utils.set_random_seed(seed)  # the order of batches, which `main` leaves to Keras
        return recipe.main(quick=quick, seed=seed)


def entries(package: str) -> list[Entry]:
    """Return what the modules of a package say in their docstrings, sorted by name."""
    return [_entry(name, _source(package, name)) for name in _names(package)]


def _entry(name: str, source: str) -> Entry:
    docstring = ast.get_docstring(ast.parse(source)) or ""
    fields = {key.lower(): " ".join(text.split()) for key, text in _HEADER_LINE.findall(docstring)}
    return Entry(name=name, summary=docstring.partition("\n")[0], fields=fields)


def _names(package: str) -> list[str]:
    files = (path.name for path in resources.files(package).iterdir())
    names = sorted(f.removesuffix(".py") for f in files if f.endswith(".py") and f[0] != "_")
    # a study without a recipe is of something else, and has a command line of its own
    return [n for n in names if n in _names(RECIPES)] if package == STUDIES else names


def _source(package: str, name: str) -> str:
    return resources.files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")


def check_name(package: str, name: str) -> str:
    """Return the name if the package has a module of it; else `ValueError` with the nearest."""
    known = _names(package)
    if name not in known:
        raise ValueError(
            f"there is no {_KINDS[package]} {name!r}.{suggestion(name, known)} "
            f"Known: {', '.join(known)}"
        )
    return name
