"""What a study's record says came out: in one line, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TUNED, CONTROL = "tuned", "unregularized"


def result_line(record: Mapping[str, Any]) -> str:
    """Return a record's outcome in one line, as the recipes' headers quote it.

    The metric that was searched comes first.

    Example:

    >>> scores = {"accuracy": {"mean": 0.97, "sd": 0.002, "values": [0.97, 0.972, 0.968]}}
    >>> result_line({"test": {"tuned": scores, "unregularized": scores}})
    'test accuracy 0.9700 ± 0.0020, unregularized 0.9700 ± 0.0020 (3 seeds)'
    """
    tuned, control = record["test"][TUNED], record["test"][CONTROL]
    parts = [
        f"{metric.replace('_', ' ')} {spread(scores)}, {CONTROL} {spread(control[metric])}"
        for metric, scores in tuned.items()
    ]
    seeds = len(next(iter(tuned.values()))["values"])
    return f"test {'; '.join(parts)} ({seeds} seed{'s' if seeds > 1 else ''})"


def spread(scores: Mapping[str, Any]) -> str:
    """Return `mean ± sd` of one metric of a record; the mean alone where there was one seed."""
    deviation = "" if scores["sd"] is None else f" ± {scores['sd']:.4f}"
    return f"{scores['mean']:.4f}{deviation}"


def comparison(record: Mapping[str, Any]) -> tuple[str, pd.DataFrame]:
    """Return the tuned and, if there is one, the unregularized network side by side, in words.

    Args:
        record: of a study. Without a test set its table has the searches' scores.

    Returns:
        A title, and a table with a row a setting or metric and a column a network.
    """
    import pandas as pd

    from kregs.reporting import format_value

    best, test = record["best_trials"], record["test"]
    rows = {
        name.replace("_", " "): [format_value(trial[name]) for trial in best.values()]
        for name in ("epochs", "learning_rate", *([] if test else [record["objective"]]))
    }
    for metric in next(iter(test.values()), {}):
        cells = [spread(scores[metric]) for scores in test.values()]
        rows[metric.replace("_", " ")] = cells
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(best))
    table = table.rename_axis("").reset_index()
    if not test:
        return "Validation", table
    count = len(record["test_seeds"])
    seeds = "1 seed" if count == 1 else f"{count} seeds"
    return f"Test set, {record['examples']['test']} examples: mean ± sd of {seeds}", table
