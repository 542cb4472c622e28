"""Monte Carlo dropout: predictions with dropout kept on, and how uncertain they are."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.optimize import minimize_scalar
from scipy.special import entr, expit, logsumexp

from kregs.builders.model_graph import ends_of, is_model_graph
from kregs.inspection.probabilities import (
    as_probabilities,
    class_labels,
    is_multi_label,
    loss_of_output,
    puts_out_logits,
)
from kregs.inspection.probing import check_model
from kregs.layers import DropBlock2D
from kregs.population.keras_internals import all_layers
from kregs.training.data_checks import check_data
from kregs.training.targets import REGRESSION
from kregs.validation import check_choice, check_integer, check_number, check_seed, in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

L = keras.layers

# SpatialDropout is a Dropout; MultiHeadAttention and GroupedQueryAttention have one within
_WITH_RATE = (L.Dropout, L.GaussianDropout, L.AlphaDropout, DropBlock2D)
_WITH_DROPOUT = (L.Attention, L.AdditiveAttention)
_RECURRENT = (L.LSTM, L.GRU, L.SimpleRNN, L.ConvLSTM1D, L.ConvLSTM2D, L.ConvLSTM3D)
_CELLS = (L.LSTMCell, L.GRUCell, L.SimpleRNNCell)


def dropout_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model, those within layers and models too, that drop something.

    Example:

    >>> layers = [keras.Input((2,)), L.Dropout(0.0), L.Dense(1), L.Dropout(0.5, name="last")]
    >>> [layer.name for layer in dropout_layers(keras.Sequential(layers))]
    ['last']
    """
    return [layer for layer in all_layers(model) if _drops(layer)]


def _drops(layer: Any) -> bool:
    if isinstance(layer, _WITH_RATE):
        return layer.rate > 0
    if isinstance(layer, _WITH_DROPOUT):
        return layer.dropout > 0
    if isinstance(layer, (*_RECURRENT, *_CELLS)):
        return layer.dropout > 0 or layer.recurrent_dropout > 0
    return False


class DropoutSampler:
    """A model whose dropout layers, and no others, act as in training; compiled once.

    The model itself stays as it is, its seed generators and the state of its layers too. Its
    weights are read at each call: `set_weights` gives other predictions without compiling anew.

    Args:
        model: built; any Keras model.
        output: name of the output to look at, of a model with several (of a subclass: its number).

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: it is not built, or has no dropout layer with a rate above 0; or has several
            outputs and `output` is none of them.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), L.Dense(3), L.Dropout(0.5), L.Dense(1)])
    >>> DropoutSampler(model).predict(np.ones((5, 2)), samples=7, seed=1).shape
    (7, 5, 1)
    """

    def __init__(self, model: keras.Model, *, output: str | int | None = None) -> None:
        check_model(model, compiled=False)
        self._model, self._output = model, output
        self._layers = dropout_layers(model)
        if not self._layers:
            raise ValueError(
                "`model` must have a dropout layer with a rate above 0: else all samples are "
                f"the same. Received: {model.name!r}, which has none"
            )
        self._generators = [
            part
            for layer in self._layers
            for part in vars(layer).values()
            if isinstance(part, keras.random.SeedGenerator)
        ]
        self._compiled: dict[str, Any] = {}  # by the type of the inputs
        if is_model_graph(model):
            self._choose(ends_of(model)[1])  # a wrong name is an error at once

    def predict(
        self, x: Any, *, samples: int = 100, batch_size: int = 256, seed: int = 0
    ) -> np.ndarray:
        """Return predictions of so many dropout masks, `(samples, rows, ...)`.

        Args:
            x: inputs, rows first: an array, or a list or dictionary of them.
            samples: masks for each row.
            batch_size: rows at a time; another number gives other masks.
            seed: of the masks.
        """
        samples = check_integer("samples", samples, minimum=1)
        batch_size = check_integer("batch_size", batch_size, minimum=1)
        seed = check_seed("seed", seed)
        if isinstance(x, (tf.data.Dataset, keras.utils.PyDataset)):
            raise TypeError(f"`x` must be arrays. Received: {type(x).__name__}")
        check_data(x, model=self._model)
        inputs = _as_arrays(x)
        rows = len(keras.tree.flatten(inputs)[0])
        sample = self._compile(inputs)
        parts = []
        for number, first in enumerate(range(0, rows, batch_size)):
            batch = [tf.constant(a[first : first + batch_size]) for a in keras.tree.flatten(inputs)]
            words = np.random.SeedSequence([seed, number])
            states = words.generate_state(samples * len(self._generators) * 2)
            states = states.reshape(samples, len(self._generators), 2)
            parts.append(sample(*batch, states=tf.constant(states)).numpy())
        return np.concatenate(parts, axis=1)

    def _compile(self, inputs: Any) -> Any:
        """Return the compiled function for any number of rows and samples of such inputs."""
        kinds = keras.tree.map_structure(
            lambda a: tf.TensorSpec((None, *a.shape[1:]), a.dtype), inputs
        )
        if repr(kinds) not in self._compiled:

            def sample(*arrays: Any, states: Any) -> Any:
                return self._sample_batch(keras.tree.pack_sequence_as(inputs, arrays), states)

            shape = (None, len(self._generators), 2)
            with _acting(self._layers):  # while it is traced
                self._compiled[repr(kinds)] = tf.function(sample).get_concrete_function(
                    *keras.tree.flatten(kinds), states=tf.TensorSpec(shape, "uint32")
                )
        return self._compiled[repr(kinds)]

    def _sample_batch(self, batch: Any, states: Any) -> Any:
        """Predict one batch once for each state of the seed generators."""

        def predict_once(state: Any) -> Any:
            seeds = [
                (generator.state, tf.cast(state[k], generator.state.dtype))
                for k, generator in enumerate(self._generators)
            ]
            # what the model would write to its variables, its seeds too, ends with the scope
            with keras.StatelessScope(state_mapping=seeds):
                outputs = self._model(batch, training=False)
            return tf.cast(self._choose(outputs), dtype)

        dtype = keras.config.floatx()
        # one after another: what a layer draws for a whole batch differs from sample to sample
        return tf.map_fn(predict_once, states, fn_output_signature=tf.as_dtype(dtype))

    def _choose(self, outputs: Any) -> Any:
        """Return the output that was asked for."""
        if not isinstance(outputs, (dict, list, tuple)):
            outputs = [outputs]
        if isinstance(outputs, dict):
            by_name = outputs
        else:
            names = getattr(self._model, "output_names", None) or range(len(outputs))
            by_name = dict(zip(names, outputs, strict=True))
        if len(by_name) == 1 and self._output is None:
            return next(iter(by_name.values()))
        return by_name[check_choice("output", self._output, by_name)]


def _as_arrays(x: Any) -> Any:
    """Return inputs as arrays; as in Keras, a list of arrays is several inputs."""
    several = isinstance(x, (list, tuple)) and any(getattr(part, "shape", ()) for part in x)
    if not several and not isinstance(x, dict):
        return _as_array(x)
    return keras.tree.map_structure(_as_array, x)


def _as_array(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


@contextlib.contextmanager
def _acting(layers: list[keras.layers.Layer]) -> Iterator[None]:
    """Let layers act as in training, whatever the model that they are in is told."""

    before = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            object.__setattr__(layer, "call", _in_training(layer.call))
        yield
    finally:
        for layer, own_call in zip(layers, before, strict=True):
            if own_call is not None:
                object.__setattr__(layer, "call", own_call)
            elif "call" in vars(layer):
                object.__delattr__(layer, "call")


def _in_training(call: Callable) -> Callable:
    signature = inspect.signature(call)
    if "training" not in signature.parameters:  # of a subclass that always drops
        return call

    def call_in_training(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["training"] = True
        return call(*bound.args, **bound.kwargs)

    return call_in_training


@dataclasses.dataclass(frozen=True, eq=False)
class McDropout:
    """Predictions of one model under many dropout masks.

    Args:
        predictions: `(samples, rows, ...)`.
        from_logits: whether they are logits of classes.
        of_numbers: whether they are numbers to be predicted, though they may look like
            probabilities of classes.

    Example:

    >>> draws = McDropout(np.array([[[0.2]], [[0.4]]], "float32"))
    >>> draws
    McDropout(samples=2, rows=1, standard deviation=0.1)
    >>> draws.mean.round(3).tolist()
    [[0.3]]
    """

    predictions: np.ndarray
    from_logits: bool = False
    of_numbers: bool = False

    def __repr__(self) -> str:
        samples, rows = self.predictions.shape[:2]
        spread = float(self.standard_deviation.mean())
        return f"McDropout(samples={samples}, rows={rows}, standard deviation={spread:.3g})"

    @property
    def _values(self) -> np.ndarray:
        """What is averaged: predictions, or the probabilities that logits stand for."""
        if not self.from_logits:
            return self.predictions.astype("float64")
        values = as_probabilities("predictions", self.predictions, from_logits=True)
        return values[..., 1:] if self.predictions.shape[-1] == 1 else values

    @property
    def mean(self) -> np.ndarray:
        """The mean over the masks, `(rows, ...)`; of logits, the mean probability."""
        return self._values.mean(axis=0)

    @property
    def standard_deviation(self) -> np.ndarray:
        """The standard deviation over the masks (divided by their number), `(rows, ...)`."""
        return self._values.std(axis=0)

    def _probabilities(self) -> np.ndarray:
        return as_probabilities("predictions", self.predictions, from_logits=self.from_logits)

    @property
    def predictive_entropy(self) -> np.ndarray:
        """The entropy of the mean probabilities, in nats, `(rows, ...)`: all uncertainty.

        Raises:
            ValueError: the predictions are no probabilities.
        """
        return entr(self._probabilities().mean(axis=0)).sum(axis=-1)

    @property
    def mutual_information(self) -> np.ndarray:
        """What of the entropy is due to the masks, in nats, `(rows, ...)`: how far they disagree.

        Raises:
            ValueError: the predictions are no probabilities.
        """
        each = entr(self._probabilities()).sum(axis=-1).mean(axis=0)
        return np.maximum(self.predictive_entropy - each, 0.0)

    def log_likelihood(self, y: Any, *, precision: float) -> np.ndarray:
        """Return the log-likelihood of each row's targets, `(rows,)`: a regression.

        Each mask gives a normal distribution around its prediction; they are averaged.

        Args:
            y: targets, `(rows, ...)`, in the units of the predictions.
            precision: τ, one over the variance of the noise of the targets.

        Raises:
            ValueError: shapes differ, or `precision` is not above 0.

        Reference:
            Gal, Ghahramani, "Dropout as a Bayesian approximation", ICML 2016, section 4, eq. 8.
        """
        precision = check_number("precision", precision, above=0.0)
        return self._log_likelihood(self._squared_errors(y), precision)

    def best_precision(self, y: Any) -> float:
        """Return the precision with the greatest likelihood of some targets.

        The rows must be none that the model was trained on, nor those that it is tested on.

        Args:
            y: targets, `(rows, ...)`.

        Raises:
            ValueError: shapes differ, or all predictions are exact.
        """
        squared = self._squared_errors(y)
        spread = squared.mean()
        if not spread > 0:
            raise ValueError("`y` must differ from the predictions. Received: no difference at all")
        # the best is at least that of the mean error, and above it where masks disagree
        center = -np.log(spread / self._numbers)
        best = minimize_scalar(
            lambda log_precision: -self._log_likelihood(squared, np.exp(log_precision)).mean(),
            bounds=(center - 2.0, center + 12.0),
            method="bounded",
            options={"xatol": 1e-4},
        )
        return float(np.exp(best.x))

    @property
    def _numbers(self) -> int:
        """How many numbers a prediction has."""
        return int(np.prod(self.predictions.shape[2:]))

    def _squared_errors(self, y: Any) -> np.ndarray:
        """Return the squared distance of targets to each prediction, `(samples, rows)`."""
        return self._squared_distance(self.predictions, y)

    def _squared_distance(self, predictions: np.ndarray, y: Any) -> np.ndarray:
        shape = predictions.shape[1:]
        try:
            targets = np.asarray(y, dtype="float64")
        except (TypeError, ValueError):
            raise TypeError(f"`y` must hold numbers. Received: {in_words(y)}") from None
        if not np.isfinite(targets).all():
            raise ValueError("`y` must be finite. Received: NaN or infinity")
        if targets.shape == shape[:1] and self._numbers == 1:
            targets = targets.reshape(shape)
        if targets.shape != shape:
            raise ValueError(f"`y` must have shape {shape}. Received: shape {np.shape(y)}")
        squared = (predictions - targets) ** 2
        return squared.reshape(*squared.shape[:2], -1).sum(axis=-1)

    def _log_likelihood(self, squared: np.ndarray, precision: float) -> np.ndarray:
        normalization = 0.5 * self._numbers * np.log(precision / (2.0 * np.pi))
        averaged = logsumexp(-0.5 * precision * squared, axis=0) - np.log(len(squared))
        return averaged + normalization

    @property
    def is_classification(self) -> bool:
        """Whether the predictions are probabilities of classes, one output a class or one unit."""
        if self.from_logits or self.of_numbers:
            return self.from_logits
        try:
            self._probabilities()
        except ValueError:
            return False
        return True

    def to_frame(self) -> pd.DataFrame:
        """Return the mean and the deviation of each output, and of classes the entropies.

        Returns:
            One row a row; columns `mean`, `standard_deviation` (`mean_0`, `mean_1`, ... of several
            outputs), of probabilities `predictive_entropy` and `mutual_information`.
        """
        columns: dict[str, np.ndarray] = {}
        rows = self.predictions.shape[1]
        for name in ("mean", "standard_deviation"):
            values = getattr(self, name).reshape(rows, -1)
            single = values.shape[1] == 1
            columns |= {
                name if single else f"{name}_{k}": values[:, k] for k in range(values.shape[1])
            }
        if self.is_classification and self.predictive_entropy.ndim == 1:
            columns["predictive_entropy"] = self.predictive_entropy
            columns["mutual_information"] = self.mutual_information
        return pd.DataFrame(columns)

    def plot(self, y: Any = None) -> Figure:
        """Return how uncertain the rows are or, with targets, whether the uncertain ones are wrong.

        Args:
            y: targets: class numbers or one-hot rows of probabilities; numbers otherwise. With them
                the figure is the error of the rows that remain where the most uncertain ones are
                left out.
        """
        from kregs.reporting.figures.uncertainty import error_of_the_surest, uncertainty_histogram

        samples, rows = self.predictions.shape[:2]
        if self.is_classification:
            name, unit = "predictive entropy", "predictive entropy, nats"
            uncertainty = self.predictive_entropy
        else:
            name = unit = "standard deviation"
            uncertainty = self.standard_deviation.reshape(rows, -1).mean(axis=1)
        if y is None:
            title = f"Uncertainty of {uncertainty.size} predictions, {samples} masks each"
            return uncertainty_histogram(uncertainty.reshape(-1), unit, title)
        if self.is_classification:
            probabilities = self._probabilities().mean(axis=0)
            errors = probabilities.argmax(axis=-1) != class_labels(y, probabilities.shape)
            return error_of_the_surest(
                uncertainty.reshape(-1), errors.reshape(-1),
                error_name="error rate", name=name, root=False,
            )  # fmt: skip
        squared = self._squared_distance(self.mean[None], y)[0] / self._numbers
        return error_of_the_surest(
            uncertainty, squared, error_name="root mean squared error", name=name, root=True
        )


def mc_dropout(
    model: keras.Model,
    x: Any,
    *,
    samples: int = 100,
    batch_size: int = 256,
    seed: int = 0,
    from_logits: bool | None = None,
    output: str | int | None = None,
) -> McDropout:
    """Predict with many dropout masks: how far a network with dropout disagrees with itself.

    Only layers that drop act as in training: Dropout, SpatialDropout, GaussianDropout,
    AlphaDropout, `kregs.layers.DropBlock2D`, the dropout within recurrent and attention layers,
    those in models inside (even one called with `training=False`), and subclasses of these. Batch
    normalization, noise and augmentation stay as in inference. The model, its seed generators
    included, stays as it is.

    Args:
        model: any built Keras model.
        x: inputs, rows first: an array, or a list or dictionary of them.
        samples: masks for each row.
        batch_size: rows at a time; another number gives other masks.
        seed: of the masks.
        from_logits: whether the outputs are logits of classes, which become probabilities before
            they are averaged. Default: what the loss says that the model is compiled with. It also
            tells numbers (and classes that exclude nothing, a binary crossentropy of several units)
            from probabilities that sum to 1.
        output: name of the output to look at, of a model with several (of a subclass: its number).

    Returns:
        An `McDropout`: `mean`, `standard_deviation`; of probabilities `predictive_entropy` and
        `mutual_information`; of numbers `log_likelihood(y, precision=...)`; `to_frame()`, `plot()`.

    Raises:
        TypeError, ValueError: an argument is wrong, the model is not built, or has no layer that
            drops anything.

    Example:

    >>> import kregs, numpy as np
    >>> r = kregs.Regularization(dropout=0.5)
    >>> model = kregs.mlp((4,), 3, units=(16,), regularization=r)
    >>> result = kregs.mc_dropout(model, np.ones((5, 4)), samples=20)
    >>> result.mean.shape, bool((result.mutual_information > 0).all())
    ((5, 3), True)

    References:
        Gal, Ghahramani, "Dropout as a Bayesian approximation: representing model uncertainty in
        deep learning", ICML 2016; Houlsby, Huszár, Ghahramani, Lengyel, "Bayesian active learning
        for classification and preference learning", 2011 (mutual information).
    """
    sampler = DropoutSampler(model, output=output)
    name = output if isinstance(output, str) else None
    logits = puts_out_logits(model, from_logits, name)
    predictions = sampler.predict(x, samples=samples, batch_size=batch_size, seed=seed)
    if is_multi_label(model, name):  # each unit is a probability by itself
        return McDropout(expit(predictions) if logits else predictions, of_numbers=True)
    is_regression = isinstance(loss_of_output(model, name), REGRESSION)
    return McDropout(predictions, from_logits=logits, of_numbers=is_regression)
