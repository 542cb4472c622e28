"""Rules about penalties and bounds: on what they lie, how they are computed, how large they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kregs.builders.layer_kinds import KERNELS, norm_axis
from kregs.inspection.audit.findings import Hit, rule
from kregs.inspection.audit.model_view import SHIFTS, ModelView, coefficients, penalties_of
from kregs.inspection.audit.rules.dropout import is_output_part
from kregs.inspection.audit.rules.initializers import is_trained
from kregs.inspection.probing import HalfPrecisionPenalty, state_kept, whole_loss
from kregs.training.compilation import loss_object
from kregs.training.targets import compiled_loss

BOUNDS = (keras.constraints.MaxNorm, keras.constraints.MinMaxNorm, keras.constraints.UnitNorm)


def acts(penalty: Any) -> bool:
    """Whether a regularizer is more than a coefficient of 0.

    Example:

    >>> acts(keras.regularizers.L2(0.0)), acts(keras.regularizers.L2(0.1))
    (False, True)
    """
    numbers = coefficients(penalty)
    return penalty is not None and (numbers is None or any(numbers.values()))


@rule(
    "KR014",
    "Activity penalty on the output",
    severities=["warning"],
    source="Goodfellow et al. 2016, section 7.10 (a penalty on hidden representations)",
    fix="put it on hidden layers",
    repair="taken away",
)
def output_activity(view: ModelView) -> Iterator[Hit]:
    """It pulls the predictions themselves to 0, against the targets. Of a softmax the L1 is always
    1 and does nothing."""
    for site, call, graph in view.calls():
        penalty = getattr(site.layer, "activity_regularizer", None)
        if acts(penalty) and is_output_part(view, call, graph):
            yield Hit(
                severity="warning",
                layers=[site.name],
                what="an activity penalty lies on the model's output",
            )


@rule(
    "KR015",
    "Penalty in half precision",
    severities=["error"],
    source="Keras: a penalty has the dtype of the output or the weight; the loss is float32",
    fix="put keras.layers.ActivityRegularization(..., dtype='float32') behind the layer; "
    "keep weights in float32 by a policy such as mixed_float16",
    repair="such a layer in float32 takes the activity penalty's place",
)
def half_precision_penalty(view: ModelView) -> Iterator[Hit]:
    """Keras cannot add it to the loss of the data, so that `fit` fails. In float16 it overflows,
    too, where outputs are many."""
    for site in view.sites:
        layer = site.layer
        for name in penalties_of(layer):
            of_outputs = name == "activity"
            dtype = layer.compute_dtype if of_outputs else layer.variable_dtype
            if dtype in ("float16", "bfloat16") and (of_outputs or layer.trainable):
                yield Hit(
                    severity="error",
                    layers=[site.name],
                    what=f"its {name} penalty is summed in {dtype}",
                )


@rule(
    "KR016",
    "Penalty larger than the data loss at the start",
    severities=["warning"],
    source="Keras: `fit` minimizes data loss + sum(model.losses)",
    fix="a smaller coefficient; kregs.tune finds it",
)
def heavy_penalty(view: ModelView) -> Iterator[Hit]:
    """Training spends its first epochs on making weights small, whatever the data say, and often
    ends with a model that predicts the mean. Needs `x` and `y`, and a model not yet trained."""
    if view.training.x is None or view.training.y is None or is_trained(view.model):
        return
    fixed = [tensor.shape[0] for tensor in getattr(view.model, "inputs", None) or []]
    rows = len(keras.tree.flatten(view.training.x)[0])
    if any(size not in (None, rows) for size in fixed):
        return  # fewer rows than one batch
    loss = view.training.loss
    loss = compiled_loss(view.model) if loss is None else loss_object(loss)
    if isinstance(loss, keras.losses.CosineSimilarity):
        return  # from -1 to 1: it has no size to compare with
    with state_kept(view.model):
        losses = _losses(view)
    if losses is None:
        return
    penalty, data_loss = losses
    if data_loss > 0 and penalty > data_loss:
        yield Hit(
            severity="warning",
            layers=(),
            what=f"the penalties are {penalty:.3g}, the loss of the data is {data_loss:.3g}",
        )


def _losses(view: ModelView) -> tuple[float, float] | None:
    """Return the sum of the penalties and the loss of the data; `None`: there is none."""
    training, model = view.training, view.model
    prediction = model(training.x, training=False)
    penalty = float(sum(float(loss) for loss in model.losses))
    if training.loss is not None:
        loss = loss_object(training.loss)(training.y, prediction)
        return penalty, float(np.mean(keras.ops.convert_to_numpy(loss)))
    if getattr(model, "compiled", False) and penalty:
        try:
            total = whole_loss(model, training.x, training.y, prediction)
        except HalfPrecisionPenalty:  # KR015 says it
            return None
        return penalty, float(total) - penalty
    return None


@rule(
    "KR017",
    "Penalty that is 0",
    severities=["info"],
    source="Keras: the name 'l1l2' stands for L1L2(l1=0, l2=0)",
    fix="give a coefficient: keras.regularizers.L1L2(l1=1e-5, l2=1e-4)",
    repair="taken away",
)
def empty_penalty(view: ModelView) -> Iterator[Hit]:
    """A regularizer with all coefficients 0 does nothing, which is not what its line in the code
    seems to say."""
    for site in view.sites:
        for name, penalty in penalties_of(site.layer).items():
            if not acts(penalty):
                yield Hit(
                    severity="info",
                    layers=[site.name],
                    what=f"the {type(penalty).__name__} of its {name} has only coefficients of 0",
                )


@rule(
    "KR018",
    "Norm bounded along the wrong axes",
    severities=["warning"],
    source="Keras: MaxNorm's `axis` is 0 by default, a convolution needs [0, 1, 2]; "
    "Srivastava et al. 2014, section 5.1",
    fix="name the axes that lead into one filter: axis=[0, 1, 2] for Conv2D",
    repair="the axes that lead into one unit or filter",
)
def wrong_axes(view: ModelView) -> Iterator[Hit]:
    """Max-norm bounds all the weights that lead into one unit or filter. Along the first axis of a
    convolution it bounds columns of single pixels and channels, a far weaker restraint."""
    for site in view.sites:
        for name in KERNELS:
            bound = getattr(site.layer, f"{name}_constraint", None)
            right = norm_axis(type(site.layer), name)
            if not isinstance(bound, BOUNDS) or right is None:
                continue
            rank = site.layer.rank + 2 if isinstance(right, list) else 2  # of the kernel
            axes, wanted = ([axis % rank for axis in np.atleast_1d(a)] for a in (bound.axis, right))
            if sorted(axes) != sorted(wanted):
                yield Hit(
                    severity="warning",
                    layers=[site.name],
                    what=f"{type(bound).__name__} along the axes {_listed(axes)}, "
                    f"not {_listed(wanted)}",
                    fix=f"axis={right}",
                )


def _listed(axes: Any) -> str:
    return str([int(axis) for axis in axes])


@rule(
    "KR019",
    "Penalty on biases or on a normalization's parameters",
    severities=["info"],
    source="Goodfellow et al. 2016, section 7.1",
    fix="penalize kernels only",
)
def penalized_shift(view: ModelView) -> Iterator[Hit]:
    """A bias has little to overfit with and needs few data, but bound to 0 it makes the model
    underfit; a scale pulled to 0 turns a channel off."""
    for site in view.sites:
        for name, penalty in penalties_of(site.layer).items():
            if name in SHIFTS and acts(penalty) and site.layer.trainable:
                yield Hit(severity="info", layers=[site.name], what=f"a penalty on its {name}")
