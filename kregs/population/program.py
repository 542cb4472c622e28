"""`Program`: the stacked model and its optimizer, compiled once, with a slot for each member.

A slot is filled with a member's weights and numbers, trained epoch by epoch, and can be given to
another member when it is free. Nothing is traced again for that: all that differs is a variable.
The file holds one idea: the passes over data (steps, the compiled loop, how steps are cut into
calls) and the slots that they run for. The model itself is `StackedModel`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.graph import few_predictions
from kregs.population.layout import Layout, Settings
from kregs.population.metrics import StackedMetrics
from kregs.population.objective import StackedLoss
from kregs.population.optimizers import OptimizerState
from kregs.population.registry import Context, NotStackable
from kregs.population.stacked import per_member
from kregs.population.stacked_model import StackedModel
from kregs.population.threefry import Noise


@dataclasses.dataclass
class Sums:
    """What a pass over data adds up for each slot.

    Args:
        names: of what is added up.
        totals: weighted sums of values, `(names, K)`.
        counts: sums of weights, `(names, K)`.
    """

    names: list[str]
    totals: np.ndarray
    counts: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.names, self.totals + other.totals, self.counts + other.counts)

    def of_slot(self, position: int) -> Sums:
        """Return those of one slot, as of a program that has no other."""
        chosen = [position]
        return Sums(self.names, self.totals[:, chosen], self.counts[:, chosen])

    def means(self) -> dict[str, np.ndarray]:
        """Return the mean of each name for each slot, `(K,)` each."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.totals / self.counts
        return dict(zip(self.names, values, strict=True))


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Weights and optimizer states of all slots at one time; what it returns are views.

    Args:
        weights: in the layout's order, `(K, *shape)` each.
        optimizer_slots: likewise, see `OptimizerState.slots`.
        steps, momentum_steps: of each slot, `(K,)`.
    """

    weights: list[np.ndarray]
    optimizer_slots: list[np.ndarray]
    steps: np.ndarray
    momentum_steps: np.ndarray

    def weights_of(self, slot: int) -> list[np.ndarray]:
        """Return the weights of the member in a slot."""
        return [array[slot] for array in self.weights]

    def state_of(self, slot: int) -> OptimizerState:
        """Return what its optimizer has gathered."""
        slots = [array[slot] for array in self.optimizer_slots]
        momentum_step = float(self.momentum_steps[slot])
        return OptimizerState(slots, int(self.steps[slot]), momentum_step=momentum_step)


@dataclasses.dataclass(frozen=True)
class _Kind:
    """For what kind of pass a function is compiled.

    Args:
        train: whether steps train, or test.
        masked: whether rows are missing in some steps.
        idle: whether some members have no row at all in some steps.
        weighted: whether rows have weights.
        collect: whether predictions are returned.
        shared: whether all members take the same rows.
    """

    train: bool
    masked: bool
    idle: bool
    weighted: bool
    collect: bool
    shared: bool


class Program:
    """K slots of one layout.

    Args:
        layout: the members' common structure.
        slots: K.
        y: a few targets, for Keras to resolve losses and metrics by name; shape `(rows, ...)`, or a
            structure of several. `None`: it only predicts.
        batch_size: rows of a full training step.
        accelerate: compile training steps with XLA. `None`: if the loss looks at rows one by one
            and every layer's form runs well under XLA on a CPU (`StackedLayer.accelerated`).

    Attributes:
        model, loss, metrics, optimizer: the stacked forms.
        accelerated: whether training steps are compiled with XLA.
        steps: how many steps the member in each slot has taken, `(K,)`.
        seeds: of the noise of each slot, `(K,)`.
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        y: Any,
        *,
        batch_size: int = 32,
        accelerate: bool | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self._batch_size = batch_size
        template = layout.template.model
        if y is not None:
            targets = keras.tree.map_structure(tf.convert_to_tensor, y)
            prediction = few_predictions(template, targets)
            self.loss = StackedLoss(template, targets, prediction, layout.smoothed)
            self.metrics = StackedMetrics(template, self.loss, targets, prediction)
            if len({part.output for part in self.loss.parts}) < len(template.outputs):
                self._check_no_decay()
        self.model = StackedModel(layout, slots)
        self.optimizer = layout.optimizer_form(
            template.optimizer,
            [self.weights[i] for i in self.model.trainable],
            slots,
            [layout.weights[i] for i in self.model.trainable],
        )
        self.optimizer.clips = layout.clips
        self.optimizer.schedules_decay = layout.schedules_decay
        self.optimizer.thresholded = layout.thresholded[self.model.trainable]
        self.optimizer.group_axes = [layout.group_axes[i] for i in self.model.trainable]
        self.steps = tf.Variable(tf.zeros([slots], tf.int32), trainable=False)
        self.seeds = tf.Variable(tf.zeros([slots], tf.int32), trainable=False)
        if accelerate is None:
            accelerate = (
                y is not None
                and self.loss.by_row
                and self.optimizer.accelerated
                and not self.layout.has_other_restraints
                and all(form.accelerated for form in self.model.forms)
            )
        self.accelerated = self.model.compiled = self.optimizer.compiled = accelerate
        self._functions: dict[_Kind, Callable] = {}
        self._predict: Callable | None = None
        self.kept_weights: dict[str, list[tf.Variable]] = {}

    def _check_no_decay(self) -> None:
        """Raise where an output without a loss may have weights that Keras would not decay."""
        if self.layout.decayed.any():
            raise NotStackable("there is weight decay, and an output without a loss")

    def forget(self) -> None:
        """Drop the compiled functions, which refer to the program, so that it need not be found."""
        self._functions.clear()
        self._predict = None

    @property
    def weights(self) -> list[tf.Variable]:
        """The stacked weights, `(K, *shape)`, in the layout's order."""
        return self.model.weights

    # ---- steps -----------------------------------------------------------------------------

    def _train_step(
        self, x, y, weight, rows, rate, idle: bool
    ) -> tuple[list[tuple[tf.Tensor, tf.Tensor]], list[tf.Tensor]]:
        noise = Noise(self.seeds, self.steps, batch=self._batch_size, compiled=self.accelerated)
        context = Context(True, noise, rows)
        variables = [self.weights[i] for i in self.model.trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            predictions = self.model.forward(x, context)
            values, loss = self._losses(y, predictions, weight, rows, context)
            if context.adversarial is not None:
                values, loss = self._with_adversarial(x, y, weight, rows, context, values)
            total = tf.reduce_sum(self.optimizer.scale_loss(loss))
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        alive = tf.reduce_any(rows > 0, axis=1) if idle else None
        self.optimizer.apply(gradients, rate, self.steps, alive)
        self.model.constrain(alive)
        for variable, value in context.updates:
            if alive is not None:
                value = tf.where(per_member(alive, len(variable.shape)), value, variable)
            variable.assign(value)
        taken = tf.ones_like(self.steps) if alive is None else tf.cast(alive, tf.int32)
        self.steps.assign_add(taken)
        return self._amounts(y, predictions, weight, rows, values, loss), predictions

    def _test_step(self, x, y, weight, rows) -> tuple[list, list[tf.Tensor]]:
        context = Context(False, None, rows)
        predictions = self.model.forward(x, context)
        values, loss = self._losses(y, predictions, weight, rows, context)
        return self._amounts(y, predictions, weight, rows, values, loss), predictions

    def _with_adversarial(self, x, y, weight, rows, context, values) -> tuple[list, tf.Tensor]:
        """Return losses as `_losses` does, of rows and adversarial ones (Goodfellow et al. 2015).

        As `kregs.AdversarialLoss` it goes by twice more. Members without adversarial rows keep
        what the first time left.
        """
        epsilon, share = context.adversarial
        x = tf.cast(x, self.layout.template.model.inputs[0].dtype)  # as Keras casts integers
        active = (epsilon > 0) & (share > 0)
        before = len(context.updates)
        again = dataclasses.replace(context, penalties=[])  # which notes updates in the same list
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            (own, _), _ = self._losses(y, self.model.forward(x, again), weight, rows, again)
            total = tf.add_n([tf.reduce_sum(value) for value in own])
        sign = tf.sign(tape.gradient(total, x))
        moved = x + per_member(tf.cast(epsilon, x.dtype), len(x.shape)) * sign
        again.penalties = []
        predictions = self.model.forward(tf.stop_gradient(moved), again)
        (theirs, _), _ = self._losses(y, predictions, weight, rows, again)
        context.updates[before:] = [
            (variable, tf.where(per_member(active, len(variable.shape)), value, kept))
            for variable, value in context.updates[before:]
            for kept in [next(v for u, v in reversed(context.updates[:before]) if u is variable)]
        ]
        context.penalties = [
            tf.where(active, theirs_, own_)
            for own_, theirs_ in zip(context.penalties, again.penalties, strict=True)
        ]
        own, data_values = values
        share = tf.where(active, share, tf.zeros_like(share))
        mixed = [
            tf.cast(1 - share, a.dtype) * a + tf.cast(share, a.dtype) * b
            for a, b in zip(own, theirs, strict=True)
        ]
        return [mixed, data_values], self._total(mixed, context)

    def _losses(self, y, predictions, weight, rows, context) -> tuple[list, tf.Tensor]:
        """Return each loss as it is logged, with and without smoothing, and what is minimized."""
        smoothing = self.model.smoothing
        data_values = values = self.loss(y, predictions, weight, rows, smoothing)
        if context.mix is not None:
            partner, share = context.mix
            others = [tf.gather(part, partner, batch_dims=1) for part in y]
            pairs = zip(
                values, self.loss(others, predictions, weight, rows, smoothing), strict=True
            )
            values = [
                tf.cast(share, a.dtype) * a + tf.cast(1 - share, a.dtype) * b for a, b in pairs
            ]
        if self.loss.smoothed and self.metrics.data_losses:
            data_values = self.loss(y, predictions, weight, rows, None)
        return [values, data_values], self._total(values, context)

    def _total(self, values: list[tf.Tensor], context: Context) -> tf.Tensor:
        """Return what is minimized: the losses with their weights, and the penalties."""
        parts = zip(self.loss.parts, values, strict=True)
        loss = tf.add_n([part.weight * value for part, value in parts])
        for term in (*self.model.weight_penalties(), *context.penalties):
            loss = loss + tf.cast(term, loss.dtype)
        return loss

    @property
    def sum_names(self) -> list[str]:
        """The names of what a pass adds up, in order."""
        metrics = self.metrics
        return [
            "loss",
            *self._output_losses,
            *metrics.data_losses,
            *(entry.name for entry in metrics.means),
        ]

    @property
    def _output_losses(self) -> list[str]:
        """The names that Keras logs the loss of each of several outputs under."""
        parts = self.loss.parts
        return [part.name for part in parts] if len(parts) > 1 else []

    def _amounts(self, y, predictions, weight, rows, values, loss) -> list:
        dtype = loss.dtype
        if rows is None:
            count = tf.cast(tf.fill([self.slots], tf.shape(predictions[0])[1]), dtype)
        else:
            count = tf.reduce_sum(tf.cast(rows, dtype), 1)

        def amount(value: tf.Tensor, times: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            if rows is not None:  # an empty step of an ended member must not add its 0 / 0
                value = tf.where(count > 0, value, tf.zeros_like(value))
            return value * times, times

        outputs, data = values
        amounts = [amount(loss, count)]
        # a loss of one of several outputs is a mean over batches, unless Keras sees their lengths
        times = count if self.layout.template.model.run_eagerly else tf.cast(count > 0, dtype)
        amounts += [amount(value, times) for value in outputs if self._output_losses]
        for parts in self.metrics.data_losses.values():
            amounts.append(amount(tf.add_n([w * data[place] for place, w in parts]), count))
        amounts += self.metrics.sums(y, predictions, weight, rows)
        return [(tf.cast(a, dtype), tf.cast(b, dtype)) for a, b in amounts]

    def _loop(
        self, fetch: Callable, count: Any, width: int | None, rates: tf.Tensor, kind: _Kind
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Run `count` steps in one compiled loop; return totals, counts and predictions.

        Args:
            fetch: of a step's number, its (x, y, weight, rows), x and y in their structures.
            width: how many rows a step has, where that is known.
            rates: learning rates `(K, count)`; of no use in a test.
        """
        names = len(self.sum_names)
        zeros = tf.zeros([names, self.slots], self.loss.dtype)
        is_compiled = self._is_compiled(kind)
        kept = [
            tf.TensorArray(
                output.dtype,
                size=count,
                infer_shape=False,
                # XLA wants to know it before the first step
                element_shape=[self.slots, width, *output.shape[1:]] if is_compiled else None,
            )
            for output in self.layout.template.model.outputs
            if kind.collect
        ]

        def body(step, totals, counts, kept):
            x, y, weight, rows = fetch(step)
            y = keras.tree.flatten(y)
            if kind.train:
                amounts, predictions = self._train_step(
                    x, y, weight, rows, rates[:, step], kind.idle
                )
            else:
                amounts, predictions = self._test_step(x, y, weight, rows)
            if kind.collect:
                pairs = zip(kept, predictions, strict=True)
                kept = [array.write(step, prediction) for array, prediction in pairs]
            totals = totals + tf.stack([a for a, _ in amounts])
            counts = counts + tf.stack([b for _, b in amounts])
            return step + 1, totals, counts, kept

        _, totals, counts, kept = tf.while_loop(
            lambda step, *_: step < count,
            body,
            (tf.constant(0), zeros, zeros, kept),
            parallel_iterations=1,
            maximum_iterations=count,
        )
        return totals, counts, [array.stack() for array in kept]

    def _function(self, kind: _Kind) -> Callable:
        """Return the compiled pass of a kind, traced on its first call."""
        if kind in self._functions:
            return self._functions[kind]

        jit = self._is_compiled(kind)

        def core(x, y, weight, index, rates):
            count = tf.shape(index)[1] if index.shape[1] is None else index.shape[1]

            def for_all(batch):
                """A batch `(1, rows, ...)` that all members share, as `(K, rows, ...)`."""
                return tf.repeat(batch, self.slots, axis=0) if kind.shared else batch

            def fetch(step):
                batch_index = index[:, step]
                rows = for_all(tf.cast(batch_index >= 0, tf.float32)) if kind.masked else None

                def take(array):
                    # before XLA the batches are gathered already, steps first
                    picked = array[step] if jit else tf.gather(array, tf.maximum(batch_index, 0))
                    return for_all(picked)

                inputs, targets = keras.tree.map_structure(take, (x, y))
                return inputs, targets, take(weight) if kind.weighted else None, rows

            return self._loop(fetch, count, index.shape[2], rates, kind)

        compiled = tf.function(core, jit_compile=True, autograph=False) if jit else core

        def run(x, y, weight, index, rates):
            if jit:
                # XLA gathers row by row in a loop: gather before it
                order = tf.maximum(tf.transpose(index, [1, 0, 2]), 0)
                x, y = keras.tree.map_structure(lambda array: tf.gather(array, order), (x, y))
                weight = tf.gather(weight, order) if kind.weighted else weight
            return compiled(x, y, weight, index, rates)

        self._functions[kind] = tf.function(run, autograph=False, reduce_retracing=not jit)
        return self._functions[kind]

    def _is_compiled(self, kind: _Kind) -> bool:
        """Whether a pass is compiled with XLA."""
        # evaluation is short: tracing is cheaper than compiling it. A loss that looks at a batch as
        # a whole is shown the rows that are real, whose number XLA would have to know
        return self.accelerated and kind.train and (self.loss.by_row or not kind.masked)

    def train(
        self,
        rows: Any,
        index: np.ndarray,
        rates: np.ndarray,
        budget: int,
        *,
        shared: bool = False,
        collect: bool = False,
    ) -> tuple[Sums, list[np.ndarray] | None]:
        """Train one epoch.

        Args:
            rows: the data, with `tensors` (x, y, weight), all rows on the device.
            index: which rows each member takes in each step, int32 `(K, steps, batch)`; -1 is no
                row.
            rates: the learning rate of each member in each step, `(K, steps)`.
            budget: how many bytes of batches may be gathered at once.
            shared: whether all members take the rows that the first takes.
            collect: return the predictions, too, each made before its step.

        Returns:
            The sums over all steps, and the predictions, `(K, steps, batch, ...)` of each output,
            or `None`.
        """
        return self._run(rows.tensors, index, rates, budget, collect=collect, shared=shared)

    def test(
        self, rows: Any, index: np.ndarray, shared: bool, budget: int, *, collect: bool = False
    ) -> tuple[Sums, list[np.ndarray] | None]:
        """Evaluate.

        Args:
            rows, index, budget, shared: see `train`.
            collect: return the predictions, too.

        Returns:
            The sums, and the predictions, `(K, steps, batch, ...)` of each output, or `None`.
        """
        return self._run(rows.tensors, index, None, budget, collect=collect, shared=shared)

    def _run(
        self,
        data: tuple,
        index: np.ndarray,
        rates: np.ndarray | None,
        budget: int,
        *,
        collect: bool,
        shared: bool,
    ) -> tuple[Sums, list[np.ndarray] | None]:
        totals: Any = 0.0
        counts: Any = 0.0
        kept = []
        most = index.shape[1]
        if self.accelerated and rates is not None:  # the batches are gathered before the call
            most = self._steps_a_call(data, index[:1] if shared else index, budget)
        # XLA wants one shape, so it masks the rows that the last batch lacks
        one_shape = self.accelerated and rates is not None and self.loss.by_row
        for first, last, width, masked in self._calls(index, most, one_shape):
            call_index = index[:, first:last, :width]
            call_rates = np.zeros([1, 1]) if rates is None else rates[:, first:last]
            weighted = data[2] is not None
            # a member with fewer rows sits out its last steps
            idle = masked and not (call_index >= 0).any(2).all()
            kind = _Kind(rates is not None, masked, idle, weighted, collect, shared)
            total, count, predictions = self._function(kind)(
                data[0],
                data[1],
                data[2] if weighted else tf.zeros([1]),
                tf.constant(call_index[:1] if shared else call_index),
                tf.constant(call_rates, self.model.dtype),
            )
            totals, counts = totals + total.numpy(), counts + count.numpy()
            if collect:
                arrays = [each.numpy().swapaxes(0, 1) for each in predictions]
                kept.append([_pad_rows(array, index.shape[2]) for array in arrays])
        outputs = zip(*kept, strict=True)
        joined = [np.concatenate(arrays, axis=1) for arrays in outputs] if collect else None
        return Sums(self.sum_names, totals, counts), joined

    def _steps_a_call(self, data: tuple, index: np.ndarray, budget: int) -> int:
        arrays = keras.tree.flatten(data[:2])
        row = sum(int(np.prod(array.shape[1:])) * array.dtype.size for array in arrays)
        return max(1, budget // max(1, row * index.shape[0] * index.shape[2]))

    @staticmethod
    def _calls(index: np.ndarray, most: int, one_shape: bool) -> list[tuple[int, int, int, bool]]:
        """Cut steps into calls of few shapes: (first step, last, rows a step, whether masked)."""
        steps, batch = index.shape[1], index.shape[2]
        real = (index >= 0).sum(2)
        full = np.all(real == batch, axis=0)
        uniform = np.all(real == real[:1], axis=0)
        size = math.ceil(steps / math.ceil(steps / most))

        def cut(last: int, masked: bool) -> list[tuple[int, int, int, bool]]:
            return [(i, min(i + size, last), batch, masked) for i in range(0, last, size)]

        if not one_shape and full[:-1].all() and uniform[-1]:
            # outside of XLA a smaller last batch costs no second compilation
            if full[-1]:
                return cut(steps, False)
            return [*cut(steps - 1, False), (steps - 1, steps, int(real[0, -1]), False)]
        return cut(steps, not full.all())

    def predict(self, x: Any, index: np.ndarray) -> list[np.ndarray]:
        """Return the predictions on rows that all members share, of each output.

        Args:
            x: inputs, `(rows, ...)`, or a structure of several.
            index: which rows each step takes, int32 `(steps, batch)`; what is predicted where it is
                -1, which is no row, means nothing.

        Returns:
            `(K, steps, batch, ...)` each.
        """
        if self._predict is None:

            def step(x: Any, numbers: tf.Tensor) -> list[tf.Tensor]:
                def for_all(array: tf.Tensor) -> tf.Tensor:
                    batch = tf.gather(array, tf.maximum(numbers, 0))[None]
                    return tf.repeat(batch, self.slots, axis=0)

                batches = keras.tree.map_structure(for_all, x)
                return self.model.forward(batches, Context(False, None, None))

            self._predict = tf.function(step, autograph=False, reduce_retracing=True)
        steps = [self._predict(x, tf.constant(numbers)) for numbers in index]
        return [np.stack(arrays, axis=1) for arrays in zip(*steps, strict=True)]

    # ---- slots -----------------------------------------------------------------------------

    def fill(
        self,
        slots: Sequence[int],
        weights: Sequence[Sequence[np.ndarray]],
        settings: Sequence[Settings],
        seeds: Sequence[int],
        states: Sequence[OptimizerState | None] | None = None,
    ) -> None:
        """Put members into slots.

        Args:
            slots: positions, one a member.
            weights: of each member, in the layout's order, `(*shape)` each.
            settings: numbers of each member.
            seeds: of each member's noise.
            states: of each member's optimizer; without one it is fresh.
        """
        where = tf.constant(np.asarray(slots)[:, None])

        def write(variable: tf.Variable, values: Any) -> None:
            values = tf.cast(tf.convert_to_tensor(np.asarray(values)), variable.dtype)
            variable.scatter_nd_update(where, values)

        for index, variable in enumerate(self.weights):
            write(variable, np.stack([member_weights[index] for member_weights in weights]))
        self._write_settings(write, settings)
        states = list(states or [None] * len(slots))
        for index, variable in enumerate(self._optimizer_slots()):
            zeros = np.zeros(variable.shape[1:])
            write(variable, np.stack([zeros if s is None else s.slots[index] for s in states]))
        write(self.steps, [0 if s is None else s.steps for s in states])
        write(self.optimizer.momentum_step, [0 if s is None else s.momentum_step for s in states])
        write(self.seeds, np.asarray(seeds) % (2**31))

    def _write_settings(self, write: Callable, settings: Sequence[Settings]) -> None:
        for variable, values in zip(
            self.model.settings_variables(), self.model.settings_values(settings), strict=True
        ):
            write(variable, values)
        for name, variable in self.optimizer.vectors.items():
            write(variable, [s.optimizer[name] for s in settings])
        for index, variable in zip(self.model.trainable, self.optimizer.decays, strict=True):
            write(variable, [s.decays[index] for s in settings])
        for index, pair in zip(self.model.trainable, self.optimizer.thresholds, strict=True):
            for position, variable in enumerate(pair):
                write(variable, [s.thresholds[index, position] for s in settings])

    def _optimizer_slots(self) -> list[tf.Variable]:
        return [variable for slot in self.optimizer.state.values() for variable in slot]

    def state_of(self, slot: int) -> OptimizerState:
        """Return what a member's optimizer has gathered."""
        arrays = [tf.gather(variable, slot).numpy() for variable in self._optimizer_slots()]
        momentum_step = float(self.optimizer.momentum_step[slot])
        return OptimizerState(arrays, int(self.steps[slot]), momentum_step=momentum_step)

    def weights_of(
        self, slots: Sequence[int], kept: str | None = None, *, final: bool = False
    ) -> list[list[np.ndarray]]:
        """Return the weights of members: the present ones, or those kept under a name.

        Args:
            slots: positions.
            kept: the name.
            final: of the present ones, those that Keras's `fit` would end with.
        """
        variables = list(self.weights if kept is None else self.kept_weights[kept])
        if final and kept is None:
            for position, variable in self.optimizer.final_weights().items():
                variables[self.model.trainable[position]] = variable
        arrays = [tf.gather(variable, list(slots)).numpy() for variable in variables]
        return [[array[i] for array in arrays] for i in range(len(slots))]

    def read(self) -> Snapshot:
        """Return the present weights and optimizer states of all slots, each read once."""
        return Snapshot(
            [np.array(variable.numpy()) for variable in self.weights],
            [np.array(variable.numpy()) for variable in self._optimizer_slots()],
            self.steps.numpy(),
            self.optimizer.momentum_step.numpy(),
        )

    def keep(self, name: str, which: np.ndarray) -> None:
        """Remember the present weights of the slots where `which` is true, under a name.

        Args:
            which: bool `(K,)`.
        """
        slots = np.flatnonzero(which)
        pairs = list(zip(self._kept(name), self.weights, strict=True))
        if len(slots) == self.slots:
            for variable, weight in pairs:
                variable.assign(weight)
        elif len(slots):
            where = tf.constant(slots[:, None])
            for variable, weight in pairs:
                variable.scatter_nd_update(where, tf.gather(weight, slots))

    def move(self, slots: Sequence[int], target: Program) -> None:
        """Copy the members in `slots`, as they are, to the first slots of another program."""
        names = sorted({*self.kept_weights, *target.kept_weights})
        pairs = zip(self.slot_variables(names), target.slot_variables(names), strict=True)
        for source_variable, target_variable in pairs:
            values = tf.gather(source_variable, list(slots))
            target_variable.scatter_nd_update(tf.range(len(slots))[:, None], values)

    def slot_variables(self, kept: Sequence[str] = ()) -> list[tf.Variable]:
        """Return everything that a slot holds, in a fixed order, with weights kept by name."""
        return [
            *self.weights,
            *self.model.settings_variables(),
            *self.optimizer.vectors.values(),
            *self.optimizer.decays,
            *(variable for pair in self.optimizer.thresholds for variable in pair),
            self.optimizer.momentum_step,
            *self._optimizer_slots(),
            self.steps,
            self.seeds,
            *(variable for name in kept for variable in self._kept(name)),
        ]

    def _kept(self, name: str) -> list[tf.Variable]:
        """The variables for weights kept under a name, made when they are first needed."""
        if name not in self.kept_weights:
            self.kept_weights[name] = [tf.Variable(w, trainable=False) for w in self.weights]
        return self.kept_weights[name]


def _pad_rows(predictions: np.ndarray, batch: int) -> np.ndarray:
    """Fill up the rows of a short batch, so that all steps have one shape."""
    missing = batch - predictions.shape[2]
    return np.pad(predictions, [(0, 0), (0, 0), (0, missing)] + [(0, 0)] * (predictions.ndim - 3))
