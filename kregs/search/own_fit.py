"""What a hypermodel's own `fit` asks of `model.fit`, found out without any training.

Most such functions only change arguments: the batch size, the epochs, the callbacks. They are
called with a stand-in for the model's `fit` that notes its arguments, so that what they ask can be
trained stacked. One that does more is found out by what it does with the stand-in.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import keras_tuner
from keras_tuner.errors import FatalError

from kregs.population.registry import NotStackable
from kregs.search.failures import reason_of
from kregs.search.searched_fit import own_model

# what a model computes by: a `fit` that calls any of these trains or judges by itself
_COMPUTES = {
    "evaluate", "predict", "predict_on_batch", "test_on_batch", "test_step", "train_on_batch",
    "train_step",
}  # fmt: skip
_FIT = "the hypermodel's own `fit`"


def has_stock_fit(hypermodel: Any) -> bool:
    """Whether `HyperModel.fit` is keras-tuner's: another may do anything with the rows."""
    return type(own_model(hypermodel)).fit is keras_tuner.HyperModel.fit


def by_name(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `keras.Model.fit` by name; `TypeError` as Keras raises it."""
    bound = inspect.signature(keras.Model.fit).bind(None, *args, **kwargs).arguments
    return dict(list(bound.items())[1:])


@contextlib.contextmanager
def replaced_fit(model: keras.Model, function: Callable[..., Any]) -> Iterator[None]:
    """Let `model.fit` be a function while the block runs; the model is not changed otherwise."""
    attributes = vars(model)  # Keras's own `__setattr__` would track it
    attributes["fit"] = function
    try:
        yield
    finally:
        attributes.pop("fit", None)


class OwnFit:
    """A hypermodel's own `fit`, asked for the arguments that it gives to `model.fit`.

    Args:
        hypermodel: with a `fit` of its own.

    Example:

    >>> class Model(keras_tuner.HyperModel):
    ...     def build(self, hp):
    ...         model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...         model.compile("sgd", "mse")
    ...         return model
    ...     def fit(self, hp, model, *args, **kwargs):
    ...         return model.fit(*args, batch_size=hp.Choice("batch_size", [8, 16]), **kwargs)
    >>> hp = keras_tuner.HyperParameters()
    >>> OwnFit(Model()).arguments(hp, Model().build(hp), ([1, 2], [3, 4]), {"epochs": 5})
    {'x': [1, 2], 'y': [3, 4], 'batch_size': 8, 'epochs': 5}
    >>> hp.values
    {'batch_size': 8}
    """

    def __init__(self, hypermodel: Any) -> None:
        self._hypermodel = hypermodel
        self._reason: str | None = None  # why it does more, once that is known

    def arguments(
        self, hp: Any, model: keras.Model, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what it asks of `model.fit`, by name; `hp` gets its hyperparameters.

        Args:
            hp: keras-tuner's, of the trial.
            model: of the trial; what it does to it before `model.fit`, as compiling it, is done.
            args, kwargs: what it is given beside.

        Raises:
            NotStackable: it does more than return what `model.fit` returns, or raises; the message
                says so. Once it has done more, it is not called again.
            keras_tuner.errors.FatalError: it has raised that.
        """
        if self._reason is not None:
            raise NotStackable(self._reason)
        if type(model).fit is not keras.Model.fit:
            raise NotStackable(f"the model's class {type(model).__name__} has a `fit` of its own")
        call = _Call()
        try:
            with call.watching(model):
                call.check_result(self._hypermodel.fit(hp, model, *args, **kwargs))
            call.check_not_kept()
        except _DoesMore as more:
            self._reason = f"{_FIT} {more}"
        except FatalError:
            raise
        except Exception as error:
            if call.arguments is None:  # no fault of the stand-in: so it does with these values
                raise NotStackable(f"{_FIT} raises {reason_of(error)}") from error
            self._reason = f"{_FIT} does not only return what `model.fit` returns: with a stand-in "
            self._reason += f"for that it raises {reason_of(error)}"
        if self._reason is not None or call.arguments is None:
            raise NotStackable(self._reason or f"{_FIT} does not call `model.fit`")
        return call.arguments


class _DoesMore(BaseException):
    """It does more than change arguments. No `Exception`: it must not be caught on its way."""


class _Result:
    """Stands for what `model.fit` returns: it can be returned, and nothing else."""

    def __getattr__(self, name: str) -> Any:
        raise _DoesMore(f"uses what `model.fit` returns: its `{name}`")


class _Call:
    """The one call of `model.fit`.

    Attributes:
        arguments: by name, `None` before the call.
    """

    def __init__(self) -> None:
        self.arguments: dict[str, Any] | None = None
        self._result: weakref.ref[_Result] | None = None

    @contextlib.contextmanager
    def watching(self, model: keras.Model) -> Iterator[None]:
        """Let a model note the call of its `fit`, and bear no other use from there on."""
        kind, call = type(model), self

        def check(name: str) -> None:
            if call.arguments is not None:
                word = "calls `model.fit` twice" if name == "fit" else f"uses `model.{name}` after"
                raise _DoesMore(word if name == "fit" else f"{word} `model.fit`")
            if name in _COMPUTES:
                raise _DoesMore(f"calls `model.{name}`")

        class Watched(kind):  # type: ignore[misc, valid-type]
            def __getattribute__(self, name: str) -> Any:
                if not name.startswith("__"):
                    check(name)
                    if name == "fit":
                        return call._note
                return super().__getattribute__(name)

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                raise _DoesMore("calls the model")

        Watched.__name__, Watched.__qualname__ = kind.__name__, kind.__qualname__
        Watched.__module__ = kind.__module__
        object.__setattr__(model, "__class__", Watched)
        try:
            yield
        finally:
            object.__setattr__(model, "__class__", kind)

    def _note(self, *args: Any, **kwargs: Any) -> _Result:
        self.arguments = by_name(args, kwargs)
        result = _Result()
        self._result = weakref.ref(result)
        return result

    def check_result(self, result: Any) -> None:
        """Raise `_DoesMore` unless the function has returned what `model.fit` did."""
        if self._result is None:
            raise _DoesMore("does not call `model.fit`")
        if result is None or result is not self._result():
            raise _DoesMore("returns something else than what `model.fit` returns")

    def check_not_kept(self) -> None:
        """Raise `_DoesMore` if someone still has what `model.fit` returned."""
        if self._result is not None and self._result() is not None:
            raise _DoesMore("keeps what `model.fit` returns")
