"""What a person sees of a search: live progress, tables, figures, the HTML report.

Names are loaded on first use: progress and tables need neither matplotlib nor scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kregs.lazy import lazy_names

if TYPE_CHECKING:
    from kregs.reporting.figures import search_map
    from kregs.reporting.progress import SearchProgress
    from kregs.reporting.report import write_report
    from kregs.reporting.tables import format_duration, format_value, format_values, make_table

_HOMES = {
    "SearchProgress": "kregs.reporting.progress",
    "format_duration": "kregs.reporting.tables",
    "format_value": "kregs.reporting.tables",
    "format_values": "kregs.reporting.tables",
    "make_table": "kregs.reporting.tables",
    "search_map": "kregs.reporting.figures",
    "write_report": "kregs.reporting.report",
}

__all__ = [
    "SearchProgress",
    "format_duration",
    "format_value",
    "format_values",
    "make_table",
    "search_map",
    "write_report",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
