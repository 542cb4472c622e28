"""Running a study: two searches on one budget, their models on the test set, the record of it."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kregs.catalog.definitions import StudyDefinition, study_definition
from kregs.catalog.final_models import ModelGroup, summarize, train_and_score
from kregs.catalog.outcome import CONTROL, TUNED, comparison
from kregs.validation import check_integer

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from kregs import Regularization
    from kregs.search import SearchResult

TUNED_PREPROCESSING = "tuned_preprocessing.joblib"  # what the rows of `tuned.keras` go through
_PACKAGES = ("kregs", "keras", "tensorflow", "keras-tuner", "numpy", "scikit-learn")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun:
    """What `run_study` returns.

    Args:
        record: what was searched, how and with what outcome; JSON can hold it.
        files: the paths of `"model"` (the best trial's), `"tuned model"` (trained on all training
            examples with the first seed: the first that was scored on the test set), `"trials"`,
            `"result"` (the search), `"study"` (the record), `"plot"` (the map of the search),
            `"report"` (the page), `"unregularized"` (the page of the other search), and
            `"preprocessing"` (what the rows of the tuned model go through), where there are these.
        search: the `SearchResult`.
        control: that of the search without regularization; `None` where there was none.
        arguments: of `make_model`, as the search found them; `None` where there is no `sample`.
    """

    record: dict[str, Any]
    files: dict[str, Path]
    search: SearchResult
    control: SearchResult | None = None
    arguments: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compared:
    """One of the two that are compared: its search, and what its models are regularized by."""

    search: SearchResult
    regularization: Regularization | None = None


def run_study(
    name: str,
    *,
    max_trials: int | None = None,
    epochs: int | None = None,
    oracle: str | None = None,
    folds: int | None = None,
    seeds: int | None = None,
    selection: str | None = None,
    max_time: float | None = None,
    seed: int | None = None,
    test_seeds: int = 5,
    resume: bool = False,
    workers: int | None = None,
    output: str | os.PathLike[str] = "kregs_runs",
    command: str | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> StudyRun:
    """Search a network's regularization, then score it on the test set beside no regularization.

    The network without regularization has a search of its own over what is left of the space,
    such as the learning rate, with the same budget on the same rows, so that a gain is the
    regularization's. Both searches see training data only. Afterwards each one's best
    trial is trained anew on all training rows, for the number of epochs that was best in its
    search, once per test seed. The models of all seeds train as one population where they can be
    stacked. The test set is touched here, once, at the end.

    Args:
        name: a recipe, or the path of a Python file with

            - `build(hp)`, which returns a compiled model;
            - `load_data()`, which returns `(x_train, y_train), (x_test, y_test)`, or `(x, y)`:
              nothing is then scored beyond the searches;
            - if it likes `PROTOCOL`, a dictionary of arguments of `kregs.tune`;
            - for the comparison with no regularization `make_model(**arguments)` and
              `sample(hp, regularization=None)`, which returns its arguments: the regularization
              that is given, or else a sampled one, and what else is searched. `build(hp)` is then
              `make_model(**sample(hp))`.
        max_trials, epochs, oracle, folds, seeds, selection, max_time, seed: of `kregs.tune`,
            instead of the protocol's own values, for each of the two searches.
        test_seeds: how many models of each kind are trained at the end; the test scores are their
            mean and standard deviation.
        resume: go on with the searches that `output` holds.
        workers: processes that train trials, as of `kregs.tune`.
        output: the folder of the runs; the files of this one are in `output/name`.
        command: what to note as the way to do this again. Default: `kregs tune` with these values.
        log: called with a line at each stage.

    Returns:
        The record, the paths of the files and the `SearchResult`s.

    Raises:
        ValueError: there is no such study, the file lacks something, or an argument is wrong.
        FileNotFoundError: there is no such file.
        FileExistsError: `output` holds a run of this study and `resume` is not set.
    """
    test_seeds = check_integer("test_seeds", test_seeds, minimum=1)
    changes = {
        "max_trials": max_trials, "epochs": epochs, "oracle": oracle, "folds": folds,
        "seeds": seeds, "selection": selection, "max_time": max_time, "seed": seed,
    }  # fmt: skip
    changes = {key: value for key, value in changes.items() if value is not None}
    command = command or _command(name, changes | {"test_seeds": test_seeds})
    with study_definition(name) as definition:
        definition = dataclasses.replace(definition, protocol={**definition.protocol, **changes})
        return _run(
            definition, test_seeds, command, log, output=output, resume=resume, workers=workers
        )


def _run(
    definition: StudyDefinition,
    test_seeds: int,
    command: str,
    log: Callable[[str], None],
    **options: Any,
) -> StudyRun:
    """See `run_study`."""
    from kregs.files import write_json

    train, test = training_and_test(definition.load_data())
    kinds = _search(definition, train, log, **options)
    search = kinds[TUNED].search
    searches_ended = time.perf_counter()
    files = _files(kinds)
    groups = _groups(definition, kinds, range(search.seed, search.seed + test_seeds), log)
    best_trials = {
        kind: _best_trial(compared, groups[kind].models[0]) for kind, compared in kinds.items()
    }
    rows = _prepared(search, train, test, search.path)
    scores = train_and_score(groups, *rows, log=log, **_fit_options(search, definition.protocol))
    _save_model(groups[TUNED].models[0], files["tuned model"])
    record = {
        "study": definition.name,
        "command": command,
        **_circumstances(),
        "seconds": {
            **{
                f"{kind} search": round(compared.search.seconds, 1)
                for kind, compared in kinds.items()
            },
            "evaluation": round(time.perf_counter() - searches_ended, 1),
        },
        "seed": search.seed,
        "objective": search.objective,
        "protocol": describe(definition.protocol),
        "examples": {"train": _rows(train), "test": 0 if test is None else _rows(test)},
        "trials": {
            kind: compared.search.trials()["status"].value_counts().to_dict()
            for kind, compared in kinds.items()
        },
        "best_trials": best_trials,
        "test_seeds": list(groups[TUNED].seeds),
        "test": {
            kind: summarize(scores[kind], objective=search.objective) for kind in kinds if test
        },
    }
    write_json(files["study"], record)
    _write_pages(kinds, files, command, comparison(record))
    return StudyRun(
        record=record,
        files=files,
        search=search,
        control=kinds[CONTROL].search if CONTROL in kinds else None,
        arguments=None
        if definition.network is None
        else definition.network.arguments(search.hyperparameters()),
    )


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _circumstances() -> dict[str, Any]:
    """Return when and on what this runs."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {"cores": _cores(), "platform": platform.platform()},
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def _search(
    definition: StudyDefinition,
    train: tuple[Any, Any],
    log: Callable[[str], None],
    *,
    output: str | os.PathLike[str],
    **options: Any,
) -> dict[str, _Compared]:
    """Search with and, where it can be taken away, without regularization."""
    import kregs

    network, protocol = definition.network, definition.protocol
    control_protocol = copy.deepcopy(dict(protocol))  # an oracle's object serves one search
    search = kregs.tune(
        definition.build,
        *train,
        **protocol,
        directory=output,
        project_name=definition.name,
        **options,
    )
    if network is None:
        log(
            "No comparison with an unregularized model: it needs make_model(...) and "
            "sample(hp, regularization=None)"
        )
        return {TUNED: _Compared(search=search)}
    tuned = network.arguments(search.hyperparameters())["regularization"]
    unregularized = tuned.unregularized()
    # of another architecture it is another search, which a resumed one must not go on with
    architecture = unregularized.normalization
    log("Searching without regularization")
    control = _search_control(
        functools.partial(network.build, unregularized),
        train,
        control_protocol,
        directory=search.path,
        project_name=CONTROL if architecture is None else f"{CONTROL}_{architecture}",
        **options,
    )
    return {
        TUNED: _Compared(search=search, regularization=tuned),
        CONTROL: _Compared(search=control, regularization=unregularized),
    }


def _search_control(
    build: Callable[[Any], keras.Model],
    train: tuple[Any, Any],
    protocol: Mapping[str, Any],
    **options: Any,
) -> SearchResult:
    """Search what is left of the space if the regularization is fixed, by the same protocol."""
    import kregs
    from kregs.search.build import explore, make_hypermodel
    from kregs.search.judging.restraint import restraint_within
    from kregs.search.randomness import preserved_state

    with preserved_state():
        space, _ = explore(make_hypermodel(build))
    # what is fixed here restrains all trials alike
    names = {hp.name for hp in space.space}
    protocol = {**protocol, "restraint": restraint_within(protocol.get("restraint"), names)}
    if not space.space:  # one point, of which only the length is to be found
        protocol = {**protocol, "oracle": "random", "max_trials": 1}
    return kregs.tune(build, *train, **protocol, **options)


def _files(kinds: Mapping[str, _Compared]) -> dict[str, Path]:
    """Return the paths of all files of a study."""
    from kregs.search.storage import MODEL_FILE, PLOT_FILE, REPORT_FILE, RESULT_FILE, TRIALS_FILE

    search = kinds[TUNED].search
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
    if search.preprocess is not None:
        files["preprocessing"] = folder / TUNED_PREPROCESSING
    if CONTROL in kinds:
        files[CONTROL] = kinds[CONTROL].search.path / REPORT_FILE
    return files


def _write_pages(
    kinds: Mapping[str, _Compared],
    files: Mapping[str, Path],
    command: str,
    outcome: tuple[str, pd.DataFrame],
) -> None:
    """Write the plot and the reports of the searches."""
    from kregs.reporting import write_report

    kinds[TUNED].search.plot(files["plot"])
    write_report(kinds[TUNED].search, files["report"], command=command, comparison=outcome)
    if CONTROL in kinds:
        write_report(kinds[CONTROL].search, files[CONTROL], command=command, comparison=outcome)


def _groups(
    definition: StudyDefinition,
    kinds: Mapping[str, _Compared],
    seeds: range,
    log: Callable[[str], None],
) -> dict[str, ModelGroup]:
    """Build the models that are trained on all training rows."""
    from kregs.search.randomness import preserved_state

    groups = {}
    for kind, compared in kinds.items():
        epochs = compared.search.best_epoch or compared.search.protocol.epochs
        log(f"Training {len(seeds)} {kind} models on all training rows for {epochs} epochs")
        hp = compared.search.hyperparameters()
        with preserved_state():
            models = [
                definition.model(hp, seed=seed, regularization=compared.regularization)
                for seed in seeds
            ]
        groups[kind] = ModelGroup(
            models=models,
            seeds=list(seeds),
            epochs=epochs,
            callbacks=_final_callbacks(compared.search),
        )
    return groups


def _final_callbacks(search: SearchResult) -> list[keras.callbacks.Callback]:
    """Return callbacks that act as those of a search did."""
    from kregs.search.refit import recorded_rates
    from kregs.search.replay import acts_on_training, replayed

    if not any(map(acts_on_training, search.callbacks or ())):
        return []
    return replayed(search.callbacks, recorded_rates(search))


def _prepared(
    search: SearchResult, train: tuple[Any, Any], test: tuple[Any, Any] | None, folder: Path
) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Return all rows as models take them: after the search's `preprocess`, fitted and kept."""
    import joblib
    import numpy as np

    from kregs.files import atomic_path
    from kregs.search.data import as_arrays
    from kregs.search.folds import fit_transform, transformed

    if search.preprocess is not None:
        fitted, x_train = fit_transform(search.preprocess, train[0], np.asarray(train[1]))
        train = x_train, train[1]
        test = None if test is None else (transformed(fitted, test[0]), test[1])
        with atomic_path(folder / TUNED_PREPROCESSING) as temporary:
            joblib.dump(fitted, temporary)
    train = as_arrays(train[0]), as_arrays(train[1])
    return train, None if test is None else (as_arrays(test[0]), as_arrays(test[1]))


def _fit_options(search: SearchResult, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fit` by which the search trained its trials."""
    options = {key: protocol.get(key) for key in ("sample_weight", "class_weight")}
    return {key: value for key, value in options.items() if value is not None} | {
        "stacked": search.protocol.engine != "sequential",
        "batch_size": search.protocol.batch_size,
    }


def _save_model(model: keras.Model, path: Path) -> None:
    from kregs.files import atomic_path

    with atomic_path(path) as temporary:
        model.save(temporary)


def _best_trial(compared: _Compared, model: keras.Model) -> dict[str, Any]:
    """Describe what a search ended with, by a model of it that is not trained yet."""
    search, regularization = compared.search, compared.regularization
    outcome: dict[str, Any] = {"hyperparameters": search.best_hyperparameters}
    if regularization is not None:
        outcome["regularization"] = regularization.get_config()
    return outcome | {
        "epochs": search.best_epoch,
        "learning_rate": _learning_rate(model),
        search.objective: search.best_score,
    }


def _learning_rate(model: keras.Model) -> float | None:
    """Return a model's learning rate, a schedule's first; `None` if that is not known."""
    rate = model.optimizer.get_config().get("learning_rate")
    if isinstance(rate, Mapping):  # a schedule
        rate = rate.get("config", {}).get("initial_learning_rate")
    return None if rate is None else float(rate)


def training_and_test(data: Any) -> tuple[tuple[Any, Any], tuple[Any, Any] | None]:
    """Return what `load_data()` returned as training and test data.

    Args:
        data: `(x, y)`, or `(x_train, y_train), (x_test, y_test)`.

    Returns:
        The training data, and the test data or `None`.

    Raises:
        ValueError: it is neither.

    Example:

    >>> training_and_test(([[1.0], [2.0]], [0, 1]))
    (([[1.0], [2.0]], [0, 1]), None)
    """
    pair = isinstance(data, (tuple, list)) and len(data) == 2
    if pair and all(isinstance(part, tuple) and len(part) == 2 for part in data):
        train, test = data
    elif pair and not any(isinstance(part, tuple) or part is None for part in data):
        train, test = tuple(data), None
    else:
        raise ValueError(
            "load_data() must return (x, y), or (x_train, y_train), (x_test, y_test). Received: "
            f"{_shape_of(data)}"
        )
    for part in (train, test):
        if part is not None and any(not hasattr(v, "__len__") or len(v) == 0 for v in part):
            raise ValueError(
                f"load_data() must return arrays of at least one row. Received: {_shape_of(data)}"
            )
    return train, test


def _shape_of(data: Any) -> str:
    """Say how a nest of tuples looks, not what is in it."""
    if isinstance(data, tuple):
        return f"({', '.join(map(_shape_of, data))})"
    return type(data).__name__


def _rows(data: tuple[Any, Any]) -> int:
    targets = data[1]
    return len(next(iter(targets.values())) if isinstance(targets, Mapping) else targets)


def describe(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a protocol as JSON can hold it: objects in words, callbacks as their classes' names.

    Example:

    >>> describe({"folds": 5, "callbacks": [object()], "class_weight": {0: 2.0}})
    {'folds': 5, 'callbacks': ['object'], 'class_weight': {'0': 2.0}}
    """
    return {key: _described(key, value) for key, value in protocol.items()}


def _described(key: str, value: Any) -> Any:
    if key == "callbacks":
        return None if value is None else [type(callback).__name__ for callback in value]
    if hasattr(value, "tolist"):  # NumPy's: weights or labels of rows
        return f"{type(value).__name__} of {getattr(value, 'size', 1)}"
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        several = isinstance(value, (tuple, list, Mapping))
        return f"{type(value).__name__} of {len(value)}" if several else str(value)


def _command(name: str, flags: Mapping[str, Any]) -> str:
    words = [w for key, value in flags.items() for w in (f"--{key.replace('_', '-')}", str(value))]
    return shlex.join(["kregs", "tune", name, *words])
