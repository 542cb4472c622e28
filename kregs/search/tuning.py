"""`tune`: search the hyperparameters of a build function."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import numpy as np
import tensorflow as tf

import kregs
from kregs.files import write_json
from kregs.population.rows import is_dataset
from kregs.reporting.progress import SearchProgress
from kregs.search.engine import check_engine, make_tuner
from kregs.search.nested import check_nested, outer_scores
from kregs.search.objective import check_logged, make_objective
from kregs.search.oracles import check_oracle, expected_trials, make_oracle
from kregs.search.probe import explore, logged_metrics, make_hypermodel
from kregs.search.protocol import classes_of, prepare_data
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.result import (
    MODEL_FILE,
    RESULT_FILE,
    SearchResult,
    lasting,
    new_record,
    prune,
    read_record,
    with_trials,
    write_result,
)
from kregs.search.selection import SCORE_AT, SELECTIONS
from kregs.search.sequential import TimeUp, is_chief, is_worker
from kregs.search.workers import (
    Notes,
    check_workers,
    is_started_here,
    search_with_workers,
    set_memory_growth,
)
from kregs.training.callbacks import early_stopping
from kregs.validation import check_choice, check_integer, check_number

# what workers get otherwise, or not at all
_OF_THE_CHIEF = ("directory", "nested", "resume", "verbose", "max_time", "workers")
# of records that an earlier version wrote
_DEFAULTS = {"seeds": 1, "selection": "best", "score_at": "best_epoch"}
_PACKAGES = ("tensorflow", "keras", "keras-tuner", "numpy")


def tune(
    build: Callable[[Any], keras.Model] | keras_tuner.HyperModel,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float = 0.2,
    folds: Any = None,
    groups: Any = None,
    seeds: int = 1,
    preprocess: Any = None,
    selection: str = "best",
    score_at: str = "best_epoch",
    nested: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    oracle: str | keras_tuner.Oracle = "random",
    max_trials: int | None = None,
    epochs: int = 30,
    batch_size: int = 32,
    objective: str | keras_tuner.Objective = "val_data_loss",
    callbacks: Iterable[keras.callbacks.Callback] | None = None,
    max_time: float | None = None,
    keep: int = 5,
    seed: int = 0,
    directory: str | os.PathLike[str] = "kregs_runs",
    project_name: str = "search",
    resume: bool = False,
    engine: str = "auto",
    workers: int | None = None,
    verbose: str | int = "auto",
) -> SearchResult:
    """Search the hyperparameters that a build function samples.

    Every trial starts from the same seed, so that trials differ by their hyperparameters and not
    by luck, and the same call gives the same trials. The caller's random state is left as it was.

    The validation rows are chosen once, at random: Keras's own `validation_split` takes the last
    rows, which in sorted data are other data. If `y` holds integers, they are stratified: each
    value keeps its share.

    The epoch that a trial is scored at is never chosen on the rows that rank the trials: with
    `folds` that of a fold is chosen on the other folds, on a single split that of one half of the
    validation rows on the other half. (Only of a validation dataset, whose rows cannot be numbered,
    is the score that of the best epoch, too good a number for anything but ranking.) The weights
    kept are those of the epoch that is best on all validation rows.

    Trials are judged by `val_data_loss`, the loss without penalties: Keras's `val_loss` contains
    them and so favours λ = 0. Models compiled with `kregs.compile_model` log it.

    Args:
        build: a function of keras-tuner's `hp` that returns a compiled model, or a
            `keras_tuner.HyperModel`. See `Regularization.from_hp` for sampling.
        x: arrays (n, ...), a list or dictionary of them for several inputs, a `tf.data.Dataset`
            or a `keras.utils.PyDataset`.
        y: targets (n, ...); `None` with a dataset.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset. Default: rows of `x`.
        validation_split: the fraction of rows for validation, in (0, 1); not used if
            `validation_data` is given.
        folds: judge every trial by cross-validation: how many folds, or a scikit-learn splitter
            such as `StratifiedKFold(5)`, `GroupKFold(5)`, `TimeSeriesSplit(5)`, or a list of pairs
            of row numbers. All folds of all
            trials are members of one population. The score is their mean; at the end the chosen
            trial's model is trained on all rows, and that is `best.keras`.
        groups: one label a row; rows of one group are in one fold.
        seeds: models trained per trial (and fold), with different seeds; the score is their mean.
        preprocess: an unfitted scikit-learn transformer, fitted in each fold on its training rows
            only. `x` may then be a pandas `DataFrame`; models get what it makes of the rows.
        selection: which trial the search ends with: `"best"`, or `"one_standard_error"`: the most
            regularized one whose score is within one standard error of the best
            (`kregs.search.selection.strength` says what is more regularized).
        score_at: the epoch that a run is scored at: `"best_epoch"`, or `"last_epoch"`, for which
            no epoch is chosen at all.
        nested: outer folds, as `folds`: the whole search is repeated on the training rows of each,
            and its chosen model scored on the rows left out: `result.nested`. The best score of a
            search is too good, being the best of many; this one is not.
        sample_weight: weights (n,) of the rows of `x`.
        class_weight: weights by class, for training.
        oracle: what proposes trials: `"random"`, `"bayesian"` (a Gaussian process), `"hyperband"`
            (many short trials, the best go on), `"grid"`, or a `keras_tuner.Oracle` object.
        max_trials: upper bound. Default: 20 for `"random"` and `"bayesian"`, all points for
            `"grid"`, one sweep for `"hyperband"`, which with a bound makes the largest sweep that
            fits.
        epochs: the most epochs of a trial.
        batch_size: rows per step; not used with a dataset.
        objective: a metric in the logs, its direction inferred from the name, or a
            `keras_tuner.Objective`.
        callbacks: for every trial, each of which gets a copy. Default: early stopping on the
            objective, with a patience of a fifth of the epochs and at least 5. `[]` for none. The
            weights of the best epoch are kept either way.
        max_time: seconds after which the search ends, with what it has; `resume=True` goes on.
            Trials of a population end together, so that it should be longer than one trial by
            itself; the training on all rows after a search with folds comes on top.
        keep: how many of the best trials keep their weights on disk.
        seed: integer >= 0, of the proposals, the split, and the training.
        directory, project_name: the search's files are in `directory/project_name`.
        resume: go on with the search that is there, if there is one. Its trials must be
            comparable: the same space, objective, seed, data and protocol. `max_trials` may grow.
        engine: what trains the trials: `"population"`, trials of one structure as one stacked
            model (an error where that cannot be); `"sequential"`, one after the other; `"auto"`,
            the first where it can be and the second, with a line that says why, where not.
        workers: train in so many processes on this machine, each with a GPU of its own where there
            are GPUs and its share of the cores where not. One that is killed is replaced and loses
            no trial. They import `build`: it stands at the top of a module; in a script, the call
            stands below `if __name__ == "__main__":`. For several machines run the script on
            each with keras-tuner's variables `KERASTUNER_TUNER_ID` (`chief` on one of them, which
            trains nothing and writes the result), `KERASTUNER_ORACLE_IP` and
            `KERASTUNER_ORACLE_PORT`, on a folder that all of them see, and `KREGS_WORKERS`, how
            many workers there are (default: 4), so that each takes its share of the trials; a
            worker's own result is what there was when it left.
        verbose: `"auto"` (live display in a terminal, else a line per few trials), 0 (nothing), 1
            (live display), 2 (lines).

    Returns:
        A `SearchResult`. Its `result.json`, `trials.csv` and `best.keras` are in
        `directory/project_name`, beside keras-tuner's own files.

    Raises:
        TypeError: an argument has the wrong type, or `build` returns no model.
        ValueError: an argument is out of bounds, the data are unfit (NaN, shapes, labels), the
            model is not compiled, training will not log the objective, `directory` cannot be
            written, or a search to be resumed is another one.
        FileExistsError: there is a search of this name and `resume` is not set.
        RuntimeError: all trials failed; the message has the first reason. Or workers were killed
            again and again.
        KeyboardInterrupt: passed on after what was done is saved; `resume=True` goes on.

    Example:

    >>> import keras, numpy as np, tempfile
    >>> def build(hp):
    ...     l2 = hp.Choice("l2", [0.0, 1e-3])
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(
    ...         1, kernel_regularizer=keras.regularizers.L2(l2))])
    ...     return kregs.compile_model(model, "mse", learning_rate=0.1)
    >>> x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    >>> result = kregs.tune(
    ...     build, x, x.sum(axis=1), oracle="grid", epochs=2, verbose=0,
    ...     directory=tempfile.mkdtemp(),
    ... )
    >>> sorted(result.best_hyperparameters), len(result.trials())
    (['l2'], 2)

    References:
        Bergstra, Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012;
        Snoek et al., "Practical Bayesian Optimization", 2012; Li et al., "Hyperband", JMLR 18,
        2018.
    """
    given = {name: value for name, value in locals().items() if name not in _OF_THE_CHIEF}
    same: dict[str, Any] = {
        "folds": folds, "validation_split": validation_split, "seeds": seeds,
        "preprocess": preprocess, "selection": selection, "score_at": score_at, "oracle": oracle,
        "max_trials": max_trials, "epochs": epochs, "batch_size": batch_size,
        "objective": objective, "callbacks": callbacks, "keep": keep, "seed": seed,
        "engine": engine, "workers": workers, "verbose": verbose,
    }  # fmt: skip
    check_nested(nested, x, validation_data, oracle)
    hypermodel = make_hypermodel(build)
    goal = make_objective(objective)
    if max_trials is not None:
        max_trials = check_integer("max_trials", max_trials, minimum=1)
    check_oracle(oracle, max_trials, goal)
    epochs = check_integer("epochs", epochs, minimum=1)
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    seeds = check_integer("seeds", seeds, minimum=1)
    keep = check_integer("keep", keep, minimum=1)
    if max_time is not None:
        max_time = check_number("max_time", max_time, above=0.0)
    check_choice("selection", selection, SELECTIONS)
    check_choice("score_at", score_at, SCORE_AT)
    if selection == "one_standard_error" and folds is None and seeds == 1:
        raise ValueError(
            '`selection="one_standard_error"` needs several runs a trial, which have a standard '
            "error: pass folds= or seeds="
        )
    seed = check_integer("seed", seed, minimum=0)
    check_engine(engine)
    check_choice("verbose", verbose, ("auto", 0, 1, 2))
    workers = check_workers(
        workers, build=build, x=x, validation_data=validation_data, oracle=oracle
    )
    if nested is not None and (is_chief() or is_worker()):
        raise ValueError(
            "`nested` is several searches, and KERASTUNER_TUNER_ID speaks of one: use workers="
        )
    if is_worker():
        from kregs.search.distributed import wait_for_chief  # loads gRPC

        wait_for_chief()  # which writes the search's record first
        resume = True
    elif workers is not None:
        set_memory_growth()
    if callbacks is None and score_at == "last_epoch":
        callbacks = []  # early stopping would choose the last epoch
    used_callbacks = _callbacks(callbacks, goal, epochs)
    folder = _check_project(directory, project_name, resume)

    with preserved_state():
        keras.utils.set_random_seed(derived_seed(seed, 0))
        space, model = explore(hypermodel)
        data = prepare_data(
            x,
            y,
            validation_data=validation_data,
            validation_split=validation_split,
            sample_weight=sample_weight,
            seed=seed,
            model=model,
            folds=folds,
            groups=groups,
            preprocess=preprocess,
        )
        logged = logged_metrics(hypermodel, model, data, rows=batch_size)
        if logged is not None:
            check_logged(goal, logged)
        del model
        # a `fit` of its own may do anything with the validation rows
        stock_fit = type(hypermodel).fit is keras_tuner.HyperModel.fit
        halves = data.halves if stock_fit else None
        record = new_record(
            versions=_versions(),
            seed=seed,
            objective={"name": goal.name, "direction": goal.direction},
            protocol={
                "oracle": oracle if isinstance(oracle, str) else type(oracle).__name__,
                "max_trials": max_trials,
                "epochs": epochs,
                "batch_size": None if is_dataset(x) else batch_size,
                "seeds": seeds,
                "selection": selection,
                "score_at": score_at,
                "epoch_chosen_on": _epoch_chosen_on(score_at, data.splits, halves),
                "class_weight": class_weight
                and {str(label): float(own) for label, own in class_weight.items()},
                "callbacks": _describe(used_callbacks),
                "engine": engine,
                **data.facts,
            },
            space=json.loads(json.dumps(space.get_config()["space"])),
        )
        made = make_oracle(
            oracle, objective=goal, space=space, max_trials=max_trials, epochs=epochs, seed=seed
        )
        record = _start(folder, record)
        before = SearchResult(record, folder)
        expected = expected_trials(made)
        done = [t for t in record["trials"] if t["status"] != "interrupted"]
        progress = SearchProgress(
            expected,
            done=len(done),
            objective=goal.name,
            direction=goal.direction,
            best=(before.best_score, before.best_hyperparameters) if record["best"] else None,
            verbose=verbose,
        )
        if is_started_here():
            progress = Notes()
        tuner = make_tuner(
            engine,
            hypermodel=hypermodel,
            oracle=made,
            directory=directory,
            project_name=project_name,
            executions_per_trial=seeds,
            splits=data.splits,
            halves=halves,
            # the one-standard-error rule may choose any trial until the end
            keep=keep if selection == "best" else None,
            score_at=score_at,
            max_time=max_time,
            seed=seed,
            progress=progress,
        )
        fit = {**data.fit, "epochs": epochs, "callbacks": used_callbacks}
        if not is_dataset(x):
            fit["batch_size"] = batch_size
        elif isinstance(x, tf.data.Dataset):
            fit["shuffle"] = False  # the dataset's own affair: Keras warns of its default
        if class_weight is not None:
            fit["class_weight"] = dict(class_weight)
        if data.splits is not None:
            (folder / MODEL_FILE).unlink(missing_ok=True)  # it may be an earlier choice's
        started = time.perf_counter()
        ended = False
        try:
            with progress:
                if workers is None:
                    tuner.search(**fit)
                else:
                    own = {"directory": folder.resolve().parent, "resume": True, "verbose": 0}
                    search_with_workers(tuner, {**given, **own}, workers=workers, progress=progress)
            ended = True
        except TimeUp:
            pass
        finally:
            record["seconds"] += time.perf_counter() - started
            record = with_trials(record, folder)
            result = SearchResult(record, folder, build=hypermodel, preprocess=preprocess)
            result.preprocess_ = data.fitted
            if not is_worker() and (data.splits is None or not ended):
                write_result(result)
    if is_worker():
        return result
    if record["best"] is None:
        if not ended:
            raise RuntimeError(f"no trial ended within max_time={max_time} seconds")
        first = result.failures().iloc[0]
        raise RuntimeError(
            f"all {len(result.trials())} trials failed. The first, trial {first['trial']}: "
            f"{first['message']}. What there is stands in {str(folder)!r}"
        )
    prune(result, keep)
    if data.splits is not None:
        # no fold's model has seen all rows
        model = result.refit(
            x,
            y,
            sample_weight=sample_weight,
            class_weight=class_weight,
            callbacks=lasting(used_callbacks),
        )
        write_result(result, model)
    if nested is not None and not ended:
        warnings.warn("the time was up before the outer folds of `nested`", stacklevel=2)
    elif nested is not None:
        result._record["nested"] = outer_scores(
            nested,
            x,
            y,
            search=functools.partial(tune, build, **same),
            classes=classes_of(np.asarray(y), result.best_model()),
            callbacks=lasting(used_callbacks),
            sample_weight=sample_weight,
            class_weight=class_weight,
            groups=groups,
            seed=seed,
            metric=goal.name.removeprefix("val_"),
            directory=folder / "nested",
        )
        write_json(folder / RESULT_FILE, result._record)
    return result


def _callbacks(
    callbacks: Any, objective: keras_tuner.Objective, epochs: int
) -> list[keras.callbacks.Callback]:
    if callbacks is None:
        # the best epoch's weights are kept anyway
        return [
            early_stopping(
                objective.name,
                mode=objective.direction,
                patience=max(5, epochs // 5),
                restore_best_weights=False,
            )
        ]
    if isinstance(callbacks, keras.callbacks.Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(
            f"`callbacks` must be a list of Keras callbacks or None. Received: {callbacks!r}"
        )
    callbacks = list(callbacks)
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must hold Keras callbacks. "
                f"Received: {callback!r} of type {type(callback).__name__}"
            )
        try:
            copy.deepcopy(callback)
        except Exception as error:
            raise ValueError(
                "`callbacks` must hold callbacks that copy.deepcopy can copy, one for each trial. "
                f"Received: {type(callback).__name__}, which raises {error!r}"
            ) from error
    return callbacks


def _epoch_chosen_on(score_at: str, splits: Any, halves: Any) -> str | None:
    """Say on which rows the epoch is chosen that some rows are scored at."""
    if score_at == "last_epoch":
        return None
    if splits is not None:
        return "the other folds"
    return "the same rows" if halves is None else "the other half"


def _describe(callbacks: list[keras.callbacks.Callback]) -> list[str]:
    words = []
    for callback in callbacks:
        name = type(callback).__name__.lstrip("_")
        patience = getattr(callback, "patience", None)
        words.append(name if patience is None else f"{name}(patience={patience})")
    return words


def _check_project(directory: Any, project_name: Any, resume: bool) -> Path:
    """Return the project directory, or raise if it is taken, cannot be written or has no name."""
    if not isinstance(project_name, str) or not project_name:
        raise TypeError(f"`project_name` must be a name. Received: project_name={project_name!r}")
    if Path(project_name).name != project_name:
        raise ValueError(
            "`project_name` must be the name of one folder; its place is `directory`. "
            f"Received: project_name={project_name!r}"
        )
    if not isinstance(directory, (str, os.PathLike)):
        raise TypeError(f"`directory` must be a path. Received: directory={directory!r}")
    folder = Path(directory) / project_name
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        raise FileExistsError(
            f"{str(folder)!r} holds a search already. Pass resume=True to go on with it, another "
            "project_name to begin a new one, or delete the folder"
        )
    probe = folder / f".{os.getpid()}-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"`directory` must be a folder that can be written. Received: {str(folder)!r}, "
            f"{error.strerror or error}"
        ) from error
    return folder


def _start(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record of a new search, or return that of the one that is resumed."""
    if any(folder.iterdir()):
        try:
            earlier = read_record(folder)
        except ValueError as error:
            raise ValueError(
                f"`resume`: {str(folder)!r} holds no search of kregs.tune to go on with ({error}). "
                "Choose another project_name"
            ) from None
        _check_same(earlier, record, folder)
        _compare_versions(earlier, record)
        earlier["protocol"]["max_trials"] = record["protocol"]["max_trials"]
        return earlier
    write_json(folder / RESULT_FILE, record)
    return record


def _compare_versions(earlier: dict[str, Any], record: dict[str, Any]) -> None:
    """Warn if the search goes on with other versions: its trials may differ in the last digits."""
    changed = [
        f"{name} {earlier['versions'].get(name)} -> {version}"
        for name, version in record["versions"].items()
        if earlier["versions"].get(name) != version
    ]
    if changed:
        warnings.warn(
            f"the search was begun with other versions ({', '.join(changed)}); earlier and later "
            "trials may not be comparable to the last digit",
            stacklevel=4,
        )


def _check_same(earlier: dict[str, Any], record: dict[str, Any], folder: Path) -> None:
    def flat(whole: dict[str, Any]) -> dict[str, Any]:
        protocol = {k: v for k, v in whole["protocol"].items() if k != "max_trials"}
        space = {
            f"hyperparameter {hp['config']['name']} {hp['config']['conditions'] or ''}".strip(): hp
            for hp in whole["space"]
        }
        return {"seed": whole["seed"], "objective": whole["objective"], **protocol, **space}

    before, now = flat(earlier), flat(record)
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name, _DEFAULTS.get(name)), now.get(name)
        if old != new:
            if name in ("folds_checksum", "held_out_share"):
                name, old, new = "folds and groups", "those that it began with", "others"
            if name == "checksum":
                name, old, new = "data", "those that it began with", "others"
            raise ValueError(
                f"`resume`: the search in {str(folder)!r} is another one; its trials could not be "
                f"compared. Expected {name}: {old}. Received: {new}. Choose another project_name"
            )


def _versions() -> dict[str, str]:
    return {
        "kregs": kregs.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }
