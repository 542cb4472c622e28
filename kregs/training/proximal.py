"""`proximal`: L1 and group lasso that reach exactly zero, by a proximal step in the optimizer."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import re
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import keras
from keras import ops

from kregs.layers import BatchEnsembleDense, EnsembleDense, TiedDense
from kregs.training.stock_optimizers import settings_of, undecayed_of
from kregs.validation import check_number, suggestion

L = keras.layers

# names of kernels: of dense, convolutional, recurrent and attention layers
KERNEL_NAMES = r"(^|/)(\w+_)?kernel(:\d+)?$"
# steps of Newton's method; in 2000 random groups of any scale 6 reached the last digit
_NEWTON_STEPS = 8
SMALLEST = 1e-30  # a divisor in place of 0


def proximal(
    optimizer: str | keras.optimizers.Optimizer,
    *,
    l1: float = 0.0,
    group_l1: float = 0.0,
    variables: Iterable[str] | Callable[[Any], bool] | None = None,
    model: keras.Model | None = None,
) -> keras.optimizers.Optimizer:
    """Return a Keras optimizer that minimizes loss + `l1` |w|₁ + `group_l1` Σ|w_group|₂ exactly.

    A penalty in the loss (`keras.regularizers.L1`) is followed by its gradient, which steps over
    zero and never rests there. Here each update is followed by the proximal step of the penalty,
    which sets weights to zero and leaves them there: the soft threshold
    `sign(w) max(|w| - step l1, 0)`, and for groups the same of the group's norm. The penalties are
    no part of the logged loss. L2 penalties, which stay in the loss, give the elastic net.

    `step` is the optimizer's own step size for each weight, so that what training comes to rest at
    is the minimizer whatever the optimizer (the metric of Yun et al.): the learning rate for plain
    SGD, `learning_rate / (sqrt(velocity) + epsilon)` with its bias correction for Adam, and so
    forth; with momentum the sum of the steps that a gradient goes on to make; for Lion, whose steps
    know only the gradient's sign, `learning_rate / |averaged gradient|`. Where the steps within a
    group differ, the group's threshold is found by Newton's method.

    The optimizer is of the class that was given and takes all that belongs to it: schedules,
    clipping, weight decay, moving averages (a weight that is zero has an average of zero),
    accumulation (steps that do not update do not shrink), loss scaling. A saved `.keras` file holds
    the optimizer without the proximal step, so that it loads where kregs is not installed: compile
    again to go on with it. What momentum has summed is then told from the number of updates and the
    present learning rate: exact with a constant rate, not with a schedule. `copy.deepcopy` and
    `pickle` (without `model`) keep the settings, as those of Keras's optimizers, and the step. The
    two numbers are fixed when training is traced; with both 0 the optimizer is the one given.

    Args:
        optimizer: a Keras optimizer by name, or one that has not trained yet.
        l1: λ of each weight's absolute value, >= 0. Lasso's `alpha` of scikit-learn for a mean
            squared error is `l1 / 2`: its loss has a factor 1/2 that Keras's has not.
        group_l1: λ of each group's norm, >= 0: a group is what leads into one unit of a dense layer
            or makes one filter of a convolution, all of which becomes zero together. No factor for
            the group's size.
        variables: which weights: regular expressions searched in their paths, or a function of the
            variable that returns whether; default: kernels (no biases, normalizations, embeddings).
        model: the model to be compiled, whose layers say what a group is: the last axis of dense
            and convolution kernels, the one before in transposed convolutions, both in depthwise
            ones; none in recurrent and attention layers. Without it groups lie along the last axis
            of every kernel.

    Returns:
        A `keras.optimizers.Optimizer` for `model.compile` or `kregs.compile_model`, with the
        attributes `l1` and `group_l1`.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: the optimizer is unknown here (the message lists those that are known), has
            trained, is proximal already, or a number is negative. When the training begins: no
            weight is chosen, or none has groups.

    Example:

    >>> import keras, kregs, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
    >>> model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    >>> model.compile(kregs.proximal(keras.optimizers.Adam(0.05), l1=0.5), "mse")
    >>> history = model.fit(x, 2 * x[:, :1], batch_size=64, epochs=100, verbose=0)
    >>> [bool(weight) for weight in model.layers[0].kernel.numpy().ravel()]
    [True, False, False, False, False]

    References:
        Yun, Lozano, Yang, "Adaptive Proximal Gradient Methods for Structured Neural Networks",
        2021 (sec. 3: the step in the optimizer's metric); Parikh, Boyd, "Proximal Algorithms",
        2014 (sec. 6.5: thresholds); McMahan, "Follow-the-Regularized-Leader and Mirror Descent",
        2011 (Ftrl's).
    """
    l1 = check_number("l1", l1, minimum=0.0)
    group_l1 = check_number("group_l1", group_l1, minimum=0.0)
    if model is not None and not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model or None. Received: model={model!r}")
    given = _known(optimizer)
    selects = _selection(variables)
    return _made(type(given), _settings(given), l1, group_l1, selects, model)


def for_copy(optimizer: Any, weights: Iterable[Any], copies: Iterable[Any]) -> Any:
    """Return a fresh proximal optimizer that does to a model's copy what this one does to it.

    Which weights are thresholded, and in which groups, may be known by the very weights.

    Args:
        optimizer: made by `proximal`; stays as it is.
        weights: of its model.
        copies: the same of the copy, in the same order.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> first = proximal("sgd", l1=0.1, variables=lambda weight: weight is model.weights[0])
    >>> twin = keras.models.clone_model(model)
    >>> [t.l1 for t in for_copy(first, model.weights, twin.weights).thresholds(twin.weights)]
    [0.1, 0.0]
    """
    result = _made(
        optimizer.stock,
        _settings(optimizer),
        optimizer.l1,
        optimizer.group_l1,
        optimizer._selects,
    )
    thresholds = optimizer.thresholds(weights)
    result._of_copies = list(zip(copies, thresholds, strict=True))
    return result


def _settings(optimizer: Any) -> dict[str, Any]:
    """Return what makes an optimizer of the same class again: config and undecayed weights."""
    return {"config": settings_of(optimizer), "in no config": undecayed_of(optimizer)}


def _made(
    stock: Any,
    settings: dict[str, Any],
    l1: float,
    group_l1: float,
    selects: Callable[[Any], bool],
    model: keras.Model | None = None,
) -> Any:
    result = _proximal_class(stock)(**settings["config"])
    for name, value in settings["in no config"].items():
        setattr(result, name, value)
    result.l1, result.group_l1 = l1, group_l1
    result._selects = selects
    result._model = None if model is None else weakref.ref(model)
    return result


def _known(optimizer: Any) -> keras.optimizers.Optimizer:
    """Return the fresh optimizer that is meant, or raise."""
    names = {kind.__name__.lower(): kind for kind in _STEPS}
    known = f"one of {', '.join(sorted(kind.__name__ for kind in _STEPS))}"
    if isinstance(optimizer, str):
        if optimizer.lower() not in names:
            reason = _reason(optimizer)
            raise ValueError(
                f"`optimizer` must be {known}. Received: optimizer={optimizer!r}"
                + (f", {reason}" if reason else f".{suggestion(optimizer.lower(), names)}")
            )
        return names[optimizer.lower()]()
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"`optimizer` must be a name or a keras.optimizers.Optimizer, {known}. "
            f"Received: optimizer={optimizer!r} of type {type(optimizer).__name__}"
        )
    if is_proximal(optimizer):
        raise ValueError(
            f"`optimizer` must have no proximal step yet. Received: optimizer={optimizer!r}"
        )
    if type(optimizer) not in _STEPS:
        name = type(optimizer).__name__
        reason = _reason(name) or "whose step sizes are not known here"
        raise ValueError(f"`optimizer` must be {known}. Received: {name}, {reason}")
    if optimizer.built:
        raise ValueError(
            "`optimizer` must be a fresh one, which has not trained yet. "
            f"Received: {type(optimizer).__name__}, which is built for a model"
        )
    return optimizer


def _reason(name: str) -> str:
    """Say why an optimizer of Keras has no proximal step."""
    return {
        "muon": "whose steps are not of single weights, so that no threshold fits them",
        "schedulefreeadamw": "which averages weights, and averages do not reach zero",
        "lossscaleoptimizer": "which goes around: LossScaleOptimizer(kregs.proximal(...))",
        "multioptimizer": "which goes around: give it optimizers made by kregs.proximal(...)",
    }.get(name.lower(), "")


def _selection(variables: Any) -> Callable[[Any], bool]:
    """Return the function that says whether a variable is thresholded."""
    if variables is None:
        variables = [KERNEL_NAMES]
    if callable(variables):
        return variables
    if isinstance(variables, str) or not isinstance(variables, Iterable):
        raise TypeError(
            "`variables` must be a list of regular expressions, a function of a variable, or None. "
            f"Received: variables={variables!r}"
        )
    patterns = tuple(variables)
    if not patterns:
        raise ValueError(
            "`variables` must hold at least one regular expression, or no weight is chosen. "
            f"Received: variables={variables!r}"
        )
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (TypeError, re.error) as error:
            raise ValueError(
                f"`variables` must hold regular expressions. Received: {pattern!r} ({error})"
            ) from None

    return _ByPath(patterns)


@dataclasses.dataclass(frozen=True)
class _ByPath:
    """Whether a pattern is in a variable's path; a class, which can be pickled."""

    patterns: tuple[str, ...]

    def __call__(self, variable: Any) -> bool:
        path = getattr(variable, "path", variable.name)
        return any(re.search(pattern, path) for pattern in self.patterns)


def stock_class(optimizer: Any) -> type[keras.optimizers.Optimizer]:
    """Return the class of an optimizer, without the proximal step if it has one.

    Example:

    >>> stock_class(proximal("adam")) is stock_class(keras.optimizers.Adam())
    True
    """
    return optimizer.stock if is_proximal(optimizer) else type(optimizer)


def is_proximal(optimizer: Any) -> bool:
    """Return whether an optimizer was made by `proximal`.

    Example:

    >>> is_proximal(proximal("adam")), is_proximal(keras.optimizers.Adam())
    (True, False)
    """
    return isinstance(optimizer, _Proximal)


# ---- the optimizer -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Threshold:
    """What holds for one weight.

    Args:
        l1, group_l1: λ, 0 for none.
        axes: those that count its groups, none where there is no `group_l1`.
    """

    l1: float = 0.0
    group_l1: float = 0.0
    axes: tuple[int, ...] = ()


class _Proximal(keras.optimizers.Optimizer):
    """What an optimizer class gets in addition: after each update of a weight, the proximal step.

    Its config is that of the class alone.
    """

    l1: float
    group_l1: float
    stock: type[keras.optimizers.Optimizer]  # the class without it
    _selects: Callable[[Any], bool]
    _model: Callable[[], keras.Model | None] | None
    _of_copies: list[tuple[Any, Threshold]] | None = None  # by `for_copy`

    def __repr__(self) -> str:
        return f"<proximal {self.stock.__name__}, l1={self.l1:g}, group_l1={self.group_l1:g}>"

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Return the optimizer without the proximal step, as a saved file does."""
        return cls.stock.from_config(config, custom_objects=custom_objects)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a fresh optimizer of the same settings, for the same model: Keras's do that."""
        model = None if self._model is None else self._model()
        settings = copy.deepcopy(_settings(self), memo)
        return _made(self.stock, settings, self.l1, self.group_l1, self._selects, model)

    def __reduce__(self) -> Any:
        """Pickle the settings; who loads them gets a fresh optimizer, as of Keras's."""
        settings = _settings(self)
        by_weight = settings["in no config"]["_exclude_from_weight_decay"]
        if self._model is not None or self._of_copies is not None or by_weight:
            raise pickle.PicklingError(
                "a proximal optimizer that knows weights of a model (by `model`, or as excluded "
                "from weight decay) cannot be pickled without it: make it anew with "
                "kregs.proximal(...) where it is loaded"
            )
        return _made, (self.stock, settings, self.l1, self.group_l1, self._selects)

    def build(self, variables: list[Any]) -> None:
        """Make the optimizer's variables and choose the weights that are thresholded."""
        if self.built:
            return
        self._thresholds = tuple(self.thresholds(variables))
        for name in ("l1", "group_l1"):
            if getattr(self, name) and not any(getattr(t, name) for t in self._thresholds):
                raise ValueError(
                    f"`{name}` must concern at least one weight that is trained. "
                    f"Received: {name}={getattr(self, name)}, with variables "
                    + ", ".join(getattr(v, "path", v.name) for v in variables)
                )
        super().build(variables)
        has_momentum = _STEPS[self.stock].has_momentum(self)
        self._momentum_steps = tuple(
            self.add_variable((), dtype=variable.dtype, name="momentum_step")
            if has_momentum and (threshold.l1 or threshold.group_l1)
            else None
            for variable, threshold in zip(variables, self._thresholds, strict=True)
        )

    def thresholds(self, variables: Iterable[Any]) -> list[Threshold]:
        """Return what holds for each weight of the model; the optimizer need not be built."""
        if self._of_copies is not None:
            known = {id(weight): threshold for weight, threshold in self._of_copies}
            return [known.get(id(variable), Threshold()) for variable in variables]
        model = None if self._model is None else self._model()
        axes = None if model is None else group_axes(model)
        result = []
        for variable in variables:
            if not self._selects(variable):
                result.append(Threshold())
                continue
            last = len(variable.shape) - 1
            counted = (last,) if axes is None else axes.get(id(variable), ())
            grouped = bool(self.group_l1 and counted)
            result.append(
                Threshold(self.l1, self.group_l1 if grouped else 0.0, counted if grouped else ())
            )
        return result

    @property
    def momentum_step(self) -> float:
        """The sum of the steps that a constant gradient has made under momentum; 0 without it."""
        return float(next(iter(self._own()), 0.0))

    @momentum_step.setter
    def momentum_step(self, value: float) -> None:
        for variable in self._own():
            variable.assign(value)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Take the optimizer's step of one weight, then the proximal one."""
        index = self._get_variable_index(variable)
        threshold = self._thresholds[index]
        if not (threshold.l1 or threshold.group_l1):
            super().update_step(gradient, variable, learning_rate)
            return
        step = _STEPS[self.stock]
        # a copy: an optimizer may change what is read in place
        before = [ops.add(state, 0) for state in step.before(self, index, variable)]
        super().update_step(gradient, variable, learning_rate)
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        size = step.size(self, index, rate, ops.convert_to_tensor(gradient), *before)
        weight = soft_threshold(ops.convert_to_tensor(variable), threshold.l1 * size)
        if threshold.group_l1:
            within = tuple(set(range(len(variable.shape))) - set(threshold.axes))
            weight = group_soft_threshold(weight, threshold.group_l1 * size, within)
        self.assign(variable, weight)
        if self.use_ema:  # or its past would keep an average from zero
            average = self._model_variables_moving_average[index]
            self.assign(average, ops.where(weight == 0, ops.zeros_like(weight), average))

    def _own(self) -> list[Any]:
        return [] if not self.built else [v for v in self._momentum_steps if v is not None]

    def save_own_variables(self, store: Any) -> None:
        """Write what the class without the proximal step would, which is to read it."""
        own = {id(variable) for variable in self._own()}
        kept = [variable for variable in self.variables if id(variable) not in own]
        for index, variable in enumerate(kept):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` wrote."""
        own = self._own()
        kept = [v for v in self.variables if all(v is not other for other in own)]
        if len(store.keys()) != len(kept):
            super().load_own_variables(store)  # warns
            return
        for index, variable in enumerate(kept):
            variable.assign(store[str(index)])
        if own:  # as far as it can be told: the rate may have changed
            momentum, rate = self.momentum, float(self.learning_rate)
            self.momentum_step = rate * (1 - momentum ** float(self.iterations)) / (1 - momentum)


@functools.cache
def _proximal_class(stock: type[keras.optimizers.Optimizer]) -> type:
    """Return a Keras optimizer class with the proximal step."""
    name = stock.__name__
    # Keras writes the class's name and module into files, where the class without it is meant
    attributes = {"stock": stock, "__module__": "keras.optimizers", "__qualname__": name}
    return type(name, (_Proximal, stock), attributes)


def group_axes(model: keras.Model) -> dict[int, tuple[int, ...]]:
    """Return the axes that count the units or filters of each kernel, by the variable's `id`.

    Args:
        model: built, or none of its variables is among them.

    Example:

    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> list(group_axes(model).values())
    [(1,)]
    """
    from kregs.population.keras_internals import all_layers

    axes: dict[int, tuple[int, ...]] = {}
    for layer in all_layers(model):
        for kinds, attribute, counted in _GROUPS:
            kernel = getattr(layer, attribute, None) if isinstance(layer, kinds) else None
            if kernel is not None:
                axes[id(kernel)] = tuple(len(kernel.shape) + axis for axis in counted)
    return axes


# classes of layers, a kernel of theirs, and which axes of it count its units or filters
_GROUPS = (
    ((L.Dense, L.Conv1D, L.Conv2D, L.Conv3D, TiedDense, BatchEnsembleDense), "kernel", (-1,)),
    ((EnsembleDense,), "kernel", (-3, -1)),
    ((L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose), "kernel", (-2,)),
    ((L.DepthwiseConv1D, L.DepthwiseConv2D), "kernel", (-2, -1)),
    ((L.SeparableConv1D, L.SeparableConv2D), "depthwise_kernel", (-2, -1)),
    ((L.SeparableConv1D, L.SeparableConv2D), "pointwise_kernel", (-1,)),
)


# ---- thresholds ----------------------------------------------------------------------------


def soft_threshold(weight: Any, threshold: Any) -> Any:
    """Return `sign(w) max(|w| - threshold, 0)`, the proximal step of `threshold` |w|₁.

    Args:
        weight: any shape.
        threshold: >= 0, broadcasts over it.

    Example:

    >>> soft_threshold(ops.convert_to_tensor([-3.0, 0.5]), 1.0).numpy().tolist()
    [-2.0, 0.0]
    """
    return weight - ops.clip(weight, -threshold, threshold)


def group_soft_threshold(weight: Any, threshold: Any, axes: tuple[int, ...]) -> Any:
    """Return the proximal step of |w_group|₂ in the metric of an optimizer's steps.

    It is the u that makes `Σ (u - w)² / (2 threshold) + |u|₂` smallest: zero where
    `Σ (w / threshold)² <= 1`, else `w r / (r + threshold)` with r = |u|, the root of
    `Σ (w / (r + threshold))² = 1`. As `1 / sqrt` of the sum is concave in r, Newton's method from
    the left rises to the root; with equal thresholds the first step is exact.

    Args:
        weight: any shape.
        threshold: λ times the step of each weight, >= 0, broadcasts over it.
        axes: those within a group.

    Example:

    >>> group_soft_threshold([[3.0, 0.1], [0.0, 0.2]], 1.0, (0,)).numpy().round(3).tolist()
    [[2.0, 0.0], [0.0, 0.0]]
    """
    weight = ops.convert_to_tensor(weight)
    norm = _sqrt_of_squares(weight, axes)
    unit = weight / ops.maximum(norm, SMALLEST)
    threshold = ops.broadcast_to(threshold / ops.maximum(norm, SMALLEST), ops.shape(weight))
    # 0 / 0, of weights that are zero under no threshold, counts as 0
    is_zero = _sqrt_of_squares(unit / ops.maximum(threshold, SMALLEST), axes) <= 1
    root = ops.maximum(1 - ops.max(threshold, axis=axes, keepdims=True), 0)
    for _ in range(_NEWTON_STEPS):
        divisor = ops.maximum(root + threshold, SMALLEST)
        squares = ops.square(unit / divisor)
        total = ops.sum(squares, axis=axes, keepdims=True)
        slope = ops.sum(squares / divisor, axis=axes, keepdims=True)
        step = (ops.sqrt(total) - 1) * total / ops.maximum(slope, SMALLEST)
        root = ops.clip(root + step, 0, 1)
    scaled = weight * (root / ops.maximum(root + threshold, SMALLEST))
    return ops.where(is_zero, ops.zeros_like(weight), scaled)


def _sqrt_of_squares(tensor: Any, axes: tuple[int, ...]) -> Any:
    return ops.sqrt(ops.sum(ops.square(tensor), axis=axes, keepdims=True))


# ---- step sizes ----------------------------------------------------------------------------
#
# As the update of a subclass would, these read what Keras's optimizers keep for each weight, whose
# names begin with an underscore. A number that Keras renames fails here at once, in every test.


@dataclasses.dataclass(frozen=True)
class _Step:
    """How large the step of an optimizer is for each weight, by which its gradient is multiplied.

    Args:
        size: of (optimizer, index of the weight, learning rate, gradient, what `before` read) the
            step size, after the update.
        before: of (optimizer, index, weight) what has to be read before the update.
        has_momentum: whether a gradient goes on to move the weight, at full size.
    """

    size: Callable[..., Any]
    before: Callable[..., list[Any]] = lambda optimizer, index, weight: []
    has_momentum: Callable[[Any], bool] = lambda optimizer: False


def _summed(optimizer: Any, index: int, rate: Any) -> Any:
    """Return the sum of the steps that a constant gradient has made under momentum by now."""
    steps = optimizer._momentum_steps[index]
    optimizer.assign(steps, steps * ops.cast(optimizer.momentum, rate.dtype) + rate)
    return ops.convert_to_tensor(steps)


def _sgd(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    if not optimizer.momentum:
        return rate
    summed = _summed(optimizer, index, rate)
    if optimizer.nesterov:
        return summed * ops.cast(optimizer.momentum, rate.dtype) + rate
    return summed


def _taken(optimizer: Any, dtype: Any) -> Any:
    """Return how many updates there are, this one too."""
    return ops.cast(optimizer.iterations + 1, dtype)


def _correction(optimizer: Any, rate: Any) -> Any:
    """Return `1 - beta_2 ** updates`, by which a second moment is too small."""
    beta_2 = ops.cast(optimizer.beta_2, rate.dtype)
    return 1 - ops.power(beta_2, _taken(optimizer, rate.dtype))


def _adam(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    velocities = optimizer._velocity_hats if optimizer.amsgrad else optimizer._velocities
    rate = rate * ops.sqrt(_correction(optimizer, rate))
    return rate / (ops.sqrt(velocities[index]) + optimizer.epsilon)


def _nadam(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    velocity = optimizer._velocities[index] / _correction(optimizer, rate)
    return rate / (ops.sqrt(velocity) + optimizer.epsilon)


def _lamb(optimizer: Any, index: int, rate: Any, gradient: Any, weight: Any) -> Any:
    scale = _nadam(optimizer, index, ops.ones_like(rate), gradient)
    momentum = optimizer._momentums[index] / (
        1 - ops.power(ops.cast(optimizer.beta_1, rate.dtype), _taken(optimizer, rate.dtype))
    )
    norm = ops.sqrt(ops.sum(ops.square(weight)))
    update_norm = ops.sqrt(ops.sum(ops.square(momentum * scale)))
    ratio = norm / ops.maximum(update_norm, SMALLEST)
    ratio = ops.where((norm > 0) & (update_norm > 0), ratio, ops.ones_like(ratio))
    return ratio * rate * scale


def _adamax(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    return rate / (optimizer._u[index] + optimizer.epsilon)


def _rmsprop(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    velocity = ops.convert_to_tensor(optimizer._velocities[index])
    if optimizer.centered:
        velocity = velocity - ops.square(optimizer._average_gradients[index])
    summed = _summed(optimizer, index, rate) if optimizer.momentum > 0 else rate
    return summed / ops.sqrt(velocity + optimizer.epsilon)


def _adagrad(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    return rate / ops.sqrt(optimizer._accumulators[index] + optimizer.epsilon)


def _adadelta(optimizer: Any, index: int, rate: Any, gradient: Any, delta: Any) -> Any:
    squares = optimizer._accumulated_grads[index] + optimizer.epsilon
    return rate * ops.sqrt((delta + optimizer.epsilon) / squares)


def _adafactor(optimizer: Any, index: int, rate: Any, gradient: Any, weight: Any) -> Any:
    scale = ops.maximum(ops.cast(optimizer.epsilon_2, rate.dtype), _root_mean_square(weight))
    rate = scale * ops.minimum(rate, 1 / ops.sqrt(_taken(optimizer, rate.dtype)))
    root = ops.sqrt(optimizer._v[index])
    clipped = _root_mean_square(gradient / root) / optimizer.clip_threshold
    return rate / (root * ops.maximum(ops.ones_like(clipped), clipped))


def _root_mean_square(tensor: Any) -> Any:
    return ops.sqrt(ops.mean(ops.square(tensor)))


def _ftrl(optimizer: Any, index: int, rate: Any, gradient: Any) -> Any:
    # it keeps the sum of all gradients, so that the penalty counts as often (McMahan 2011)
    accumulated = ops.power(optimizer._accumulators[index], -optimizer.learning_rate_power)
    quadratic = (accumulated + optimizer.beta) / rate + 2 * optimizer.l2_regularization_strength
    return _taken(optimizer, rate.dtype) / quadratic


def _lion(optimizer: Any, index: int, rate: Any, gradient: Any, momentum: Any) -> Any:
    beta_1 = ops.cast(optimizer.beta_1, rate.dtype)
    direction = momentum * beta_1 + gradient * (1 - beta_1)
    return rate / ops.maximum(ops.abs(direction), SMALLEST)


def _weight(optimizer: Any, index: int, weight: Any) -> list[Any]:
    return [weight]


_K = keras.optimizers
_STEPS: dict[type[keras.optimizers.Optimizer], _Step] = {
    _K.SGD: _Step(_sgd, has_momentum=lambda optimizer: optimizer.momentum != 0),
    _K.Adam: _Step(_adam),
    _K.AdamW: _Step(_adam),
    _K.Nadam: _Step(_nadam),
    _K.Adamax: _Step(_adamax),
    _K.RMSprop: _Step(_rmsprop, has_momentum=lambda optimizer: optimizer.momentum > 0),
    _K.Adagrad: _Step(_adagrad),
    _K.Adadelta: _Step(_adadelta, lambda o, index, weight: [o._accumulated_delta_vars[index]]),
    _K.Adafactor: _Step(_adafactor, _weight),
    _K.Ftrl: _Step(_ftrl),
    _K.Lamb: _Step(_lamb, _weight),
    _K.Lion: _Step(_lion, lambda o, index, weight: [o._momentums[index]]),
}
