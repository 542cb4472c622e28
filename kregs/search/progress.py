"""What a search tells of its course: the interface, and the silent one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Progress:
    """Is told of trials and epochs, and says nothing. `kregs.reporting.progress` shows them."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def trial_started(self, trial: str, values: Mapping[str, Any]) -> None:
        """Say that a trial begins, with its hyperparameters."""

    def epoch_ended(self, trial: str, epoch: int, epochs: int | None) -> None:
        """Say that a running trial has been trained for `epoch` of `epochs` epochs."""

    def trial_ended(self, trial: str, score: float | None, message: str | None = None) -> None:
        """Say that a trial ended: with a score, or failed for the reason in `message`."""

    def note(self, text: str) -> None:
        """Say something about the search as a whole."""
