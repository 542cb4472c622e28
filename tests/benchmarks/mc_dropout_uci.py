"""Monte Carlo dropout on the UCI splits of Gal and Ghahramani (2016), beside their table.

    python tests/benchmarks/mc_dropout_uci.py [--sets yacht energy ...]

One hidden layer of 50 units with dropout before both layers. For each of the 20 published splits by
itself, the dropout rate and the weight decay λ are those with the greatest likelihood on a fifth of
its training rows, the precision τ of the noise is fitted on the same rows, and one network is then
trained on all its training rows. No test row plays a part in any of this: all statistics of the
scaling are those of the rows that are trained on. All candidates of all splits of one set are one
population. Writes `tuning/results/mc_dropout_uci.json`, set by set.
"""

from __future__ import annotations

import argparse
import collections
import csv
import importlib.util
import itertools
import json
import math
import os
import platform
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "tuning" / "results" / "mc_dropout_uci.json"
SHARED = Path(os.environ.get("KREGS_SHARED") or REPOSITORY.parent / "shared")
# set -> (name in the published table, epochs, batch size)
SETS = {
    "yacht": ("yacht", 400, 32),
    "energy": ("energy", 300, 32),
    "concrete": ("concrete", 200, 32),
    "wine-quality-red": ("wine-quality-red", 60, 32),
}
UNITS = 50
RATES = (0.005, 0.01, 0.05, 0.1)
DECAYS = (1e-6, 1e-5, 1e-4, 1e-3)
LEARNING_RATE = 1e-2  # cosine decay to 0
VALIDATION_SHARE = 0.2
SEARCH_SAMPLES, TEST_SAMPLES = 100, 2000


def shared_loader():
    spec = importlib.util.spec_from_file_location("shared_load", SHARED / "data" / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    return loader


def build(columns, rate, l2, steps):
    import keras

    keras.utils.set_random_seed(0)
    penalty = keras.regularizers.L2(l2)
    model = keras.Sequential(
        [
            keras.Input((columns,)),
            keras.layers.Dropout(rate),
            keras.layers.Dense(UNITS, "relu", kernel_regularizer=penalty),
            keras.layers.Dropout(rate),
            keras.layers.Dense(1, kernel_regularizer=penalty),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(keras.optimizers.Adam(schedule), "mse")
    return model


def divided(training_rows, number):
    """Return the rows of a split that candidates are judged by, and those that they train on."""
    import numpy as np

    order = np.random.default_rng(number).permutation(training_rows)
    count = round(VALIDATION_SHARE * len(order))
    return order[:count], order[count:]


class Scaled:
    """The rows of a set as one split sees them: scaled by the mean and deviation of its own."""

    def __init__(self, x, y, rows):
        from sklearn.preprocessing import StandardScaler

        self.rows = rows
        self.x = StandardScaler().fit(x[rows]).transform(x)
        self.scaler = StandardScaler().fit(y[rows, None])
        self.y = self.scaler.transform(y[:, None])

    def in_units(self, predictions):
        """Return scaled predictions in the units of the set."""
        return predictions * self.scaler.scale_ + self.scaler.mean_


def train(columns, splits, candidates, epochs, batch_size, ended):
    """Train each (split number, candidate) on its split's rows, all of them as one population.

    Args:
        splits: `Scaled` sets of rows.
        candidates: pairs of a split number and (rate, l2).
        ended: called with both and with a sampler of the trained network.
    """
    import numpy as np

    from kregs.inspection.mc_dropout import DropoutSampler
    from kregs.population.jobs import Job
    from kregs.population.layout import Layout
    from kregs.population.rows import Feed, as_rows
    from kregs.population.signature import read_member
    from kregs.population.training import Training

    rows = len(splits[0].x)
    feed = Feed(
        as_rows(np.concatenate([s.x for s in splits]), np.concatenate([s.y for s in splits])),
        None,
        batch_size,
    )
    steps = epochs * math.ceil(len(splits[0].rows) / batch_size)
    settings = sorted({setting for _, setting in candidates})
    members = {setting: read_member(build(columns, *setting, steps)) for setting in settings}
    samplers = {setting: DropoutSampler(members[setting].model) for setting in settings}
    layout = Layout(list(members.values()))
    jobs = collections.deque(
        Job(
            members[setting],
            None,
            seed=0,  # one for all: their noise is drawn once
            callbacks=[],
            epochs=epochs,
            train_rows=(splits[number].rows + number * rows).astype("int32"),
            name=(number, setting),
        )
        for number, setting in candidates
    )
    finished = list(Training(layout, len(jobs), feed).run(jobs))
    for job in finished:
        number, setting = job.name
        if job.failure:
            raise RuntimeError(f"split {number}, {setting}: {job.failure}")
        for variable, value in zip(job.member.weights, job.best_weights, strict=True):
            variable.assign(value)
        ended(number, setting, samplers[setting])


def run(name, loader):
    import numpy as np

    import kregs
    from kregs.inspection.mc_dropout import McDropout

    _, epochs, batch_size = SETS[name]
    x, y = loader.regression(name)
    pairs = list(loader.gal_splits(name))
    began = time.perf_counter()
    held, inner = [], []
    for number, (training_rows, _) in enumerate(pairs):
        held_rows, inner_rows = divided(training_rows, number)
        held.append(held_rows)
        inner.append(Scaled(x, y, inner_rows))
    best = {}

    def draws(sampler, scaled, rows, samples):
        predictions = sampler.predict(scaled.x[rows], samples=samples, batch_size=len(rows), seed=1)
        return McDropout(scaled.in_units(predictions.astype("float64")))

    def judge(number, setting, sampler):
        validation = draws(sampler, inner[number], held[number], SEARCH_SAMPLES)
        targets = y[held[number]]
        precision = validation.best_precision(targets)
        score = float(validation.log_likelihood(targets, precision=precision).mean())
        if number not in best or score > best[number][0]:
            best[number] = score, setting, precision

    settings = list(itertools.product(RATES, DECAYS))
    candidates = [(number, setting) for number in range(len(pairs)) for setting in settings]
    train(x.shape[1], inner, candidates, epochs, batch_size, judge)
    searched = time.perf_counter()

    whole = [Scaled(x, y, training_rows) for training_rows, _ in pairs]
    outcomes = {}

    def test(number, setting, sampler):
        rows = pairs[number][1]
        result = draws(sampler, whole[number], rows, TEST_SAMPLES)
        precision = best[number][2]
        outcomes[number] = {
            "rate": setting[0],
            "l2": setting[1],
            "precision": precision,
            "validation_log_likelihood": best[number][0],
            "rmse": float(np.sqrt(np.mean((result.mean[:, 0] - y[rows]) ** 2))),
            "log_likelihood": float(result.log_likelihood(y[rows], precision=precision).mean()),
        }

    chosen = [(number, best[number][1]) for number in range(len(pairs))]
    train(x.shape[1], whole, chosen, epochs, batch_size, test)
    splits = [outcomes[number] for number in range(len(pairs))]
    summary = {}
    for key in ("rmse", "log_likelihood"):
        values = np.array([split[key] for split in splits])
        summary[key] = float(values.mean())
        summary[f"{key}_standard_error"] = float(values.std() / np.sqrt(len(values)))
    return {
        "rows": len(x),
        "columns": x.shape[1],
        "epochs": epochs,
        "batch_size": batch_size,
        "members": len(candidates),
        "search_seconds": round(searched - began, 1),
        "seconds": round(time.perf_counter() - began, 1),
        **summary,
        "published": published(name),
        "splits": splits,
        "kregs": kregs.__version__,
    }


def published(name):
    """Return the published numbers that were tuned without the test rows."""
    with open(SHARED / "data" / "published" / "gal_ghahramani_uci.csv", encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    (row,) = (row for row in csv.DictReader(lines) if row["dataset"] == SETS[name][0])
    return {
        "rmse": float(row["grid_rmse"]),
        "rmse_standard_error": float(row["grid_rmse_se"]),
        "log_likelihood": float(row["grid_ll"]),
        "log_likelihood_standard_error": float(row["grid_ll_se"]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="NAME")
    arguments = parser.parse_args()
    from kregs.files import write_json

    loader = shared_loader()
    record = {"sets": {}}
    if RESULTS.exists():
        record = json.loads(RESULTS.read_text(encoding="utf-8"))
    print("| set | RMSE | published | log-likelihood | published |")
    print("|---|---|---|---|---|")
    for name in arguments.sets:
        outcome = run(name, loader)
        record |= {
            "command": "python tests/benchmarks/mc_dropout_uci.py",
            "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
            "protocol": {
                "units": UNITS,
                "rates": RATES,
                "l2": DECAYS,
                "learning_rate": LEARNING_RATE,
                "validation_share": VALIDATION_SHARE,
                "search_samples": SEARCH_SAMPLES,
                "test_samples": TEST_SAMPLES,
            },
        }
        record["sets"][name] = outcome
        write_json(RESULTS, record)
        print(row_of(name, outcome), flush=True)


def row_of(name, outcome):
    """Return a row of the table in docs/uncertainty.md; two digits are published."""
    cells = [
        f"{numbers[key]:.{digits}f} ± {numbers[f'{key}_standard_error']:.{digits}f}"
        for key in ("rmse", "log_likelihood")
        for numbers, digits in ((outcome, 3), (outcome["published"], 2))
    ]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
