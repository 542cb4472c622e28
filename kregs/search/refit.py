"""Trains the chosen hyperparameters once more, on all rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kregs.population.rows import is_dataset
from kregs.search.data import as_arrays, as_table
from kregs.search.folds import fit_transform
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.replay import median_rate, replayed, unknown_to_replay
from kregs.search.result import SearchResult
from kregs.search.settings import check_callbacks
from kregs.training.data_checks import check_data, check_sample_weight
from kregs.training.targets import check_class_weight, resolve_class_weight
from kregs.validation import check_choice, check_integer, check_seed


def refit(
    result: SearchResult,
    x: Any,
    y: Any,
    *,
    epochs: int | None,
    batch_size: int | None,
    sample_weight: Any,
    class_weight: Mapping[int, float] | str | None,
    callbacks: Iterable[keras.callbacks.Callback] | None,
    seed: int | None,
    verbose: str | int,
) -> keras.Model:
    """See `SearchResult.refit`."""
    if result.build is None:
        raise ValueError(
            "`refit` needs the build function, which no file holds: pass it to "
            "kregs.load_result(path, build=build)"
        )
    trial = next(t for t in result.record.trials if t["trial"] == result.chosen_trial)
    own = trial.get("arguments") or {}  # where they are functions of the hyperparameters
    if epochs is None:
        # a user's own `fit` may not tell its epochs
        epochs = result.best_epoch or own.get("epochs", result.protocol.epochs)
    epochs = check_integer("epochs", epochs, minimum=1)
    seed = result.seed if seed is None else check_seed("seed", seed)
    class_weight = weights_by_class(result, x, sample_weight, class_weight)
    check_choice("verbose", verbose, ("auto", 0, 1, 2))
    fit: dict[str, Any] = {
        "epochs": epochs,
        "class_weight": class_weight,
        "callbacks": replayed(result.callbacks, recorded_rates(result))
        if callbacks is None
        else check_callbacks(callbacks),
        "verbose": verbose,
    }
    if not is_dataset(x):
        x, y, sample_weight = check_arrays(result, x, y, sample_weight)
        if batch_size is None:
            batch_size = own.get("batch_size", result.protocol.batch_size)
        fit |= {"y": y, "sample_weight": sample_weight}
        fit["batch_size"] = check_integer("batch_size", batch_size, minimum=1)
    elif y is not None or sample_weight is not None or isinstance(class_weight, str):
        raise ValueError(
            "`y`, `sample_weight` and class_weight='balanced' are for arrays: a dataset has its "
            f"own. Received: x of type {type(x).__name__}"
        )
    elif isinstance(x, tf.data.Dataset):
        fit["shuffle"] = False  # the dataset's own affair: Keras warns of its default
    if callbacks is None and result.callbacks is None:
        unknown = unknown_to_replay(result.protocol.callbacks)
        if unknown:
            warnings.warn(
                f"the search's callbacks {', '.join(unknown)} are in no file: the training on all "
                "rows goes without. Pass them to kregs.load_result(callbacks=...)",
                stacklevel=3,
            )
    with preserved_state():
        trial_seed = derived_seed(seed, 0)
        keras.utils.set_random_seed(trial_seed)
        hp = result.hyperparameters()
        if result.preprocess is not None:
            result.preprocess_, x = fit_transform(result.preprocess, x, np.asarray(y))
        model = result.build_model()
        if not isinstance(x, keras.utils.PyDataset):
            check_data(x, y, model=model, training=True)
        if not is_dataset(x):
            fit["class_weight"] = resolve_class_weight(class_weight, y, model)
        keras.utils.set_random_seed(trial_seed)
        result.build.fit(hp, model, x, **fit)
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        warnings.warn(
            "the training on all rows diverged: the model's weights are not finite",
            stacklevel=2,
        )
    return model


def check_arrays(
    result: SearchResult, x: Any, y: Any, sample_weight: Any
) -> tuple[Any, Any, np.ndarray | None]:
    """Return rows, targets and weights as they are trained on, but for `preprocess`, or raise."""
    if y is None:
        raise ValueError("`y` must be given with arrays. Received: y=None")
    if result.preprocess is not None:
        x = as_table(x)
        check_data(y, x_name="y")
    else:
        check_data(x, y)
        x = as_arrays(x)
    y = as_arrays(y)
    rows = len(keras.tree.flatten(y)[0])
    if result.preprocess is not None and len(x) != rows:
        raise ValueError(f"`x` and `y` must have the same length. Received: {len(x)} and {rows}")
    return x, y, check_sample_weight("sample_weight", sample_weight, rows)


def weights_by_class(
    result: SearchResult, x: Any, sample_weight: Any, class_weight: Any
) -> Mapping[int, float] | str | None:
    """Return the weights by class that are asked for, else the search's; not with others."""
    if class_weight is None and sample_weight is None and not is_dataset(x):
        class_weight = searched_class_weight(result)
    class_weight = check_class_weight(class_weight)
    if class_weight is not None and sample_weight is not None:
        raise ValueError(
            "`sample_weight` and `class_weight` were both given: give one. "
            f"Received: class_weight={class_weight!r}"
        )
    return class_weight


def searched_class_weight(result: SearchResult) -> Mapping[int, float] | str | None:
    """Return the weights by class number that the search was given."""
    weights = result.protocol.class_weight  # JSON has made words of the class numbers
    if weights is None or isinstance(weights, str):
        return weights
    return {int(label): weight for label, weight in weights.items()}


def recorded_rates(result: SearchResult, trial: int | None = None) -> list[float]:
    """Return the learning rate by epoch of a trial or the chosen one; empty if none was recorded.

    The median over its runs: the rate that half of the folds had come down to. A run that stopped
    counts with its last one. Hyperband's earlier trials come before those that go on from them.
    """
    frames = []
    trial = result.chosen_trial if trial is None else trial
    while trial is not None:
        frames.append(result.history(trial))
        trial = result.earlier_trial(trial)
    if not all("learning_rate" in frame for frame in frames):
        return []
    runs = [name for name in ("fold", "seed") if name in frames[0]]
    frame = pd.concat(frames).set_index(["epoch", *runs])["learning_rate"]
    by_run = frame.unstack(runs) if runs else frame.to_frame()
    by_run = by_run.reindex(range(1, by_run.index.max() + 1)).ffill().bfill()
    return [median_rate(row) for row in by_run.to_numpy().tolist()]
