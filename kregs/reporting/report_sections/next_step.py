"""What the chosen trial's training suffers from, what the audit found, and what to do next."""

from __future__ import annotations

import dataclasses

from kregs.inspection.diagnosis import Diagnosis
from kregs.reporting.advice import advice_of
from kregs.reporting.figures.diagnosed_curves import diagnosed_curves
from kregs.reporting.report_sections.facts import SearchFacts
from kregs.reporting.report_sections.parts import PageTable, Picture, picture_of, table_of_columns

_SHOWN = ("code", "severity", "layer", "what", "why", "fix")


@dataclasses.dataclass(frozen=True)
class NextStep:
    """The section; without a diagnosis `diagnosis` is `None` and `reason` says why.

    `others` are further verdicts with their confidences; `audited` is false where nothing is known.
    """

    trial: int
    diagnosis: Diagnosis | None
    reason: str
    others: str
    picture: Picture | None
    audited: bool
    counted: str
    findings: PageTable | None
    next_step: str


def next_step(facts: SearchFacts) -> NextStep:
    """Return the section."""
    advice = advice_of(facts.result)
    found = advice.diagnosis
    diagnosis = None if isinstance(found, str) else found
    findings = advice.findings
    table = None
    if findings is not None and len(findings):
        table = table_of_columns({name: findings[name].tolist() for name in _SHOWN})
    picture = None
    if diagnosis is not None:
        picture = picture_of(
            diagnosed_curves(diagnosis, with_words=False),
            f"Loss of trial {advice.trial} by epoch: {diagnosis.headline}",
        )
    return NextStep(
        trial=advice.trial,
        diagnosis=diagnosis,
        reason=found if isinstance(found, str) else "",
        others=""
        if diagnosis is None
        else ", ".join(f"{name} ({value:.0%})" for name, value in diagnosis.others.items()),
        picture=picture,
        audited=findings is not None,
        counted=advice.counted,
        findings=table,
        next_step=advice.next_step,
    )
