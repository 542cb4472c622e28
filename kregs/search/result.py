"""`SearchResult`: what a search found, read from its files."""

from __future__ import annotations

import copy
import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import joblib
import keras
import keras_tuner
import numpy as np
import pandas as pd
import tensorflow as tf
from matplotlib.figure import Figure

from kregs.files import PREPROCESSING_FILE, atomic_path, write_json, write_text
from kregs.reporting.plots import search_map
from kregs.reporting.report import write_report
from kregs.reporting.tables import format_value, format_values
from kregs.search.engine import CHECKPOINT, TrialRecord, load_checkpoint, own_hyperparameters
from kregs.search.ensemble import METHODS, combine, greedy_weights
from kregs.search.probe import make_hypermodel
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.resampling import fit_transform
from kregs.search.selection import Comparison, choose, compare
from kregs.training.compilation import loss_object
from kregs.validation import check_choice, check_integer

RESULT_FILE = "result.json"
TRIALS_FILE = "trials.csv"
MODEL_FILE = "best.keras"
PLOT_FILE = "plot.png"
HISTORIES_FILE = "histories.json"

_FORMAT = 1  # of result.json
_FLOATS = ("score", "standard_error", "seconds")
_STATUS = {"COMPLETED": "completed", "FAILED": "failed", "INVALID": "failed"}


class SearchResult:
    """The outcome of `kregs.tune`, also of one that was interrupted, or of a saved folder.

    Attributes:
        best_hyperparameters: the chosen trial's values by name; only those that were active. The
            chosen trial is the one with the best score, or that of the one-standard-error rule if
            the search was told to choose by it.
        best_score: the chosen trial's objective.
        best_epoch: the epochs after which it was reached, counted from 1.
        nested: the scores of the whole search on rows that it did not see, one row an outer fold;
            `None` unless `tune(nested=...)` was asked for.
        preprocess_: the transformer that `refit` fitted on all rows; `None` without `preprocess`.
        objective: the objective's name.
        direction: `"min"` or `"max"`.
        seed: the search's seed.
        seconds: the time the search took, over all its parts.
        path: the folder of its files.
    """

    def __init__(
        self,
        record: Mapping[str, Any],
        path: str | os.PathLike[str],
        *,
        build: keras_tuner.HyperModel | None = None,
        preprocess: Any = None,
    ) -> None:
        self._record = dict(record)
        self._build = build
        self._preprocess = preprocess
        self.preprocess_: Any = None
        self.path = Path(path)
        self.objective: str = record["objective"]["name"]
        self.direction: str = record["objective"]["direction"]
        self.seed: int = record["seed"]
        self.seconds: float = record["seconds"]

    def __repr__(self) -> str:
        trials = self._record["trials"]
        done = sum(trial["status"] == "completed" for trial in trials)
        words = f"{done} of {len(trials)} trials completed"
        if self._record["best"] is not None:
            words += (
                f", best {self.objective} {format_value(self.best_score)} "
                f"({format_values(self.best_hyperparameters)})"
            )
        return f"<SearchResult: {words}, in {str(self.path)!r}>"

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        return dict(self._best()["hyperparameters"])

    @property
    def best_score(self) -> float:
        return self._best()["score"]

    @property
    def best_epoch(self) -> int | None:
        return self._best()["best_epoch"]

    @property
    def _seeds(self) -> int:
        return self._record["protocol"].get("seeds") or 1

    def _best(self) -> dict[str, Any]:
        if self._record["best"] is None:
            raise RuntimeError(f"no trial of the search in {str(self.path)!r} has completed")
        return self._record.get("chosen") or self._record["best"]

    @property
    def nested(self) -> pd.DataFrame | None:
        scores = self._record.get("nested")
        return None if scores is None else pd.DataFrame(scores)

    @property
    def _folds(self) -> int:
        return self._record["protocol"].get("folds") or 0

    def hyperparameters(self, trial: int | None = None) -> keras_tuner.HyperParameters:
        """Return a trial's values (default: the best one's) as the `hp` that `build` takes.

        Args:
            trial: a number from `trials()`; default: the chosen one.

        Raises:
            ValueError: there is no such trial.
        """
        values = (
            self.best_hyperparameters if trial is None else self._trial(trial)["hyperparameters"]
        )
        config = {"space": copy.deepcopy(self._record["space"]), "values": dict(values)}
        return keras_tuner.HyperParameters.from_config(config)

    def best_model(self) -> keras.Model:
        """Return the chosen trial's model with the weights of its best epoch, compiled.

        With `build` it is built anew and gets the trial's weights; without, in a result that was
        loaded from a folder, it is read from `best.keras`. After a search with folds it is the
        model in `best.keras`, which was trained on all rows.

        Raises:
            RuntimeError: no trial has completed.
            ValueError: the model's file is missing or is none.
        """
        best = self._best()
        checkpoint_folder = self._trial_folder(best["trial"])
        if self._build is not None and checkpoint_folder is not None and not self._folds:
            model = self._build.build(self.hyperparameters())
            load_checkpoint(model, checkpoint_folder)
            return model
        path = self.path / MODEL_FILE
        if self._folds and not path.exists():
            raise ValueError(
                "the search ended before its model was trained on all rows: call refit(x, y), or "
                "search on with resume=True"
            )
        if not path.exists():
            raise ValueError(
                f"{str(path)!r} does not exist: pass build= to kregs.load_result to build the "
                "model anew"
            )
        _check_model_file(path)
        return keras.models.load_model(path)

    def trials(self) -> pd.DataFrame:
        """Return one row per trial, best first, failed and interrupted ones last.

        Returns:
            Columns `trial` (the number in the names of the trials' directories), `score` (the
            mean objective over the runs, at epochs chosen on other rows: a little worse than the
            best in `history`), `standard_error` (of the score, if trials have several
            runs), `best_epoch` (counted from 1), `seconds`, `status`
            (`"completed"`, `"failed"`, `"interrupted"`), and one per hyperparameter. A conditional
            hyperparameter that was not active is NaN, except a coefficient that
            `Regularization.from_hp` switched off: 0. Hyperband trains a promising point in several
            trials, of more epochs each: it has several rows.
        """
        names = [hp["config"]["name"] for hp in self._record["space"]]
        # what only some trial's build asked for
        names += [name for trial in self._record["trials"] for name in trial["hyperparameters"]]
        names = list(dict.fromkeys(names))
        columns = ["trial", "score", "standard_error", "best_epoch", "seconds", "status"]
        if all(trial.get("standard_error") is None for trial in self._record["trials"]):
            columns.remove("standard_error")
        rows = []
        for trial in self._record["trials"]:
            values = {name: self._value(trial["hyperparameters"], name) for name in names}
            rows.append({key: trial.get(key) for key in columns} | values)
        frame = pd.DataFrame(rows, columns=[*columns, *names])
        frame = frame.astype({name: float for name in columns if name in _FLOATS})
        frame = frame.astype({"best_epoch": "Int64"})
        return frame.sort_values(
            ["score", "trial"], ascending=[self.direction == "min", True], na_position="last"
        ).reset_index(drop=True)

    @staticmethod
    def _value(values: Mapping[str, Any], name: str) -> Any:
        if name in values:
            return values[name]
        # from_hp's switch `use_l2` for `l2`, also behind a prefix
        for place in (i for i in range(len(name)) if i == 0 or name[i - 1] in "_/"):
            if values.get(f"{name[:place]}use_{name[place:]}") is False:
                return 0.0
        return float("nan")

    def failures(self) -> pd.DataFrame:
        """Return the trials that failed: columns `trial` and `message`, the reason in one line."""
        failed = [
            {"trial": t["trial"], "message": t["message"]}
            for t in self._record["trials"]
            if t["status"] == "failed"
        ]
        return pd.DataFrame(failed, columns=["trial", "message"])

    def history(self, trial: int) -> pd.DataFrame:
        """Return what a trial logged: one row per epoch.

        Args:
            trial: a number from `trials()`.

        Returns:
            Columns `epoch` (counted from 1), `fold` and `seed` if there are several, and one per
            metric.

        Raises:
            ValueError: there is no such trial.
        """
        number = self._trial(trial)["trial"]
        stored = self._stored_history(number)
        frames = []
        for run, metrics in enumerate(stored["histories"]):
            fold, own_seed = divmod(run, self._seeds)
            frame = pd.DataFrame(metrics, dtype=float)
            frame.insert(
                0,
                "epoch",
                range(1 + stored["initial_epoch"], 1 + stored["initial_epoch"] + len(frame)),
            )
            if self._seeds > 1:
                frame.insert(1, "seed", own_seed)
            if self._folds:
                frame.insert(1, "fold", fold)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"epoch": []})

    def scores(self, trial: int) -> pd.DataFrame:
        """Return a trial's score in each of its runs: columns `fold`, `seed`, `score`, `epoch`.

        Args:
            trial: a number from `trials()`.

        Raises:
            ValueError: there is no such trial.
        """
        frame = pd.DataFrame(self._trial(trial).get("scores") or [])
        frame = frame.reindex(columns=["fold", "seed", "score", "epoch"])
        return frame.assign(epoch=frame["epoch"] + 1 + self._trial(trial).get("initial_epoch", 0))

    def compare(self, a: int, b: int) -> Comparison:
        """Say whether two trials differ by more than luck.

        They are compared over their common folds (or seeds), pair by pair, with the variance
        corrected for the training rows that folds share.

        Args:
            a, b: numbers from `trials()`.

        Returns:
            The difference of the scores, its standard error, the p-value, and which is better.

        Raises:
            ValueError: there is no such trial, or there are fewer than 2 common runs.

        Reference:
            Nadeau, Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
        """
        first, second = (self._trial(number).get("scores") or [] for number in (a, b))
        share = self._record["protocol"].get("held_out_share")
        return compare(first, second, direction=self.direction, held_out_share=share)

    def _stored_history(self, number: int) -> dict[str, Any]:
        folder = self._trial_folder(number)
        if folder is not None:
            training = TrialRecord.read(folder) or TrialRecord()
            return {"histories": training.histories, "initial_epoch": training.initial_epoch}
        path = self.path / HISTORIES_FILE
        if not path.exists():
            raise ValueError(f"{str(path)!r} does not exist: the histories of this result are lost")
        return json.loads(path.read_text(encoding="utf-8"))[str(number)]

    def refit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        callbacks: Iterable[keras.callbacks.Callback] = (),
        seed: int | None = None,
        verbose: str | int = 0,
    ) -> keras.Model:
        """Train a fresh model of the best hyperparameters on all rows.

        With `preprocess` the transformer is fitted on all rows first, and kept as `preprocess_`.

        There are no validation rows left to stop by, so it is trained for as many epochs as were
        best in the search. With more rows these are more steps: the number of epochs is kept, not
        that of steps.

        Args:
            x, y, sample_weight, class_weight: as in `keras.Model.fit`.
            epochs: default: `best_epoch`.
            batch_size: default: the search's.
            callbacks: for this training only; the search's are not used.
            seed: integer >= 0; default: the search's, which repeats the best trial's initial
                weights.
            verbose: as in `keras.Model.fit`.

        Returns:
            The trained model.

        Raises:
            TypeError, ValueError: an argument is wrong, or the result was loaded without `build`.
            RuntimeError: no trial has completed.
        """
        from kregs.population.rows import is_dataset
        from kregs.search.protocol import as_arrays
        from kregs.training.data_checks import check_data

        if self._build is None:
            raise ValueError(
                "`refit` needs the build function, which no file holds: pass it to "
                "kregs.load_result(path, build=build)"
            )
        if epochs is None:
            # a user's own `fit` may not tell its epochs
            epochs = self.best_epoch or self._record["protocol"]["epochs"]
        epochs = check_integer("epochs", epochs, minimum=1)
        seed = self.seed if seed is None else check_integer("seed", seed, minimum=0)
        fit: dict[str, Any] = {
            "epochs": epochs,
            "class_weight": class_weight,
            "callbacks": list(callbacks),
            "verbose": verbose,
        }
        if not is_dataset(x):
            x = x if hasattr(x, "iloc") and self._preprocess is not None else as_arrays(x)
            y = as_arrays(y)
            sample_weight = None if sample_weight is None else np.asarray(sample_weight)
            if batch_size is None:
                batch_size = self._record["protocol"]["batch_size"]
            fit |= {"y": y, "sample_weight": sample_weight}
            fit["batch_size"] = check_integer("batch_size", batch_size, minimum=1)
        elif isinstance(x, tf.data.Dataset):
            fit["shuffle"] = False  # the dataset's own affair: Keras warns of its default
        with preserved_state():
            trial_seed = derived_seed(seed, 0)
            keras.utils.set_random_seed(trial_seed)
            hp = self.hyperparameters()
            if self._preprocess is not None:
                self.preprocess_, x = fit_transform(self._preprocess, x, np.asarray(y))
            model = self._build.build(hp)
            if not isinstance(x, keras.utils.PyDataset):
                check_data(x, y, model=model)
            keras.utils.set_random_seed(trial_seed)
            self._build.fit(hp, model, x, **fit)
        if not all(np.isfinite(weight).all() for weight in model.get_weights()):
            warnings.warn(
                "the training on all rows diverged: the model's weights are not finite",
                stacklevel=2,
            )
        return model

    def ensemble(
        self,
        k: int = 5,
        *,
        method: str = "mean",
        x: Any = None,
        y: Any = None,
    ) -> keras.Model:
        """Return the best trials' models as one model of stock Keras layers.

        Args:
            k: how many members. Only the trials whose weights are on disk (`tune(keep=...)`) can be
                members.
            method: `"mean"` of the predictions; `"vote"`, the share of the members that hold each
                class to be the likeliest; `"greedy"`: out of all kept trials `k` times the one that
                helps the mean most, with replacement.
            x, y: for `"greedy"`: rows that no member was trained on.

        Returns:
            A compiled model; `model.save("ensemble.keras")` writes one file, which loads without
            kregs.

        Raises:
            ValueError: fewer than `k` trials kept their weights, `method` is not known, or there
                are no rows to choose by.

        Reference:
            Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
        """
        check_choice("method", method, METHODS)
        k = check_integer("k", k, minimum=1)
        if (method == "greedy") != (x is not None and y is not None):
            raise ValueError(
                '`x` and `y` are for method="greedy", which needs both. '
                f"Received: method={method!r}, x {'given' if x is not None else 'not given'}"
            )
        if self._folds and "preprocess" in self._record["protocol"]:
            raise ValueError(
                "after a search with `folds` and `preprocess` the trials' models take rows of "
                "different transformers, one a fold: they make no ensemble"
            )
        models = self._kept_models()
        if method != "greedy":
            if len(models) < k:
                raise ValueError(
                    f"`k` must be at most the number of trials that kept their weights, "
                    f"{len(models)}: search with keep={k}. Received: k={k}"
                )
            return combine(models[:k], method=method)
        predictions = np.stack([model.predict(x, verbose=0) for model in models])
        counts = greedy_weights(predictions, np.asarray(y), loss_object(models[0].loss), size=k)
        chosen = np.flatnonzero(counts)
        return combine([models[i] for i in chosen], weights=counts[chosen].tolist())

    def _kept_models(self) -> list[keras.Model]:
        """The models of all trials whose weights are on disk, best first."""
        if self._build is None:
            raise ValueError(
                "`ensemble` needs the build function, which no file holds: pass it to "
                "kregs.load_result(path, build=build)"
            )
        models = []
        with preserved_state():
            for number in self.trials().dropna(subset="score")["trial"]:
                folder = self._trial_folder(int(number))
                if folder is None or not (folder / CHECKPOINT).exists():
                    continue
                model = self._build.build(self.hyperparameters(int(number)))
                load_checkpoint(model, folder)
                models.append(model)
        return models

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return a map of the objective over λ and the dropout rate.

        If these were not both searched, over the two numbers that varied most; over one if there
        is one only.

        Args:
            path: also write the figure there (`.png`, `.pdf`, `.svg`).

        Returns:
            A `matplotlib.figure.Figure`, for notebooks and for `savefig`.
        """
        figure = search_map(
            self.trials(),
            {hp["config"]["name"]: {"sampling": _sampling(hp)} for hp in self._record["space"]},
            objective=self.objective,
            direction=self.direction,
        )
        if path is not None:
            with atomic_path(path) as temporary:
                figure.savefig(temporary)
        return figure

    def report(
        self, path: str | os.PathLike[str] | None = None, *, command: str | None = None
    ) -> Path:
        """Write what was searched, how it was judged and what came out as one HTML page.

        Its pictures are in the page, and as PNG files beside it.

        Args:
            path: an `.html` file, or a folder for `report.html`. Default: the search's own folder.
            command: the command line that ran the search, to be shown.

        Returns:
            The page's path.

        Raises:
            RuntimeError: no trial has completed.
            ValueError: `path` cannot be written.
        """
        self._best()
        return write_report(
            self.path if path is None else path,
            trials=self.trials(),
            histories=self.history,
            record=self._record,
            hyperparameters={
                hp["config"]["name"]: {"sampling": _sampling(hp)} for hp in self._record["space"]
            },
            failures=self.failures(),
            name=self.path.resolve().name,
            command=command,
        )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> dict[str, Path]:
        """Write a folder that holds the result without the search's own files.

        Args:
            path: the folder; made if it does not exist.
            overwrite: write over another result in it.

        Returns:
            The files' paths: `"model"` (`best.keras`), `"trials"` (`trials.csv`), `"result"`
            (`result.json`), `"histories"` (`histories.json`), `"plot"` (`plot.png`).

        Raises:
            FileExistsError: `path` holds another result and `overwrite` is not set.
            RuntimeError: no trial has completed.
        """
        folder = Path(path)
        same = folder.resolve() == self.path.resolve()
        self._best()
        if (folder / RESULT_FILE).exists() and not (overwrite or same):
            raise FileExistsError(
                f"{str(folder)!r} holds a result already: choose another folder or pass "
                "overwrite=True"
            )
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "model": folder / MODEL_FILE,
            "trials": folder / TRIALS_FILE,
            "result": folder / RESULT_FILE,
            "histories": folder / HISTORIES_FILE,
            "plot": folder / PLOT_FILE,
        }
        if not (self.path / MODEL_FILE).exists():
            with atomic_path(files["model"]) as temporary:
                self.best_model().save(temporary)
        elif not same:
            with atomic_path(files["model"]) as temporary:
                shutil.copyfile(self.path / MODEL_FILE, temporary)
        numbers = [trial["trial"] for trial in self._record["trials"]]
        histories = {str(number): self._stored_history(number) for number in numbers}
        write_json(files["histories"], histories, indent=None)
        write_text(files["trials"], self.trials().to_csv(index=False))
        write_json(files["result"], self._record)
        self.plot(files["plot"])
        return files

    def _trial(self, number: Any) -> dict[str, Any]:
        for trial in self._record["trials"]:
            if trial["trial"] == number:
                return trial
        known = [trial["trial"] for trial in self._record["trials"]]
        raise ValueError(
            f"`trial` must be the number of one of the {len(known)} trials, as in trials(). "
            f"Received: trial={number!r}"
        )

    def _trial_folder(self, number: int) -> Path | None:
        return next((p for i, p in trial_folders(self.path) if i == number), None)


def load_result(
    path: str | os.PathLike[str], *, build: Any = None, preprocess: Any = None
) -> SearchResult:
    """Load what `SearchResult.save` wrote, or the project directory of a search.

    Args:
        path: a saved folder, or `<directory>/<project_name>` of `kregs.tune`, also of a search
            that was interrupted or still runs.
        build: the build function or hypermodel of the search, which no file holds. `refit` needs
            it; `best_model` without it reads `best.keras`.
        preprocess: the search's unfitted transformer, which no file holds either.

    Returns:
        A `SearchResult`.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: `path` holds no result, or its `best.keras` is no Keras model.
        TypeError: `build` is no function.
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(
            f"`path` must be a folder with a result: {str(path)!r} is not there"
        )
    if folder.is_file():
        raise ValueError(
            "`path` must be a folder that SearchResult.save wrote, or a project directory of "
            f"kregs.tune. Received: the file {str(path)!r}"
        )
    record = read_record(folder)
    if (folder / MODEL_FILE).exists():
        _check_model_file(folder / MODEL_FILE)
    hypermodel = None if build is None else make_hypermodel(build)
    return SearchResult(record, folder, build=hypermodel, preprocess=preprocess)


def read_record(folder: Path) -> dict[str, Any]:
    """Return a folder's `result.json`, its trials as they are now; `ValueError` if it has none."""
    path = folder / RESULT_FILE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"`path` must hold a result of kregs: there is no {RESULT_FILE} in {str(folder)!r}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read as JSON: {error}") from None
    needed = {"format", "objective", "seed", "seconds", "space", "protocol", "trials", "best"}
    if not isinstance(record, dict) or not needed <= set(record):
        raise ValueError(f"{str(path)!r} is no result of kregs.tune")
    if record["format"] != _FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {record['format']!r}; this version of kregs reads {_FORMAT}"
        )
    return with_trials(record, folder) if any(trial_folders(folder)) else record


def new_record(**facts: Any) -> dict[str, Any]:
    """Return the `result.json` of a search that begins."""
    return {"format": _FORMAT, **facts, "seconds": 0.0, "best": None, "trials": []}


def with_trials(record: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the record with the trials that a project directory holds, and the best of them."""
    trials = sorted(_read_trials(folder), key=lambda trial: trial["trial"])
    completed = [trial for trial in trials if trial["score"] is not None]
    rule = {"direction": record["objective"]["direction"]}
    space = record["space"]
    best = choose(completed, space, selection="best", **rule)
    chosen = choose(completed, space, selection=record["protocol"].get("selection", "best"), **rule)
    return {**record, "best": _summary(best), "chosen": _summary(chosen), "trials": trials}


def _summary(trial: Mapping[str, Any] | None) -> dict[str, Any] | None:
    names = ("trial", "score", "standard_error", "best_epoch", "hyperparameters")
    return None if trial is None else {name: trial[name] for name in names}


def _read_trials(folder: Path) -> Iterator[dict[str, Any]]:
    for number, trial_folder in trial_folders(folder):
        try:
            state = json.loads((trial_folder / "trial.json").read_text(encoding="utf-8"))
        except FileNotFoundError:  # killed before it began
            continue
        training = TrialRecord.read(trial_folder) or TrialRecord(status="interrupted")
        status = _STATUS.get(state["status"], "interrupted")
        yield {
            "trial": number,
            "score": state["score"] if status == "completed" else None,
            "standard_error": training.standard_error if status == "completed" else None,
            "scores": training.scores,
            "initial_epoch": training.initial_epoch,
            "best_epoch": training.best_epoch if status == "completed" else None,
            "seconds": None if status == "interrupted" else training.seconds,
            "status": status,
            "message": training.message if status == "failed" else None,
            "hyperparameters": own_hyperparameters(state["hyperparameters"]["values"]),
        }


def trial_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the number and the directory of every trial in a project directory."""
    for path in sorted(folder.glob("trial_*")):
        number = path.name.removeprefix("trial_")
        if path.is_dir() and number.isdigit():
            yield int(number), path


def lasting(callbacks: Iterable[Any]) -> list[Any]:
    """Return fresh copies of the callbacks that a training without validation rows needs, too."""
    schedulers = keras.callbacks.LearningRateScheduler
    return [copy.deepcopy(c) for c in callbacks if isinstance(c, schedulers)]


def prune(result: SearchResult, keep: int) -> None:
    """Remove the checkpoints of all trials but the best `keep` and the chosen one."""
    if result._record["protocol"]["oracle"] in ("hyperband", "HyperbandOracle"):
        return  # resumed, its trials go on from one another
    numbers = result.trials().dropna(subset="score")["trial"].tolist()
    for number in set(numbers[keep:]) - {result._best()["trial"]}:
        folder = result._trial_folder(number)
        if folder is not None:
            (folder / CHECKPOINT).unlink(missing_ok=True)


def write_result(result: SearchResult, model: keras.Model | None = None) -> None:
    """Write a search's files into its project directory.

    `result.json`, `trials.csv`, `best.keras` and, if the rows went through a transformer,
    `preprocessing.joblib`.

    Args:
        result: of the search.
        model: goes into `best.keras`. Default: the chosen trial's, with the weights of its run; not
            after a search with folds, whose models have not seen all rows.
    """
    write_json(result.path / RESULT_FILE, result._record)
    write_text(result.path / TRIALS_FILE, result.trials().to_csv(index=False))
    if result._record["best"] is None or (result._folds and model is None):
        return
    if result.preprocess_ is not None:
        with atomic_path(result.path / PREPROCESSING_FILE) as temporary:
            joblib.dump(result.preprocess_, temporary)
    try:
        with atomic_path(result.path / MODEL_FILE) as temporary:
            (model or result.best_model()).save(temporary)
    except Exception as error:  # a model that cannot be saved must not cost the search
        warnings.warn(
            f"{MODEL_FILE} could not be written ({type(error).__name__}: {error}); "
            "SearchResult.best_model() builds the model anew",
            stacklevel=3,
        )


def _check_model_file(path: Path) -> None:
    if not zipfile.is_zipfile(path) or "config.json" not in zipfile.ZipFile(path).namelist():
        raise ValueError(f"{str(path)!r} is no .keras file: it cannot be loaded as a model")


def _sampling(hp: Mapping[str, Any]) -> str | None:
    """Return how a number is sampled, `None` for what is no number."""
    config = hp["config"]
    if hp["class_name"] in ("Float", "Int"):
        return "log" if config.get("sampling") in ("log", "reverse_log") else "linear"
    values = config.get("values")
    numbers = hp["class_name"] == "Choice" and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values
    )
    if not numbers:
        return None
    positive = [value for value in values if value > 0]
    wide = len(positive) > 1 and min(values) >= 0 and max(positive) / min(positive) >= 50
    return "log" if wide else "linear"
