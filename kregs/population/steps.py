"""How many steps each epoch has: a pass over the rows, or as many as `steps_per_epoch` says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

KERAS_BATCH_SIZE = 32  # where none is given


@dataclasses.dataclass(frozen=True)
class EpochSteps:
    """How many steps the epochs of one `fit` have, counted from its first.

    As in Keras, an epoch of `steps_per_epoch` goes on in the rows where the last one has stopped;
    one that comes to their end ends there, and the next begins them anew.

    Args:
        in_pass: steps of a pass over all rows; `None`: these never end.
        per_epoch: `None`: each epoch is a pass.

    Example:

    >>> steps = EpochSteps(in_pass=5, per_epoch=2)
    >>> [steps.count(epoch) for epoch in range(4)], steps.before(4), steps.pass_began(4)
    ([2, 2, 1, 2], 7, 3)
    """

    in_pass: int | None
    per_epoch: int | None = None

    @property
    def nominal(self) -> int | None:
        """What Keras tells callbacks that an epoch has."""
        return self.per_epoch or self.in_pass

    def pass_began(self, epoch: int) -> int:
        """Return the epoch in which the pass began that an epoch goes on with."""
        if self.per_epoch is None:
            return epoch
        return 0 if self.in_pass is None else epoch - epoch % self._epochs_in_pass

    def first(self, epoch: int) -> int:
        """Return how many steps of its pass were taken before an epoch."""
        return (epoch - self.pass_began(epoch)) * (self.per_epoch or 0)

    def count(self, epoch: int) -> int:
        """Return how many steps an epoch has."""
        left = math.inf if self.in_pass is None else self.in_pass - self.first(epoch)
        return int(min(left, self.per_epoch or math.inf))

    def before(self, epoch: int) -> int:
        """Return how many steps all epochs before one have."""
        passes = self.pass_began(epoch) // self._epochs_in_pass
        return passes * (self.in_pass or 0) + self.first(epoch)

    @property
    def _epochs_in_pass(self) -> int:
        if self.per_epoch is None or self.in_pass is None:
            return 1
        return math.ceil(self.in_pass / self.per_epoch)


def whole_executions(steps: int | None, per_execution: int) -> int | None:
    """Return how many steps Keras takes where so many are asked: it counts executions.

    Example:

    >>> whole_executions(5, per_execution=2), whole_executions(None, per_execution=2)
    (6, None)
    """
    return None if steps is None else math.ceil(steps / per_execution) * per_execution


def batch_sizes(
    asked: Mapping[str, Any], rows: int | None, validation_rows: int | None
) -> tuple[int, int | None]:
    """Return the batch sizes of training and validation that Keras has for arguments of `fit`.

    Where steps are given and no batch size, all rows are divided among the steps.

    Args:
        asked: arguments of `fit` by name.
        rows, validation_rows: how many there are; `None`: they are streamed, or missing.

    Returns:
        The second is `None` where it is the first.

    Example:

    >>> batch_sizes({"steps_per_epoch": 4}, 30, 20), batch_sizes({"batch_size": 10}, 30, 20)
    ((8, 32), (10, None))
    """
    given, steps = asked.get("batch_size"), asked.get("steps_per_epoch")
    validation, held_out = asked.get("validation_batch_size"), asked.get("validation_steps")

    def divided(count: int | None, among: int | None) -> int:
        return KERAS_BATCH_SIZE if among is None or count is None else math.ceil(count / among)

    batch_size = given or divided(rows, steps)
    if validation is None and given is None and (steps is not None or held_out is not None):
        validation = divided(validation_rows, held_out)
    return batch_size, validation
