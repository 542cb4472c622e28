"""What a search's end says: a diagnosis, what the audit found, and the one step to take next."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from kregs.search.storage import CUT_SHORT

if TYPE_CHECKING:
    from kregs.inspection.diagnosis import Diagnosis
    from kregs.search.result import SearchResult

# what a step is about, and the hyperparameters that are about the same
_SEARCHED = {
    "λ": r"l1|l2|weight_decay",
    "dropout": r"dropout",
    "learning rate": r"learning_rate|lr",
    "units": r"units|filters|width|depth|layers|blocks",
}
_NEAR = 0.1  # of a range: a chosen value this near to its end asks for a wider range
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

    Faults of the model come before anything that the chosen trial's curves ask for; of that, what
    the search has tried and not pushed to a bound is left out.

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
        next_step = _without_diagnosis(result, trial)
    else:
        searched = _searched(result)
        open_steps = [
            step for step in diagnosis.next_steps if not any(word in step for word in searched)
        ]
        next_step = (open_steps or diagnosis.next_steps)[0]
        if searched and open_steps[:1] != [diagnosis.next_steps[0]]:
            next_step += f" ({', '.join(searched)}: searched already, and no bound was reached)"
    return Advice(trial=trial, diagnosis=diagnosis, findings=findings, next_step=next_step)


def _without_diagnosis(result: SearchResult, trial: int) -> str:
    """Return what to do where there is no diagnosis: it is lost, or says too little."""
    try:
        result.history(trial)
    except (ValueError, KeyError, OSError):
        return "bring the search's folder back from a copy: the trial's history cannot be read"
    trials = result.trials()
    if (trials.loc[trials["trial"] == trial, "status"] == CUT_SHORT).any():
        return "search with more time: the trial was cut short before its curves tell anything"
    return "search with more epochs: what was logged tells no course"


def _searched(result: SearchResult) -> list[str]:
    """Return what the search varied and chose within its range, not at an end."""
    chosen = result.best_hyperparameters
    places: dict[str, list[bool]] = {}
    for hyperparameter in result.space:
        config = hyperparameter["config"]
        if config.get("min_value") is None:  # a switch or a choice
            continue
        for word, names in _SEARCHED.items():
            if (
                re.search(rf"(^|[_/])({names})(_\d+)?$", config["name"])
                and config["name"] in chosen
            ):
                places.setdefault(word, []).append(_is_inside(config, chosen[config["name"]]))
    return [word for word, inside in places.items() if all(inside)]


def _is_inside(config: Mapping[str, Any], value: Any) -> bool:
    """Whether a chosen number is away from both ends of its range; 0 is off the log scale."""
    low, high = config["min_value"], config["max_value"]
    if not low < high or value == 0:
        return False
    if config.get("sampling") == "log":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return _NEAR < (value - low) / (high - low) < 1 - _NEAR
