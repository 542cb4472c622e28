"""`Job`: one member to be trained; `Slot`: the same while it trains."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import numpy as np

from kregs.population.optimizers import learning_rate_table
from kregs.population.program import OptimizerState
from kregs.population.structure import Member


@dataclasses.dataclass(eq=False)
class Job:
    """A member to be trained, and what came of it.

    Args:
        member: the read model.
        weights: its initial weights.
        seed: of its batch order and noise.
        callbacks: its own copies of Keras callbacks.
        train_rows, validation_rows: which rows are its own; `None` for all.
        first_epoch, epochs: trains from `first_epoch` up to `epochs`, as `fit` does.
        state: of its optimizer, if it goes on from an earlier job.
    """

    member: Member
    weights: list[np.ndarray] | None
    seed: int
    callbacks: list[keras.callbacks.Callback]
    epochs: int
    first_epoch: int = 0
    train_rows: np.ndarray | None = None
    validation_rows: np.ndarray | None = None
    name: Any = None
    state: OptimizerState | None = None

    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    part_histories: list[dict[str, list[float]]] = dataclasses.field(default_factory=list)
    best_epoch: int = -1  # none yet
    best_value: float = math.inf
    best_weights: list[np.ndarray] | None = None
    end_state: OptimizerState | None = None
    stopped_epoch: int | None = None
    failure: str | None = None
    seconds: float = 0.0

    def fresh(self) -> Job:
        """Return the job as it was before it began."""
        return dataclasses.replace(
            self,
            history={},
            part_histories=[],
            best_epoch=-1,
            best_value=math.inf,
            best_weights=None,
            seconds=0.0,
        )


class _FacadeOptimizer:
    """What a callback sees as `model.optimizer`: one member's learning rate."""

    def __init__(self, optimizer: Any) -> None:
        self._learning_rate = optimizer._learning_rate
        self.constant: float | None = None
        if not isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            self.constant = float(keras.ops.convert_to_numpy(self._learning_rate))

    @property
    def learning_rate(self) -> Any:
        if self.constant is None:
            return self._learning_rate
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


class MemberModel:
    """What a callback sees as `model`: one member of the population.

    Keras's own callbacks run on it, so that stopping and learning-rate rules are Keras's. The
    weights never leave the device: `get_weights` returns a token for "as they are now".
    """

    def __init__(self, template: keras.Model, member: keras.Model) -> None:
        self.stop_training = False
        self.optimizer = _FacadeOptimizer(member.optimizer)
        self.metrics = template.metrics
        self.keep_requested = False
        self.restored = False

    def get_weights(self) -> str:
        self.keep_requested = True
        return "kept"

    def set_weights(self, token: str) -> None:
        self.restored = True


@dataclasses.dataclass(eq=False)
class Slot:
    """A job under way.

    Args:
        job: what trains.
        model: what its callbacks see.
        epoch: the next one, counted from 0.
        table: the learning rate of each of its steps; `None` if it has no schedule.
    """

    job: Job
    model: MemberModel
    epoch: int
    table: np.ndarray | None

    @classmethod
    def begin(cls, job: Job, template: keras.Model, steps: int) -> Slot:
        """Begin a job of so many steps an epoch: its callbacks are told."""
        model = MemberModel(template, job.member.model)
        table = None
        if model.optimizer.constant is None:
            taken = 0 if job.state is None else job.state.steps
            count = steps * (job.epochs - job.first_epoch)
            table = learning_rate_table(job.member.model.optimizer, taken, count)
        for callback in job.callbacks:
            callback.set_model(model)
            callback.set_params({"epochs": job.epochs, "verbose": 0})
            callback.on_train_begin()
        return cls(job, model, job.first_epoch, table)

    @property
    def ended(self) -> bool:
        """Whether it has no further epoch."""
        over = self.epoch >= self.job.epochs
        return over or self.model.stop_training or self.job.failure is not None
