"""The network of a table: the preset of its task, and a search space around it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from kregs.presets import TablePreset, for_table
from kregs.regularization import Regularization

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableNetwork:
    """The build function of a search; a class at the top of a module, so that workers have it.

    It fixes no seed: the members of an ensemble begin from weights of their own.

    Args:
        numbers: how many columns of numbers the transformed rows have.
        categories: how many codes each further column has.
        classes: how many there are; `None` for a regression.
        preset: what the first trial is; default: that of the task.
        rows: how many are trained on.
        epochs, batch_size: of the training.
        searched: whether hyperparameters are searched, the preset's values being their defaults;
            else the preset is what is built.
        edges: of the piecewise embedding's bins, of each column of numbers.

    Example:

    >>> import keras_tuner
    >>> network = TableNetwork(numbers=2, classes=2, rows=100, epochs=5, batch_size=32)
    >>> hp = keras_tuner.HyperParameters()
    >>> network(hp).output_shape, hp.values["learning_rate"] == network.preset.learning_rate
    ((None, 1), True)
    """

    numbers: int
    categories: tuple[int, ...] = ()
    classes: int | None
    rows: int
    epochs: int
    batch_size: int
    searched: bool = True
    edges: tuple[tuple[float, ...], ...] | None = None
    preset: TablePreset = None  # type: ignore[assignment]  # until it is made

    def __post_init__(self) -> None:
        """Take the task's preset, where none is given."""
        if self.preset is None:
            object.__setattr__(self, "preset", for_table(self.classes))

    def __call__(self, hp: Any) -> keras.Model:
        """Build and compile a trial's network."""
        preset = self._sampled(hp) if self.searched else self.preset
        return preset.build(
            self.numbers,
            self.classes,
            categories=self.categories,
            edges=self.edges if preset.embedding == "piecewise" and self.numbers else None,
            rows=self.rows,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )

    def _sampled(self, hp: Any) -> TablePreset:
        """Sample around the preset; what is a structure has two values, which are stacked each."""
        preset = self.preset
        embeddings = ["piecewise", "periodic"]
        embedding = preset.embedding
        if self.numbers and embedding in embeddings:
            embedding = hp.Choice("embedding", embeddings, default=embedding)
        rate = preset.learning_rate
        return preset.replace(
            embedding=embedding,
            learning_rate=hp.Float(
                "learning_rate", rate / 3, rate * 3, sampling="log", default=rate
            ),
            regularization=Regularization.from_hp(
                hp,
                base=preset.regularization,
                weight_decay=(1e-2, 3.0),
                l2=(0, 1e-6, 1e-2),
                dropout=(0.0, 0.5),
            ),
        )
