"""`audit`: a linter for regularization; finds faults of a Keras model and of how it is trained."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kregs.builders.layer_copies import new_layer
from kregs.inspection.audit.findings import SEVERITIES, Finding, check_codes
from kregs.inspection.audit.model_view import ModelView, Training
from kregs.inspection.audit.overview import LayerRestraint, layer_restraints
from kregs.inspection.audit.repair import Repair, repaired
from kregs.inspection.audit.rules import RULES
from kregs.inspection.probing import Batch, as_batch
from kregs.population.rows import is_dataset
from kregs.training.compilation import loss_object
from kregs.training.data_checks import check_data
from kregs.training.stock_optimizers import optimizer_classes
from kregs.training.targets import compiled_loss
from kregs.validation import check_choice, check_integer, check_seed, in_words

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 64  # on which the losses at the start are compared
_WIDTH = 100


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What an audit has found.

    Args:
        model: the name of the model.
        findings: the gravest first.
        layers: what restrains each layer.
        unseen: what could not be seen, in words.

    Example:

    >>> import keras, kregs
    >>> layers = [keras.layers.Dense(3, "softmax"), keras.layers.Dropout(0.5)]
    >>> result = kregs.audit(keras.Sequential([keras.Input((4,)), *layers]))
    >>> result.passed, [finding.code for finding in result.findings]
    (False, ['KR007'])
    """

    model: str
    findings: tuple[Finding, ...]
    layers: tuple[LayerRestraint, ...]
    unseen: tuple[str, ...]
    _view: ModelView
    _ignored: frozenset[str]

    @property
    def passed(self) -> bool:
        """Whether nothing graver than `"info"` was found."""
        return all(finding.severity == "info" for finding in self.findings)

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each severity."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    def to_frame(self) -> pd.DataFrame:
        """Return the findings as a DataFrame, one a row."""
        import pandas as pd

        columns = ["code", "severity", "layer", "what", "why", "source", "fix"]
        rows = [[getattr(finding, name) for name in columns] for finding in self.findings]
        return pd.DataFrame(rows, columns=columns)

    def overview(self) -> pd.DataFrame:
        """Return what is penalized, decayed, dropped, normalized and bounded, one layer a row.

        Example:

        >>> import kregs
        >>> r = kregs.Regularization(l2=0.01, dropout=0.5)
        >>> audit = kregs.audit(kregs.mlp((4,), 3, units=(8,), regularization=r))
        >>> audit.overview()[["layer", "penalized"]].values.tolist()
        [['dense_1', 'kernel l2=0.01'], ['dropout_1', ''], ['head', 'kernel l2=0.01']]
        """
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(LayerRestraint)]
        return pd.DataFrame(map(dataclasses.astuple, self.layers), columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as a dictionary that JSON can hold."""
        return {
            "model": self.model,
            "passed": self.passed,
            "counts": self.counts(),
            "findings": [
                dataclasses.asdict(finding) | {"layers": list(finding.layers)}
                for finding in self.findings
            ],
            "layers": [dataclasses.asdict(row) for row in self.layers],
            "unseen": list(self.unseen),
        }

    def repair(self, *, seed: int | None = None) -> Repair:
        """Return a copy of the model in which is mended what can be mended safely.

        Its predictions are those of the model, except where initial weights are drawn anew. The
        model itself is not changed. What was ignored is left as it is.

        Args:
            seed: integer for weights and dropout layers that are made anew, or `None`.

        Returns:
            A `Repair`: its `model` (uncompiled), and the findings `done` and `left`.

        Raises:
            ValueError: the model is a subclassed one, whose code cannot be rebuilt.

        Example:

        >>> import keras, kregs
        >>> layers = [keras.layers.Dense(3, "softmax"), keras.layers.Dropout(0.5, name="last")]
        >>> print(kregs.audit(keras.Sequential([keras.Input((4,)), *layers], name="m")).repair())
        "m": 1 repaired, 0 left
        repaired KR007 error: last: Dropout acts on the model's output
        """
        checked = None if seed is None else check_seed("seed", seed)
        rules = [rule for rule in RULES if rule.code not in self._ignored]
        return repaired(self._view, self.findings, rules=rules, seed=checked)

    def __repr__(self) -> str:
        counted = ", ".join(f"{n} {severity}" for severity, n in self.counts().items())
        return f"<Audit of {self.model!r}: {counted}>"

    def __str__(self) -> str:
        counted = [
            f"{n} {severity}{'s' if n != 1 and severity != 'info' else ''}"
            for severity, n in self.counts().items()
            if n
        ]
        lines = [f'Audit of "{self.model}": {", ".join(counted) or "nothing found"}']
        for finding in self.findings:
            lines += ["", finding.headline()]
            for word, text in (
                ("why", f"{finding.why} ({finding.source})"),
                ("fix", finding.fix),
            ):
                lines += textwrap.wrap(
                    text,
                    _WIDTH,
                    initial_indent=f"    {word}: ",
                    subsequent_indent=" " * 9,
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        if self.unseen:
            lines.append("")
        for text in self.unseen:
            lines += textwrap.wrap(f"not seen: {text}", _WIDTH, subsequent_indent=" " * 10)
        return "\n".join(lines)


def audit(
    model: keras.Model,
    *,
    x: Any = None,
    y: Any = None,
    optimizer: Any = None,
    loss: Any = None,
    callbacks: Iterable[Any] | None = None,
    batch_size: int | None = None,
    ignore: Iterable[str] = (),
) -> Audit:
    """Return the faults in how a model is regularized, each with why, a source and the remedy.

    `docs/audit.md` lists the rules. Nothing is trained, and the model is not changed, except that a
    subclassed one that is not built yet is called on `x`.

    Args:
        model: any Keras model. Of a subclassed one the layers are seen, the order in which its
            code calls them is not.
        x, y: data to train on, as for `fit`: arrays, or lists or dictionaries of them. The
            penalties are compared with the loss of the first rows.
        optimizer: a Keras optimizer or its name; default: that which the model is compiled with.
        loss: a Keras loss, its name or a function, for one output; default: as compiled.
        callbacks: those that `fit` will be given.
        batch_size: that `fit` will be given; default: unknown, or that of the model's input.
        ignore: codes of rules to leave out, such as `("KR003",)`.

    Returns:
        An `Audit`; print it, or see its `findings`, `overview()`, `to_frame()`, `to_dict()`.

    Raises:
        TypeError: an argument has the wrong type, or data are no numbers.
        ValueError: a Sequential is not built and there is no `x`, `y` comes without `x`, data are
            not finite or do not fit the model and the loss, or a code or a name is unknown.

    Example:

    >>> import keras, kregs
    >>> model = kregs.compile_model(kregs.mlp((4,), 3, units=(8,)), "mse", optimizer="adamw")
    >>> kregs.audit(model)
    <Audit of 'mlp': 0 error, 0 warning, 0 info>
    >>> stopping = keras.callbacks.EarlyStopping(patience=3)
    >>> kregs.audit(model, callbacks=[stopping]).findings[0].headline()
    'KR025 warning: EarlyStopping with restore_best_weights=False'
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model. Received: model={in_words(model)}")
    ignored = check_codes("ignore", ignore, [rule.code for rule in RULES])
    if y is not None and x is None:
        raise ValueError("`y` must come with `x`. Received: y without x")
    loss = None if loss is None else loss_object(loss)
    fixed = _fixed_batch(model)
    batch = check_integer("batch_size", batch_size, minimum=1) if batch_size is not None else fixed
    rows = first = None
    if x is not None:
        rows = _rows(x, y, model if fixed is None else None, loss)
        first = rows.take(slice(fixed or _ROWS))
        if fixed == len(first):  # such a model takes so many rows alone
            check_data(first.x, first.y, model=model, loss=loss)
    training = Training(
        optimizer=_optimizer(model if optimizer is None else optimizer),
        loss=loss,
        callbacks=_callbacks(callbacks),
        batch_size=batch,
        rows=None if rows is None else len(rows),
        x=None if first is None else first.x,
        y=None if first is None else first.y,
    )
    audited = model
    if isinstance(model, keras.Sequential) and not model.built:
        if x is None:
            raise ValueError(
                "`model` must be built, so that its shapes are known: put a keras.Input first, "
                "call it on data, or pass `x`. Received: a Sequential that is not built"
            )
        audited = new_layer(model)
        audited.build((None, *keras.tree.flatten(training.x)[0].shape[1:]))
        if loss is None:
            training = dataclasses.replace(training, loss=compiled_loss(model))
    elif not model.built and x is not None:
        model(training.x)
    view = ModelView(audited, training)
    findings = [
        finding for rule in RULES if rule.code not in ignored for finding in rule.findings(view)
    ]
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Audit(
        model=model.name,
        findings=tuple(findings),
        layers=tuple(layer_restraints(view)),
        unseen=(*view.unseen, *_unknown(audited, training)),
        _view=view,
        _ignored=ignored,
    )


def _unknown(model: keras.Model, training: Training) -> Iterable[str]:
    if not model.built:
        yield "the model is not built: its shapes and weights were not seen"
    if training.optimizer is None:
        yield "no optimizer: the model has none, and none was given (KR020 to KR022 need one)"


def _optimizer(given: Any) -> Any:
    if isinstance(given, keras.Model):
        return getattr(given, "optimizer", None)
    if isinstance(given, str):
        check_choice("optimizer", given.lower(), optimizer_classes())
        return keras.optimizers.get(given)
    if not isinstance(given, keras.optimizers.Optimizer):
        raise TypeError(
            "`optimizer` must be a keras.optimizers.Optimizer or its name. "
            f"Received: optimizer={in_words(given)}"
        )
    return given


def _callbacks(callbacks: Any) -> tuple[Any, ...]:
    if callbacks is None:
        return ()
    if isinstance(callbacks, keras.callbacks.Callback):
        callbacks = [callbacks]
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    if isinstance(callbacks, (str, bytes)) or not isinstance(callbacks, Iterable):
        raise TypeError(f"`callbacks` must be a list. Received: callbacks={in_words(callbacks)}")
    checked = tuple(callbacks)
    for callback in checked:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must hold keras.callbacks.Callback objects. "
                f"Received: {in_words(callback)}"
            )
    return checked


def _fixed_batch(model: keras.Model) -> int | None:
    shapes = [tensor.shape for tensor in getattr(model, "inputs", None) or []]
    return next((shape[0] for shape in shapes if len(shape)), None)


def _rows(x: Any, y: Any, model: keras.Model | None, loss: Any) -> Batch:
    for name, data in (("x", x), ("y", y)):
        if is_dataset(data) or np.isscalar(data):
            raise TypeError(
                f"`{name}` must hold arrays with a row for each example. "
                f"Received: {name}={in_words(data)}"
            )
    return as_batch(x, y, None, model, loss=loss)
