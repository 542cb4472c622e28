"""Calibration of classifiers: how right they are when they are sure, and temperature scaling."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from kregs.builders.layer_copies import ModelCopier, copy_model, new_layer
from kregs.builders.layer_kinds import config_of
from kregs.builders.model_graph import Call, ModelGraph
from kregs.inspection.ensemble import check_symbolic, compile_as, inputs_like
from kregs.inspection.probabilities import (
    as_probabilities,
    class_labels,
    is_multi_label,
    puts_out_logits,
)
from kregs.training.data_checks import check_data
from kregs.validation import check_flag, check_integer, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

L = keras.layers

# temperatures that are looked at: outside of them probabilities are 0 and 1, or all alike
_BOUNDS = (np.log(1e-2), np.log(1e2))


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """How the confidence of a classifier agrees with how often it is right.

    Args:
        confidence: probability of the class that was predicted, `(rows,)`.
        correct: whether that was the row's class, `(rows,)`.
        nll: negative log-likelihood, the mean over rows, in nats.
        brier: mean squared distance of the probabilities from the one-hot target; as usual, of two
            classes that of the second one's probability alone, half of it.
        bins: into how many confidence is cut.

    Example:

    >>> sure = np.array([0.9, 0.9, 0.6, 0.6])
    >>> Calibration(sure, np.array([1, 1, 1, 0], bool), nll=0.4, brier=0.1, bins=2)
    Calibration(rows=4, accuracy=0.7500, confidence=0.7500, ece=0.0000, nll=0.4000, brier=0.1000)
    """

    confidence: np.ndarray
    correct: np.ndarray
    nll: float
    brier: float
    bins: int = 15

    def __repr__(self) -> str:
        return (
            f"Calibration(rows={len(self.correct)}, accuracy={self.accuracy:.4f}, "
            f"confidence={self.confidence.mean():.4f}, ece={self.ece:.4f}, nll={self.nll:.4f}, "
            f"brier={self.brier:.4f})"
        )

    @property
    def accuracy(self) -> float:
        """The share of rows whose class was predicted."""
        return float(np.mean(self.correct))

    @property
    def ece(self) -> float:
        """Expected calibration error: the gap of bins of equal width, weighted by their rows.

        Reference:
            Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017,
            eq. 3.
        """
        return _expected_error(self.to_frame())

    @property
    def adaptive_ece(self) -> float:
        """The same over bins with equally many rows.

        Reference:
            Nixon, Dusenberry, Zhang, Jerfel, Tran, "Measuring calibration in deep learning", 2019.
        """
        return _expected_error(self.to_frame(adaptive=True))

    @property
    def maximum_error(self) -> float:
        """Maximum calibration error: the largest gap of a bin of equal width (Guo et al., eq. 4).

        A bin with a handful of rows can make it large.
        """
        return float(self.to_frame()["gap"].abs().max())

    def to_frame(self, *, adaptive: bool = False) -> pd.DataFrame:
        """Return the bins that have rows.

        Args:
            adaptive: bins with equally many rows instead of equal width.

        Returns:
            Columns `lower`, `upper` (bounds of the confidence, the upper one belongs to the bin),
            `rows`, `confidence`, `accuracy` and `gap`, confidence minus accuracy: above 0 the
            model is surer than it is right.
        """
        edges = np.linspace(0.0, 1.0, self.bins + 1)
        if check_flag("adaptive", adaptive):
            edges = np.percentile(self.confidence, 100 * edges)
        places = np.searchsorted(edges[1:-1], self.confidence)  # as in scikit-learn
        rows = np.bincount(places, minlength=self.bins)
        filled = rows > 0
        means = [
            np.bincount(places, values, minlength=self.bins)[filled] / rows[filled]
            for values in (self.confidence, self.correct)
        ]
        return pd.DataFrame(
            {
                "lower": edges[:-1][filled],
                "upper": edges[1:][filled],
                "rows": rows[filled],
                "confidence": means[0],
                "accuracy": means[1],
                "gap": means[0] - means[1],
            }
        )

    def to_dict(self) -> dict[str, float]:
        """Return all numbers by name."""
        return {
            "rows": len(self.correct),
            "accuracy": self.accuracy,
            "confidence": float(self.confidence.mean()),
            "ece": self.ece,
            "adaptive_ece": self.adaptive_ece,
            "maximum_error": self.maximum_error,
            "nll": self.nll,
            "brier": self.brier,
        }

    def plot(self) -> Figure:
        """Return the reliability diagram as a matplotlib figure."""
        from kregs.reporting.figures.reliability import reliability

        return reliability({"this model": self.to_frame()}, f"ECE {self.ece:.3f}")


def _expected_error(bins: pd.DataFrame) -> float:
    return float((bins["gap"].abs() * bins["rows"]).sum() / bins["rows"].sum())


def calibration(
    model: Any,
    x: Any = None,
    y: Any = None,
    *,
    from_logits: bool | None = None,
    bins: int = 15,
    batch_size: int = 256,
) -> Calibration:
    """Measure how the confidence of a classifier agrees with how often it is right.

    Args:
        model: a Keras model with one output; or what it predicts, `(rows, classes)`, or of two
            classes `(rows, 1)` or `(rows,)`, the second one's probability.
        x: inputs, for a model alone.
        y: class numbers, or one-hot rows.
        from_logits: whether logits are put out instead of probabilities. Default: what the loss
            says that the model is compiled with.
        bins: into how many bins of equal width confidence is cut.
        batch_size: rows at a time.

    Returns:
        A `Calibration`: `ece`, `adaptive_ece`, `maximum_error`, `brier`, `nll`, `accuracy`,
        `to_frame()`, `plot()`.

    Raises:
        TypeError, ValueError: an argument is wrong, or the predictions are no probabilities.

    Example:

    >>> import kregs, numpy as np
    >>> measured = kregs.calibration(np.array([[0.8, 0.2], [0.3, 0.7]]), y=[0, 0])
    >>> round(measured.ece, 3)  # (0.8 - 1) and (0.7 - 0)
    0.45

    References:
        Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017;
        DeGroot, Fienberg, "The comparison and evaluation of forecasters", 1983; Brier 1950.
    """
    bins = check_integer("bins", bins, minimum=1)
    if x is not None and not isinstance(model, keras.Model):
        raise ValueError(
            "`x` must be None if predictions are given instead of a model: "
            f"kregs.calibration(predictions, y=y). Received: model={in_words(model)}"
        )
    if isinstance(model, keras.Model):
        return _of_model(model, ("x", x), ("y", y), from_logits, bins, batch_size)
    outputs = np.asarray(model)
    if outputs.ndim and not outputs.size:
        raise ValueError(f"`model` must hold predictions. Received: shape {outputs.shape}")
    if outputs.dtype.kind not in "fiu" or outputs.ndim == 0:
        raise TypeError(
            "`model` must be a Keras model or an array of its predictions. "
            f"Received: {in_words(model)}"
        )
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    return _measured("model", outputs, ("y", y), bool(puts_out_logits(None, from_logits)), bins)


def _of_model(
    model: keras.Model,
    x: tuple[str, Any],
    y: tuple[str, Any],
    from_logits: bool | None,
    bins: int,
    batch_size: int,
) -> Calibration:
    """Return the calibration on rows and targets, each with its name for messages."""
    if is_multi_label(model):
        raise ValueError(
            "`model` must tell one class a row. Received: a model with a binary crossentropy and "
            f"{model.output_shape[-1]} units; pass the predictions of one unit: "
            "kregs.calibration(predictions[:, 0], y=y[:, 0])"
        )
    outputs = _outputs(model, x, batch_size)
    logits = puts_out_logits(model, from_logits)
    return _measured("predictions", outputs, y, logits, bins)


def _outputs(model: keras.Model, rows: tuple[str, Any], batch_size: int) -> np.ndarray:
    """Return what a model predicts of rows, given with their name for messages."""
    check_integer("batch_size", batch_size, minimum=1)
    name, x = rows
    check_data(x, model=model, x_name=name)
    outputs = model.predict(x, batch_size=batch_size, verbose=0)
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"`model` must have one output. Received: {len(outputs)}; "
            "pass the predictions of one of them"
        )
    return np.asarray(outputs)


def _measured(
    name: str, outputs: np.ndarray, y: tuple[str, Any], from_logits: bool, bins: int
) -> Calibration:
    probabilities = as_probabilities(name, outputs, from_logits=from_logits)
    labels = class_labels(y[1], probabilities.shape, name=y[0]).reshape(-1)
    classes = probabilities.shape[-1]
    probabilities = probabilities.reshape(-1, classes)
    predicted = probabilities.argmax(axis=1)
    squared = ((probabilities - np.eye(classes)[labels]) ** 2).sum(axis=1).mean()
    logits = two_class_logits(outputs.reshape(-1, outputs.shape[-1])) if from_logits else None
    return Calibration(
        confidence=probabilities.max(axis=1),
        correct=predicted == labels,
        nll=mean_nll(
            np.log(np.maximum(probabilities, 1e-300)) if logits is None else logits, labels
        ),
        brier=float(squared / 2 if classes == 2 else squared),
        bins=bins,
    )


def two_class_logits(logits: np.ndarray) -> np.ndarray:
    """Return one logit a class, float64 `(rows, classes)`, also of a single sigmoid unit.

    Example:

    >>> two_class_logits(np.array([[2.0]])).tolist()
    [[0.0, 2.0]]
    """
    values = np.asarray(logits, dtype="float64")
    return np.hstack([np.zeros_like(values), values]) if values.shape[-1] == 1 else values


def mean_nll(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the mean negative log-likelihood of class numbers, in nats."""
    chosen = logits[np.arange(len(labels)), labels]
    return float(np.average(logsumexp(logits, axis=-1) - chosen, weights=weights))


@dataclasses.dataclass(frozen=True, eq=False)
class TemperatureScaling:
    """A classifier with its logits divided by a temperature, before and after.

    Args:
        temperature: above 1: the model was too sure of itself.
        model: the model with scaled logits: it predicts the same classes.
        before, after: on the rows that the temperature was fitted to.
        test_before, test_after: on test rows, if there were any.
    """

    temperature: float
    model: keras.Model
    before: Calibration
    after: Calibration
    test_before: Calibration | None = None
    test_after: Calibration | None = None

    def __repr__(self) -> str:
        where, before, after = self._shown()
        return (
            f"TemperatureScaling(temperature={self.temperature:.4g}, on {where} rows: "
            f"ece {before.ece:.4f} -> {after.ece:.4f}, nll {before.nll:.4f} -> {after.nll:.4f})"
        )

    def _shown(self) -> tuple[str, Calibration, Calibration]:
        if self.test_before is not None and self.test_after is not None:
            return "test", self.test_before, self.test_after
        return "validation", self.before, self.after

    def to_frame(self) -> pd.DataFrame:
        """Return all numbers, a row for each of: validation or test, before or after."""
        parts = {
            ("validation", "before"): self.before,
            ("validation", "after"): self.after,
            ("test", "before"): self.test_before,
            ("test", "after"): self.test_after,
        }
        present = {key: part.to_dict() for key, part in parts.items() if part is not None}
        return pd.DataFrame.from_dict(present, orient="index")

    def plot(self) -> Figure:
        """Return the reliability diagram before and after, on the test rows if there are any."""
        from kregs.reporting.figures.reliability import reliability

        where, before, after = self._shown()
        curves = {
            f"before: ECE {before.ece:.3f}": before.to_frame(),
            f"after: ECE {after.ece:.3f}": after.to_frame(),
        }
        return reliability(curves, f"temperature {self.temperature:.2f}, {where} rows")


def temperature_scaling(
    model: keras.Model,
    x_val: Any,
    y_val: Any,
    *,
    test_data: tuple[Any, Any] | None = None,
    from_logits: bool | None = None,
    bins: int = 15,
    batch_size: int = 256,
) -> TemperatureScaling:
    """Divide the logits of a classifier by the temperature that fits some rows best.

    One number for all classes: what is predicted, and the order of the classes, stay the same.

    Args:
        model: Sequential or Functional, with one output: softmax, one sigmoid unit, or logits.
        x_val, y_val: rows that the model was not trained on, class numbers or one-hot.
        test_data: `(x, y)`, further rows to measure on.
        from_logits: whether the model puts out logits. Default: what its loss says. The scaled
            model then does, too.
        bins, batch_size: as in `kregs.calibration`.

    Returns:
        A `TemperatureScaling`: `temperature`; `model`, of stock Keras layers, compiled as the first
        one, whose weights are copies; `before` and `after`, `test_before` and `test_after`.

    Raises:
        TypeError, ValueError: an argument is wrong, or no temperature is best, since all rows of
            `x_val` are predicted rightly (the lower the better), or worse than by chance.

    Example:

    >>> import kregs, keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, "sigmoid")])
    >>> model.set_weights([np.array([[4.0]]), np.zeros(1)])
    >>> x, y = np.ones((4, 1)), np.array([1, 1, 1, 0])
    >>> scaled = kregs.temperature_scaling(model, x, y)
    >>> round(scaled.temperature, 3), scaled.model.predict(x, verbose=0)[0].round(3).tolist()
    (3.641, [0.75])

    Reference:
        Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017,
        section 4.2.
    """
    check_symbolic("model", model)
    if len(model.outputs) != 1:
        raise ValueError(f"`model` must have one output. Received: {len(model.outputs)}")
    if test_data is not None and not (isinstance(test_data, (tuple, list)) and len(test_data) == 2):
        raise TypeError(f"`test_data` must be (x, y). Received: {in_words(test_data)}")
    bins = check_integer("bins", bins, minimum=1)
    logits_out = puts_out_logits(model, from_logits)
    validation = ("x_val", x_val), ("y_val", y_val)
    before = _of_model(model, *validation, logits_out, bins, batch_size)
    with_logits = copy_model(model) if logits_out else logits_model(model)
    outputs = _outputs(with_logits, validation[0], batch_size)
    logits = two_class_logits(outputs.reshape(-1, outputs.shape[-1]))
    labels = class_labels(y_val, (*outputs.shape[:-1], logits.shape[-1])).reshape(-1)
    temperature = best_temperature(logits, labels)
    if temperature is None:
        raise ValueError(
            "`x_val` must be rows for which some temperature is best: some predicted wrongly, and "
            f"more rightly than by chance. Received: {int(before.correct.sum())} of {len(labels)} "
            "rows are predicted rightly"
        )
    scaled = _scaled(model, with_logits, temperature, logits_out)
    tests: list[Calibration | None] = [None, None]
    if test_data is not None:
        tested = ("test_data[0]", test_data[0]), ("test_data[1]", test_data[1])
        tests = [_of_model(one, *tested, logits_out, bins, batch_size) for one in (model, scaled)]
    after = _of_model(scaled, *validation, logits_out, bins, batch_size)
    return TemperatureScaling(temperature, scaled, before, after, *tests)


def best_temperature(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> float | None:
    """Return the temperature that makes the likelihood of some rows largest.

    Args:
        logits: one a class (n, classes), or logarithms of probabilities.
        labels: class numbers (n,).
        weights: of the rows (n,), or `None`.

    Returns:
        `None` if there is none: all rows are predicted rightly, or worse than by chance.

    Example:

    >>> logits = np.array([[0.0, 4.0]] * 4)
    >>> round(best_temperature(logits, np.array([1, 1, 1, 0])), 3)
    3.641
    """
    if (logits.argmax(axis=-1) == labels).all():
        return None
    best = minimize_scalar(
        lambda log_temperature: mean_nll(logits / np.exp(log_temperature), labels, weights),
        bounds=_BOUNDS,
        method="bounded",
        options={"xatol": 1e-6},
    )
    inside = _BOUNDS[0] + 1e-3 < best.x < _BOUNDS[1] - 1e-3
    return float(np.exp(best.x)) if inside else None


def with_temperature(model: keras.Model, temperature: float) -> keras.Model:
    """Return a copy of a classifier whose logits are divided by a temperature.

    Args:
        model: Sequential or Functional, with one output.
        temperature: above 0.

    Example:

    >>> model = keras.Sequential([keras.Input((1,)), L.Dense(1, "sigmoid")])
    >>> model.set_weights([np.array([[4.0]]), np.zeros(1)])
    >>> with_temperature(model, 3.641)(np.ones((1, 1))).numpy().round(3).tolist()
    [[0.75]]
    """
    logits_out = puts_out_logits(model, None)
    with_logits = copy_model(model) if logits_out else logits_model(model)
    return _scaled(model, with_logits, temperature, logits_out)


def _scaled(
    model: keras.Model, with_logits: keras.Model, temperature: float, logits_out: bool
) -> keras.Model:
    inputs = inputs_like(model)
    # under mixed precision, too: float16 logits are too coarse
    outputs = L.Rescaling(1.0 / temperature, dtype="float32", name="temperature")(
        with_logits(inputs)
    )
    if not logits_out:
        kind = "sigmoid" if outputs.shape[-1] == 1 else "softmax"
        outputs = L.Activation(kind, dtype="float32", name="probabilities")(outputs)
    scaled = keras.Model(inputs, outputs, name=model.name)
    if model.compiled:
        compile_as(scaled, model)
    return scaled


class _WithoutActivation(ModelCopier):
    """Copies a model, but for the activation of one layer."""

    def __init__(self, last: Any) -> None:
        super().__init__()
        self._last = last

    def copy_layer(self, layer: Any, graph: ModelGraph) -> Any:
        if layer is not self._last:
            return super().copy_layer(layer, graph)
        if isinstance(layer, L.Softmax):
            return super().copy_layer(layer, graph)
        return new_layer(layer, config_of(layer) | {"activation": "linear"})

    def is_left_out(self, call: Call, graph: ModelGraph) -> bool:
        return call.layer is self._last and isinstance(call.layer, L.Softmax)


def logits_model(model: keras.Model) -> keras.Model:
    """Return a copy of a classifier that puts out logits instead of probabilities.

    It ends before the softmax or sigmoid. Where that is no layer of the model itself (a mean of
    models, a model inside), the logits are the logarithms of the probabilities: the same up to a
    constant, as long as none is 0.

    Args:
        model: Sequential or Functional, with one output.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3, "softmax")])
    >>> logits_model(model).layers[-1].activation.__name__
    'linear'
    """
    graph = ModelGraph(model)
    (call,) = graph.outputs
    last = call.layer
    activation = (
        keras.activations.softmax if model.output_shape[-1] > 1 else keras.activations.sigmoid
    )
    ends = getattr(last, "activation", None) is activation or (
        isinstance(last, L.Softmax) and last.axis in (-1, len(model.output_shape) - 1)
    )
    if ends and not isinstance(last, keras.Model) and len(graph.calls_of(last)) == 1:
        copier = _WithoutActivation(last)
        copy = copier.copy_model(graph)
        copier.copy_states()
        return copy
    inputs = inputs_like(model)
    probabilities = keras.ops.cast(copy_model(model)(inputs), "float32")
    smallest = float(np.finfo("float32").tiny)
    outputs = keras.ops.log(keras.ops.maximum(probabilities, smallest))
    if model.output_shape[-1] == 1:
        rest = keras.ops.maximum(1.0 - probabilities, smallest)
        outputs = outputs - keras.ops.log(rest)
    return keras.Model(inputs, outputs, name=model.name)
