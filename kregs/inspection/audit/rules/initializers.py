"""Rules about initial weights: what does not fit the activation, what is drawn twice or not at all.

They hold while the weights are as they were drawn; those of trained layers are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kregs.builders.layer_copies import sublayers
from kregs.builders.model_graph import Call
from kregs.initializers import initializer_for
from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import ModelView, Site, fed_activation, source_of

L = keras.layers

# the sum of squares of the weights into a unit that keeps the signal's variance
_RELU_LIKE = ("relu", "relu6", "leaky_relu", "elu", "celu", "gelu", "silu", "swish", "mish")
_GAINS = {
    **dict.fromkeys(_RELU_LIKE, 2.0),
    # no sigmoid: one that gates is no link of a chain, and a chain of them is KR013's
    **dict.fromkeys(("selu", "tanh", "softsign"), 1.0),
}
_FITS = (0.75, 1.5)  # times the gain
_MOST_DRIFT = 16.0  # of the signal's variance, through layers that follow each other
_SAMPLE = 100_000  # weights that are looked at
_PLAIN = (L.Dense, L.Conv1D, L.Conv2D, L.Conv3D)


def _kernel(layer: Any) -> np.ndarray | None:
    """Return the kernel of a plain layer that is built, `None` otherwise."""
    if isinstance(layer, _PLAIN) and layer.built and layer.trainable:
        return keras.ops.convert_to_numpy(layer.kernel)
    return None


def _is_as_drawn(layer: Any, kernel: np.ndarray) -> bool:
    """Whether a kernel is what its initializer draws: not trained, loaded or set since."""
    initializer = layer.kernel_initializer
    if not isinstance(initializer, keras.initializers.Initializer):
        return False
    if isinstance(getattr(initializer, "seed", None), keras.random.SeedGenerator):
        return False  # it draws other numbers each time, and would be moved on
    drawn = initializer(kernel.shape, dtype=layer.kernel.dtype)
    return np.array_equal(kernel, keras.ops.convert_to_numpy(drawn))


def _drawn_square(initializer: Any, shape: tuple[int, ...]) -> float | None:
    """Return the mean square of the weights that an initializer draws; `None` if not known."""
    kinds = keras.initializers
    if isinstance(initializer, kinds.VarianceScaling):
        field = math.prod(shape[:-2])
        fan_in, fan_out = shape[-2] * field, shape[-1] * field
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        return initializer.scale / fans[initializer.mode]
    if isinstance(initializer, kinds.RandomNormal):
        return initializer.stddev**2 + initializer.mean**2
    if isinstance(initializer, kinds.TruncatedNormal):  # cut at two standard deviations
        return 0.774 * initializer.stddev**2 + initializer.mean**2
    if isinstance(initializer, kinds.RandomUniform):
        low, high = initializer.minval, initializer.maxval
        return (low**2 + low * high + high**2) / 3
    return None


def _is_meant_for(initializer: Any, activation: str) -> bool:
    """Whether an initializer is the one that its paper gives for an activation."""
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        return False
    if _GAINS[activation] == 2.0:
        return initializer.scale == 2.0  # He et al.: fan_in or fan_out
    return activation != "selu" and initializer.scale == 1.0  # Glorot, LeCun


def _differs(kernel: np.ndarray, initializer: Any) -> bool | None:
    """Whether the weights are larger or smaller than those drawn; `None` where not known."""
    sample = kernel.ravel()[:_SAMPLE].astype("float64")
    drawn = _drawn_square(initializer, kernel.shape)
    square = float(np.square(sample).mean())
    if not drawn or not square or sample.size < 32:
        return None
    # four standard errors of a mean square, at most
    return abs(square / drawn - 1) > max(0.05, 4 * math.sqrt(2 / sample.size))


def is_trained(model: keras.Model) -> bool:
    """Whether a model has made a step, or no kernel is as large as it was drawn.

    Example:

    >>> layer = L.Dense(8, "relu")
    >>> model = keras.Sequential([keras.Input((8,)), layer])
    >>> before = is_trained(model)
    >>> layer.set_weights([3 * weight for weight in layer.get_weights()])
    >>> before, is_trained(model)
    (False, True)
    """
    steps = getattr(getattr(model, "optimizer", None), "iterations", 0)
    if int(steps) > 0:
        return True
    layers = [layer for layer in sublayers(model) if isinstance(layer, _PLAIN)]
    kernels = [(_kernel(layer), layer) for layer in layers]
    answers = [_differs(k, layer.kernel_initializer) for k, layer in kernels if k is not None]
    known = [answer for answer in answers if answer is not None]
    return bool(known) and all(known)


def _gain_ratio(kernel: np.ndarray, initializer: Any, activation: str) -> float | None:
    """Return what one layer does to the signal's variance; `None` where that is not known."""
    if _differs(kernel, initializer) is not False:
        return None  # trained, or not known
    square = float(np.square(kernel.ravel()[:_SAMPLE].astype("float64")).mean())
    return square * math.prod(kernel.shape[:-1]) / _GAINS[activation]


@rule(
    "KR001",
    "Initializer that does not fit the activation",
    severities=["warning", "info"],
    source="He et al. 2015, section 2.2; Glorot and Bengio 2010; Klambauer et al. 2017",
    fix="take kregs.initializer_for(activation)",
    repair="the initializer that fits, weights drawn anew",
)
def unfit_initializer(view: ModelView) -> Iterator[Hit]:
    """Each layer multiplies the variance of the signal, and of its gradient, by a factor that is 1
    with the initializer made for the activation (He for the ReLU family, LeCun for SELU, Glorot for
    tanh). In a few layers that is harmless; in a deep stack the factors multiply and
    the signal vanishes or explodes before training begins. A normalization between kernel and
    activation takes the factor out."""
    tail = view.tail()
    ratios: dict[int, float] = {}
    chains: dict[int, list[tuple[str, Call, str, float]]] = {}
    roots: dict[int, int] = {}
    for site, call, graph in view.calls():
        kernel = _kernel(site.layer)
        fed = fed_activation(call, graph)
        if kernel is None or fed is None or call in tail or fed[1] or fed[0] not in _GAINS:
            continue
        ratio = _gain_ratio(kernel, site.layer.kernel_initializer, fed[0])
        if ratio is None:
            continue
        source = source_of(call)
        before = ratios.get(id(source), 1.0)
        roots[id(call)] = roots.get(id(source), id(call))
        ratios[id(call)] = before * ratio
        fits = _FITS[0] < ratio < _FITS[1] or _is_meant_for(site.layer.kernel_initializer, fed[0])
        if not fits:
            chain = chains.setdefault(roots[id(call)], [])
            chain.append((site.name, call, fed[0], ratios[id(call)]))
    for chain in chains.values():
        drift = max((ratio for *_, ratio in chain), key=lambda ratio: abs(math.log(ratio)))
        strong = not 1 / _MOST_DRIFT < drift < _MOST_DRIFT
        for name, call, activation, _ in chain:
            initializer = type(call.layer.kernel_initializer).__name__
            right = type(initializer_for(activation)).__name__
            yield Hit(
                severity="warning" if strong or activation == "selu" else "info",
                layers=[name],
                what=f"{initializer} feeds {activation}: the signal's variance is multiplied by "
                f"{drift:.1g} through {_count(len(chain))}",
                fix=f"kernel_initializer={right}()",
            )


def _count(layers: int) -> str:
    return f"{layers} layers" if layers > 1 else "1 layer"


@rule(
    "KR002",
    "Layers that start from the same weights",
    severities=["warning"],
    source="Keras: an initializer object draws the same numbers in each call, seeded or not; "
    "Goodfellow et al. 2016, section 8.4",
    fix="give each layer an initializer of its own, or its name: kernel_initializer='he_normal'",
    repair="an initializer of its own, weights drawn anew",
)
def same_weights(view: ModelView) -> Iterator[Hit]:
    """One initializer object (or one integer seed) gives layers of one shape the very same kernel.
    They begin as copies instead of independent draws, and what stands side by side learns the
    same."""
    alike: dict[tuple[tuple[int, ...], bytes], list[tuple[Site, np.ndarray]]] = {}
    for site in view.sites:
        kernel = _kernel(site.layer)
        if kernel is not None and kernel.size > 8 and np.ptp(kernel) > 0:
            key = (kernel.shape, kernel.ravel()[:64].tobytes())
            alike.setdefault(key, []).append((site, kernel))
    for group in alike.values():
        first = group[0][1]
        same = [site for site, kernel in group if np.array_equal(kernel, first)]
        if len(same) < 2:
            continue
        names = [site.name for site in same if _is_as_drawn(site.layer, first)]
        if len(names) > 1:
            yield Hit(
                severity="warning",
                layers=names,
                what=f"{len(names)} kernels of shape {first.shape} hold the same numbers",
            )


@rule(
    "KR003",
    "Hidden kernel that starts constant",
    severities=["error"],
    source="Goodfellow et al. 2016, section 8.4 (breaking the symmetry of units)",
    fix="take kregs.initializer_for(activation)",
    repair="the initializer that fits, weights drawn anew",
)
def constant_kernel(view: ModelView) -> Iterator[Hit]:
    """All units of the layer compute the same, get the same gradient and stay equal for ever: it
    has the capacity of one unit. With zeros nothing before it learns either."""
    tail = view.tail()
    for site, call, graph in view.calls():
        kernel = _kernel(site.layer)
        if kernel is None or call in tail or kernel.shape[-1] < 2 or np.ptp(kernel) > 0:
            continue
        if not _is_as_drawn(site.layer, kernel):
            continue
        # a branch that ends in a sum may start at zero on purpose (Goyal et al. 2017, section 5.1)
        if any(_kernel(follower.layer) is not None for follower, _ in graph.downstream(call)):
            initializer = type(site.layer.kernel_initializer).__name__
            yield Hit(
                severity="error",
                layers=[site.name],
                what=f"all weights of the kernel are {kernel.flat[0]:g} ({initializer})",
            )
