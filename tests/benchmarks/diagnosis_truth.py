"""How often is `kregs.diagnose` right? Trainings whose truth is known from their neighbours.

    python tests/benchmarks/diagnosis_truth.py [--trained FILE]

On real sets every network of a grid (capacity x λ x learning rate x rows x epochs) is trained with
several seeds, and scored on test rows that neither training nor `diagnose` has seen. The truth of a
training is what its neighbours on the grid achieve: the change (more λ, more units, a smaller
learning rate, more epochs, ...) that lowers the test loss most. `diagnose` sees the history alone.
Its constants were chosen on the sets in `TUNED_ON`; the others report. Writes
`tuning/results/diagnosis.json`. `--trained` keeps the trainings in a file, or reads them from it: a
pickle, so read your own only.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import itertools
import os
import pickle
import platform
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
TUNED_ON = ("digits", "diabetes")
REPORTED = ("breast_cancer", "credit-g", "concrete")
ROWS = {"small": 64, "large": 256}  # that are trained on
UNITS = (3, 48)  # in each of two hidden layers
L2 = (0.0, 1e-3, 1e-2, 1e-1)
RATES = (1e-4, 1e-3, 1e-2, 1e-1)  # of Adam
EPOCHS = (5, 20, 80)
SEEDS = 3
BATCH = 32
VALIDATION = 80  # rows


def load_set(name):
    """Return standardized inputs, targets, and how many classes there are (0: a regression)."""
    from sklearn import datasets
    from sklearn.preprocessing import scale

    if name in TUNED_ON or name == "breast_cancer":
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    else:
        shared = Path(os.environ.get("KREGS_SHARED") or REPOSITORY.parent / "shared")
        spec = importlib.util.spec_from_file_location("shared_load", shared / "data" / "load.py")
        loader = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loader)
        x, y = loader.regression(name) if name == "concrete" else loader.tabular_numeric(name)[:2]
    classes = len(np.unique(y)) if len(np.unique(y)) <= 10 else 0
    y = y.astype("int32") if classes else scale(y)[:, None].astype("float32")
    return scale(x).astype("float32"), y, classes


def split_set(x, y, rows, classes):
    """Return training, validation and test rows; the latter two are the same for all `rows`."""
    from sklearn.model_selection import train_test_split

    labels = y if classes else None
    rest, test = train_test_split(np.arange(len(x)), train_size=max(ROWS.values()) + VALIDATION,
                                  stratify=labels, random_state=0)  # fmt: skip
    labels = y[rest] if classes else None
    train, validation = train_test_split(
        rest, test_size=VALIDATION, stratify=labels, random_state=0
    )
    return [(x[part], y[part]) for part in (train[:rows], validation, test)]


def guess_loss(train_y, y, classes):
    """Return the loss of the constant guess that is best on the training rows."""
    if not classes:
        return float(np.mean((y - train_y.mean()) ** 2))
    shares = (np.bincount(train_y, minlength=classes) + 1) / (len(train_y) + classes)
    return float(-np.log(shares[y]).mean())


def make_models(columns, classes, units):
    """Return a model of each λ, learning rate and seed."""
    import kregs

    loss = "sparse_categorical_crossentropy" if classes else "mean_squared_error"
    return [
        kregs.compile_model(
            kregs.mlp(
                (columns,), classes or 1, units=(units, units), seed=seed,
                head_activation="softmax" if classes else None,
                regularization=kregs.Regularization(l2=l2),
            ),
            loss, learning_rate=rate, metrics=[loss],
        )
        for l2, rate, seed in itertools.product(L2, RATES, range(SEEDS))
    ]  # fmt: skip


def train(models, train_rows, validation_rows, test_rows):
    """Train a population; return each member's history, and its test loss in each epoch.

    Both come from one pass: the validation rows are followed by the test rows, whose weight is 0.
    What is weighted (`data_loss`) sees the former alone, what is not (the metric) sees both.
    """
    import kregs

    counts = len(validation_rows[0]), len(test_rows[0])
    rows = [np.concatenate(pair) for pair in zip(validation_rows, test_rows, strict=True)]
    weights = np.repeat(np.float32([1, 0]), counts)
    seeds = [seed for *_, seed in itertools.product(L2, RATES, range(SEEDS))]
    population = kregs.Population.from_models(models, seeds=seeds)
    logs = population.fit(
        *train_rows, validation_data=(*rows, weights), epochs=max(EPOCHS), batch_size=BATCH,
        validation_batch_size=sum(counts),
    )  # fmt: skip
    for log in logs:
        log = {key: np.asarray(values, float) for key, values in log.items()}
        penalty = log["val_loss"] - log["val_data_loss"]
        validation = log["val_data_loss"] * sum(counts) / counts[0]
        unweighted = next(
            log[key] for key in log
            if key.startswith("val_") and key not in ("val_loss", "val_data_loss")
        )  # fmt: skip
        test = (unweighted * sum(counts) - validation * counts[0]) / counts[1]
        history = {"loss": log["loss"], "data_loss": log["data_loss"],
                   "val_loss": validation + penalty, "val_data_loss": validation}  # fmt: skip
        yield history, test


def train_all(sets):
    """Yield every training of the grid at every length, and what it scores on the test rows."""
    import keras

    for name, units in itertools.product(sets, UNITS):
        x, y, classes = load_set(name)
        models = make_models(x.shape[1], classes, units)
        for size, rows in ROWS.items():
            began = time.perf_counter()
            parts = split_set(x, y, rows, classes)
            baseline = guess_loss(parts[0][1], parts[1][1], classes)
            points = itertools.product(L2, RATES, range(SEEDS))
            for (l2, rate, seed), (history, test) in zip(
                points, train(models, *parts), strict=True
            ):
                for epochs in EPOCHS:
                    logs = {key: values[:epochs].tolist() for key, values in history.items()}
                    yield {
                        "set": name, "rows": size, "units": units, "l2": l2, "rate": rate,
                        "epochs": epochs, "seed": seed, "baseline": baseline,
                        "test": float(test[:epochs][-1]), "history": logs,
                    }  # fmt: skip
            print(f"{name} {units} {size}: {time.perf_counter() - began:.1f} s", flush=True)
        keras.backend.clear_session()


# ---- the truth ---------------------------------------------------------------------------------

# which way along which axis of the grid, and what a training is called that gains by it
AXES = {"l2": L2, "units": UNITS, "rate": RATES, "epochs": EPOCHS}
MOVES = {
    ("l2", +1): "overfitting", ("units", -1): "overfitting", ("epochs", -1): "overfitting",
    ("l2", -1): "underfitting", ("units", +1): "underfitting", ("epochs", +1): "too short",
    ("rate", +1): "learning rate too low", ("rate", -1): "learning rate too high",
}  # fmt: skip
STANDARD_ERRORS = 2.0  # over seeds, pair by pair: below, a gain is luck
LEAST_GAIN = 0.05  # of the test loss: below, it is not worth a change


def find_truths(trainings):
    """Return of each cell of the grid the gain of each change that helps, by cell.

    A cell is `(set, rows, units, l2, rate, epochs)`; a gain the part of its test loss, mean over
    seeds, that the best cell in this direction saves.
    """
    losses = collections.defaultdict(dict)
    for t in trainings:
        cell = tuple(t[name] for name in ("set", "rows", "units", "l2", "rate", "epochs"))
        worst = 10 * t["baseline"]  # what diverges is that bad, and can be averaged
        losses[cell][t["seed"]] = min(t["test"], worst) if np.isfinite(t["test"]) else worst
    losses = {cell: np.array([by[k] for k in sorted(by)]) for cell, by in losses.items()}
    places = {"units": 2, "l2": 3, "rate": 4, "epochs": 5}
    truths = {}
    for cell, here in losses.items():
        gains = {}
        for axis, way in MOVES:
            place = places[axis]
            for value in AXES[axis]:
                other = losses.get((*cell[:place], value, *cell[place + 1 :]))
                if other is None or (value - cell[place]) * way <= 0:
                    continue
                saved = here - other
                error = saved.std(ddof=1) / np.sqrt(len(saved))
                gain = saved.mean() / here.mean()
                if saved.mean() > STANDARD_ERRORS * error and gain > LEAST_GAIN:
                    gains[axis, way] = max(gain, gains.get((axis, way), 0.0))
        truths[cell] = gains
    return truths


def truth_of(gains):
    """Return the class of a training by the change that gains most."""
    return MOVES[max(gains, key=gains.get)] if gains else "just right"


# ---- what `diagnose` says ----------------------------------------------------------------------

CLASSES = (
    "learning rate too high", "learning rate too low", "too short", "overfitting", "underfitting",
    "just right",
)  # fmt: skip
SAME = {"diverging": "learning rate too high", "noisy": "learning rate too high"}  # the same cure
OF_LAMBDA = {"λ too strong": ("l2", -1), "λ too weak": ("l2", +1)}


def judge(trainings, *, with_baseline=True):
    """Diagnose every training; return a row each, with its truth and whether the advice helps."""
    import kregs

    truths = find_truths(trainings)
    rows = []
    for t in trainings:
        cell = tuple(t[name] for name in ("set", "rows", "units", "l2", "rate", "epochs"))
        gains = truths[cell]
        baseline = t["baseline"] if with_baseline else None
        diagnosis = kregs.diagnose(t["history"], baseline=baseline)
        verdict = SAME.get(diagnosis.verdict, diagnosis.verdict)
        helped = verdict in {MOVES[move] for move in gains} if gains else verdict == "just right"
        rows.append({
            "set": t["set"], "truth": truth_of(gains), "said": verdict, "helped": helped,
            "confidence": diagnosis.confidence,
            "saved_by": {
                name: max((g for move, g in gains.items() if MOVES[move] == name), default=0.0)
                for name in CLASSES
            },
            "best": max(gains.values(), default=0.0),
            "lambda": next((name for name in OF_LAMBDA if name in diagnosis.others), None),
            "lambda_gains": [name for name, move in OF_LAMBDA.items() if move in gains],
        })  # fmt: skip
    return rows


def summarize(rows):
    """Return the confusion matrix and what follows from it."""
    matrix = {truth: dict.fromkeys(CLASSES, 0) for truth in CLASSES}
    for row in rows:
        matrix[row["truth"]][row["said"]] += 1
    said = collections.Counter(row["said"] for row in rows)
    classes = {
        name: {
            "precision": _share(matrix[name][name], said[name]),
            "recall": _share(matrix[name][name], sum(matrix[name].values())),
            "helped": _share(sum(r["helped"] for r in rows if r["said"] == name), said[name]),
            "trainings": sum(matrix[name].values()),
        }
        for name in CLASSES
    }
    constant = collections.Counter(row["truth"] for row in rows).most_common(1)[0]
    steps = [(low, low + 0.2) for low in (0.0, 0.2, 0.4, 0.6, 0.8)]
    bins = {
        f"{low:.1f} to {high:.1f}": [r["helped"] for r in rows if low <= r["confidence"] < high]
        for low, high in steps
    }
    of_lambda = {}
    for name in OF_LAMBDA:
        said_so = [row for row in rows if row["lambda"] == name]
        right = sum(name in row["lambda_gains"] for row in said_so)
        of_lambda[name] = {
            "said": len(said_so),
            "precision": _share(right, len(said_so)),
            "recall": _share(right, sum(name in row["lambda_gains"] for row in rows)),
        }
    return {
        "trainings": len(rows),
        "right": _share(sum(row["truth"] == row["said"] for row in rows), len(rows)),
        "helped": _share(sum(row["helped"] for row in rows), len(rows)),
        "always_the_most_frequent": {
            "verdict": constant[0],
            "right": constant[1] / len(rows),
            "helped": _share(sum(r["saved_by"][constant[0]] > 0 for r in rows), len(rows)),
            "test_loss_saved": float(np.mean([r["saved_by"][constant[0]] for r in rows])),
        },
        "test_loss_saved": float(np.mean([row["saved_by"][row["said"]] for row in rows])),
        "test_loss_saved_at_best": float(np.mean([row["best"] for row in rows])),
        "confusion": matrix,
        "classes": classes,
        "lambda": of_lambda,
        "by_confidence": {
            name: {"trainings": len(hits), "helped": _share(sum(hits), len(hits))}
            for name, hits in bins.items()
        },
    }


def _share(count, whole):
    return round(count / whole, 3) if whole else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", type=Path, metavar="FILE", help="keep the trainings here")
    arguments = parser.parse_args()
    began = time.perf_counter()
    seconds = None
    if arguments.trained and arguments.trained.exists():
        trainings = pickle.loads(arguments.trained.read_bytes())
    else:
        trainings = list(train_all(TUNED_ON + REPORTED))
        seconds = round(time.perf_counter() - began, 1)
        if arguments.trained:
            arguments.trained.write_bytes(pickle.dumps(trainings))
    parts = {"tuned on": TUNED_ON, "reported": REPORTED}
    parts |= {name: (name,) for name in TUNED_ON + REPORTED}
    rows = judge(trainings)
    outcome = {
        part: summarize([row for row in rows if row["set"] in sets]) for part, sets in parts.items()
    }
    reported = [t for t in trainings if t["set"] in REPORTED]
    outcome["reported, without baseline"] = summarize(judge(reported, with_baseline=False))
    record = {
        "command": "python tests/benchmarks/diagnosis_truth.py",
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "seconds_of_training": seconds,
        "protocol": {
            "tuned_on": TUNED_ON, "reported": REPORTED, "rows": ROWS, "units": UNITS, "l2": L2,
            "learning_rates": RATES, "epochs": EPOCHS, "seeds": SEEDS, "batch_size": BATCH,
            "validation_rows": VALIDATION, "standard_errors": STANDARD_ERRORS,
            "least_gain": LEAST_GAIN,
        },
        "runs": sum(t["epochs"] == max(EPOCHS) for t in trainings),
        "outcome": outcome,
    }  # fmt: skip
    from kregs.files import write_json

    write_json(REPOSITORY / "tuning" / "results" / "diagnosis.json", record)
    for part in ("tuned on", "reported", "reported, without baseline"):
        print_outcome(part, outcome[part])


def print_outcome(part, outcome):
    print(f"\n{part}: {outcome['trainings']} histories, right {outcome['right']:.0%}, the change "
          f"helped {outcome['helped']:.0%}")  # fmt: skip
    print("| truth | " + " | ".join(CLASSES) + " | recall |")
    print("|" + "---|" * (len(CLASSES) + 2))
    for truth, row in outcome["confusion"].items():
        cells = [str(row[name]) for name in CLASSES]
        print(f"| {truth} | {' | '.join(cells)} | {outcome['classes'][truth]['recall']} |")
    for measure in ("precision", "helped"):
        cells = [str(outcome["classes"][name][measure]) for name in CLASSES]
        print(f"| {measure} | {' | '.join(cells)} | |")
    print("by confidence", outcome["by_confidence"])
    print("lambda", outcome["lambda"])
    print("saved", outcome["test_loss_saved"], "of", outcome["test_loss_saved_at_best"])


if __name__ == "__main__":
    main()
