"""Hyperband whose brackets outlive failed trials, and whose sweep grows with `max_trials`."""

from __future__ import annotations

import math
from typing import Any

import keras_tuner

from kregs.search.keras_tuner_internals import (
    begin_bracket,
    bracket_count,
    close_brackets,
    open_brackets,
    random_values,
    round_epochs,
    round_size,
)


class HyperbandOracle(keras_tuner.oracles.HyperbandOracle):
    """keras-tuner's Hyperband, three things mended.

    A sweep consists of brackets, from the one that starts with the most and shortest trials to the
    one that trains a few at full length. Cutting it off would leave only short trials, so the
    largest brackets are left out instead until the rest fits `max_trials`. When that grows, in a
    search that is gone on with, they follow.

    In keras-tuner a bracket stops for good when so many of its trials fail that the next round
    cannot be filled, or when the space has not enough points for the first. Here the next round
    takes the best of what is there.

    Args:
        objective, max_epochs, factor, hyperband_iterations, seed, hyperparameters,
            allow_new_entries, tune_new_entries, max_retries_per_trial,
            max_consecutive_failed_trials: as in `keras_tuner.oracles.HyperbandOracle`.
        max_trials: upper bound of the number of trials; `None`: whole sweeps.

    Example:

    >>> HyperbandOracle("val_loss", max_epochs=9).size
    23
    >>> HyperbandOracle("val_loss", max_epochs=9, max_trials=20).size
    10

    Reference:
        Li et al., "Hyperband: a novel bandit-based approach to hyperparameter optimization", JMLR
        18, 2018.
    """

    def __init__(
        self,
        objective: Any = None,
        max_epochs: int = 100,
        factor: int = 3,
        hyperband_iterations: int = 1,
        *,
        max_trials: int | None = None,
        seed: int | None = None,
        hyperparameters: Any = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        super().__init__(
            objective,
            max_epochs=max_epochs,
            factor=factor,
            hyperband_iterations=hyperband_iterations,
            seed=seed,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self.max_trials = max_trials
        self._begun: list[int] = []  # the brackets, in the order in which they were begun
        close_brackets(self, open_brackets(self))

    @property
    def size(self) -> int | None:
        """The number of trials if none fails; `None` if there is no end."""
        sweep = sum(self._bracket_size(number) for number in self._sweep)
        size = sweep * self.hyperband_iterations
        if self.max_trials is not None:
            size = min(size, self.max_trials)
        return None if math.isinf(size) else int(size)

    @property
    def _sweep(self) -> range:
        """The brackets that `max_trials` allows, by number."""
        total, largest = 0, 0
        for number in range(bracket_count(self)):
            total += self._bracket_size(number)
            if self.max_trials is None or total <= self.max_trials:
                largest = number
        return range(largest + 1)

    def _bracket_size(self, number: int) -> int:
        return sum(round_size(self, number, place) for place in range(number + 1))

    # ---- proposals -------------------------------------------------------------------------

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial, or say that there is none (at the moment)."""
        close_brackets(self, [b for b in open_brackets(self) if self._is_complete(b)])
        for bracket in open_brackets(self):
            values = self._next_values(bracket, trial_id)
            if values is not None:
                return {"status": "RUNNING", "values": values}
        while (number := self._next_bracket()) is not None:
            self._begun.append(number)
            values = self._next_values(begin_bracket(self, number), trial_id)
            if values is not None:
                return {"status": "RUNNING", "values": values}
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED"}

    def _next_bracket(self) -> int | None:
        """The number of the bracket to begin: the largest of those begun least often."""
        sweep = self._sweep
        times = min(self._begun.count(number) for number in sweep)
        if times >= self.hyperband_iterations:
            return None
        return max(number for number in sweep if self._begun.count(number) == times)

    def _next_values(self, bracket: dict[str, Any], trial_id: str) -> dict[str, Any] | None:
        rounds = bracket["rounds"]
        if len(rounds[0]) < self.size_of_round(bracket, 0):
            values = random_values(self)
            if values is not None:
                rounds[0].append({"past_id": None, "id": trial_id})
                return {**values, **self._place(bracket, 0)}
            bracket["exhausted"] = True  # no further point in the space
        for place in range(1, len(rounds)):
            best = self._to_promote(bracket, place)
            if best is not None:
                rounds[place].append({"past_id": best.trial_id, "id": trial_id})
                place_values = {**self._place(bracket, place), "tuner/trial_id": best.trial_id}
                return {**best.hyperparameters.values, **place_values}
        return None

    @staticmethod
    def _of_round(bracket: dict[str, Any], place: int) -> list[str]:
        return [entry["id"] for entry in bracket["rounds"][place]]

    def size_of_round(self, bracket: dict[str, Any], place: int) -> int:
        """How many trials a round of a bracket has at most, by what is known of failures."""
        number = bracket["bracket_num"]
        if place == 0:
            there = len(bracket["rounds"][0])
            return there if bracket.get("exhausted") else round_size(self, number, 0)
        left = self.size_of_round(bracket, place - 1) - self._failed(bracket, place - 1)
        return min(round_size(self, number, place), left)

    def _failed(self, bracket: dict[str, Any], place: int) -> int:
        known = [self.trials.get(trial_id) for trial_id in self._of_round(bracket, place)]
        return sum(trial is not None and trial.status == "FAILED" for trial in known)

    def _to_promote(self, bracket: dict[str, Any], place: int) -> Any:
        """The best trial of the round before, if whatever is to come cannot throw it out."""
        size, earlier_size = (self.size_of_round(bracket, p) for p in (place, place - 1))
        if len(bracket["rounds"][place]) >= size:
            return None
        promoted = {entry["past_id"] for entry in bracket["rounds"][place]}
        candidates = [
            self.trials[trial_id]
            for trial_id in self._of_round(bracket, place - 1)
            if trial_id in self.trials
            and trial_id not in promoted
            and self.trials[trial_id].status == "COMPLETED"
        ]
        if not candidates or len(candidates) + self._failed(bracket, place - 1) <= (
            earlier_size - size
        ):
            return None
        sign = 1.0 if self.objective.direction == "min" else -1.0
        return min(candidates, key=lambda trial: sign * trial.score)

    def _place(self, bracket: dict[str, Any], place: int) -> dict[str, int]:
        number = bracket["bracket_num"]
        return {
            "tuner/epochs": round_epochs(self, number, place),
            "tuner/initial_epoch": round_epochs(self, number, place - 1) if place else 0,
            "tuner/bracket": number,
            "tuner/round": place,
        }

    def _is_complete(self, bracket: dict[str, Any]) -> bool:
        last = len(bracket["rounds"]) - 1
        return len(bracket["rounds"][last]) >= self.size_of_round(bracket, last)

    # ---- state -----------------------------------------------------------------------------

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"begun_brackets": self._begun}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._begun = list(state["begun_brackets"])
