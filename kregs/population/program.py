"""`Program`: the stacked model, compiled once, with a slot for each of K members.

A slot is filled with a member's weights and numbers, trained epoch by epoch, and can be given to
another member when it is free. Nothing is traced again for that: all that differs is a variable.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kregs.population.layout import Layout, Settings
from kregs.population.objective import DATA_LOSS, StackedLoss, StackedMetrics
from kregs.population.random import Noise
from kregs.population.registry import Context, StackedLayer, form_of
from kregs.population.stacked import Stacked, per_member
from kregs.population.structure import MODEL_INPUT


@dataclasses.dataclass
class OptimizerState:
    """What one member's optimizer has gathered: its slots, and how many steps it has taken."""

    slots: list[np.ndarray]
    steps: int


@dataclasses.dataclass
class Sums:
    """What a pass over data adds up for each slot: `(K,)` each."""

    names: list[str]
    totals: np.ndarray  # (names, K)
    counts: np.ndarray  # (names, K)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.names, self.totals + other.totals, self.counts + other.counts)

    def means(self) -> dict[str, np.ndarray]:
        """Return the mean of each name for each slot."""
        with np.errstate(invalid="ignore", divide="ignore"):
            values = self.totals / self.counts
        return dict(zip(self.names, values, strict=True))


class Program:
    """K slots of one layout.

    Args:
        layout: the members' common structure.
        slots: K.
        y: a few targets, for Keras to resolve losses and metrics by name; shape `(rows, ...)`.
        batch_size: rows of a full training step.
        accelerate: compile with XLA; `None` chooses: on a CPU where every layer runs well under it.
    """

    def __init__(
        self,
        layout: Layout,
        slots: int,
        y: np.ndarray,
        *,
        batch_size: int = 32,
        accelerate: bool | None = None,
    ) -> None:
        self.layout = layout
        self.slots = slots
        self._batch_size = batch_size
        model = layout.template.model
        self._input_dtype = keras.backend.standardize_dtype(model.inputs[0].dtype)
        prediction = tf.zeros([len(y), *model.output_shape[1:]], model.outputs[0].dtype)
        self.loss = StackedLoss(layout.template, tf.convert_to_tensor(y), prediction)
        self.metrics = StackedMetrics(
            layout.template, self.loss, tf.convert_to_tensor(y), prediction
        )
        self._build_variables()
        self._build_layers()
        self.optimizer = layout.optimizer_form(
            model.optimizer, [self.weights[i] for i in self._trainable], slots
        )
        self.optimizer.clips = layout.clips
        self.steps = tf.Variable(tf.zeros([slots], tf.int32), trainable=False)
        self.seeds = tf.Variable(tf.zeros([slots], tf.int32), trainable=False)
        if accelerate is None:
            # XLA wants one shape, so it masks the rows that the last batch lacks
            accelerate = self.loss.by_row and all(form.accelerated for form in self._forms)
        self.accelerated = accelerate
        self._functions: dict[tuple, Callable] = {}
        self._kept: dict[str, list[tf.Variable]] = {}

    def _build_variables(self) -> None:
        layout = self.layout
        self.weights = [
            tf.Variable(tf.zeros([self.slots, *variable.shape], variable.dtype), trainable=False)
            for variable in layout.weights
        ]
        self._trainable = [i for i, trainable in enumerate(layout.trainable) if trainable]
        dtype = keras.backend.floatx()
        wide = [w.dtype for w in self.weights if w.dtype == tf.float64]
        self._dtype = wide[0] if wide else tf.as_dtype(dtype)

        def vector() -> tf.Variable:
            return tf.Variable(np.zeros(self.slots), dtype=self._dtype, trainable=False)

        self._numbers = {key: vector() for key in layout.settings[0].layers}
        self._penalties = {
            (int(i), int(j)): vector()
            for i, j in np.argwhere(layout.penalized)
            if layout.trainable[i]
        }
        self._max_norms = {
            i: vector()
            for i, constraint in enumerate(layout.constraints)
            if constraint is not None and layout.trainable[i]
        }
        self._smoothing = vector()

    def _build_layers(self) -> None:
        layout = self.layout
        by_variable = {id(v): w for v, w in zip(layout.weights, self.weights, strict=True)}
        self._forms: list[type[StackedLayer]] = []
        stream = 0

        def make(layer: Any, key: tuple) -> Any:
            nonlocal stream
            form = form_of(layer)
            self._forms.append(form)
            stream += 1
            numbers = {name: self._numbers[(*key, name)] for name in form.numbers}
            return form(layer, self.slots, by_variable, numbers, stream)

        self._layers = {
            id(layer): (make(layer, ("layer", position)), ("layer", position))
            for position, layer in enumerate(layout.template.layers)
        }
        self._chains = [
            [
                (make(place.example, ("optional", edge, i)), ("optional", edge, i))
                for i, place in enumerate(places)
            ]
            if layout.groups[edge] == edge
            else []
            for edge, places in enumerate(layout.places)
        ]

    # ---- the model -------------------------------------------------------------------------

    def _forward(self, x: tf.Tensor, context: Context) -> tf.Tensor:
        """Return the predictions `(K, batch, ...)`; penalties of activities go to the context."""
        graph = self.layout.template.graph
        first = Stacked(tf.cast(x, self._input_dtype), self.slots)
        values: dict[int, Stacked] = {MODEL_INPUT: first}
        chained: dict[int, Stacked] = {}
        edges = iter(enumerate(graph.edges()))

        def read() -> Stacked:
            index, edge = next(edges)
            group = self.layout.groups[index]
            if group not in chained:
                value = values[edge.source]
                for layer, key in self._chains[group]:
                    value = self._call(layer, key, (value,), context)
                chained[group] = value
            return chained[group]

        for position, node in enumerate(graph.nodes):
            inputs = tuple(read() for _ in node.inputs)
            layer, key = self._layers[id(node.layer)]
            values[position] = self._call(layer, key, inputs, context)
        return read().member_first()

    def _call(self, layer: Any, key: tuple, inputs: tuple, context: Context) -> Stacked:
        output = layer.call(*inputs, context=context)
        for name, power in (("activity_l1", tf.abs), ("activity_l2", tf.square)):
            if (*key, name) not in self.layout.active_numbers:
                continue
            value = output.member_first()
            value = tf.cast(value, self._dtype)  # half precision overflows a sum
            rank = len(value.shape)
            amount = power(value)
            if context.rows is None:
                count = tf.cast(tf.shape(value)[1], self._dtype)
            else:
                rows = tf.cast(context.rows, self._dtype)
                view = tf.reshape(rows, tf.concat([tf.shape(rows), [1] * (rank - 2)], 0))
                amount = tf.where(view > 0, amount, tf.zeros([], self._dtype))
                count = tf.maximum(tf.reduce_sum(rows, 1), 1.0)
            total = tf.reduce_sum(amount, list(range(1, rank)))
            context.penalties.append(self._numbers[(*key, name)] * total / count)
        return output

    def _weight_penalties(self) -> list[tf.Tensor]:
        terms = []
        for (index, power), coefficient in self._penalties.items():
            weight = self.weights[index]
            amount = tf.square(weight) if power == 1 else tf.abs(weight)
            total = tf.reduce_sum(amount, list(range(1, len(weight.shape))))
            terms.append(tf.cast(coefficient, total.dtype) * total)
        return terms

    def _constrain(self, alive: tf.Tensor | None) -> None:
        for index in self._max_norms:
            weight = self.weights[index]
            kind, axes = self.layout.constraints[index]  # type: ignore[misc]
            rank = len(weight.shape)
            value = tf.convert_to_tensor(weight)
            epsilon = keras.config.epsilon()
            if kind == "non_negative":
                value = tf.where(value >= 0, value, tf.zeros_like(value))
            else:
                own = [axis % (rank - 1) + 1 for axis in axes]
                norms = tf.sqrt(tf.reduce_sum(tf.square(value), own, keepdims=True))
                desired = tf.ones_like(norms)
                if kind == "max_norm":
                    bound = per_member(tf.cast(self._max_norms[index], value.dtype), rank)
                    desired = tf.minimum(norms, bound)
                scaled = value * (desired / (epsilon + norms))
                if kind == "max_norm":
                    scaled = tf.where(tf.math.is_inf(bound), value, scaled)
                value = scaled
            if alive is not None:
                value = tf.where(per_member(alive, rank), value, weight)
            weight.assign(value)

    # ---- steps -----------------------------------------------------------------------------

    def _train_step(
        self, x, y, weight, rows, rate, idle: bool
    ) -> list[tuple[tf.Tensor, tf.Tensor]]:
        noise = Noise(self.seeds, self.steps, batch=self._batch_size, compiled=self.accelerated)
        context = Context(True, noise, rows)
        variables = [self.weights[i] for i in self._trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            prediction = self._forward(x, context)
            data_loss, loss = self._losses(y, prediction, weight, rows, context)
            total = tf.reduce_sum(loss)
        gradients = tape.gradient(total, variables, unconnected_gradients="zero")
        alive = tf.reduce_any(rows > 0, axis=1) if idle else None
        self.optimizer.apply(gradients, rate, self.steps, alive)
        self._constrain(alive)
        for variable, value in context.updates:
            if alive is not None:
                value = tf.where(per_member(alive, len(variable.shape)), value, variable)
            variable.assign(value)
        taken = tf.ones_like(self.steps) if alive is None else tf.cast(alive, tf.int32)
        self.steps.assign_add(taken)
        return self._amounts(y, prediction, weight, rows, data_loss, loss)

    def _test_step(self, x, y, weight, rows) -> tuple[list, tf.Tensor]:
        context = Context(False, None, rows)
        prediction = self._forward(x, context)
        data_loss, loss = self._losses(y, prediction, weight, rows, context)
        return self._amounts(y, prediction, weight, rows, data_loss, loss), prediction

    def _losses(self, y, prediction, weight, rows, context) -> tuple[tf.Tensor, tf.Tensor]:
        data_loss = self.loss(y, prediction, weight, rows, self._smoothing)
        loss = data_loss
        for term in (*self._weight_penalties(), *context.penalties):
            loss = loss + tf.cast(term, loss.dtype)
        return data_loss, loss

    @property
    def sum_names(self) -> list[str]:
        """The names of what a pass adds up, in order."""
        return ["loss", DATA_LOSS, *(name for name, *_ in self.metrics.means)]

    def _amounts(self, y, prediction, weight, rows, data_loss, loss) -> list:
        dtype = loss.dtype
        if rows is None:
            count = tf.cast(tf.fill([self.slots], tf.shape(prediction)[1]), dtype)
        else:
            count = tf.reduce_sum(tf.cast(rows, dtype), 1)
            # an empty step of an ended member must not add its 0 / 0
            data_loss = tf.where(count > 0, data_loss, tf.zeros_like(data_loss))
            loss = tf.where(count > 0, loss, tf.zeros_like(loss))
        amounts = [(loss * count, count), (data_loss * count, count)]
        amounts += self.metrics.sums(y, prediction, weight, rows)
        return [(tf.cast(a, dtype), tf.cast(b, dtype)) for a, b in amounts]

    def _loop(
        self, fetch: Callable, count: Any, rates: tf.Tensor | None, idle: bool, collect: bool
    ):
        """Run `count` steps in one compiled loop and add up their amounts."""
        names = len(self.sum_names)
        dtype = self.loss.loss.dtype
        zeros = tf.zeros([names, self.slots], dtype)
        kept = tf.TensorArray(
            self.layout.template.model.outputs[0].dtype, size=count if collect else 0,
            infer_shape=False, element_shape=None,
        )  # fmt: skip

        def body(step, totals, counts, kept):
            x, y, weight, rows = fetch(step)
            if rates is None:
                amounts, prediction = self._test_step(x, y, weight, rows)
                if collect:
                    kept = kept.write(step, prediction)
            else:
                amounts = self._train_step(x, y, weight, rows, rates[:, step], idle)
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
        return totals, counts, (kept.stack() if collect else tf.zeros([0]))

    def _function(
        self, train: bool, masked: bool, idle: bool, weighted: bool, collect: bool, shared: bool
    ):
        """Return the compiled pass for this kind of data, traced on its first call."""
        key = (train, masked, idle, weighted, collect, shared)
        if key in self._functions:
            return self._functions[key]

        # evaluation is short: tracing is cheaper than compiling it
        jit = self.accelerated and train

        def core(x, y, weight, index, rates):
            count = tf.shape(index)[1] if index.shape[1] is None else index.shape[1]

            def for_all(batch):
                """A batch `(1, rows, ...)` that all members share, as `(K, rows, ...)`."""
                if not shared:
                    return batch
                return tf.repeat(batch, self.slots, axis=0)

            def fetch(step):
                own = index[:, step]
                rows = for_all(tf.cast(own >= 0, tf.float32)) if masked else None

                def take(array):
                    # before XLA the batches are gathered already, steps first
                    picked = array[step] if jit else tf.gather(array, tf.maximum(own, 0))
                    return for_all(picked)

                return take(x), take(y), take(weight) if weighted else None, rows

            return self._loop(fetch, count, rates if train else None, idle, collect)

        compiled = tf.function(core, jit_compile=True, autograph=False) if jit else core

        def run(x, y, weight, index, rates):
            if jit:
                # XLA gathers row by row in a loop: gather before it
                order = tf.maximum(tf.transpose(index, [1, 0, 2]), 0)
                x, y = tf.gather(x, order), tf.gather(y, order)
                weight = tf.gather(weight, order) if weighted else weight
            return compiled(x, y, weight, index, rates)

        self._functions[key] = tf.function(run, autograph=False, reduce_retracing=not jit)
        return self._functions[key]

    def train(
        self,
        rows: Any,
        index: np.ndarray,
        rates: np.ndarray,
        budget: int,
        *,
        shared: bool = False,
    ) -> Sums:
        """Train one epoch.

        Args:
            rows: the data, with `tensors` (x, y, weight), all rows on the device.
            index: which rows each member takes in each step, int32 `(K, steps, batch)`; -1 is no
                row.
            rates: the learning rate of each member in each step, `(K, steps)`.
            budget: how many bytes of batches may be gathered at once.
            shared: whether all members take the rows that the first takes.

        Returns:
            The sums over all steps.
        """
        sums, _ = self._run(rows.tensors, index, rates, budget, collect=False, shared=shared)
        return sums

    def test(
        self, rows: Any, index: np.ndarray, shared: bool, budget: int, *, collect: bool = False
    ) -> tuple[Sums, np.ndarray | None]:
        """Evaluate.

        Args:
            rows, index, budget, shared: see `train`.
            collect: return the predictions, too.

        Returns:
            The sums, and the predictions `(K, steps, batch, ...)` or `None`.
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
    ) -> tuple[Sums, np.ndarray | None]:
        totals: Any = 0.0
        counts: Any = 0.0
        kept = []
        jit = self.accelerated and rates is not None
        most = self._steps_a_call(data, index[:1] if shared else index, budget)
        most = most if jit else index.shape[1]
        for first, last, width, masked in self._parts(index, most, jit):
            piece = index[:, first:last, :width]
            own_rates = np.zeros([1, 1]) if rates is None else rates[:, first:last]
            weighted = data[2] is not None
            # a member with fewer rows sits out its last steps
            idle = masked and not (piece >= 0).any(2).all()
            function = self._function(rates is not None, masked, idle, weighted, collect, shared)
            total, count, predictions = function(
                data[0],
                data[1],
                data[2] if weighted else tf.zeros([1]),
                tf.constant(piece[:1] if shared else piece),
                tf.constant(own_rates, self._dtype),
            )
            totals, counts = totals + total.numpy(), counts + count.numpy()
            if collect:
                kept.append(_pad_rows(predictions.numpy().swapaxes(0, 1), index.shape[2]))
        predictions = np.concatenate(kept, axis=1) if collect else None
        return Sums(self.sum_names, totals, counts), predictions

    def _steps_a_call(self, data: tuple, index: np.ndarray, budget: int) -> int:
        row = sum(int(np.prod(a.shape[1:])) * a.dtype.size for a in data[:2])
        return max(1, budget // max(1, row * index.shape[0] * index.shape[2]))

    @staticmethod
    def _parts(index: np.ndarray, most: int, jit: bool) -> list[tuple[int, int, int, bool]]:
        """Cut steps into calls of few shapes: (first step, last, rows a step, whether masked)."""
        steps, batch = index.shape[1], index.shape[2]
        real = (index >= 0).sum(2)
        full = np.all(real == batch, axis=0)
        uniform = np.all(real == real[:1], axis=0)
        if not jit and full[:-1].all() and uniform[-1]:
            # outside of XLA a smaller last batch costs no second compilation
            if full[-1]:
                return [(0, steps, batch, False)]
            short = (steps - 1, steps, int(real[0, -1]), False)
            return [short] if steps == 1 else [(0, steps - 1, batch, False), short]
        size = math.ceil(steps / math.ceil(steps / most))
        masked = not full.all()
        return [(first, min(first + size, steps), batch, masked) for first in range(0, steps, size)]

    # ---- slots -----------------------------------------------------------------------------

    def fill(
        self,
        slots: Sequence[int],
        weights: Sequence[Sequence[np.ndarray]],
        settings: Sequence[Settings],
        seeds: Sequence[int],
        states: Sequence[OptimizerState | None] | None = None,
    ) -> None:
        """Put members into slots: their weights, numbers, seeds and optimizer states.

        Without a state a member's optimizer is fresh.
        """
        where = tf.constant(np.asarray(slots)[:, None])

        def write(variable: tf.Variable, rows: Any) -> None:
            rows = tf.cast(tf.convert_to_tensor(np.asarray(rows)), variable.dtype)
            variable.scatter_nd_update(where, rows)

        for index, variable in enumerate(self.weights):
            write(variable, np.stack([own[index] for own in weights]))
        for key, variable in self._numbers.items():
            write(variable, [s.layers[key] for s in settings])
        for (index, power), variable in self._penalties.items():
            write(variable, [s.penalties[index, power] for s in settings])
        for index, variable in self._max_norms.items():
            write(variable, [s.max_norms[index] for s in settings])
        write(self._smoothing, [s.smoothing for s in settings])
        for name, variable in self.optimizer.vectors.items():
            write(variable, [s.optimizer[name] for s in settings])
        for index, variable in zip(self._trainable, self.optimizer.decays, strict=True):
            write(variable, [s.decays[index] for s in settings])
        given = list(states or [None] * len(slots))
        for index, variable in enumerate(self._optimizer_slots()):
            zeros = np.zeros(variable.shape[1:])
            write(variable, np.stack([zeros if s is None else s.slots[index] for s in given]))
        write(self.steps, [0 if s is None else s.steps for s in given])
        write(self.seeds, np.asarray(seeds) % (2**31))

    def _optimizer_slots(self) -> list[tf.Variable]:
        return [variable for slot in self.optimizer.state.values() for variable in slot]

    def state_of(self, slot: int) -> OptimizerState:
        """Return what a member's optimizer has gathered."""
        own = [tf.gather(variable, slot).numpy() for variable in self._optimizer_slots()]
        return OptimizerState(own, int(self.steps[slot]))

    def weights_of(self, slots: Sequence[int], kept: str | None = None) -> list[list[np.ndarray]]:
        """Return the weights of members: the present ones, or those kept under a name."""
        variables = self.weights if kept is None else self._kept[kept]
        arrays = [tf.gather(variable, list(slots)).numpy() for variable in variables]
        return [[array[i] for array in arrays] for i in range(len(slots))]

    def keep(self, name: str, which: np.ndarray) -> None:
        """Remember the present weights of the slots where `which` is true, under a name."""
        if name not in self._kept:
            self._kept[name] = [tf.Variable(w, trainable=False) for w in self.weights]
        slots = np.flatnonzero(which)
        if len(slots) == self.slots:
            for variable, weight in zip(self._kept[name], self.weights, strict=True):
                variable.assign(weight)
        elif len(slots):
            where = tf.constant(slots[:, None])
            for variable, weight in zip(self._kept[name], self.weights, strict=True):
                variable.scatter_nd_update(where, tf.gather(weight, slots))

    def move(self, slots: Sequence[int], target: Program) -> None:
        """Copy the members in `slots`, as they are, to the first slots of another program."""
        for ours, theirs in zip(self._variables(target), target._variables(self), strict=True):
            own = tf.gather(ours, list(slots))
            theirs.scatter_nd_update(tf.range(len(slots))[:, None], own)

    def _variables(self, other: Program) -> list[tf.Variable]:
        """Everything that a slot holds, in a fixed order, as far as both programs keep it."""
        for name in {*self._kept, *other._kept}:
            for program in (self, other):
                if name not in program._kept:
                    program._kept[name] = [tf.Variable(w, trainable=False) for w in program.weights]
        return [
            *self.weights,
            *self._numbers.values(),
            *self._penalties.values(),
            *self._max_norms.values(),
            self._smoothing,
            *self.optimizer.vectors.values(),
            *self.optimizer.decays,
            *self._optimizer_slots(),
            self.steps,
            self.seeds,
            *(variable for name in sorted(self._kept) for variable in self._kept[name]),
        ]


def _pad_rows(predictions: np.ndarray, batch: int) -> np.ndarray:
    """Fill up the rows of a short batch, so that all steps have one shape."""
    missing = batch - predictions.shape[2]
    return np.pad(predictions, [(0, 0), (0, 0), (0, missing)] + [(0, 0)] * (predictions.ndim - 3))
