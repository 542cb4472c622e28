"""What a person sees of a search: live progress, tables, figures, the HTML report.

Names are loaded on first use: progress and tables need neither matplotlib nor scikit-learn.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kregs.reporting.figures import search_map
    from kregs.reporting.progress import SearchProgress
    from kregs.reporting.report import write_report
    from kregs.reporting.tables import format_duration, format_value, format_values, make_table

_HOMES = {
    "SearchProgress": "progress",
    "format_duration": "tables",
    "format_value": "tables",
    "format_values": "tables",
    "make_table": "tables",
    "search_map": "figures",
    "write_report": "report",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
