"""Averages and ensembles of the weights of one training: SWA and snapshots.

The exponential moving average is Keras's own: `use_ema=True` of its optimizers, and
`keras.callbacks.SwapEMAWeights`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from kregs.builders.layer_copies import copy_model, sublayers
from kregs.validation import check_integer, check_number


def cycle_ends(epochs: int, *, first: int, factor: float = 1.0) -> list[int]:
    """Return the epochs at whose ends the cycles of a learning rate with restarts end.

    They are those of `keras.optimizers.schedules.CosineDecayRestarts(rate, first * steps,
    t_mul=factor)` with `steps` batches an epoch.

    Args:
        epochs: of the whole training.
        first: epochs of the first cycle, >= 1.
        factor: by which each cycle is longer than the one before, >= 1.

    Returns:
        Their numbers, counted from 1, those above `epochs` left out.

    Raises:
        TypeError, ValueError: an argument is wrong; the message names it.

    Example:

    >>> cycle_ends(105, first=15, factor=2)
    [15, 45, 105]
    """
    epochs = check_integer("epochs", epochs, minimum=1)
    length: float = check_integer("first", first, minimum=1)
    factor = check_number("factor", factor, minimum=1.0)
    ends, end = [], length
    while end <= epochs:
        ends.append(round(end))
        length *= factor
        end += length
    return ends


class _AtEpochs(keras.callbacks.Callback):
    """Does something at the ends of some epochs."""

    def __init__(self, at: Iterable[int]) -> None:
        super().__init__()
        if isinstance(at, (str, bytes)) or not isinstance(at, Iterable):
            raise TypeError(
                "`at` must be a list of epochs, such as range(75, 101) or "
                f"kregs.cycle_ends(...). Received: at={at!r}"
            )
        self.at = sorted({check_integer("at", epoch, minimum=1) for epoch in at})
        if not self.at:
            raise ValueError("`at` must hold at least one epoch. Received: none")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch + 1 in self.at:
            self.keep()

    def keep(self) -> None:
        """Look at the weights after one of the epochs."""
        raise NotImplementedError


class StochasticWeightAveraging(_AtEpochs):
    """Ends a training with the mean of the weights after some of its epochs (SWA).

    The statistics of batch normalizations, which belong to none of these weights, are computed anew
    in a pass over the training data. `val_loss` and early stopping see the weights as they are
    trained. A callback of Keras's own kind: for `fit`, and for each member of a population.

    A search keeps the weights of the epoch that it judges a trial by, into which no average enters.
    Averages of an earlier rung of Hyperband are not carried over into the next.

    Args:
        at: the epochs after which weights are averaged, counted from 1: `range(75, 101)` for each
            of the last ones, `kregs.cycle_ends(...)` for ends of cycles.
        x: inputs of the training data, which a model with batch normalization needs.
        batch_size: rows of a batch of this pass.

    Raises:
        TypeError, ValueError: an argument is wrong; when the training begins, the model has a batch
            normalization and there is no `x`.

    Example:

    >>> import keras, kregs, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> swa = kregs.StochasticWeightAveraging(range(3, 6))
    >>> history = model.fit(np.ones((4, 1)), np.ones(4), epochs=5, callbacks=[swa], verbose=0)
    >>> swa.averaged
    3

    References:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018
        (algorithm 1; section 3.2 on batch normalization).
    """

    def __init__(self, at: Iterable[int], *, x: Any = None, batch_size: int = 128) -> None:
        super().__init__(at)
        self.x = x
        self.batch_size = check_integer("batch_size", batch_size, minimum=1)
        self.averaged = 0
        self._means: list[np.ndarray] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> StochasticWeightAveraging:
        """Return a fresh callback of the same data, which are not copied."""
        return type(self)(self.at, x=self.x, batch_size=self.batch_size)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.averaged, self._means = 0, []
        if self.x is None and _normalizations(self.model):
            raise ValueError(
                "`x` must be the inputs of the training data: the model has a batch normalization, "
                "whose statistics have to be computed anew. Received: x=None"
            )

    def keep(self) -> None:
        weights = [np.asarray(variable, "float64") for variable in self.model.trainable_variables]
        if not self._means:  # what a search has carried over is the count alone
            self.averaged = 0
        self.averaged += 1
        if self.averaged == 1:
            self._means = weights
        else:
            pairs = zip(self._means, weights, strict=True)
            self._means = [mean + (weight - mean) / self.averaged for mean, weight in pairs]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._means:
            return
        for variable, mean in zip(self.model.trainable_variables, self._means, strict=True):
            variable.assign(mean)
        if self.x is not None:
            refresh_batch_norm(self.model, self.x, batch_size=self.batch_size)


def refresh_batch_norm(model: keras.Model, x: Any, *, batch_size: int = 128) -> None:
    """Set the statistics of batch normalizations to their means over batches of some data.

    A smaller last batch counts less, by its rows. The model runs as in training, so that its
    dropout drops.

    Args:
        model: built.
        x: inputs, an array or a structure of them.
        batch_size: rows of a batch.

    Raises:
        TypeError, ValueError: `batch_size` is no integer >= 1.

    Example:

    >>> import keras, kregs, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> kregs.refresh_batch_norm(model, np.full((8, 1), 3.0))
    >>> model.layers[0].moving_mean.numpy().tolist()
    [3.0]
    """
    batch_size = check_integer("batch_size", batch_size, minimum=1)
    layers = _normalizations(model)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    rows = len(keras.tree.flatten(x)[0])
    try:
        for first in range(0, rows, batch_size):
            size = min(batch_size, rows - first)
            for layer in layers:  # the mean so far, where each row counts the same
                layer.momentum = first / (first + size)
            model(
                keras.tree.map_structure(lambda part: part[first : first + batch_size], x),  # noqa: B023
                training=True,
            )
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _normalizations(model: Any) -> list[Any]:
    kind = keras.layers.BatchNormalization
    found = [part for layer in model.layers for part in sublayers(layer) if isinstance(part, kind)]
    return [layer for layer in dict.fromkeys(found) if layer.trainable]


class SnapshotEnsemble(_AtEpochs):
    """Keeps the weights after some epochs of one training, the ends of its cycles, as an ensemble.

    With a learning rate that restarts (`keras.optimizers.schedules.CosineDecayRestarts`) each cycle
    ends in a minimum of its own. A callback of Keras's own kind: for `fit`, and for each member of
    a population.

    Args:
        at: the epochs after which weights are kept, counted from 1, such as
            `kregs.cycle_ends(...)`.

    Attributes:
        weights: those that are kept, one list a snapshot, in the order of `model.weights`.

    Raises:
        TypeError, ValueError: `at` is no list of integers >= 1.

    Example:

    >>> import keras, kregs, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, "softmax")])
    >>> model.compile("sgd", "sparse_categorical_crossentropy")
    >>> snapshots = kregs.SnapshotEnsemble(kregs.cycle_ends(6, first=2))
    >>> x, y = np.ones((4, 1)), np.ones(4)
    >>> history = model.fit(x, y, epochs=6, callbacks=[snapshots], verbose=0)
    >>> snapshots.ensemble(model).predict(x, verbose=0).shape, len(snapshots.weights)
    ((4, 2), 3)

    References:
        Huang et al., "Snapshot Ensembles: Train 1, Get M for Free", 2017.
    """

    def __init__(self, at: Iterable[int]) -> None:
        super().__init__(at)
        self.weights: list[list[np.ndarray]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.weights = []

    def keep(self) -> None:
        self.weights.append([np.array(weight) for weight in self.model.get_weights()])

    def models(self, model: keras.Model) -> list[keras.Model]:
        """Return one model a snapshot.

        Args:
            model: that was trained; the member's of a population. It stays as it is.

        Raises:
            ValueError: nothing was kept.
        """
        if not self.weights:
            raise ValueError(
                f"there are no snapshots: the training did not reach epoch {self.at[0]}"
            )
        copies = []
        for weights in self.weights:
            snapshot = copy_model(model)
            snapshot.set_weights(copy.deepcopy(weights))
            copies.append(snapshot)
        return copies

    def ensemble(self, model: keras.Model, *, last: int | None = None) -> keras.Model:
        """Return one model that averages what the snapshots predict, see `kregs.ensemble`.

        Args:
            model: that was trained; the member's of a population. It stays as it is.
            last: how many snapshots, the last ones; default: all.

        Raises:
            TypeError, ValueError: `last` is no integer >= 1, or nothing was kept.
        """
        from kregs.inspection.ensemble import compile_as, ensemble  # which builds on this package

        models = self.models(model)
        if last is not None:
            models = models[-check_integer("last", last, minimum=1) :]
        result = ensemble(models)
        if model.compiled and not result.compiled:
            compile_as(result, model)
        return result
