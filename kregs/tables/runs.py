"""`tune_table`: search a network for a table, test it once, save what predicts on raw rows."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import numbers
import os
import platform
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kregs.files import PREPROCESSING_FILE, TABLE_FILE, write_json
from kregs.presets import TablePreset, batch_rows, bin_count, epochs_of, for_table
from kregs.reporting.progress import EpochLines
from kregs.search.storage import MODEL_FILE, RESULT_FILE, TRIALS_FILE
from kregs.tables.baselines import baseline_outputs
from kregs.tables.budget import search_seconds
from kregs.tables.final import (
    KEPT_TRIALS,
    MEMBERS,
    MEMBERS_OF_ENSEMBLES,
    make_plan,
    train_last,
)
from kregs.tables.holdout import score_outputs
from kregs.tables.networks import TableNetwork
from kregs.tables.prediction import network_outputs
from kregs.tables.preprocessing import (
    SCALING_OPTIONS,
    make_preprocessing,
    number_and_code_columns,
)
from kregs.tables.record import FORMAT, call_of
from kregs.tables.scaling_search import scaling_losses
from kregs.tables.splitting import divide
from kregs.tables.table import Table, read_table
from kregs.validation import (
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_seed,
    suggestion,
)

if TYPE_CHECKING:
    from kregs.search import SearchResult

_PACKAGES = ("kregs", "keras", "tensorflow", "keras-tuner", "numpy", "pandas", "scikit-learn")


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

    Example: see `kregs.tune_table`, which makes it.
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
    number: Iterable[str] = (),
    categorical: Iterable[str] = (),
    date: Iterable[str] | Mapping[str, str] = (),
    keep: Iterable[str] = (),
    drop: Iterable[str] = (),
    groups: str | None = None,
    time: str | None = None,
    encoding: str | None = None,
    decimal: str | None = None,
    thousands: str | None = None,
    scaling: str = "robust",
    test_share: float = 0.2,
    test_file: Any = None,
    metric: str | None = None,
    class_weight: str | None = None,
    preset: TablePreset | None = None,
    ensemble: bool = True,
    folds: Any = "auto",
    selection: str = "best",
    oracle: Any = "random_from_defaults",
    max_trials: int = 20,
    epochs: int | None = None,
    max_time: float | str | None = "auto",
    seed: int = 0,
    directory: str | os.PathLike[str] = "kregs_runs",
    project_name: str = "table",
    resume: bool = False,
    workers: int | None = None,
    command: str | None = None,
    verbose: str | int = "auto",
) -> TableRun:
    """Search a network for a table, test it once, and save what predicts on raw rows.

    A part of the rows is kept for the test. On the others the network of `kregs.presets` and
    variations of it (λ, dropout, weight decay, learning rate, embedding) are tried by `kregs.tune`
    with cross-validation: medians, standard deviations and encodings are those of each fold's
    training rows. What was chosen is then trained on all rows but the test's, and scored on these,
    once, beside scikit-learn's boosted trees, its linear model and the guess that looks at no
    column; beside LightGBM, XGBoost and CatBoost, too, where they are installed (`pip install
    "kregs[peers]"`). What is saved is trained once more, on all rows, the test's too: the test
    scores are those of the networks before that.

    Of classes the probabilities are scaled by the temperature that fits the out-of-fold predictions
    best; `record["calibration"]` has it, and their log loss before and after.

    The folder holds `best.keras`, `preprocessing.joblib` and `table.json`: `predict_table` and
    `kregs predict` read them. joblib files can run code when loaded: load your own only.

    Args:
        data: a CSV or Parquet file, a `DataFrame`, or what `kregs.read_table` returned.
        target: the column to be predicted; not with a `Table`.
        task, number, categorical, date, keep, drop, groups, time, encoding, decimal, thousands: as
            in `kregs.read_table`; not with a `Table`.
        scaling: of numbers: `"robust"`, `"quantile"` or `"standard"`, see `Table.preprocessing`;
            `"search"` takes robust or quantile, whichever a small network does better with on
            folds of the training rows.
        test_share: the part of the rows kept for the test, in (0, 1); stratified by class, with
            at least one row of every class in the test and two to train on, whatever the part. With
            `groups` whole groups, with `time` the latest rows.
        test_file: the rows to test on, a file or a `DataFrame` with the same columns and a target;
            then all rows of `data` are trained on.
        metric: what epochs and trials are chosen by: `"log_loss"`, `"accuracy"`,
            `"balanced_accuracy"`, `"roc_auc"` (of several classes one against the rest),
            `"f1_macro"`; `"rmse"`, `"mae"`, `"mse"`, `"r2"`, of targets in standard deviations; or
            scikit-learn's name of such a scorer. Default: the loss without penalties.
        class_weight: `"balanced"`: every class is given the same weight in training, also of the
            models beside, and in the loss by which epochs, trials and the temperature are chosen; a
            `metric` counts each row once. The probabilities are then those of a world where all
            classes are equally frequent: right for finding rare classes, too high for these as
            plain frequencies.
        preset: how the first network is built and trained, which the others are variations of;
            default: what `kregs.presets.for_table` returns for the task.
        ensemble: train several networks at the end, each of one of the trials whose folds help each
            other most, as one population; what is saved is their mean. With a `selection` other
            than `"best"` all are of the chosen trial. `False`: one network, of the chosen trial.
        max_trials: how many networks; the first is the preset. 0: the preset, without a search.
        epochs: the most epochs of a trial; default: the preset's, see `kregs.presets.epochs_of`.
        max_time: seconds after which the search ends; what comes after it takes about as long
            again. `"auto"`: 15 for each 1,000 rows, at least 20 and at most 300; a preset without a
            search is trained to its end. `None`: no limit.
        folds: as in `kregs.tune`. With `time`, a number of folds means folds in order of time.
            `"auto"`: 5, of more than 5,000 rows to train on 3, of more than 20,000 2.
        selection, oracle, seed, directory, project_name, resume, workers, verbose: as in
            `kregs.tune`.
        command: the command line to be shown in the report.

    Returns:
        A `TableRun`.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: as `kregs.read_table`, `kregs.tune`.
        FileExistsError: there is a run of this name and `resume` is not set.

    Warns:
        UserWarning: the rows are divided at random, and seem to depend on each other: copies,
            groups, order of time.

    Example:

    >>> import tempfile
    >>> import kregs
    >>> from sklearn.datasets import load_iris
    >>> iris = load_iris(as_frame=True).frame
    >>> run = kregs.tune_table(
    ...     iris, "target", folds=2, max_trials=1, epochs=3, ensemble=False, verbose=0,
    ...     directory=tempfile.mkdtemp(),
    ... )
    >>> run.scores.index.tolist()[:2]
    ['network', 'HistGradientBoosting']
    >>> kregs.predict_table(run.search.path, iris[:2]).columns.tolist()
    ['prediction', 'probability_0', 'probability_1', 'probability_2']
    """
    call = {
        "test_share": test_share if test_file is None else None,
        "test_file": os.fspath(test_file) if isinstance(test_file, (str, os.PathLike)) else None,
        "scaling": scaling,
        "metric": metric,
        "class_weight": class_weight,
        "preset": preset,
        "ensemble": None if ensemble else False,
        "folds": folds,
        "selection": selection,
        "oracle": oracle,
        "max_trials": max_trials,
        "epochs": epochs,
        "max_time": max_time,
        "seed": seed,
    }
    seed = check_seed("seed", seed)
    share = check_number("test_share", test_share, above=0.0, below=1.0)
    max_trials = check_integer("max_trials", max_trials, minimum=0)
    if isinstance(data, Table):
        if target is not None:
            raise ValueError(f"a Table has its target: {data.target_name!r}. Received: {target!r}")
        given = {
            "task": task, "number": number, "categorical": categorical, "date": date, "keep": keep,
            "drop": drop, "groups": groups, "time": time, "encoding": encoding,
            "decimal": decimal, "thousands": thousands,
        }  # fmt: skip
        for name, value in given.items():
            if value:
                raise ValueError(
                    f"`{name}` is for kregs.read_table where `data` is a Table already. "
                    f"Received: {name}={value!r}"
                )
        table = data
    else:
        if target is None:
            raise ValueError("`target` must be the column to be predicted. Received: None")
        table = read_table(
            data,
            target,
            task=task,
            number=number,
            categorical=categorical,
            date=date,
            keep=keep,
            drop=drop,
            groups=groups,
            time=time,
            encoding=encoding,
            decimal=decimal,
            thousands=thousands,
        )
        if test_file is None:
            for warning in table.warnings:
                warnings.warn(warning, stacklevel=2)
    _check_goal(table, metric, class_weight)
    _check_seconds(max_time)
    if preset is not None and not isinstance(preset, TablePreset):
        raise TypeError(
            f"`preset` must be a kregs.presets.TablePreset or None. Received: preset={preset!r}"
        )
    check_flag("ensemble", ensemble)
    check_choice("scaling", scaling, SCALING_OPTIONS)
    split = divide(table, test_share=share, test_file=test_file, folds=folds, seed=seed)
    train, test = split.train, split.test

    import kregs
    from kregs.layers import quantile_edges

    losses = scaling_losses(table, train, seed) if scaling == "search" else {}
    scaling = min(losses, key=lambda name: losses[name]) if losses else scaling
    classes = None if table.classes is None else len(table.classes)
    # of all rows, those of a test file too: what is trained on them at the end knows their words
    preprocessing = make_preprocessing(
        split.features,
        table.columns,
        train,
        scaling=scaling,
        categories="codes",
        classes=classes,
    )
    x_train, x_test = split.features.iloc[train], split.features.iloc[test]
    center, scale = _target_units(table, train)
    y = split.target if table.classes is not None else (split.target - center) / scale
    transformed = np.asarray(preprocessing.fit_transform(x_train, y[train]))
    numbers, categories = number_and_code_columns(preprocessing)
    if preset is None:
        preset = for_table(classes, searched=max_trials > 0 and ensemble)
    fold_rows = _rows_of_a_fold(split.folds, len(train))
    network = TableNetwork(
        numbers=numbers,
        categories=tuple(categories),
        classes=classes,
        # a schedule counts the steps of a fold, by which trials are judged
        rows=fold_rows,
        epochs=epochs_of(preset, fold_rows) if epochs is None else epochs,
        batch_size=batch_rows(len(train)),
        preset=preset,
        searched=max_trials > 0,
        # of all rows that may be trained on, whatever the fold: they say nothing of the target
        edges=tuple(map(tuple, quantile_edges(transformed[:, :numbers], bin_count(fold_rows)))),
    )
    weights = _row_weights(split.target[train], class_weight)
    # weights of rows count in validation, too; those of classes do not, as in Keras
    by_row = metric is None and weights is not None
    result = kregs.tune(
        network,
        x_train,
        y[train],
        folds=split.folds,
        groups=split.groups,
        preprocess=preprocessing,
        sample_weight=weights if by_row else None,
        class_weight=None if by_row else class_weight,
        objective=metric or "val_data_loss",
        selection=selection,
        oracle=oracle,
        max_trials=max(max_trials, 1),
        epochs=network.epochs,
        batch_size=network.batch_size,
        max_time=_search_time(max_time, max_trials, len(train)),
        keep=KEPT_TRIALS,
        keep_folds=True,
        refit=False,  # what is trained on all rows is planned below
        seed=seed,
        directory=directory,
        project_name=project_name,
        resume=resume,
        workers=workers,
        verbose=verbose,
    )
    plan = make_plan(
        result,
        y[train],
        ensemble=ensemble,
        classes=classes is not None,
        members=MEMBERS_OF_ENSEMBLES if network.preset.ensemble else MEMBERS,
        weights=weights,
    )
    if verbose != 0:
        count = sum(plan.counts.values())
        print(f"training {count} networks on {len(train)} rows to test them, and on all {len(y)}")
    sets = [(x_train, y[train]), (split.features, y)]
    tested, saved = train_last(
        result,
        plan,
        sets,
        class_weight=class_weight,
        on_epochs=EpochLines("networks") if verbose != 0 else None,
    )

    files = {
        "model": result.path / MODEL_FILE,
        "preprocessing": result.path / PREPROCESSING_FILE,
        "table": result.path / TABLE_FILE,
        "trials": result.path / TRIALS_FILE,
        "result": result.path / RESULT_FILE,
    }
    seen = split.features.select_dtypes(object)  # what is saved is trained on all rows
    network_rows = tested.transformer.transform(x_test)
    by_model = {"network": network_outputs(tested.model, network_rows) * scale + center}
    one_hot = table.preprocessing(train, scaling=scaling)  # for models that embed no codes
    x_linear = one_hot.fit_transform(x_train, y[train])  # target encoding is cross-fitted
    by_model |= baseline_outputs(
        table.task,
        (x_train, x_linear),
        split.target[train],
        weights,
        (x_test, one_hot.transform(x_test)),
        seed=seed,
    )
    test_scores = {
        name: score_outputs(table.task, split.target[test], predictions)
        for name, predictions in by_model.items()
    }
    record = {
        "format": FORMAT,
        "task": table.task,
        "target": table.target_name,
        "classes": table.classes,
        "target_units": None if table.classes is not None else {"mean": center, "sd": scale},
        "columns": [dataclasses.asdict(column) for column in table.columns],
        "categories": {name: sorted(seen[name].dropna().unique()) for name in seen},
        "encoding": table.options.encoding,
        "notes": table.notes,
        "warnings": table.warnings if test_file is None else [],
        "split": split.words,
        "rows": {"train": len(train), "test": len(test), "saved_model": len(y)},
        "metric": metric,
        "class_weight": class_weight,
        "seed": seed,
        "scaling": scaling,
        "scaling_losses": losses,
        "command": command,
        "call": call_of(table, call),
        "test": test_scores,
        **plan.record,
        "best_trial": {
            "hyperparameters": result.best_hyperparameters,
            "epochs": result.best_epoch,
            result.objective: result.best_score,
        },
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    result.preprocess_ = saved.transformer
    result.write_model(saved.model)
    write_json(files["table"], record)
    files["report"] = result.report(command=command)
    scores = pd.DataFrame.from_dict(test_scores, orient="index")
    return TableRun(record=record, scores=scores, files=files, search=result, table=table)


def _rows_of_a_fold(folds: Any, rows: int) -> int:
    """Return how many of some rows a fold is trained on, on average where folds differ."""
    if isinstance(folds, numbers.Integral):
        return round(rows * (1 - 1 / max(int(folds), 2)))
    if isinstance(folds, list):
        return round(float(np.mean([len(train) for train, _ in folds])))
    return rows if folds is None else round(0.8 * rows)


def _target_units(table: Table, train: np.ndarray) -> tuple[float, float]:
    """Return the mean and standard deviation of a regression's targets that are trained on."""
    if table.classes is not None:
        return 0.0, 1.0
    values = table.target[train]
    return float(values.mean()), float(values.std()) or 1.0


def _check_goal(table: Table, metric: Any, class_weight: Any) -> None:
    """Raise if what a search is judged or weighted by does not fit the task."""
    from kregs.search.judging.scorer import check_metric

    check_choice("class_weight", class_weight, (None, "balanced"))
    if table.classes is None and class_weight is not None:
        raise ValueError(
            "`class_weight` is for a classification. "
            f"Received: class_weight={class_weight!r} and a regression of {table.target_name!r}"
        )
    check_metric(metric, of_classes=table.classes is not None)


def _search_time(max_time: Any, max_trials: int, rows: int) -> float | None:
    """Return the seconds of the search; `None` for no limit."""
    if max_time != "auto":
        return max_time
    # one trial that is cut short has folds of unequal epochs, and a temperature of these
    return search_seconds(rows) if max_trials else None


def _check_seconds(max_time: Any) -> None:
    """Raise if a time for the search is no number of seconds, `"auto"` or `None`."""
    if isinstance(max_time, str) and max_time != "auto":
        raise ValueError(
            "`max_time` must be a number of seconds, 'auto' or None. "
            f"Received: max_time={max_time!r}.{suggestion(max_time, ['auto'])}"
        )
    if max_time is not None and max_time != "auto":
        check_number("max_time", max_time, above=0.0)


def _row_weights(labels: np.ndarray, class_weight: str | None) -> np.ndarray | None:
    """Return the weights by class of some rows, or `None`."""
    if class_weight is None:
        return None
    from sklearn.utils.class_weight import compute_sample_weight

    return compute_sample_weight(class_weight, labels)
