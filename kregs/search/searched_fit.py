"""Arguments of `fit` that are functions of the hyperparameters: batch size and epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner

from kregs.validation import check_integer


class SearchedFit(keras_tuner.HyperModel):
    """A hypermodel whose trials each have a batch size or epochs of their own.

    It builds and fits as the hypermodel does; whoever trains asks for `arguments`.

    Args:
        hypermodel: what it stands for.
        functions: argument of `fit` to a function of `hp` that returns an integer >= 1.

    Example:

    >>> import keras
    >>> searched = SearchedFit(keras_tuner.HyperModel(), {"epochs": lambda hp: hp.Int("n", 2, 9)})
    >>> fit_arguments(searched, keras_tuner.HyperParameters())
    {'epochs': 2}
    """

    def __init__(
        self, hypermodel: keras_tuner.HyperModel, functions: Mapping[str, Callable[[Any], Any]]
    ) -> None:
        super().__init__()
        self.hypermodel, self.functions = hypermodel, dict(functions)

    def declare_hyperparameters(self, hp: Any) -> None:
        self.hypermodel.declare_hyperparameters(hp)

    def build(self, hp: Any) -> Any:
        return self.hypermodel.build(hp)

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        return self.hypermodel.fit(hp, model, *args, **kwargs)

    def arguments(self, hp: Any) -> dict[str, int]:
        """Return the arguments by name; `hp` gets their hyperparameters.

        Raises:
            TypeError: a function returns no integer.
            ValueError: it returns one below 1.
            Exception: what a function raises, with a note that names the argument.
        """
        values = {}
        for name, function in self.functions.items():
            try:
                value = function(hp)
            except Exception as error:
                error.add_note(f"`{name}`, a function of hp, raised this")
                raise
            values[name] = check_count(name, value, received=f"a function that returned {value!r}")
        return values


def check_count(name: str, value: Any, *, received: str | None = None) -> int:
    """Return a batch size, or a number of epochs, as an int.

    Raises:
        TypeError: it is no integer.
        ValueError: it is below 1 or above the largest int32.
    """
    try:
        return check_integer(name, value, minimum=1)
    except (TypeError, ValueError) as error:
        kind, told = type(error), received or f"{name}={value!r}"
        raise kind(
            f"`{name}` must be an integer >= 1, or a function of hp that returns one. "
            f"Received: {told}"
        ) from None


def own_model(hypermodel: Any) -> Any:
    """Return the hypermodel itself, without functions for arguments of `fit`."""
    return hypermodel.hypermodel if isinstance(hypermodel, SearchedFit) else hypermodel


def fit_arguments(hypermodel: Any, hp: Any) -> dict[str, int]:
    """Return the arguments of `fit` that are functions of `hp`, empty if there are none."""
    return hypermodel.arguments(hp) if isinstance(hypermodel, SearchedFit) else {}
