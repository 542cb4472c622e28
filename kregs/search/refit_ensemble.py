"""Several models of chosen hyperparameters, trained once more on all rows, as one population."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kregs.inspection.ensemble import ensemble
from kregs.population.callbacks import check_callbacks
from kregs.population.capacity import members_at_once
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.registry import NotStackable
from kregs.population.rows import Feed, as_rows, check_one_target, class_weights, is_dataset
from kregs.population.signature import read_member
from kregs.population.training import Training
from kregs.search.folds import fit_transform
from kregs.search.own_fit import has_stock_fit
from kregs.search.randomness import cheap_collection, derived_seed, preserved_state
from kregs.search.refit import check_arrays, recorded_rates, weights_by_class
from kregs.search.replay import replayed
from kregs.search.result import SearchResult
from kregs.training.data_checks import check_data
from kregs.training.targets import resolve_class_weight
from kregs.validation import check_integer, check_seed


@dataclasses.dataclass(frozen=True, eq=False)
class Refit:
    """What was trained on one set of rows.

    Args:
        model: the mean of the members, or the one member.
        transformer: that the rows went through; `None` without `preprocess`.
    """

    model: keras.Model
    transformer: Any


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """A set of rows, transformed.

    Args:
        x, y: arrays, or several.
        weight: of the rows, with those of their classes; or `None`.
        transformer: see `Refit`.
        offset: where they begin among the rows of all sets.
    """

    x: Any
    y: Any
    weight: np.ndarray | None
    transformer: Any
    offset: int

    @property
    def places(self) -> np.ndarray:
        """Where they stand among the rows of all sets."""
        count = len(keras.tree.flatten(self.y)[0])
        return np.arange(self.offset, self.offset + count, dtype=np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class _Member:
    """A model to be trained: of which trial, on which rows, from which seed, for how long."""

    model: keras.Model
    trial: int
    rows: _Rows
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
    class_weight = weights_by_class(result, x, sample_weight, class_weight)
    (refit,) = refit_on(
        result,
        [(x, y)],
        counts=counts,
        sample_weight=sample_weight,
        class_weight=class_weight,
        seed=seed,
    )
    if result.preprocess is not None:
        result.preprocess_ = refit.transformer
    return refit.model


def refit_on(
    result: SearchResult,
    sets: Sequence[tuple[Any, Any]],
    *,
    counts: int | Mapping[int, int],
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | str | None = None,
    seed: int | None = None,
    on_epochs: Callable[[int, int], None] | None = None,
) -> list[Refit]:
    """Train the members on each of several sets of rows, all of them as one population.

    Args:
        result: of the search.
        sets: inputs and targets of each set.
        counts, seed: as in `SearchResult.refit_ensemble`.
        sample_weight: of the rows of each set, which then have one number.
        class_weight: checked; balanced classes are counted in each set.
        on_epochs: called with how many epochs of members are trained, and how many there are.

    Returns:
        What was trained on each set, from the same initial weights.
    """
    if result.build is None:
        raise ValueError(
            "`refit_ensemble` needs the build function, which no file holds: pass it to "
            "kregs.load_result(path, build=build)"
        )
    by_trial = _checked_counts(result, counts)
    seed = result.seed if seed is None else check_seed("seed", seed)
    with preserved_state(), cheap_collection():
        prepared: list[_Rows] = []
        for x, y in sets:
            offset = sum(len(earlier.places) for earlier in prepared)
            prepared.append(_prepared(result, x, y, sample_weight, class_weight, offset))
        members = [member for rows in prepared for member in _members(result, by_trial, rows, seed)]
        groups: dict[Any, list[_Member]] = {}
        for member in members:
            groups.setdefault(_group_of(result, member), []).append(member)
        epochs = sum(member.epochs for member in members)
        trained = 0

        def epoch_ended() -> None:
            nonlocal trained
            trained += 1
            if on_epochs is not None:
                on_epochs(trained, epochs)

        for group in groups.values():
            _train(result, group, prepared, epoch_ended)
        return [
            Refit(_combined([m.model for m in members if m.rows is rows]), rows.transformer)
            for rows in prepared
        ]


def _prepared(
    result: SearchResult, x: Any, y: Any, sample_weight: Any, class_weight: Any, offset: int
) -> _Rows:
    """Check and transform a set of rows."""
    if is_dataset(x):
        raise ValueError(f"`x` must be arrays. Received: x of type {type(x).__name__}")
    x, y, weight = check_arrays(result, x, y, sample_weight)
    transformer = None
    if result.preprocess is not None:
        transformer, x = fit_transform(result.preprocess, x, np.asarray(y))
    model = result.build_model()
    check_data(x, y, model=model, training=True)
    by_class = resolve_class_weight(class_weight, y, model)
    if by_class is not None:
        check_one_target(y)
        weight = class_weights(y, by_class)
    return _Rows(x, y, weight, transformer, offset)


def _combined(models: Sequence[keras.Model]) -> keras.Model:
    """Return the mean of the models that did not diverge."""
    finite = [m for m in models if all(np.isfinite(w).all() for w in m.get_weights())]
    if not finite:
        raise ValueError("the training on all rows diverged in all members")
    if len(finite) < len(models):
        warnings.warn(
            f"{len(models) - len(finite)} of {len(models)} members diverged in the training on "
            "all rows and are left out",
            stacklevel=5,
        )
    return finite[0] if len(finite) == 1 else ensemble(finite)


def _checked_counts(result: SearchResult, counts: Any) -> dict[int, int]:
    if not isinstance(counts, Mapping):
        return {result.chosen_trial: check_integer("counts", counts, minimum=1)}
    if not counts:
        raise ValueError("`counts` must name at least one trial. Received: none")
    return {n: check_integer(f"counts[{n!r}]", count, minimum=1) for n, count in counts.items()}


def _members(
    result: SearchResult, counts: Mapping[int, int], rows: _Rows, seed: int
) -> list[_Member]:
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
                    rows=rows,
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
    result: SearchResult,
    group: list[_Member],
    sets: Sequence[_Rows],
    epoch_ended: Callable[[], None],
) -> None:
    """Train models that can be stacked, as one population; one by one where they cannot."""
    if len(group) > 1:
        try:
            _train_stacked(group, sets, epoch_ended)
            return
        except NotStackable:  # callbacks that look at batches, a layer without a stacked form
            pass
    for member in group:
        keras.utils.set_random_seed(member.seed)
        result.build.fit(  # type: ignore[union-attr]
            result.hyperparameters(member.trial),
            member.model,
            member.rows.x,
            y=member.rows.y,
            sample_weight=member.rows.weight,
            epochs=member.epochs,
            batch_size=member.batch_size,
            callbacks=[
                *member.callbacks,
                keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epoch_ended()),
            ],
            verbose=0,
        )


def _train_stacked(
    group: list[_Member], sets: Sequence[_Rows], epoch_ended: Callable[[], None]
) -> None:
    def joined(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)

    for member in group:
        check_callbacks(member.callbacks)
    x = keras.tree.map_structure(joined, *(rows.x for rows in sets))
    y = keras.tree.map_structure(joined, *(rows.y for rows in sets))
    given = [rows.weight for rows in sets if rows.weight is not None]
    weight = joined(*given) if len(given) == len(sets) else None
    jobs = collections.deque(
        Job(
            member=read_member(member.model),
            weights=None,
            seed=member.seed,
            callbacks=member.callbacks,
            epochs=member.epochs,
            train_rows=member.rows.places,
            keep_end=True,
        )
        for member in group
    )
    layout = Layout([job.member for job in jobs])
    feed = Feed(as_rows(x, y, weight), None, group[0].batch_size)
    training = Training(
        layout,
        members_at_once(layout, feed.step_rows, None),
        feed,
        on_epoch=lambda job: epoch_ended(),
    )
    with contextlib.closing(training.run(jobs)) as ended:
        for job in ended:
            if job.error is not None:
                raise job.error
            layout.restore(job.member, job.best_weights, job.end_state)  # type: ignore[arg-type]
