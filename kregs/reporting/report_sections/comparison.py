"""What came after the search: networks side by side, as whoever ran the search measured them."""

from __future__ import annotations

import dataclasses

import pandas as pd

from kregs.reporting.report_sections.parts import PageTable, table_of_columns


@dataclasses.dataclass(frozen=True)
class Networks:
    """What a table holds, the table, and whether there are several networks in it."""

    title: str
    table: PageTable
    several: bool


def comparison(outcome: tuple[str, pd.DataFrame] | None) -> Networks | None:
    """Return the section; `None` if nothing was measured.

    Args:
        outcome: a title and a table; its first column names what the others hold, one a network.
    """
    if outcome is None:
        return None
    title, frame = outcome
    table = table_of_columns({str(name): frame[name].tolist() for name in frame})
    return Networks(title, table, several=frame.shape[1] > 2)
