"""Does a model chosen by folds do better on the test rows than one chosen by a single split?

    python tests/benchmarks/folds_against_one_split.py [--sets blood credit-g ...] [--seeds 3]

On real tables: a fifth of the rows is kept for the test. On the others the same 24 points of λ,
dropout, width and learning rate are judged by one split (a quarter of the rows), by 5 folds, and by
5 folds with the one-standard-error rule. Each chosen model is trained on all training rows and
tested once. Writes `tuning/results/folds_against_one_split.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SETS = (
    "blood-transfusion-service-center", "diabetes", "wdbc", "qsar-biodeg", "credit-g",
    "pmlb_australian",
)  # fmt: skip
TRIALS, EPOCHS = 24, 40
RULES = {
    "one split": {"validation_split": 0.25},
    "folds": {"folds": 5},
    "folds, one standard error": {"folds": 5, "selection": "one_standard_error"},
}


def load(name):
    shared = Path(os.environ.get("KREGS_SHARED") or REPOSITORY.parent / "shared")
    spec = importlib.util.spec_from_file_location("shared_load", shared / "data" / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    x, y, _ = loader.tabular_numeric(name)
    return x, y


def run(name, seed, folder):
    import keras
    from sklearn.impute import SimpleImputer
    from sklearn.metrics import balanced_accuracy_score, log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    import kregs

    x, y = load(name)
    classes = int(y.max()) + 1
    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=0.2, random_state=seed, stratify=y
    )
    columns = x.shape[1]

    def build(hp):
        r = kregs.Regularization.from_hp(
            hp,
            base=kregs.Regularization(normalization="batch"),
            l2=(1e-6, 1e-1),
            dropout=(0.0, 0.6),
        )
        units = hp.Choice("units", [16, 64])
        model = kregs.mlp((columns,), classes, units=(units, units), regularization=r)
        rate = hp.Float("learning_rate", 1e-3, 1e-2, sampling="log")
        return kregs.compile_model(model, "sparse_categorical_crossentropy", learning_rate=rate)

    scores = {}
    for rule, arguments in RULES.items():
        began = time.perf_counter()
        preprocess = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        result = kregs.tune(
            build, train_x, train_y, preprocess=preprocess, max_trials=TRIALS, epochs=EPOCHS,
            batch_size=64, seed=seed, directory=folder, verbose=0,
            project_name=f"{name}-{seed}-{'-'.join(rule.split())}".replace(",", ""), **arguments,
        )  # fmt: skip
        model = result.refit(train_x, train_y)
        rows = result.preprocess_.transform(test_x).astype("float32")
        predicted = model.predict(rows, verbose=0)
        scores[rule] = {
            "estimated_data_loss": result.best_score,
            "test_data_loss": float(log_loss(test_y, predicted, labels=range(classes))),
            "test_balanced_accuracy": float(balanced_accuracy_score(test_y, predicted.argmax(1))),
            "seconds": round(time.perf_counter() - began, 1),
            "chosen": result.best_hyperparameters,
        }
        keras.backend.clear_session()
    return {"rows": len(x), "columns": columns, "classes": classes, "seed": seed, "scores": scores}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    runs = []
    print("| set | seed | rule | estimate | test data loss | test balanced accuracy | s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            for seed in range(arguments.seeds):
                outcome = {"set": name, **run(name, seed, folder)}
                runs.append(outcome)
                for rule, s in outcome["scores"].items():
                    print(
                        f"| {name} | {seed} | {rule} | {s['estimated_data_loss']:.4f} | "
                        f"{s['test_data_loss']:.4f} | {s['test_balanced_accuracy']:.4f} | "
                        f"{s['seconds']} |",
                        flush=True,
                    )
    summary = {}
    for rule in RULES:
        loss = [r["scores"][rule]["test_data_loss"] for r in runs]
        gaps = [
            x - r["scores"][rule]["estimated_data_loss"] for x, r in zip(loss, runs, strict=True)
        ]
        against = [
            x - r["scores"]["one split"]["test_data_loss"] for x, r in zip(loss, runs, strict=True)
        ]
        accuracy = [r["scores"][rule]["test_balanced_accuracy"] for r in runs]
        summary[rule] = {
            "mean_test_data_loss": statistics.fmean(loss),
            "mean_test_balanced_accuracy": statistics.fmean(accuracy),
            "mean_test_less_estimate": statistics.fmean(gaps),
            "mean_difference_from_one_split": statistics.fmean(against),
            "better_than_one_split": sum(d < 0 for d in against),
            "of": len(against),
        }
        print(rule, json.dumps(summary[rule]))
    record = {
        "command": "python tests/benchmarks/folds_against_one_split.py " + " ".join(sys.argv[1:]),
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "protocol": {"trials": TRIALS, "epochs": EPOCHS, "test_share": 0.2, "rules": RULES},
        "summary": summary,
        "runs": runs,
    }
    from kregs.files import write_json

    write_json(REPOSITORY / "tuning" / "results" / "folds_against_one_split.json", record)


if __name__ == "__main__":
    main()
