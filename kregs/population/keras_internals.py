"""Every private name of Keras that stacked training needs, each behind a function of its own.

Keras shows no public way to the graph of a model, to what `compile` was given, or to how it names
metrics. No other file of `kregs.population` touches a name of Keras that begins with an underscore
or lies in `keras.src` (tests/population/test_sources.py), so that a new version of Keras is met
here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope

# what Keras's loss classes are made of; it exports the classes only
from keras.src.losses.losses import LossFunctionWrapper

# what a model of inputs and outputs is, whose class may be one's own
from keras.src.models.functional import Functional

# operations that Keras puts into a graph to compute masks; it exports the functions only
from keras.src.ops.numpy import Any as AnyOperation
from keras.src.ops.numpy import NotEqual as NotEqualOperation
from keras.src.random.seed_generator import global_seed_generator

# how Keras names and counts what is given no name
from keras.src.utils.naming import to_snake_case

# knows the device of `tf.device`, which TensorFlow shows of no thread
from tensorflow.python.eager import context

from kregs.training.stock_optimizers import unwrapped

__all__ = [
    "BUILT",
    "AnyOperation",
    "CompiledLoss",
    "CompiledMetric",
    "NotEqualOperation",
    "all_layers",
    "averages_of",
    "broadcast_shape",
    "built_with_fresh_names",
    "callback_metrics",
    "calls_of",
    "decays_weight",
    "gathered_by",
    "generator_seed",
    "global_generator_state",
    "has_automatic_name",
    "has_mask",
    "inner_functional",
    "is_on_default_device",
    "is_plain_function_loss",
    "is_stateless",
    "learning_rate_of",
    "loss_attributes",
    "merge",
    "profiles_batches",
    "resolved_losses",
    "resolved_metrics",
    "row_function",
    "row_values",
    "scratch_like",
    "set_decayed",
    "set_not_decayed",
    "set_steps_taken",
    "slot_variables",
    "states_changed_beside",
    "steps_taken",
    "unwrapped",
    "user_loss_weights",
    "user_metrics",
    "variables_handed_to",
]

# attributes that only say whether a metric or layer has seen data
BUILT = frozenset({"built", "_built", "_build_input_shape"})


# ---- the graph of a model ------------------------------------------------------------------


# who overrides one of these computes something that the layers do not show
_STEPS = (
    "call", "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "fit",
    "evaluate", "make_train_function", "make_test_function", "__call__", "losses", "metrics",
    "trainable_variables", "trainable_weights",
)  # fmt: skip


def inner_functional(model: Any) -> Any:
    """Return the Functional that a Sequential is built as, a Functional itself, or `None`.

    Why: `Sequential.layers` hides which tensors its layers read, its Functional shows them.

    Raises:
        ValueError: a Sequential is not built, so it has none yet; or its class computes otherwise,
            or has weights that its layers have not.
    """
    if isinstance(model, keras.Sequential):
        _check_steps(model, keras.Sequential)
        if not model.built or model._functional is None:
            raise ValueError(
                f"model {model.name!r} is not built: its first layer does not say its input shape"
            )
        return model._functional
    if not (hasattr(model, "_nodes_by_depth") and isinstance(model, Functional)):
        return None
    _check_steps(model, Functional)
    if type(model) is not Functional:
        of_layers = {id(variable) for layer in all_layers(model) for variable in layer.weights}
        if any(id(variable) not in of_layers for variable in model.weights):
            raise ValueError(
                f"model {model.name!r} is a {type(model).__name__}, which has weights that none of "
                "its layers has"
            )
    return model


def _check_steps(model: keras.Model, stock: type) -> None:
    """Raise `ValueError` if a model's class computes otherwise than a stock class.

    Why: the class of models of inputs and outputs is not public.
    """
    for name in _STEPS:
        if getattr(type(model), name) is not getattr(stock, name):
            raise ValueError(
                f"model {model.name!r} is a {type(model).__name__}, which has a `{name}` of its own"
            )


def calls_of(functional: Any) -> Iterator[Any]:
    """Yield the calls of operations in a Functional, inputs left out, in an order that runs.

    Why: only these nodes say which tensors each call reads and with which arguments.
    """
    for depth in sorted(functional._nodes_by_depth, reverse=True):
        for node in functional._nodes_by_depth[depth]:
            if not node.is_input:
                yield node


def all_layers(model: keras.Model) -> list[Any]:
    """Return the layers of any model, those within layers and within models too.

    Why: `model.layers` shows neither what a layer holds nor what a nested model does.
    """
    return model._flatten_layers(include_self=False)


def has_mask(tensor: Any) -> bool:
    """Return whether a symbolic tensor carries a mask.

    Why: masks travel beside the graph, and one on a model's output reaches the loss.
    """
    return getattr(tensor, "_keras_mask", None) is not None


# ---- what a model is compiled with ---------------------------------------------------------


def user_loss_weights(model: keras.Model) -> Any:
    """Return `loss_weights` as `compile` was given them, or `None`.

    Why: no public attribute holds them.
    """
    return model._compile_loss._user_loss_weights if model._compile_loss else None


def user_metrics(model: keras.Model) -> dict[str, Any]:
    """Return `metrics` and `weighted_metrics` as `compile` was given them, by these names.

    Why: `model.metrics` mixes both and adds the loss tracker.
    """
    compiled = model._compile_metrics
    return {
        "metrics": compiled._user_metrics if compiled else None,
        "weighted_metrics": compiled._user_weighted_metrics if compiled else None,
    }


@dataclasses.dataclass(frozen=True)
class CompiledLoss:
    """One of the losses that `fit` adds up.

    Args:
        loss: the loss object.
        weight: its `loss_weights`.
        name: where there are several, its own value is logged as `<name>_loss`.
        target, output: which ones it compares, by position among the flat targets and predictions;
            `None`: several at once.
    """

    loss: Any
    weight: float
    name: str
    target: int | None
    output: int | None


class CompiledMetric(NamedTuple):
    """A metric that `fit` shows the targets and predictions of one output.

    Args:
        name: in the logs.
        metric: the metric object.
        weighted: whether it sees sample weights.
        target, output: which ones it sees, by position among the flat targets and predictions.
    """

    name: str
    metric: Any
    weighted: bool
    target: int
    output: int


def resolved_losses(model: keras.Model, y: Any, prediction: Any) -> list[CompiledLoss]:
    """Return the losses that `fit` would use on such targets.

    Why: Keras turns a name into a loss, and finds the targets of each output, only in its private
    container, which depends on the targets' structure and shapes. A fresh one is built, so that the
    model's stays as it is.

    Args:
        y, prediction: a few rows of each, in the structure that `fit` has them in.
    """
    compiled = model._compile_loss
    flat_y, flat_prediction = keras.tree.flatten(y), keras.tree.flatten(prediction)
    found = []

    def note(entry: Any, target: Any, output: Any, weight: Any) -> tf.Tensor:
        places = _place(target, flat_y), _place(output, flat_prediction)
        factor = 1.0 if entry.loss_weights is None else float(entry.loss_weights)
        found.append(CompiledLoss(entry.loss, factor, entry.name, *places))
        return tf.zeros([])

    kind: Any = type(compiled)

    class Noting(kind):
        """Calls no loss, but notes what each would be called with."""

        _flat_losses: Any

        def build(self, y_true: Any, y_pred: Any) -> None:
            super().build(y_true, y_pred)
            self._flat_losses = [
                entry._replace(loss=functools.partial(note, entry)) for entry in self._flat_losses
            ]

    fresh = Noting(
        compiled._user_loss,
        compiled._user_loss_weights,
        output_names=getattr(compiled, "output_names", None),
    )
    fresh(y, prediction)
    return found


def _place(part: Any, parts: list[Any]) -> int | None:
    """Return which of these a part is, `None` if it is a structure of several.

    Why: equal arrays may be of different outputs. Of targets with keys of their own Keras takes the
    keys for the targets.

    Raises:
        KeyError: it is none of these.
    """
    if keras.tree.is_nested(part):
        return None
    places = [place for place, each in enumerate(parts) if each is part]
    if not places:
        raise KeyError(part)
    return places[0]


def resolved_metrics(model: keras.Model, y: Any, prediction: Any) -> list[CompiledMetric]:
    """Return the compiled metrics as `fit` would use them.

    Why: Keras tells apart metrics of one name while it collects results, and finds the targets of
    each output while it updates them, nowhere else.

    Args:
        y, prediction: a few rows of each, in the structure that `fit` has them in.
    """
    fresh = _fresh_metrics(model, y, prediction)
    if fresh is None:
        return []
    try:
        fresh.update_state(y, prediction)  # some make their variables only now
        names = iter(fresh.result())
    except Exception:
        fresh.reset_state()  # the user's own objects are not to keep the few rows
        raise
    pairs: Any = [
        (_place(target, keras.tree.flatten(y)), _place(output, keras.tree.flatten(prediction)))
        for target, output in zip(fresh._flatten_y(y), fresh._flatten_y(prediction), strict=True)
    ]
    entries: list[Any] = []
    groups = (fresh._flat_metrics, False), (fresh._flat_weighted_metrics, True)
    for containers, weighted in groups:
        for container, pair in zip(containers, pairs, strict=True):
            for metric in [] if container is None else container.metrics:
                entries.append(CompiledMetric(next(names), metric, weighted, *pair))
    return entries


def has_automatic_name(thing: Any) -> bool:
    """Return whether a metric, layer or input was given no name, so that Keras made one.

    Why: nothing public says who gave the name. Keras may have counted it up.
    """
    return _number_in_name(thing) is not None


def built_with_fresh_names(build: Callable[[], Any]) -> Any:
    """Return what a function builds, its metrics named as in a process that has built nothing yet.

    Why: Keras calls the second AUC of a process `auc_1`, so that the model of every trial would
    log it by another name. The counters are private. Names that were given stay.
    """
    before = dict(_name_counters())
    model = build()
    metrics = keras.tree.flatten(user_metrics(model)) if getattr(model, "compiled", False) else []
    for metric in metrics:
        if not isinstance(metric, keras.metrics.Metric):
            continue
        number, kind = _number_in_name(metric), to_snake_case(type(metric).__name__)
        first, end = before.get(kind, 0), _name_counters().get(kind, 0)
        if number is not None and first <= number < end:
            metric.name = kind if number == first else f"{kind}_{number - first}"
    return model


def _name_counters() -> dict[str, int]:
    """Return how many things of each kind Keras has named.

    Why: they are a global attribute without a public name.
    """
    return global_state.get_global_attribute("object_name_uids") or {}


def _number_in_name(thing: Any) -> int | None:
    """Return the number in a name that Keras may have made, 0 for the first, `None` in others.

    Why: how a class's name is written in small letters is not public.
    """
    kind = to_snake_case(type(thing).__name__)
    match = re.fullmatch(rf"{kind}(?:_(\d+))?", thing.name)
    return int(match[1] or 0) if match else None


def loss_arguments(loss: keras.losses.Loss) -> dict[str, Any]:
    """Return the arguments that a loss hands to its function.

    Why: not every loss's config has all that it was made with (Huber's `delta`).
    """
    return getattr(loss, "_fn_kwargs", {})


def callback_metrics(model: keras.Model, y: Any, prediction: Any) -> list[Any]:
    """Return `model.metrics` as callbacks find them in `fit`, in a list.

    Why: callbacks infer from the built metrics whether more is better; a model that has seen no
    data has not built any. A fresh container is built, so that the model's stays as it is.

    Args:
        y, prediction: a few rows of each.
    """
    fresh = _fresh_metrics(model, y, prediction)
    if fresh is None:
        return model.metrics
    return [fresh if metric is model._compile_metrics else metric for metric in model.metrics]


def _fresh_metrics(model: keras.Model, y: Any, prediction: Any) -> Any:
    """Return a container of the compiled metrics, built; `None` if there are none.

    Why: the model's own stays unbuilt. What is given as a class is made by each build, which counts
    up its name: the counters are put back, so that all builds of a model have one name for it.
    """
    compiled = model._compile_metrics
    if compiled is None:
        return None
    fresh = type(compiled)(
        compiled._user_metrics,
        compiled._user_weighted_metrics,
        output_names=getattr(compiled, "output_names", None),
    )
    counters = _name_counters()
    before = dict(counters)
    fresh.build(y, prediction)
    counters = _name_counters()
    counters.clear()
    counters.update(before)
    return fresh


def loss_attributes(loss: keras.losses.Loss) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all that a loss holds: its attributes, and the arguments for its function.

    Why: not every loss's config has all that it was made with (Huber's `delta`).
    """
    attributes = dict(vars(loss))
    return attributes, attributes.pop("_fn_kwargs", {})


def is_plain_function_loss(loss: Any) -> bool:
    """Return whether a loss is a function, its arguments and a reduction, and nothing else.

    Why: the class whose `call` says so is not public.
    """
    if not isinstance(loss, LossFunctionWrapper):
        return False
    kind = type(loss)
    return kind.call is LossFunctionWrapper.call and kind.__call__ is keras.losses.Loss.__call__


def row_function(metric: keras.metrics.MeanMetricWrapper) -> tuple[Any, dict[str, Any]]:
    """Return the function that a metric is the mean of, and its further arguments.

    Why: the metric's config holds a serialized one at most.
    """
    return metric._fn, metric._fn_kwargs


def row_values(metric: keras.metrics.MeanMetricWrapper, y: Any, prediction: Any) -> Any:
    """Return a metric's number for each row.

    Why: publicly there is only `update_state`, which takes the mean over all members.
    """
    return metric._fn(y, prediction, **metric._fn_kwargs)


def profiles_batches(callback: keras.callbacks.TensorBoard) -> bool:
    """Return whether a TensorBoard callback profiles batches.

    Why: it turns `profile_batch` into private numbers.
    """
    return callback._should_trace


# ---- variables that are being made ----------------------------------------------------------


_Taker = Callable[[Any, Any], bool]
_takers: dict[int, list[_Taker]] = {}  # of each thread
_taking = threading.Lock()


@contextlib.contextmanager
def variables_handed_to(take: _Taker) -> Iterator[None]:
    """Show the variables that this thread makes in the block to a function before they are filled.

    Why: a Keras variable calls its initializer as it is made, and there is no public way between.

    Args:
        take: called with a variable and its initializer or value; returns whether it fills it.
    """
    thread = threading.get_ident()
    with _taking:
        if not _takers:
            for name in _FILLING:
                setattr(keras.Variable, name, functools.partialmethod(_take_or_fill, name))
        _takers.setdefault(thread, []).append(take)
    try:
        yield
    finally:
        with _taking:
            _takers[thread].pop()
            if not _takers[thread]:
                del _takers[thread]
            if not _takers:
                for name in _FILLING:  # those of its base are back
                    delattr(keras.Variable, name)


_FILLING = ("_initialize", "_initialize_with_initializer")


def _take_or_fill(variable: Any, name: str, initial: Any) -> None:
    """Fill a variable as the thread's latest taker does, or as Keras does.

    Why: it stands in the place of Keras's own methods.
    """
    takers = _takers.get(threading.get_ident())
    if type(variable) is not keras.Variable or not takers or not takers[-1](variable, initial):
        getattr(super(keras.Variable, variable), name)(initial)


def generator_seed(initializer: Any) -> int | None:
    """Return the seed that a function fills a new seed generator's state with, `None` of others.

    Why: it is a function inside of the generator's `__init__`.
    """
    name = getattr(initializer, "__qualname__", "")
    if name != "SeedGenerator.__init__.<locals>.seed_initializer":
        return None
    return inspect.getclosurevars(initializer).nonlocals.get("seed")


def is_stateless() -> bool:
    """Return whether variables have the values of a `keras.StatelessScope`.

    Why: the scope that is entered is not public.
    """
    return in_stateless_scope()


def is_on_default_device() -> bool:
    """Return whether a variable made now would be a plain one, where TensorFlow puts all.

    Why: neither the device of a thread nor who creates variables in its stead is public.
    """
    creators = tf.compat.v1.get_default_graph()._variable_creator_stack
    return (
        tf.executing_eagerly()
        and not tf.distribute.has_strategy()
        and not context.context().device_name
        and not creators
    )


# ---- optimizers and layers -----------------------------------------------------------------


def learning_rate_of(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return an optimizer's learning rate: a variable, or the schedule.

    Why: the public `learning_rate` of a schedule is its present value.
    """
    return unwrapped(optimizer)._learning_rate


def slot_variables(
    optimizer: keras.optimizers.Optimizer, slot: str, variables: Iterable[Any]
) -> list[Any]:
    """Return an optimizer's variable of a slot (`"momentums"`) for each weight.

    Why: publicly there is one list of all variables, whose names depend on the path of weights.

    Returns:
        One a weight, `None` where the optimizer keeps none.
    """
    kept = getattr(optimizer, slot, None) or getattr(optimizer, f"_{slot}", None) or []
    positions = optimizer._trainable_variables_indices
    keys = [optimizer._var_key(variable) for variable in variables]
    return [kept[positions[key]] if kept and key in positions else None for key in keys]


def decays_weight(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Return whether an optimizer applies its weight decay to a variable.

    Why: `exclude_from_weight_decay` writes to private lists only.
    """
    optimizer = unwrapped(optimizer)
    stock = keras.optimizers.Optimizer._use_weight_decay
    asked = getattr(optimizer._use_weight_decay, "__func__", None)
    waits = isinstance(variable, keras.Variable) and vars(variable).get("_value") is None
    if waits and asked is stock:
        # TensorFlow's variable, by which it could be excluded, is not made yet
        pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
        return pattern is None or re.search(pattern, variable.name) is None
    return optimizer._use_weight_decay(variable)


def scratch_like(variable: Any) -> keras.Variable:
    """Return a variable of zeros with the shape, type and name of another.

    Why: some optimizers go by the path, which only name scopes set.
    """
    scratch = keras.Variable(
        tf.zeros(variable.shape, variable.dtype), dtype=variable.dtype, name=variable.name
    )
    scratch._path = variable.path
    return scratch


def gathered_by(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[Any]:
    """Return all that a built optimizer keeps, but its step count and learning rate.

    Why: the public list is in the order in which the optimizer met the weights, and does not hold
    what is no slot of a weight (Nadam's product).

    Args:
        optimizer: built.
        variables: the weights, in the order in which what is kept for each is wanted.

    Raises:
        ValueError: it keeps something in a way that is not known.
    """
    positions = [optimizer._trainable_variables_indices[optimizer._var_key(v)] for v in variables]
    inner = unwrapped(optimizer)
    left_out = {id(optimizer._iterations), id(optimizer._learning_rate), *map(id, variables)}
    kept = []
    for name, value in sorted(vars(optimizer).items()):
        if name in ("_variables", "_trainable_variables"):
            continue
        if isinstance(value, keras.Variable):
            kept.append(value)
        elif isinstance(value, (list, tuple)) and len(value) == len(positions):
            of_weights = (value[position] for position in positions)
            kept += [each for each in of_weights if isinstance(each, keras.Variable)]
    if inner is not optimizer:  # which takes no step where a gradient is infinite
        kept += [inner._iterations, *gathered_by(inner, variables)]
        left_out.add(id(inner._learning_rate))
    kept = list({id(v): v for v in kept if id(v) not in left_out}.values())
    if {id(v) for v in optimizer.variables} - left_out - {id(v) for v in kept}:
        raise ValueError(f"the optimizer {type(optimizer).__name__} keeps variables out of sight")
    return kept


def steps_taken(optimizer: keras.optimizers.Optimizer) -> int:
    """Return how often an optimizer was applied.

    Why: the public `iterations` counts updates, of which there are fewer with accumulation.
    """
    return int(unwrapped(optimizer)._iterations.numpy())


def set_steps_taken(optimizer: keras.optimizers.Optimizer, steps: Any) -> None:
    """Set what `steps_taken` returns, unless that is part of what is gathered; may be a tensor.

    Why: the public `iterations` cannot be set once the optimizer is built.
    """
    if unwrapped(optimizer) is optimizer:
        optimizer._iterations.assign(tf.cast(steps, optimizer._iterations.dtype))


def set_decayed(optimizer: keras.optimizers.Optimizer, decayed: Mapping[int, bool]) -> None:
    """Say for each variable, by its `id`, whether its weight decays.

    Why: publicly variables are excluded by names or objects, which another optimizer's are not.
    """
    optimizer = unwrapped(optimizer)
    by_key = {optimizer._var_key(v): decayed[id(v)] for v in optimizer._trainable_variables}
    optimizer._use_weight_decay = lambda variable: by_key[optimizer._var_key(variable)]


def set_not_decayed(optimizer: keras.optimizers.Optimizer, variables: Iterable[Any]) -> None:
    """Say which variables a built optimizer does not decay, whatever it was told before.

    Why: `exclude_from_weight_decay` can only be called before the optimizer is built.
    """
    optimizer = unwrapped(optimizer)
    optimizer._exclude_from_weight_decay = {optimizer._var_key(v) for v in variables}
    optimizer._exclude_from_weight_decay_pattern = None
    optimizer._exclude_from_weight_decay_cache = {}


def averages_of(optimizer: keras.optimizers.Optimizer) -> list[Any] | None:
    """Return the averages of the weights that an optimizer keeps, or `None`.

    Why: publicly they can only be written over the weights.
    """
    optimizer = unwrapped(optimizer)
    return list(optimizer._model_variables_moving_average) if optimizer.use_ema else None


def global_generator_state() -> keras.Variable:
    """Return the state of the generator that `keras.random` without a seed draws from.

    Why: it is no layer's, and Keras keeps it private, where the first that draws makes it.
    """
    with tf.init_scope():
        return global_seed_generator().state


def states_changed_beside(scope: keras.StatelessScope, variables: Iterable[Any]) -> bool:
    """Return whether variables other than these have changed in a scope.

    Why: publicly a scope tells the value of a variable that one knows.
    """
    return bool(scope.state_mapping.keys() - {id(variable) for variable in variables})


def merge(layer: keras.layers.Layer, values: list[tf.Tensor]) -> tf.Tensor:
    """Merge tensors as Add, Multiply, ... do.

    Why: their `call` reshapes inputs that it takes to be one member's.
    """
    return layer._merge_function(values)


def broadcast_shape(layer: keras.layers.Normalization) -> list[int]:
    """Return the shape in which a Normalization layer's statistics meet its input.

    Why: the layer computes it in `build` and keeps it private.
    """
    return layer._broadcast_shape


def gpu_bytes() -> int | None:
    """Return how much memory TensorFlow may use on the smallest GPU; `None` if it does not say.

    Why: `tf.config` knows the present use of a GPU, not its size.
    """
    from tensorflow.python.client import device_lib

    limits = [d.memory_limit for d in device_lib.list_local_devices() if d.device_type == "GPU"]
    return min(limits, default=0) or None
