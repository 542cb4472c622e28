"""The models of all folds of a search's trials as one: a greedy choice by what they predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import pandas as pd

from kregs.inspection.ensemble import ensemble
from kregs.search.data import Data
from kregs.search.ensemble import data_loss_of, greedy_weights
from kregs.search.folds import transformed
from kregs.search.judging.scorer import make_scorer
from kregs.search.randomness import preserved_state
from kregs.search.result import SearchResult
from kregs.search.runs import Run, make_runs
from kregs.search.storage import read_fold_weights
from kregs.validation import check_integer

_BLOCK = 1024  # rows at a time


class NoFoldWeights(ValueError):
    """No trial of a search kept the weights of all its folds, as when its time was up before."""


@dataclasses.dataclass(frozen=True, eq=False)
class FoldEnsemble:
    """Models of folds whose weighted mean predicts.

    Args:
        counts: how often each trial was chosen, by its number.
        models: one a fold and seed of each chosen trial.
        weights: of the models; they sum to 1.
        folds: which fold each model was trained for.
        transformers: that of each fold; empty without `preprocess`.
        out_of_fold: what the search's rows are predicted by the chosen trials' models that were not
            trained on them, `(rows, ...)`; NaN where no fold was judged on a row.
        score: of these predictions, in units of the objective.

    Example: see `SearchResult.fold_ensemble`, which makes it.
    """

    counts: dict[int, int]
    models: list[keras.Model]
    weights: np.ndarray
    folds: list[int]
    transformers: Sequence[Any]
    out_of_fold: np.ndarray
    score: float

    def members(self) -> pd.DataFrame:
        """Return one row a model: its `trial`, `fold` and `weight`."""
        per_trial = len(self.models) // len(self.counts)
        trials = np.repeat(list(self.counts), per_trial)
        return pd.DataFrame({"trial": trials, "fold": self.folds, "weight": self.weights})

    def predict(self, x: Any) -> np.ndarray:
        """Return the weighted mean of what the models predict, `(rows, ...)`.

        Args:
            x: rows as `kregs.tune` was given them; each model gets them through the transformer
                of its fold.
        """
        rows = dict.fromkeys(self.folds, x)
        if self.transformers:
            rows = {fold: transformed(self.transformers[fold], x) for fold in rows}
        total: Any = 0.0
        for model, weight, fold in zip(self.models, self.weights, self.folds, strict=True):
            total = total + weight * outputs_of(model, rows[fold])
        return total

    def model(self) -> keras.Model:
        """Return one model of stock Keras layers around all of them, compiled as they are.

        Raises:
            ValueError: the rows of each fold go through a transformer of its own.
        """
        if self.transformers:
            raise ValueError(
                "`model` is for a search without `preprocess`: the models of each fold take rows "
                "of a transformer of its own. `predict` has them all; "
                "`result.refit_ensemble(x, y, counts=...)` trains models of one transformer"
            )
        return ensemble(self.models, weights=self.weights.tolist())


def choose_folds(
    result: SearchResult, size: int, *, trials: Sequence[int] | None = None
) -> FoldEnsemble:
    """See `SearchResult.fold_ensemble`."""
    size = check_integer("size", size, minimum=1)
    data = result.data
    if data is None or data.splits is None:
        raise ValueError(
            "`fold_ensemble` needs the rows and folds of the search: call it on what "
            "kregs.tune(..., folds=..., keep_folds=True) returned. Received: a result "
            + ("without rows" if data is None else "of a search without folds")
        )
    runs = make_runs(data.splits, result.protocol.seeds)
    with preserved_state():
        candidates = _candidates(result, runs, trials)
        if not candidates:
            raise NoFoldWeights(
                "`fold_ensemble` needs trials that kept the weights of all folds: search with "
                "keep_folds=True. Received: a search in which none did"
            )
        first = result.build_model(candidates[0][0])
        predictions = np.stack(
            [_out_of_fold(result.build_model(n), data, runs, own) for n, own in candidates]
        )
        judged = np.isfinite(predictions).reshape(*predictions.shape[:2], -1).all(axis=(0, 2))
        places = np.flatnonzero(judged)
        y, weight = _by_row(data, "y")[places], _by_row(data, "sample_weight")
        value = _value_of(result, first, None if weight is None else weight[places])
        picks = greedy_weights(predictions[:, places], y, value, size=size)
        mean = np.tensordot(picks / size, predictions, 1)
        models, weights, folds, counts = [], [], [], {}
        for (number, own), count in zip(candidates, picks.tolist(), strict=True):
            if not count:
                continue
            counts[number] = count
            for run in runs:
                model = result.build_model(number)
                model.set_weights(own[run.number])
                models.append(model)
                weights.append(count / size / len(runs))
                folds.append(int(run.fold or 0))
    score = result.protocol.sign * value(y, mean[places].astype("float32"))
    return FoldEnsemble(
        counts, models, np.array(weights), folds, list(data.fold_transformers), mean, float(score)
    )


def _candidates(
    result: SearchResult, runs: Sequence[Run], trials: Sequence[int] | None
) -> list[tuple[int, dict[int, list[np.ndarray]]]]:
    """The trials that kept the weights of all their runs, best first, with these weights."""
    found = []
    for number in result.trials().dropna(subset="score")["trial"]:
        if trials is not None and number not in trials:
            continue
        folder = result.trial_folder(int(number))
        weights = {} if folder is None else read_fold_weights(folder)
        if all(run.number in weights for run in runs):
            found.append((int(number), weights))
    return found


def _out_of_fold(
    model: keras.Model, data: Data, runs: Sequence[Run], weights: dict[int, list[np.ndarray]]
) -> np.ndarray:
    """Return what all rows are predicted by models that were not trained on them, float64.

    The mean over seeds and over repeats of the folds; NaN where no fold was judged on a row.
    """
    rows = len(_by_row(data, "y"))
    total: Any = None
    times = np.zeros(rows)
    for run in runs:
        split: Any = run.split
        model.set_weights(weights[run.number])
        places = split.validation_places
        own = outputs_of(model, keras.tree.map_structure(lambda a, p=places: a[p], data.fit["x"]))
        total = np.zeros((rows, *own.shape[1:])) if total is None else total
        total[split.validation] += own
        times[split.validation] += 1
    with np.errstate(invalid="ignore"):
        return total / times.reshape(-1, *[1] * (total.ndim - 1))


def _by_row(data: Data, name: str) -> Any:
    """Return the targets or weights of the rows as the search was given them; `None` for none."""
    values = data.fit.get(name)
    if values is None:
        return None
    if not isinstance(values, np.ndarray):
        raise ValueError("`fold_ensemble` is for one target a row. Received: several outputs")
    splits: Any = data.splits
    if splits[0].offset is None:
        return values
    # prepared rows stand there once for each fold
    rows = 1 + max(int(max(split.train.max(), split.validation.max())) for split in splits)
    given = np.zeros((rows, *values.shape[1:]), values.dtype)
    for split in splits:
        given[split.train] = values[split.train_places]
        given[split.validation] = values[split.validation_places]
    return given


def _value_of(
    result: SearchResult, model: keras.Model, weight: np.ndarray | None
) -> Callable[[Any, np.ndarray], float]:
    """Return what is made small: the objective if scikit-learn computes it, else the loss."""
    if result.protocol.scorer is not None:
        score, sign = make_scorer(result.protocol.scorer).of_model(model), result.protocol.sign
        return lambda y, outputs: sign * score(y, outputs, weight)
    loss = data_loss_of(model)
    if isinstance(loss, keras.losses.Loss):
        return lambda y, outputs: float(loss(y, outputs, weight))

    def mean(y: Any, outputs: np.ndarray) -> float:
        by_row = np.reshape(loss(y, outputs), (len(y), -1)).mean(axis=1)
        return float(np.mean(by_row if weight is None else by_row * weight))

    return mean


def outputs_of(model: keras.Model, x: Any) -> np.ndarray:
    """Return what a model with one output predicts, without tracing it, float64.

    Many models of a few rows each: a trace of each would take longer than their arithmetic.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> outputs_of(model, np.ones((5, 2))).shape
    (5, 3)
    """
    rows = len(keras.tree.flatten(x)[0])
    parts = [
        np.asarray(
            model(keras.tree.map_structure(lambda a, i=i: a[i : i + _BLOCK], x), training=False),
            "float64",
        )
        for i in range(0, rows, _BLOCK)
    ]
    return np.concatenate(parts)
