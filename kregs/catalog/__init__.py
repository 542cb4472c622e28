"""Recipes and studies that ship as `kregs.recipes` and `kregs.tuning`: list, show, copy, run."""

from kregs.catalog.definitions import study_name
from kregs.catalog.entries import Entry, copy, load, recipes, run, show, studies
from kregs.catalog.outcome import comparison, result_line, spread
from kregs.catalog.records import (
    record_study,
    result,
    update_readme,
    update_recipe,
    update_sources,
    update_study,
)
from kregs.catalog.study_runs import StudyRun, describe, run_study

__all__ = [
    "Entry",
    "StudyRun",
    "comparison",
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
    "study_name",
    "update_readme",
    "update_recipe",
    "update_sources",
    "update_study",
]
