"""What a search's end says: a diagnosis, what the audit found, and the one step to take next."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from kregs.inspection.diagnosis import Diagnosis
    from kregs.search.result import SearchResult

_FAULTS = ("error", "warning")  # what is mended before anything is tuned


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Advice:
    """What a search's end says.

    Args:
        trial: the chosen one, which the diagnosis is of.
        diagnosis: of its training, or why there is none.
        findings: of the audit of `build`'s model; `None` if that was not audited.
        next_step: the one thing to do.
    """

    trial: int
    diagnosis: Diagnosis | str
    findings: pd.DataFrame | None
    next_step: str

    def lines(self) -> list[str]:
        """Return what a terminal shows."""
        words = str(self.diagnosis).splitlines()
        lines = [f"Diagnosis of trial {self.trial}: {words[0]}", *words[1:]]
        if self.findings is not None:
            lines.append(f"Audit of the model: {self.counted}")
            lines += [
                f"  {row.code} {row.severity}: {row.layer + ': ' if row.layer else ''}{row.what}"
                for row in self.findings.itertuples()
            ]
        return [*lines, f"Next step: {self.next_step}"]

    @property
    def counted(self) -> str:
        """How many findings of each severity there are, in words."""
        if self.findings is None or not len(self.findings):
            return "nothing found"
        counts = self.findings["severity"].value_counts(sort=False)
        return ", ".join(
            f"{count} {name}{'s' if count > 1 and name != 'info' else ''}"
            for name, count in counts.items()
        )


def advice_of(result: SearchResult) -> Advice:
    """Return what the end of a search says; what was recorded of it is all that is read.

    Faults of the model come before anything that the chosen trial's curves ask for.

    Raises:
        RuntimeError: no trial has completed.
    """
    trial = result.chosen_trial
    try:
        diagnosis: Diagnosis | str = result.diagnosis()
    except (ValueError, KeyError, OSError) as error:  # one epoch, no loss, a history that is lost
        diagnosis = f"none, since {error}"
    findings = result.findings()
    faults = None if findings is None else findings[findings["severity"].isin(_FAULTS)]
    if faults is not None and len(faults):
        first = faults.iloc[0]
        next_step = f"{first['fix']} ({first['code']})"
    elif isinstance(diagnosis, str):
        next_step = "search with more epochs: what was logged tells no course"
    else:
        next_step = diagnosis.next_steps[0]
    return Advice(trial=trial, diagnosis=diagnosis, findings=findings, next_step=next_step)
