"""Engines: what trains the trials that an oracle proposes. And the file each trial leaves."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import keras_tuner

from kregs.files import write_json
from kregs.validation import check_choice

# name -> (module, class, its own settings): a `keras_tuner.Tuner` made by `make_tuner`
ENGINES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "auto": ("kregs.search.population_tuner", "PopulationTuner", {}),
    "population": ("kregs.search.population_tuner", "PopulationTuner", {"strict": True}),
    "sequential": ("kregs.search.sequential", "SequentialTuner", {}),
}

TRIAL_FILE = "training.json"
CHECKPOINT = "checkpoint.weights.h5"  # this and the next are keras-tuner's names
BUILD_CONFIG = "build_config.json"


@dataclasses.dataclass(kw_only=True)
class TrialRecord:
    """What a trial's training left, beside keras-tuner's `trial.json` and its checkpoint.

    Args:
        histories: per run (fold and seed), each logged metric's values by epoch.
        halves: per run, its histories on the two halves of the validation rows, if it has any.
        scores: per run, its `fold`, `seed`, `score` and the `epoch` that it is scored at.
        standard_error: of the trial's score; `None` with one run.
        best_epoch: epochs trained when the objective was best over the runs, counted from 1.
            `None` if the trial failed.
        initial_epoch: epochs that an earlier trial had trained before (Hyperband).
        seconds: from the build to the saved checkpoint.
        status: `"completed"` or `"failed"`.
        message: why it failed, in one line.
    """

    histories: list[dict[str, list[float]]] = dataclasses.field(default_factory=list)
    halves: list[list[dict[str, list[float]]]] = dataclasses.field(default_factory=list)
    scores: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    standard_error: float | None = None
    best_epoch: int | None = None
    initial_epoch: int = 0
    seconds: float = 0.0
    status: str = "completed"
    message: str | None = None

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the record into a trial's directory."""
        write_json(Path(folder) / TRIAL_FILE, dataclasses.asdict(self), indent=None)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> TrialRecord | None:
        """Return a trial directory's record, or `None` if the trial did not end."""
        path = Path(folder) / TRIAL_FILE
        if not path.exists():
            return None
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def check_engine(engine: str) -> str:
    """Return the engine's name, or raise `ValueError` with the nearest known one."""
    return check_choice("engine", engine, ENGINES)


def make_tuner(
    engine: str,
    *,
    hypermodel: keras_tuner.HyperModel,
    oracle: keras_tuner.Oracle,
    directory: str | os.PathLike[str],
    project_name: str,
    **settings: Any,
) -> keras_tuner.Tuner:
    """Return the engine's tuner; a project that exists is taken up where it stopped.

    Args:
        engine: a key of `ENGINES`.
        hypermodel, oracle, directory, project_name: as in `keras_tuner.Tuner`.
        **settings: `seed`, `executions_per_trial`, `splits`, `halves`, `keep`, `max_time`,
            `progress`: the engine's own.
    """
    module, name, own = ENGINES[check_engine(engine)]
    tuner_class = getattr(importlib.import_module(module), name)
    return tuner_class(
        hypermodel=hypermodel,
        oracle=oracle,
        directory=os.fspath(directory),
        project_name=project_name,
        **own,
        **settings,
    )


def own_hyperparameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values without those that Hyperband keeps among them for itself."""
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def load_checkpoint(
    model: keras.Model, folder: str | os.PathLike[str], *, to_train: bool = False
) -> None:
    """Load the weights of a trial's best epoch, and the optimizer's state, into a built model.

    Args:
        model: what the trial's `build` returns.
        folder: the trial's directory.
        to_train: leave an optimizer whose state is not in the file as it is. It is built otherwise,
            since Keras does not load the file of a model whose optimizer is not.
    """
    if not model.built:
        config = json.loads(Path(folder, BUILD_CONFIG).read_text(encoding="utf-8"))
        model.build_from_config(config)
    path = Path(folder, CHECKPOINT)
    optimizer = model.optimizer
    holds_slots = _holds_slots(path)
    if optimizer is not None and not optimizer.built and holds_slots:
        optimizer.build(model.trainable_variables)
    model.load_weights(path)
    if optimizer is not None and not optimizer.built and not to_train:
        optimizer.build(model.trainable_variables)


def _holds_slots(checkpoint: Path) -> bool:
    """Whether a checkpoint has more of the optimizer than iteration and learning rate.

    Populations leave momenta out: most trials are never trained on.
    """
    with h5py.File(checkpoint, "r") as file:
        return len(file.get("optimizer/vars", ())) > 2
