"""The study that found `kregs.presets`: networks for tables, chosen on one half of them.

Commands: python -m kregs.tuning.presets --data DATA first    (the candidates, on FIRST_HALF)
          python -m kregs.tuning.presets --data DATA second   (the chosen ones, on SECOND_HALF)
          python -m kregs.tuning.presets report               (both, from the file)
Time:     25 minutes for the 19 tables of the first half and 8 for the second, on two cores
Result:   results/presets.json; `--minutes` stops between two networks, a later call goes on

Chosen on the first half, by the mean rank of log loss and error, or of RMSE, over two splits:
periodic (binary), periodic with members that share kernels (several classes; without such members
periodic), piecewise with mish (regression). Mean ranks on the second half:

                        chosen  first of its structure  plain  boosting  linear
    binary (7)            2.73                    2.73   3.34      3.23    2.96
    multiclass (4)        1.75                    2.00   3.47      3.28    4.50
    regression (6)        3.33                    2.42   3.42      2.58    3.25

So with classes the presets are better than a plain network and than boosting. Of regressions, half
of which are noisy, the chosen one is not: its milder neighbour would have been, by luck or since
the first half has less noise. Two splits of few rows say no more than that. A constant learning
rate is no better than the cosine for any task.

DATA is a folder with a `load.py` that has `tabular(name)` (values, labels, and "num" or "cat" for
each column) and `regression(name)` (values, targets). Of each table ROWS rows at most are drawn,
60 % to train on, 20 % to choose the epoch and the temperature on, 20 % to test on, anew for each of
SPLITS. HistGradientBoosting and the linear model are fitted on both former parts. Candidates of one
structure are trained as one population.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from kregs.presets import TablePreset, batch_rows, bin_count
from kregs.regularization import Regularization

RESULT = Path(__file__).parent / "results" / "presets.json"
ROWS, SPLITS = 1000, 2

# the two tables of Australian credits are one, so they are in one half; small tables come first;
# of regressions, "table:column" tells a column from the others, see `regression`
FIRST_HALF = {
    "binary": ["blood-transfusion-service-center", "credit-g", "qsar-biodeg", "pmlb_churn",
               "kr-vs-kp", "sick", "adult.data"],
    "multiclass": ["anneal", "soybean", "satimage", "mfeat-factors",
                   "jungle_chess_2pcs_raw_endgame_complete"],
    "regression": ["yacht", "concrete", "california_houses_pmlb537", "naval-propulsion-plant",
                   "scikit-learn:diabetes", "credit-g:4", "adult.data:0"],
}  # fmt: skip
SECOND_HALF = {
    "binary": ["diabetes", "tic-tac-toe", "credit-approval", "pmlb_australian", "wdbc",
               "spambase", "bank-marketing"],
    "multiclass": ["segment", "optdigits", "arrhythmia", "letter"],
    "regression": ["energy", "wine-quality-red", "protein-tertiary-structure", "diabetes:5",
                   "bank-marketing:0", "pmlb_australian:1"],
}  # fmt: skip


# ---- candidates ----------------------------------------------------------------------------

_MANY_EPOCHS = 200  # of a regression
_BASE = TablePreset(
    units=(256, 256), scaling=True, embedding="piecewise", schedule="cosine", learning_rate=1e-3
)
_STRUCTURES = {
    "plain": _BASE.replace(scaling=False, embedding=None),
    "piecewise": _BASE,
    "periodic": _BASE.replace(embedding="periodic"),
    "members": _BASE.replace(ensemble=8),
    "members periodic": _BASE.replace(embedding="periodic", ensemble=8),
    "mish": _BASE.replace(activation="mish"),
    "plain mish": _BASE.replace(scaling=False, embedding=None, activation="mish"),
    "periodic mish": _BASE.replace(embedding="periodic", activation="mish"),
}
# a schedule is no number of a member, so that its candidates are a population of their own
_STRUCTURES |= {
    f"{name} constant": _STRUCTURES[name].replace(schedule="constant")
    for name in ("periodic", "members", "mish")
}
_OF_TASK = {
    "binary": ("plain", "piecewise", "periodic", "periodic constant"),
    "multiclass": (
        "plain", "piecewise", "periodic", "periodic constant", "members", "members periodic",
        "members constant",
    ),
    # members that share kernels cost a regression's 200 epochs too much
    "regression": (
        "plain", "piecewise", "plain mish", "mish", "periodic mish", "mish constant",
    ),
}  # fmt: skip
# (learning rate, dropout, weight decay, label smoothing)
_NUMBERS = {
    "binary": (
        (1e-3, 0.15, 0.1, 0.1), (1e-3, 0.3, 1.0, 0.1), (2e-3, 0.3, 1.0, 0.1), (1e-3, 0.3, 1.0, 0.0),
    ),
    "multiclass": (
        (3e-3, 0.15, 0.1, 0.0), (3e-3, 0.15, 0.1, 0.1), (2e-3, 0.3, 0.5, 0.0),
        (2e-3, 0.3, 0.5, 0.1),
    ),
    "regression": (
        (3e-3, 0.15, 0.1, 0.0), (3e-3, 0.05, 0.1, 0.0), (5e-3, 0.05, 0.3, 0.0),
        (1e-2, 0.05, 0.1, 0.0), (5e-3, 0.15, 0.3, 0.0), (3e-3, 0.15, 1.0, 0.0),
        (3e-3, 0.3, 1.0, 0.0), (1e-3, 0.3, 1.0, 0.0),
    ),
}  # fmt: skip


def candidates(task: str, structure: str) -> dict[str, TablePreset]:
    """Return the presets of a structure by name."""
    preset = _STRUCTURES[structure]
    if task == "regression":
        preset = preset.replace(epochs=_MANY_EPOCHS)
    return {
        f"{structure}: rate {rate:g}, dropout {dropout:g}, decay {decay:g}"
        + (f", smoothing {smoothing:g}" if smoothing else ""): preset.replace(
            learning_rate=rate,
            regularization=Regularization(
                dropout=dropout, weight_decay=decay, label_smoothing=smoothing
            ),
        )
        for rate, dropout, decay, smoothing in _NUMBERS[task]
    }


# ---- data ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Data:
    """A table, split and transformed.

    Args:
        classes: how many there are; `None` for a regression.
        numbers, categories: columns of numbers, and how many codes each column after them has.
        x, y: to train on, to choose the epoch on and to test on; targets of a regression are in
            units of the standard deviation of those that are trained on.
        unit: that standard deviation.
        one_hot: as x, but with a column for each category, for models that embed no codes.
    """

    classes: int | None
    numbers: int
    categories: tuple[int, ...]
    x: list[np.ndarray]
    y: list[np.ndarray]
    unit: float
    one_hot: list[np.ndarray]


def read(data: Path, name: str, task: str, seed: int) -> Data:
    """Return one split of a table."""
    import pandas as pd

    import kregs
    from kregs.tables.preprocessing import number_and_code_columns

    spec = importlib.util.spec_from_file_location("load", data / "load.py")
    load = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(load)  # type: ignore[union-attr]
    if task == "regression":
        values, target, kinds = regression(load, name)
    else:
        values, labels, kinds = load.tabular(name)
        target = np.array([f"class {label}" for label in labels])
    frame = pd.DataFrame(values, columns=[f"c{i}" for i in range(len(kinds))]).assign(y=target)
    parts = split(target, task, seed)
    rows = np.concatenate(parts)
    starts = np.cumsum([0, *map(len, parts)])
    table = kregs.read_table(
        frame.iloc[rows].reset_index(drop=True),
        "y",
        task="regression" if task == "regression" else "classification",
        categorical=[f"c{i}" for i, kind in enumerate(kinds) if kind == "cat"],
    )
    places = [np.arange(a, b) for a, b in itertools.pairwise(starts)]

    def transformed(transformer: Any) -> list[np.ndarray]:
        x = [table.features.iloc[part] for part in places]
        first = transformer.fit_transform(x[0], table.target[places[0]])
        made = [first, *map(transformer.transform, x[1:])]
        return [np.asarray(part, "float32") for part in made]

    codes = table.preprocessing(places[0], categories="codes")
    x = transformed(codes)
    numbers, categories = number_and_code_columns(codes)
    y, unit = [table.target[part] for part in places], 1.0
    if task == "regression":
        center, unit = y[0].mean(), float(y[0].std())
        y = [(part - center) / unit for part in y]
    return Data(
        classes=None if task == "regression" else len(table.classes),
        numbers=numbers,
        categories=tuple(categories),
        x=x,
        y=y,
        unit=unit,
        one_hot=transformed(table.preprocessing(places[0])),
    )


def regression(load: Any, name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return values, targets and "num" or "cat" for each column of a regression.

    Few tables of regressions are at hand, and hardly any with much noise, so that columns of tables
    of classes are used as well: `"credit-g:4"` is its column 4 told from the others, without the
    class; `"scikit-learn:diabetes"` is what scikit-learn has.
    """
    table, _, column = name.partition(":")
    if table == "scikit-learn":
        from sklearn import datasets

        values, target = getattr(datasets, f"load_{column}")(return_X_y=True)
    elif column:
        values, _, kinds = load.tabular(table)
        target = values[:, int(column)].astype(float)
        others = np.arange(len(kinds)) != int(column)
        return values[:, others], target, list(np.array(kinds)[others])
    else:
        values, target = load.regression(name)
    return values, target, ["num"] * values.shape[1]


def split(y: np.ndarray, task: str, seed: int) -> list[np.ndarray]:
    """Return the numbers of the rows to train, to choose the epoch and to test on."""
    from sklearn.model_selection import train_test_split

    rows = np.random.default_rng(seed).permutation(len(y))[:ROWS]
    if task != "regression":
        labels, counts = np.unique(y[rows], return_counts=True)
        rows = rows[np.isin(y[rows], labels[counts >= 5])]

    def cut(part: np.ndarray, share: float) -> Any:
        labels = None if task == "regression" else y[part]
        return train_test_split(part, test_size=share, random_state=seed, stratify=labels)

    rest, test = cut(rows, 0.2)
    train, validation = cut(rest, 0.25)
    return [train, validation, test]


# ---- networks, and what stands beside them ---------------------------------------------------


def train_structure(presets: dict[str, TablePreset], data: Data) -> dict[str, dict[str, float]]:
    """Train the presets of one structure as one population; return their test scores."""
    import keras

    import kregs
    from kregs.layers import quantile_edges
    from kregs.tables.final import calibrated
    from kregs.tasks import class_probabilities

    (x, x_val, x_test), (y, y_val, y_test) = data.x, data.y
    edges = quantile_edges(x[:, : data.numbers], bin_count(len(x))) if data.numbers else None
    models = [
        preset.build(
            data.numbers,
            data.classes,
            rows=len(x),
            categories=data.categories,
            edges=edges if preset.embedding == "piecewise" else None,
            seed=0,
        )
        for preset in presets.values()
    ]
    epochs = next(iter(presets.values())).epochs
    population = kregs.Population.from_models(models)
    population.fit(
        x,
        y,
        validation_data=(x_val, y_val),
        epochs=epochs,
        batch_size=batch_rows(len(x)),
        early_stopping=keras.callbacks.EarlyStopping(
            "val_data_loss", patience=epochs, restore_best_weights=True
        ),
    )
    found = {}
    made = zip(presets, population.predict(x_val), population.predict(x_test), strict=True)
    for name, validated, tested in made:
        if data.classes is None:
            found[name] = scores(data, y_test, tested)
            continue
        temperature = calibrated(validated, y_val)["temperature"]
        powers = np.maximum(class_probabilities(tested), 1e-30) ** (1 / temperature)
        found[name] = scores(data, y_test, powers / powers.sum(axis=1, keepdims=True))
    return found


def scores(data: Data, y: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """Return what counts: log loss and error rate, or the root of the mean squared error."""
    from sklearn import metrics

    if data.classes is None:
        return {"rmse": float(metrics.root_mean_squared_error(y, outputs[:, 0])) * data.unit}
    outputs = np.clip(outputs, 1e-7, 1)
    outputs = outputs / outputs.sum(axis=1, keepdims=True)
    return {
        "log_loss": float(metrics.log_loss(y, outputs, labels=np.arange(outputs.shape[1]))),
        "error": float((outputs.argmax(axis=1) != y).mean()),
    }


def baselines(data: Data) -> dict[str, dict[str, float]]:
    """Return the scores of HistGradientBoosting and of the linear model, by default settings."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def both(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts[:2])

    is_regression = data.classes is None
    boosting = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
    few = (np.arange(data.x[0].shape[1]) >= data.numbers) & (both(data.x).max(axis=0) < 255)
    last = RidgeCV(np.logspace(-3, 3, 13)) if is_regression else LogisticRegression(max_iter=1000)
    found = {}
    for name, model, x in (
        ("boosting", boosting(categorical_features=few, random_state=0), data.x),
        ("linear", make_pipeline(StandardScaler(), last), data.one_hot),
    ):
        model.fit(both(x), both(data.y))
        made = model.predict(x[2])[:, None] if is_regression else model.predict_proba(x[2])
        found[name] = scores(data, data.y[2], made)
    return found


# ---- the study -----------------------------------------------------------------------------


def run(half: dict[str, list[str]], part: str, data: Path, minutes: float) -> bool:
    """Train what is missing in the file, as long as there is time; return whether that is all."""
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    end = time.monotonic() + 60 * minutes
    chosen = choose(record) if part == "second" else None
    by_turns = itertools.zip_longest(*half.values())  # so that each task has some, if time is short
    pairs = [pair for names in by_turns for pair in zip(half, names, strict=True)]
    for seed, (task, name) in itertools.product(range(SPLITS), pairs):
        if name is None:
            continue
        entry = record.setdefault(part, {}).setdefault(task, {}).setdefault(f"{name}/{seed}", {})
        table = None
        for structure in ["baselines", *_wanted(task, chosen)]:
            if structure in entry.setdefault("seconds", {}):
                continue
            if time.monotonic() > end:
                return False
            table = read(data, name, task, seed) if table is None else table
            start = time.monotonic()
            if structure == "baselines":
                found = baselines(table)
            else:
                presets = candidates(task, structure)
                if chosen is not None:
                    first = next(iter(presets))
                    presets = {n: p for n, p in presets.items() if n in (first, chosen[task])}
                if not table.numbers:  # nothing to embed
                    presets = {n: p.replace(embedding=None) for n, p in presets.items()}
                found = train_structure(presets, table)
            entry["scores"] = entry.get("scores", {}) | found
            entry["seconds"][structure] = round(time.monotonic() - start, 1)
            entry["rows"] = [len(rows) for rows in table.y]
            RESULT.write_text(json.dumps(record, indent=1) + "\n")
            print(task, name, seed, structure, entry["seconds"][structure], "s", flush=True)
    return True


def _wanted(task: str, chosen: dict[str, str] | None) -> list[str]:
    """Return the structures that a table is to have: all, or the plain one and the chosen one."""
    if chosen is None:
        return list(_OF_TASK[task])
    return list(dict.fromkeys(["plain", chosen[task].split(":")[0]]))


def complete(record: dict[str, Any], part: str, task: str) -> dict[str, Any]:
    """Return the tables of a half on which nothing is missing, by name and split."""
    wanted = {"baselines", *_wanted(task, choose(record) if part == "second" else None)}
    tables = record.get(part, {}).get(task, {})
    return {name: entry for name, entry in tables.items() if wanted <= set(entry["seconds"])}


def ranks(tables: dict[str, Any]) -> dict[str, float]:
    """Return each model's mean rank over tables and measures, ties shared."""
    from scipy.stats import rankdata

    names = sorted(set.intersection(*(set(entry["scores"]) for entry in tables.values())))
    rows = [
        rankdata([entry["scores"][name][measure] for name in names])
        for entry in tables.values()
        for measure in next(iter(entry["scores"].values()))
    ]
    return dict(zip(names, np.mean(rows, axis=0).round(2).tolist(), strict=True))


def choose(record: dict[str, Any], *, members: bool = True) -> dict[str, str]:
    """Return the candidate with the best mean rank of each task on the first half.

    Args:
        record: what is in the file.
        members: whether it may have members that share kernels.
    """
    chosen = {}
    for task in record["first"]:
        mean_ranks = ranks(complete(record, "first", task))
        allowed = [
            (rank, name)
            for name, rank in mean_ranks.items()
            if ":" in name and (members or not name.startswith("members"))
        ]
        chosen[task] = min(allowed)[1]
    return chosen


def report(record: dict[str, Any]) -> None:
    """Print the mean ranks, and the second half table by table."""
    for part, task in itertools.product(("first", "second"), FIRST_HALF):
        tables = complete(record, part, task)
        if tables:
            print(f"{part} half, {task}: mean rank of {len(tables)} splits")
            for name, rank in sorted(ranks(tables).items(), key=lambda pair: pair[1]):
                print(f"  {rank:6.2f}  {name}")
    for task, tables in record.get("second", {}).items():
        for name, entry in tables.items():
            for model, score in entry["scores"].items():
                numbers = "  ".join(f"{key} {value:.4f}" for key, value in score.items())
                print(f"{task:10s} {name:30s} {model:60s} {numbers}")


def main() -> None:
    """Run a part of the study."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["first", "second", "report"])
    parser.add_argument("--data", type=Path, help="the folder with load.py")
    parser.add_argument("--minutes", type=float, default=1e9)
    arguments = parser.parse_args()
    if arguments.part == "report":
        report(json.loads(RESULT.read_text()))
        return
    if arguments.data is None:
        parser.error("--data is needed: the folder with load.py")
    half = FIRST_HALF if arguments.part == "first" else SECOND_HALF
    if run(half, arguments.part, arguments.data, arguments.minutes):
        print("nothing is missing")


if __name__ == "__main__":
    main()
