"""`compile_model`: compile a Keras model so that its logs hold the loss of the data alone."""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from kregs.builders.unapplied import (
    Unapplied,
    check_applied,
    compile_fields,
    unapplied_within,
)
from kregs.regularization import Regularization
from kregs.training.data_loss import DataLoss, TotalDataLoss
from kregs.training.label_smoothing import (
    SmoothedSparseCategoricalCrossentropy,
    smoothing_of,
    with_smoothing,
    without_smoothing,
)
from kregs.training.proximal import KERNEL_NAMES, proximal
from kregs.training.stock_optimizers import optimizer_classes
from kregs.training.weight_decay import leave_alone, with_weight_decay
from kregs.training.wrapped_loss import AdversarialLoss, MixedLoss, unwrapped_loss, wrapped_for
from kregs.validation import check_number, suggestion

_SHORT_METRICS = ("accuracy", "acc", "crossentropy", "ce")  # resolved by Keras from the shapes
_ABBREVIATIONS = ("mse", "mae", "mape", "msle", "bce", "kld")  # which dir() does not list
_RESERVED_NAMES = ("loss", "data_loss")


def compile_model(
    model: keras.Model,
    loss: Any,
    *,
    loss_weights: Mapping[str, float] | Sequence[float] | None = None,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule | None = None,
    weight_decay: float | None = None,
    label_smoothing: float = 0.0,
    metrics: Iterable[Any] | Mapping[str, Any] = (),
    regularization: Regularization | None = None,
) -> keras.Model:
    """Compile a model, with `data_loss` (the loss of the data alone) among its metrics.

    The logs then hold `loss` and `data_loss`, and with validation data `val_loss` and
    `val_data_loss`; `data_loss` is the loss on the labels as they are, without label smoothing and
    without the penalties, `sum(model.losses)`. So both can be chosen by `val_data_loss`.

    A saved `.keras` file loads by `keras.models.load_model` where kregs is not installed, and its
    training goes on; one with parts of kregs (`kregs.layers`, `FlatCosine`, `CosLog4`, `lookahead`,
    `decay_schedule`) loads after `import kregs.layers, kregs.training`. The file, and any copy of
    the model, hold a stock `keras.metrics.MeanMetricWrapper` as `data_loss`, which differs from the
    exact one under sample weights (it divides by their sum) and for `reduction="sum"` (it takes the
    mean). What excludes variables from weight decay is in no Keras file, nor is the optimizer's
    proximal step, nor the label smoothing of class numbers. Call `compile_model` again to have them
    back.

    Args:
        model: a Keras model; compiled in place. Under a `tf.distribute` strategy
            call this inside `strategy.scope()`, as `model.compile`.
        loss: a Keras loss by name (`"mse"`, `"sparse_categorical_crossentropy"`,
            `"SparseCategoricalCrossentropy"`, ...), a `keras.losses.Loss`, or a function of
            `(y_true, y_pred)`. Any reduction but `"none"`. For a model with several outputs a list
            of them, or a dictionary by the outputs' names: `data_loss` is then the sum of the
            outputs' data losses, weighted by `loss_weights` as `loss` is, and each output's own is
            in the logs as `<output>_data_loss`.
        loss_weights: of several outputs, in the form of `loss`; default: all 1.
        optimizer: a Keras optimizer by name, or an optimizer object with all that belongs to it.
        learning_rate: number > 0 or a schedule such as `kregs.warmup_cosine`; default: Keras's.
        weight_decay: decoupled weight decay per step and unit of learning rate, >= 0: each step
            multiplies the weights by `1 - learning_rate * weight_decay`. What is decayed are
            kernels (of dense, convolutional, recurrent and attention layers); biases, the scales
            and shifts of normalization and attention layers, the slopes of PReLU and embeddings
            are left alone. Default: Keras's value, with `regularization` its `weight_decay`; an
            optimizer object leaves out what it was told.
        label_smoothing: in [0, 1), for the losses that know it (categorical, sparse categorical and
            binary crossentropies).
        metrics: Keras metrics by name, as objects, or as functions; not weighted by samples. For
            several outputs a dictionary of such lists by the outputs' names.
        regularization: the model's, of which `proximal_l1`, `group_l1` (`kregs.proximal`) and
            `weight_decay` are applied here, to the optimizer, and `label_smoothing` to the loss, of
            several outputs to those losses that know it; the other fields are the builder's
            business. A model built with one of them is not compiled without. Any model of yours may
            be given them here. With it an optimizer by name decays nothing but what it says,
            "adamw" too; an object is given the decay, in a copy.

    Returns:
        The same model.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a loss, optimizer or metric has an unknown name (the message gives the
            nearest), there are more or fewer losses than outputs, a loss knows no label smoothing,
            an optimizer object comes together with `learning_rate` or `weight_decay`,
            `regularization` is not what the model was built with, or says otherwise than
            `weight_decay`, `label_smoothing` or the objects that are given.

    Example:

    >>> import keras, numpy as np
    >>> head = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))
    >>> model = keras.Sequential([keras.Input((2,)), head])
    >>> model = compile_model(model, "mse", optimizer="sgd", learning_rate=0.01)
    >>> logs = model.evaluate(np.ones((4, 2)), np.ones(4), verbose=0, return_dict=True)
    >>> sorted(logs)
    ['data_loss', 'loss']
    >>> penalty = float(sum(model.losses))
    >>> bool(abs(logs["loss"] - logs["data_loss"] - penalty) < 1e-6)
    True

    References:
        Loshchilov, Hutter, "Decoupled Weight Decay Regularization", 2019 (weight_decay);
        Szegedy et al., "Rethinking the Inception Architecture", 2016 (label_smoothing).
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a keras.Model. Received: model={model!r} of {type(model).__name__}"
        )
    names = list(model.output_names) if len(getattr(model, "outputs", None) or []) > 1 else []
    label_smoothing = check_number("label_smoothing", label_smoothing, minimum=0.0, below=1.0)
    built_with = unapplied_within(model)
    apply = None
    if regularization is not None:
        apply = _to_apply(regularization, built_with)
    resolved_optimizer = _optimizer(optimizer, learning_rate, weight_decay, apply, model)
    smoothing = _once("label_smoothing", label_smoothing or None, apply) or 0.0
    if names:
        resolved_loss: Any = {name: _loss(part) for name, part in _by_output("loss", loss, names)}
        resolved_loss = _all_smoothed(resolved_loss, smoothing, everywhere=bool(label_smoothing))
        weights = dict.fromkeys(resolved_loss, 1.0)
        if loss_weights is not None:
            pairs = _by_output("loss_weights", loss_weights, list(resolved_loss))
            weights |= {
                name: check_number(f"loss_weights[{name!r}]", value) for name, value in pairs
            }
        measured: Any = {name: [DataLoss(part)] for name, part in resolved_loss.items()}
        total = TotalDataLoss((measured[name][0], weights[name]) for name in measured)
        measured[next(iter(measured))].append(total)
        resolved_metrics: Any = _metrics_by_output(metrics, names)
        resolved_loss = {name: wrapped_for(model, part) for name, part in resolved_loss.items()}
        # Keras wants an entry for each output
        resolved_loss = {name: resolved_loss.get(name) for name in names}
        weights = {name: weights.get(name, 0.0) for name in names}
    else:
        if loss_weights is not None:
            raise ValueError(
                "`loss_weights` are for models with several outputs. "
                f"Received: loss_weights={loss_weights!r} for one output"
            )
        resolved_loss, weights = _smoothed(_loss(loss), smoothing), None
        measured, resolved_metrics = [DataLoss(resolved_loss)], _metrics(metrics)
        resolved_loss = wrapped_for(model, resolved_loss)
    if regularization is None and built_with is not None:
        check_applied(built_with.regularization, resolved_optimizer, resolved_loss)
    data_losses = [m for m in keras.tree.flatten(measured) if isinstance(m, DataLoss)]
    model.compile(
        optimizer=resolved_optimizer,
        loss=resolved_loss,
        loss_weights=weights,
        metrics=resolved_metrics or None,
        weighted_metrics=measured,
    )
    model.get_compile_config = types.MethodType(
        functools.partial(_portable_compile_config, data_losses), model
    )
    return model


def _by_output(name: str, given: Any, outputs: list[str]) -> list[tuple[str, Any]]:
    """Return what is given for each of several outputs with the output's name."""
    if isinstance(given, Mapping):
        for output in given:
            if output not in outputs:
                raise ValueError(
                    f"`{name}` must have the names of outputs: {', '.join(map(repr, outputs))}. "
                    f"Received: {output!r}.{suggestion(str(output), outputs)}"
                )
        pairs = [(output, given[output]) for output in outputs if given.get(output) is not None]
    elif isinstance(given, (list, tuple)):
        if len(given) != len(outputs):
            raise ValueError(
                f"`{name}` must have one entry for each of the {len(outputs)} outputs, "
                f"{', '.join(map(repr, outputs))}. Received: {len(given)} entries"
            )
        pairs = [pair for pair in zip(outputs, given, strict=True) if pair[1] is not None]
    elif name == "loss":
        pairs = [(output, given) for output in outputs]
    else:
        raise TypeError(
            f"`{name}` must be a list or a dictionary, an entry an output. Received: {given!r}"
        )
    if not pairs:
        raise ValueError(f"`{name}` must hold something for one output at least. Received: none")
    return pairs


def _metrics_by_output(metrics: Any, outputs: list[str]) -> dict[str, list[Any]] | None:
    if not isinstance(metrics, Mapping):
        if isinstance(metrics, (list, tuple)) and not metrics:
            return None
        raise TypeError(
            "`metrics` of a model with several outputs must be a dictionary of lists by output, "
            f"such as {{{outputs[0]!r}: ['accuracy']}}. Received: metrics={metrics!r}"
        )
    return {name: _metrics(part) for name, part in _by_output("metrics", metrics, outputs)}


def _portable_compile_config(data_losses: Sequence[DataLoss], model: keras.Model) -> dict[str, Any]:
    """Return the model's compile config with stock metrics in place of those of kregs."""
    config = type(model).get_compile_config(model)
    stand_ins = iter([metric.stand_in() for metric in data_losses])

    def portable(metrics: Any) -> Any:
        if isinstance(metrics, dict) and "registered_name" not in metrics:
            return {name: portable(part) for name, part in metrics.items()}
        parts: list[Any] = []
        for metric in metrics or []:
            known = metric.get("registered_name") if isinstance(metric, dict) else None
            if known == keras.saving.get_registered_name(DataLoss):
                parts.append(keras.saving.serialize_keras_object(next(stand_ins)))
            elif known != keras.saving.get_registered_name(TotalDataLoss):  # which has none
                parts.append(metric)
        return parts or None

    config["weighted_metrics"] = portable(config.get("weighted_metrics"))
    config["loss"] = _portable_loss(config.get("loss"))
    return config


def _portable_loss(loss: Any) -> Any:
    """Return a serialized loss, or a structure of them, without those of kregs."""
    if isinstance(loss, (list, tuple)):
        return [_portable_loss(part) for part in loss]
    if not isinstance(loss, dict):
        return loss
    if "registered_name" not in loss:
        return {name: _portable_loss(part) for name, part in loss.items()}
    own = (SmoothedSparseCategoricalCrossentropy, MixedLoss, AdversarialLoss)
    if loss["registered_name"] not in map(keras.saving.get_registered_name, own):
        return loss
    plain = without_smoothing(keras.saving.deserialize_keras_object(loss))
    return keras.saving.serialize_keras_object(plain)


def _loss(loss: Any) -> keras.losses.Loss | Callable:
    if isinstance(loss, (list, tuple, dict)):
        raise ValueError(
            f"`loss` must be one loss for a model with one output. Received: loss={loss!r}"
        )
    resolved = loss_object(unwrapped_loss(loss))
    reduction = getattr(resolved, "reduction", "sum_over_batch_size")  # Keras's, for a function
    if reduction in (None, "none"):
        raise ValueError(
            "`loss` must reduce to one number, or no penalty can be added to it: expected "
            "reduction 'sum_over_batch_size', 'sum' or 'mean_with_sample_weight'. "
            f"Received: reduction={reduction!r}"
        )
    return resolved


def loss_object(loss: Any) -> keras.losses.Loss | Callable:
    """Return the Keras `Loss` for a name, class, Keras function or object; else the function.

    Raises:
        TypeError: `loss` is none of these.
        ValueError: Keras knows no loss of that name; the message gives the nearest.

    Example:

    >>> type(loss_object("mse")).__name__
    'MeanSquaredError'
    """
    if isinstance(loss, str):
        try:
            resolved = keras.losses.get(loss)
        except ValueError:
            hint = (
                " Name the one that fits the labels, such as 'sparse_categorical_crossentropy'."
                if loss in _SHORT_METRICS
                else suggestion(loss, [*_ABBREVIATIONS, *_public_names(keras.losses)])
            )
            raise ValueError(
                f"`loss` must be the name of a Keras loss. Received: loss={loss!r}.{hint}"
            ) from None
        return loss_object(resolved)
    if inspect.isclass(loss) and loss in _loss_classes().values():
        return loss()
    if isinstance(loss, keras.losses.Loss):
        return loss
    if _takes_targets_and_outputs(loss):
        by_function = _loss_classes().get(loss)
        return by_function() if by_function else loss
    raise TypeError(
        "`loss` must be a name, a keras.losses.Loss or a function of (y_true, y_pred). "
        f"Received: loss={loss!r} of type {type(loss).__name__}"
    )


def _takes_targets_and_outputs(function: Any) -> bool:
    """Whether it is a function, or an object like one, that can be called with two arguments."""
    if not callable(function) or isinstance(function, (type, keras.layers.Layer)):
        return False
    if isinstance(function, keras.metrics.Metric):
        return False
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a function in C tells no signature
        return True
    return True


@functools.cache
def _loss_classes() -> dict[Callable, type[keras.losses.Loss]]:
    """Return Keras's own loss functions, each with the class that does the same."""
    classes = [
        value
        for value in vars(keras.losses).values()
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss)
    ]
    losses = [cls() for cls in classes if cls is not keras.losses.Loss]
    return {loss.fn: type(loss) for loss in losses if hasattr(loss, "fn")}


def _all_smoothed(
    losses: dict[str, Any], label_smoothing: float, *, everywhere: bool
) -> dict[str, Any]:
    """Return the losses of several outputs with label smoothing, of all or where it is known."""
    knows = [name for name, loss in losses.items() if smoothing_of(loss) is not None]
    names = losses if everywhere or not knows else knows
    return losses | {name: _smoothed(losses[name], label_smoothing) for name in names}


def _smoothed(
    loss: keras.losses.Loss | Callable, label_smoothing: float
) -> keras.losses.Loss | Callable:
    present = smoothing_of(loss)
    if not label_smoothing or present == label_smoothing:
        return loss
    ignored = getattr(loss, "ignore_class", None)
    if ignored is not None:
        raise ValueError(
            "`label_smoothing` has no meaning for a loss that ignores a class. "
            f"Received: label_smoothing={label_smoothing}, ignore_class={ignored!r}"
        )
    if present is None:
        known = sorted(
            c.__name__ for c in _loss_classes().values() if smoothing_of(c()) is not None
        )
        raise ValueError(
            f"`label_smoothing` is known to these losses only: {', '.join(known)}. "
            f"Received: label_smoothing={label_smoothing} with loss={_name_of(loss)}"
        )
    if present:
        raise ValueError(
            "`label_smoothing` is set twice: in the loss object "
            f"({present}) and here ({label_smoothing}). Give it once."
        )
    return with_smoothing(loss, label_smoothing)


def _name_of(thing: Any) -> str:
    return getattr(thing, "__name__", type(thing).__name__)


def _to_apply(regularization: Any, built_with: Unapplied | None) -> Unapplied:
    """Return what of a regularization is to be applied to optimizer and loss."""
    if not isinstance(regularization, Regularization):
        raise TypeError(
            "`regularization` must be a kregs.Regularization or None. "
            f"Received: regularization={regularization!r}"
        )
    fields = compile_fields(regularization)
    apply = built_with or Unapplied(fields)
    if apply.regularization != fields:
        raise ValueError(
            "`regularization` must be the value that the model was built with, which has "
            f"{apply.regularization!r} for the optimizer and the loss. Received: {fields!r}"
        )
    return apply


def _once(name: str, given: Any, apply: Unapplied | None) -> Any:
    """Return an argument, or the field of that name where it is not given; `None` for neither.

    Raises:
        ValueError: both are there, and differ.
    """
    field = None if apply is None else getattr(apply.regularization, name)
    if given is None or not field or given == field:
        return field if given is None else given
    raise ValueError(
        f"`{name}` is set twice: in `regularization` ({field:g}) and here. Give it once. "
        f"Received: {name}={given!r}"
    )


def _optimizer(
    optimizer: Any,
    learning_rate: Any,
    weight_decay: Any,
    apply: Unapplied | None,
    model: keras.Model,
) -> keras.optimizers.Optimizer:
    """Return the optimizer that is meant, with what it is to apply."""
    chosen = None if apply is None or apply.weights is None else set(map(id, apply.weights))
    others = [] if chosen is None else [v for v in model.trainable_weights if id(v) not in chosen]
    settings: dict[str, Any] = {}
    if learning_rate is not None:
        is_schedule = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
        settings["learning_rate"] = (
            learning_rate
            if is_schedule
            else check_number("learning_rate", learning_rate, above=0.0)
        )
    if weight_decay is not None:
        settings["weight_decay"] = check_number("weight_decay", weight_decay, minimum=0.0)
    decay = _once("weight_decay", settings.get("weight_decay"), apply)
    if isinstance(optimizer, keras.optimizers.Optimizer):
        if settings:
            raise ValueError(
                "`optimizer` as an object has its own settings: set "
                f"{' and '.join(settings)} there, or give the optimizer by name. "
                f"Received: optimizer={_name_of(optimizer)}, {settings}"
            )
        if decay:
            optimizer = with_weight_decay(optimizer, decay, others)
        return _with_proximal_step(optimizer, model, apply)
    if not isinstance(optimizer, str):
        raise TypeError(
            "`optimizer` must be a name or a keras.optimizers.Optimizer. "
            f"Received: optimizer={optimizer!r} of type {type(optimizer).__name__}"
        )
    known = optimizer_classes()
    if optimizer.lower() not in known:
        raise ValueError(
            f"`optimizer` must be one of {', '.join(map(repr, known))}. "
            f"Received: optimizer={optimizer!r}.{suggestion(optimizer.lower(), known)}"
        )
    if decay is not None:  # a regularization of none decays nothing by AdamW, too
        settings["weight_decay"] = decay
    instance = known[optimizer.lower()](**settings)
    if instance.weight_decay is not None:  # 0, too: members of a population may have more
        leave_alone(instance, others)
    return _with_proximal_step(instance, model, apply)


def _with_proximal_step(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, apply: Unapplied | None
) -> keras.optimizers.Optimizer:
    """Return the optimizer with the proximal step that it is to take, if any."""
    fields = Regularization() if apply is None else apply.regularization
    if apply is None or not (fields.proximal_l1 or fields.group_l1):
        return optimizer
    chosen = None if apply.weights is None else {id(weight) for weight in apply.weights}

    def is_chosen_kernel(variable: Any) -> bool:
        is_kernel = re.search(KERNEL_NAMES, variable.path) is not None
        return is_kernel and (chosen is None or id(variable) in chosen)

    return proximal(
        optimizer,
        l1=fields.proximal_l1,
        group_l1=fields.group_l1,
        variables=is_chosen_kernel,
        model=model,
    )


def _metrics(metrics: Any) -> list[Any]:
    if isinstance(metrics, (str, dict)) or not isinstance(metrics, Iterable):
        raise TypeError(
            "`metrics` must be a list of metrics, such as metrics=['accuracy']. "
            f"Received: metrics={metrics!r}"
        )
    metrics = list(metrics)
    names: list[str] = []
    for metric in metrics:
        if isinstance(metric, str):
            _check_metric_name(metric)
        elif not (
            isinstance(metric, keras.metrics.Metric)
            or (inspect.isclass(metric) and issubclass(metric, keras.metrics.Metric))
            or _takes_targets_and_outputs(metric)
        ):
            raise TypeError(
                "`metrics` must hold names, keras.metrics.Metric objects or functions of "
                f"(y_true, y_pred). Received: {metric!r} of type {type(metric).__name__}"
            )
        names.append(_metric_name(metric))
        if names[-1] in _RESERVED_NAMES:
            raise ValueError(
                f"`metrics` may not hold a metric named {names[-1]!r}, which is in the logs "
                f"already. Received: {metric!r}"
            )
        if names[-1] in names[:-1]:
            raise ValueError(
                "`metrics` must have different names, under which they are logged. "
                f"Received: {names[-1]!r} twice"
            )
    return metrics


def _metric_name(metric: Any) -> str:
    """Return the name that a metric is logged under."""
    if isinstance(metric, str):
        return metric
    if inspect.isclass(metric):
        return metric.__name__
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(
            "`metrics` must hold metrics with a name: wrap a function that has none into "
            f"keras.metrics.MeanMetricWrapper(function, name='...'). Received: {metric!r}"
        )
    return name


def _check_metric_name(name: str) -> None:
    if name in _SHORT_METRICS:
        return
    try:
        keras.metrics.get(name)
    except ValueError:
        known = [*_SHORT_METRICS, *_ABBREVIATIONS, *_public_names(keras.metrics)]
        raise ValueError(
            "`metrics` must hold names of Keras metrics. "
            f"Received: {name!r}.{suggestion(name, known)}"
        ) from None


def _public_names(module: types.ModuleType) -> list[str]:
    helpers = ("get", "serialize", "deserialize")
    return [name for name in dir(module) if not name.startswith("_") and name not in helpers]
