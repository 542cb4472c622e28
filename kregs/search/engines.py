"""How many trials of a search were trained stacked, how many were not, and why: one line."""

from __future__ import annotations

import collections
from collections.abc import Iterable

_REASONS = 3  # named; of the others the number


def engine_words(trained: Iterable[tuple[str | None, str | None]]) -> str | None:
    """Return the line, or `None` if no trial was trained.

    Args:
        trained: of each trial, what trained it (`TrialRecord.engine`) and why it was not stacked.

    Example:

    >>> engine_words([("population", None)] * 3 + [("sequential", "a strategy is used")])
    '4 trials: 3 stacked, 1 not: a strategy is used'
    >>> engine_words([("population", None)])
    '1 trial: stacked'
    """
    engines = [(engine, reason) for engine, reason in trained if engine is not None]
    if not engines:
        return None
    reasons = collections.Counter(
        reason or "the reason is not known" for engine, reason in engines if engine != "population"
    )
    alone, count = sum(reasons.values()), len(engines)
    words = "1 trial" if count == 1 else f"{count} trials"
    if not alone:
        return f"{words}: {'all ' if count > 1 else ''}stacked"
    named = reasons.most_common(_REASONS)
    parts = [reason if len(reasons) == 1 else f"{reason} ({n})" for reason, n in named]
    if len(reasons) > len(named):
        parts.append(f"and {len(reasons) - len(named)} other reasons")
    return f"{words}: {count - alone} stacked, {alone} not: {'; '.join(parts)}"
