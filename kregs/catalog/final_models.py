"""The models after a search: trained on all training rows, several seeds at once, and scored."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

_TEST_BATCH = 256  # rows; decides nothing but memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelGroup:
    """Models of one architecture, one seed each, that train for the same number of epochs.

    Args:
        models: compiled; they hold the trained weights in the end.
        seeds: of the order of batches and the noise, one a model.
        epochs: of the training.
        callbacks: each model's training gets copies.
    """

    models: Sequence[keras.Model]
    seeds: Sequence[int]
    epochs: int
    callbacks: Sequence[keras.callbacks.Callback] = ()


def train_and_score(
    groups: Mapping[str, ModelGroup],
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None,
    *,
    log: Callable[[str], None],
    stacked: bool = True,
    **fit: Any,
) -> dict[str, list[dict[str, float]]]:
    """Train groups of models and return the metrics of each model on the test set.

    All of them are one population if they have one structure; else each group is one, and models
    that cannot be stacked at all are trained one by one; `log` is told why.

    Args:
        groups: the models by group.
        train, test: inputs and targets. Without a test set nothing is scored.
        log: called with a line.
        stacked: whether models may train as a population.
        **fit: further arguments of `keras.Model.fit`, such as `batch_size`.
    """
    from kregs.population import NotStackable
    from kregs.search.randomness import preserved_state

    if stacked:
        try:
            return _train_together(groups, train, test, log=log, **fit)
        except NotStackable as error:
            reason = error
        if len(groups) > 1:  # of different structures
            scores: dict[str, list[dict[str, float]]] = {}
            for name, group in groups.items():
                scores |= train_and_score({name: group}, train, test, log=log, **fit)
            return scores
        log(f"One by one, since they cannot be stacked: {reason}")
    with preserved_state():
        return {
            name: [
                _fit_and_score(
                    model,
                    seed,
                    train,
                    test,
                    epochs=group.epochs,
                    callbacks=copy.deepcopy(list(group.callbacks)),
                    **fit,
                )
                for model, seed in zip(group.models, group.seeds, strict=True)
            ]
            for name, group in groups.items()
        }


def _train_together(
    groups: Mapping[str, ModelGroup],
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None,
    *,
    log: Callable[[str], None],
    **fit: Any,
) -> dict[str, list[dict[str, float]]]:
    """See `train_and_score`: as one population, or raise `NotStackable`."""
    from kregs.population import NotStackable, Population
    from kregs.search.runs import numbers_of

    if len(groups) > 1 and any(group.callbacks for group in groups.values()):
        raise NotStackable("each group has callbacks of its own")
    members = [
        (name, model, seed)
        for name, group in groups.items()
        for model, seed in zip(group.models, group.seeds, strict=True)
    ]
    population = Population.from_models(
        [model for _, model, _ in members], seeds=[seed for *_, seed in members]
    )
    epochs = [groups[name].epochs for name, *_ in members]
    callbacks = next(iter(groups.values())).callbacks
    population.fit(*train, epochs=epochs, callbacks=callbacks, **fit)
    metrics = {} if test is None else population.evaluate(*test, batch_size=_TEST_BATCH)
    population.unstack()
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in groups}
    for k, (name, _, seed) in enumerate(members):
        failure = population.failures[k]
        if failure is not None:
            log(f"The {name} model of seed {seed} failed: {failure}")
        numbers = numbers_of({metric: values[k] for metric, values in metrics.items()})
        scores[name].append(numbers if failure is None else dict.fromkeys(numbers, math.nan))
    return scores


def _fit_and_score(
    model: keras.Model,
    seed: int,
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None,
    *,
    class_weight: Mapping[int, float] | str | None = None,
    **fit: Any,
) -> dict[str, float]:
    """Train a model by Keras's `fit` and return its metrics on the test set."""
    import keras

    from kregs.search.runs import numbers_of
    from kregs.training.targets import check_class_weight, resolve_class_weight, said_before

    with said_before():  # by the search
        weights = resolve_class_weight(check_class_weight(class_weight), train[1], model)
    keras.utils.set_random_seed(seed)  # the order of batches
    model.fit(*train, verbose=0, class_weight=weights, **fit)
    if test is None:
        return {}
    return numbers_of(model.evaluate(*test, batch_size=_TEST_BATCH, verbose=0, return_dict=True))


def summarize(scores: Sequence[Mapping[str, float]], *, objective: str) -> dict[str, Any]:
    """Return mean, standard deviation (of a sample) and values of each metric.

    One model has no deviation: `None`. Where a model failed, mean and deviation are NaN.

    Args:
        scores: the metrics of each model.
        objective: of the search; its metric comes first.

    Example:

    >>> scores = [{"accuracy": 0.9, "data_loss": 0.5, "loss": 0.6}]
    >>> list(summarize(scores, objective="val_data_loss"))
    ['data_loss', 'accuracy']
    """
    first = objective.removeprefix("val_")
    # the loss with penalties says nothing beside the one without
    metrics = [m for m in scores[0] if m != "loss" or m == first or "data_loss" not in scores[0]]
    metrics.sort(key=lambda metric: (metric != first, metric == "data_loss", metric))
    columns = {metric: [values[metric] for values in scores] for metric in metrics}
    return {
        metric: {"mean": statistics.fmean(column), "sd": _deviation(column), "values": column}
        for metric, column in columns.items()
    }


def _deviation(column: Sequence[float]) -> float | None:
    if len(column) < 2:
        return None
    return statistics.stdev(column) if all(map(math.isfinite, column)) else math.nan
