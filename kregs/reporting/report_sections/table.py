"""The table that a search learnt from: its target, its columns, and the scores on its test rows."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kregs.files import TABLE_FILE
from kregs.reporting.report_sections.parts import PageTable, table_of, table_of_columns
from kregs.reporting.table_scores import scores_table

_MOST_CLASSES = 10  # that are named


@dataclasses.dataclass(frozen=True)
class TableSection:
    """The section: `facts` are sentences, `warnings` what makes the test scores too good."""

    facts: tuple[str, ...]
    warnings: tuple[str, ...]
    scores: PageTable
    columns: PageTable | None
    used: int
    dropped: int
    predict: str
    call: str | None
    command: str | None


def read_table_record(folder: Path) -> dict[str, Any] | None:
    """Return what a run on a table has noted in its folder; `None` if it is no such run."""
    try:
        record = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "test" in record else None


def table(record: Mapping[str, Any] | None, folder: Path) -> TableSection | None:
    """Return the section; `None` if the search was not one on a table.

    Args:
        record: what is in `table.json`.
        folder: the run's.
    """
    if record is None:
        return None
    rows, classes = record["rows"], record["classes"]
    what = record["task"]
    if classes is not None:
        names = ", ".join(str(label) for label in classes[:_MOST_CLASSES])
        more = ", ..." if len(classes) > _MOST_CLASSES else ""
        what += f" of {len(classes)} classes: {names}{more}"
    facts = [
        f"The target is `{record['target']}`: {what}.",
        f"{rows['train']} rows were trained on, {rows['test']} were kept for the test: "
        f"{record.get('split', 'at random')}.",
        *(f"{note[:1].upper()}{note[1:]}." for note in record.get("notes", ())),
    ]
    losses = record.get("scaling_losses")
    if losses:
        listed = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        facts.append(
            f"Numbers are scaled by `{record['scaling']}`: a small network's loss on folds of the "
            f"training rows was {listed}."
        )
    elif "scaling" in record:
        facts.append(f"Numbers are scaled by `{record['scaling']}`.")
    if record.get("class_weight"):
        facts.append(
            "Every class was given the same weight: probabilities are those of equally frequent "
            "classes."
        )
    (_, *sentences), _ = scores_table(record)
    facts += [f"{sentence}." for sentence in sentences]
    scores = record["test"]
    metrics = list(next(iter(scores.values())))
    columns = record["columns"]
    dropped = sum(column["kind"] == "dropped" for column in columns)
    return TableSection(
        facts=tuple(facts),
        warnings=tuple(record.get("warnings", ())),
        scores=table_of_columns(
            {"model": list(scores)}
            | {
                metric.replace("_", " "): [values[metric] for values in scores.values()]
                for metric in metrics
            }
        ),
        columns=table_of(
            {
                "column": column["name"],
                "kind": column["kind"],
                "missing": column["missing"],
                "distinct": column["distinct"],
                "why": column["note"],
                "to change it": column.get("override", ""),
            }
            for column in columns
        ),
        used=len(columns) - dropped,
        dropped=dropped,
        predict=shlex.join(["kregs", "predict", str(folder), "ROWS.csv"]),
        call=record.get("call"),
        command=record.get("command"),
    )
