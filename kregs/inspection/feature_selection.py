"""`feature_selection`: which inputs an L1 penalty keeps, and how often over folds (stability)."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import numbers
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from kregs.builders.model_graph import ModelGraph, is_model_graph
from kregs.files import atomic_path
from kregs.inspection.shrinking.channels import ChannelGraph
from kregs.inspection.shrinking.removal import find_removal
from kregs.logs import no_retracing_warning
from kregs.population import NotStackable
from kregs.population.capacity import members_at_once
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.rows import Feed, as_rows
from kregs.population.signature import read_member
from kregs.population.training import Training
from kregs.training.data_checks import check_rows
from kregs.validation import check_integer, check_number, check_seed, in_words, suggestion

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FeatureSelection:
    """How often each input survives along λ. Made by `kregs.feature_selection`.

    Attributes:
        name: the hyperparameter's, such as `l1`.
        frequency: one row a feature, one column a value of λ: the share of the folds in which the
            feature has an effect on the output.
        kept: of each fold, value and feature, whether it has: shape (folds, values, features).
        threshold: the frequency from which on a feature counts as stable.
        most: the values counted are those, from the strongest λ on, up to which a fold keeps no
            more features than this, on average.
        counted: these values.
        selected: names of the features whose frequency reaches `threshold` at a counted value.
    """

    name: str
    frequency: pd.DataFrame
    kept: np.ndarray
    threshold: float
    most: float
    counted: tuple[float, ...]
    selected: tuple[str, ...]

    @property
    def expected_false(self) -> float:
        """Meinshausen and Bühlmann's bound on how many of the selected features are noise.

        It is `q**2 / ((2 threshold - 1) features)`, q the features that a fold keeps at any counted
        value, on average, and holds where each fold trains on a random half of the rows
        (`ShuffleSplit(50, train_size=0.5)`) and noise features are exchangeable. Other folds share
        more of their rows, so that frequencies come out too high.
        """
        counted = [value in self.counted for value in self.frequency.columns]
        kept_somewhere = self.kept[:, counted].any(axis=1).sum(axis=1).mean()
        return float(kept_somewhere**2 / ((2 * self.threshold - 1) * len(self.frequency)))

    def to_frame(self) -> pd.DataFrame:
        """Return one row a feature, the most stable first.

        The columns are `feature`, `frequency` (its highest at a counted value), `selected`, and
        `survives_to`, the strongest λ at which most folds keep it (NaN if there is none).
        """
        highest = self.frequency[list(self.counted)].to_numpy().max(axis=1, initial=0.0)
        survives = [
            max((value for value in self.frequency.columns if row[value] > 0.5), default=np.nan)
            for _, row in self.frequency.iterrows()
        ]
        frame = pd.DataFrame(
            {
                "feature": self.frequency.index,
                "frequency": highest,
                "selected": [name in self.selected for name in self.frequency.index],
                "survives_to": survives,
            }
        )
        return frame.sort_values(
            ["frequency", "survives_to"], ascending=False, ignore_index=True, kind="stable"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return the stability paths: each feature's frequency along λ.

        Args:
            path: also write the figure there (`.png`, `.pdf`, `.svg`).
        """
        from kregs.reporting.figures import stability_paths

        figure = stability_paths(
            self.frequency,
            self.name,
            selected=self.selected,
            counted=self.counted,
            threshold=self.threshold,
            folds=len(self.kept),
        )
        if path is not None:
            with atomic_path(path) as temporary:
                figure.savefig(temporary)
        return figure

    def __repr__(self) -> str:
        return f"<FeatureSelection along {self.name}: {self}>"

    def __str__(self) -> str:
        names = ", ".join(self.selected) or "none"
        return (
            f"{len(self.selected)} of {len(self.frequency)} features are stable in "
            f"{len(self.kept)} folds: {names}"
        )


def feature_selection(
    build: Callable[..., keras.Model],
    x: Any,
    y: Any,
    *,
    folds: Any = 5,
    epochs: int = 100,
    batch_size: int = 32,
    threshold: float = 0.9,
    most: float | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    **values: Sequence[float],
) -> FeatureSelection:
    """Return which input features survive an L1 penalty, and in how many folds.

    A model is trained for each fold and each λ, all of them as one population where they can be
    stacked. A feature survives where an output depends on it: a chain of weights that are not
    exactly zero leads from it. So the penalty must make zeros, by `kregs.proximal`: in a linear
    model that is the lasso, in a network an `l1` on its first kernel, whose row goes when all of
    its weights have. A single fit's choice among correlated features is luck; how often it is made
    over folds is not. Bring the columns to one scale first: a penalty compares them.

    A feature is selected if it survives in a share of `threshold` of the folds at one of the
    counted values: the strongest ones, at which a fold keeps at most `most` features on average.

    Args:
        build: called with the hyperparameter by its name; returns a compiled Sequential or
            Functional model with one input of shape (features,).
        x, y: arrays, rows first; `x` is (rows, features), or a DataFrame with column names.
        folds: a number, or a scikit-learn splitter; a model trains on each fold's training rows.
            `ShuffleSplit(50, train_size=0.5)` are the paper's subsamples.
        epochs, batch_size: as in `keras.Model.fit`.
        threshold: in (0.5, 1].
        most: default: `sqrt((2 threshold - 1) features)`, by which the paper's bound of the
            expected number of wrong features is 1.
        names: of the features; default: the columns of a DataFrame, else `x0`, `x1`, ...
        seed: of the folds (if `folds` is a number), initial weights, batch order and noise. The
            global random state is neither used nor changed.
        **values: the hyperparameter's name and its values, e.g. `l1=np.logspace(-2, 0, 20)`.

    Returns:
        A `FeatureSelection`: `selected`, `frequency`, `to_frame()`, `plot()`.

    Raises:
        TypeError, ValueError: an argument is wrong, or `build` returns a model that is not
            compiled, is a subclassed one, or has another input.
        RuntimeError: a training's loss was no finite number.

    Warns:
        UserWarning: every feature survives everywhere, as where the model makes no zeros.

    Example:

    >>> import keras, kregs, numpy as np
    >>> def build(l1):
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    ...     model.compile(kregs.proximal(keras.optimizers.SGD(0.1), l1=l1), "mse")
    ...     return model
    >>> x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    >>> kregs.feature_selection(
    ...     build, x, x[:, 2], folds=3, epochs=20, batch_size=60, l1=[0.5, 1.0]
    ... )
    <FeatureSelection along l1: 1 of 4 features are stable in 3 folds: x2>

    References:
        Meinshausen, Bühlmann, "Stability selection", 2010, section 2 (frequencies, the choice of
        `most`, the bound); Tibshirani, "Regression shrinkage and selection via the lasso", 1996.
    """
    name, points = _one_hyperparameter(build, values)
    rows = np.asarray(x)
    if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.number):
        raise ValueError(
            "`x` must be a table of numbers, of shape (rows, features). "
            f"Received: {in_words(x)}, of shape {rows.shape} and {rows.dtype}"
        )
    if not rows.size:
        raise ValueError(f"`x` must not be empty. Received: shape {rows.shape}")
    features = _names(names, x, rows.shape[1])
    check_integer("epochs", epochs, minimum=1)
    check_integer("batch_size", batch_size, minimum=1)
    threshold = check_number("threshold", threshold, above=0.5, maximum=1.0)
    limit = ((2 * threshold - 1) * len(features)) ** 0.5
    most = limit if most is None else check_number("most", most, above=0.0)
    seed = check_seed("seed", seed)
    targets = np.asarray(y)
    built = functools.partial(_built, build, name, seed)
    models = [_checked(built(point), len(features)) for point in points]
    check_rows(rows, targets, None, model=models[0], training=True)
    train_rows = _train_rows(folds, rows, targets, seed)
    settings: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    kept = np.zeros((len(train_rows), len(points), len(features)), bool)
    with no_retracing_warning():
        try:
            for fold, place, model in _stacked(models, rows, targets, train_rows, **settings):
                kept[fold, place] = _used_inputs(model)
        except NotStackable:
            trained = _one_by_one(built, models, points, rows, targets, train_rows, **settings)
            for fold, place, model in trained:
                kept[fold, place] = _used_inputs(model)
    if kept.all():
        warnings.warn(
            f"every feature survives in every fold at every {name}, so that nothing is selected: "
            "does the model make zeros, by kregs.proximal (keras.regularizers.L1 makes none)? "
            "If it does, give stronger values or more epochs",
            stacklevel=2,
        )
    frequency = pd.DataFrame(kept.mean(axis=0).T, index=features, columns=points)
    frequency.columns.name, frequency.index.name = name, "feature"
    counted = _counted(kept, points, most)
    stable = (frequency[list(counted)] >= threshold - 1e-9).any(axis=1)
    return FeatureSelection(
        name=name,
        frequency=frequency,
        kept=kept,
        threshold=threshold,
        most=most,
        counted=counted,
        selected=tuple(frequency.index[stable]),
    )


def _one_hyperparameter(
    build: Any, values: Mapping[str, Sequence[float]]
) -> tuple[str, tuple[float, ...]]:
    """Return the hyperparameter's name and its values in increasing order."""
    if isinstance(build, type) or not callable(build):
        raise TypeError(
            "`build` must be a function of the hyperparameter, by its name, that returns a "
            f"compiled model. Received: build={build!r}"
        )
    if len(values) != 1:
        own = inspect.signature(feature_selection).parameters
        hints = [hint for word in values if (hint := suggestion(word, [*own]))]
        raise TypeError(
            "give the values of one hyperparameter by name, e.g. l1=np.logspace(-2, 0, 20). "
            f"Received: {', '.join(values) or 'none'}.{''.join(hints)}"
        )
    ((name, points),) = values.items()
    try:
        inspect.signature(build).bind(**values)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`build` must take {name} by name: {error}. Received: build={build!r}"
        ) from None
    expected = f"`{name}` must be a list of different numbers >= 0"
    if not isinstance(points, Iterable) or isinstance(points, (str, bytes, Mapping, set)):
        raise TypeError(f"{expected}. Received: {name}={points!r}")
    listed = sorted(check_number(name, point, minimum=0.0) for point in points)
    if not listed or len(set(listed)) != len(listed):
        raise ValueError(f"{expected}. Received: {name}={listed}")
    return name, tuple(listed)


def _built(build: Callable[..., keras.Model], name: str, seed: int, point: float) -> keras.Model:
    # the random state is Keras's affair, which only a search has had to put back so far
    from kregs.search.randomness import preserved_state

    with preserved_state():
        keras.utils.set_random_seed(seed)
        return build(**{name: point})


def _names(names: Any, x: Any, count: int) -> list[str]:
    if names is None:
        columns = getattr(x, "columns", None)
        if columns is None:
            return [f"x{i}" for i in range(count)]
        listed = [str(column) for column in columns]
        if len(set(listed)) != count:
            repeated = sorted({column for column in listed if listed.count(column) > 1})
            raise ValueError(
                "`x` must have columns of different names, or `names` be given. "
                f"Received: {', '.join(repeated)} more than once"
            )
        return listed
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"`names` must be a list of names. Received: names={names!r}")
    listed = [str(name) for name in names]
    if len(listed) != count or len(set(listed)) != count:
        raise ValueError(
            f"`names` must hold {count} different names, one a column of `x`. "
            f"Received: {len(listed)}, {len(set(listed))} of them different"
        )
    return listed


def _train_rows(folds: Any, x: np.ndarray, y: np.ndarray, seed: int) -> list[np.ndarray]:
    if hasattr(folds, "split") and not isinstance(folds, (str, bytes, type)):
        return [train for train, _ in folds.split(x, y)]
    if isinstance(folds, bool) or not isinstance(folds, numbers.Integral):
        raise TypeError(
            f"`folds` must be a number or a scikit-learn splitter. Received: folds={folds!r}"
        )
    folds = check_integer("folds", folds, minimum=2, maximum=len(x))
    return [train for train, _ in KFold(folds, shuffle=True, random_state=seed).split(x)]


def _checked(model: Any, features: int) -> keras.Model:
    if not isinstance(model, keras.Model) or not is_model_graph(model):
        raise TypeError(
            "`build` must return a built Sequential or Functional keras.Model, whose inputs can be "
            f"followed. Received: {type(model).__name__}"
        )
    if len(model.inputs) != 1 or tuple(model.inputs[0].shape[1:]) != (features,):
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise ValueError(
            f"`build` must return a model with one input of shape ({features},), the columns of "
            f"`x`. Received: inputs of shape {shapes}"
        )
    if not model.compiled:
        raise ValueError("`build` must return a compiled model. Received: one that is not compiled")
    return model


def _stacked(
    models: list[keras.Model],
    x: np.ndarray,
    y: np.ndarray,
    train_rows: list[np.ndarray],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[int, int, keras.Model]]:
    """Train each model on each fold's rows as one population; yield fold, place and model.

    Raises:
        NotStackable: the models cannot be members of one population.
    """
    members = [read_member(model) for model in models]
    layout = Layout(members)
    feed = Feed(as_rows(x, y), None, batch_size)
    jobs = [
        Job(
            member=member,
            weights=[keras.ops.convert_to_numpy(weight) for weight in member.weights],
            seed=seed,
            callbacks=[],
            epochs=epochs,
            train_rows=rows,
            name=(fold, place),
        )
        for fold, rows in enumerate(train_rows)
        for place, member in enumerate(members)
    ]
    training = Training(layout, members_at_once(layout, feed.step_rows, None), feed)
    for _ in training.run(collections.deque(jobs)):
        pass
    for job in jobs:
        if job.failure is not None:
            raise RuntimeError(f"a training did not end: {job.failure}")
        for weight, value in zip(job.member.weights, job.best_weights or (), strict=True):
            weight.assign(value)
        yield *job.name, models[job.name[1]]


def _one_by_one(
    build: Callable[[float], keras.Model],
    models: list[keras.Model],
    points: Sequence[float],
    x: np.ndarray,
    y: np.ndarray,
    train_rows: list[np.ndarray],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[int, int, keras.Model]]:
    """Train by Keras's `fit` what cannot be stacked; from the same weights in each fold."""
    from kregs.search.randomness import preserved_state

    for fold, rows in enumerate(train_rows):
        for place, point in enumerate(points):
            model = build(point)
            model.set_weights(models[place].get_weights())
            with preserved_state():
                keras.utils.set_random_seed(seed)  # of the order of rows, and noise
                history = model.fit(
                    x[rows], y[rows], batch_size=batch_size, epochs=epochs, verbose=0
                )
            if not np.isfinite(history.history["loss"][-1]):
                raise RuntimeError("a training did not end: its loss is no finite number")
            yield fold, place, model


def _used_inputs(model: keras.Model) -> np.ndarray:
    """Return on which of a model's inputs an output depends."""
    channels = ChannelGraph(ModelGraph(model))
    return find_removal(channels).used[channels.inputs[0]]


def _counted(kept: np.ndarray, points: tuple[float, ...], most: float) -> tuple[float, ...]:
    """Return the strongest values up to which the folds keep at most so many features."""
    counted: list[float] = []
    for v in reversed(range(len(points))):
        if kept[:, v:].any(axis=1).sum(axis=1).mean() > most:
            break
        counted.append(points[v])
    return tuple(reversed(counted))
