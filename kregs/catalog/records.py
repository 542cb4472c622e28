"""Records of studies: written, read, and copied into recipes, headers and README."""

from __future__ import annotations

import ast
import importlib
import json
import re
import tempfile
import textwrap
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from kregs.catalog.entries import RECIPES, STUDIES, check_name, load, run
from kregs.catalog.outcome import CONTROL, TUNED, result_line, spread
from kregs.catalog.study_runs import run_study

_WIDTH = 100  # of a line of source


def result(name: str) -> dict[str, Any]:
    """Return the record that a study wrote when it was last run for this release.

    Raises:
        ValueError: there is no such study.
        FileNotFoundError: the study has not been run.

    Example:

    >>> result("digits_mlp")["protocol"]["oracle"]
    'random'
    """
    path = resources.files(STUDIES).joinpath("results", f"{check_name(STUDIES, name)}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def record_study(name: str, *, command: str | None = None) -> Path:
    """Run a study as it stands; write its record and, in a checkout, what quotes it.

    The record goes into `kregs.tuning`'s `results/`. Then the recipe gets the values that were
    found and is timed, and headers and README the numbers: see `update_sources`.

    Args:
        name: the study.
        command: what to note as the way to do this again. Default: `python -m kregs.tuning.NAME`.

    Returns:
        The path of the JSON file.
    """
    from kregs.files import write_json

    with tempfile.TemporaryDirectory() as folder:
        record = run_study(
            name, output=folder, command=command or f"python -m {STUDIES}.{name}", log=print
        ).record
    target = Path(str(resources.files(STUDIES))) / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    write_json(target, record)
    print(result_line(record))
    print(f"written: {target}")
    if checkout() is not None:
        changed = update_sources(name)
        importlib.reload(load(name))
        started = time.perf_counter()
        run(name)
        record["seconds"]["recipe"] = round(time.perf_counter() - started, 1)
        write_json(target, record)
        for path in dict.fromkeys([*changed, *update_sources(name)]):
            print(f"updated: {path}")
    return target


# ---- what quotes a record ------------------------------------------------------------------


def checkout() -> Path | None:
    """Return the repository that recipes and studies are loaded from; `None` if installed."""
    root = Path(str(resources.files(RECIPES))).parent
    return root if (root / "pyproject.toml").is_file() else None


def update_sources(name: str) -> list[Path]:
    """Write what a study has found into its recipe, its own header and README's table.

    Args:
        name: the study; its record is read.

    Returns:
        The files that changed.

    Raises:
        RuntimeError: kregs is installed and not loaded from a checkout.
        ValueError: a file has no such place.
    """
    from kregs.files import write_text

    root = checkout()
    if root is None:
        raise RuntimeError("recipes are updated in a checkout of kregs only")
    record = result(name)
    changed = []
    for path, update in (
        (root / "recipes" / f"{name}.py", update_recipe),
        (root / "tuning" / f"{name}.py", update_study),
        (root / "README.md", update_readme),
    ):
        before = path.read_text(encoding="utf-8")
        after = update(before, record)
        if after != before:
            write_text(path, after)
            changed.append(path)
    return changed


def update_recipe(source: str, record: Mapping[str, Any]) -> str:
    """Return a recipe's source with a record's values, result and time.

    Constants have two significant digits.
    """
    best = record["best_trials"][TUNED]
    constants = {"TUNED": _regularization_source(best["regularization"]), "EPOCHS": best["epochs"]}
    if "learning_rate" in best["hyperparameters"]:
        constants["LEARNING_RATE"] = _rounded(best["hyperparameters"]["learning_rate"])
    for constant, value in constants.items():
        source = _with_constant(source, constant, str(value))
    source = _with_field(source, "Result", result_line(record))
    seconds = record["seconds"].get("recipe")
    return source if seconds is None else _with_field(source, "Time", _time(seconds, record))


def update_study(source: str, record: Mapping[str, Any]) -> str:
    """Return a study's source with the time that a record says it took."""
    seconds = sum(value for part, value in record["seconds"].items() if part != "recipe")
    return _with_field(source, "Time", _time(seconds, record))


def update_readme(text: str, record: Mapping[str, Any]) -> str:
    """Return README with a record's row in the table of the recipes."""
    row = re.compile(rf"^\| `{record['study']}` \|.*$", re.MULTILINE)
    if not row.search(text):
        raise ValueError(f"README.md has no row of `{record['study']}` in a table")
    return row.sub(lambda _: readme_row(record), text)


def readme_row(record: Mapping[str, Any]) -> str:
    """Return a record's row of README's table: its first two metrics, each tuned and not.

    Where there is one only, the last two cells are empty.
    """
    tuned, control = record["test"][TUNED], record["test"][CONTROL]
    cells = [f"`{record['study']}`"]
    for metric in list(tuned)[:2]:
        cells += [f"{metric.replace('_', ' ')} {spread(tuned[metric])}", spread(control[metric])]
    cells += [""] * (5 - len(cells))
    return f"| {' | '.join(cells)} |"


def _rounded(value: Any) -> Any:
    return float(f"{value:.2g}") if isinstance(value, float) else value


def _regularization_source(config: Mapping[str, Any]) -> str:
    """Return the Python source of a regularization, as ruff formats it."""
    from kregs import Regularization

    value = Regularization.from_config({field: _rounded(v) for field, v in config.items()})
    source = f"kregs.{value!r}".replace("'", '"')
    if len(f"TUNED = {source}") <= _WIDTH:
        return source
    opening, _, arguments = source.removesuffix(")").partition("(")
    return f"{opening}(\n    {arguments}\n)"


def _with_constant(source: str, name: str, value: str) -> str:
    """Return a source with another value of a constant of the module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            lines = source.splitlines(keepends=True)
            end = lines[node.end_lineno - 1]  # type: ignore[operator]
            comment = end[node.end_col_offset :].rstrip("\n")
            lines[node.lineno - 1 : node.end_lineno] = [f"{name} = {value}{comment}\n"]
            return "".join(lines)
    raise ValueError(f"there is no constant {name}")


def _with_field(source: str, field: str, text: str) -> str:
    """Return a source with another text of a `Field:` of its header."""
    lines = textwrap.fill(
        f"{field + ':':9} {text}", _WIDTH, subsequent_indent=" " * 10, break_on_hyphens=False
    )
    pattern = re.compile(rf"^{field}: .*(?:\n +.*)*", re.MULTILINE)
    if not pattern.search(source):
        raise ValueError(f"there is no {field}: in the header")
    return pattern.sub(lambda _: lines, source, count=1)


def _time(seconds: float, record: Mapping[str, Any]) -> str:
    duration = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    cores = record["machine"]["cores"]
    return f"{duration} on {cores} CPU core{'s' if cores > 1 else ''}"
