"""Several models as one: the mean of their predictions, their majority vote, or a greedy choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kregs.builders.layer_copies import copy_model
from kregs.population.keras_internals import user_metrics
from kregs.search.checkpoints import load_checkpoint
from kregs.search.randomness import preserved_state
from kregs.search.result import SearchResult
from kregs.search.storage import CHECKPOINT_FILE
from kregs.training.compilation import loss_object
from kregs.training.data_loss import without_smoothing
from kregs.validation import check_choice, check_integer

METHODS = ("mean", "vote", "greedy")


def ensemble_of(
    result: SearchResult, k: int, *, method: str, x: Any = None, y: Any = None
) -> keras.Model:
    """See `SearchResult.ensemble`."""
    check_choice("method", method, METHODS)
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
        return combine(models[:k], method=method)
    predictions = np.stack([model.predict(x, verbose=0) for model in models])
    counts = greedy_weights(predictions, np.asarray(y), data_loss_of(models[0]), size=k)
    chosen = np.flatnonzero(counts)
    return combine([models[i] for i in chosen], weights=counts[chosen].tolist())


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


def combine(
    models: Sequence[keras.Model], *, method: str = "mean", weights: Sequence[float] | None = None
) -> keras.Model:
    """Return one model of stock Keras layers that combines the predictions of several.

    Args:
        models: of one input and one output shape.
        method: `"mean"` of the predictions (weighted, if there are `weights`); `"vote"`: for each
            class the share of the models that hold it to be the likeliest.
        weights: one a model, for `"mean"`; they are made to sum to 1.

    Returns:
        A Functional model, compiled as the first model is. It holds copies: the models themselves
        stay free.

    Raises:
        ValueError: no models, shapes that differ, or a vote of models with one output.

    Reference:
        Hansen, Salamon, "Neural network ensembles", IEEE PAMI 12, 1990.
    """
    check_choice("method", method, ("mean", "vote"))
    models = list(models)
    if not models:
        raise ValueError("`models` must hold at least one model. Received: none")
    if any(len(m.inputs) != 1 or len(m.outputs) != 1 for m in models):
        raise ValueError("`models` must have one input and one output each")
    shapes = {(m.input_shape, m.output_shape) for m in models}
    if len(shapes) > 1:
        raise ValueError(f"`models` must have one input and output shape. Received: {shapes}")
    ((input_shape, output_shape),) = shapes
    if method == "vote" and output_shape[-1] < 2:
        raise ValueError(
            "a vote needs models with an output for each class. "
            f"Received: outputs of shape {output_shape}"
        )
    inputs = keras.Input(input_shape[1:], dtype=models[0].inputs[0].dtype, name="inputs")
    outputs = [copy_model(m, name=f"member_{i}")(inputs) for i, m in enumerate(models)]
    if method == "vote":
        classes = output_shape[-1]
        outputs = [keras.ops.one_hot(keras.ops.argmax(o, axis=-1), classes) for o in outputs]
    if weights is not None:
        total = sum(weights)
        outputs = [
            keras.layers.Rescaling(w / total, name=f"weight_{i}")(o)
            for i, (o, w) in enumerate(zip(outputs, weights, strict=True))
        ]
        combined = outputs[0] if len(outputs) == 1 else keras.layers.Add(name="mean")(outputs)
    else:
        combined = outputs[0] if len(outputs) == 1 else keras.layers.Average(name="mean")(outputs)
    ensemble = keras.Model(inputs, combined, name="ensemble")
    if models[0].compiled:
        _compile_as(ensemble, models[0])
    return ensemble


def _compile_as(model: keras.Model, other: keras.Model) -> None:
    """Compile a model as another one; it gets objects of its own, where Keras can copy them."""
    try:
        model.compile_from_config(other.get_compile_config())
    except TypeError:  # a function or class that was defined inside `build` has no registered name
        optimizer = type(other.optimizer).from_config(other.optimizer.get_config())
        model.compile(optimizer, other.loss, **user_metrics(other))


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
