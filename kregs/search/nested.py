"""Nested cross-validation: the whole search judged on rows that it did not see."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np

from kregs.population.rows import is_dataset
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.resampling import make_splits, take_rows, transformed
from kregs.validation import check_integer


def check_nested(nested: Any, x: Any, validation_data: Any, oracle: Any) -> None:
    """Raise if a search cannot be repeated on a part of its rows."""
    if nested is None:
        return
    if isinstance(nested, (int, np.integer)) and not isinstance(nested, bool):
        check_integer("nested", nested, minimum=2)
    elif isinstance(nested, str) or not (hasattr(nested, "split") or isinstance(nested, list)):
        raise TypeError(
            "`nested` must be a number of outer folds or a scikit-learn splitter. "
            f"Received: {nested!r} of type {type(nested).__name__}"
        )
    if isinstance(x, dict) or (isinstance(x, (list, tuple)) and hasattr(x[0], "shape")):
        raise ValueError("`nested` needs one array or table of inputs. Received: several inputs")
    if is_dataset(x):
        raise ValueError(f"`nested` needs arrays. Received: x of type {type(x).__name__}")
    if validation_data is not None:
        raise ValueError("`nested` and `validation_data` were both given: give one")
    if isinstance(oracle, keras_tuner.Oracle):
        raise ValueError("`nested` needs the oracle's name: an Oracle object serves one search")


def outer_scores(
    nested: Any,
    x: Any,
    y: Any,
    *,
    search: Callable[..., Any],
    classes: np.ndarray | None,
    sample_weight: Any,
    class_weight: Mapping[int, float] | None,
    groups: Any,
    seed: int,
    metric: str,
    callbacks: Sequence[Any],
    directory: Path,
) -> list[dict[str, Any]]:
    """Search on the training rows of each outer fold; score its model on those left out.

    The model is that of the chosen hyperparameters, trained on all of the outer training rows.

    Args:
        nested: how many outer folds, or a scikit-learn splitter.
        x, y, sample_weight, class_weight, groups: as in `kregs.tune`.
        search: `kregs.tune` with all other arguments.
        classes: the rows' classes, or `None`.
        seed: of the folds.
        metric: which of the model's metrics is the score.
        callbacks: of the training on all outer training rows.
        directory: of the searches, which are resumed if they are there.

    Returns:
        One entry an outer fold: `fold`, `score`, and the chosen hyperparameters.

    Reference:
        Varma, Simon, "Bias in error estimation when using cross-validation for model selection",
        BMC Bioinformatics 7, 2006.
    """
    y = np.asarray(y)
    x = x if hasattr(x, "iloc") else np.asarray(x)
    with preserved_state():  # a splitter without a seed draws from NumPy's own
        splits, _ = make_splits(
            nested, y, labels=classes, groups=groups, seed=derived_seed(seed, 2)
        )
    scores = []
    for fold, split in enumerate(splits):
        own_groups = None if groups is None else np.asarray(groups)[split.train]
        weight = None if sample_weight is None else np.asarray(sample_weight)[split.train]
        given = {"sample_weight": weight, "class_weight": class_weight}
        train = take_rows(x, split.train), y[split.train]
        result = search(
            *train,
            **given,
            groups=own_groups,
            directory=directory,
            project_name=f"fold_{fold}",
            resume=True,
        )
        model = result.refit(*train, **given, callbacks=copy.deepcopy(list(callbacks)))
        held_out = take_rows(x, split.validation)
        if result.preprocess_ is not None:
            held_out = transformed(result.preprocess_, held_out)
        weight = None if sample_weight is None else np.asarray(sample_weight)[split.validation]
        logs = model.evaluate(
            held_out, y[split.validation], sample_weight=weight, verbose=0, return_dict=True
        )
        scores.append({"fold": fold, "score": logs[metric], **result.best_hyperparameters})
    return scores
