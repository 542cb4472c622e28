"""Stacked optimizers: every hyperparameter a vector of K, every member clipped by its own norm.

The update rules are Keras's, tensor for tensor, checked against `fit`. Keras's own optimizers hold
their numbers as Python floats and clip a stacked variable as one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from kregs.layers.flat_cosine_dropout import flat_cosine
from kregs.population.keras_internals import learning_rate_of, slot_variables
from kregs.population.stacked import per_member, sum_by_member
from kregs.training.optimizer_additions import DEFAULTS as ADDITIONS
from kregs.training.optimizer_additions import is_extended
from kregs.training.proximal import (
    SMALLEST,
    group_soft_threshold,
    is_proximal,
    soft_threshold,
    stock_class,
)

# the three ways to clip gradients; a member uses at most one
CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")


@dataclasses.dataclass
class OptimizerState:
    """What one member's optimizer has gathered.

    Args:
        slots: moments and the like, one array a slot and trainable weight, slot by slot.
        steps: how many steps it has taken.
        learning_rate: its present one, which callbacks may have set; `None`: that of the member.
        momentum_step: of a proximal optimizer with momentum, how far a gradient of 1 has moved.
    """

    slots: list[np.ndarray]
    steps: int
    learning_rate: float | None = None
    momentum_step: float = 0.0


class StackedOptimizer:
    """One optimizer for K members, the base of all forms.

    Its hyperparameters begin as 0: `Program.fill` writes each member's own, read by `read`.

    Args:
        template: the Keras optimizer of one member, which has the settings that all share.
        variables: the stacked trainable variables, `(K, *shape)`.
        members: K.
        weights: the template's own variables, for forms that ask for their names.

    Attributes:
        numbers: names of the hyperparameters that may differ beside learning rate and decay.
        slots: names of what is kept per weight.
        accelerated: whether XLA may compile it.
        decays_itself: whether weight decay is in `apply` and not to be taken before it.
        vectors: the hyperparameters and clipping bounds by name, variables `(K,)`.
        decays: per variable, the weight decay of every member, variables `(K,)`.
        state: per slot, one variable `(K, *shape)` a weight.
        thresholds: per variable, the proximal l1 and group_l1 of every member, variables `(K,)`.
        momentum_step: of every member, see `OptimizerState`, `(K,)`.
        clips: which of `CLIPS` any member uses; set by the program.
        compiled: whether steps are compiled with XLA; set by the program.
        schedules_decay: whether the decay of any falls; set by the program.
        thresholded: which of `thresholds` any has, bool `(variables, 2)`; set by the program.
        group_axes: per variable, the axes of a member's that count its groups; set by the program.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    slots: ClassVar[tuple[str, ...]] = ()
    accelerated: ClassVar[bool] = True
    decays_itself: ClassVar[bool] = False

    def __init__(
        self,
        template: Any,
        variables: Sequence[tf.Variable],
        members: int,
        weights: Sequence[Any] = (),
    ) -> None:
        self.template = template
        self.variables = list(variables)
        self.vectors = {
            name: tf.Variable(np.zeros(members), dtype=keras.config.floatx(), trainable=False)
            for name in (*self.numbers, *CLIPS, *ADDITIONS)
        }
        self.decays = [
            tf.Variable(np.zeros(members), dtype=variable.dtype, trainable=False)
            for variable in self.variables
        ]
        self.state = self.new_state(members, weights)
        self.thresholds = [
            tuple(tf.Variable(tf.zeros_like(decays), trainable=False) for _ in range(2))
            for decays in self.decays
        ]
        self.momentum_step = tf.Variable(
            np.zeros(members), dtype=keras.config.floatx(), trainable=False
        )
        self.clips: tuple[str, ...] = ()
        self.compiled = False
        self.schedules_decay = False
        self.thresholded = np.zeros([len(self.variables), 2], bool)
        self.group_axes: list[tuple[int, ...]] = [()] * len(self.variables)

    def new_state(self, members: int, weights: Sequence[Any]) -> dict[str, list[tf.Variable]]:
        """Make the variables of `state`, of zeros; `members` and `weights` are those given."""
        return {
            slot: [tf.Variable(tf.zeros_like(v), trainable=False) for v in self.variables]
            for slot in self.all_slots(self.template)
        }

    @classmethod
    def slots_of(cls, template: Any) -> tuple[str, ...]:
        """Return the slots that this configuration needs."""
        return cls.slots

    @classmethod
    def all_slots(cls, optimizer: Any) -> tuple[str, ...]:
        """Return the slots that an optimizer keeps, with the slow weights of Lookahead."""
        return (*cls.slots_of(optimizer), *(["slow"] if looks_ahead(optimizer) else []))

    @classmethod
    def structure(cls, optimizer: Any, variables: Sequence[Any]) -> dict[str, Any]:
        """Return what optimizers must share: their settings that are none of the numbers.

        Args:
            optimizer: of a model.
            variables: the model's trainable variables.
        """
        return {
            name: value
            for name, value in vars(optimizer).items()
            if isinstance(value, (bool, int, float, str))
            and name not in {*OPTIMIZER_NUMBERS, "name", "built"}
        }

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Return the members' losses, `(K,)`, as gradients are to be taken of them."""
        return loss

    def final_weights(self) -> dict[int, tf.Variable]:
        """Return what trained weights become when `fit` ends, stacked, by position; else none."""
        return {}

    @classmethod
    def read(cls, optimizer: Any) -> dict[str, float]:
        """Return one member's numbers; a clip that is not set is infinite."""
        numbers = {name: float(getattr(optimizer, name)) for name in cls.numbers}
        numbers |= {k: float(getattr(optimizer, k, value)) for k, value in ADDITIONS.items()}
        for name in CLIPS:
            value = getattr(optimizer, name)
            numbers[name] = float(value) if value and value > 0 else np.inf
        return numbers

    @classmethod
    def read_state(cls, optimizer: Any, variables: Sequence[Any]) -> OptimizerState | None:
        """Return what a Keras optimizer has gathered for weights; `None` if it is not built."""
        if not optimizer.built:
            return None
        slots = [
            np.zeros(weight.shape) if variable is None else variable.numpy()
            for slot in cls.all_slots(optimizer)
            for weight, variable in zip(
                variables, slot_variables(optimizer, slot, variables), strict=True
            )
        ]
        momentum_step = optimizer.momentum_step if is_proximal(optimizer) else 0.0
        return OptimizerState(slots, int(optimizer.iterations), momentum_step=momentum_step)

    @classmethod
    def write_state(cls, state: OptimizerState, optimizer: Any, variables: Sequence[Any]) -> None:
        """Let a built Keras optimizer go on from a state; the opposite of `read_state`."""
        kept = [
            variable
            for slot in cls.all_slots(optimizer)
            for variable in slot_variables(optimizer, slot, variables)
        ]
        for variable, value in zip(kept, state.slots, strict=True):
            if variable is not None:
                variable.value.assign(value)
        optimizer.iterations.assign(state.steps)
        if state.learning_rate is not None:
            optimizer.learning_rate = state.learning_rate
        if is_proximal(optimizer):
            optimizer.momentum_step = state.momentum_step

    def number(self, name: str, variable: tf.Variable, *, cast: bool = False) -> tf.Tensor:
        """Return a hyperparameter so that it broadcasts over a stacked variable.

        `cast`: Keras casts it to a tensor, which takes it through float32, where it does not leave
        it a Python float.
        """
        vector = tf.cast(self.vectors[name], tf.float32) if cast else self.vectors[name]
        vector = tf.cast(vector, variable.dtype)
        return per_member(vector, len(variable.shape))

    def apply(
        self,
        gradients: Sequence[tf.Tensor],
        learning_rate: tf.Tensor,
        step: tf.Tensor,
        active: tf.Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            gradients: of each variable, `(K, *shape)`.
            learning_rate: of each member, `(K,)`.
            step: how many steps each member has taken before, `(K,)`.
            active: which members take the step, bool `(K,)`; `None` for all.
        """
        gradients = self._clip(list(gradients))
        if np.any(self.thresholded) and "momentum" in self.numbers:
            rates = tf.cast(learning_rate, self.momentum_step.dtype)
            momentum = self.number("momentum", self.momentum_step, cast=True)
            self._assign(self.momentum_step, self.momentum_step * momentum + rates, active)
        decay_part = self._decay_part(step)
        for index, (variable, gradient) in enumerate(zip(self.variables, gradients, strict=True)):
            rank = len(variable.shape)
            rate = per_member(tf.cast(learning_rate, variable.dtype), rank)
            decay = self.decays[index]
            if decay_part is not None:
                decay = decay * tf.cast(decay_part, decay.dtype)
            value = variable - variable * per_member(decay, rank) * rate
            state = {slot: variables[index] for slot, variables in self.state.items()}
            value, new_state = self.update(value, gradient, rate, step, state, variable)
            if self.thresholded[index].any():
                sizes = self.step_sizes(gradient, rate, step, state, new_state, variable)
                value = self._shrunk(index, value, sizes)
            if "slow" in self.state:
                value, new_state["slow"] = self._look_ahead(variable, value, state["slow"], step)
            alive = None if active is None else per_member(active, rank)
            self._assign(variable, value, alive)
            for slot, new in new_state.items():
                self._assign(state[slot], new, alive)

    def _decay_part(self, step: tf.Tensor) -> tf.Tensor | None:
        """Return which part of its weight decay each member has in this step; `None`: all."""
        if not self.schedules_decay:
            return None
        part = tf.cast(step, keras.config.floatx()) / self.vectors["decay_steps"]
        return flat_cosine(part, self.vectors["decay_flat"])

    def _look_ahead(
        self, variable: tf.Variable, value: tf.Tensor, slow: tf.Variable, step: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the value and the slow weights after a step, see `kregs.lookahead`."""
        rank = len(variable.shape)
        # slow weights begin as the weights are before the first step
        before = tf.where(per_member(step == 0, rank), variable, slow)
        steps = tf.cast(self.vectors["lookahead_steps"], step.dtype)
        is_slow = per_member(tf.math.floormod(step + 1, tf.maximum(steps, 1)) == 0, rank)
        alpha = self.number("lookahead_alpha", variable, cast=True)
        ahead = before + alpha * (value - before)
        return tf.where(is_slow, ahead, value), tf.where(is_slow, ahead, before)

    @staticmethod
    def _assign(variable: tf.Variable, value: tf.Tensor, alive: tf.Tensor | None) -> None:
        variable.assign(value if alive is None else tf.where(alive, value, variable))

    def update(
        self,
        value: tf.Tensor,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
        state: dict[str, tf.Variable],
        variable: tf.Variable,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Return the new value and the new state of one variable.

        Args:
            value: the variable after weight decay, `(K, *shape)`.
            gradient: clipped, `(K, *shape)`.
            rate: learning rates that broadcast along.
            step: how many steps each member has taken before, `(K,)`.
            state: its slots by name, `(K, *shape)` each.
            variable: the variable itself, for its type and rank.
        """
        raise NotImplementedError

    def step_sizes(
        self,
        gradient: tf.Tensor,
        rate: tf.Tensor,
        step: tf.Tensor,
        state: dict[str, tf.Variable],
        new_state: dict[str, tf.Tensor],
        variable: tf.Variable,
    ) -> tf.Tensor:
        """Return what `update` multiplies the gradient of each weight by.

        That of `kregs.training.proximal`, tensor for tensor.

        Args:
            gradient, rate, step, state, variable: as in `update`.
            new_state: what `update` returned.
        """
        raise NotImplementedError

    def _shrunk(self, index: int, value: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        """Take the proximal step of one variable for all members."""
        rank = len(value.shape)
        l1, group_l1 = (per_member(number, rank) for number in self.thresholds[index])
        has_l1, has_group_l1 = self.thresholded[index]
        if has_l1:
            value = soft_threshold(value, l1 * sizes)
        if has_group_l1:
            counted = {0, *(axis + 1 for axis in self.group_axes[index])}
            within = tuple(set(range(rank)) - counted)
            grouped = group_soft_threshold(value, group_l1 * sizes, within)
            # a member without groups is not to be rounded
            value = tf.where(group_l1 > 0, grouped, value)
        return value

    def _momentum_steps(self, variable: tf.Variable) -> tf.Tensor:
        return per_member(tf.cast(self.momentum_step, variable.dtype), len(variable.shape))

    def _clip(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Clip in every way that a member uses; of the others its bound is infinite."""
        if "clipnorm" in self.clips:
            gradients = [g * self._norm_scale(self._squares(g), "clipnorm", g) for g in gradients]
        if "global_clipnorm" in self.clips:
            squares = [self._squares(g) for g in gradients]
            total = tf.add_n([tf.cast(s, squares[0].dtype) for s in squares])
            gradients = [g * self._norm_scale(total, "global_clipnorm", g) for g in gradients]
        if "clipvalue" in self.clips:
            bounds = [
                per_member(tf.cast(self.vectors["clipvalue"], g.dtype), len(g.shape))
                for g in gradients
            ]
            gradients = [
                tf.minimum(tf.maximum(g, -bound), bound)
                for g, bound in zip(gradients, bounds, strict=True)
            ]
        return gradients

    def _norm_scale(self, squares: tf.Tensor, clip: str, gradient: tf.Tensor) -> tf.Tensor:
        """The factor that brings each member's own norm down to its bound."""
        bound = tf.cast(self.vectors[clip], squares.dtype)
        norm = tf.sqrt(squares)
        # no bound: the factor is 1 (inf / inf is not)
        scale = tf.where(tf.math.is_inf(bound), tf.ones_like(norm), bound / tf.maximum(norm, bound))
        return per_member(tf.cast(scale, gradient.dtype), len(gradient.shape))

    def _squares(self, gradient: tf.Tensor) -> tf.Tensor:
        """The squared norm of each member's gradient, `(K,)`."""
        return sum_by_member(tf.square(gradient), compiled=self.compiled)


class StackedSGD(StackedOptimizer):
    """`keras.optimizers.SGD` with momentum and Nesterov's variant."""

    numbers = ("momentum",)
    slots = ("momentums",)

    def update(self, value, gradient, rate, step, state, variable):
        momentum = self.number("momentum", variable, cast=True)
        m = state["momentums"] * momentum - gradient * rate
        change = m * momentum - gradient * rate if self.template.nesterov else m
        return value + change, {"momentums": m}

    def step_sizes(self, gradient, rate, step, state, new_state, variable):
        steps = self._momentum_steps(variable)
        if self.template.nesterov:
            return steps * self.number("momentum", variable, cast=True) + rate
        return steps


class StackedAdam(StackedOptimizer):
    """`keras.optimizers.Adam` and `AdamW`."""

    numbers = ("beta_1", "beta_2")
    slots = ("momentums", "velocities")

    @classmethod
    def slots_of(cls, template: Any) -> tuple[str, ...]:
        return (*cls.slots, *(("velocity_hats",) if template.amsgrad else ()))

    def update(self, value, gradient, rate, step, state, variable):
        beta_1, beta_2 = self.number("beta_1", variable), self.number("beta_2", variable)
        taken = per_member(tf.cast(step + 1, variable.dtype), len(variable.shape))
        power_1, power_2 = (
            tf.pow(self.number(name, variable, cast=True), taken) for name in self.numbers
        )
        alpha = rate * tf.sqrt(1 - power_2) / (1 - power_1)
        m = state["momentums"] + (gradient - state["momentums"]) * (1 - beta_1)
        v = state["velocities"] + (tf.square(gradient) - state["velocities"]) * (1 - beta_2)
        new = {"momentums": m, "velocities": v}
        if self.template.amsgrad:
            v = new["velocity_hats"] = tf.maximum(state["velocity_hats"], v)
        return value - m * alpha / (tf.sqrt(v) + self.template.epsilon), new

    def step_sizes(self, gradient, rate, step, state, new_state, variable):
        v = new_state["velocity_hats" if self.template.amsgrad else "velocities"]
        taken = per_member(tf.cast(step + 1, variable.dtype), len(variable.shape))
        correction = 1 - tf.pow(self.number("beta_2", variable, cast=True), taken)
        return rate * tf.sqrt(correction) / (tf.sqrt(v) + self.template.epsilon)


class StackedRMSprop(StackedOptimizer):
    """`keras.optimizers.RMSprop`, plain, centred and with momentum."""

    numbers = ("rho", "momentum")
    slots = ("velocities", "momentums")

    @classmethod
    def slots_of(cls, template: Any) -> tuple[str, ...]:
        return (*cls.slots, *(("average_gradients",) if template.centered else ()))

    def update(self, value, gradient, rate, step, state, variable):
        rho, momentum = self.number("rho", variable), self.number("momentum", variable)
        v = rho * state["velocities"] + (1 - rho) * tf.square(gradient)
        new = {"velocities": v}
        denominator = v + self.template.epsilon
        if self.template.centered:
            mean = rho * state["average_gradients"] + (1 - rho) * gradient
            new["average_gradients"] = mean
            denominator = v - tf.square(mean) + self.template.epsilon
        m = new["momentums"] = momentum * state["momentums"] + rate * gradient / tf.sqrt(
            denominator
        )
        return value - m, new

    def step_sizes(self, gradient, rate, step, state, new_state, variable):
        v = new_state["velocities"]
        if self.template.centered:
            v = v - tf.square(new_state["average_gradients"])
        return self._momentum_steps(variable) / tf.sqrt(v + self.template.epsilon)


class StackedLion(StackedOptimizer):
    """`keras.optimizers.Lion`."""

    numbers = ("beta_1", "beta_2")
    slots = ("momentums",)

    def update(self, value, gradient, rate, step, state, variable):
        beta_1, beta_2 = (self.number(name, variable, cast=True) for name in self.numbers)
        m = state["momentums"]
        direction = tf.sign(m * beta_1 + gradient * (1 - beta_1))
        return value - rate * direction, {"momentums": m * beta_2 + gradient * (1 - beta_2)}

    def step_sizes(self, gradient, rate, step, state, new_state, variable):
        beta_1 = self.number("beta_1", variable, cast=True)
        direction = state["momentums"] * beta_1 + gradient * (1 - beta_1)
        return rate / tf.maximum(tf.abs(direction), SMALLEST)


_FORMS: dict[type, type[StackedOptimizer]] = {
    keras.optimizers.SGD: StackedSGD,
    keras.optimizers.Adam: StackedAdam,
    keras.optimizers.AdamW: StackedAdam,
    keras.optimizers.RMSprop: StackedRMSprop,
    keras.optimizers.Lion: StackedLion,
}


# what may differ between the optimizers of stacked models
OPTIMIZER_NUMBERS = frozenset(
    {
        "learning_rate",
        "weight_decay",
        "l1",
        "group_l1",
        *CLIPS,
        *ADDITIONS,
        *(n for form in _FORMS.values() for n in form.numbers),
    }
)


def optimizer_form(optimizer: Any) -> type[StackedOptimizer]:
    """Return the stacked form of a Keras optimizer: that of its class, or the one that fits any.

    Raises:
        NotStackable: not even that fits it.
    """
    from kregs.population.optimizer_by_member import OptimizerByMember  # which builds on this file

    form = _FORMS.get(optimizer.stock if is_extended(optimizer) else stock_class(optimizer))
    special = any(
        getattr(optimizer, option, None)
        for option in ("use_ema", "loss_scale_factor", "gradient_accumulation_steps")
    )
    if form is not None and not special:
        return form
    OptimizerByMember.check(optimizer)
    return OptimizerByMember


def looks_ahead(optimizer: Any) -> bool:
    """Return whether an optimizer was made by `kregs.lookahead`."""
    return is_extended(optimizer) and optimizer.looks_ahead


def schedule_table(optimizer: Any, first: int, count: int) -> np.ndarray:
    """Return the learning rates that an optimizer's schedule gives to steps.

    Args:
        optimizer: a Keras optimizer with a schedule.
        first: the first step's number, from 0.
        count: how many steps.

    Returns:
        One rate a step, `(count,)`.
    """
    if count < 1:  # a training that has ended, whose callbacks change weights
        return np.zeros(0)
    schedule = learning_rate_of(optimizer)
    kind: Any = type(schedule)
    if kind.__module__.partition(".")[0] not in ("keras", "kregs"):
        return _table(schedule, first, count)
    try:
        configuration = json.dumps(schedule.get_config(), sort_keys=True)  # it says it all
    except TypeError:  # such as NumPy's numbers
        return _table(schedule, first, count)
    return _stock_table(kind, configuration, keras.config.floatx(), first, count)


@functools.lru_cache(maxsize=256)
def _stock_table(kind: Any, configuration: str, floatx: str, first: int, count: int) -> np.ndarray:
    """Return the rates of one of Keras's or kregs's schedules: folds of a trial have the same."""
    table = _table(kind.from_config(json.loads(configuration)), first, count)
    table.flags.writeable = False
    return table


def _table(schedule: Any, first: int, count: int) -> np.ndarray:
    steps = np.arange(first, first + count)
    probes = sorted({0, count // 2, count - 1})
    # most schedules are arithmetic, which takes all steps at once; one with branches takes one step
    # at a time, in a graph if it can
    for at_all in (schedule, _step_by_step(schedule)):
        try:
            table = np.asarray(at_all(tf.constant(steps, tf.float32)), np.float64)
            single = [float(schedule(steps[i])) for i in probes]
        except (ValueError, TypeError, tf.errors.OpError):
            continue
        if table.shape == steps.shape and np.allclose(table[probes], single, rtol=1e-6):
            return table
    return np.array([float(schedule(step)) for step in steps])


def _step_by_step(schedule: Callable) -> Callable[[tf.Tensor], tf.Tensor]:
    @functools.partial(tf.function, autograph=False)
    def rates(steps: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(lambda step: tf.cast(schedule(step), tf.float32), steps)

    # called by itself it would warn of many functions that are traced once each
    return lambda steps: rates.get_concrete_function(steps)(steps)
