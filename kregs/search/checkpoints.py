"""Checkpoints of many models of one structure: Keras writes the first, the others are filled in.

`Model.save_weights` walks all of a model's objects, which takes longer than training a member of a
small network. Files of models of one structure differ in their numbers only.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kregs.files import atomic_path


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
        found: dict[int, list[str]] = {}
        with h5py.File(template, "r") as file:

            def visit(path: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and item.size:
                    own = np.unique(np.asarray(item, "float64"))
                    number = int(own[0])
                    # the range of float16 suffices to tell two thousand variables apart
                    if len(own) == 1 and own[0] == number and 1 <= number <= len(variables):
                        shape = tuple(variables[number - 1].shape)
                        if item.shape == shape:
                            found.setdefault(number, []).append(path)

            file.visititems(visit)
        places = [found.get(number, []) for number in range(1, len(variables) + 1)]
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
