"""One search in one folder: begun or gone on with, trained here or by workers, written."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
import tensorflow as tf

import kregs
from kregs.files import DiskFull, disk_full, is_disk_full
from kregs.population.registry import NotStackable
from kregs.population.rows import is_dataset
from kregs.search.build import explore, explore_fit, logged_metrics
from kregs.search.data import Data, prepare_data
from kregs.search.failures import NothingCompleted
from kregs.search.fingerprint import check_same_model, fingerprint
from kregs.search.judging.restraint import check_restraint_is_searched
from kregs.search.keras_tuner_internals import is_worker
from kregs.search.loop import TimeUp
from kregs.search.objective import check_logged, check_scorer, scorer_of
from kregs.search.oracles import expected_trials, make_oracle
from kregs.search.progress import Progress
from kregs.search.protocol import Difference, Protocol
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.result import SearchResult
from kregs.search.runs import Run, without_halves
from kregs.search.searched_fit import fit_arguments
from kregs.search.settings import SearchSettings
from kregs.search.storage import (
    CUT_SHORT,
    SearchRecord,
    holds_files,
    locked,
    prune,
    read_record,
    read_trials,
    write_record,
)
from kregs.search.trainers.feeds import rows_of
from kregs.search.tuner import PopulationTuner
from kregs.training.targets import said_before
from kregs.validation import check_file_name, check_flag, check_path

_PACKAGES = ("tensorflow", "keras", "keras-tuner", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchTask:
    """All that a process needs to train trials of a search; it can be sent to another process.

    Args:
        settings: what the search was told.
        protocol: how trials are judged.
        space: the hyperparameters that are known; trials may meet more.
        data: the rows.
        model: what `build` makes of the defaults, as `kregs.search.fingerprint` tells it; `None` if
            the hypermodel's `fit` compiles it.
        findings: what the audit of that model found; `None` if it could not be audited.
        directory, project_name: where the search's files are.
    """

    settings: SearchSettings
    protocol: Protocol
    space: keras_tuner.HyperParameters
    data: Data
    model: dict[str, Any] | None
    findings: list[dict[str, Any]] | None
    directory: str
    project_name: str

    def tuner(
        self,
        progress: Progress,
        oracle: keras_tuner.Oracle | None = None,
        max_time: float | None = None,
    ) -> PopulationTuner:
        """Return a tuner that takes the search up where it stopped."""
        settings, data = self.settings, self.data
        return PopulationTuner(
            hypermodel=settings.hypermodel,
            oracle=oracle or self.oracle(),
            directory=self.directory,
            project_name=self.project_name,
            executions_per_trial=settings.seeds,
            engine=settings.engine,
            splits=data.splits if settings.has_stock_fit else without_halves(data.splits),
            halves=data.halves if settings.has_stock_fit else None,
            # the one-standard-error rule may choose any trial until the end
            keep=settings.keep if settings.selection == "best" else None,
            keep_folds=settings.keep_folds and data.splits is not None,
            score_at=settings.score_at,
            max_time=max_time,
            seed=settings.seed,
            progress=progress,
        )

    def oracle(self) -> keras_tuner.Oracle:
        """Return what proposes trials."""
        settings = self.settings
        return make_oracle(
            settings.oracle,
            objective=settings.objective,
            space=self.space,
            max_trials=settings.max_trials,
            epochs=settings.epochs or 1,
            seed=settings.seed,
        )

    def fit_arguments(self) -> dict[str, Any]:
        """Return the arguments of `fit`."""
        settings, x = self.settings, self.data.fit["x"]
        fit = {**self.data.fit, "callbacks": settings.callbacks}
        if settings.epochs is not None:  # else each trial has its own
            fit["epochs"] = settings.epochs
        if not is_dataset(x) and settings.batch_size is not None:
            fit["batch_size"] = settings.batch_size
        elif isinstance(x, tf.data.Dataset):
            fit["shuffle"] = False  # the dataset's own affair: Keras warns of its default
        if self.data.class_weight is not None:
            fit["class_weight"] = self.data.class_weight
        return fit


def run_search(
    settings: SearchSettings,
    x: Any,
    y: Any,
    *,
    validation_data: Any = None,
    sample_weight: Any = None,
    groups: Any = None,
    directory: str | os.PathLike[str],
    project_name: str,
    resume: bool,
    max_time: float | None = None,
    needs_trial: bool = True,
    trains_final_model: bool = True,
) -> tuple[SearchResult, bool]:
    """Train trials until the oracle stops or the time is up; train the chosen model; write.

    Args:
        settings: what the search was told.
        x, y, validation_data, sample_weight, groups, directory, project_name, resume, max_time: as
            in `kregs.tune`.
        needs_trial: raise if the time was up before any trial had an epoch.
        trains_final_model: with folds, train the chosen hyperparameters on all rows.

    Returns:
        The result, and whether the oracle has stopped.

    Raises:
        See `kregs.tune`.
    """
    check_file_name("project_name", project_name)
    missing = _missing_folders(check_path("directory", directory), project_name)
    folder = _open_folder(directory, project_name, resume)
    lock = contextlib.nullcontext() if is_worker() else _kept_if_used(folder, missing)
    with lock, preserved_state():
        task = _prepare(
            settings, x, y, folder,
            validation_data=validation_data, sample_weight=sample_weight, groups=groups,
        )  # fmt: skip
        record = _begin_record(folder, task)
        result, ended = _train(task, folder, record, max_time)
        if is_worker():
            return result, ended
        if result.record.best is None and not (ended or needs_trial):
            return result, ended
        _check_any_completed(result, folder, None if ended else max_time)
        prune(folder, result.record, settings.keep)
        if task.data.splits is not None and trains_final_model:
            # no fold's model has seen all rows
            try:
                with said_before():
                    model = result.refit(
                        x,
                        y,
                        sample_weight=sample_weight,
                        class_weight=settings.class_weight,
                    )
            except Exception as error:
                error.add_note(
                    f"It ended the training of trial {result.chosen_trial} on all rows. All trials "
                    f"are kept in {str(folder)!r}; resume=True trains that model again"
                )
                raise
            result.write_model(model)
    return result, ended


def _prepare(settings: SearchSettings, x: Any, y: Any, folder: Path, **rows: Any) -> SearchTask:
    """Explore the space, check and divide the rows."""
    if settings.batch_size is None and is_dataset(x):
        raise ValueError(
            "`batch_size` must be left out with a dataset, which makes its own batches. "
            "Received: a function of hp"
        )
    keras.utils.set_random_seed(derived_seed(settings.seed, 0))
    space, model = explore(settings.hypermodel)
    data = prepare_data(
        x,
        y,
        validation_split=settings.validation_split,
        seed=settings.seed,
        model=model,
        folds=settings.folds,
        preprocess=settings.preprocess,
        class_weight=settings.class_weight,
        **rows,
    )
    check_restraint_is_searched(settings.restraint, space.get_config()["space"])
    # before it has seen any row; the hypermodel's own `fit` may compile it
    facts = fingerprint(model) if model.compiled else None
    defaults = fit_arguments(settings.hypermodel, space.copy())
    batch_size = settings.batch_size or defaults["batch_size"]
    findings = _audited(model, batch_size) if model.compiled else None
    logged = logged_metrics(settings.hypermodel, model, data, rows=batch_size)
    scorer = scorer_of(settings.objective)
    if scorer is not None:
        check_scorer(scorer, model, data)
    if logged is not None:
        check_logged(settings.objective, logged)
    if settings.objective_error is not None:
        raise settings.objective_error
    task = SearchTask(
        model=facts,
        findings=findings,
        settings=settings,
        protocol=settings.protocol(data),
        space=space,
        data=data,
        directory=os.fspath(folder.parent),
        project_name=folder.name,
    )
    if settings.has_stock_fit:
        return task
    rows = task.fit_arguments() | {"verbose": 0}
    if data.splits is not None:
        rows = rows_of(Run(0, 0, 0, data.splits[0]), rows)
    with contextlib.suppress(NotStackable):  # what its `fit` searches shows in the trials
        explore_fit(settings.hypermodel, settings.hypermodel.build, (), rows, space=space)
    return task


def _audited(model: keras.Model, batch_size: int | None) -> list[dict[str, Any]] | None:
    """Return what the audit of a model finds, as JSON can hold it."""
    from kregs.inspection.audit import audit

    try:
        return audit(model, batch_size=batch_size).to_frame().to_dict("records")
    except Exception as error:  # advice must not cost a search
        warnings.warn(f"the model could not be audited: {error}", stacklevel=4)
        return None


def _train(
    task: SearchTask, folder: Path, record: SearchRecord, max_time: float | None
) -> tuple[SearchResult, bool]:
    """Train what trials there are; write the trials whatever happens."""
    settings = task.settings
    oracle = task.oracle()
    progress = _progress(task, folder, record, expected_trials(oracle))
    tuner = task.tuner(progress, oracle, max_time)
    ended = False
    started = time.perf_counter()
    try:
        with progress:
            _say_resumed(record, progress)
            if settings.workers is None:
                tuner.search(**task.fit_arguments())
            else:
                from kregs.search.workers.processes import search_with_workers

                search_with_workers(tuner, task, workers=settings.workers, progress=progress)
        ended = True
    except TimeUp:
        pass
    except DiskFull:
        # trials are in their own files: what could not be written is their summary
        with contextlib.suppress(OSError):
            _write(task, folder, record, time.perf_counter() - started)
        raise
    except BaseException:
        _write(task, folder, record, time.perf_counter() - started)
        raise
    result = _write(task, folder, record, time.perf_counter() - started)
    _say_cut_short(result, progress, max_time)
    return result, ended


def _write(task: SearchTask, folder: Path, record: SearchRecord, seconds: float) -> SearchResult:
    """Write what trials there are, and the best one's model."""
    record = dataclasses.replace(record, seconds=record.seconds + seconds)
    record = record.with_trials(read_trials(folder))
    settings = task.settings
    result = SearchResult(
        record,
        folder,
        build=settings.hypermodel,
        preprocess=settings.preprocess,
        callbacks=settings.callbacks,
    )
    result.preprocess_ = task.data.fitted
    result.data = task.data
    if not is_worker():
        result.write()
        if task.data.splits is None and record.best is not None:
            result.write_model()
    return result


def _say_resumed(record: SearchRecord, progress: Progress) -> None:
    statuses = [trial["status"] for trial in record.trials]
    again = sum(status in ("interrupted", CUT_SHORT) for status in statuses)
    if again:
        progress.note(
            f"going on with {len(statuses) - again} finished trials; {again} that were under way "
            "are trained from their start"
        )


def _say_cut_short(result: SearchResult, progress: Progress, max_time: float | None) -> None:
    cut = sum(trial["status"] == CUT_SHORT for trial in result.record.trials)
    if cut:
        trials, they = ("1 trial is", "it") if cut == 1 else (f"{cut} trials are", "they")
        progress.note(
            f"max_time={max_time:g} seconds are up: {trials} cut short and scored by the epochs "
            f"{they} had; resume=True (--resume) trains from the start to the end"
        )


def _progress(
    task: SearchTask, folder: Path, record: SearchRecord, expected: int | None
) -> Progress:
    """Return what shows the search's course."""
    from kregs.reporting.progress import SearchProgress

    earlier = SearchResult(record, folder)
    best = (earlier.best_score, earlier.best_hyperparameters) if record.best else None
    return SearchProgress(
        expected,
        done=sum(trial["status"] not in ("interrupted", CUT_SHORT) for trial in record.trials),
        objective=task.protocol.objective,
        direction=task.protocol.direction,
        best=best,
        verbose=task.settings.verbose,
    )


def _missing_folders(directory: Any, project_name: Any) -> list[Path]:
    """Return the folders that a search would make, the innermost first."""
    try:
        folder = Path(directory) / project_name
    except TypeError:  # `_open_folder` says what is wrong
        return []
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextlib.contextmanager
def _kept_if_used(folder: Path, missing: Sequence[Path]) -> Iterator[None]:
    """Lock a search's folder; where the block writes nothing and raises, remove what was made.

    Args:
        folder: the search's.
        missing: the folders that were not there before, the innermost first.
    """
    try:
        with locked(folder):
            yield
    except BaseException:
        if not holds_files(folder):
            for path in missing:
                with contextlib.suppress(OSError):  # others have put something there
                    path.rmdir()
        raise


def _check_any_completed(result: SearchResult, folder: Path, max_time: float | None) -> None:
    if result.record.best is not None:
        return
    if max_time is not None:
        raise NothingCompleted(
            f"`max_time` must be longer: no trial had an epoch within max_time={max_time} seconds; "
            f"resume=True with more time goes on. Received: max_time={max_time}"
        )
    first = result.failures().iloc[0]
    raise NothingCompleted(
        f"all {len(result.trials())} trials failed. The first, trial {first['trial']}: "
        f"{first['message']}. What there is stands in {str(folder)!r}"
    )


# ---- beginning and going on ----------------------------------------------------------------


def _open_folder(directory: Any, project_name: Any, resume: bool) -> Path:
    """Return the project directory, or raise if it is taken or cannot be written."""
    check_flag("resume", resume)
    folder = Path(directory) / project_name
    if holds_files(folder) and not resume:
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
        if is_disk_full(error):
            raise disk_full(folder) from error
        raise ValueError(
            "`directory` must be a folder that can be written. "
            f"Received: {os.fspath(directory)!r}, {error.strerror or error}"
        ) from error
    return folder


def _begin_record(folder: Path, task: SearchTask) -> SearchRecord:
    """Write the record of a new search, or return that of the one that is resumed."""
    record = SearchRecord(
        protocol=task.protocol,
        space=json.loads(json.dumps(task.space.get_config()["space"])),
        versions=_versions(),
        model=task.model,
        findings=task.findings,
    )
    if not holds_files(folder):
        write_record(folder, record)
        return record
    try:
        earlier = read_record(folder, warn=False)  # the oracle will, and train them again
    except ValueError as error:
        raise ValueError(
            f"`resume`: {str(folder)!r} holds no search of kregs.tune to go on with ({error}). "
            "Choose another project_name"
        ) from None
    differences = [
        *earlier.protocol.differences(task.protocol),
        *_space_differences(earlier, record),
    ]
    for name, before, now in differences:
        raise ValueError(
            f"`resume`: the search in {str(folder)!r} is another one; its trials could not be "
            f"compared. Expected {name}: {before}. Received: {now}. Choose another project_name"
        )
    if earlier.model is not None and task.model is not None:
        try:
            check_same_model(earlier.model, task.model, "the default hyperparameters")
        except ValueError as error:
            raise ValueError(
                f"`resume`: the search in {str(folder)!r} is another one; its trials could not be "
                f"compared: {error}. Choose another project_name"
            ) from None
    _warn_of_versions(earlier.versions, record.versions)
    return dataclasses.replace(
        earlier,
        protocol=task.protocol,
        model=earlier.model or task.model,
        findings=task.findings,
    )


def _space_differences(earlier: SearchRecord, record: SearchRecord) -> list[Difference]:
    """Return the hyperparameters in which two spaces differ."""
    before, now = (
        {
            f"hyperparameter {hp['config']['name']} {hp['config']['conditions'] or ''}".strip(): hp
            for hp in side.space
        }
        for side in (earlier, record)
    )
    return [
        Difference(name, before.get(name), now.get(name))
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _warn_of_versions(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Warn if the search goes on with other versions: its trials may differ in the last digits."""
    changed = [
        f"{name} {before.get(name)} -> {version}"
        for name, version in now.items()
        if before.get(name) != version
    ]
    if changed:
        warnings.warn(
            f"the search was begun with other versions ({', '.join(changed)}); earlier and later "
            "trials may not be comparable to the last digit",
            stacklevel=5,
        )


def _versions() -> dict[str, str]:
    return {
        "kregs": kregs.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }
