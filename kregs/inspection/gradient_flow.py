"""`gradient_flow`: vanishing and exploding gradients, dead and saturated units, layer by layer."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kregs.initializers import initializer_for
from kregs.inspection.probing import (
    Batch,
    NamedLayer,
    ScalarWriter,
    as_batch,
    check_model,
    named_layers,
    some_rows,
    state_kept,
    whole_loss,
)
from kregs.validation import check_integer, check_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# the gradient that reaches a layer, relative to that at the last hidden layer
VANISHING = 1e-3
EXPLODING = 1e3
# a gradient so many times as large as the weights it changes
TOO_LARGE = 1e3
# shares of a layer's units, or of its outputs. In a deep ReLU chain all rows come to point in one
# direction, so that half of the units are off on every row though nothing is wrong
DEAD = 0.9
SATURATED = 0.5
# of its maximum: a sigmoid or tanh whose derivative is below that is saturated
_FLAT = 0.05
# how far a kernel's standard deviation may be from what suits the activation
_STD_FACTOR = 1.5

_CUT_OFF = ("relu", "relu6")  # whose units can be off for all rows
_NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.UnitNormalization,
)
_COLUMNS = (
    "layer", "type", "activation", "parameters", "gradient_norm", "gradient_mean_abs",
    "gradient_zeros", "weight_norm", "relative_gradient", "backpropagated", "ratio",
    "activation_mean", "activation_std", "dead", "saturated",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FlowFinding:
    """What is wrong at one layer.

    Args:
        problem: `vanishing`, `exploding`, `dead` or `saturated`.
        layer: the layer's name, behind those of what it is within.
        value: the number that shows it.
        why: the rule that it breaks, in words.
        remedies: what to change, the likeliest first.
    """

    problem: str
    layer: str
    value: float
    why: str
    remedies: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class GradientFlow:
    """Gradients and activations of one pass, layer by layer. Made by `gradient_flow`.

    Args:
        frame: see `to_frame`.
        findings: what is wrong, by layer.
        loss: of the pass, with penalties.
        rows: how many there were.
        limits: below and above which `ratio` a gradient vanishes and explodes.
    """

    frame: pd.DataFrame
    findings: tuple[FlowFinding, ...]
    loss: float
    rows: int
    limits: tuple[float, float] = (VANISHING, EXPLODING)

    @property
    def vanishing(self) -> list[str]:
        """The names of the layers at which the gradient vanishes."""
        return [finding.layer for finding in self.findings if finding.problem == "vanishing"]

    @property
    def exploding(self) -> list[str]:
        """The names of the layers at which the gradient explodes."""
        return [finding.layer for finding in self.findings if finding.problem == "exploding"]

    @property
    def gradient_norm(self) -> float:
        """The norm of the gradient of all weights together."""
        return float(np.sqrt(np.square(self.frame["gradient_norm"].dropna()).sum()))

    def to_frame(self) -> pd.DataFrame:
        """Return one row a layer, in the order of their calls; NaN where it has no sense.

        - `parameters`, `weight_norm`: number and norm of its trainable weights.
        - `gradient_norm`, `gradient_mean_abs`, `gradient_zeros`: of the loss by these weights: the
          norm, the mean size, the share that is exactly 0.
        - `relative_gradient`: the norm of the kernels' gradient by that of the kernels.
        - `backpropagated`: the norm of the loss's gradient by the layer's output, over all rows.
        - `ratio`: that by the same at the last hidden layer with a kernel; of layers with a kernel.
        - `activation_mean`, `activation_std`: of its outputs.
        - `dead`: of a ReLU, the share of units that are 0 on every row.
        - `saturated`: of a sigmoid or tanh, the share of outputs where its derivative is below a
          twentieth of its maximum.
        """
        return self.frame.copy()

    def plot(self) -> Figure:
        """Return the figure: how the gradient changes on its way back, and the activations."""
        from kregs.reporting.figures.gradient_flow import gradient_flow

        return gradient_flow(self.frame, self.limits, problems=self._problems())

    def _problems(self) -> dict[str, str]:
        return {finding.layer: finding.problem for finding in self.findings}

    def __str__(self) -> str:
        columns = ["layer", "gradient_norm", "ratio", "activation_mean", "activation_std"]
        columns += [c for c in ("dead", "saturated") if self.frame[c].notna().any()]
        called = self.frame[(self.frame["parameters"] > 0) | self.frame["ratio"].notna()]
        norms = called["gradient_norm"].map("{:.3g}".format)  # of a diverged model: nan
        table = (
            called[columns]
            .assign(gradient_norm=norms)
            .to_string(index=False, float_format="{:.3g}".format, na_rep="")
        )
        lines = [table]
        for problem in ("exploding", "vanishing", "dead", "saturated"):
            group = [finding for finding in self.findings if finding.problem == problem]
            if group:
                names = ", ".join(finding.layer for finding in group[:4])
                more = f" and {len(group) - 4} more" if len(group) > 4 else ""
                lines.append(f"{problem}: {names}{more}: {group[0].why}")
                lines += [f"  - {remedy}" for remedy in group[0].remedies]
        if not self.findings:
            lines.append("nothing vanishes, explodes or is dead")
        return "\n".join(lines)

    def __repr__(self) -> str:
        problems = [f.problem for f in self.findings]
        counts = ", ".join(f"{problems.count(p)} {p}" for p in dict.fromkeys(problems))
        return f"<GradientFlow: {len(self.frame)} layers, {counts or 'no finding'}>"


def gradient_flow(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    rows: int | None = 256,
    vanishing: float = VANISHING,
    exploding: float = EXPLODING,
) -> GradientFlow:
    """Look at gradients and activations of a compiled model, layer by layer, in one traced pass.

    The pass is one of training: dropout acts, batch norm takes the batch's statistics, penalties
    are in the loss. Nothing is updated: weights, optimizer, moving averages, the states of seeds
    and metrics stay as they are.

    What is found, by these rules:

    - **vanishing**, **exploding**: the norm of the loss's gradient by a layer's output, divided by
      that at the last hidden layer with a kernel, is below 1e-3 or above 1e3. In a chain whose
      initializer suits the activation it stays near 1 at any depth (Glorot and Bengio 2010; He et
      al. 2015). The gradient by the weights alone would not show it: there the growth of
      activations forwards makes up for that of gradients backwards.
    - **exploding**, too: a gradient that is no finite number, or whose norm is above 1000 times
      that of the kernel itself.
    - **dead**: more than nine tenths of a ReLU layer's units are 0 on every row; or no gradient at
      all reaches a layer's weights.
    - **saturated**: more than half of a sigmoid's or tanh's outputs lie where it is flat.

    Args:
        model: any compiled Keras model, a subclassed one, too.
        x, y: rows and targets, as `model.fit` takes them; or a dataset, whose first batch is used.
        sample_weight: `(rows,)`.
        rows: take so many, evenly spread; `None`: all, at once.
        vanishing, exploding: other limits of the first rule.

    Returns:
        A `GradientFlow`: `.findings`, `.vanishing`, `.exploding`, `.to_frame()`, `.plot()`; as text
        it names the layers and what to change.

    Raises:
        TypeError, ValueError: the model is not compiled or has nothing to train, data do not fit
            it, or an argument is out of bounds.

    Example:

    >>> import keras, kregs, numpy as np
    >>> layers = [keras.layers.Dense(16, "sigmoid", name=f"d{i}") for i in range(9)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> flow = kregs.gradient_flow(model, x, x[:, :1])
    >>> flow.vanishing[:2], flow.exploding
    (['d0', 'd1'], [])
    >>> flow.findings[0].remedies[0]
    'in place of sigmoid: relu, with kernel_initializer="he_normal"'

    References:
        Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks",
        2010; He et al., "Delving Deep into Rectifiers", 2015; Pascanu, Mikolov, Bengio, "On the
        difficulty of training recurrent neural networks", 2013 (clipping).
    """
    check_model(model, compiled=True)
    if rows is not None:
        check_integer("rows", rows, minimum=1)
    check_number("vanishing", vanishing, above=0.0, below=1.0)
    check_number("exploding", exploding, above=1.0)
    batch = as_batch(x, y, sample_weight, model)
    if batch.y is None and model.loss is not None:
        raise ValueError("`y` must be given: the model is compiled with a loss. Received: y=None")
    batch = some_rows(batch, rows)
    return _Probe(model, (vanishing, exploding)).look(batch)


class GradientFlowLogger(keras.callbacks.Callback):
    """Looks at gradients and activations before training and after epochs, see `gradient_flow`.

    The logs of each epoch, and so the history and the callbacks that stand after it in the list,
    get `gradient_norm`, `gradient_norm/<layer>`, `gradient_ratio/<layer>`, and as `vanishing` and
    `exploding` the numbers of layers.

    Args:
        x, y, sample_weight, rows: as in `kregs.gradient_flow`: the same rows each time.
        every: look after each so many epochs; the last values stand in between.
        log_dir: also write the numbers as scalars for TensorBoard into this folder; before
            training is step 0, after the first epoch step 1.

    Attributes:
        flows: a `GradientFlow` by the number of epochs behind it; 0 is before training.

    Raises:
        TypeError, ValueError: an argument is out of bounds; in `fit`: data do not fit the model.

    Example:

    >>> import keras, kregs, numpy as np
    >>> model = kregs.mlp((2,), 1, units=(3, 3), head_activation=None)
    >>> model = kregs.compile_model(model, "mse")
    >>> x = np.ones((8, 2), "float32")
    >>> logger = kregs.GradientFlowLogger(x, x[:, :1])
    >>> history = model.fit(x, x[:, :1], epochs=2, callbacks=[logger], verbose=0).history
    >>> sorted(logger.flows), len(history["gradient_norm/dense_1"])
    ([0, 1, 2], 2)
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        rows: int | None = 256,
        every: int = 1,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if rows is not None:
            check_integer("rows", rows, minimum=1)
        self._data, self._rows = (x, y, sample_weight), rows
        self._every = check_integer("every", every, minimum=1)
        self._writer = ScalarWriter(log_dir)
        self._probe: _Probe | None = None
        self._batch: Batch | None = None
        self._last: dict[str, float] = {}
        self.flows: dict[int, GradientFlow] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Look before the first step; an earlier training is forgotten."""
        check_model(self.model, compiled=True)
        self._batch = some_rows(as_batch(*self._data, self.model), self._rows)
        self._probe, self.flows = _Probe(self.model, (VANISHING, EXPLODING)), {}
        self._look(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the numbers to the logs."""
        if (epoch + 1) % self._every == 0:
            self._look(epoch + 1)
        if logs is not None:
            logs.update(self._last)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the log of TensorBoard."""
        self._writer.close()

    def to_frame(self) -> pd.DataFrame:
        """Return the frames of all looks, one below the other, with a column `epoch` before."""
        frames = [flow.to_frame().assign(epoch=epoch) for epoch, flow in self.flows.items()]
        if not frames:
            return pd.DataFrame(columns=["epoch", *_COLUMNS])
        frame = pd.concat(frames, ignore_index=True)
        return frame[["epoch", *_COLUMNS]]

    def plot(self) -> Figure:
        """Return the figure: each layer's `ratio` over the epochs."""
        from kregs.reporting.figures.gradient_flow import gradient_flow_over_epochs

        if not self.flows:
            raise ValueError("`plot` must come after `fit` with this callback. Received: no look")
        return gradient_flow_over_epochs(self.to_frame(), (VANISHING, EXPLODING))

    def _look(self, epoch: int) -> None:
        flow = self._probe.look(self._batch)  # type: ignore[union-attr, arg-type]
        self.flows[epoch] = flow
        self._last = {
            "gradient_norm": flow.gradient_norm,
            "vanishing": float(len(flow.vanishing)),
            "exploding": float(len(flow.exploding)),
        }
        for column, word in (("gradient_norm", "gradient_norm"), ("ratio", "gradient_ratio")):
            known = flow.frame[flow.frame[column].notna()]
            pairs = zip(known["layer"], known[column], strict=True)
            self._last |= {f"{word}/{name}": float(value) for name, value in pairs}
        self._writer.write(self._last, epoch)


# ---- the pass ------------------------------------------------------------------------------


class _Probe:
    """A model's training pass, traced once, that returns statistics and updates nothing."""

    def __init__(self, model: keras.Model, limits: tuple[float, float]) -> None:
        self.model, self.limits = model, limits
        self.layers = named_layers(model)
        self.variables = [v for each in self.layers for v in each.variables]
        if not self.variables:
            raise ValueError(
                "`model` must have weights that are trained, or no gradient flows. "
                f"Received: model {model.name!r}, which has none"
            )
        self._function: Callable = self._pass
        if not model.run_eagerly:  # without autograph, as in `fit`
            self._function = tf.function(self._pass, autograph=False)
        # found out while it is traced: in which order layers are called, and which end the model
        self._called: list[int] = []
        self._outputs: set[int] = set()

    def look(self, batch: Batch) -> GradientFlow:
        """Return what one pass over a batch shows."""
        scale = _loss_scale(self.model.optimizer)
        with state_kept(self.model):
            while True:
                numbers = self._function(batch.x, batch.y, batch.sample_weight, tf.constant(scale))
                numbers = keras.tree.map_structure(lambda t: t.numpy(), numbers)
                finite = all(math.isfinite(n["squares"]) for n in numbers["variables"])
                if finite or scale <= 1.0:
                    break
                scale /= 16.0  # float16 overflowed, as it may in `fit`, which then skips the step
        rows = [self._row(position, numbers, scale) for position in self._order()]
        frame = pd.DataFrame(rows, columns=list(_COLUMNS))
        self._add_ratios(frame)
        findings = _Findings(self, frame).all()
        return GradientFlow(frame, findings, float(numbers["loss"]), len(batch), self.limits)

    def _order(self) -> list[int]:
        called = list(dict.fromkeys(self._called))
        weighted = [i for i, each in enumerate(self.layers) if each.variables]
        return [*called, *(i for i in weighted if i not in called)]

    def _pass(self, x: Any, y: Any, sample_weight: Any, scale: Any) -> dict[str, Any]:
        """The forward and backward pass of `fit`, and what is counted of it."""
        calls: list[tuple[int, Any]] = []
        with tf.GradientTape() as tape, _recorded(self.layers, calls):
            prediction = self.model(x, training=True)
            loss = whole_loss(self.model, x, y, prediction, sample_weight, training=True)
            scaled = loss * tf.cast(scale, loss.dtype)
        last = {id(tensor) for tensor in keras.tree.flatten(prediction)}
        self._called = [position for position, _ in calls]
        self._outputs = {position for position, tensor in calls if id(tensor) in last}
        weights = [variable.value for variable in self.variables]
        tensors = [tensor for _, tensor in calls]
        gradients = tape.gradient(scaled, [*weights, *tensors])
        by_weight, by_output = gradients[: len(weights)], gradients[len(weights) :]
        by_layer: dict[int, list[tuple[Any, Any]]] = {}
        for (position, tensor), gradient in zip(calls, by_output, strict=True):
            by_layer.setdefault(position, []).append((tensor, gradient))
        return {
            "loss": loss,
            "variables": [_of_weight(w, g, scale) for w, g in zip(weights, by_weight, strict=True)],
            "calls": {
                str(position): _of_outputs(pairs, scale, _activation(self.layers[position].layer))
                for position, pairs in by_layer.items()
            },
        }

    def _row(self, position: int, numbers: dict[str, Any], scale: float) -> list[Any]:
        each = self.layers[position]
        places = {id(variable): i for i, variable in enumerate(self.variables)}
        own = [(v, numbers["variables"][places[id(v)]]) for v in each.variables]
        row: dict[str, Any] = dict.fromkeys(_COLUMNS, math.nan)
        row |= {
            "layer": each.name,
            "type": type(each.layer).__name__,
            "activation": _activation(each.layer) or "",
            "parameters": sum(int(np.prod(v.shape)) for v in each.variables),
        }
        if own:
            size = row["parameters"]
            row["gradient_norm"] = math.sqrt(sum(n["squares"] for _, n in own))
            row["gradient_mean_abs"] = sum(n["sizes"] for _, n in own) / size
            row["gradient_zeros"] = sum(n["zeros"] for _, n in own) / size
            row["weight_norm"] = math.sqrt(sum(n["weights"] for _, n in own))
            kernels = [n for v, n in own if len(v.shape) > 1]
            norm = math.sqrt(sum(n["weights"] for n in kernels))
            if norm:
                row["relative_gradient"] = math.sqrt(sum(n["squares"] for n in kernels)) / norm
        outputs = numbers["calls"].get(str(position))
        if outputs is not None:
            mean = outputs["sum"] / outputs["count"]
            row["activation_mean"] = float(mean)
            row["activation_std"] = math.sqrt(
                max(0.0, outputs["squares"] / outputs["count"] - mean**2)
            )
            row["backpropagated"] = math.sqrt(outputs["gradient"])
            if "live" in outputs:
                row["dead"] = 1.0 - float(outputs["live"].mean())
            if "flat" in outputs:
                row["saturated"] = float(outputs["flat"] / outputs["count"])
        return [row[name] for name in _COLUMNS]

    def _add_ratios(self, frame: pd.DataFrame) -> None:
        """Compare the gradient at each hidden layer with a kernel with that at the last of them."""
        order = self._order()
        chain = [row for row, position in enumerate(order) if self._is_hidden(position)]
        if len(chain) < 2:
            return
        norms = frame["backpropagated"].to_numpy(float)[chain]
        with np.errstate(divide="ignore", invalid="ignore"):
            frame.loc[chain, "ratio"] = norms / norms[-1]

    def _is_hidden(self, position: int) -> bool:
        variables = self.layers[position].variables
        has_kernel = any(len(variable.shape) > 1 for variable in variables)
        return has_kernel and position in self._called and position not in self._outputs


@contextlib.contextmanager
def _recorded(layers: Sequence[NamedLayer], calls: list[tuple[int, Any]]) -> Iterator[None]:
    """Note each output of each layer while the block runs.

    A model of one's own shows no graph: what its layers return is seen by calling them.
    """
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def is_here(tensor: Any) -> bool:
        """Whether it is an activation of this pass, not of a loop inside a layer."""
        if not (isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating):
            return False
        symbolic = tf.is_symbolic_tensor(tensor)
        return not symbolic if graph is None else symbolic and tensor.graph is graph

    def recorded(position: int, call: Callable) -> Callable:
        @functools.wraps(call)
        def call_and_note(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            calls.extend((position, t) for t in keras.tree.flatten(outputs) if is_here(t))
            return outputs

        return call_and_note

    watched = [
        (i, each.layer) for i, each in enumerate(layers) if not isinstance(each.layer, keras.Model)
    ]
    before = [vars(layer).get("call") for _, layer in watched]
    for position, layer in watched:
        vars(layer)["call"] = recorded(position, layer.call)
    try:
        yield
    finally:
        for (_, layer), own in zip(watched, before, strict=True):
            if own is None:
                del vars(layer)["call"]
            else:
                vars(layer)["call"] = own


def _wide(tensor: Any) -> Any:
    return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)


def _of_weight(weight: Any, gradient: Any, scale: Any) -> dict[str, Any]:
    """Sums over a weight's gradient, whose scale is taken out."""
    wide = _wide(tf.convert_to_tensor(weight))
    if gradient is None:
        gradient = tf.zeros_like(wide)
    gradient = _wide(tf.convert_to_tensor(gradient)) / tf.cast(scale, wide.dtype)
    return {
        "squares": tf.reduce_sum(gradient**2),
        "sizes": tf.reduce_sum(tf.abs(gradient)),
        "zeros": tf.reduce_sum(tf.cast(gradient == 0, wide.dtype)),
        "weights": tf.reduce_sum(wide**2),
    }


def _of_outputs(
    pairs: Sequence[tuple[Any, Any]], scale: Any, activation: str | None
) -> dict[str, Any]:
    """Sums over all outputs of a layer, which may be called several times."""
    tensors = [_wide(tensor) for tensor, _ in pairs]
    sums: dict[str, Any] = {
        "sum": tf.add_n([tf.reduce_sum(t) for t in tensors]),
        "squares": tf.add_n([tf.reduce_sum(t**2) for t in tensors]),
        "count": tf.add_n([tf.cast(tf.size(t), t.dtype) for t in tensors]),
        "gradient": tf.add_n(
            [
                tf.zeros((), t.dtype)
                if gradient is None
                else tf.reduce_sum((_wide(gradient) / tf.cast(scale, t.dtype)) ** 2)
                for t, (_, gradient) in zip(tensors, pairs, strict=True)
            ]
        ),
    }
    if activation in _CUT_OFF and len({t.shape[-1] for t in tensors}) == 1:
        lives = [tf.reduce_any(t != 0, axis=list(range(len(t.shape) - 1))) for t in tensors]
        sums["live"] = tf.cast(functools.reduce(tf.logical_or, lives), tf.float32)
    if activation in ("sigmoid", "tanh"):
        slopes = [4 * t * (1 - t) if activation == "sigmoid" else 1 - t**2 for t in tensors]
        sums["flat"] = tf.add_n([tf.reduce_sum(tf.cast(s < _FLAT, s.dtype)) for s in slopes])
    return sums


def _activation(layer: Any) -> str | None:
    """Return the name of a layer's activation; `None` if it has none that its outputs come from."""
    if isinstance(layer, keras.layers.ReLU):
        return "relu" if not layer.negative_slope and not layer.threshold else "leaky_relu"
    if isinstance(layer, (keras.layers.LeakyReLU, keras.layers.PReLU)):
        return "leaky_relu"
    function = getattr(layer, "activation", None)
    if isinstance(layer, keras.layers.RNN) or function is None:
        return None
    return getattr(function, "__name__", type(function).__name__)


def _loss_scale(optimizer: Any) -> float:
    """Return by what `fit` multiplies the loss, so that float16 gradients are not rounded to 0."""
    if optimizer is None:
        return 1.0
    return float(keras.ops.convert_to_numpy(optimizer.scale_loss(keras.ops.ones(()))))


# ---- what is wrong -------------------------------------------------------------------------


class _Findings:
    """The rules, over the frame of one pass."""

    def __init__(self, probe: _Probe, frame: pd.DataFrame) -> None:
        self._frame = frame
        self._limits = probe.limits
        layers = [each.layer for each in probe.layers]
        self._by_name = {each.name: each for each in probe.layers}
        self._is_normalized = any(isinstance(layer, _NORMALIZATIONS) for layer in layers)
        self._has_shortcuts = any(isinstance(layer, keras.layers.Add) for layer in layers)

    def all(self) -> tuple[FlowFinding, ...]:
        """Return at most one finding a layer, those of gradients first."""
        findings = []
        ratios = self._frame["ratio"].dropna()
        depth = len(ratios)
        for index, row in self._frame.iterrows():
            problem = self._problem(row)
            if problem is None:
                continue
            kind, value, why = problem
            if (
                kind in ("vanishing", "exploding")
                and row["ratio"] == value
                and 0 < value < math.inf
            ):
                steps = depth - 1 - list(ratios.index).index(index)
                why += f", {value ** (1 / steps):.2g} a layer" if steps > 1 else ""
            remedies = getattr(self, f"_against_{kind}")(row)
            findings.append(FlowFinding(kind, row["layer"], value, why, tuple(remedies)))
        return tuple(findings)

    def _problem(self, row: pd.Series) -> tuple[str, float, str] | None:
        low, high = self._limits
        norm, ratio, relative = row["gradient_norm"], row["ratio"], row["relative_gradient"]
        if row["parameters"] and not math.isfinite(row["weight_norm"]):
            return "exploding", norm, "its weights are no finite numbers: training has diverged"
        if math.isinf(norm) or (row["parameters"] and math.isnan(norm)):
            return "exploding", norm, "the gradient is no finite number"
        if row["dead"] > DEAD:
            return "dead", row["dead"], f"{row['dead']:.0%} of its units are 0 on every row"
        if norm == 0:
            is_cut_off = math.isnan(ratio) or (self._frame["dead"] == 1.0).any()
            return "dead" if is_cut_off else "vanishing", 0.0, "no gradient reaches its weights"
        if ratio > high:
            why = f"the gradient that reaches it is {ratio:.2g} times that at the last hidden layer"
            return "exploding", ratio, why
        if relative > TOO_LARGE:
            return (
                "exploding",
                relative,
                f"the gradient is {relative:.2g} times as large as the kernel",
            )
        if ratio < low:
            why = f"the gradient that reaches it is {ratio:.2g} of that at the last hidden layer"
            return "vanishing", ratio, why
        if row["saturated"] > SATURATED:
            share = row["saturated"]
            return (
                "saturated",
                share,
                f"{share:.0%} of its outputs lie where {row['activation']} is flat",
            )
        return None

    def _against_vanishing(self, row: pd.Series) -> Iterator[str]:
        squashing = set(self._frame["activation"]) & {"sigmoid", "tanh", "hard_sigmoid", "softsign"}
        if row["activation"] in squashing or (squashing and not row["activation"]):
            name = row["activation"] or min(squashing)
            yield f'in place of {name}: relu, with kernel_initializer="he_normal"'
        yield from self._initializer(row, too="small")
        yield from self._structure()

    def _against_exploding(self, row: pd.Series) -> Iterator[str]:
        if row["parameters"] and not math.isfinite(row["weight_norm"]):
            yield "the model built anew, or a checkpoint from before: NaN does not go away"
        yield from self._initializer(row, too="large")
        yield "clip: clipnorm=1.0 in the optimizer"
        yield "inputs and targets scaled to a standard deviation of 1; a smaller learning rate"
        yield from self._structure()

    def _against_dead(self, row: pd.Series) -> Iterator[str]:
        if math.isnan(row["dead"]):
            yield "connect the layer to the loss, or freeze it (trainable=False) if that is meant"
            yield "look for dead layers behind it"
            return
        yield "a smaller learning rate, or a warm-up"
        yield 'kernel_initializer="he_normal", zeros as biases; inputs scaled to mean 0'
        yield "leaky_relu, elu or gelu in place of relu"
        yield from self._structure()

    def _against_saturated(self, row: pd.Series) -> Iterator[str]:
        yield "inputs scaled to mean 0 and standard deviation 1"
        yield from self._initializer(row, too="large")
        yield f'in place of {row["activation"]}: relu, with kernel_initializer="he_normal"'
        yield from self._structure()

    def _structure(self) -> Iterator[str]:
        if not self._is_normalized:
            yield "normalization: BatchNormalization or LayerNormalization after each layer"
        if not self._has_shortcuts:
            yield "residual connections: keras.layers.Add around every two layers"

    def _initializer(self, row: pd.Series, *, too: str) -> Iterator[str]:
        """Say what initializer suits, if the kernel is much smaller or larger than it would be."""
        each = self._by_name[row["layer"]]
        kernels = [v for v in each.variables if v.name == "kernel" and len(v.shape) > 1]
        if not kernels or "kernel_initializer" not in vars(each.layer):
            return
        kernel = kernels[0]
        activation = row["activation"] if row["activation"] != "linear" else self._next(row.name)
        suitable = type(initializer_for(_known(activation))).__name__
        *inner, outputs = kernel.shape
        fan_in, fan_out = math.prod(inner), outputs * math.prod(inner[:-1])
        variance = {"HeNormal": 2 / fan_in, "LecunNormal": 1 / fan_in}
        fitting = math.sqrt(variance.get(suitable, 2 / (fan_in + fan_out)))
        present = float(keras.ops.convert_to_numpy(keras.ops.std(kernel)))
        is_off = (
            present > _STD_FACTOR * fitting if too == "large" else present < fitting / _STD_FACTOR
        )
        if is_off:
            yield (
                f"initializer: the kernel's standard deviation is {present:.2g}, "
                f"{suitable} gives {fitting:.2g}"
            )

    def _next(self, index: Any) -> str:
        """The activation of a layer of its own that follows."""
        later = self._frame["activation"][index + 1 : index + 3]
        return next((name for name in later if name not in ("", "linear")), "linear")


def _known(activation: str) -> str | None:
    try:
        initializer_for(activation or None)
    except ValueError:  # a function of one's own
        return None
    return activation or None
