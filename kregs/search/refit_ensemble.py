"""Several models of chosen hyperparameters, trained once more on all rows, as one population."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kregs.inspection.ensemble import ensemble
from kregs.population import NotStackable, Population
from kregs.population.rows import is_dataset
from kregs.population.signature import read_member
from kregs.search.data import as_arrays, as_table
from kregs.search.folds import fit_transform
from kregs.search.own_fit import has_stock_fit
from kregs.search.randomness import derived_seed, preserved_state
from kregs.search.refit import recorded_rates, searched_class_weight
from kregs.search.replay import replayed
from kregs.search.result import SearchResult
from kregs.training.data_checks import check_data, check_sample_weight
from kregs.training.targets import check_class_weight, resolve_class_weight
from kregs.validation import check_integer, check_seed


@dataclasses.dataclass(frozen=True)
class _Member:
    """A model to be trained: of which trial, from which seed, for how long."""

    model: keras.Model
    trial: int
    seed: int
    epochs: int
    batch_size: Any
    callbacks: list[keras.callbacks.Callback]


def refit_ensemble(
    result: SearchResult,
    x: Any,
    y: Any,
    *,
    counts: int | Mapping[int, int],
    sample_weight: Any,
    class_weight: Mapping[int, float] | str | None,
    seed: int | None,
) -> keras.Model:
    """See `SearchResult.refit_ensemble`."""
    if result.build is None:
        raise ValueError(
            "`refit_ensemble` needs the build function, which no file holds: pass it to "
            "kregs.load_result(path, build=build)"
        )
    if is_dataset(x) or y is None:
        raise ValueError(f"`x` and `y` must be arrays. Received: x of type {type(x).__name__}")
    by_trial = _checked_counts(result, counts)
    seed = result.seed if seed is None else check_seed("seed", seed)
    if class_weight is None and sample_weight is None:
        class_weight = searched_class_weight(result)
    class_weight = check_class_weight(class_weight)
    if class_weight is not None and sample_weight is not None:
        raise ValueError(
            "`sample_weight` and `class_weight` were both given: give one. "
            f"Received: class_weight={class_weight!r}"
        )
    y = as_arrays(y)
    rows = len(keras.tree.flatten(y)[0])
    sample_weight = check_sample_weight("sample_weight", sample_weight, rows)
    with preserved_state():
        if result.preprocess is not None:
            result.preprocess_, x = fit_transform(result.preprocess, as_table(x), np.asarray(y))
        x = as_arrays(x)
        members = _members(result, by_trial, seed)
        check_data(x, y, model=members[0].model, training=True)
        weights = {
            "sample_weight": sample_weight,
            "class_weight": resolve_class_weight(class_weight, y, members[0].model),
        }
        groups: dict[Any, list[_Member]] = {}
        for member in members:
            groups.setdefault(_group_of(result, member), []).append(member)
        trained = [
            model for group in groups.values() for model in _train(result, group, x, y, weights)
        ]
    finite = [m for m in trained if all(np.isfinite(w).all() for w in m.get_weights())]
    if not finite:
        raise ValueError("the training on all rows diverged in all members")
    if len(finite) < len(trained):
        warnings.warn(
            f"{len(trained) - len(finite)} of {len(trained)} members diverged in the training on "
            "all rows and are left out",
            stacklevel=3,
        )
    return finite[0] if len(finite) == 1 else ensemble(finite)


def _checked_counts(result: SearchResult, counts: Any) -> dict[int, int]:
    if not isinstance(counts, Mapping):
        return {result.chosen_trial: check_integer("counts", counts, minimum=1)}
    if not counts:
        raise ValueError("`counts` must name at least one trial. Received: none")
    return {n: check_integer(f"counts[{n!r}]", count, minimum=1) for n, count in counts.items()}


def _members(result: SearchResult, counts: Mapping[int, int], seed: int) -> list[_Member]:
    members: list[_Member] = []
    for number, count in counts.items():
        trial = next((t for t in result.record.trials if t["trial"] == number), None)
        if trial is None or trial["score"] is None:
            raise ValueError(
                f"`counts` must have numbers of trials with a score. Received: {number!r}"
            )
        own = trial.get("arguments") or {}  # where they are functions of the hyperparameters
        epochs = trial["best_epoch"] or own.get("epochs", result.protocol.epochs)
        batch_size = own.get("batch_size", result.protocol.batch_size)
        rates = recorded_rates(result, number)
        for _ in range(count):
            own_seed = derived_seed(seed, 3, len(members))
            keras.utils.set_random_seed(own_seed)  # of the initial weights
            members.append(
                _Member(
                    model=result.build_model(number),
                    trial=number,
                    seed=own_seed,
                    epochs=epochs,
                    batch_size=batch_size,
                    callbacks=replayed(result.callbacks, rates),
                )
            )
    return members


def _group_of(result: SearchResult, member: _Member) -> Any:
    """Return what is equal for models that can be stacked; else something of its own."""
    if not has_stock_fit(result.build):
        return id(member)
    try:
        return read_member(member.model).signature, member.batch_size
    except NotStackable:
        return id(member)


def _train(
    result: SearchResult, group: list[_Member], x: Any, y: Any, weights: Mapping[str, Any]
) -> list[keras.Model]:
    first = group[0]
    if len(group) > 1:
        try:
            population = Population.from_models(
                [member.model for member in group], seeds=[member.seed for member in group]
            )
            population.fit(
                x,
                y,
                epochs=[member.epochs for member in group],
                batch_size=first.batch_size,
                callbacks=[member.callbacks for member in group] if first.callbacks else (),
                **weights,
            )
            return population.unstack()
        except NotStackable:  # callbacks that look at batches, a layer without a stacked form
            pass
    for member in group:
        keras.utils.set_random_seed(member.seed)
        result.build.fit(  # type: ignore[union-attr]
            result.hyperparameters(member.trial),
            member.model,
            x,
            y=y,
            epochs=member.epochs,
            batch_size=member.batch_size,
            callbacks=member.callbacks,
            verbose=0,
            **weights,
        )
    return [member.model for member in group]
