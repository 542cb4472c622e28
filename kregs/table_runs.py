"""A search on a table of one's own, its pipeline as files, and predictions from these."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.files import PREPROCESSING_FILE, write_json
from kregs.table import Column, Table, read_rows, read_table
from kregs.validation import check_integer, check_number

if TYPE_CHECKING:
    import keras

    from kregs.search import SearchResult

TABLE_FILE = "table.json"

_FORMAT = 1  # of table.json
_PACKAGES = ("kregs", "keras", "tensorflow", "keras-tuner", "numpy", "pandas", "scikit-learn")
_IMBALANCE = 0.5  # classes are weighted if the rarest has less than this part of an equal share
_BATCH = 1024  # rows per call in prediction


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TableRun:
    """What `tune_table` returns.

    Args:
        record: what is in `table.json`.
        scores: the test part's scores, one row a model, one column a metric.
        files: the paths of `"model"`, `"preprocessing"`, `"table"`, `"trials"`, `"result"` and
            `"report"`.
        search: the `SearchResult`.
        table: the `Table` that was read.
    """

    record: dict[str, Any]
    scores: pd.DataFrame
    files: dict[str, Path]
    search: SearchResult
    table: Table


def tune_table(
    data: Any,
    target: str | None = None,
    *,
    task: str | None = None,
    categorical: Iterable[str] = (),
    drop: Iterable[str] = (),
    test_share: float = 0.2,
    folds: Any = 5,
    selection: str = "best",
    oracle: Any = "random",
    max_trials: int = 20,
    epochs: int = 60,
    max_time: float | None = None,
    seed: int = 0,
    directory: str | os.PathLike[str] = "kregs_runs",
    project_name: str = "table",
    resume: bool = False,
    command: str | None = None,
    verbose: str | int = "auto",
) -> TableRun:
    """Search a dense network for a table, test it once, and save what predicts on raw rows.

    A part of the rows is kept for the test. On the others λ, dropout, learning rate and width are
    searched by `kregs.tune` with cross-validation: medians, standard deviations and encodings are
    those of each fold's training rows. The chosen network is then trained on all rows but the
    test's, and scored on these, once, beside scikit-learn's linear model and the guess that looks
    at no column.

    If the rarest class has less than half of an equal share, every class is given the same weight
    (for the linear model, too). The probabilities are then those of a world where all classes are
    equally frequent: right for finding rare classes, too high for these as plain frequencies.

    The folder holds `best.keras`, `preprocessing.joblib` and `table.json`: `predict_table` and
    `kregs predict` read them. joblib files can run code when loaded: load your own only.

    Args:
        data: a CSV or Parquet file, a `DataFrame`, or what `kregs.read_table` returned.
        target: the column to be predicted; not with a `Table`.
        task, categorical, drop: as in `kregs.read_table`; not with a `Table`.
        test_share: the part of the rows kept for the test, in (0, 1); stratified by class, with
            at least one row of every class in the test and two to train on, whatever the part.
        folds, selection, oracle, max_trials, epochs, max_time, seed, directory, project_name,
            resume, verbose: as in `kregs.tune`.
        command: the command line to be shown in the report.

    Returns:
        A `TableRun`.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: as `kregs.read_table`, `kregs.tune`.
        FileExistsError: there is a run of this name and `resume` is not set.

    Example:

    >>> import tempfile
    >>> from sklearn.datasets import load_iris
    >>> iris = load_iris(as_frame=True).frame
    >>> run = tune_table(
    ...     iris, "target", folds=2, max_trials=1, epochs=3, verbose=0,
    ...     directory=tempfile.mkdtemp(),
    ... )
    >>> run.scores.index.tolist()
    ['network', 'logistic regression', 'most frequent class']
    >>> predict_table(run.search.path, iris[:2]).columns.tolist()
    ['prediction', 'probability_0', 'probability_1', 'probability_2']
    """
    seed = check_integer("seed", seed, minimum=0)
    share = check_number("test_share", test_share, above=0.0, below=1.0)
    if isinstance(data, Table):
        if target is not None:
            raise ValueError(f"a Table has its target: {data.target_name!r}. Received: {target!r}")
        table = data
    else:
        if target is None:
            raise ValueError("`target` must be the column to be predicted. Received: None")
        table = read_table(data, target, task=task, categorical=categorical, drop=drop)
    train, test = _split(table, share, seed)

    import kregs
    from kregs.search.randomness import derived_seed

    preprocessing = table.preprocessing(train)
    x_train, x_test = table.features.iloc[train], table.features.iloc[test]
    width = preprocessing.fit_transform(x_train).shape[1]
    center, scale = _target_units(table, train)
    y = table.target if table.classes is not None else (table.target - center) / scale
    weights = _balance(table, train)
    result = kregs.tune(
        _builder(table, width, derived_seed(seed, 2)),
        x_train,
        y[train],
        folds=folds,
        preprocess=preprocessing,
        sample_weight=weights,
        selection=selection,
        oracle=oracle,
        max_trials=max_trials,
        epochs=epochs,
        batch_size=32 if len(train) < 5_000 else 128 if len(train) < 50_000 else 512,
        max_time=max_time,
        seed=seed,
        directory=directory,
        project_name=project_name,
        resume=resume,
        verbose=verbose,
    )
    if result.preprocess_ is not None:
        model = result.best_model()
    else:  # without folds, or when `max_time` is up, the search trains no model on all rows
        from kregs.search.result import write_result

        model = result.refit(x_train, y[train], sample_weight=weights)
        write_result(result, model)

    files = {
        "model": result.path / "best.keras",
        "preprocessing": result.path / PREPROCESSING_FILE,
        "table": result.path / TABLE_FILE,
        "trials": result.path / "trials.csv",
        "result": result.path / "result.json",
    }
    transformed = result.preprocess_.transform(x_test)
    outputs = _outputs(model, transformed)
    guesses = {"network": outputs if table.classes is not None else outputs * scale + center}
    guesses |= _baselines(
        table, result.preprocess_.transform(x_train), table.target[train], weights, transformed
    )
    rows = {name: _scores(table, table.target[test], guess) for name, guess in guesses.items()}
    record = {
        "format": _FORMAT,
        "task": table.task,
        "target": table.target_name,
        "classes": table.classes,
        "target_units": None if table.classes is not None else {"mean": center, "sd": scale},
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "notes": table.notes,
        "rows": {"train": len(train), "test": len(test)},
        "classes_weighted": weights is not None,
        "seed": seed,
        "test": rows,
        "best_trial": {
            "hyperparameters": result.best_hyperparameters,
            "epochs": result.best_epoch,
            result.objective: result.best_score,
        },
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    write_json(files["table"], record)
    files["report"] = result.report(command=command)
    scores = pd.DataFrame.from_dict(rows, orient="index")
    return TableRun(record=record, scores=scores, files=files, search=result, table=table)


def predict_table(run: str | os.PathLike[str], rows: Any) -> pd.DataFrame:
    """Predict on raw rows with the pipeline that `tune_table` saved.

    The rows may hold more columns, in any order. Missing values and categories that were never
    seen are as in training; values of the wrong kind count as missing, with a warning.

    Args:
        run: the run's folder. It holds a joblib file, which can run code: load your own only.
        rows: a CSV or Parquet file or a `DataFrame`.

    Returns:
        One row per row. For classes: `prediction` and `probability_<class>` for each; for numbers:
        `prediction`.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: the folder holds no run of `tune_table`, the file is broken, or columns are
            missing.
    """
    folder = Path(run)
    record = check_run(folder)
    columns = [Column(**column) for column in record["columns"]]
    features = read_rows(rows, columns)

    import joblib
    import keras

    classes = record["classes"]
    names = ["prediction", *(f"probability_{label}" for label in classes or [])]
    if features.empty:
        return pd.DataFrame(columns=names)
    preprocessing = joblib.load(folder / PREPROCESSING_FILE)
    model = keras.models.load_model(folder / "best.keras")
    outputs = _outputs(model, preprocessing.transform(features))
    if classes is None:
        units = record["target_units"]
        return pd.DataFrame({"prediction": outputs[:, 0] * units["sd"] + units["mean"]})
    shares = _probabilities(outputs)
    frame = pd.DataFrame(shares, columns=names[1:])
    frame.insert(0, "prediction", np.array(classes)[shares.argmax(axis=1)])
    return frame


def check_run(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what is in a run's `table.json`, or raise as `predict_table` if it is no whole run."""
    folder = Path(run)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`run` must be the folder of a run on a table. {str(folder)!r} is not there, or no "
            "folder"
        )
    for name in (TABLE_FILE, PREPROCESSING_FILE, "best.keras"):
        if not (folder / name).is_file():
            raise ValueError(
                f"{str(folder)!r} holds no finished run of kregs.tune_table: there is no {name}"
            )
    try:
        record = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(folder / TABLE_FILE)!r} cannot be read as JSON: {error}") from None
    if record.get("format") != _FORMAT:
        raise ValueError(
            f"{str(folder / TABLE_FILE)!r} has format {record.get('format')!r}; this version of "
            f"kregs reads {_FORMAT}"
        )
    return record


def _split(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train on and those of the test, sorted."""
    from sklearn.model_selection import train_test_split

    rows = len(table.target)
    kinds = len(table.classes or [])
    held = max(round(rows * share), kinds, 2)
    if rows - held < max(10, 2 * kinds):
        raise ValueError(
            f"`test_share` must leave rows to train on. Received: test_share={share}, which keeps "
            f"{held} of {rows} rows for the test"
        )
    train, test = train_test_split(
        np.arange(rows),
        test_size=held,
        random_state=seed,
        stratify=None if table.classes is None else table.target,
    )
    if table.classes is not None:
        train, test = _every_class(table.target, train, test)
    return np.sort(train), np.sort(test)


def _every_class(
    target: np.ndarray, train: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Move rows so that every class has one to test and two, for different folds, to train on.

    The rows are shuffled, and every class has at least three.
    """
    for number in np.unique(target):
        own_train, own_test = train[target[train] == number], test[target[test] == number]
        to_test = own_train[: max(0, 1 - len(own_test))]
        to_train = own_test[: max(0, 2 - len(own_train))]
        train = np.append(np.setdiff1d(train, to_test, assume_unique=True), to_train)
        test = np.append(np.setdiff1d(test, to_train, assume_unique=True), to_test)
    return train, test


def _target_units(table: Table, train: np.ndarray) -> tuple[float, float]:
    """Return the mean and standard deviation of a regression's targets that are trained on."""
    if table.classes is not None:
        return 0.0, 1.0
    values = table.target[train]
    return float(values.mean()), float(values.std()) or 1.0


def _balance(table: Table, train: np.ndarray) -> np.ndarray | None:
    """Return weights that give every class the same sum, or `None` if none is much rarer."""
    if table.classes is None:
        return None
    from sklearn.utils.class_weight import compute_sample_weight

    counts = np.bincount(table.target)
    if counts.min() >= _IMBALANCE * counts.mean():
        return None
    return compute_sample_weight("balanced", table.target[train])


def _builder(table: Table, width: int, seed: int) -> Any:
    """Return the build function of the search."""
    import kregs

    count = len(table.classes or [])
    outputs, head, loss, metrics = (
        (1, None, "mse", ["mae"])
        if table.classes is None
        else (1, "sigmoid", "binary_crossentropy", ["accuracy"])
        if count == 2
        else (count, "softmax", "sparse_categorical_crossentropy", ["accuracy"])
    )

    def build(hp: Any) -> keras.Model:
        units = hp.Choice("units", [32, 128])
        regularization = kregs.Regularization.from_hp(hp, l2=(0, 1e-6, 1e-1), dropout=(0.0, 0.6))
        learning_rate = hp.Float("learning_rate", 3e-4, 1e-2, sampling="log", default=1e-3)
        model = kregs.mlp(
            (width,),
            outputs,
            units=(units, units),
            head_activation=head,
            regularization=regularization,
            seed=seed,
        )
        return kregs.compile_model(model, loss, learning_rate=learning_rate, metrics=metrics)

    return build


def _outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return model.predict(x.astype("float32"), batch_size=_BATCH, verbose=0).astype(np.float64)


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return one probability a class: a network has one output for two classes."""
    if outputs.shape[1] == 1:
        return np.hstack([1 - outputs, outputs])
    return outputs / outputs.sum(axis=1, keepdims=True)


def _baselines(
    table: Table, x: np.ndarray, y: np.ndarray, weights: Any, x_test: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what scikit-learn's models, trained on the same rows, say of the test rows."""
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, RidgeCV

    if table.classes is None:
        ridge = RidgeCV(np.logspace(-3, 3, 13)).fit(x, y)
        return {
            "ridge regression": ridge.predict(x_test)[:, None],
            "mean": DummyRegressor().fit(x, y).predict(x_test)[:, None],
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # good enough to compare with
        logistic = LogisticRegression(max_iter=1000).fit(x, y, sample_weight=weights)
    return {
        "logistic regression": logistic.predict_proba(x_test),
        "most frequent class": DummyClassifier(strategy="prior").fit(x, y).predict_proba(x_test),
    }


def _scores(table: Table, y: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    from sklearn import metrics

    if table.classes is None:
        guess = guess[:, 0]
        return {
            "r2": metrics.r2_score(y, guess),
            "rmse": metrics.root_mean_squared_error(y, guess),
            "mae": metrics.mean_absolute_error(y, guess),
        }
    shares = _probabilities(guess)
    labels = np.arange(len(table.classes))
    chosen = shares.argmax(axis=1)
    return {
        "accuracy": metrics.accuracy_score(y, chosen),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, chosen),
        "log_loss": metrics.log_loss(y, shares, labels=labels),
        "roc_auc": metrics.roc_auc_score(
            y, shares[:, 1] if len(labels) == 2 else shares, multi_class="ovr", labels=labels
        ),
    }
