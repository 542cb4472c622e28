"""What a build function builds and searches, found out before any training."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FatalError

from kregs.logs import numbers_of
from kregs.population.keras_internals import built_with_fresh_names
from kregs.population.registry import NotStackable
from kregs.search.data import Data
from kregs.search.failures import reason_of
from kregs.search.own_fit import OwnFit, has_stock_fit
from kregs.search.searched_fit import fit_arguments

_MOST_BUILDS = 200  # to find all conditions; a space has a few of them


def make_hypermodel(build: Any, name: str = "build") -> keras_tuner.HyperModel:
    """Return `build` as a keras-tuner hypermodel; `TypeError` if it can be none.

    Args:
        build: a function of `hp`, or a hypermodel.
        name: the argument's name, for the message.
    """
    if isinstance(build, keras_tuner.HyperModel):
        if type(build).build is keras_tuner.HyperModel.build:
            raise TypeError(
                f"`{name}` must be a HyperModel with a `build` of its own. "
                f"Received: {name}={build!r} of type {type(build).__name__}"
            )
        return build
    if inspect.isclass(build) or isinstance(build, keras.layers.Layer) or not _takes_hp(build):
        raise TypeError(
            f"`{name}` must be a function of one argument, keras-tuner's hp, that returns a "
            f"compiled model, or a keras_tuner.HyperModel object. Received: {name}={build!r}"
        )
    return _Function(build)


def _takes_hp(build: Any) -> bool:
    if not callable(build):
        return False
    try:
        inspect.signature(build).bind(None)
    except TypeError:
        return False
    except ValueError:  # a function in C tells no signature
        return True
    return True


class _Function(keras_tuner.HyperModel):
    """A build function. keras-tuner's own wrapper of functions is not public."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        super().__init__()

    def build(self, hp: Any) -> Any:
        return self._function(hp)


def explore(
    hypermodel: keras_tuner.HyperModel,
) -> tuple[keras_tuner.HyperParameters, keras.Model]:
    """Build with the defaults, then once per condition that these leave out.

    Returns:
        The space with all conditional hyperparameters, and the model of the defaults.

    Raises:
        TypeError: no `keras.Model` comes back.
        ValueError: a model is not compiled, or conditions never end.
        Exception: what `build` itself raises, with a note that says so.
    """
    space = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(space)

    def build(hp: Any) -> keras.Model:
        try:
            model = built_with_fresh_names(functools.partial(hypermodel.build, hp))
        except Exception as error:
            values = ", ".join(f"{name}={value!r}" for name, value in hp.values.items())
            error.add_note(
                "`build` raised this before any training. "
                f"Received: hp of {values or 'no value yet'}"
            )
            raise
        fit_arguments(hypermodel, hp)  # those that are functions of `hp` have some, too
        return _checked(model, needs_compile=has_stock_fit(hypermodel))

    return space, _explore(space, build)


def explore_fit(
    hypermodel: keras_tuner.HyperModel,
    build: Callable[[Any], keras.Model],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    space: keras_tuner.HyperParameters,
    once: bool = False,
) -> keras_tuner.HyperParameters:
    """Return a space with the hyperparameters of a hypermodel's own `fit`, all conditions tried.

    Args:
        hypermodel: with a `fit` of its own.
        build: returns the model of `hp`.
        args, kwargs: of `fit`.
        space: what is known of it; it is changed.
        once: try the defaults only: the space is known.

    Raises:
        NotStackable: `fit` does more than change arguments, or a build or `fit` raises.
        keras_tuner.errors.FatalError: one has raised that.
    """
    own_fit = OwnFit(hypermodel)

    def build_and_fit(hp: Any) -> None:
        callbacks = copy.deepcopy(list(kwargs.get("callbacks") or []))
        try:
            model = build(hp)
        except FatalError:
            raise
        except Exception as error:  # the trials will tell
            raise NotStackable(f"`build` raises {reason_of(error)}") from error
        given = {**kwargs, **fit_arguments(hypermodel, hp), "callbacks": callbacks}
        own_fit.arguments(hp, model, args, given)

    if once:
        build_and_fit(space.copy())
    else:
        _explore(space, build_and_fit)
    return space


def _explore(space: keras_tuner.HyperParameters, build: Callable[[Any], Any]) -> Any:
    """Build with the defaults, then once a condition; `space` gets all hyperparameters.

    Returns:
        What the first build has returned.
    """
    results: list[Any] = []
    seen: list[list[Any]] = []
    unseen: list[list[Any]] = []
    while not results or unseen:
        if len(results) >= _MOST_BUILDS:
            raise ValueError(
                "`build` must have conditions that are the same in every call. Received: another "
                f"condition in each of {_MOST_BUILDS} calls"
            )
        hp = space.copy()
        for condition in unseen[0] if unseen else ():
            hp.values[condition.name] = condition.values[0]
        hp.ensure_active_values()
        result = build(hp)
        results.append(None if results else result)  # a model is large
        space.merge([h for h in hp.space if not space._exists(h.name, h.conditions)])
        seen += [copy.deepcopy(scope) for scope in hp.active_scopes if scope not in seen]
        if unseen:
            seen.append(unseen.pop(0))  # tried, even if the build did not come by
        unseen += [
            copy.deepcopy(scope)
            for scope in hp.inactive_scopes
            if scope not in seen and scope not in unseen
        ]
        unseen = [scope for scope in unseen if scope not in seen]
    return results[0]


def _checked(model: Any, *, needs_compile: bool) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`build` must return a compiled keras.Model. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    if needs_compile and not model.compiled:
        raise ValueError(
            "`build` must return a compiled model: end it with "
            "`return kregs.compile_model(model, loss)`. Received: a model that is not compiled"
        )
    return model


def logged_metrics(
    hypermodel: keras_tuner.HyperModel, model: keras.Model, data: Data, *, rows: int
) -> list[str] | None:
    """Return the names that training will log, or `None` if the user's own `fit` decides them."""
    if not has_stock_fit(hypermodel):
        return None
    names = numbers_of(model.evaluate(**data.sample(rows), return_dict=True, verbose=0))
    model.reset_metrics()  # objects that all builds share are not to keep these rows
    return [*names, *(f"val_{name}" for name in names)]
