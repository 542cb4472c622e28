"""What each ingredient of the presets for tables gains: the preset with it taken out, beside it.

    python tests/benchmarks/table_ablation.py [--tables wdbc yacht ...] [--splits 2] [--rows 1000]

`kregs.tune_table(max_trials=0)` on the tables of `tables.py`, a fifth of the rows to test on, in
each line with one ingredient less. The number is by how many percent the log loss or the RMSE is
higher than the whole preset's: the geometric mean over tables, and on how many it is higher.
Results are written to `tuning/results/table_ablation.json` as they are there, and a later call
goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tables import REPOSITORY, read, score, split, tables, with_kregs

from kregs.presets import TablePreset, for_table

RESULTS = REPOSITORY / "tuning" / "results" / "table_ablation.json"
TABLES = [
    "credit-g", "diabetes", "spambase", "pmlb_churn", "credit-approval", "segment", "satimage",
    "optdigits", "concrete", "energy", "wine-quality-red", "yacht",
]  # fmt: skip
WHOLE = "the whole preset"


def without(preset: TablePreset) -> dict[str, dict[str, Any]]:
    """Return by name the arguments of `tune_table` that take one ingredient out of a preset."""
    restrained = preset.regularization
    presets = {
        "no embedding of numbers": preset.replace(embedding=None),
        "no scaling layer": preset.replace(scaling=False),
        "no dropout": preset.replace(regularization=restrained.replace(dropout=0.0)),
        "no weight decay": preset.replace(regularization=restrained.replace(weight_decay=0.0)),
        "a constant learning rate": preset.replace(schedule="constant"),
        "Adam's beta_2 0.999 for 0.95": preset.replace(beta_2=0.999),
        "ReLU for its activation": preset.replace(activation="relu"),
        "no shared kernels (TabM)": preset.replace(ensemble=None),
        "no label smoothing": preset.replace(
            regularization=restrained.replace(label_smoothing=0.0)
        ),
    }
    changed = {name: {"preset": other} for name, other in presets.items() if other != preset}
    return {WHOLE: {}, **changed, "one network for the mean of several": {"ensemble": False}}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=list(tables()))
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no network after these")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    record: dict[str, Any] = {"rows": arguments.rows, "runs": {}}
    if arguments.output.exists():
        record = json.loads(arguments.output.read_text())
        if record["rows"] != arguments.rows:
            parser.error(f"{arguments.output} holds runs with --rows {record['rows']}")
    end = time.monotonic() + 60 * arguments.minutes
    for seed in range(arguments.splits):
        for table in arguments.tables:
            run_table(record, table, tables()[table], seed, end, arguments.output)
    print(report(record))


def run_table(
    record: dict[str, Any], table: str, task: str, seed: int, end: float, output: Path
) -> None:
    """Train what one split of a table lacks."""
    frame, y = read(table, task)
    train, test = split(y, task, seed, record["rows"])
    x, x_test = (frame.iloc[part].reset_index(drop=True) for part in (train, test))
    labels = np.unique(y[train])
    scores = record["runs"].setdefault(f"{table}/{seed}", {})
    classes = None if task == "regression" else len(labels)
    for name, options in without(for_table(classes)).items():
        if name in scores:
            continue
        if time.monotonic() > end:
            return
        made = with_kregs(max_trials=0, **options)(x, y[train], x_test, task, seed)
        measured = score(task, y[test], made, labels)
        scores[name] = float(measured["rmse" if task == "regression" else "log_loss"])
        output.write_text(json.dumps(record, indent=1) + "\n")
        print(f"{table} split {seed}: {name:36s} {scores[name]:.4f}", flush=True)


def report(record: dict[str, Any]) -> str:
    """Return for each ingredient what its loss costs."""
    ratios: dict[str, list[float]] = {}
    for scores in record["runs"].values():
        for name in scores.keys() - {WHOLE}:
            ratios.setdefault(name, []).append(scores[name] / scores[WHOLE])
    lines = [f"{'':38s}{'error in %':>12s}{'higher on':>12s}"]
    for name, values in sorted(ratios.items(), key=lambda item: -np.mean(np.log(item[1]))):
        percent = 100 * (np.exp(np.mean(np.log(values))) - 1)
        higher = f"{sum(value > 1 for value in values)} of {len(values)}"
        lines.append(f"{name:38s}{percent:+12.1f}{higher:>12s}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
