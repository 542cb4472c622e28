"""Several models as one: the mean of their predictions, or their majority vote."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from kregs.builders.layer_copies import copy_model
from kregs.builders.model_graph import ends_of, is_model_graph
from kregs.inspection.probabilities import is_multi_label, puts_out_logits
from kregs.population.keras_internals import user_metrics
from kregs.training.targets import BINARY, REGRESSION, compiled_loss
from kregs.validation import check_choice, check_number, in_words

METHODS = ("mean", "vote")


def ensemble(
    models: Sequence[keras.Model], *, how: str = "mean", weights: Sequence[float] | None = None
) -> keras.Model:
    """Return one model of stock Keras layers that combines the predictions of several.

    Its file holds all of them and loads without kregs, if theirs do.

    Args:
        models: built models with the same inputs and outputs.
        how: `"mean"` of what they put out (weighted, if there are `weights`), be it probabilities,
            logits or numbers; `"vote"`: for each class the share of the models that hold it to be
            the likeliest, or of one sigmoid unit that hold the second class to be.
        weights: one a model, for `"mean"`; they are made to sum to 1.

    Returns:
        A Functional model, compiled as the first model is, except for a vote of models that put out
        logits. It holds copies: the models themselves
        stay free.

    Raises:
        TypeError: `models` holds something else.
        ValueError: no models, shapes that differ, a model that is not built, weights that do not
            fit, or a vote of models that tell no classes.

    Example:

    >>> import kregs, numpy as np
    >>> models = [kregs.mlp((4,), 3, units=(8,)) for _ in range(3)]
    >>> both = kregs.ensemble(models), kregs.ensemble(models, how="vote")
    >>> [model.predict(np.ones((2, 4)), verbose=0).shape for model in both]
    [(2, 3), (2, 3)]

    Reference:
        Hansen, Salamon, "Neural network ensembles", IEEE PAMI 12, 1990; Lakshminarayanan, Pritzel,
        Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles",
        NeurIPS 2017.
    """
    check_choice("how", how, METHODS)
    models = _checked(models)
    shares = _shares(weights, len(models), how)
    first = models[0]
    inputs = inputs_like(first)
    outputs = [copy_model(m, name=f"member_{i}")(inputs) for i, m in enumerate(models)]
    if how == "vote":
        outputs = [_vote(model, output) for model, output in zip(models, outputs, strict=True)]
    several = len(first.outputs) > 1
    # Keras finds the targets of several outputs by the names of these layers
    names = iter(first.output_names if several else ["mean"])
    prefixes = iter([f"{name}_" for name in first.output_names] if several else [""])

    def combined(*parts: Any) -> Any:
        name, prefix = next(names), next(prefixes)
        if len(parts) == 1:
            return keras.layers.Identity(name=name)(parts[0]) if several else parts[0]
        if shares is None:
            return keras.layers.Average(name=name)(parts)
        weighted = [
            keras.layers.Rescaling(share, name=f"{prefix}weight_{i}")(part)
            for i, (part, share) in enumerate(zip(parts, shares, strict=True))
        ]
        return keras.layers.Add(name=name)(weighted)

    model = keras.Model(inputs, keras.tree.map_structure(combined, *outputs), name="ensemble")
    # shares of votes are no logits, which the loss would take them for
    if first.compiled and not (how == "vote" and puts_out_logits(first, None)):
        compile_as(model, first)
    return model


def check_symbolic(name: str, model: Any) -> None:
    """Raise unless something is a model whose inputs and outputs Keras knows.

    Example:

    >>> check_symbolic("model", keras.Sequential([keras.layers.Dense(1)]))
    Traceback (most recent call last):
        ...
    ValueError: `model` must be Sequential with a known input shape, or Functional (a subclass \
with a get_config can be called in one). Received: a Sequential without inputs
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{name}` must be of Keras. Received: {in_words(model)}")
    if not is_model_graph(model):
        raise ValueError(
            f"`{name}` must be Sequential with a known input shape, or Functional (a subclass with "
            f"a get_config can be called in one). Received: a {type(model).__name__} without inputs"
        )


def inputs_like(model: keras.Model) -> Any:
    """Return new symbolic inputs of a model's shapes and types, in its structure.

    Example:

    >>> inputs_like(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])).shape
    (None, 2)
    """
    inputs, _ = ends_of(model)
    if not isinstance(inputs, (dict, list, tuple)):
        return keras.Input(inputs.shape[1:], dtype=inputs.dtype, name="inputs")
    return keras.tree.map_structure(
        lambda tensor: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=tensor.name), inputs
    )


def _checked(models: Any) -> list[keras.Model]:
    """Return the models as a list, or raise if they cannot be combined."""
    if isinstance(models, (keras.Model, str)) or not isinstance(models, Iterable):
        raise TypeError(f"`models` must be a list of models. Received: {in_words(models)}")
    models = list(models)
    if not models:
        raise ValueError("`models` must hold at least one model. Received: none")
    for model in models:
        check_symbolic("models", model)

    def shapes(model: keras.Model) -> str:
        return str(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), ends_of(model)))

    logits = {puts_out_logits(model, None) for model in models if model.compiled}
    if len(logits) > 1:
        raise ValueError(
            "`models` must put out one kind of numbers. Received: by their losses some put out "
            "logits, and some do not"
        )
    different = {shapes(model) for model in models}
    if len(different) > 1:
        listed = " and ".join(sorted(different))
        raise ValueError(f"`models` must have the same input and output shapes. Received: {listed}")
    return models


def _shares(weights: Any, count: int, how: str) -> list[float] | None:
    """Return weights that sum to 1, or `None` if there are none."""
    if weights is None:
        return None
    if how != "mean":
        raise ValueError('`weights` are for how="mean". Received: how="vote"')
    if isinstance(weights, str) or not isinstance(weights, Iterable):
        raise TypeError(f"`weights` must be one number a model. Received: {in_words(weights)}")
    numbers = [check_number("weights", weight, minimum=0.0) for weight in weights]
    if len(numbers) != count or not sum(numbers):
        raise ValueError(
            f"`weights` must be one number a model ({count}), not all 0. Received: {numbers}"
        )
    return [number / sum(numbers) for number in numbers]


def _vote(model: keras.Model, output: Any) -> Any:
    """Return 1 for the class that a model holds to be the likeliest, and 0 for the others."""
    is_regression = isinstance(compiled_loss(model), REGRESSION)
    single = not isinstance(output, (list, tuple, dict))
    if single and output.shape[-1] > 1 and not is_regression and not is_multi_label(model):
        return keras.ops.one_hot(keras.ops.argmax(output, axis=-1), output.shape[-1])
    last = model.layers[-1]
    is_sigmoid = getattr(last, "activation", None) is keras.activations.sigmoid
    if len(model.outputs) == 1 and (is_sigmoid or isinstance(compiled_loss(model), BINARY)):
        bound = 0.0 if puts_out_logits(model, None) and not is_sigmoid else 0.5
        return keras.ops.cast(keras.ops.greater(output, bound), "float32")
    raise ValueError(
        "a vote needs classifiers with one output for each class, or a single sigmoid unit. "
        f"Received: outputs of shape {model.output_shape}, loss={model.loss!r}"
    )


def compile_as(model: keras.Model, other: keras.Model) -> None:
    """Compile a model as another one; it gets objects of its own, where Keras can copy them.

    Example:

    >>> one, other = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]) for _ in "ab")
    >>> other.compile("adam", "mae")
    >>> compile_as(one, other)
    >>> one.loss
    'mae'
    """
    try:
        model.compile_from_config(other.get_compile_config())
    except TypeError:  # a function or class that was defined inside `build` has no registered name
        optimizer = type(other.optimizer).from_config(other.optimizer.get_config())
        model.compile(optimizer, other.loss, **user_metrics(other))
