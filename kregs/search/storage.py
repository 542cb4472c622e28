"""Every file of a search: its name and format, writing it whole or not at all, reading, pruning.

And the lock that keeps a second process from a folder in which a search runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kregs.files import (
    PREPROCESSING_FILE,
    atomic_path,
    disk_full,
    is_disk_full,
    write_json,
    write_text,
)
from kregs.search.judging.choose import choose
from kregs.search.protocol import Protocol
from kregs.search.runs import Run, RunOutcome, RunState

FORMAT = 2  # of all files; 1 was that of kregs 0.1.0

RESULT_FILE = "result.json"
TRIALS_FILE = "trials.csv"
MODEL_FILE = "best.keras"
PLOT_FILE = "plot.png"
HISTORIES_FILE = "histories.json"
REPORT_FILE = "report.html"
LOCK_FILE = "search.lock"
WORKERS_FOLDER = "workers"
NESTED_FOLDER = "nested"

# in a trial's folder; all but the first are keras-tuner's names
TRAINING_FILE = "training.json"
TRIAL_FILE = "trial.json"
CHECKPOINT_FILE = "checkpoint.weights.h5"
BUILD_CONFIG_FILE = "build_config.json"
FOLD_WEIGHTS_FILE = "fold_weights.npz"

_TRIAL_PREFIX = "trial_"
CUT_SHORT = "cut short"  # the status of a trial that `max_time` has ended
_STATUS = {"COMPLETED": "completed", "FAILED": "failed", "INVALID": "failed"}


class FolderInUse(FileExistsError):
    """Another process searches in this folder."""


class BrokenFile(ValueError):
    """A file cannot be read: it was cut off or changed."""


# ---- the search ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """What `result.json` holds.

    Args:
        protocol: how trials are judged.
        space: the search space, as keras-tuner serializes it.
        versions: of the packages that the search was begun with.
        seconds: the time it took, over all its parts.
        trials: one entry a trial: `trial` (its number), `id` (in the name of its folder), `status`,
            `score`, `standard_error`, `scores` (one entry a run), `metrics` (the others, at the
            scored epoch), `initial_epoch`, `goes_on_from` (the `id` of the trial that trained the
            epochs before, with Hyperband), `best_epoch`, `seconds`, `message`, `engine`,
            `unstacked`, `arguments`,
            `hyperparameters`, `restraints`, `kernels`.
        best, chosen: the trial with the best score, and the one that the selection rule takes.
        nested: the scores of outer folds, if there were any.
        model: the model that `build` makes of the default hyperparameters, as
            `kregs.search.fingerprint` tells it; `None` if that is not known.
        model_trial: the trial whose model is in `best.keras`; `None` if there is none, or if that
            is not known.
        findings: what the audit of that same `build`'s model found, one entry a finding: `code`,
            `severity`, `layer`, `what`, `why`, `source`, `fix`; `None` if it was not audited.
    """

    protocol: Protocol
    space: list[dict[str, Any]]
    versions: Mapping[str, str]
    seconds: float = 0.0
    trials: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None
    chosen: dict[str, Any] | None = None
    nested: list[dict[str, Any]] | None = None
    model: dict[str, Any] | None = None
    model_trial: int | None = None
    findings: list[dict[str, Any]] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is written."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"format": FORMAT, **fields, "protocol": self.protocol.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchRecord:
        """Return the record that `to_json` made `values` of."""
        fields = {name: value for name, value in values.items() if name != "format"}
        return cls(**{**fields, "protocol": Protocol.from_json(values["protocol"])})

    def with_trials(self, trials: Iterable[dict[str, Any]]) -> SearchRecord:
        """Return the record with these trials, and the best of them.

        A trial that was cut short before all of its runs had begun has no score like the others',
        and is the best only where there are no others.
        """
        trials = sorted(trials, key=lambda trial: trial["trial"])
        completed = [trial for trial in trials if trial["score"] is not None]
        completed = [t for t in completed if not self.lacks_runs(t)] or completed

        def chosen_by(selection: str) -> dict[str, Any] | None:
            direction = self.protocol.direction
            trial = choose(
                completed,
                direction=direction,
                selection=selection,
                restraint=self.protocol.restraint,
                held_out_share=self.protocol.data.held_out_share,
            )
            return None if trial is None else _summary(trial)

        return dataclasses.replace(
            self,
            trials=trials,
            best=chosen_by("best"),
            chosen=chosen_by(self.protocol.selection),
        )

    def lacks_runs(self, trial: Mapping[str, Any]) -> bool:
        """Whether a trial was cut short before all of its folds and seeds had begun."""
        return trial["status"] == CUT_SHORT and len(trial["scores"]) < self.protocol.runs


def _summary(trial: Mapping[str, Any]) -> dict[str, Any]:
    names = ("trial", "score", "standard_error", "best_epoch", "hyperparameters")
    return {name: trial[name] for name in names}


def write_record(folder: Path, record: SearchRecord) -> None:
    """Write a search's `result.json`."""
    write_json(folder / RESULT_FILE, record.to_json())


def read_record(folder: Path, *, warn: bool = True) -> SearchRecord:
    """Return a folder's `result.json`, its trials as they are now.

    Args:
        folder: of the search.
        warn: of trials whose files are broken.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    path = folder / RESULT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"`path` must hold a result of kregs: there is no {RESULT_FILE} in {str(folder)!r}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read as JSON: {error}") from None
    needed = {"format", "protocol", "space", "trials"}
    if not isinstance(values, dict) or not needed <= set(values):
        raise ValueError(f"{str(path)!r} is no result of kregs.tune")
    _check_format(values["format"], path)
    try:
        record = SearchRecord.from_json(values)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} is no result of kregs.tune: {error}") from None
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore")
        trials = list(read_trials(folder, record.trials))
    return record.with_trials(trials) if trials else record


def _check_format(found: Any, path: Path) -> None:
    if found != FORMAT:
        writer = "kregs 0.1.0" if found == 1 else "another version of kregs"
        raise ValueError(
            f"{str(path)!r} has format {found!r}, which {writer} wrote; this version reads format "
            f"{FORMAT}. Read it with that version, or search again under another name"
        )


# ---- a trial -------------------------------------------------------------------------------


@dataclasses.dataclass(kw_only=True)
class TrialRecord:
    """What a trial's training left, beside keras-tuner's `trial.json` and its checkpoint.

    Args:
        histories: per run (fold and seed), each logged metric's values by epoch, as in Keras only
            of those that have logged it.
        logged_epochs: per run, see `RunOutcome`; of a search before this was kept none.
        halves: per run, its histories on the two halves of the validation rows, if it has any.
        scores: per run, its `fold`, `seed`, `score`, the `epoch` that it is scored at, and the
            `repeat` that its fold belongs to.
        restraints: what restrains the built model, see `model_restraints`; `None` if that is not
            known.
        kernels: per run, `norm` and `nonzero` of all kernels, see `kernel_summary`; `None` where
            they are not known.
        standard_error: of the trial's score; `None` with one run.
        best_epoch: epochs trained when the objective was best over the runs, counted from 1.
            `None` if the trial failed.
        initial_epoch: epochs that an earlier trial had trained before (Hyperband).
        seconds: from the build to the saved checkpoint.
        status: `"completed"`, `"failed"` or `"cut short"`.
        message: why it failed or was cut short, in one line.
        score: of a trial that was cut short; keras-tuner has that of one that ended.
        metrics: the mean of each metric over the runs, at the epochs that they are scored at.
        engine: what trained it: `"population"`, `"sequential"`, or the tuner's own `"run_trial"`.
        unstacked: why it was not trained stacked; `None` if it was.
        arguments: of `fit`, where they are functions of the hyperparameters: `batch_size`,
            `epochs`.
        model: the model that was trained, as `kregs.search.fingerprint` tells it.
        traceback: of a failure.
    """

    histories: list[dict[str, list[float]]] = dataclasses.field(default_factory=list)
    halves: list[list[dict[str, list[float]]]] = dataclasses.field(default_factory=list)
    scores: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    restraints: dict[str, Any] | None = None
    kernels: list[dict[str, float] | None] = dataclasses.field(default_factory=list)
    standard_error: float | None = None
    best_epoch: int | None = None
    initial_epoch: int = 0
    seconds: float = 0.0
    status: str = "completed"
    message: str | None = None
    score: float | None = None
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    engine: str | None = None
    unstacked: str | None = None
    arguments: dict[str, int] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] | None = None
    traceback: str | None = None
    logged_epochs: list[dict[str, list[int]]] = dataclasses.field(default_factory=list)

    @property
    def epochs(self) -> int:
        """How many epochs its runs were trained, all together."""
        return sum(max(map(len, history.values()), default=0) for history in self.histories)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the record into a trial's directory."""
        # `asdict` would copy all of a large model's facts
        values = {
            "format": FORMAT,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
        }
        write_json(Path(folder) / TRAINING_FILE, values, indent=None)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> TrialRecord | None:
        """Return a trial directory's record, or `None` if the trial did not end.

        Raises:
            BrokenFile: it cannot be read.
            ValueError: it is of another format.
        """
        path = Path(folder) / TRAINING_FILE
        values = _read_json(path)
        if values is None:
            return None
        _check_format(values.pop("format", 1), path)
        try:
            return cls(**values)
        except TypeError as error:
            raise BrokenFile(f"{str(path)!r} cannot be read ({error})") from None


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file of a trial holds, `None` if it is not there."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(f"a {type(values).__name__}")
        return values
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise BrokenFile(f"{str(path)!r} cannot be read ({error})") from None


def trial_folder(folder: Path, trial: Mapping[str, Any]) -> Path | None:
    """Return the directory of a trial of a record, `None` if it is not there."""
    path = folder / f"{_TRIAL_PREFIX}{trial['id']}"
    return path if path.is_dir() else None


def read_trials(
    folder: Path, recorded: Iterable[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """Yield a search's trials by their own files, in no order.

    Args:
        folder: of the search.
        recorded: the trials in its `result.json`, which stand for those whose files are lost or
            broken. A warning says so of broken ones.
    """
    known = {trial["id"]: dict(trial) for trial in recorded}
    for path in folder.glob(f"{_TRIAL_PREFIX}*"):
        trial_id = path.name.removeprefix(_TRIAL_PREFIX)
        if not trial_id.isdigit():
            continue
        entry = known.pop(trial_id, None)
        try:
            state = _read_json(path / TRIAL_FILE)
            if state is not None:
                entry = _entry(trial_id, state, TrialRecord.read(path))
        except BrokenFile as error:
            outcome = "is left out" if entry is None else f"is shown as {RESULT_FILE} has it"
            warnings.warn(
                f"{error}: trial {trial_id} {outcome}; resume=True trains it again", stacklevel=4
            )
        if entry is not None:  # else it was killed before it began
            yield entry
    yield from known.values()


def _entry(trial_id: str, state: Mapping[str, Any], training: TrialRecord | None) -> dict[str, Any]:
    training = training or TrialRecord(status="interrupted")
    status, score = _STATUS.get(state["status"], "interrupted"), state["score"]
    if status == "interrupted" and training.status == CUT_SHORT:
        status, score = CUT_SHORT, training.score
    scored = status in ("completed", CUT_SHORT)
    return {
        "trial": int(trial_id),
        "id": trial_id,
        "score": score if scored else None,
        "standard_error": training.standard_error if scored else None,
        "scores": training.scores,
        "metrics": training.metrics,
        "initial_epoch": training.initial_epoch,
        "goes_on_from": state["hyperparameters"]["values"].get("tuner/trial_id"),
        "best_epoch": training.best_epoch if scored else None,
        "seconds": None if status == "interrupted" else training.seconds,
        "status": status,
        "message": training.message if status in ("failed", CUT_SHORT) else None,
        "engine": training.engine,
        "unstacked": training.unstacked,
        "arguments": training.arguments,
        "hyperparameters": searched_values(state["hyperparameters"]["values"]),
        "restraints": training.restraints,
        "kernels": training.kernels,
    }


def searched_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those that Hyperband keeps among them for itself."""
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


# ---- a run ---------------------------------------------------------------------------------


def outcome_file(folder: str | os.PathLike[str], run: Run) -> Path:
    """Return where a run's outcome lies while its trial is under way."""
    return Path(folder, f"run_{run.number:03}.npz")


_UNWRITTEN = ("state", "last", "job", "error", "refusal", "model", "signature", "member")


def write_outcome(folder: str | os.PathLike[str], run: Run, outcome: RunOutcome) -> None:
    """Write the outcome of one run into a trial's directory."""
    facts = {name: value for name, value in vars(outcome).items() if name not in _UNWRITTEN}
    states = {"best": outcome.state or RunState(None)}
    if outcome.last is not None:
        states["last"] = outcome.last
    arrays: dict[str, Any] = {}
    for name, state in states.items():
        arrays |= _arrays_of(name, state)
        facts[name] = {
            "learning_rate": state.learning_rate,
            "counters": state.counters,
            "build_config": state.build_config,
            "steps": None if state.population is None else state.population.steps,
            "momentum_step": 0.0 if state.population is None else state.population.momentum_step,
        }
    facts_text = json.dumps({"format": FORMAT, **facts})
    with atomic_path(outcome_file(folder, run)) as temporary, open(temporary, "wb") as file:
        np.savez(file, facts=np.array(facts_text), **arrays)


def read_outcome(folder: str | os.PathLike[str], run: Run) -> RunOutcome | None:
    """Return the outcome of one run if it has ended."""
    path = outcome_file(folder, run)
    if not path.exists():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError) as error:
        warnings.warn(
            f"{str(path)!r} cannot be read ({error}): that run is trained again", stacklevel=2
        )
        return None
    _check_format(facts.pop("format", 1), path)

    states = {
        name: None if (state := facts.pop(name, None)) is None else _state_of(arrays, name, state)
        for name in ("best", "last")
    }
    return RunOutcome(**facts, state=states["best"], last=states["last"])


_ARRAYS = ("weights", "optimizer", "generators")


def _arrays_of(name: str, state: RunState) -> dict[str, np.ndarray]:
    """Return the arrays of a state by the names that they have in a run's file."""
    kinds = {kind: getattr(state, kind) for kind in _ARRAYS}
    if state.population is not None:
        kinds["slots"] = state.population.slots
    return {
        f"{name}_{kind}_{number}": array
        for kind, arrays in kinds.items()
        for number, array in enumerate(arrays or ())
    }


def _state_of(stored: Mapping[str, np.ndarray], name: str, facts: dict[str, Any]) -> RunState:
    """Return the state that `_arrays_of` wrote under a name."""

    def arrays(kind: str) -> list[np.ndarray] | None:
        count = sum(entry.startswith(f"{name}_{kind}_") for entry in stored)
        return [stored[f"{name}_{kind}_{number}"] for number in range(count)] or None

    state = RunState(**{kind: arrays(kind) for kind in _ARRAYS})  # type: ignore[arg-type]
    steps, momentum_step = facts.pop("steps"), facts.pop("momentum_step", 0.0)
    if steps is not None:
        from kregs.population.optimizers import OptimizerState  # loads TensorFlow

        state.population = OptimizerState(arrays("slots") or [], steps, momentum_step=momentum_step)
    return dataclasses.replace(state, **facts)


def write_fold_weights(
    folder: str | os.PathLike[str], weights: Mapping[int, list[np.ndarray]]
) -> None:
    """Write the weights of a trial's runs, each of its best epoch, by the runs' numbers."""
    arrays: dict[str, Any] = {
        f"{number}_{place}": array
        for number, own in weights.items()
        for place, array in enumerate(own)
    }
    with atomic_path(Path(folder, FOLD_WEIGHTS_FILE)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def read_fold_weights(folder: str | os.PathLike[str]) -> dict[int, list[np.ndarray]]:
    """Return what `write_fold_weights` wrote; empty if there is no such file or it is broken."""
    path = Path(folder, FOLD_WEIGHTS_FILE)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError):
        return {}
    weights: dict[int, dict[int, np.ndarray]] = {}
    for name, array in arrays.items():
        number, place = map(int, name.split("_"))
        weights.setdefault(number, {})[place] = array
    return {number: [own[i] for i in range(len(own))] for number, own in weights.items()}


# ---- pruning -------------------------------------------------------------------------------


def remove_outcomes(folder: str | os.PathLike[str], runs: Iterable[Run]) -> None:
    """Remove the outcomes of a trial's runs: the trial's own files hold what is needed."""
    for run in runs:
        outcome_file(folder, run).unlink(missing_ok=True)


def remove_weights(folder: str | os.PathLike[str]) -> None:
    """Remove a trial's checkpoint and what builds the model for it."""
    for name in (CHECKPOINT_FILE, BUILD_CONFIG_FILE, FOLD_WEIGHTS_FILE):
        Path(folder, name).unlink(missing_ok=True)


def prune(folder: Path, record: SearchRecord, keep: int) -> None:
    """Remove the weights of all trials but the best `keep` and the chosen one."""
    scored = [trial for trial in record.trials if trial["score"] is not None]
    scored.sort(key=lambda trial: record.protocol.sign * trial["score"])
    for trial in scored[keep:]:
        if record.chosen is not None and trial["trial"] == record.chosen["trial"]:
            continue
        directory = trial_folder(folder, trial)
        if directory is not None:
            remove_weights(directory)


# ---- models and transformers ---------------------------------------------------------------


def write_trials_table(folder: Path, table: Any) -> None:
    """Write the trials, a DataFrame, as `trials.csv`."""
    write_text(folder / TRIALS_FILE, table.to_csv(index=False))


def write_histories(folder: Path, histories: Mapping[str, Any]) -> None:
    """Write the histories of all trials, for a result without the trials' own folders."""
    write_json(folder / HISTORIES_FILE, {"format": FORMAT, "trials": histories}, indent=None)


def read_histories(folder: Path) -> dict[str, Any]:
    """Return what `write_histories` wrote."""
    path = folder / HISTORIES_FILE
    if not path.exists():
        raise ValueError(f"{str(path)!r} does not exist: the histories of this result are lost")
    values = json.loads(path.read_text(encoding="utf-8"))
    _check_format(values.get("format", 1), path)
    return values["trials"]


def write_preprocessing(folder: Path, fitted: Any) -> None:
    """Write the fitted transformer that the rows of `best.keras` go through."""
    import joblib

    with atomic_path(folder / PREPROCESSING_FILE) as temporary:
        joblib.dump(fitted, temporary)


def read_preprocessing(folder: Path) -> Any:
    """Return the transformer that `write_preprocessing` wrote; reading it can run code.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    import joblib

    path = folder / PREPROCESSING_FILE
    if not path.exists():
        raise ValueError(
            f"{str(path)!r} does not exist: no preprocessing was fitted, or the search ended before"
        )
    try:
        return joblib.load(path)
    except Exception as error:
        raise BrokenFile(
            f"{str(path)!r} cannot be read ({type(error).__name__}: {error}): search on with "
            "resume=True, or refit"
        ) from error


def write_model(folder: Path, model: Any) -> None:
    """Write `best.keras`."""
    with atomic_path(folder / MODEL_FILE) as temporary:
        model.save(temporary)


# ---- the lock ------------------------------------------------------------------------------


def holds_files(folder: Path) -> bool:
    """Whether a folder holds more than a lock, which is left of a process that was killed early."""
    return folder.is_dir() and any(path.name != LOCK_FILE for path in folder.iterdir())


_held: dict[Path, int] = {}  # folder -> the thread that holds its lock


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from searching in a folder while the block runs.

    The lock of a process that has died on this machine is taken over. Workers do not lock: they
    share their chief's.

    Args:
        folder: made if it does not exist.

    Raises:
        FolderInUse: another process, or another thread of this one, searches there.
    """
    folder = folder.resolve()
    if _held.get(folder) == threading.get_ident():
        yield  # a search within this one's call
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    _take_lock(path)
    _held[folder] = threading.get_ident()
    try:
        yield
    finally:
        del _held[folder]
        path.unlink(missing_ok=True)


def _take_lock(path: Path) -> None:
    holder = {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}
    text = json.dumps(holder)
    mine = path.with_name(f".{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        mine.write_text(text, encoding="utf-8")
    except OSError as error:
        mine.unlink(missing_ok=True)
        raise disk_full(path) if is_disk_full(error) else error from error
    try:
        while True:
            try:
                try:
                    os.link(mine, path)  # fails if it exists, and is there whole
                except FileExistsError:
                    raise
                except OSError:  # a file system without links
                    with path.open("x", encoding="utf-8") as file:
                        file.write(text)
                return
            except FileExistsError:
                _remove_dead_lock(path)
    finally:
        mine.unlink(missing_ok=True)


def _remove_dead_lock(path: Path) -> None:
    """Remove the lock of a process that has died, or raise `FolderInUse`."""
    try:
        text = path.read_text(encoding="utf-8")
        holder = json.loads(text)
        host, pid, began = holder["host"], int(holder["pid"]), holder["began"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise FolderInUse(
            f"{str(path)!r} cannot be read: if no process searches in this folder, delete that file"
        ) from None
    if host != socket.gethostname():
        raise FolderInUse(
            f"process {pid} on {host!r} searches in {str(path.parent)!r}. Wait for it, or choose "
            f"another project_name; if it has died, delete {str(path)!r}"
        )
    if _is_alive(pid, began):
        raise FolderInUse(
            f"process {pid} searches in {str(path.parent)!r}: wait for it, or choose another "
            "project_name"
        )
    taken = path.with_name(f".{os.getpid()}-dead-{path.name}")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        os.rename(path, taken)
        if taken.read_text(encoding="utf-8") != text:  # and has locked it since
            os.rename(taken, path)
        taken.unlink(missing_ok=True)


def _is_alive(pid: int, began: str | None) -> bool:
    """Whether a process of this machine lives, and is the one that began then."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    now = _began(pid)
    return began is None or now is None or began == now


def _began(pid: int) -> str | None:
    """Return when a process began, where Linux tells: another one may get its number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return fields[19] if fields[0] != "Z" else "ended"
    except (OSError, IndexError):
        return None
