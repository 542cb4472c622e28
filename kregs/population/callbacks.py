"""Callbacks of one member: which can serve it, what they see as `model`, how they are called.

Early stopping, plateaus, schedules and the check for NaN see a `CallbackModel`, which costs no copy
of a weight. Every other callback sees a `ModelView`: a Keras model of the member's own, into which
the numbers of its slot are put when the callback looks at them, and from which they are taken back
where it has changed them.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from kregs.population.keras_internals import (
    learning_rate_of,
    profiles_batches,
    set_steps_taken,
)
from kregs.population.optimizers import OptimizerState
from kregs.population.registry import NotStackable
from kregs.population.signature import Member

# these look at one member's logs, weights and learning rate by way of `CallbackModel` alone
KNOWN_CALLBACKS = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.TerminateOnNaN,
)
_BATCH_HOOKS = [
    f"on_{what}batch_{when}"
    for what in ("", "train_", "test_", "predict_")
    for when in ("begin", "end")
]
# stock callbacks whose hooks of batches do nothing, as long as they are configured so
_BY_EPOCH: dict[type, Callable[[Any], bool]] = {
    keras.callbacks.ModelCheckpoint: lambda callback: callback.save_freq == "epoch",
    keras.callbacks.TensorBoard: lambda callback: (
        callback.update_freq == "epoch" and not profiles_batches(callback)
    ),
    keras.callbacks.TerminateOnNaN: lambda callback: True,
}


# ---- which can serve ---------------------------------------------------------------------------


def check_callbacks(callbacks: Iterable[Any]) -> None:
    """Check that callbacks can serve one member of a population.

    Raises:
        TypeError: something is no keras callback.
        NotStackable: a callback wants to see batches; the message names its hooks.

    Example:

    >>> check_callbacks([keras.callbacks.CSVLogger("log.csv")])
    >>> check_callbacks([keras.callbacks.ModelCheckpoint("best.keras", save_freq=10)])
    Traceback (most recent call last):
        ...
    kregs.population.registry.NotStackable: the callback ModelCheckpoint has on_train_batch_end, ...
    """
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"`callbacks` must hold keras callbacks. Received: {callback!r}")
        hooks = batch_hooks(callback)
        if hooks:
            raise NotStackable(
                f"the callback {type(callback).__name__} has {', '.join(hooks)}, and a population "
                "calls hooks of epochs only"
            )


def batch_hooks(callback: keras.callbacks.Callback) -> list[str]:
    """Return the names of the hooks by which a callback, as it is configured, sees batches.

    Example:

    >>> batch_hooks(keras.callbacks.LambdaCallback(on_train_batch_end=print))
    ['on_train_batch_end']
    >>> batch_hooks(keras.callbacks.LambdaCallback(on_epoch_end=print))
    []
    """
    return [name for name in _BATCH_HOOKS if _sees_batches(callback, name)]


def _overrides(callback: keras.callbacks.Callback, name: str) -> bool:
    if vars(callback).get(name) is not None:  # a LambdaCallback's
        return True
    return getattr(type(callback), name) is not getattr(keras.callbacks.Callback, name)


def _sees_batches(callback: keras.callbacks.Callback, name: str) -> bool:
    if not _overrides(callback, name):
        return False
    hook = getattr(callback, name)
    hook = getattr(hook, "__func__", hook)
    return not any(
        isinstance(callback, kind) and hook is getattr(kind, name) and is_by_epoch(callback)
        for kind, is_by_epoch in _BY_EPOCH.items()
    )


def _is_known(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback is content with a `CallbackModel`; a user's own subclass may not be."""
    kind = type(callback)
    own = kind.__module__.partition(".")[0] == "kregs" and issubclass(kind, KNOWN_CALLBACKS)
    return kind in KNOWN_CALLBACKS or own or getattr(kind, "only_learning_rate", False)


def look_at_models(callbacks: Iterable[keras.callbacks.Callback]) -> bool:
    """Whether any callback may look at the member's own Keras model."""
    return not all(map(_is_known, callbacks))


def _is_stock(callback: keras.callbacks.Callback) -> bool:
    """Whether it is Keras's own class, which looks at the model anew in every hook."""
    return type(callback).__module__.partition(".")[0] == "keras"


# ---- what they count ---------------------------------------------------------------------------

# Keras's own facts about a training; it gives `min_delta` its sign in the first epoch of each
_NO_COUNTERS = ("params", "model", "min_delta")
# the one knows where the averages are, and a training begins with them swapped back; the other
# looks at its file when a training begins
_COUNTS_NOTHING = (keras.callbacks.SwapEMAWeights, keras.callbacks.CSVLogger)


def counters_of(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the numbers that a callback counts by: how long it has waited, its best value.

    `on_train_begin` sets them back; a training that goes on where an earlier one ended needs them
    (`set_counters`). Numbers and lists and dictionaries of them, which JSON can hold.

    Example:

    >>> stopping = keras.callbacks.EarlyStopping(patience=4)
    >>> stopping.on_train_begin()
    >>> stopping.wait = 3
    >>> counters = counters_of(stopping)
    >>> stopping.on_train_begin()
    >>> set_counters(stopping, counters)
    >>> stopping.wait, stopping.patience
    (3, 4)
    """
    if isinstance(callback, _COUNTS_NOTHING):
        return {}
    return {
        name: _plain(value)
        for name, value in vars(callback).items()
        if name.lstrip("_") not in _NO_COUNTERS and _counts(value)
    }


def set_counters(callback: keras.callbacks.Callback, counters: Mapping[str, Any]) -> None:
    """Let a callback count on from where another one has come, see `counters_of`."""
    for name, value in counters.items():
        setattr(callback, name, copy.deepcopy(value))


def _counts(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _counts(part) for key, part in value.items())
    if isinstance(value, list):
        return all(map(_counts, value))
    return isinstance(value, (bool, int, float, np.number, np.bool_))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


# ---- what known callbacks see ------------------------------------------------------------------


class _FacadeOptimizer:
    """What a known callback sees as `model.optimizer`: one member's learning rate."""

    def __init__(self, optimizer: Any) -> None:
        self._given = learning_rate_of(optimizer)
        self.constant: float | None = None  # of a schedule
        if not isinstance(self._given, keras.optimizers.schedules.LearningRateSchedule):
            self.constant = float(keras.ops.convert_to_numpy(self._given))

    @property
    def learning_rate(self) -> Any:
        if self.constant is None:
            return self._given
        # float32 as in the optimizer, so that callbacks compute the same next value
        return np.float32(self.constant) if keras.config.floatx() != "float64" else self.constant

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        if self.constant is None:
            raise TypeError(
                "This optimizer was created with a learning-rate schedule, so its learning rate "
                "cannot be set by a callback."
            )
        self.constant = float(np.asarray(value, keras.config.floatx()))

    @property
    def _learning_rate(self) -> Any:  # by Keras's name, for `learning_rate_of`
        return self.learning_rate


class MemberModel:
    """What the callbacks of one member share: its facts that need no weights.

    Args:
        metrics: as `model.metrics` is in `fit`; all members have the same.
        member: the member's model, whose learning rate is its own.

    Attributes:
        stop_training: whether a callback has ended it.
        optimizer: with its learning rate.
        history: as `model.history` is in `fit`.
        keep_requested: the names under which the weights after this epoch are to be kept.
        restored: the name of those that were restored last, `None` for the present ones.
    """

    def __init__(self, metrics: Sequence[Any], member: keras.Model) -> None:
        self.stop_training = False
        self.optimizer = _FacadeOptimizer(member.optimizer)
        self.history = keras.callbacks.History()
        self.metrics = metrics
        self.keep_requested: set[str] = set()
        self.restored: str | None = None

    def adopt(self, member: keras.Model) -> None:
        """Go on with the learning rate of another model."""
        self.optimizer = _FacadeOptimizer(member.optimizer)


class CallbackModel:
    """What one known callback sees as `model`: one member of the population.

    Keras's own callbacks run on it, so that stopping and learning-rate rules are Keras's. The
    weights never leave the device: `get_weights` returns the name that they are kept under, one a
    callback, since two that restore have each their own best epoch.

    Args:
        model: what all callbacks of the member share.
        number: of the callback, counted from 0.
    """

    def __init__(self, model: MemberModel, number: int) -> None:
        self._model = model
        self._name = f"callback {number}"

    @property
    def metrics(self) -> Sequence[Any]:
        return self._model.metrics

    @property
    def optimizer(self) -> Any:
        return self._model.optimizer

    @property
    def stop_training(self) -> bool:
        return self._model.stop_training

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._model.stop_training = value

    def get_weights(self) -> str:
        self._model.keep_requested.add(self._name)
        return self._name

    def set_weights(self, name: str) -> None:
        self._model.restored = name


# ---- what all others see -----------------------------------------------------------------------


class SlotValues(Protocol):
    """Where the numbers of a member are while it trains: a slot of a program."""

    def weights(self) -> list[np.ndarray]:
        """Return its weights, in the order of `Member.weights`."""

    def state(self) -> OptimizerState:
        """Return its optimizer's state."""

    def write(self, weights: list[np.ndarray], state: OptimizerState) -> None:
        """Let the slot go on with others."""

    def steps(self) -> int:
        """Return how many steps its optimizer has taken."""

    def put_weights(self, member: Member, weights: list[np.ndarray]) -> None:
        """Put weights into a Keras model."""

    def put_state(self, member: Member, state: OptimizerState) -> None:
        """Put a state into the optimizer of a Keras model."""

    def state_in(self, member: Member) -> OptimizerState | None:
        """Return the state of a Keras model's optimizer, `None` if it is not built."""


class OwnModel:
    """A member's own Keras model, and how far it has the numbers of the slot.

    Nothing is made or copied before a callback looks. A user's callback that has looked once may
    hold a layer or a variable: before each of its later hooks, the numbers are put there.

    Args:
        shared: what the member's callbacks share.
        kind: the class of the model.
        make: returns the model, read; called when it is first needed.
        values: of the slot.
    """

    def __init__(
        self, shared: MemberModel, kind: type, make: Callable[[], Member], values: SlotValues
    ) -> None:
        self.shared = shared
        self.kind = kind
        self._make = make
        self._values: SlotValues | None = values
        self._member: Member | None = None
        self._optimizer: Any = None
        self._trainable: list[bool] = []
        self.has_looked = False  # any callback, at weights
        # the model has what the slot has
        self._current = self._state_current = self._steps_current = False
        self._looked = self._state_looked = self._rate_looked = False  # in this hook
        self._held: set[int] = set()  # callbacks that may hold parts of the model
        self._state_held: set[int] = set()  # ... or of the optimizer
        self._rate_held: set[int] = set()  # ... or the learning rate
        self._put_weights: list[np.ndarray] = []
        self._put_state: OptimizerState | None = None
        self._rates: tuple[float | None, float | None] = None, None  # the slot's, the model's

    @property
    def model(self) -> Any:
        """The Keras model, whatever numbers it has."""
        if self._member is None:
            self._member = self._make()
            self._optimizer = self._member.model.optimizer
            self._trainable = [v.trainable for v in self._member.weights]
        return self._member.model

    def stale(self) -> None:
        """Say that the slot has other numbers now."""
        self._current = self._state_current = self._steps_current = False

    def detach(self) -> None:
        """Leave the slot: from now on the model is a model like any other."""
        self._values = None

    def look_at_rate(self) -> Any:
        """Return the model's optimizer with learning rate and step count of the slot."""
        optimizer = self.model.optimizer
        if self._values is None:
            return optimizer
        self._rate_looked = True
        constant = self.shared.optimizer.constant
        if constant is not None and constant != self._rates[0]:
            optimizer.learning_rate = constant
            self._rates = constant, _rate_in(optimizer)
        if not self._steps_current:
            set_steps_taken(optimizer, self._values.steps())
            self._steps_current = True
        return optimizer

    def look(self, *, at_weights: bool = False) -> Any:
        """Return the model with all numbers of the slot, or with its weights alone."""
        self.look_at_rate()
        if self._values is None or self._member is None:
            return self.model
        self._looked = self.has_looked = True
        if not self._current:
            self._take_rate()  # which it may have set before it looks
            self._put_weights = self._values.weights()
            self._values.put_weights(self._member, self._put_weights)
            self._current = True
        if not at_weights:
            self._look_at_state()
        return self.model

    def _look_at_state(self) -> None:
        self._state_looked = True
        if not self._state_current:
            self._take_rate()
            self._put_state = self._values.state()  # type: ignore[union-attr]
            self._values.put_state(self._member, self._put_state)  # type: ignore[union-attr, arg-type]
            self._state_current = True

    @contextlib.contextmanager
    def shown(self, callback: keras.callbacks.Callback) -> Iterator[None]:
        """Let a callback have the model for one hook, and take back what it has changed.

        Raises:
            NotStackable: it has changed something that a population cannot follow.
        """
        self._looked = self._state_looked = self._rate_looked = False
        if id(callback) in self._held:
            self.look(at_weights=id(callback) not in self._state_held)
        elif id(callback) in self._rate_held:
            self.look_at_rate()
        yield
        if not _is_stock(callback):
            for looked, held in (
                (self._looked, self._held),
                (self._state_looked, self._state_held),
                (self._rate_looked, self._rate_held),
            ):
                if looked:
                    held.add(id(callback))
        self._take_back(type(callback).__name__)

    def _take_back(self, name: str) -> None:
        if self._values is None or self._member is None:
            return
        if self.model.optimizer is not self._optimizer:
            raise NotStackable(f"the callback {name} compiles the model anew")
        self._take_rate()
        if not self._looked:
            return
        if [v.trainable for v in self._member.weights] != self._trainable:
            raise NotStackable(f"the callback {name} changes which weights are trained")
        weights = self._weights()
        changed = not all(map(np.array_equal, weights, self._put_weights))
        state: OptimizerState | None = None
        if self._state_looked:
            state = self._values.state_in(self._member)
            changed = changed or _differ(state, self._put_state)
        if changed:
            self._values.write(weights, self._values.state() if state is None else state)
            self._put_weights, self._current = weights, True
            if state is not None:
                self._put_state, self._state_current, self._steps_current = state, True, True

    def _take_rate(self) -> None:
        if self._rate_looked and self._rates[0] is not None:
            rate = _rate_in(self._optimizer)
            if rate != self._rates[1]:
                self.shared.optimizer.learning_rate = rate
                self._rates = self.shared.optimizer.constant, rate

    def _weights(self) -> list[np.ndarray]:
        return [v.value.numpy() for v in self._member.weights]  # type: ignore[union-attr]


def _rate_in(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(learning_rate_of(optimizer)))


def _differ(one: OptimizerState | None, other: OptimizerState | None) -> bool:
    """Whether two states differ in any number; the learning rate apart."""
    if one is None or other is None:
        return one is not other
    if (one.steps, one.momentum_step) != (other.steps, other.momentum_step):
        return True
    return not all(map(np.array_equal, one.slots, other.slots))


# what says nothing of weights
_OF_STRUCTURE = {
    "built", "compiled", "count_params", "get_config", "input_shape", "inputs", "loss", "name",
    "output_shape", "outputs", "summary", "to_json",
}  # fmt: skip
# what does not lead to the optimizer
_OF_WEIGHTS = {
    "call", "evaluate", "get_layer", "get_weights", "layers", "non_trainable_variables",
    "non_trainable_weights", "predict", "predict_on_batch", "set_weights", "trainable_variables",
    "trainable_weights", "weights",
}  # fmt: skip
# who asks for these wants to change how the model trains
_OF_TRAINING = {"compile", "make_train_function", "train_function", "train_step", "trainable"}
_SHARED = {"stop_training", "history"}


class _View:
    """What a callback sees in place of an object: its class is the object's, so is all else.

    Args:
        own: the member's model, which is the object or has it.
    """

    _own: OwnModel

    def __init__(self, own: OwnModel) -> None:
        object.__setattr__(self, "_own", own)

    def _object(self, model: Any) -> Any:
        """Return the object, of the model."""
        return model

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._object(self._own.model))

    def __dir__(self) -> Iterable[str]:
        return dir(self._object(self._own.model))

    def __repr__(self) -> str:
        return repr(self._object(self._own.model))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self._object(self._own.look()), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._object(self._own.look()).__reduce_ex__(protocol)


class ModelView(_View):
    """What a callback sees as `model`: in all respects the member's own Keras model."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._own.kind  # known before the model is made

    def __getattr__(self, name: str) -> Any:
        own = self._own
        if name in _SHARED or name == "metrics":
            return getattr(own.shared, name)
        if name == "optimizer":
            return OptimizerView(own)
        if name in _OF_TRAINING - {"trainable"}:
            raise NotStackable(f"a callback asks for `model.{name}`")
        if name not in _OF_STRUCTURE and hasattr(own.model, name):
            own.look(at_weights=name in _OF_WEIGHTS)
        return getattr(own.model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SHARED:
            setattr(self._own.shared, name, value)
        elif name in _OF_TRAINING or name in ("optimizer", "loss"):
            raise NotStackable(f"a callback sets `model.{name}`")
        else:
            setattr(self._own.look(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._own.look(), name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._own.look(at_weights=True)(*arguments, **named)


class OptimizerView(_View):
    """What a callback sees as `model.optimizer`: that of the member's own model."""

    def _object(self, model: Any) -> Any:
        return model.optimizer

    def __getattr__(self, name: str) -> Any:
        own = self._own
        if name in ("learning_rate", "iterations", "_learning_rate"):
            return getattr(own.look_at_rate(), name)
        optimizer = own.model.optimizer
        if hasattr(optimizer, name) or not optimizer.built:  # which gives it slots and averages
            own.look()
        return getattr(optimizer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "learning_rate":
            raise NotStackable(f"a callback sets `model.optimizer.{name}`")
        self._own.look_at_rate().learning_rate = value


def _swaps_for_validation(callback: keras.callbacks.Callback) -> bool:
    return isinstance(callback, keras.callbacks.SwapEMAWeights) and not callback.swap_on_epoch


@contextlib.contextmanager
def _compared_by_numpy(callback: Any) -> Iterator[None]:
    """Let a callback that monitors a metric compare numbers without an operation of TensorFlow."""
    of_library = type(callback).__module__.partition(".")[0] in ("keras", "kregs")
    given = getattr(callback, "monitor_op", None) if of_library else None
    comparison = _COMPARISONS.get(given)
    if comparison is None:
        yield
        return
    callback.monitor_op = functools.partial(_compare, given, comparison)
    try:
        yield
    finally:
        callback.monitor_op = given


_COMPARISONS: dict[Any, Callable[[Any, Any], Any]] = {
    keras.ops.less: operator.lt,
    keras.ops.greater: operator.gt,
}
# TensorFlow takes smaller ones for 0
_SMALLEST, _LARGEST = float(np.finfo("float32").tiny), float(np.finfo("float32").max)


def _compare(given: Any, comparison: Callable[[Any, Any], Any], one: Any, other: Any) -> bool:
    """Compare as Keras does, which rounds Python's numbers to single precision before."""
    for number in (one, other):
        if type(number) is not float or not (
            number == 0.0 or _SMALLEST < abs(number) < _LARGEST or math.isnan(number)
        ):
            return bool(given(one, other))
    return bool(comparison(np.float32(one), np.float32(other)))


# ---- how they are called -----------------------------------------------------------------------


class MemberCallbacks:
    """The callbacks of one member in a slot.

    Args:
        callbacks: its own.
        own: what those see that are not known.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], own: OwnModel) -> None:
        self._callbacks = callbacks
        self._own = own

    @property
    def have_looked(self) -> bool:
        """Whether any has looked at the weights of its model."""
        return self._own.has_looked

    @property
    def see_tests(self) -> bool:
        """Whether any has a hook of validation."""
        return any(
            _overrides(callback, name)
            for callback in self._callbacks
            for name in ("on_test_begin", "on_test_end")
        )

    def begin(self, params: Mapping[str, Any]) -> None:
        """Tell them whose they are, and that training begins."""
        for number, callback in enumerate(self._callbacks):
            known = _is_known(callback)
            model: Any = CallbackModel(self._own.shared, number) if known else ModelView(self._own)
            self._call(callback, "set_model", model)
        for callback in self._callbacks:
            self._call(callback, "set_params", dict(params))
        self.call("on_train_begin", {})

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook of each."""
        for callback in self._callbacks:
            self._call(callback, hook, *arguments)

    def end_epoch(self, epoch: int, last_step: int, logs: dict[str, Any]) -> None:
        """Tell them of an epoch; they may add to its logs."""
        if not math.isfinite(logs["loss"]):
            for callback in self._callbacks:
                # that raises with the batch; otherwise a job that diverges ends by itself
                if getattr(callback, "raise_error", False) and isinstance(
                    callback, keras.callbacks.TerminateOnNaN
                ):
                    callback.on_batch_end(last_step, logs)
        self.call("on_epoch_end", epoch, logs)

    @property
    def judged_by_averages(self) -> bool:
        """Whether an epoch is validated by averages, which are not in the model after it."""
        return any(map(_swaps_for_validation, self._callbacks))

    def swap(self, hook: str) -> None:
        """Put averages into the model as before validation, or back as after it."""
        for callback in filter(_swaps_for_validation, self._callbacks):
            self._call(callback, hook, {})

    def _call(self, callback: keras.callbacks.Callback, hook: str, *arguments: Any) -> None:
        if _is_known(callback):
            with _compared_by_numpy(callback):
                getattr(callback, hook)(*arguments)
            if hook == "on_train_end":  # it may have restored weights
                self._own.stale()
            return
        with self._own.shown(callback):
            getattr(callback, hook)(*arguments)

    def stale(self) -> None:
        """Say that the slot has other numbers now."""
        self._own.stale()

    def detach(self) -> None:
        """Leave the slot."""
        self._own.detach()
