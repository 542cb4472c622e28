"""What each ingredient of the presets for tables gains: the preset with it taken out, beside it.

    python tests/benchmarks/table_ablation.py [--halves first second] [--splits 2] [--minutes N]

Single networks on the tables and splits of `kregs.tuning.presets` (at most 1,000 rows, a fifth to
choose the epoch on and one to test on). The number is by how many percent the log loss or the RMSE
of the test rows is higher than the whole preset's: the geometric mean, and in how many splits it is
higher. Variants that differ in numbers are one population. Results are written to
`tuning/results/table_ablation.json` as they are there, and a later call goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from kregs.tuning import presets as study

from kregs.presets import TABLES, TablePreset

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("KREGS_SHARED") or REPOSITORY.parent / "shared") / "data"
RESULTS = REPOSITORY / "tuning" / "results" / "table_ablation.json"
WHOLE = "the whole preset"


def variants(preset: TablePreset) -> list[dict[str, TablePreset]]:
    """Return a preset without each of its ingredients, by name; those of one structure together."""
    restrained = preset.regularization

    def without(**fields: Any) -> TablePreset:
        return preset.replace(regularization=restrained.replace(**fields))

    numbers = {
        "no dropout": without(dropout=0.0),
        "no weight decay": without(weight_decay=0.0),
        "no label smoothing": without(label_smoothing=0.0),
        "a constant learning rate": preset.replace(schedule="constant"),
        "beta_2 of 0.999 for 0.95": preset.replace(beta_2=0.999),
    }
    structures = {
        "no embedding of numbers": preset.replace(embedding=None),
        "no scaling layer": preset.replace(scaling=False),
        "ReLU for mish": preset.replace(activation="relu"),
        "one network for members that share kernels": preset.replace(ensemble=None),
    }
    changed = {name: other for name, other in numbers.items() if other != preset}
    alone = [{name: other} for name, other in structures.items() if other != preset]
    return [{WHOLE: preset, **changed}, *alone]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--halves", nargs="+", default=["second"], choices=["first", "second"])
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no network after these")
    arguments = parser.parse_args()
    record: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    end = time.monotonic() + 60 * arguments.minutes
    halves = {"first": study.FIRST_HALF, "second": study.SECOND_HALF}
    for seed, half in itertools.product(range(arguments.splits), arguments.halves):
        for task, names in halves[half].items():
            for name in names:
                run_table(record.setdefault(task, {}), name, task, seed, end)
                RESULTS.write_text(json.dumps(record, indent=1) + "\n")
    for task, runs in record.items():
        print(report(task, runs))


def run_table(runs: dict[str, Any], name: str, task: str, seed: int, end: float) -> None:
    """Train what one split of a table lacks."""
    scores = runs.setdefault(f"{name}/{seed}", {})
    data = None
    for presets in variants(TABLES[task]):
        if presets.keys() <= scores.keys() or time.monotonic() > end:
            continue
        data = study.read(DATA, name, task, seed) if data is None else data
        if not data.numbers:  # nothing to embed
            presets = {key: preset.replace(embedding=None) for key, preset in presets.items()}
        for key, found in study.train_structure(presets, data).items():
            scores[key] = found["rmse" if task == "regression" else "log_loss"]
        print(f"{name}, split {seed}: {', '.join(presets)}", flush=True)


def report(task: str, runs: dict[str, Any]) -> str:
    """Return for each ingredient of a task's preset what its loss costs."""
    ratios: dict[str, list[float]] = {}
    for scores in runs.values():
        for name in scores.keys() - {WHOLE}:
            ratios.setdefault(name, []).append(scores[name] / scores[WHOLE])
    lines = [f"{task:46s}{'error in %':>12s}{'higher in':>12s}"]
    for name, values in sorted(ratios.items(), key=lambda item: -np.mean(np.log(item[1]))):
        percent = 100 * (np.exp(np.mean(np.log(values))) - 1)
        higher = f"{sum(value > 1 for value in values)} of {len(values)}"
        lines.append(f"  {name:44s}{percent:+12.1f}{higher:>12s}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
