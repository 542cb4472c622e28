"""Range tests: the loss after a short training, along the learning rate or λ, as one population."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kregs.builders.layer_copies import copy_model
from kregs.files import atomic_path
from kregs.inspection.penalties import penalties
from kregs.inspection.probing import Batch, as_batch, check_model, some_rows, state_kept
from kregs.population import NotStackable
from kregs.population.capacity import members_at_once
from kregs.population.jobs import Job
from kregs.population.keras_internals import learning_rate_of, user_loss_weights
from kregs.population.layout import Layout
from kregs.population.optimizers import OptimizerState
from kregs.population.rows import Feed, Rows, as_rows, epoch_order
from kregs.population.signature import Member, read_member
from kregs.population.training import Training
from kregs.training.compilation import compile_model
from kregs.training.data_checks import check_rows
from kregs.training.proximal import for_copy, is_proximal
from kregs.training.stock_optimizers import unwrapped
from kregs.validation import check_choice, check_integer, check_number, check_seed, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# a rate is still as good as the best if it gives up no more than a tenth of what the best gained
GIVEN_UP = 0.1
# the suggestion stands below the largest rate that is still as good, which is too large for a long
# training: tests/benchmarks/learning_rate_suggestion.py
BELOW = 5.0
# less than that of the loss is no learning
_LEARNT = 0.01
_STEPS = 100
_EPOCHS = 10
_JUDGED_ROWS = 2000
# what TensorFlow or Keras may raise when a stacked model is traced or run first
_REFUSALS = (NotStackable, tf.errors.OpError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True, eq=False)
class RangeTest:
    """What short trainings from one start came to. Made by the functions that end in `_curve`.

    Args:
        name: what was varied: `learning_rate`, `l1` or `l2`.
        runs: one row a training: the value, `seed`, `train` (the mean loss of its last epoch,
            penalties and noise included), `loss` (after it, on the rows that judge, without
            penalties; NaN where it diverged).
        start: the loss on these rows before any training, or with the smallest λ.
        judged_on: the rows that judge, in words.
        suggestion: a value by the rule of the function that made this; `None`: none can be told.
        interval: the smallest and the largest of the neighbouring values that are as good as the
            best: a range to search. `None` without a suggestion.
        notes: what to know about the suggestion.
        one_by_one: why the trainings were not one population; `None`: they were.
    """

    name: str
    runs: pd.DataFrame
    start: float
    judged_on: str
    suggestion: float | None
    interval: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    one_by_one: str | None = None

    @property
    def best(self) -> float | None:
        """The value with the lowest mean loss; `None` if all diverged."""
        frame = self.to_frame()
        known = frame["loss"].notna()
        return float(frame[self.name][frame["loss"][known].idxmin()]) if known.any() else None

    def to_frame(self) -> pd.DataFrame:
        """Return one row a value, in increasing order.

        Its columns are the value, `train` and `loss` (means over seeds; NaN where any diverged),
        `standard_error` of `loss` and `diverged` (how many did).
        """
        return _means(self.runs, self.name)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return the figure: loss by value, start, suggestion, interval, and what diverged.

        Args:
            path: also write the figure there (`.png`, `.pdf`, `.svg`).
        """
        from kregs.reporting.figures.range_test import range_test

        figure = range_test(
            self.to_frame(),
            self.name,
            start=self.start,
            judged_on=self.judged_on,
            suggestion=self.suggestion,
            interval=self.interval,
        )
        if path is not None:
            with atomic_path(path) as temporary:
                figure.savefig(temporary)
        return figure

    def __repr__(self) -> str:
        said = "none" if self.suggestion is None else f"{self.suggestion:.3g}"
        values = self.runs[self.name].nunique()
        return f"<RangeTest: {values} values of {self.name}, suggestion {said}>"

    def __str__(self) -> str:
        if self.suggestion is None:
            lines = [f"{self.name}: no suggestion"]
        else:
            low, high = self.interval  # type: ignore[misc]
            lines = [f"{self.name}: {self.suggestion:.3g}, as good from {low:.3g} to {high:.3g}"]
        lines += self.notes
        if self.one_by_one is not None:
            lines.append(f"trained one by one: {self.one_by_one}")
        frame = self.to_frame().to_string(index=False, float_format="{:.4g}".format)
        return "\n".join(
            [
                *lines,
                f"loss without penalties on {self.judged_on}, at first {self.start:.4g}",
                frame,
            ]
        )


def learning_rate_curve(
    build_or_model: Any,
    x: Any,
    y: Any,
    *,
    learning_rates: Iterable[float] | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int = 32,
    validation_data: Any = None,
    validation_split: float = 0.0,
    sample_weight: Any = None,
    seeds: int = 1,
    seed: int = 0,
    max_members: int | None = None,
) -> RangeTest:
    """Train a model for a few steps at each of many learning rates, as one population.

    Every rate has a run of its own, from the same weights, over the same batches. In the range test
    of Smith (2017) one run goes through all rates, so that each is judged by the weights that the
    smaller ones have left, and by a loss that lags behind.

    The suggestion: of the rates next to the best one, upwards, the largest that gave up no more
    than a tenth of what the best gained over the start (or than its standard error over seeds),
    divided by 5, since a rate that is still good for few steps is too large for many (measured, see
    the page on range tests). There is none where no rate lowered the loss by a hundredth.

    Args:
        build_or_model: a compiled model, which stays as it is; or `build(hp)`, `build()` or a
            HyperModel that returns one (with the default of each hyperparameter). Its learning
            rate must be a number, no schedule; its optimizer's other numbers are used as they are.
        x, y: arrays, rows first; lists or dictionaries of them for several inputs and outputs.
        learning_rates: numbers > 0. Default: 29 from 1e-6 to 10, four a decade.
        steps: of each run. Default: 100. From one epoch on they are rounded up to whole epochs.
        epochs: of each run, instead of `steps`.
        batch_size: rows a step.
        validation_data: `(x, y)` or `(x, y, sample_weight)`: the rows that judge. Default: 2000 of
            the training rows, evenly spread.
        validation_split: share of the rows, the last ones as in Keras, that judges instead.
        sample_weight: `(rows,)`.
        seeds: runs of each rate: `seed`, `seed` + 1, ... draw other batches and, with a `build`,
            other initial weights.
        seed: of the first.
        max_members: how many train at once. Default: what memory and cache suggest.

    Returns:
        A `RangeTest`: `.suggestion`, `.interval`, `.to_frame()`, `.plot()`. A model that cannot be
        stacked is trained one by one by `fit`, and `.one_by_one` says why.

    Raises:
        TypeError, ValueError: the model is not compiled, its learning rate is a schedule, data do
            not fit it, or an argument is out of bounds.

    Example:

    >>> import keras, kregs, numpy as np
    >>> def build():
    ...     model = kregs.linear((3,), 1)
    ...     return kregs.compile_model(model, "mse", optimizer="sgd")
    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    >>> curve = kregs.learning_rate_curve(build, x, x.sum(1), learning_rates=[1e-4, 0.03, 0.1, 9])
    >>> curve.best, int(curve.to_frame()["diverged"].sum())
    (0.1, 1)
    >>> round(curve.suggestion, 3)
    0.02

    References:
        Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3.
    """
    if learning_rates is None:
        rates = np.logspace(-6, 1, 29).tolist()
    else:
        rates = _numbers("learning_rates", learning_rates, above=0.0)
    plan = _Plan("learning_rate", steps, epochs, batch_size, seeds, seed, max_members)
    starts = _starts(build_or_model, x, plan)
    for model in starts:
        if isinstance(
            learning_rate_of(unwrapped(model.optimizer)),
            keras.optimizers.schedules.LearningRateSchedule,
        ):
            raise ValueError(
                "`build_or_model` must have a learning rate that is a number, so that others can "
                "be tried. Received: a schedule"
            )
    data = _data(starts[0], x, y, sample_weight, validation_data, validation_split)
    # at rate 0 nothing is learnt: the loss of the start
    result = _measure(starts, plan, data, [0.0, *rates])
    return _with_suggestion(result, _suggest_rate)


def penalty_curve(
    build_or_model: Any,
    x: Any,
    y: Any,
    *,
    penalty: str = "l2",
    values: Iterable[float] | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    validation_data: Any = None,
    validation_split: float = 0.2,
    sample_weight: Any = None,
    seeds: int = 1,
    seed: int = 0,
    max_members: int | None = None,
) -> RangeTest:
    """Train a model for a few epochs with each of many λ, as one population: a quick look.

    Every λ has a run of its own, from the same weights, over the same batches, and is judged by the
    loss of the validation data without penalties, since `val_loss` favours λ = 0. λ is the
    coefficient of one penalty, L2 or L1, on all kernels (of inputs and recurrent states): it stands
    in place of theirs, other penalties stay.

    The suggestion is the λ with the lowest mean loss. A few epochs on one split show where λ begins
    to matter and where it harms; a λ is chosen by `kregs.regularization_path` or `kregs.tune`, for
    which `.interval` is a range.

    Args:
        build_or_model, x, y, batch_size, sample_weight, seeds, seed, max_members: as in
            `kregs.learning_rate_curve`.
        penalty: `"l2"` or `"l1"`.
        values: λ, numbers >= 0. Default: 0, and 13 from 1e-6 to 1.
        epochs: of each run. Default: 10.
        steps: of each run, instead of `epochs`.
        validation_data: `(x, y)` or `(x, y, sample_weight)`: the rows that judge.
        validation_split: share of the rows, the last ones as in Keras, that judges otherwise.

    Returns:
        A `RangeTest`: `.suggestion`, `.interval`, `.to_frame()`, `.plot()`.

    Raises:
        TypeError, ValueError: the model is not compiled or has no kernel, there are no validation
            rows, data do not fit, or an argument is out of bounds.

    Example:

    >>> import kregs, numpy as np
    >>> model = kregs.compile_model(kregs.linear((3,), 1), "mse", learning_rate=0.1)
    >>> x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    >>> curve = kregs.penalty_curve(model, x, x.sum(1), values=[0, 0.1, 10], epochs=20)
    >>> curve.suggestion, curve.to_frame()["loss"].is_monotonic_increasing
    (0.0, True)
    """
    check_choice("penalty", penalty, ("l2", "l1"))
    if values is None:
        strengths = [0.0, *np.logspace(-6, 0, 13).tolist()]
    else:
        strengths = _numbers("values", values, minimum=0.0)
    if steps is None and epochs is None:
        epochs = _EPOCHS
    plan = _Plan(penalty, steps, epochs, batch_size, seeds, seed, max_members)
    starts = _starts(build_or_model, x, plan)
    if not _kernels(starts[0]):
        raise ValueError(
            "`build_or_model` must have a kernel that is trained, which a penalty could restrain. "
            "Received: a model without"
        )
    if validation_data is None and validation_split == 0:
        raise ValueError(
            "`validation_split` must be above 0 without `validation_data`: rows that were trained "
            "on always prefer λ = 0. Received: validation_split=0"
        )
    data = _data(starts[0], x, y, sample_weight, validation_data, validation_split)
    result = _measure(starts, plan, data, strengths)
    return _with_suggestion(result, _suggest_strength)


# ---- arguments -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is varied, and how long and how often each value is trained."""

    name: str
    steps: int | None
    epochs: int | None
    batch_size: int
    seeds: int
    seed: int
    max_members: int | None

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "max_members"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), minimum=1)
        check_integer("batch_size", self.batch_size, minimum=1)
        check_integer("seeds", self.seeds, minimum=1)
        check_seed("seed", self.seed)
        if self.steps is not None and self.epochs is not None:
            raise ValueError(
                "`steps` and `epochs` were both given: give one. "
                f"Received: steps={self.steps}, epochs={self.epochs}"
            )

    def length(self, rows: int) -> tuple[int, int | None]:
        """Return the epochs of a run, and how many rows an epoch has; `None`: all."""
        if self.epochs is not None:
            return self.epochs, None
        steps = self.steps or _STEPS
        in_epoch = math.ceil(rows / self.batch_size)
        if steps < in_epoch:
            return 1, steps * self.batch_size
        return math.ceil(steps / in_epoch), None


def _numbers(name: str, values: Any, **bounds: float) -> list[float]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"`{name}` must be a list of numbers. Received: {in_words(values)}")
    numbers = [check_number(f"{name}[{i}]", value, **bounds) for i, value in enumerate(values)]
    if len(set(numbers)) < 2 or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"`{name}` must hold at least 2 different numbers. Received: {name}={numbers}"
        )
    return sorted(numbers)


def _starts(build_or_model: Any, x: Any, plan: _Plan) -> list[keras.Model]:
    """Return the compiled model that each seed starts from."""
    if isinstance(build_or_model, keras.Model):
        check_model(build_or_model, compiled=True)
        return [build_or_model] * plan.seeds
    # the random state is Keras's affair, which only a search has had to put back so far
    from kregs.search.randomness import preserved_state

    starts = []
    for number in range(plan.seeds):
        with preserved_state():
            keras.utils.set_random_seed((plan.seed + number) % 2**32)
            model = _built(build_or_model)
            if isinstance(model, keras.Sequential) and not model.built:
                model.build((None, *np.shape(x)[1:]))
        check_model(model, compiled=True)
        starts.append(model)
    return starts


def _built(build: Any) -> Any:
    """Call `build()` or build at the default point of its hyperparameters."""
    from kregs.search.build import explore, make_hypermodel

    if not (callable(build) or hasattr(build, "build")) or isinstance(
        build, (type, keras.layers.Layer)
    ):
        raise TypeError(
            "`build_or_model` must be a compiled Keras model, a function that returns one, or a "
            f"HyperModel object. Received: build_or_model={in_words(build)}"
        )
    if callable(build) and _takes_nothing(build):
        return _returned(build)
    return explore(make_hypermodel(build))[1]


def _takes_nothing(build: Callable[..., Any]) -> bool:
    try:
        inspect.signature(build).bind()
    except (TypeError, ValueError):  # it takes `hp`, or is in C and tells no signature
        return False
    return True


def _returned(build: Callable[[], Any]) -> Any:
    model = build()
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`build_or_model` must be a compiled model, or a function that returns one. "
            f"Received: {in_words(model)}"
        )
    return model


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows to train on, rows that judge, and what these are."""

    train: Batch
    judge: Batch
    judged_on: str


def _data(
    model: keras.Model, x: Any, y: Any, sample_weight: Any, validation: Any, share: float
) -> _Rows:
    check_number("validation_split", share, minimum=0.0, below=1.0)
    check_rows(x, y, sample_weight, model=model, training=True)
    rows = as_batch(x, y, sample_weight, model)
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise TypeError(
                "`validation_data` must be (x, y) or (x, y, sample_weight). "
                f"Received: {in_words(validation)}"
            )
        check_rows(*validation, model=model, name="validation_data[{}]")
        x, y, sample_weight = (*validation, None)[:3]
        judge = as_batch(x, y, sample_weight, model)
        return _Rows(rows, judge, f"{len(judge)} validation rows")
    if share:
        cut = int(len(rows) * (1.0 - share))
        if not 0 < cut < len(rows):
            raise ValueError(
                "`validation_split` must leave rows on both sides. "
                f"Received: validation_split={share} of {len(rows)} rows"
            )
        judge = rows.take(slice(cut, None))
        return _Rows(rows.take(slice(0, cut)), judge, f"{len(judge)} validation rows")
    judge = some_rows(rows, _JUDGED_ROWS)
    return _Rows(rows, judge, f"{len(judge)} training rows")


# ---- training ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Setting:
    """How a value is put into a model.

    Args:
        learning_rate: to train with; `None`: the model's own.
        strength: kind and coefficient of the penalty on kernels; `None`: the model's own.
    """

    learning_rate: float | None = None
    strength: tuple[str, float] | None = None


def _measure(
    starts: Sequence[keras.Model],
    plan: _Plan,
    data: _Rows,
    values: Sequence[float],
) -> RangeTest:
    """Train each value from each start, as one population where that can be."""
    of_rate = plan.name == "learning_rate"
    settings = [
        _Setting(learning_rate=value) if of_rate else _Setting(strength=(plan.name, value))
        for value in values
    ]
    try:
        logs, reason = _stacked(starts, plan, data, settings), None
    except _REFUSALS as error:
        reason = str(error).strip().splitlines()[0]
        logs = [
            _alone(model, plan, data, each, number)
            for number, model in enumerate(starts)
            for each in settings
        ]
    rows = []
    for (number, value), log in zip(
        ((n, v) for n in range(len(starts)) for v in values), logs, strict=True
    ):
        loss, train = log.get("val_data_loss", math.nan), log.get("loss", math.nan)
        finite = math.isfinite(loss) and math.isfinite(train)
        rows.append((value, plan.seed + number, train, loss if finite else math.nan))
    runs = pd.DataFrame(rows, columns=[plan.name, "seed", "train", "loss"])
    is_start = runs[plan.name] == min(values)
    start = float(runs["loss"][is_start].mean())
    return RangeTest(
        plan.name,
        runs[~is_start].reset_index(drop=True) if of_rate else runs,
        start,
        data.judged_on,
        None,
        None,
        one_by_one=reason,
    )


def _stacked(
    starts: Sequence[keras.Model], plan: _Plan, data: _Rows, settings: Sequence[_Setting]
) -> list[dict[str, float]]:
    """Return the last logs of every training, start by start, trained as one population."""
    train, judge = _as_rows(data.train), _as_rows(data.judge)
    epochs, width = plan.length(len(train))
    by_start: dict[int, tuple[OptimizerState | None, list[Member]]] = {}
    jobs = []
    for number, model in enumerate(starts):
        if id(model) not in by_start:
            state = _optimizer_state(model)
            if plan.name == "learning_rate":
                members = [read_member(_twin(model, None))] * len(settings)
            else:
                members = [read_member(_twin(model, each.strength)) for each in settings]
            by_start[id(model)] = state, members
        state, members = by_start[id(model)]
        seed = (plan.seed + number) % 2**32
        rows = None if width is None else epoch_order(seed, 0, len(train))[:width]
        jobs += [
            Job(
                member, None, seed, [], epochs,
                train_rows=rows, state=state, learning_rate=each.learning_rate,
            )
            for member, each in zip(members, settings, strict=True)
        ]  # fmt: skip
    layout = Layout(list({id(job.member): job.member for job in jobs}.values()))
    feed = Feed(train, judge, plan.batch_size)
    slots = min(len(jobs), members_at_once(layout, feed.step_rows, plan.max_members))
    training = Training(layout, slots, feed)
    for _ in training.run(collections.deque(jobs)):
        pass
    return [{} if job.failure else job.logs for job in jobs]


def _as_rows(batch: Batch) -> Rows:
    for part in (batch.x, batch.y):
        if not isinstance(part, np.ndarray):
            raise NotStackable("curves of several inputs or outputs are not stacked")
    return as_rows(batch.x, batch.y, batch.sample_weight)


def _optimizer_state(model: keras.Model) -> OptimizerState | None:
    """Return what a model's optimizer has gathered; `None` if it is fresh."""
    member = read_member(model)
    return Layout([member]).state_of(member)


def _twin(model: keras.Model, strength: tuple[str, float] | None) -> keras.Model:
    """Return a copy whose logs have the data loss, with another penalty on its kernels if given."""
    if user_loss_weights(model) is not None:
        raise NotStackable("the model is compiled with `loss_weights`")
    twin = copy_model(model)
    # one optimizer for all: its numbers are read, its variables are each member's own; a proximal
    # one may know the weights that it thresholds by the model
    optimizer = model.optimizer
    if is_proximal(optimizer):
        optimizer = for_copy(optimizer, model.weights, twin.weights)
    compile_model(twin, model.loss, optimizer=optimizer)
    if strength is not None:
        for variable in _kernels(twin):
            variable.regularizer = _restrained(variable.regularizer, *strength)
    return twin


def _kernels(model: keras.Model) -> list[Any]:
    return [v for v in model.trainable_variables if v.name.endswith("kernel") and v.ndim > 1]


def _restrained(regularizer: Any, kind: str, value: float) -> Any:
    """Return a kernel's penalty with one coefficient changed; one of another kind is replaced."""
    present = {name: float(getattr(regularizer, name, 0.0)) for name in ("l1", "l2")}
    known = type(regularizer) in (
        keras.regularizers.L1,
        keras.regularizers.L2,
        keras.regularizers.L1L2,
    )
    return keras.regularizers.L1L2(**{**(present if known else {}), kind: value})


def _alone(
    model: keras.Model, plan: _Plan, data: _Rows, setting: _Setting, number: int
) -> dict[str, float]:
    """Return what one training by `fit` came to; the model is put back as it was."""
    seed = (plan.seed + number) % 2**32
    count = len(data.train)
    epochs, width = plan.length(count)
    own = epoch_order(seed, 0, count)[:width] if width is not None else np.arange(count)
    logs: dict[str, float] = {}
    with _put_back(model):
        if setting.learning_rate is not None:
            model.optimizer.learning_rate = setting.learning_rate
        if setting.strength is not None:
            for variable in _kernels(model):
                variable.regularizer = _restrained(variable.regularizer, *setting.strength)
        for epoch in range(epochs):
            rows = data.train.take(own[epoch_order(seed, epoch, len(own))])
            history = model.fit(
                rows.x,
                rows.y,
                sample_weight=rows.sample_weight,
                batch_size=plan.batch_size,
                shuffle=False,
                verbose=0,
            )
            logs = {"loss": float(history.history["loss"][-1])}
            if not math.isfinite(logs["loss"]):
                return logs
        judge = data.judge
        after = penalties(model, judge.x, judge.y, sample_weight=judge.sample_weight)
        return {**logs, "val_data_loss": (after.loss or 0.0) - after.total}


@contextlib.contextmanager
def _put_back(model: keras.Model) -> Iterator[None]:
    """Put back a model's weights, state, penalties and optimizer when the block ends."""
    optimizer = model.optimizer
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    variables = [*model.trainable_variables, *optimizer.variables]
    before = [(variable, tf.identity(variable.value)) for variable in variables]
    regularizers = [(variable, copy.copy(variable.regularizer)) for variable in _kernels(model)]
    history = getattr(model, "history", None)
    with state_kept(model):
        _forget_graphs(model)  # into which λ is written
        try:
            yield
        finally:
            for variable, value in before:
                variable.assign(value)
            for variable, regularizer in regularizers:
                variable.regularizer = regularizer
            _forget_graphs(model)
            model.history = history


def _forget_graphs(model: keras.Model) -> None:
    model.train_function = model.test_function = None


# ---- suggestions ---------------------------------------------------------------------------


def _means(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    groups = runs.groupby(name, sort=True)
    diverged = groups["loss"].apply(lambda losses: int(losses.isna().sum()))
    frame = pd.DataFrame(
        {
            "train": groups["train"].mean(),
            "loss": groups["loss"].mean().where(diverged == 0),
            "standard_error": groups["loss"].sem().where(diverged == 0),
            "diverged": diverged,
        }
    )
    return frame.reset_index()


def _with_suggestion(
    result: RangeTest, rule: Callable[[RangeTest, pd.DataFrame, int], RangeTest]
) -> RangeTest:
    frame = result.to_frame()
    if frame["loss"].isna().all():
        return dataclasses.replace(result, notes=("all trainings diverged",))
    return rule(result, frame, int(frame["loss"].argmin()))


def _as_good(frame: pd.DataFrame, best: int, given_up: float) -> tuple[int, int]:
    """Return the first and last of the neighbouring rows that are as good as the best one."""
    losses = frame["loss"].to_numpy(float)
    error = frame["standard_error"].to_numpy(float)[best]
    allowed = losses[best] + max(given_up, 0.0 if math.isnan(error) else error)
    good = losses <= allowed  # not where it is NaN
    first = last = best
    while first > 0 and good[first - 1]:
        first -= 1
    while last + 1 < len(losses) and good[last + 1]:
        last += 1
    return first, last


def _suggest_rate(result: RangeTest, frame: pd.DataFrame, best: int) -> RangeTest:
    rates, losses = frame["learning_rate"].to_numpy(float), frame["loss"].to_numpy(float)
    gained = result.start - losses[best]
    if not gained > _LEARNT * abs(result.start):
        note = "no rate lowers the loss by a hundredth: more steps, or another model"
        return dataclasses.replace(result, notes=(note,))
    first, last = _as_good(frame, best, GIVEN_UP * gained)
    notes = []
    if last == len(rates) - 1:
        notes.append("the loss has not risen at the largest rate: try larger ones")
    if last == 0:
        notes.append("the smallest rate is the best: try smaller ones")
    return dataclasses.replace(
        result,
        suggestion=float(rates[last] / BELOW),
        interval=(float(rates[first]), float(rates[last])),
        notes=tuple(notes),
    )


def _suggest_strength(result: RangeTest, frame: pd.DataFrame, best: int) -> RangeTest:
    strengths, losses = frame[result.name].to_numpy(float), frame["loss"].to_numpy(float)
    spread = float(np.nanmax(losses) - losses[best])
    first, last = _as_good(frame, best, 0.05 * abs(losses[best]))
    notes = []
    if spread <= 0.01 * abs(losses[best]):
        notes.append("no λ matters so far: more epochs, or larger ones")
    elif last == len(strengths) - 1:
        notes.append("the largest λ does no harm: try larger ones")
    elif best == 0 or losses[0] - losses[best] <= 0.01 * abs(losses[best]):
        notes.append("no λ is better than the smallest by a hundredth in so few epochs")
    return dataclasses.replace(
        result,
        suggestion=float(strengths[best]),
        interval=(float(strengths[first]), float(strengths[last])),
        notes=tuple(notes),
    )
