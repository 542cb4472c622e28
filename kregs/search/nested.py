"""Nested cross-validation: the whole search judged on rows that it did not see."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

import keras_tuner
import numpy as np

from kregs.logs import numbers_of
from kregs.population.rows import is_dataset
from kregs.search.folds import make_splits, take_rows, transformed
from kregs.search.judging.scorer import score_model
from kregs.search.objective import scorer_of
from kregs.search.project import run_search
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.result import SearchResult
from kregs.search.settings import SearchSettings
from kregs.search.storage import NESTED_FOLDER
from kregs.training.targets import row_classes, said_before
from kregs.validation import check_integer


def check_nested(nested: Any, x: Any, validation_data: Any, oracle: Any) -> None:
    """Raise if a search cannot be repeated on a part of its rows."""
    if nested is None:
        return
    if isinstance(nested, (int, np.integer)) and not isinstance(nested, bool):
        rows = len(x) if hasattr(x, "__len__") and not is_dataset(x) else None
        check_integer("nested", nested, minimum=2, **({"maximum": rows} if rows else {}))
    elif isinstance(nested, (str, type)) or not (
        hasattr(nested, "split") or isinstance(nested, list)
    ):
        raise TypeError(
            "`nested` must be a number of outer folds or a scikit-learn splitter. "
            f"Received: {nested!r} of type {type(nested).__name__}"
        )
    if isinstance(x, dict) or (isinstance(x, (list, tuple)) and x and hasattr(x[0], "shape")):
        raise ValueError("`nested` needs one array or table of inputs. Received: several inputs")
    if is_dataset(x):
        raise ValueError(f"`nested` needs arrays. Received: x of type {type(x).__name__}")
    if validation_data is not None:
        raise ValueError("`nested` and `validation_data` were both given: give one")
    if isinstance(oracle, keras_tuner.Oracle):
        raise ValueError("`nested` needs the oracle's name: an Oracle object serves one search")


def outer_scores(
    nested: Any,
    settings: SearchSettings,
    x: Any,
    y: Any,
    *,
    result: SearchResult,
    sample_weight: Any,
    groups: Any,
    max_time: float | None = None,
) -> list[dict[str, Any]]:
    """Search on the training rows of each outer fold; score its model on those left out.

    The model is that of the chosen hyperparameters, trained on all of the outer training rows.

    Args:
        nested: how many outer folds, or a scikit-learn splitter.
        settings: what the search was told.
        x, y, sample_weight, groups: as in `kregs.tune`.
        result: of the search on all rows; the outer searches are in a folder in its own, and are
            resumed if they are there.
        max_time: seconds that all of them share: each gets an equal part of what is left.

    Returns:
        One entry an outer fold: `fold`, `score`, and the chosen hyperparameters. Those for which
        there was no time are missing, and a warning says so.

    Reference:
        Varma, Simon, "Bias in error estimation when using cross-validation for model selection",
        BMC Bioinformatics 7, 2006.
    """
    y = np.asarray(y)
    x = x if hasattr(x, "iloc") else np.asarray(x)
    labels = row_classes(y, result.best_model())
    metric, scorer = settings.objective.name.removeprefix("val_"), scorer_of(settings.objective)
    with preserved_state():  # a splitter without a seed draws from NumPy's own
        splits, _ = make_splits(
            nested, y, labels=labels, groups=groups, seed=derived_seed(settings.seed, 2)
        )
    scores: list[dict[str, Any]] = []
    deadline = math.inf if max_time is None else time.monotonic() + max_time
    cut_short = []
    for fold, split in enumerate(splits):
        left = deadline - time.monotonic()
        if left <= 0:
            break

        def of_rows(values: Any, rows: np.ndarray) -> Any:
            return None if values is None else np.asarray(values)[rows]

        x_train, y_train = take_rows(x, split.train), y[split.train]
        weight = of_rows(sample_weight, split.train)
        with said_before():
            inner, ended = run_search(
                settings,
                x_train,
                y_train,
                sample_weight=weight,
                groups=of_rows(groups, split.train),
                directory=result.path / NESTED_FOLDER,
                project_name=f"fold_{fold}",
                resume=True,
                max_time=None if max_time is None else left / (len(splits) - fold),
                needs_trial=False,
                trains_final_model=False,
            )
        if inner.record.best is None:  # there was no time for an epoch
            break
        if not ended:
            cut_short.append(str(fold))
        with said_before():
            model = inner.refit(
                x_train,
                y_train,
                sample_weight=weight,
                class_weight=settings.class_weight,
            )
        held_out = take_rows(x, split.validation)
        if inner.preprocess_ is not None:
            held_out = transformed(inner.preprocess_, held_out)
        rows = held_out, y[split.validation]
        held_out_weight = of_rows(sample_weight, split.validation)
        if scorer is not None:
            score = score_model(scorer, model, *rows, held_out_weight)
        else:
            logs = model.evaluate(*rows, sample_weight=held_out_weight, verbose=0, return_dict=True)
            score = numbers_of(logs)[metric]
        scores.append({"fold": fold, "score": score, **inner.best_hyperparameters})
    if cut_short:
        warnings.warn(
            f"the time was up in the searches of the outer folds {', '.join(cut_short)}: they are "
            "scored by what they had found; resume=True goes on with them",
            stacklevel=3,
        )
    if len(scores) < len(splits):
        warnings.warn(
            f"the time was up after {len(scores)} of the {len(splits)} outer folds of `nested`; "
            "resume=True goes on with the others",
            stacklevel=3,
        )
    return scores
