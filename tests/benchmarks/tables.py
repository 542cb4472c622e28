"""kregs beside boosted trees and other networks on real tables: ranks, scores and seconds.

    python tests/benchmarks/tables.py [--tables wdbc yacht ...] [--splits 3] [--rows 2000]
                                      [--models "kregs preset" "CatBoost" ...] [--output FILE]

The tables are those of `../shared/data` with at most 10,000 rows. A fifth of the rows of each is to
test on, drawn anew for each split; `--rows` draws that many rows first. All models have the same
rows, as a DataFrame with its categories as text, and their default settings; what is not installed
is left out and said so. RealMLP and TabM take no missing numbers: they get the column's median.
`kregs preset` is `kregs.tune_table(max_trials=0)`, `kregs search` its default search; both keep 5 %
of their rows for a test of their own. Each result is written to `tuning/results/tables.json` as it
is there, and a later call goes on; the table printed is of the splits and models asked for.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("KREGS_SHARED") or REPOSITORY.parent / "shared")
RESULTS = REPOSITORY / "tuning" / "results" / "tables.json"
MOST_ROWS = 10_000
TARGET = "target"


# ---- tables --------------------------------------------------------------------------------


def loader() -> Any:
    """Return the module that reads the tables."""
    spec = importlib.util.spec_from_file_location("load", SHARED / "data" / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables() -> dict[str, str]:
    """Return the task of each table that is not too long, by name."""
    entries = loader().manifest()
    return {
        entry["name"]: entry["task"]
        for entry in entries
        if entry.get("task") in ("classification", "regression") and entry["rows"] <= MOST_ROWS
    }


def read(name: str, task: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the columns, numbers as floats and categories as text, and the target."""
    if task == "regression":
        x, y = loader().regression(name)
        return pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])]), y
    x, labels, kinds = loader().tabular(name)
    frame = {}
    for i, (column, kind) in enumerate(zip(x.T, kinds, strict=True)):
        values = pd.Series(column, dtype=object).where(~np.isin(column, ["?", ""]), None)
        frame[f"c{i}"] = pd.to_numeric(values).astype(float) if kind == "num" else values
    return pd.DataFrame(frame), labels


def split(y: np.ndarray, task: str, seed: int, most: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to train and to test on; classes of less than 5 rows are left out."""
    from sklearn.model_selection import train_test_split

    rows = np.random.default_rng(seed).permutation(len(y))[:most]
    if task == "classification":
        labels, counts = np.unique(y[rows], return_counts=True)
        rows = rows[np.isin(y[rows], labels[counts >= 5])]
    labels = y[rows] if task == "classification" else None
    return train_test_split(rows, test_size=0.2, random_state=seed, stratify=labels)


# ---- models: (x, y, x_test, task, seed) to probabilities by sorted class, or targets ----------


def with_kregs(**options: Any) -> Callable:
    """Return `kregs.tune_table` with these options as a model."""

    def model(x, y, x_test, task, seed):
        import kregs

        labels = np.unique(y)
        # words, which are read as they are
        classes = [f"class {place}" for place in range(len(labels))]
        target = y if task == "regression" else np.array(classes)[np.searchsorted(labels, y)]
        frame = x.assign(**{TARGET: target})
        with tempfile.TemporaryDirectory() as folder:
            run = kregs.tune_table(
                frame,
                TARGET,
                task=task,
                categorical=list(x.select_dtypes(object)),
                test_share=0.05,
                seed=seed,
                directory=folder,
                verbose=0,
                **options,
            )
            made = kregs.predict_table(run.search.path, x_test)
        if task == "regression":
            return made["prediction"].to_numpy()
        zeros = np.zeros(len(x_test))  # of a class with too few rows to be learned
        return np.stack(
            [
                made[f"probability_{name}"].to_numpy() if name in run.table.classes else zeros
                for name in classes
            ],
            axis=1,
        )

    return model


def encoded(x: pd.DataFrame, x_test: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Return codes of categories, NaN where missing or not seen, and which columns they are."""
    from sklearn.preprocessing import OrdinalEncoder

    x, x_test = with_values(x, x_test)
    texts = list(x.select_dtypes(object))
    if not texts:
        return x.to_numpy(float), x_test.to_numpy(float), [False] * x.shape[1]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    encoder.fit(x[texts].fillna("(missing)"))
    made = []
    for part in (x, x_test):
        codes = pd.DataFrame(
            encoder.transform(part[texts].fillna("(missing)")), columns=texts, index=part.index
        )
        made.append(part.assign(**codes).to_numpy(float))
    return made[0], made[1], [name in texts for name in x]


def with_values(x: pd.DataFrame, x_test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames without columns that have no value at all, which some cannot read."""
    filled = x.columns[x.notna().any()]
    return x[filled], x_test[filled]


def categories(x: pd.DataFrame, x_test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames with text as pandas's categories, those of the training rows."""
    x, x_test = (frame.copy() for frame in with_values(x, x_test))
    for name in x.select_dtypes(object):
        kind = pd.CategoricalDtype(sorted(x[name].dropna().unique()))
        x[name], x_test[name] = x[name].astype(kind), x_test[name].astype(kind)
    return x, x_test


def without_gaps(x: pd.DataFrame, x_test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return `categories` with missing numbers replaced by the column's median."""
    x, x_test = categories(x, x_test)
    medians = x.median(numeric_only=True)
    return x.fillna(medians), x_test.fillna(medians)


def fitted(make: Callable, prepare: Callable, *, numbered: bool = False) -> Callable:
    """Return a model of scikit-learn's manner.

    Args:
        make: of the task, the columns that are categories and the seed.
        prepare: makes `(x, x_test)` of these.
        numbered: whether it wants classes from 0.
    """

    def model(x, y, x_test, task, seed):
        texts = list(x.select_dtypes(object))
        x, x_test = prepare(x, x_test)[:2]
        estimator = make(task, texts, seed)
        if task == "regression":
            return np.ravel(estimator.fit(x, y).predict(x_test))
        target = np.unique(y, return_inverse=True)[1] if numbered else y
        made = estimator.fit(x, target).predict_proba(x_test)
        # CatBoost has "2" before "10"
        return made[:, np.argsort(np.asarray(estimator.classes_))]

    return model


def boosting(x, y, x_test, task, seed):
    """scikit-learn's HistGradientBoosting."""
    from sklearn import ensemble

    x, x_test, are_codes = encoded(x, x_test)
    few = [is_code and np.nanmax(column) < 255 for is_code, column in zip(are_codes, x.T)]  # noqa: B905
    kind = "Regressor" if task == "regression" else "Classifier"
    made = getattr(ensemble, f"HistGradientBoosting{kind}")(
        categorical_features=few, random_state=seed
    ).fit(x, y)
    return made.predict(x_test) if task == "regression" else made.predict_proba(x_test)


def linear(x, y, x_test, task, seed):
    """Logistic regression, or ridge regression."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    text = make_pipeline(
        SimpleImputer(missing_values=None, strategy="constant", fill_value="(missing)"),
        OneHotEncoder(handle_unknown="ignore"),
    )
    number = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    transform = make_column_transformer(
        (text, make_column_selector(dtype_include=object)), remainder=number
    )
    regression = task == "regression"
    last = RidgeCV(np.logspace(-3, 3, 13)) if regression else LogisticRegression(max_iter=1000)
    made = make_pipeline(transform, last).fit(x, y)
    return made.predict(x_test) if regression else made.predict_proba(x_test)


def _text(x, x_test):
    texts = list(x.select_dtypes(object))
    filled = dict.fromkeys(texts, "(missing)")
    return (x.fillna(filled), x_test.fillna(filled)) if texts else (x, x_test)


def _lightgbm(task, texts, seed):
    import lightgbm

    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return kind(random_state=seed, verbose=-1)


def _xgboost(task, texts, seed):
    import xgboost

    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    return kind(random_state=seed, enable_categorical=True)


def _catboost(task, texts, seed):
    import catboost

    kind = catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier
    return kind(random_seed=seed, cat_features=texts, verbose=0, allow_writing_files=False)


def _pytabkit(name: str) -> Callable:
    def make(task, texts, seed):
        import pytabkit

        kind = "Regressor" if task == "regression" else "Classifier"
        return getattr(pytabkit, f"{name}_{kind}")(random_state=seed, device="cpu")

    return make


# by name: the package it needs, and the model
MODELS: dict[str, tuple[str, Callable]] = {
    "kregs preset": ("kregs", with_kregs(max_trials=0)),
    "kregs search": ("kregs", with_kregs()),
    "HistGradientBoosting": ("sklearn", boosting),
    "linear": ("sklearn", linear),
    "LightGBM": ("lightgbm", fitted(_lightgbm, categories)),
    "XGBoost": ("xgboost", fitted(_xgboost, categories, numbered=True)),
    "CatBoost": ("catboost", fitted(_catboost, _text)),
    "RealMLP": ("pytabkit", fitted(_pytabkit("RealMLP_TD"), without_gaps)),
    "TabM": ("pytabkit", fitted(_pytabkit("TabM_D"), without_gaps)),
}


# ---- scores ----------------------------------------------------------------------------------


def score(task: str, y: np.ndarray, made: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's metrics on the test rows."""
    from sklearn import metrics

    if task == "regression":
        return {"rmse": metrics.root_mean_squared_error(y, made), "r2": metrics.r2_score(y, made)}
    made = np.clip(np.asarray(made, float), 1e-7, 1)
    made /= made.sum(axis=1, keepdims=True)
    number = np.searchsorted(labels, y)
    one = made[:, 1] if len(labels) == 2 else made
    return {
        "accuracy": metrics.accuracy_score(number, made.argmax(axis=1)),
        "log_loss": metrics.log_loss(number, made, labels=range(len(labels))),
        "auc": metrics.roc_auc_score(number, one, multi_class="ovr", labels=range(len(labels))),
    }


def report(runs: list[dict[str, Any]], asked: list[str]) -> str:
    """Return the mean ranks over all these runs that every model has, and mean scores."""
    models = [name for name in asked if any(name in run["scores"] for run in runs)]
    whole = [run for run in runs if set(models) <= set(run["scores"])]
    tasks = [run["task"] for run in whole]
    lines = [
        f"{len(whole)} splits of {len({run['table'] for run in whole})} tables "
        f"({tasks.count('regression')} of regression) that all {len(models)} models have",
        f"{'':22s}" + "".join(f"{c:>12s}" for c in _COLUMNS),
    ]
    cells = {name: [] for name in models}
    for measure, is_rank in _COLUMNS.values():
        having = [run for run in whole if measure in run["scores"][models[0]]]
        table = np.array([[run["scores"][name][measure] for name in models] for run in having])
        if is_rank and len(table):
            sign = -1 if measure in ("accuracy", "auc") else 1
            table = np.array([rankdata(sign * row) for row in table])
        means = table.mean(axis=0) if len(table) else [np.nan] * len(models)
        for name, mean in zip(models, means, strict=True):
            cells[name].append(mean)
    for name in sorted(models, key=lambda name: cells[name][1]):
        lines.append(f"{name:22s}" + "".join(f"{value:12.3f}" for value in cells[name]))
    return "\n".join(lines)


# heading -> (measure, whether its mean rank is meant)
_COLUMNS = {
    "rank acc.": ("accuracy", True),
    "rank loss": ("log_loss", True),
    "rank rmse": ("rmse", True),
    "accuracy": ("accuracy", False),
    "log loss": ("log_loss", False),
    "AUC": ("auc", False),
    "seconds": ("seconds", False),
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=None)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no model after these")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    known = tables()
    for name in arguments.tables or ():
        if name not in known:
            parser.error(f"no table {name!r}; there are {', '.join(known)}")
    models = {}
    for name in arguments.models:
        package, model = MODELS[name]
        if importlib.util.find_spec(package) is None:
            print(f"{name} is left out: {package} is not installed")
        else:
            models[name] = model
    record = {"rows": arguments.rows, "runs": {}}
    if arguments.output.exists():
        record = json.loads(arguments.output.read_text())
        if record["rows"] != arguments.rows:
            parser.error(f"{arguments.output} holds runs with --rows {record['rows']}")
    end = time.monotonic() + 60 * arguments.minutes
    for seed in range(arguments.splits):
        for table in arguments.tables or known:
            run_table(record, table, known[table], seed, models, end, arguments.output)
    chosen = [
        run
        for run in record["runs"].values()
        if run["split"] < arguments.splits and run["table"] in (arguments.tables or known)
    ]
    print(report(chosen, arguments.models))


def run_table(record, table, task, seed, models, end, output) -> None:
    """Fit the models that one split of a table lacks."""
    run = record["runs"].setdefault(
        f"{table}/{seed}", {"table": table, "split": seed, "task": task, "scores": {}, "failed": {}}
    )
    missing = [name for name in models if name not in run["scores"]]
    if not missing:
        return
    frame, y = read(table, task)
    train, test = split(y, task, seed, record["rows"])
    x, x_test = (frame.iloc[part].reset_index(drop=True) for part in (train, test))
    for name in missing:
        if time.monotonic() > end:
            return
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = models[name](x, y[train], x_test, task, seed)
        except Exception as error:
            run["failed"][name] = repr(error)[:300]
            print(f"{table} split {seed}: {name} failed: {error!r}"[:300], flush=True)
            continue
        seconds = time.perf_counter() - start
        scores = score(task, y[test], made, np.unique(y[train]))
        run["scores"][name] = {k: float(v) for k, v in scores.items()} | {"seconds": seconds}
        output.write_text(json.dumps(record, indent=1) + "\n")
        words = "  ".join(f"{k} {v:.4f}" for k, v in run["scores"][name].items())
        print(f"{table} split {seed}: {name:22s} {words}", flush=True)


if __name__ == "__main__":
    main()
