"""What a search makes as small or as large as it can."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import keras_tuner

from kregs.population.rows import is_dataset
from kregs.search.judging.scorer import SCORER_NAMES, Scorer, make_scorer
from kregs.training.callbacks import early_stopping
from kregs.training.targets import DoubtfulInput
from kregs.validation import suggestion

if TYPE_CHECKING:
    from kregs.search.data import Data


class ScoreObjective(keras_tuner.Objective):
    """An objective that scikit-learn computes from the predictions on all validation rows.

    Args:
        scorer: what is computed.

    Example:

    >>> objective = ScoreObjective(make_scorer("roc_auc"))
    >>> objective.name, objective.direction
    ('val_roc_auc', 'max')
    """

    def __init__(self, scorer: Scorer) -> None:
        super().__init__(scorer.logged, scorer.direction)
        self.scorer = scorer


def scorer_of(objective: Any) -> Scorer | None:
    """Return the scorer of an objective that scikit-learn computes; else `None`."""
    return getattr(objective, "scorer", None)


def make_objective(objective: Any) -> keras_tuner.Objective:
    """Return a keras-tuner objective for a metric's name, its direction inferred.

    Args:
        objective: a name as it stands in the logs (`"val_data_loss"`, `"val_accuracy"`), that of a
            scikit-learn scorer (`"roc_auc"`, see `Scorer`), or a `keras_tuner.Objective`.

    Raises:
        TypeError: `objective` is neither, or holds several objectives.
        ValueError: the direction cannot be inferred from the name.

    Example:

    >>> make_objective("val_data_loss").direction, make_objective("val_auc").direction
    ('min', 'max')
    """
    several = hasattr(objective, "objectives")  # keras-tuner's MultiObjective, not public
    if isinstance(objective, keras_tuner.Objective) and not several:
        if objective.direction not in ("min", "max"):
            raise ValueError(
                "`objective` must have direction 'min' or 'max'. "
                f"Received: direction={objective.direction!r}"
            )
        return objective
    if not isinstance(objective, str) or not objective:
        raise TypeError(
            "`objective` must be the name of one metric in the logs, such as 'val_data_loss', or "
            f"a keras_tuner.Objective. Received: objective={objective!r}"
        )
    if objective in SCORER_NAMES:
        return ScoreObjective(make_scorer(objective))
    try:
        direction = early_stopping(objective).mode
    except ValueError:
        raise ValueError(
            "Could not infer optimization direction from the name of `objective`. "
            f"Pass keras_tuner.Objective({objective!r}, 'min') or 'max'. "
            f"Received: objective={objective!r}"
        ) from None
    return keras_tuner.Objective(objective, direction)


def is_unset(objective: keras_tuner.Objective) -> bool:
    """Return whether an oracle was made without an objective: keras-tuner then puts a stand-in."""
    return objective.name == "default_objective"


def is_of_validation(objective: Any) -> bool:
    """Return whether an objective is computed from metrics on validation rows alone."""
    parts = getattr(objective, "objectives", None) or [objective]  # keras-tuner's MultiObjective
    return all(part.name.startswith("val_") for part in parts)


def _warn_of_training_rows(name: str, logged: Iterable[str]) -> None:
    """Warn if a metric is measured on the rows that a trial is trained on."""
    if not name.startswith("val_") and f"val_{name}" in logged:
        warnings.warn(
            f"`objective={name!r}` is measured on the rows that a trial is trained on, where no "
            f"regularization looks best. Did you mean 'val_{name}'?",
            DoubtfulInput,
            stacklevel=2,
        )


def check_scorer(scorer: Scorer, model: keras.Model, data: Data) -> None:
    """Raise `ValueError` if a scorer does not fit a search's models or rows.

    Args:
        scorer: of the objective.
        model: that `build` makes of the defaults.
        data: the rows.
    """
    held_out = data.fit.get("validation_data")
    if is_dataset(data.fit["x"]) or is_dataset(held_out):
        raise ValueError(
            f"`objective={scorer.metric!r}` is computed by scikit-learn, and needs rows as arrays. "
            "Received: a dataset; compile the models with a Keras metric"
        )
    if model.compiled:
        scorer.of_model(model)


def check_logged(objective: keras_tuner.Objective, logged: Iterable[str]) -> None:
    """Raise `ValueError` if the objective is none of the metrics that training will log.

    A metric of training rows gets a warning.
    """
    logged = list(logged)
    if scorer_of(objective) is not None:
        return  # it is computed beside what the model logs
    if objective.name in logged:
        _warn_of_training_rows(objective.name, logged)
        return
    hint = suggestion(objective.name, [*logged, *SCORER_NAMES])
    if objective.name in ("data_loss", "val_data_loss"):
        hint = (
            " The loss without penalties is logged by models that are compiled with "
            "kregs.compile_model(model, loss, ...)."
        )
    elif not hint and objective.name.removeprefix("val_") not in logged:
        hint = suggestion(objective.name.removeprefix("val_"), logged)
    raise ValueError(
        f"`objective` must be one of the metrics that training logs: {', '.join(logged)}. "
        f"Received: objective={objective.name!r}.{hint}"
    )
