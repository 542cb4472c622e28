"""What a person sees of a search: live progress, tables, plots. Takes plain tables and numbers."""

from __future__ import annotations

from kregs.reporting.plots import search_map
from kregs.reporting.progress import SearchProgress
from kregs.reporting.tables import format_duration, format_value, format_values, make_table

__all__ = [
    "SearchProgress",
    "format_duration",
    "format_value",
    "format_values",
    "make_table",
    "search_map",
]
