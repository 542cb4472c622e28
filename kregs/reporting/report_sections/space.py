"""What was searched: each hyperparameter's range, scale and condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import PageTable, table_of
from kregs.reporting.tables import format_value

_MOST_VALUES = 20  # of a choice


def space(facts: SearchFacts) -> PageTable | None:
    """Return a table with a row per hyperparameter; `None` if none was searched."""
    rows = [
        {
            "hyperparameter": hyperparameter["config"]["name"],
            "chosen": facts.chosen.get(hyperparameter["config"]["name"]),
            "of": _range(hyperparameter),
            "scale": _scale(hyperparameter),
            "only if": _conditions(hyperparameter),
        }
        for hyperparameter in facts.result.space
    ]
    if not any(row["only if"] for row in rows):
        for row in rows:
            del row["only if"]
    return table_of(rows)


def _range(hyperparameter: Mapping[str, Any]) -> str:
    config = hyperparameter["config"]
    kind = hyperparameter.get("class_name")
    if kind in ("Float", "Int"):
        words = f"{format_value(config['min_value'])} to {format_value(config['max_value'])}"
        return words + (f", step {format_value(config['step'])}" if config.get("step") else "")
    if kind == "Choice":
        values = [format_value(value) for value in config["values"]]
        left = len(values) - _MOST_VALUES
        return ", ".join(values[:_MOST_VALUES]) + (f" and {left} more" if left > 0 else "")
    if kind == "Boolean":
        return "yes, no"
    return f"always {format_value(config.get('value'))}"


def _scale(hyperparameter: Mapping[str, Any]) -> str:
    kind = hyperparameter.get("class_name")
    if kind not in ("Float", "Int"):
        return "choice" if kind in ("Choice", "Boolean") else "fixed"
    sampling = hyperparameter["config"].get("sampling")
    return {"log": "logarithmic", "reverse_log": "reversed logarithmic"}.get(sampling, "linear")


def _conditions(hyperparameter: Mapping[str, Any]) -> str:
    parts = []
    for condition in hyperparameter["config"].get("conditions") or []:
        parent = condition["config"]
        values = " or ".join(format_value(value) for value in parent["values"])
        parts.append(f"{parent['name']} = {values}")
    return " and ".join(parts)
