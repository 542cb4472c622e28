"""Chooses how a table's numbers are scaled: by a small network on folds of the training rows."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from kregs.tables.preprocessing import SEARCHED_SCALINGS
from kregs.tables.table import Table

_FOLDS = 3
_MOST_ROWS = 2_000
_EPOCHS = 30
_UNITS = 64
_BATCH_ROWS = 32


def scaling_losses(table: Table, rows: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Return the validation loss of a small network by how numbers are scaled.

    Args:
        table: as `kregs.read_table` made it. Its groups and times divide the folds, too.
        rows: numbers (m,) of the rows to train on; of many, 2,000 are taken.
        seed: of folds, of that sample, and of the networks, which are the same for all scalings.

    Returns:
        By scaling the mean of the folds: log loss, or mean squared error in units of the target's
        variance.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> import pandas as pd
    >>> from kregs.tables.table import read_table
    >>> frame = pd.DataFrame({"x": rng.normal(size=60), "y": ["a", "b"] * 30})
    >>> sorted(scaling_losses(read_table(frame, "y"), np.arange(60)))
    ['quantile', 'robust']
    """
    if len(rows) > _MOST_ROWS:
        rows = np.random.default_rng(seed).choice(rows, _MOST_ROWS, replace=False)
    if table.times is not None:
        rows = rows[np.argsort(table.times[rows], kind="stable")]
    return {scaling: _loss(table, rows, scaling, seed) for scaling in SEARCHED_SCALINGS}


def _loss(table: Table, rows: np.ndarray, scaling: str, seed: int) -> float:
    from sklearn.base import clone
    from sklearn.exceptions import ConvergenceWarning

    x, y = table.features.iloc[rows], table.target[rows]
    if table.classes is None:
        y = (y - y.mean()) / (y.std() or 1.0)
    preprocessing = table.preprocessing(rows, scaling=scaling)
    losses = []
    for train, held_out in _splitter(table, rows, seed).split(
        x, groups=None if table.groups is None else table.groups[rows]
    ):
        fitted = clone(preprocessing)
        inputs = fitted.fit_transform(x.iloc[train], y[train])
        network = _network(table, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of so few epochs
            warnings.filterwarnings("ignore", "Got `batch_size`")  # of fewer rows
            network.fit(inputs, y[train])
        inputs = fitted.transform(x.iloc[held_out])
        if table.classes is None:
            losses.append(np.mean((network.predict(inputs) - y[held_out]) ** 2))
            continue
        # a class may be in none of the rows that were trained on
        probabilities = np.full((len(held_out), len(table.classes)), 1e-7)
        probabilities[:, network.classes_] = network.predict_proba(inputs)
        chosen = probabilities[np.arange(len(held_out)), y[held_out]]
        losses.append(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())
    return float(np.mean(losses))


def _splitter(table: Table, rows: np.ndarray, seed: int) -> Any:
    from sklearn.model_selection import GroupKFold, KFold, TimeSeriesSplit

    if table.times is not None:
        return TimeSeriesSplit(_FOLDS)
    if table.groups is not None:
        return GroupKFold(min(_FOLDS, len(np.unique(table.groups[rows]))))
    return KFold(_FOLDS, shuffle=True, random_state=seed)


def _network(table: Table, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPRegressor if table.classes is None else MLPClassifier
    return kind(
        hidden_layer_sizes=(_UNITS,),
        alpha=1e-3,
        batch_size=_BATCH_ROWS,
        learning_rate_init=3e-3,
        max_iter=_EPOCHS,
        random_state=seed,
    )
