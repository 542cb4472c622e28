"""Running a study: the search, its models for several seeds, test scores, and the record of it."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import importlib.metadata
import json
import math
import os
import platform
import shlex
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kregs.catalog.entries import STUDIES, check_name, load
from kregs.validation import check_integer, check_seed

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kregs.search import SearchResult

_PACKAGES = ("kregs", "keras", "tensorflow", "keras-tuner", "numpy", "scikit-learn")
_TEST_BATCH = 256  # rows; decides nothing but memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun:
    """What `run_study` returns.

    Args:
        record: what was searched, how and with what outcome; JSON can hold it.
        files: the paths of `"model"` (the best trial's), `"tuned model"` (trained on all training
            examples with the first seed: the first that was scored on the test set), `"trials"`,
            `"result"` (the search), `"study"` (the record), `"report"` (the page) and `"plot"`
            (the map of the search).
        search: the `SearchResult`.
    """

    record: dict[str, Any]
    files: dict[str, Path]
    search: SearchResult


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
    trial may use (early stopping restrains too). The models of all seeds train as one population
    where they can be stacked. The test set is touched here, once, at the end.

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
    study = importlib.import_module(f"{STUDIES}.{check_name(STUDIES, name)}")
    seed = check_seed("seed", seed)
    seeds = check_integer("seeds", seeds, minimum=1)
    changes = {
        "max_trials": max_trials, "epochs": epochs, "oracle": oracle, "folds": folds,
        "selection": selection, "max_time": max_time,
    }  # fmt: skip
    changes = {key: value for key, value in changes.items() if value is not None}
    protocol = study.PROTOCOL | changes

    import kregs
    from kregs.files import atomic_path, write_json
    from kregs.search.storage import MODEL_FILE, PLOT_FILE, REPORT_FILE, RESULT_FILE, TRIALS_FILE

    recipe = load(name)
    (x_train, y_train), (x_test, y_test) = recipe.load_data()
    examples = min(getattr(study, "TRAIN_EXAMPLES", len(x_train)), len(x_train))
    x_train, y_train = x_train[:examples], y_train[:examples]

    search = kregs.tune(
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
    search_ended = time.perf_counter()

    folder = search.path
    files = {
        "model": folder / MODEL_FILE,
        "tuned model": folder / "tuned.keras",
        "trials": folder / TRIALS_FILE,
        "result": folder / RESULT_FILE,
        "study": folder / "study.json",
        "plot": folder / PLOT_FILE,
        "report": folder / REPORT_FILE,
    }
    command = command or _command(name, changes, seed, seeds)
    search.plot(files["plot"])
    search.report(files["report"], command=command)
    tuned = recipe.sample(search.hyperparameters())
    unregularized = tuned | {"regularization": tuned["regularization"].unregularized()}
    model_seeds = list(range(seed, seed + seeds))
    kinds = {
        "tuned": (tuned, search.best_epoch),
        "unregularized": (unregularized, protocol["epochs"]),
    }
    groups = {}
    for kind, (arguments, duration) in kinds.items():
        log(f"Training {seeds} {kind} models on {examples} examples for {duration} epochs")
        models = [recipe.make_model(**arguments, seed=model_seed) for model_seed in model_seeds]
        groups[kind] = ModelGroup(models=models, seeds=model_seeds, epochs=duration)
    scores = train_and_score(
        groups, (x_train, y_train), (x_test, y_test), batch_size=protocol["batch_size"], log=log
    )
    test_scores: dict[str, Any] = {
        kind: {"epochs": group.epochs} | _spread(scores[kind]) for kind, group in groups.items()
    }
    with atomic_path(files["tuned model"]) as temporary:
        groups["tuned"].models[0].save(temporary)

    record = {
        "study": name,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": {
            "search": round(search.seconds, 1),
            "evaluation": round(time.perf_counter() - search_ended, 1),
        },
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
        "seed": seed,
        "seeds": model_seeds,
        "protocol": describe(protocol),
        "examples": {"train": examples, "test": len(x_test)},
        "trials": search.trials()["status"].value_counts().to_dict(),
        "best_trial": {
            "hyperparameters": search.best_hyperparameters,
            "regularization": tuned["regularization"].get_config(),
            "epochs": search.best_epoch,
            search.objective: search.best_score,
        },
        "test": test_scores,
    }
    write_json(files["study"], record)
    return StudyRun(record=record, files=files, search=search)


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
    path = resources.files(STUDIES).joinpath("results", f"{check_name(STUDIES, name)}.json")
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
            name, output=folder, command=command or f"python -m {STUDIES}.{name}", log=print
        )
    target = Path(str(resources.files(STUDIES))) / "results" / f"{name}.json"
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelGroup:
    """Models of one architecture, one seed each, that train for the same number of epochs.

    Args:
        models: compiled; they hold the trained weights in the end.
        seeds: of the order of batches and the noise, one a model.
        epochs: of the training.
    """

    models: Sequence[keras.Model]
    seeds: Sequence[int]
    epochs: int


def train_and_score(
    groups: Mapping[str, ModelGroup],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    batch_size: int,
    log: Callable[[str], None],
) -> dict[str, list[dict[str, float]]]:
    """Train groups of models and return the metrics of each model on the test set.

    All of them are one population if they have one structure; else each group is one, and models
    that cannot be stacked at all are trained one by one; `log` is told why.

    Args:
        groups: the models by group.
        train, test: inputs and targets.
        batch_size: of the training.
        log: called with a line.
    """
    from kregs.population import NotStackable

    try:
        return _train_together(groups, train, test, batch_size=batch_size, log=log)
    except NotStackable as error:
        reason = error
    scores: dict[str, list[dict[str, float]]] = {}
    if len(groups) > 1:  # of different structures
        for name, group in groups.items():
            scores |= train_and_score({name: group}, train, test, batch_size=batch_size, log=log)
        return scores
    log(f"One by one, since they cannot be stacked: {reason}")
    for name, group in groups.items():
        scores[name] = [
            _fit_and_score(model, seed, train, test, epochs=group.epochs, batch_size=batch_size)
            for model, seed in zip(group.models, group.seeds, strict=True)
        ]
    return scores


def _train_together(
    groups: Mapping[str, ModelGroup],
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    batch_size: int,
    log: Callable[[str], None],
) -> dict[str, list[dict[str, float]]]:
    """See `train_and_score`: as one population, or raise `NotStackable`."""
    from kregs.population import Population

    members = [
        (name, model, seed)
        for name, group in groups.items()
        for model, seed in zip(group.models, group.seeds, strict=True)
    ]
    population = Population.from_models(
        [model for _, model, _ in members], seeds=[seed for *_, seed in members]
    )
    epochs = [groups[name].epochs for name, *_ in members]
    population.fit(*train, epochs=epochs, batch_size=batch_size)
    metrics = population.evaluate(*test, batch_size=_TEST_BATCH)
    population.unstack()
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in groups}
    for k, (name, _, seed) in enumerate(members):
        failure = population.failures[k]
        if failure is not None:
            log(f"The {name} model of seed {seed} failed: {failure}")
        scores[name].append(
            {
                metric: float(values[k]) if failure is None else math.nan
                for metric, values in sorted(metrics.items())
                if metric != "loss"
            }
        )
    return scores


def _fit_and_score(
    model: keras.Model,
    seed: int,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    epochs: int,
    batch_size: int,
) -> dict[str, float]:
    """Train a model by Keras's `fit` and return its metrics on the test set."""
    import tensorflow as tf

    # `fit` itself would shuffle by global state
    rows = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[0]), seed=seed)
    model.fit(rows.batch(batch_size).prefetch(1), epochs=epochs, shuffle=False, verbose=0)
    scores = model.evaluate(*test, batch_size=_TEST_BATCH, verbose=0, return_dict=True)
    return {metric: score for metric, score in scores.items() if metric != "loss"}


def _spread(values: list[dict[str, float]]) -> dict[str, Any]:
    """Return mean, standard deviation (of a sample) and values of each metric.

    One seed has no deviation: `None`. Where a model failed, mean and deviation are NaN.
    """
    columns = {metric: [float(scores[metric]) for scores in values] for metric in values[0]}
    return {
        metric: {
            "mean": statistics.fmean(column),
            "sd": _deviation(column),
            "values": column,
        }
        for metric, column in columns.items()
    }


def _deviation(column: Sequence[float]) -> float | None:
    if len(column) < 2:
        return None
    return statistics.stdev(column) if all(map(math.isfinite, column)) else math.nan


def _command(name: str, changes: Mapping[str, Any], seed: int, seeds: int) -> str:
    flags = dict(changes) | {"seed": seed, "seeds": seeds}
    words = [w for key, value in flags.items() for w in (f"--{key.replace('_', '-')}", str(value))]
    return shlex.join(["kregs", "tune", name, *words])
