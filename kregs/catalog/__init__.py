"""Recipes and studies that ship as `kregs.recipes` and `kregs.tuning`: list, show, copy, run."""

from kregs.catalog.entries import Entry, copy, load, recipes, run, show, studies
from kregs.catalog.study_runs import (
    StudyRun,
    describe,
    record_study,
    result,
    result_line,
    run_study,
    spread,
)

__all__ = [
    "Entry",
    "StudyRun",
    "copy",
    "describe",
    "load",
    "recipes",
    "record_study",
    "result",
    "result_line",
    "run",
    "run_study",
    "show",
    "spread",
    "studies",
]
