"""One network on some rows, or one for each fold: trained and stopped early."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kregs.population import Population
from kregs.search.folds import Split
from kregs.search.judging.scorer import ScoreCallback, Scorer
from kregs.search.randomness import derived_seed
from kregs.training import early_stopping

_EAGER_STEPS = 20  # up to so many training steps, tracing a graph costs more than it saves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is built and trained: what was given, and the network's own values else.

    Args:
        build: returns the compiled network, of scaled rows (n, columns) that are like those it is
            trained on, how many these are, and a seed.
        learning_rate, epochs, batch_size: as the estimators have them.
        patience: epochs without improvement before training stops.
    """

    build: Callable[[np.ndarray, int, int], keras.Model]
    learning_rate: Any
    epochs: int
    batch_size: int
    patience: int


@dataclasses.dataclass(frozen=True, eq=False)
class ScaledRows:
    """What networks are trained on.

    Args:
        x: scaled (n, columns).
        y: class numbers (n,), or standardized targets (n, outputs).
        weights: (n,), or `None`.
    """

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None

    def __getitem__(self, index: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the arrays of some rows, as `fit` takes validation data."""
        arrays = (self.x[index], self.y[index])
        return arrays if self.weights is None else (*arrays, self.weights[index])


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The networks that came of training, and the history of each."""

    networks: list[keras.Model]
    histories: list[dict[str, list[float]]]


def fit_network(
    training: Training,
    rows: ScaledRows,
    split: Split,
    scorer: Scorer | None,
    *,
    seed: int,
    verbose: Any,
) -> Fitted:
    """Train one network on a split's rows, stopped by those it holds out, if there are any."""
    network = training.build(rows.x[split.train], len(split.train), seed)
    network.jit_compile = False  # XLA compiles for longer than such a network trains
    steps = training.epochs * math.ceil(len(split.train) / training.batch_size)
    network.run_eagerly = steps <= _EAGER_STEPS
    fit: dict[str, Any] = {}
    if len(split.validation):
        fit = {
            "validation_data": rows[split.validation],
            "callbacks": _stopping(training, rows, split, scorer),
        }
    data = dict(zip(("x", "y", "sample_weight"), rows[split.train], strict=False))
    history = network.fit(
        **data, **fit, epochs=training.epochs, batch_size=training.batch_size, verbose=verbose
    ).history
    _check_finite(training, [network])
    return Fitted([network], [history])


def fit_folds(
    training: Training,
    rows: ScaledRows,
    splits: Sequence[Split],
    scorer: Scorer | None,
    *,
    stops: bool,
    seed: int,
    verbose: Any,
) -> Fitted:
    """Train a network for each split, all of them as one population.

    Args:
        stops: whether each is stopped early, by the rows that it leaves out.
    """
    seeds = [derived_seed(seed, number) for number in range(len(splits))]
    networks = [  # of the same rows, whose quantiles say how many bins a column has
        training.build(rows.x, len(split.train), own_seed)
        for split, own_seed in zip(splits, seeds, strict=True)
    ]
    population = Population.from_models(networks, seeds=seeds)
    nothing = np.zeros(0, np.int32)
    histories = population.fit(
        rows.x,
        rows.y,
        sample_weight=rows.weights,
        splits=[(split.train, split.validation if stops else nothing) for split in splits],
        callbacks=[_stopping(training, rows, split, scorer) if stops else [] for split in splits],
        epochs=training.epochs,
        batch_size=training.batch_size,
        verbose=verbose,
    )
    networks = population.unstack()
    _check_finite(training, networks)
    return Fitted(networks, histories)


def held_out_outputs(
    networks: Sequence[keras.Model], rows: ScaledRows, splits: Sequence[Split]
) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers of the rows that networks were not trained on, and these networks' outputs."""
    outputs = [
        np.asarray(network(rows.x[split.validation], training=False), dtype=np.float64)
        for network, split in zip(networks, splits, strict=True)
    ]
    return np.concatenate([split.validation for split in splits]), np.concatenate(outputs)


def _stopping(
    training: Training, rows: ScaledRows, split: Split, scorer: Scorer | None
) -> list[keras.callbacks.Callback]:
    """Return the callbacks that stop a network by the rows that a split holds out."""
    if scorer is None:
        return [early_stopping("val_data_loss", patience=training.patience)]
    x, y, *weight = rows[split.validation]
    return [
        ScoreCallback(scorer, x, y, weight[0] if weight else None),
        early_stopping(scorer.logged, mode=scorer.direction, patience=training.patience),
    ]


def _check_finite(training: Training, networks: Sequence[keras.Model]) -> None:
    """Raise if training diverged."""
    for network in networks:
        if not all(np.isfinite(weight).all() for weight in network.get_weights()):
            raise ValueError(
                "training diverged: weights are not finite. Try a smaller `learning_rate`. "
                f"Received: learning_rate={training.learning_rate!r}"
            )
