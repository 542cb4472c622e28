"""`Finding`: one fault that an audit has found; `Rule`: what looks for it, why, and the remedy."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from kregs.validation import suggestion

if TYPE_CHECKING:
    from kregs.inspection.audit.model_view import ModelView

SEVERITIES = ("error", "warning", "info")  # the gravest first
_MOST_NAMES = 3  # of layers that a line lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One fault of a model or of its training.

    Args:
        code: of the rule: `"KR001"`, ...
        severity: `"error"` (training cannot do what was meant), `"warning"` (it does something else
            than was meant, or does it badly) or `"info"` (worth knowing, often harmless).
        layers: the layers that have the fault, each behind the names of those it is within; empty
            for one of the training.
        what: what was found.
        why: what it does.
        source: the paper, or Keras's behaviour, that says so.
        fix: what to do.

    Example:

    >>> import keras, kregs
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="head")])
    >>> model.add(keras.layers.Dropout(0.5, name="last"))
    >>> print(kregs.audit(model).findings[0].headline())
    KR007 error: last: Dropout acts on the model's output
    """

    code: str
    severity: str
    layers: tuple[str, ...]
    what: str
    why: str
    source: str
    fix: str

    @property
    def layer(self) -> str:
        """The layers in one short text."""
        return ", ".join(self.layers[:_MOST_NAMES]) + (
            f" and {len(self.layers) - _MOST_NAMES} more" if len(self.layers) > _MOST_NAMES else ""
        )

    def headline(self) -> str:
        """Return code, severity, layers and what was found, in one line."""
        place = f"{self.layer}: " if self.layers else ""
        return f"{self.code} {self.severity}: {place}{self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hit:
    """What a rule's function yields: where the fault is, and how grave.

    Args:
        severity, layers, what: as in `Finding`.
        fix: instead of the rule's.
    """

    severity: str
    layers: Sequence[str]
    what: str
    fix: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """One fault to look for.

    Args:
        code: its code.
        title: the fault in a few words.
        severities: those that its findings may have, the gravest first.
        why, source, fix: as in `Finding`.
        repair: what `Audit.repair()` does about it; `""` if nothing is safe.
        check: a function of the model that yields a `Hit` for each place.
    """

    code: str
    title: str
    severities: tuple[str, ...]
    why: str
    source: str
    fix: str
    repair: str
    check: Callable[[ModelView], Iterable[Hit]]

    def findings(self, view: ModelView) -> Iterator[Finding]:
        """Yield what the rule finds in a model; equal faults of several layers are one."""
        merged: dict[tuple[str, str, str], list[str]] = {}
        for hit in self.check(view):
            layers = merged.setdefault((hit.severity, hit.what, hit.fix or self.fix), [])
            layers += [name for name in hit.layers if name not in layers]
        for (severity, what, fix), layers in merged.items():
            yield Finding(
                code=self.code,
                severity=severity,
                layers=tuple(layers),
                what=what,
                why=self.why,
                source=self.source,
                fix=fix,
            )


def rule(
    code: str,
    title: str,
    *,
    severities: Sequence[str],
    source: str,
    fix: str,
    repair: str = "",
) -> Callable[[Callable[[ModelView], Iterable[Hit]]], Rule]:
    """Return a decorator that makes a `Rule` of a function, whose docstring is the why.

    Example:

    >>> @rule("KR000", "No layers", severities=["info"], source="none", fix="add one")
    ... def no_layers(view):
    ...     '''There is nothing to train.'''
    ...     return []
    >>> no_layers.why
    'There is nothing to train.'
    """

    def make(check: Callable[[ModelView], Iterable[Hit]]) -> Rule:
        why = " ".join((inspect.getdoc(check) or "").split())
        return Rule(
            code=code,
            title=title,
            severities=tuple(severities),
            why=why,
            source=source,
            fix=fix,
            repair=repair,
            check=check,
        )

    return make


def check_codes(name: str, codes: object, known: Iterable[str]) -> frozenset[str]:
    """Return codes of rules as a set, or raise for what is none.

    Raises:
        TypeError: `codes` is no collection of strings.
        ValueError: a code is unknown; the message gives the nearest.

    Example:

    >>> sorted(check_codes("ignore", ["KR001"], ["KR001", "KR002"]))
    ['KR001']
    """
    known = list(known)
    if isinstance(codes, str) or not isinstance(codes, Iterable):
        raise TypeError(f"`{name}` must be codes such as ('KR001',). Received: {name}={codes!r}")
    for code in (checked := list(codes)):
        if code not in known:
            raise ValueError(
                f"`{name}` must hold codes of rules, {known[0]} to {known[-1]}. "
                f"Received: {code!r}.{suggestion(code, known)}"
            )
    return frozenset(checked)
