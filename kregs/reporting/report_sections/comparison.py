"""What came after the search: networks side by side, as whoever ran the search measured them."""

from __future__ import annotations

import dataclasses

import pandas as pd

from kregs.reporting.report_sections.parts import PageTable, table_of_columns


@dataclasses.dataclass(frozen=True)
class Networks:
    """What a table holds, the table, and whether several networks in it had a search."""

    title: str
    table: PageTable
    several: bool


def comparison(
    outcome: tuple[str, pd.DataFrame] | None, *, one_search: bool = False
) -> Networks | None:
    """Return the section; `None` if nothing was measured.

    Args:
        outcome: a title and a table; its first column names what the others hold, one a network.
        one_search: whether one of them alone comes of a search.
    """
    if outcome is None:
        return None
    title, frame = outcome
    table = table_of_columns({str(name): frame[name].tolist() for name in frame})
    return Networks(title, table, several=frame.shape[1] > 2 and not one_search)
