"""Networks for tables that need no search: one preset for each task, with how it was found.

The values are those of `kregs.tuning.presets`, a study on one half of a set of tables, which
reports them on the other half; its results are in `kregs.tuning`'s `results/presets.json`, and its
first lines say how much they show.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kregs.regularization import Regularization
from kregs.tasks import network_head
from kregs.validation import check_flag, check_integer

if TYPE_CHECKING:
    import keras

# Holzmüller et al. 2024, appendix A: up to how many rows to train on which batch
_BATCHES = ((1024, 64), (8192, 128), (30_000, 256), (100_000, 512))
_LARGEST_BATCH = 1024
_ROWS_OF_ALL_EPOCHS, _FEWEST_EPOCHS = 4096, 10
_FEWEST_BINS, _MOST_BINS = 8, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class TablePreset:
    """How a network for a table is built and trained.

    Args:
        units, activation, embedding, scaling, ensemble, skip_connections: as in `kregs.table_mlp`.
        regularization: of the network, its weight decay and label smoothing included.
        learning_rate: the highest.
        schedule: `"constant"`, or `"cosine"` for `kregs.warmup_cosine`.
        beta_2: of AdamW.
        epochs: the most on a small table, see `epochs_of`; the best of them is chosen on rows that
            are not trained on.

    Example:

    >>> import kregs
    >>> preset = kregs.presets.for_table(classes=2)
    >>> model = preset.build(4, 2, categories=(3,), rows=200)
    >>> model.compiled, model.input_shape, model.output_shape
    (True, (None, 5), (None, 1))
    """

    units: tuple[int, ...]
    activation: str = "relu"
    embedding: str | None = None
    scaling: bool = False
    ensemble: int | None = None
    skip_connections: bool = False
    regularization: Regularization = dataclasses.field(default_factory=Regularization)
    learning_rate: float = 1e-3
    schedule: str = "constant"
    beta_2: float = 0.95
    epochs: int = 60

    def replace(self, **changes: Any) -> TablePreset:
        """Return a copy with some fields changed.

        Example:

        >>> TablePreset(units=(8,)).replace(epochs=3).epochs
        3
        """
        return dataclasses.replace(self, **changes)

    def build(
        self,
        numbers: int,
        classes: int | None,
        *,
        rows: int,
        categories: Sequence[int] = (),
        edges: Sequence[Sequence[float]] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
    ) -> keras.Model:
        """Return the compiled network for a table.

        Args:
            numbers, categories, edges, seed: as in `kregs.table_mlp`; `bin_count` says of how many
                bins the edges should be.
            classes: how many there are; `None` for a regression, whose targets should be
                standardized.
            rows: how many are trained on, which says how many steps there are.
            epochs, batch_size: with which it will be fitted; default: the preset's.

        Returns:
            A model as `kregs.table_mlp` makes it; its loss is that of
            `kregs.tasks.network_head(classes)`: two classes have one output.

        Raises:
            TypeError, ValueError: as `kregs.table_mlp` and `kregs.compile_model`.

        Example: see the class.
        """
        import keras

        import kregs

        head = network_head(classes)
        rows = check_integer("rows", rows, minimum=1)
        embedding = self.embedding if numbers else None
        bins = None
        if embedding == "piecewise":
            bins = max((len(column) - 1 for column in edges or ()), default=bin_count(rows))
        model = kregs.table_mlp(
            numbers,
            head.outputs,
            categories=categories,
            units=self.units,
            activation=self.activation,
            embedding=embedding,
            edges=edges,
            bins=bins,
            scaling=self.scaling,
            ensemble=self.ensemble,
            skip_connections=self.skip_connections,
            head_activation=head.head_activation,
            regularization=self.regularization,
            seed=seed,
        )
        rate: Any = self.learning_rate
        if self.schedule == "cosine":
            steps = (epochs or self.epochs) * math.ceil(rows / (batch_size or batch_rows(rows)))
            rate = kregs.warmup_cosine(rate, steps=steps)
        return kregs.compile_model(
            model,
            head.loss,
            # its decay is that of the regularization
            optimizer=keras.optimizers.AdamW(rate, weight_decay=0.0, beta_2=self.beta_2),
            metrics=head.metrics,
            regularization=self.regularization,
        )


def batch_rows(rows: int) -> int:
    """Return how many rows a step takes, for a number of rows to train on (RealMLP's rule).

    Example:

    >>> batch_rows(500), batch_rows(5000), batch_rows(10**6)
    (64, 128, 1024)
    """
    rows = check_integer("rows", rows, minimum=1)
    return next((size for most, size in _BATCHES if rows <= most), _LARGEST_BATCH)


def bin_count(rows: int) -> int:
    """Return how many bins a column of numbers has, for a number of rows to train on.

    A third of the root of the rows, within 8 and 32: on few rows more bins are learned by heart.

    Example:

    >>> bin_count(500), bin_count(2000), bin_count(10**6)
    (8, 15, 32)
    """
    rows = check_integer("rows", rows, minimum=1)
    return min(max(round(math.sqrt(rows) / 3), _FEWEST_BINS), _MOST_BINS)


def epochs_of(preset: TablePreset, rows: int) -> int:
    """Return for how many epochs to train on a number of rows.

    The preset's up to 4,096 rows. With more of them the steps grow as the cube root of the rows:
    each epoch then has more to learn from than a small table's.

    Example:

    >>> [epochs_of(TablePreset(units=(8,), epochs=60), rows) for rows in (500, 20_000, 10**6)]
    [60, 21, 10]
    """
    rows = check_integer("rows", rows, minimum=1)
    share = min(1.0, (_ROWS_OF_ALL_EPOCHS / rows) ** (2 / 3))
    return min(preset.epochs, max(_FEWEST_EPOCHS, round(preset.epochs * share)))


# what `kregs.tuning.presets` chose on its FIRST_HALF
_COMMON = TablePreset(units=(256, 256), scaling=True, schedule="cosine")
TABLES = {
    "binary": _COMMON.replace(
        embedding="periodic",
        learning_rate=2e-3,
        regularization=Regularization(dropout=0.3, weight_decay=1.0, label_smoothing=0.1),
    ),
    "multiclass": _COMMON.replace(
        embedding="periodic",
        ensemble=8,
        learning_rate=3e-3,
        regularization=Regularization(dropout=0.15, weight_decay=0.1, label_smoothing=0.1),
    ),
    "regression": _COMMON.replace(
        embedding="piecewise",
        activation="mish",
        learning_rate=5e-3,
        regularization=Regularization(dropout=0.05, weight_decay=0.3),
        epochs=200,
    ),
}


# of those without members that share kernels, where it is another one
_SEARCHED = TABLES | {
    "multiclass": _COMMON.replace(
        embedding="periodic",
        learning_rate=2e-3,
        regularization=Regularization(dropout=0.3, weight_decay=0.5, label_smoothing=0.1),
    )
}


def for_table(classes: int | None, *, searched: bool = False) -> TablePreset:
    """Return the preset of a table's task.

    Args:
        classes: how many classes the target has; `None` for a regression.
        searched: the best single network, for a search that trains many of them and takes the mean
            of several: members that share kernels would only be slower.

    Raises:
        TypeError, ValueError: `classes` is no integer >= 2, nor `None`; `searched` is no boolean.

    Example:

    >>> for_table(classes=None) is TABLES["regression"]
    True
    """
    check_flag("searched", searched)
    presets = _SEARCHED if searched else TABLES
    if classes is None:
        return presets["regression"]
    classes = check_integer("classes", classes, minimum=2)
    return presets["binary" if classes == 2 else "multiclass"]
