"""`penalties`: what each layer's regularization adds to the loss; `PenaltyLogger` in training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd

from kregs.inspection.probing import (
    NamedLayer,
    ScalarWriter,
    as_batch,
    check_model,
    named_layers,
    state_kept,
    whole_loss,
)
from kregs.validation import check_integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("kernel", "bias", "weight", "activity", "added")


@dataclasses.dataclass(frozen=True)
class Penalty:
    """One term that is added to the loss.

    Args:
        layer: the layer's name, behind those of what it is within.
        kind: `kernel`, `bias`, `weight` (any other, such as embeddings), `activity` (of outputs)
            or `added` (what the layer itself handed to `add_loss`).
        weight: the penalized weight's name, `""` for the last two.
        regularizer: in words.
        value: what it adds to the loss.
        share: of the whole loss, in [0, 1]; `None` where the loss is not known.
    """

    layer: str
    kind: str
    weight: str
    regularizer: str
    value: float
    share: float | None = None


@dataclasses.dataclass(frozen=True)
class Penalties:
    """What is added to a model's loss. Made by `penalties`.

    Args:
        terms: the penalties, layer by layer; several calls of a shared layer are one term each.
        total: their sum: `sum(model.losses)` after the model was called on `x`.
        loss: the whole loss on `x` and `y`, penalties included; `None` where not known.
        unseen: layers whose activity penalty is not among the terms, since there is no `x`.
    """

    terms: tuple[Penalty, ...]
    total: float
    loss: float | None = None
    unseen: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        """The share of all penalties in the loss."""
        return None if self.loss is None else _share(self.total, self.loss)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a term: `layer`, `kind`, `weight`, `regularizer`, `value`, `share`."""
        names = [field.name for field in dataclasses.fields(Penalty)]
        return pd.DataFrame([[getattr(t, name) for name in names] for t in self.terms], None, names)

    def by_layer(self) -> pd.DataFrame:
        """Return one row a layer, with a column for each kind of penalty, and `total`."""
        table = self.to_frame().pivot_table("value", "layer", "kind", "sum", 0.0, sort=False)
        table = table.reindex(columns=list(KINDS), fill_value=0.0).astype(float)
        return table.assign(total=table.sum(axis=1)).rename_axis(columns=None)

    def by_kind(self) -> dict[tuple[str, str], float]:
        """Return the sum of each layer's penalties of each kind, those that there are."""
        sums: dict[tuple[str, str], float] = {}
        for term in self.terms:
            key = term.layer, term.kind
            sums[key] = sums.get(key, 0.0) + term.value
        return sums

    def plot(self) -> Figure:
        """Return bars: each layer's penalty by kind, beside the loss of the data if known."""
        from kregs.reporting.figures.penalty_bars import penalty_bars

        return penalty_bars(self.by_layer(), loss=self.loss, total=self.total)

    def __str__(self) -> str:
        lines = [self._headline()]
        if self.terms:
            columns = ["layer", "kind", "weight", "regularizer", "value"]
            frame = self.to_frame().assign(value=lambda f: f["value"].map("{:.4g}".format))
            if self.loss is not None:
                columns.append("share")
                frame["share"] = frame["share"].map("{:.1%}".format)
            lines.append(frame[columns].to_string(index=False))
        if self.unseen:
            lines.append(f"activity penalties need `x`: {', '.join(self.unseen)}")
        return "\n".join(lines)

    def _headline(self) -> str:
        if not self.terms:
            return "no penalty" + ("" if self.unseen else ": nothing is added to the loss")
        if self.loss is None:
            return f"penalties: {self.total:.4g}"
        return f"penalties: {self.total:.4g} of a loss of {self.loss:.4g} ({self.share:.1%})"


def penalties(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    sample_weight: Any = None,
    batch_size: int = 1024,
) -> Penalties:
    """Return what each layer's regularization adds to the loss, and its share of the loss.

    Listed are penalties on kernels, biases, other weights and activities, and what layers of one's
    own hand to `add_loss`. As in Keras, frozen weights are not penalized, a shared weight once, and
    the activity of a shared layer once a call. The model is called in inference mode, and its state
    stays.

    Args:
        model: any built Keras model, also a subclassed one.
        x: rows, as `model.fit` takes them, or a dataset, whose first batch is used. Without them
            no layer's activity penalty and nothing that `call` adds is seen.
        y: targets. With them, and a compiled model, the shares of the loss are known.
        sample_weight: `(rows,)`, for the loss.
        batch_size: rows at a time. Activity penalties are means over batches, as in `evaluate`.

    Returns:
        A `Penalties`: `.total`, `.terms`, `.to_frame()`, `.by_layer()`, `.plot()`.

    Raises:
        TypeError, ValueError: the model is not built, `y` comes without `x` or to a model that is
            not compiled, or data do not fit the model.

    Example:

    >>> import keras, kregs, numpy as np
    >>> layer = keras.layers.Dense(
    ...     1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.5), name="a")
    >>> model = keras.Sequential([keras.Input((3,)), layer])
    >>> model.compile("sgd", "mse")
    >>> found = kregs.penalties(model, np.zeros((4, 3)), np.full((4, 1), 2.0))
    >>> found.total, found.loss, round(found.share, 3)
    (1.5, 5.5, 0.273)
    >>> print(kregs.penalties(model))
    penalties: 1.5
    layer   kind weight regularizer value
        a kernel kernel     L2(0.5)   1.5

    References:
        Goodfellow, Bengio, Courville, "Deep Learning", 2016, section 7.1.
    """
    check_model(model, compiled=False)
    check_integer("batch_size", batch_size, minimum=1)
    if x is None:
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(f"`x` must be given with `{name}`. Received: x=None")
        return weight_penalties(model, named_layers(model))
    batch = as_batch(x, y, sample_weight, model)
    layers = named_layers(model)
    if y is not None:
        check_model(model, compiled=True)
    with_loss = batch.y is not None and model.compiled
    sums: list[np.floating] = []
    terms: list[Penalty] = []
    loss = 0.0
    with state_kept(model), _activity_terms(layers) as activity_ids:
        for first in range(0, len(batch), batch_size):
            part = batch.take(slice(first, first + batch_size))
            prediction = model(part.x, training=False)
            part_terms, values = _terms(model, layers, activity_ids)
            if terms and len(terms) != len(part_terms):
                raise ValueError(
                    "`model` must add as many losses in each call. "
                    f"Received: {len(terms)} and {len(part_terms)}"
                )
            terms, weight = part_terms, len(part) / len(batch)
            # of one batch, the numbers are Keras's to the last bit
            values = values if weight == 1.0 else [v * np.float64(weight) for v in values]
            sums = values if not sums else [a + b for a, b in zip(sums, values, strict=True)]
            if with_loss:
                loss += weight * float(
                    whole_loss(model, part.x, part.y, prediction, part.sample_weight)
                )
            activity_ids.clear()
    whole = loss if with_loss else None
    return _penalties(terms, sums, whole)


def weight_penalties(model: keras.Model, layers: Sequence[NamedLayer]) -> Penalties:
    """Return the penalties on weights alone, which need no rows."""
    penalized = [v for v in model.trainable_variables if v.regularizer is not None]
    owners = _owners(layers)
    terms = [_weight_term(variable, owners) for variable in penalized]
    values = [_number(variable.regularizer(variable)) for variable in penalized]
    result = _penalties(terms, values, None)
    unseen = tuple(
        each.name for each in layers if getattr(each.layer, "activity_regularizer", None)
    )
    return dataclasses.replace(result, unseen=unseen)


def _penalties(terms: Sequence[Penalty], values: Sequence[Any], loss: float | None) -> Penalties:
    rows = [
        dataclasses.replace(
            term, value=float(value), share=None if loss is None else _share(float(value), loss)
        )
        for term, value in zip(terms, values, strict=True)
    ]
    return Penalties(tuple(rows), float(sum(values)), loss)


def _share(value: float, loss: float) -> float:
    return value / loss if loss else math.nan


def _terms(
    model: keras.Model, layers: Sequence[NamedLayer], activity_ids: set[int]
) -> tuple[list[Penalty], list[Any]]:
    """Return the terms of `model.losses`, in its order, and their values."""
    losses = list(model.losses)
    penalized = [v for v in model.trainable_variables if v.regularizer is not None]
    added, weight_losses = _split(losses, len(penalized))
    owner_of = _owners_of_losses(model, layers)
    terms = []
    for loss in added:
        owner = owner_of.get(id(loss))
        is_activity = owner is not None and id(loss) in activity_ids
        regularizer = "add_loss"
        if owner is not None and is_activity:  # within the collecting, it is a wrapped one
            regularizer = in_short(inspect.unwrap(owner.layer.activity_regularizer))
        terms.append(
            Penalty(
                layer=model.name if owner is None else owner.name,
                kind="activity" if is_activity else "added",
                weight="",
                regularizer=regularizer,
                value=0.0,
            )
        )
    owners = _owners(layers)
    terms += [_weight_term(variable, owners) for variable in penalized[: len(weight_losses)]]
    return terms, [_number(loss) for loss in losses]


def _split(losses: list[Any], weights: int) -> tuple[list[Any], list[Any]]:
    """Cut `model.losses` into what was added in the call, and the penalties on weights."""
    cut = max(0, len(losses) - weights)
    return losses[:cut], losses[cut:]


def _owners(layers: Sequence[NamedLayer]) -> dict[int, NamedLayer]:
    return {id(variable): each for each in layers for variable in each.variables}


def _owners_of_losses(model: keras.Model, layers: Sequence[NamedLayer]) -> dict[int, NamedLayer]:
    """Return by its id in which layer each added loss came about: in the innermost that has it."""
    everything = [*layers, NamedLayer(model.name, model, ())]
    everything.sort(key=lambda each: each.name.count("/") - 100 * (each.layer is model))
    return {id(loss): each for each in everything for loss in each.layer.losses}


def _weight_term(variable: Any, owners: dict[int, NamedLayer]) -> Penalty:
    owner = owners.get(id(variable))
    name = variable.name
    kind = "bias" if name == "bias" else "kernel" if name.endswith("kernel") else "weight"
    return Penalty(
        layer=variable.path.rpartition("/")[0] if owner is None else owner.name,
        kind=kind,
        weight=name,
        regularizer=in_short(variable.regularizer),
        value=0.0,
    )


def in_short(regularizer: Any) -> str:
    """Return a regularizer in few characters.

    Example:

    >>> in_short(keras.regularizers.L2(0.25)), in_short(abs)
    ('L2(0.25)', 'abs')
    """
    if type(regularizer) in (keras.regularizers.L1, keras.regularizers.L2):
        (coefficient,) = regularizer.get_config().values()
        return f"{type(regularizer).__name__}({float(coefficient):.3g})"
    if type(regularizer) is keras.regularizers.L1L2:
        return f"L1L2({float(regularizer.l1):.3g}, {float(regularizer.l2):.3g})"
    return getattr(regularizer, "__name__", type(regularizer).__name__)


def _number(tensor: Any) -> Any:
    return keras.ops.convert_to_numpy(tensor)[()]


@contextlib.contextmanager
def _activity_terms(layers: Sequence[NamedLayer]) -> Iterator[set[int]]:
    """Collect the ids of the losses that layers' activity regularizers add while the block runs.

    Keras keeps them in one list with what the layers' own `call` adds.
    """
    ids: set[int] = set()
    # the losses live as long as the block, so that their ids tell them apart
    watched = [each.layer for each in layers if getattr(each.layer, "activity_regularizer", None)]
    regularizers = [layer.activity_regularizer for layer in watched]
    for layer, regularizer in zip(watched, regularizers, strict=True):
        vars(layer)["activity_regularizer"], vars(layer)["add_loss"] = _watch(
            regularizer, layer.add_loss, ids
        )
    try:
        yield ids
    finally:
        for layer, regularizer in zip(watched, regularizers, strict=True):
            vars(layer)["activity_regularizer"] = regularizer
            del vars(layer)["add_loss"]


def _watch(regularizer: Callable, add_loss: Callable, ids: set[int]) -> tuple[Callable, Callable]:
    """Return both, such that a loss that is added after the regularizer was asked is noted."""
    asked: list[bool] = []

    @functools.wraps(regularizer)
    def watched_regularizer(output: Any) -> Any:
        asked.append(True)
        return regularizer(output)

    def watched_add_loss(loss: Any) -> None:
        if asked:
            asked.pop()
            ids.add(id(loss))
        add_loss(loss)

    return watched_regularizer, watched_add_loss


class PenaltyLogger(keras.callbacks.Callback):
    """Writes each layer's penalties into the logs of each epoch of `fit`.

    The logs, and so the history and the callbacks that stand after it in the list (CSVLogger,
    TensorBoard), get `penalty`, the sum, `penalty_share`, its share of the epoch's `loss`, and
    `penalty/<layer>/<kind>` as `kregs.penalties` has them, at the end of the epoch.

    Args:
        x: rows on which activity penalties are computed: a few hundred are enough, since each epoch
            pays for them. Default: none, and the penalties on weights alone are logged.
        every: compute them each so many epochs; the last values stand in between.
        log_dir: also write them as scalars for TensorBoard into this folder.

    Raises:
        TypeError, ValueError: `every` is no integer >= 1, or `log_dir` no path; in `fit`: `x` does
            not fit the model.

    Example:

    >>> import keras, kregs, numpy as np
    >>> r = kregs.Regularization(l2=0.1)
    >>> model = kregs.mlp((2,), 1, units=(3,), regularization=r, head_activation=None)
    >>> model = kregs.compile_model(model, "mse")
    >>> logger = kregs.PenaltyLogger()
    >>> x = np.ones((8, 2))
    >>> history = model.fit(x, x[:, 0], epochs=2, callbacks=[logger], verbose=0).history
    >>> sorted(name for name in history if name.startswith("penalty"))
    ['penalty', 'penalty/dense_1/kernel', 'penalty/head/kernel', 'penalty_share']
    """

    def __init__(
        self,
        x: Any = None,
        *,
        every: int = 1,
        log_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self._x = x
        self._every = check_integer("every", every, minimum=1)
        self._writer = ScalarWriter(log_dir)
        self._last: dict[str, float] = {}
        self._layers: list[NamedLayer] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget an earlier training."""
        self._last, self._layers = {}, []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the penalties to the logs."""
        is_due = epoch % self._every == 0 or not self._last
        if is_due:
            if self._x is None:
                self._layers = self._layers or named_layers(self.model)
                current = weight_penalties(self.model, self._layers)
            else:
                current = penalties(self.model, self._x)
            parts = {f"penalty/{'/'.join(key)}": v for key, v in current.by_kind().items()}
            self._last = {"penalty": current.total, **parts}
        values = dict(self._last)
        if logs is not None:
            if "loss" in logs:
                values["penalty_share"] = _share(values["penalty"], float(logs["loss"]))
            logs.update(values)
        if is_due:
            self._writer.write(values, epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the log of TensorBoard."""
        self._writer.close()
