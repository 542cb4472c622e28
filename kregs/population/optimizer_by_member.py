"""Any Keras optimizer without a stacked form: its own `apply`, for one member after the other.

One optimizer on scratch variables stands for all members. In each step a member's weights and what
its optimizer has gathered are written into it, `apply` is called, and all is read back. It is
traced once, whatever K is, and does what Keras does: averages of the weights (`use_ema`), gradients
gathered over steps (`gradient_accumulation_steps`), rules of the user's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from kregs.population.fingerprint import config_of
from kregs.population.keras_internals import (
    averages_of,
    decays_weight,
    gathered_by,
    learning_rate_of,
    scratch_like,
    set_decayed,
    set_steps_taken,
    steps_taken,
)
from kregs.population.optimizers import CLIPS, OptimizerState, StackedOptimizer
from kregs.population.registry import NotStackable
from kregs.training.optimizer_additions import DEFAULTS as ADDITIONS
from kregs.training.proximal import is_proximal
from kregs.training.stock_optimizers import unwrapped

_SCHEDULE = keras.optimizers.schedules.LearningRateSchedule


class OptimizerByMember(StackedOptimizer):
    """See the file; learning rate and weight decay may differ between members."""

    numbers: ClassVar[tuple[str, ...]] = ("weight_decay",)
    accelerated: ClassVar[bool] = False
    decays_itself: ClassVar[bool] = True

    def new_state(self, members: int, weights: Sequence[Any]) -> dict[str, list[tf.Variable]]:
        self._members = members
        self._scratch = [scratch_like(weight) for weight in weights]
        self._optimizer = _fresh(self.template)
        self._optimizer.build(self._scratch)
        decayed = [decays_weight(self.template, weight) for weight in weights]
        set_decayed(self._optimizer, dict(zip(map(id, self._scratch), decayed, strict=True)))
        self._gathered = gathered_by(self._optimizer, self._scratch)
        return {
            "gathered": [
                tf.Variable(tf.zeros([members, *v.shape], v.dtype), trainable=False)
                for v in self._gathered
            ]
        }

    @classmethod
    def check(cls, optimizer: Any) -> None:
        """Raise `NotStackable` if an optimizer cannot be called for one member after the other."""
        inner = unwrapped(optimizer)
        if is_proximal(inner):
            name = type(inner).__name__
            raise NotStackable(f"the proximal step of the optimizer {name} has no stacked form")
        if inner is not optimizer and isinstance(learning_rate_of(inner), _SCHEDULE):
            raise NotStackable(
                "a schedule of the learning rate does not count the steps that an optimizer which "
                "scales the loss leaves out"
            )
        _fresh(optimizer)

    @classmethod
    def structure(cls, optimizer: Any, variables: Sequence[Any]) -> dict[str, Any]:
        """Return what members must share: all but the learning rate and how strong the decay is."""
        inner = unwrapped(optimizer)
        config = config_of(inner)
        decay = config.pop("weight_decay", None)
        for name in ("name", "learning_rate"):
            config.pop(name, None)
        decayed = None if decay is None else [decays_weight(optimizer, v) for v in variables]
        config["class"] = type(inner).__name__
        if inner is not optimizer:
            config |= {"initial_scale": optimizer.initial_scale}
            config |= {"dynamic_growth_steps": optimizer.dynamic_growth_steps}
        return {**config, "decayed": decayed}

    @classmethod
    def read(cls, optimizer: Any) -> dict[str, float]:
        # the clips are in the config, and the optimizer's own affair
        decay = getattr(unwrapped(optimizer), "weight_decay", None)
        return {"weight_decay": float(decay or 0.0), **dict.fromkeys(CLIPS, np.inf), **ADDITIONS}

    @classmethod
    def read_state(cls, optimizer: Any, variables: Sequence[Any]) -> OptimizerState:
        if not optimizer.built:  # not every one begins with zeros
            optimizer = _fresh(optimizer)
            optimizer.build(list(variables))
        slots = [variable.numpy() for variable in gathered_by(optimizer, variables)]
        return OptimizerState(slots, steps_taken(optimizer))

    @classmethod
    def write_state(cls, state: OptimizerState, optimizer: Any, variables: Sequence[Any]) -> None:
        for variable, value in zip(gathered_by(optimizer, variables), state.slots, strict=True):
            variable.value.assign(value)
        set_steps_taken(optimizer, state.steps)
        if state.learning_rate is not None:
            optimizer.learning_rate = state.learning_rate

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        if isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            scales = self._stacked_of(self._optimizer.dynamic_scale)
            return loss * tf.cast(scales, loss.dtype)
        factor = self.template.loss_scale_factor
        return loss if factor is None else loss * factor

    def _stacked_of(self, variable: Any) -> tf.Variable:
        """The stacked variable of one that the optimizer keeps."""
        position = [id(each) for each in self._gathered].index(id(variable))
        return self.state["gathered"][position]

    def apply(self, gradients, learning_rate, step, active) -> None:
        stacked = [*self.variables, *self.state["gathered"]]
        scratch = [variable.value for variable in (*self._scratch, *self._gathered)]
        inner = unwrapped(self._optimizer)
        rates = tf.cast(learning_rate, inner.learning_rate.dtype)
        pairs = list(zip(scratch, stacked, strict=True))

        def take(k: tf.Tensor) -> tf.Tensor:
            for one, of_all in pairs:
                one.assign(tf.gather(of_all, k))
            set_steps_taken(self._optimizer, step[k])
            inner.learning_rate.assign(rates[k])
            if inner.weight_decay is not None:
                inner.weight_decay = self.vectors["weight_decay"][k]
            self._optimizer.apply([g[k] for g in gradients], self._scratch)
            for one, of_all in pairs:
                of_all.scatter_nd_update(k[None, None], one[None])
            return k

        def body(k: tf.Tensor) -> tuple[tf.Tensor]:
            if active is None:
                take(k)
            else:
                tf.cond(active[k], lambda: take(k), lambda: k)
            return (k + 1,)

        tf.while_loop(lambda k: k < self._members, body, (tf.constant(0),), parallel_iterations=1)

    def final_weights(self) -> dict[int, tf.Variable]:
        """Return what trained weights become when `fit` ends, by position: their averages."""
        averages = averages_of(self._optimizer)
        if averages is None:
            return {}
        return {position: self._stacked_of(v) for position, v in enumerate(averages)}


def _fresh(optimizer: Any) -> Any:
    """Return an unbuilt optimizer of the same settings, whose learning rate is a number.

    Raises:
        NotStackable: it cannot be made from its config.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return keras.optimizers.LossScaleOptimizer(
            _fresh(optimizer.inner_optimizer),
            initial_scale=optimizer.initial_scale,
            dynamic_growth_steps=optimizer.dynamic_growth_steps,
        )
    try:
        config = optimizer.get_config() | {"learning_rate": 0.0}
        return type(optimizer).from_config(config)
    except Exception as error:
        raise NotStackable(
            f"the optimizer {type(optimizer).__name__} has no stacked form, and cannot be made "
            f"anew from its get_config(): {error}"
        ) from error
