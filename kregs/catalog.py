"""Recipes and studies: list, show, copy and run what ships as `kregs.recipes` and `kregs.tuning`.

Listing, showing and copying read the files and import nothing of them: TensorFlow stays unloaded.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kregs.validation import check_integer, suggestion

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

    from kregs.search import SearchResult

_RECIPES = "kregs.recipes"
_STUDIES = "kregs.tuning"
_PACKAGES = ("kregs", "keras", "tensorflow", "keras-tuner", "numpy", "scikit-learn")
_HEADER_LINE = re.compile(r"^([A-Z][a-z]+): +(.+(?:\n +.+)*)", re.MULTILINE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One recipe or study, as its file's docstring describes it.

    Args:
        name: the file's name without `.py`.
        summary: the docstring's first line.
        fields: the header's `Key: value` lines, keys in lower case: `command`, `time`, `result`,
            `data`.
    """

    name: str
    summary: str
    fields: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun:
    """What `run_study` returns.

    Args:
        record: what was searched, how and with what outcome; JSON can hold it.
        files: the paths of `"model"` (the best trial's), `"tuned model"` (trained on all training
            examples with the first seed: the first that was scored on the test set), `"trials"`,
            `"result"` (the search), `"study"` (the record) and `"plot"`.
        search: the `SearchResult`.
    """

    record: dict[str, Any]
    files: dict[str, Path]
    search: SearchResult


def recipes() -> list[Entry]:
    """Return every recipe, sorted by name.

    Example:

    >>> [entry.name for entry in recipes()][:2]
    ['breast_cancer_mlp', 'diabetes_elastic_net']
    """
    return _entries(_RECIPES)


def studies() -> list[Entry]:
    """Return every study, sorted by name; a study is called like the recipe that it tunes."""
    return _entries(_STUDIES)


def show(name: str) -> str:
    """Return a recipe's source; `ValueError` with the nearest name if there is none.

    Example:

    >>> "def make_model(" in show("digits_mlp")
    True
    """
    return _source(_RECIPES, _check_name(_RECIPES, name))


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

    >>> folder = tempfile.mkdtemp()
    >>> copy("digits_mlp", folder).name
    'digits_mlp.py'
    """
    from kregs.files import write_text

    source = show(name)
    target = Path(destination)
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
    return importlib.import_module(f"{_RECIPES}.{_check_name(_RECIPES, name)}")


def run(name: str, *, quick: bool = False, seed: int = 0) -> dict[str, float]:
    """Run a recipe: train its tuned model, print and return what it scores on the test set.

    Args:
        name: the recipe.
        quick: a few seconds on a small subset, to see that it runs.
        seed: of the weights, the dropout and the order of batches: integer >= 0.

    Raises:
        ValueError: there is no such recipe.
    """
    seed = check_integer("seed", seed, minimum=0)
    recipe = load(name)

    import keras

    from kregs.search.randomness import preserved_state

    with preserved_state():
        keras.utils.set_random_seed(seed)  # the order of batches, which `main` leaves to Keras
        return recipe.main(quick=quick, seed=seed)


def run_study(
    name: str,
    *,
    max_trials: int | None = None,
    epochs: int | None = None,
    oracle: str | None = None,
    folds: int | None = None,
    selection: str | None = None,
    max_time: float | None = None,
    seed: int = 0,
    seeds: int = 3,
    resume: bool = False,
    workers: int | None = None,
    output: str | os.PathLike[str] = "kregs_runs",
    command: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> StudyRun:
    """Search a recipe's regularization, then score it on the test set beside no regularization.

    The search sees training data only. Afterwards the best trial's model is trained anew on all of
    them, for the number of epochs that was best in the search, once per seed. So is the same
    architecture without regularization: with the same learning rate, for all the epochs that a
    trial may use (early stopping restrains too). The test set is touched here, once, at the end.

    Args:
        name: the study; it is called like its recipe.
        max_trials, epochs, oracle, folds, selection, max_time: of `kregs.tune`, instead of the
            study's own values.
        seed: of the search, and of the first model after it: integer >= 0.
        seeds: how many models of each kind are trained; the scores are their mean and standard
            deviation.
        resume: go on with the search that `output` holds.
        workers: processes that train trials, as of `kregs.tune`.
        output: the folder of the runs; the files of this one are in `output/name`.
        command: what to note as the way to do this again. Default: `kregs tune` with these values.
        log: called with a line at each stage.

    Returns:
        The record, the paths of the files and the `SearchResult`.

    Raises:
        ValueError: there is no such study, or an argument is wrong.
        FileExistsError: `output` holds a run of this study and `resume` is not set.
    """
    study = importlib.import_module(f"{_STUDIES}.{_check_name(_STUDIES, name)}")
    seed = check_integer("seed", seed, minimum=0)
    seeds = check_integer("seeds", seeds, minimum=1)
    changes = {
        "max_trials": max_trials, "epochs": epochs, "oracle": oracle, "folds": folds,
        "selection": selection, "max_time": max_time,
    }  # fmt: skip
    changes = {key: value for key, value in changes.items() if value is not None}
    protocol = study.PROTOCOL | changes

    import kregs
    from kregs.files import atomic_path, write_json

    recipe = load(name)
    (x_train, y_train), (x_test, y_test) = recipe.load_data()
    examples = min(getattr(study, "TRAIN_EXAMPLES", len(x_train)), len(x_train))
    x_train, y_train = x_train[:examples], y_train[:examples]

    result = kregs.tune(
        recipe.build,
        x_train,
        y_train,
        **protocol,
        seed=seed,
        directory=output,
        project_name=name,
        resume=resume,
        workers=workers,
    )
    searched = time.perf_counter()

    folder = result.path
    files = {
        "model": folder / "best.keras",
        "tuned model": folder / "tuned.keras",
        "trials": folder / "trials.csv",
        "result": folder / "result.json",
        "study": folder / "study.json",
        "plot": folder / "plot.png",
        "report": folder / "report.html",
    }
    result.plot(files["plot"])
    command = command or _command(name, changes, seed, seeds)
    result.report(files["report"], command=command)
    tuned = recipe.sample(result.hyperparameters())
    unregularized = tuned | {"regularization": tuned["regularization"].unregularized()}
    test_scores: dict[str, Any] = {}
    for kind, arguments, duration in (
        ("tuned", tuned, result.best_epoch),
        ("unregularized", unregularized, protocol["epochs"]),
    ):
        log(f"Training {seeds} {kind} models on {examples} examples for {duration} epochs")
        values = []
        for model_seed in range(seed, seed + seeds):
            model = recipe.make_model(**arguments, seed=model_seed)
            batches = _shuffled(x_train, y_train, protocol["batch_size"], model_seed)
            model.fit(batches, epochs=duration, shuffle=False, verbose=0)
            scores = model.evaluate(x_test, y_test, batch_size=256, verbose=0, return_dict=True)
            values.append({metric: score for metric, score in scores.items() if metric != "loss"})
            if kind == "tuned" and model_seed == seed:
                with atomic_path(files["tuned model"]) as temporary:
                    model.save(temporary)
        test_scores[kind] = {"epochs": duration} | _spread(values)

    record = {
        "study": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": {
            "search": round(result.seconds, 1),
            "evaluation": round(time.perf_counter() - searched, 1),
        },
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
        "seed": seed,
        "seeds": list(range(seed, seed + seeds)),
        "protocol": describe(protocol),
        "examples": {"train": examples, "test": len(x_test)},
        "trials": result.trials()["status"].value_counts().to_dict(),
        "best_trial": {
            "hyperparameters": result.best_hyperparameters,
            "regularization": tuned["regularization"].get_config(),
            "epochs": result.best_epoch,
            result.objective: result.best_score,
        },
        "test": test_scores,
    }
    write_json(files["study"], record)
    return StudyRun(record=record, files=files, search=result)


def describe(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol as JSON can hold it: callbacks by the names of their classes."""
    return {
        key: [type(callback).__name__ for callback in value] if key == "callbacks" else value
        for key, value in protocol.items()
    }


def result(name: str) -> dict[str, Any]:
    """Return the record that a study wrote when it was last run for this release.

    Raises:
        ValueError: there is no such study.
        FileNotFoundError: the study has not been run.

    Example:

    >>> result("digits_mlp")["protocol"]["oracle"]
    'random'
    """
    path = resources.files(_STUDIES).joinpath("results", f"{_check_name(_STUDIES, name)}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def record_study(name: str, *, command: str | None = None) -> Path:
    """Run a study as it stands and write its record into `kregs.tuning`'s `results/`.

    Args:
        name: the study.
        command: what to note as the way to do this again. Default: `python -m kregs.tuning.NAME`.

    Returns:
        The path of the JSON file.
    """
    from kregs.files import write_json

    with tempfile.TemporaryDirectory() as folder:
        outcome = run_study(
            name, output=folder, command=command or f"python -m {_STUDIES}.{name}", log=print
        )
    target = Path(str(resources.files(_STUDIES))) / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    write_json(target, outcome.record)
    print(result_line(outcome.record))
    print(f"written: {target}")
    return target


def result_line(record: Mapping[str, Any]) -> str:
    """Return a record's outcome in one line, as the recipes' headers quote it.

    Example:

    >>> scores = {"accuracy": {"mean": 0.97, "sd": 0.002, "values": [0.97, 0.972, 0.968]}}
    >>> result_line({"test": {"tuned": scores, "unregularized": scores}})
    'test accuracy 0.9700 ± 0.0020, unregularized 0.9700 ± 0.0020 (3 seeds)'
    """
    tuned, unregularized = record["test"]["tuned"], record["test"]["unregularized"]
    metrics = sorted(tuned.keys() - {"epochs"}, key=lambda metric: (metric == "data_loss", metric))
    parts = [
        f"{metric.replace('_', ' ')} {spread(tuned[metric])}, "
        f"unregularized {spread(unregularized[metric])}"
        for metric in metrics
    ]
    seeds = len(tuned[metrics[0]]["values"])
    return f"test {'; '.join(parts)} ({seeds} seed{'s' if seeds > 1 else ''})"


def spread(scores: Mapping[str, Any]) -> str:
    """Return `mean ± sd` of one metric of a record; the mean alone where there was one seed."""
    deviation = "" if scores["sd"] is None else f" ± {scores['sd']:.4f}"
    return f"{scores['mean']:.4f}{deviation}"


def _entries(package: str) -> list[Entry]:
    return [_entry(name, _source(package, name)) for name in _names(package)]


def _entry(name: str, source: str) -> Entry:
    docstring = ast.get_docstring(ast.parse(source)) or ""
    fields = {key.lower(): " ".join(text.split()) for key, text in _HEADER_LINE.findall(docstring)}
    return Entry(name=name, summary=docstring.partition("\n")[0], fields=fields)


def _names(package: str) -> list[str]:
    found = (path.name for path in resources.files(package).iterdir())
    return sorted(n.removesuffix(".py") for n in found if n.endswith(".py") and n[0] != "_")


def _source(package: str, name: str) -> str:
    return resources.files(package).joinpath(f"{name}.py").read_text(encoding="utf-8")


def _check_name(package: str, name: str) -> str:
    known = _names(package)
    if name not in known:
        kind = "recipe" if package == _RECIPES else "study"
        raise ValueError(
            f"there is no {kind} {name!r}.{suggestion(name, known)} Known: {', '.join(known)}"
        )
    return name


def _shuffled(x: np.ndarray, y: np.ndarray, batch_size: int, seed: int) -> Any:
    """Return batches in an order that the seed decides; `fit` would shuffle by global state."""
    import tensorflow as tf

    examples = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed)
    return examples.batch(batch_size).prefetch(1)


def _spread(values: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean, standard deviation (of a sample) and values of each metric."""
    columns = {metric: [float(scores[metric]) for scores in values] for metric in values[0]}
    return {
        metric: {
            "mean": statistics.fmean(column),
            "sd": statistics.stdev(column) if len(column) > 1 else None,
            "values": column,
        }
        for metric, column in columns.items()
    }


def _command(name: str, changes: Mapping[str, Any], seed: int, seeds: int) -> str:
    flags = dict(changes) | {"seed": seed, "seeds": seeds}
    words = [w for key, value in flags.items() for w in (f"--{key.replace('_', '-')}", str(value))]
    return shlex.join(["kregs", "tune", name, *words])
