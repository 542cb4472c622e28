"""How much each hyperparameter mattered."""

from __future__ import annotations

import dataclasses

from kregs.reporting.figures import importance_bars
from kregs.reporting.importance import WEAK_FIT, Importance
from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import PageTable, Picture, picture_of, table_of


@dataclasses.dataclass(frozen=True)
class ImportanceSection:
    """The section: `repeated` and `drawn` say which completed trials the forest was fitted to."""

    points: int
    repeated: bool
    drawn: bool
    r2: str
    is_weak: bool
    picture: Picture
    table: PageTable | None


def importance(facts: SearchFacts) -> ImportanceSection | str:
    """Return the section, or why nothing is known."""
    measured = facts.importance
    if not isinstance(measured, Importance):
        return measured
    table = measured.table
    rows = zip(*(table[name] for name in table), strict=True)
    return ImportanceSection(
        points=measured.points,
        repeated=measured.distinct < len(facts.ranked),
        drawn=measured.points < measured.distinct,
        r2=f"{measured.r2:.2f}",
        is_weak=measured.r2 < WEAK_FIT,
        picture=picture_of(
            importance_bars(table, r2=measured.r2),
            f"Importance of hyperparameters, the most important is {table['hyperparameter'][0]}",
        ),
        table=table_of(
            {"hyperparameter": name, "importance": f"{fall:.3f} ± {error:.3f}"}
            for name, fall, error in rows
        ),
    )
