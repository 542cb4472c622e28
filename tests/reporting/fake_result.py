"""A search result as a report reads it, made of tables: no search is run for it.

`SAMPLINGS`, `SPACE` and `make_trials` describe a search whose score depends on l2 most, and on
dropout a little.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import kregs
from kregs.search.protocol import DataSummary, Protocol

SAMPLINGS = {"use_l2": None, "l2": "log", "dropout": "linear", "norm": None, "depth": "linear"}


def hyperparameter(kind, name, conditions=(), **config):
    return {
        "class_name": kind,
        "config": {"name": name, "conditions": list(conditions), **config},
    }


SPACE = [
    hyperparameter("Boolean", "use_l2", default=False),
    hyperparameter(
        "Float",
        "l2",
        [{"class_name": "Parent", "config": {"name": "use_l2", "values": [True]}}],
        min_value=1e-6,
        max_value=1e-1,
        step=None,
        sampling="log",
    ),
    hyperparameter("Float", "dropout", min_value=0.0, max_value=0.6, step=None, sampling="linear"),
    hyperparameter("Choice", "norm", values=["batch", "none"]),
    hyperparameter("Int", "depth", min_value=1, max_value=3, step=1, sampling="linear"),
]

PROTOCOL = Protocol(
    objective="val_data_loss",
    direction="min",
    data=DataSummary(
        validation="stratified split",
        validation_split=0.25,
        rows=90,
        validation_rows=30,
        checksum=12345,
    ),
    max_trials=24,
    epochs=6,
    callbacks=("StrictEarlyStopping(patience=5)",),
    seed=17,
)


def change(protocol=PROTOCOL, **fields):
    """Return a protocol with other fields; those of its data too."""
    of_data = {field.name for field in dataclasses.fields(DataSummary)}
    data = {name: fields.pop(name) for name in list(fields) if name in of_data}
    return dataclasses.replace(protocol, data=dataclasses.replace(protocol.data, **data), **fields)


def make_trials(n=24, *, failed=2, errors=False, direction="min"):
    generator = np.random.default_rng(0)
    use = generator.random(n) < 0.7
    use[0] = True
    l2 = np.where(use, 10 ** generator.uniform(-6, -1, n), 0.0)
    dropout = generator.uniform(0, 0.6, n)
    score = 0.2 + 0.1 * (np.log10(np.where(use, l2, 1e-7)) + 3) ** 2 + 0.1 * dropout
    score = score if direction == "min" else 1 - score / 10
    status = np.array(["completed"] * n, dtype=object)
    status[n - failed :] = "failed"
    score[n - failed :] = np.nan
    frame = pd.DataFrame(
        {
            "trial": range(n),
            "score": score,
            "best_epoch": pd.array([3 + i % 4 for i in range(n)], dtype="Int64"),
            "seconds": generator.uniform(1, 3, n),
            "status": status,
            "use_l2": use,
            "l2": l2,
            "dropout": dropout,
            "norm": generator.choice(["batch", "none"], n),
            # not active in every trial
            "depth": np.where(generator.random(n) < 0.5, generator.integers(1, 4, n), np.nan),
        }
    )
    if errors:
        frame.insert(2, "standard_error", np.where(np.isnan(score), np.nan, 0.02))
    return frame.sort_values(
        "score", ascending=direction == "min", na_position="last", ignore_index=True
    )


def make_history(trial, folds=1, seeds=1, epochs=6):
    """Losses that fall; those of validation lie above, and rise again after epoch 4."""
    steps = np.arange(1, epochs + 1)
    frames = []
    for run in range(folds * seeds):
        fold, seed = divmod(run, seeds)
        data_loss = 1.0 / steps + 0.01 * trial
        frame = pd.DataFrame(
            {
                "epoch": steps,
                "data_loss": data_loss,
                "val_data_loss": data_loss + 0.1 + 0.1 * run + 0.5 * np.maximum(0, steps - 4),
            }
        )
        if seeds > 1:
            frame.insert(1, "seed", seed)
        if folds > 1:
            frame.insert(1, "fold", fold)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


@dataclasses.dataclass
class FakeResult:
    """What `kregs.reporting.write_report` reads of a `SearchResult`.

    `histories` gives a trial's history, after `history_seconds`; `epochs` the epoch (from 1) at
    which all runs are scored, `None` if no scores were kept. What was read is counted in `read`.
    """

    path: Path
    table: pd.DataFrame = dataclasses.field(default_factory=make_trials)
    protocol: Any = PROTOCOL
    space: list = dataclasses.field(default_factory=lambda: SPACE)
    samplings: dict = dataclasses.field(default_factory=lambda: SAMPLINGS)
    name: str = "a search"
    versions: dict = dataclasses.field(
        default_factory=lambda: {"kregs": "0.1.0", "keras": "3.15.1"}
    )
    seconds: float = 75.0
    chosen: int | None = None
    nested: pd.DataFrame | None = None
    score_bias: float | None = None
    failed: pd.DataFrame = dataclasses.field(
        default_factory=lambda: pd.DataFrame({"trial": [], "message": []})
    )
    histories: Any = None
    epochs: int | None = None
    history_seconds: float = 0.0
    read: list = dataclasses.field(default_factory=list)
    found: pd.DataFrame | None = None
    trained: str | None = "24 trials: all stacked"

    @property
    def best_trial(self) -> int:
        return int(self.table["trial"].iloc[0])

    @property
    def chosen_trial(self) -> int:
        return self.best_trial if self.chosen is None else self.chosen

    @property
    def best_hyperparameters(self):
        row = self.table[self.table["trial"] == self.chosen_trial].iloc[0]
        return {name: row[name] for name in self.samplings}

    def trials(self):
        return self.table.copy()

    def failures(self):
        return self.failed

    def history(self, trial):
        self.read.append(trial)
        time.sleep(self.history_seconds)
        folds, seeds = self.protocol.folds or 1, self.protocol.seeds
        if self.histories is not None:
            return self.histories(trial)
        return make_history(trial, folds, seeds)

    def diagnosis(self):
        history = (self.histories or make_history)(self.chosen_trial)
        return kregs.diagnose(history)

    def findings(self):
        return self.found

    def scores(self, trial):
        runs = [(f, s) for f in range(self.protocol.folds or 1) for s in range(self.protocol.seeds)]
        if self.epochs is None:
            return pd.DataFrame(columns=["fold", "seed", "score", "epoch"])
        frame = pd.DataFrame(runs, columns=["fold", "seed"])
        return frame.assign(score=0.5, epoch=self.epochs)
