"""The study that found `kregs.presets`: networks for tables, chosen on one half of them.

Commands: python -m kregs.tuning.presets --data DATA first    (the candidates, on FIRST_HALF)
          python -m kregs.tuning.presets --data DATA second   (the chosen ones, on SECOND_HALF)
          python -m kregs.tuning.presets report               (both, from the file)
Time:     7 minutes for 8 tables of the first half and 1.5 for the second, on one busy core
Result:   results/presets.json; `--minutes` stops between two networks, a later call goes on

Chosen on the first half: periodic/smooth (binary), piecewise_ensemble/fast (several classes,
regression). kr-vs-kp, mfeat-factors, pmlb_churn and sick were left out for want of time, and ranks
are over the candidates that all tables of a task have. Mean rank of log loss and error, or of RMSE,
on the second half, beside a plain network, HistGradientBoosting and the linear model:

                        chosen  plain  boosting  linear
    binary (6)            2.33   3.25      2.29    2.12
    multiclass (3)        1.58   2.25      2.58    3.58
    regression (2)        2.50   2.50      2.50    2.50

So the presets are better than a plain network where there are classes. With two classes they are
no better than the linear model, with two tables of regression nothing is seen. One split of few
rows and 40 epochs say no more than that.

DATA is a folder with a `load.py` that has `tabular(name)` (values, labels, and "num" or "cat" for
each column) and `regression(name)` (values, targets). Of each table ROWS rows at most are drawn,
60 % to train on, 20 % to choose the epoch on, 20 % to test on. HistGradientBoosting and the linear
model are fitted on both former parts. Candidates of one structure are trained as one population.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULT = Path(__file__).parent / "results" / "presets.json"
ROWS, EPOCHS, BATCH, SEED = 1000, 40, 64, 0

# the two tables of Australian credits are one, so they are in one half; small tables come first
FIRST_HALF = {
    "binary": ["blood-transfusion-service-center", "credit-g", "qsar-biodeg", "pmlb_churn",
               "kr-vs-kp", "sick"],
    "multiclass": ["anneal", "soybean", "satimage", "mfeat-factors"],
    "regression": ["concrete", "yacht"],
}  # fmt: skip
SECOND_HALF = {
    "binary": ["diabetes", "tic-tac-toe", "credit-approval", "pmlb_australian", "wdbc",
               "spambase"],
    "multiclass": ["segment", "optdigits", "arrhythmia"],
    "regression": ["energy", "wine-quality-red"],
}  # fmt: skip

# structures: one population each. "plain" has no embedding of numbers
STRUCTURES: dict[str, dict[str, Any]] = {
    "plain": {},
    "piecewise": {"embedding": "piecewise", "scaling": True},
    "periodic": {"embedding": "periodic", "scaling": True},
    "piecewise_ensemble": {"embedding": "piecewise", "scaling": True, "ensemble": 8},
}
UNITS = (256, 256)
# members: numbers of one structure
NUMBERS: dict[str, dict[str, Any]] = {
    "bare": {"learning_rate": 1e-3, "schedule": "constant"},
    "cosine": {"learning_rate": 1e-3, "schedule": "cosine", "dropout": 0.15, "decay": 0.1},
    "coslog": {"learning_rate": 1e-3, "schedule": "coslog4", "dropout": 0.15, "decay": 0.1},
    "fast": {"learning_rate": 3e-3, "schedule": "cosine", "dropout": 0.15, "decay": 0.1},
    "smooth": {"learning_rate": 1e-3, "schedule": "cosine", "dropout": 0.15, "decay": 0.1,
               "smoothing": 0.1},
    "strong": {"learning_rate": 3e-3, "schedule": "cosine", "dropout": 0.4, "decay": 0.1},
}  # fmt: skip
OF_EMBEDDINGS = ("bare", "cosine", "fast", "smooth")
OF_ENSEMBLES = ("cosine", "fast", "smooth")


def candidates(structure: str, task: str) -> list[str]:
    """Return which numbers a structure is tried with."""
    names = OF_EMBEDDINGS if STRUCTURES[structure] else tuple(NUMBERS)
    if "ensemble" in STRUCTURES[structure]:
        names = OF_ENSEMBLES
    return [n for n in names if task != "regression" or "smoothing" not in NUMBERS[n]]


# ---- data ----------------------------------------------------------------------------------


def load_table(data: Path, name: str, task: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the values as objects, the target, and "num" or "cat" for each column."""
    spec = importlib.util.spec_from_file_location("load", data / "load.py")
    load = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(load)  # type: ignore[union-attr]
    if task == "regression":
        x, y = load.regression(name)
        return x.astype(object), y, ["num"] * x.shape[1]
    x, labels, kinds = load.tabular(name)
    return x, np.unique(labels, return_inverse=True)[1], kinds


def split(y: np.ndarray, task: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of the rows to train, to choose the epoch and to test on."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(y))
    rare = np.zeros(len(y), bool)
    if task != "regression":
        rare = np.bincount(y)[y] < 5
    rows = np.random.default_rng(seed).permutation(rows[~rare])[:ROWS]
    if task != "regression":  # a class with few rows may have got fewer still
        rows = rows[np.bincount(y[rows], minlength=y.max() + 1)[y[rows]] >= 5]

    def cut(part: np.ndarray, share: float) -> Any:
        labels = None if task == "regression" else y[part]
        return train_test_split(part, test_size=share, random_state=seed, stratify=labels)

    rest, test = cut(rows, 0.2)
    train, validation = cut(rest, 0.25)
    return train, validation, test


def transform(
    x: np.ndarray, kinds: list[str], train: np.ndarray
) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return numbers, then codes, as `kregs.table_mlp` takes them, fitted on the training rows.

    Numbers: median for what is missing, robust scale and smooth clip (RealMLP), an indicator of
    gaps. Codes: 0 is missing or unseen.
    """
    numbers, gaps, codes, cardinalities = [], [], [], []
    for column, kind in zip(x.T, kinds, strict=True):
        missing = np.array([value in ("?", "") for value in column])
        if kind == "cat":
            known = {v: i for i, v in enumerate(sorted(set(column[train][~missing[train]])), 1)}
            codes.append([known.get(value, 0) for value in column])
            cardinalities.append(len(known) + 1)
            continue
        values = np.array(
            [math.nan if m else float(v) for v, m in zip(column, missing, strict=True)]
        )
        present = values[train][~missing[train]]
        if len(np.unique(present)) < 2:
            continue
        low, middle, high = np.quantile(present, [0.25, 0.5, 0.75])
        scale = (high - low) or (present.max() - present.min()) / 2
        scaled = np.where(missing, 0.0, (values - middle) / scale)
        numbers.append(scaled / np.sqrt(1 + (scaled / 3) ** 2))
        if missing[train].any():
            gaps.append(missing.astype(float))
    table = np.array([*numbers, *gaps, *codes], "float32").T
    return table, len(numbers) + len(gaps), tuple(cardinalities)


# ---- networks ------------------------------------------------------------------------------


def schedule(kind: str, rate: float) -> Callable[[int], float]:
    """Return the learning rate of an epoch."""

    def at(epoch: int) -> float:
        t = epoch / EPOCHS
        if kind == "coslog4":
            return rate * max(0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t))), 1e-3)
        if kind == "cosine":
            return rate * min((epoch + 1) / 5, 0.5 * (1 + math.cos(math.pi * t)))
        return rate

    return at


def train_structure(
    structure: str, names: list[str], table: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Train the candidates of one structure as one population; return their test scores."""
    import keras

    import kregs

    task, classes = table["task"], table["classes"]
    head, loss, outputs = {
        "binary": ("sigmoid", "binary_crossentropy", 1),
        "multiclass": ("softmax", "categorical_crossentropy", classes),
        "regression": (None, "mse", 1),
    }[task]
    train, validation, test = table["parts"]
    x, y, number_count = table["x"], table["y"], table["numbers"]
    if task == "multiclass":
        y = np.eye(classes)[y]
    center, scale = (y[train].mean(), y[train].std()) if task == "regression" else (0.0, 1.0)
    y = ((y - center) / scale).astype("float32")
    options = dict(STRUCTURES[structure])
    if not number_count:
        options.pop("embedding", None)
    models, callbacks = [], []
    for name in names:
        numbers = NUMBERS[name]
        r = kregs.Regularization(dropout=numbers.get("dropout", 0.0))
        model = kregs.table_mlp(
            number_count,
            outputs,
            categories=table["categories"],
            units=UNITS,
            head_activation=head,
            regularization=r,
            seed=SEED,
            **options,
        )
        if options.get("embedding") == "piecewise":
            model.get_layer("number_embedding").adapt(x[train][:, :number_count])
        optimizer = keras.optimizers.AdamW(
            numbers["learning_rate"], weight_decay=numbers.get("decay", 0.0), beta_2=0.95
        )
        optimizer.exclude_from_weight_decay(
            var_names=["bias", "alpha", "gamma", "scale", "phases", "embeddings"]
        )
        smoothing = {"label_smoothing": numbers["smoothing"]} if "smoothing" in numbers else {}
        models.append(kregs.compile_model(model, loss, optimizer=optimizer, **smoothing))
        rates = schedule(numbers["schedule"], numbers["learning_rate"])
        callbacks.append([keras.callbacks.LearningRateScheduler(rates)])
    population = kregs.Population.from_models(models)
    population.fit(
        x[train],
        y[train],
        validation_data=(x[validation], y[validation]),
        epochs=EPOCHS,
        batch_size=BATCH,
        callbacks=callbacks,
        accelerate=False,  # XLA compiles for longer than these small tables train
        early_stopping=keras.callbacks.EarlyStopping(
            "val_data_loss", patience=EPOCHS, restore_best_weights=True
        ),
    )
    predictions = population.predict(x[test]).astype("float64") * scale + center
    return {
        name: scores(task, table["y"][test], outputs)
        for name, outputs in zip(names, predictions, strict=True)
    }


def scores(task: str, y: np.ndarray, outputs: np.ndarray) -> dict[str, float]:
    """Return what counts: log loss and error rate, or the root of the mean squared error."""
    from sklearn import metrics

    if task == "regression":
        return {"rmse": float(metrics.root_mean_squared_error(y, outputs[:, 0]))}
    if outputs.shape[1] == 1:
        outputs = np.hstack([1 - outputs, outputs])
    outputs = np.clip(outputs, 1e-7, 1)
    outputs = outputs / outputs.sum(axis=1, keepdims=True)
    return {
        "log_loss": float(metrics.log_loss(y, outputs, labels=np.arange(outputs.shape[1]))),
        "error": float((outputs.argmax(axis=1) != y).mean()),
    }


def baselines(table: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the scores of HistGradientBoosting and of the linear model, by default settings."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    train, validation, test = table["parts"]
    rows = np.concatenate([train, validation])
    x, y, n = table["x"], table["y"], table["numbers"]
    is_code = np.arange(x.shape[1]) >= n
    is_regression = table["task"] == "regression"
    boosting = HistGradientBoostingRegressor if is_regression else HistGradientBoostingClassifier
    few = is_code & (x.max(axis=0) < 255)
    linear = make_pipeline(
        make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), np.flatnonzero(is_code)),
            remainder=StandardScaler(),
        ),
        RidgeCV(np.logspace(-3, 3, 13)) if is_regression else LogisticRegression(max_iter=1000),
    )
    found = {}
    for name, model in (
        ("boosting", boosting(categorical_features=few, random_state=0)),
        ("linear", linear),
    ):
        model.fit(x[rows], y[rows])
        made = model.predict(x[test])[:, None] if is_regression else model.predict_proba(x[test])
        found[name] = scores(table["task"], y[test], made)
    return found


# ---- the study -----------------------------------------------------------------------------


def run(half: dict[str, list[str]], part: str, data: Path, minutes: float) -> bool:
    """Train what is missing in the file, as long as there is time; return whether that is all."""
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    end = time.monotonic() + 60 * minutes
    chosen = choose(record) if part == "second" else None
    by_turns = itertools.zip_longest(*half.values())  # so that each task has some, if time is short
    pairs = [pair for names in by_turns for pair in zip(half, names, strict=True)]
    for task, name in [(task, name) for task, name in pairs if name is not None]:
        entry = record.setdefault(part, {}).setdefault(task, {}).setdefault(name, {})
        table = None
        wanted = list(STRUCTURES)
        if chosen is not None:
            wanted = list(dict.fromkeys(["plain", chosen[task].split("/")[0]]))
        for structure in ["baselines", *wanted]:
            if structure in entry.setdefault("seconds", {}):
                continue
            if time.monotonic() > end:
                return False
            if table is None:
                table = read(data, name, task)
            names = candidates(structure, task) if structure != "baselines" else []
            if chosen is not None:
                names = [n for n in names if f"{structure}/{n}" in ("plain/bare", chosen[task])]
            start = time.monotonic()
            if structure == "baselines":
                found = baselines(table)
            elif structure == "periodic" and not table["numbers"] and chosen is None:
                # without numbers to embed it is the same network
                found = {name: entry["scores"][f"piecewise/{name}"] for name in names}
            else:
                found = train_structure(structure, names, table)
            prefix = "" if not names else f"{structure}/"
            scored = entry.setdefault("scores", {})
            scored |= {f"{prefix}{name}": score for name, score in found.items()}
            entry["seconds"][structure] = round(time.monotonic() - start, 1)
            entry["rows"] = [len(rows) for rows in table["parts"]]
            RESULT.write_text(json.dumps(record, indent=1) + "\n")
            print(task, name, structure, entry["seconds"][structure], "s", flush=True)
    return True


def read(data: Path, name: str, task: str) -> dict[str, Any]:
    """Return a table, split and transformed."""
    x, y, kinds = load_table(data, name, task)
    parts = split(y, task, SEED)
    if task != "regression":  # classes that are left
        used = np.concatenate(parts)
        number = {label: i for i, label in enumerate(np.unique(y[used]))}
        y = np.array([number.get(label, -1) for label in y])
    table, numbers, categories = transform(x, kinds, parts[0])
    classes = 0 if task == "regression" else int(y.max()) + 1
    return {
        "task": task, "x": table, "y": y, "parts": parts, "numbers": numbers,
        "categories": categories, "classes": classes,
    }  # fmt: skip


def complete(record: dict[str, Any], part: str, task: str) -> dict[str, Any]:
    """Return the tables of a half on which nothing is missing, by name."""
    wanted = set(STRUCTURES)
    if part == "second":
        wanted = {"plain", choose(record)[task].split("/")[0]}
    tables = record.get(part, {}).get(task, {})
    return {name: entry for name, entry in tables.items() if wanted <= set(entry["seconds"])}


def ranks(tables: dict[str, Any]) -> dict[str, float]:
    """Return each model's mean rank over tables and measures, ties shared."""
    from scipy.stats import rankdata

    common = set.intersection(*(set(entry["scores"]) for entry in tables.values()))
    names = sorted(common)
    rows = [
        rankdata([entry["scores"][name][measure] for name in names])
        for entry in tables.values()
        for measure in next(iter(entry["scores"].values()))
    ]
    return dict(zip(names, np.mean(rows, axis=0).round(2).tolist(), strict=True))


def choose(record: dict[str, Any]) -> dict[str, str]:
    """Return the candidate with the best mean rank of each task on the first half.

    Of equal ones it is that with the best mean logarithm of all that was measured.
    """
    chosen = {}
    for task in record["first"]:
        tables = complete(record, "first", task)
        means = {
            name: _mean_log([s for e in tables.values() for s in e["scores"][name].values()])
            for name in ranks(tables)
        }
        chosen[task] = min(
            (rank, means[name], name) for name, rank in ranks(tables).items() if "/" in name
        )[2]
    return chosen


def _mean_log(scores: list[float]) -> float:
    return float(np.mean(np.log(np.maximum(scores, 1e-6))))


def report(record: dict[str, Any]) -> None:
    """Print the mean ranks, and the second half table by table."""
    for part, task in itertools.product(("first", "second"), FIRST_HALF):
        tables = complete(record, part, task)
        if tables:
            print(f"{part} half, {task}: mean rank of {len(tables)} tables")
            for name, rank in sorted(ranks(tables).items(), key=lambda pair: pair[1]):
                print(f"  {rank:6.2f}  {name}")
    for task, tables in record.get("second", {}).items():
        for name, entry in tables.items():
            for model, score in entry["scores"].items():
                numbers = "  ".join(f"{key} {value:.4f}" for key, value in score.items())
                print(f"{task:10s} {name:20s} {model:28s} {numbers}")


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
