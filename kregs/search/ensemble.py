"""The kept models of a search as one: the best few, or a greedy choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kregs.inspection.ensemble import METHODS, ensemble
from kregs.search.checkpoints import load_checkpoint
from kregs.search.randomness import preserved_state
from kregs.search.result import SearchResult
from kregs.search.storage import CHECKPOINT_FILE
from kregs.training.compilation import loss_object
from kregs.training.label_smoothing import without_smoothing
from kregs.validation import check_choice, check_integer

_METHODS = (*METHODS, "greedy")


def ensemble_of(
    result: SearchResult, k: int, *, method: str, x: Any = None, y: Any = None
) -> keras.Model:
    """See `SearchResult.ensemble`."""
    check_choice("method", method, _METHODS)
    k = check_integer("k", k, minimum=1)
    wanted = method == "greedy"
    if (x is not None) != wanted or (y is not None) != wanted:
        raise ValueError(
            '`x` and `y` are for method="greedy", which needs both. '
            f"Received: method={method!r}, x {'given' if x is not None else 'not given'}"
        )
    if result.protocol.folds and result.protocol.data.preprocess is not None:
        raise ValueError(
            "after a search with `folds` and `preprocess` the trials' models take rows of "
            "different transformers, one a fold: they make no ensemble"
        )
    models = kept_models(result)
    if method != "greedy":
        if len(models) < k:
            raise ValueError(
                f"`k` must be at most the number of trials that kept their weights, "
                f"{len(models)}: search with keep={k}. Received: k={k}"
            )
        return ensemble(models[:k], how=method)
    predictions = np.stack([model.predict(x, verbose=0) for model in models])
    counts = greedy_weights(predictions, np.asarray(y), data_loss_of(models[0]), size=k)
    chosen = np.flatnonzero(counts)
    return ensemble([models[i] for i in chosen], weights=counts[chosen].tolist())


def data_loss_of(model: keras.Model) -> Callable:
    """Return a model's loss without label smoothing."""
    return without_smoothing(loss_object(model.loss))


def kept_models(result: SearchResult) -> list[keras.Model]:
    """The models of all trials whose weights are on disk, best first."""
    if result.build is None:
        raise ValueError(
            "`ensemble` needs the build function, which no file holds: pass it to "
            "kregs.load_result(path, build=build)"
        )
    models = []
    with preserved_state():
        for number in result.trials().dropna(subset="score")["trial"]:
            folder = result.trial_folder(int(number))
            if folder is None or not (folder / CHECKPOINT_FILE).exists():
                continue
            model = result.build_model(int(number))
            load_checkpoint(model, folder)
            models.append(model)
    return models


def greedy_weights(
    predictions: np.ndarray, y: np.ndarray, loss: Callable, *, size: int
) -> np.ndarray:
    """Choose members one by one, with replacement, each time the one that helps the mean most.

    Args:
        predictions: of all candidates, `(models, rows, ...)`.
        y: targets of the same rows, which none of the models should have been trained on.
        loss: what to make small: a `keras.losses.Loss`, or a function with a number a row.
        size: how many choices.

    Returns:
        How often each candidate was chosen, `(models,)`.

    Reference:
        Caruana, Niculescu-Mizil, Crew, Ksikes, "Ensemble selection from libraries of models",
        ICML 2004.
    """
    check_integer("size", size, minimum=1)
    counts = np.zeros(len(predictions), int)
    total = np.zeros_like(predictions[0], dtype="float64")
    for step in range(1, size + 1):
        losses = [
            float(np.mean(loss(y, ((total + prediction) / step).astype("float32"))))
            for prediction in predictions
        ]
        best = int(np.argmin(losses))
        counts[best] += 1
        total += predictions[best]
    return counts
