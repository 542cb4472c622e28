"""Weights of trials on disk: read into a model, written fast for many models of one structure.

`Model.save_weights` walks all of a model's objects, which takes longer than training a member of a
small network. Files of models of one structure differ in their numbers only: Keras writes the
first, the others are filled in.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kregs.files import atomic_path, write_json
from kregs.population.keras_internals import learning_rate_of
from kregs.search.runs import RunState
from kregs.search.storage import BUILD_CONFIG_FILE, CHECKPOINT_FILE
from kregs.training.stock_optimizers import unwrapped


def state_of(model: keras.Model) -> RunState:
    """Return a copy of a model's weights and of its optimizer's state."""
    optimizer = getattr(model, "optimizer", None)  # none before a model is compiled
    variables = getattr(optimizer, "variables", ())
    return RunState(model.get_weights(), [v.value.numpy() for v in variables])


def last_state_of(model: keras.Model) -> RunState:
    """Return all of a model that a run that goes on from it needs."""
    state = state_of(model)
    state.generators = [v.value.numpy() for v in _generators(model)]
    state.build_config = model.get_build_config()
    state.learning_rate = learning_rate_value(model)
    return state


def go_on(model: keras.Model, state: RunState) -> None:
    """Put a fresh model where another one was after its last epoch."""
    if state.population is not None:
        raise ValueError("what it goes on from was trained by a population, not by `fit`")
    if not model.built and state.build_config:
        model.build_from_config(state.build_config)
    restore(model, state)
    for variable, value in zip(_generators(model), state.generators or (), strict=False):
        variable.assign(value)
    if state.learning_rate is not None and learning_rate_value(model) is not None:
        model.optimizer.learning_rate = state.learning_rate


def learning_rate_value(model: keras.Model) -> float | None:
    """Return the learning rate as it is, `None` if a schedule or no single optimizer has it."""
    # with mixed precision, the one that it scales the loss for
    optimizer = unwrapped(getattr(model, "optimizer", None))
    if optimizer is None or hasattr(optimizer, "optimizers"):
        return None
    given = learning_rate_of(optimizer)
    if isinstance(given, keras.optimizers.schedules.LearningRateSchedule):
        return None
    return float(keras.ops.convert_to_numpy(given))


def _generators(model: keras.Model) -> list[Any]:
    """The states of a model's seed generators: variables that are no weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def restore(model: keras.Model, state: RunState) -> None:
    """Give a model the weights, and its optimizer the state if it was kept."""
    if state.weights is not None:
        model.set_weights(state.weights)
    optimizer = getattr(model, "optimizer", None)
    if state.optimizer is None or optimizer is None:
        return
    if not optimizer.built and len(state.optimizer) > len(optimizer.variables):
        optimizer.build(model.trainable_variables)
    for variable, value in zip(optimizer.variables, state.optimizer, strict=True):
        variable.assign(value)


def load_checkpoint(model: keras.Model, folder: str | os.PathLike[str]) -> None:
    """Load the weights of a trial's best epoch, and the optimizer's state, into a built model.

    Args:
        model: what the trial's `build` returns.
        folder: the trial's directory.
    """
    if not model.built:
        config = json.loads(Path(folder, BUILD_CONFIG_FILE).read_text(encoding="utf-8"))
        model.build_from_config(config)
    path = Path(folder, CHECKPOINT_FILE)
    optimizer = getattr(model, "optimizer", None)  # the hypermodel's `fit` may compile it
    holds_slots = _holds_slots(path)
    if optimizer is not None and not optimizer.built and holds_slots:
        optimizer.build(model.trainable_variables)
    with warnings.catch_warnings():
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            # its own variables are in the file, the inner optimizer's are not
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        model.load_weights(path)
    # Keras does not load the file of a model whose optimizer is not built
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)


def _holds_slots(checkpoint: Path) -> bool:
    """Whether a checkpoint has more of the optimizer than iteration and learning rate.

    Populations leave momenta out: most trials are never trained on.
    """
    with h5py.File(checkpoint, "r") as file:
        return len(file.get("optimizer/vars", ())) > 2


class Checkpoints:
    """Writes the checkpoints of a search's trials."""

    def __init__(self) -> None:
        self._writers: dict[Any, CheckpointWriter] = {}

    def save(
        self, folder: str | os.PathLike[str], model: keras.Model, state: RunState, signature: Any
    ) -> None:
        """Write a trial's weights and what builds its model.

        Args:
            folder: the trial's directory.
            model: has the structure of what was trained; its own weights may be overwritten.
            state: what is written. Without the optimizer's state that of the model is, whose
                learning rate a reloaded model goes on with.
            signature: equal for models of one structure; `None` if that is not known.
        """
        write_json(Path(folder, BUILD_CONFIG_FILE), model.get_build_config())
        path = Path(folder, CHECKPOINT_FILE)
        if signature is None or state.optimizer is not None:
            restore(model, state)
            with atomic_path(path) as temporary:
                model.save_weights(temporary)
            return
        variables = [*model.weights, *model.optimizer.variables]
        values = [*(state.weights or []), *(v.numpy() for v in model.optimizer.variables)]
        if signature not in self._writers:
            self._writers[signature] = CheckpointWriter(model, variables)
        self._writers[signature].write(path, model, variables, values)


class CheckpointWriter:
    """Writes `.weights.h5` files of models that have the structure of the first.

    Args:
        model: a built and compiled model.
        variables: those of its variables whose numbers the files differ in.
    """

    def __init__(self, model: keras.Model, variables: Sequence[Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="kregs-") as folder:
            template = Path(folder, "template.weights.h5")
            self._paths = self._find(template, model, variables)
            self._template = template.read_bytes()

    @staticmethod
    def _find(template: Path, model: keras.Model, variables: Sequence[Any]) -> list[str] | None:
        """Learn where each variable is in the file: give it a number of its own and look."""
        before = [np.asarray(variable.value) for variable in variables]
        try:
            for number, variable in enumerate(variables, start=1):
                variable.assign(np.full(variable.shape, number, variable.dtype))
            model.save_weights(template)
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        paths: dict[int, list[str]] = {}
        with h5py.File(template, "r") as file:

            def visit(path: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and item.size:
                    numbers = np.unique(np.asarray(item, "float64"))
                    number = int(numbers[0])
                    # the range of float16 suffices to tell two thousand variables apart
                    if len(numbers) == 1 and numbers[0] == number and 1 <= number <= len(variables):
                        shape = tuple(variables[number - 1].shape)
                        if item.shape == shape:
                            paths.setdefault(number, []).append(path)

            file.visititems(visit)
        places = [paths.get(number, []) for number in range(1, len(variables) + 1)]
        return [path for (path,) in places] if all(len(p) == 1 for p in places) else None

    def write(
        self,
        path: str | os.PathLike[str],
        model: keras.Model,
        variables: Sequence[Any],
        values: Sequence[np.ndarray],
    ) -> None:
        """Write a checkpoint.

        Args:
            path: of the file, which appears whole or not at all.
            model: given the values and saved as ever where the template cannot be filled.
            variables: the model's, in the order of the first model's.
            values: an array for each variable.
        """
        with atomic_path(path) as temporary:
            if self._paths is None:
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
                model.save_weights(temporary)
                return
            temporary.write_bytes(self._template)
            with h5py.File(temporary, "r+") as file:
                for place, value in zip(self._paths, values, strict=True):
                    file[place][...] = value
