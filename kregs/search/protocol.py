"""How the trials of a search are judged: one frozen value, written with its result.

It knows what makes two searches incomparable (`differences`), its own description in sentences, and
the call of `kregs.tune` that repeats it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

SELECTIONS = ("best", "one_standard_error")
SCORE_AT = ("best_epoch", "last_epoch")
ORACLES = ("random", "random_from_defaults", "bayesian", "hyperband", "grid")
ENGINES = ("auto", "population", "sequential")
FUNCTION = "function of hp"  # in place of a number that is each trial's own


class Difference(NamedTuple):
    """A fact in which two searches differ, in words for an error message."""

    name: str
    before: Any
    now: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSummary:
    """Which rows train and which validate, told apart from other data by checksums.

    Args:
        validation: where the validation rows come from: `"stratified split"`, `"shuffled split"`,
            `"group split"`, `"given"`, or the scikit-learn splitter of the folds, as it prints
            itself.
        validation_split: the fraction of rows held out, if they were split once.
        folds: how many folds; `None` without.
        rows: how many rows are trained on; with folds all of them. `None` for a dataset.
        validation_rows: how many rows of a single split validate.
        preprocess: the scikit-learn transformer that is fitted on training rows, as it prints
            itself.
        held_out_share: validation rows over training rows of a fold, in the mean.
        checksum: CRC-32 of inputs, targets and weights.
        validation_checksum: the same of validation data that were given.
        folds_checksum: the same of the row numbers of the folds, or of the groups held out.
    """

    validation: str
    validation_split: float | None = None
    folds: int | None = None
    rows: int | None = None
    validation_rows: int | None = None
    preprocess: str | None = None
    held_out_share: float | None = None
    checksum: int | None = None
    validation_checksum: int | None = None
    folds_checksum: int | None = None

    def sentence(self) -> str:
        """Say which rows trials are judged on; empty if that is not known."""
        if self.folds:
            rows = f" of {self.rows} rows" if self.rows else ""
            return f"Cross-validation with {self.folds} folds{rows}: `{self.validation}`."
        if self.validation == "given":
            rows = f": {self.rows} rows to train on" if self.rows else ""
            held = (
                f", {self.validation_rows} to validate on" if rows and self.validation_rows else ""
            )
            return f"The validation data were given{rows}{held}."
        if self.rows is None or self.validation_rows is None:
            return ""
        return (
            f"{self.rows} rows to train on, {self.validation_rows} to validate on "
            f"({self.validation}), the same for all trials."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How trials are proposed, trained, scored and chosen.

    Args:
        objective: what is optimized, as it stands in the logs.
        direction: of the objective, `"min"` or `"max"`.
        data: which rows train and which validate.
        oracle: what proposes trials: one of `ORACLES`, or the class of an oracle object.
        max_trials: upper bound of their number; `None`: the oracle's own.
        epochs: the most epochs of a trial; `FUNCTION` where they are a function of `hp`.
        batch_size: rows a step, or `FUNCTION`; `None` for a dataset, which makes its own batches.
        scorer: the metric of scikit-learn that computes the objective; `None`: Keras logs it.
        seeds: models trained for each trial and fold.
        selection: which trial the search ends with, one of `SELECTIONS`.
        restraint: names of hyperparameters that say for `"one_standard_error"` how restrained a
            trial is, the most important first; `None`: the built models' numbers do.
        score_at: the epoch that a run is scored at, one of `SCORE_AT`.
        epoch_chosen_on: the rows on which the epoch is chosen that a run is scored at:
            `"the other folds"`, `"the other half"`, `"the same rows"`; `None` for the last epoch.
        callbacks: of every run, each in words.
        callbacks_given: whether the caller gave them; else they are the default.
        class_weight: weights by class in training, or `"balanced"`.
        engine: what trains the trials, one of `ENGINES`.
        seed: of the proposals, the split and the training.
        dtype_policy: Keras's, in which the models are built.

    Example:

    >>> protocol = Protocol(objective="val_loss", direction="min", epochs=5, data=DataSummary(
    ...     validation="shuffled split", validation_split=0.2, rows=80, validation_rows=20))
    >>> Protocol.from_json(protocol.to_json()) == protocol
    True
    >>> protocol.differences(dataclasses.replace(protocol, epochs=9, max_trials=40))
    [Difference(name='epochs', before=5, now=9)]
    """

    objective: str
    direction: str
    data: DataSummary
    oracle: str = "random"
    max_trials: int | None = None
    epochs: int | str = 30
    batch_size: int | str | None = 32
    seeds: int = 1
    selection: str = "best"
    restraint: tuple[str, ...] | None = None
    score_at: str = "best_epoch"
    epoch_chosen_on: str | None = None
    callbacks: tuple[str, ...] = ()
    callbacks_given: bool = False
    class_weight: Mapping[str, float] | str | None = None
    engine: str = "auto"
    seed: int = 0
    dtype_policy: str = "float32"
    scorer: str | None = None

    @property
    def folds(self) -> int:
        """How many folds; 0 without."""
        return self.data.folds or 0

    @property
    def runs(self) -> int:
        """How often each trial is trained: once for each fold and seed."""
        return self.seeds * (self.folds or 1)

    @property
    def sign(self) -> float:
        """What to multiply the objective by so that lower is better."""
        return 1.0 if self.direction == "min" else -1.0

    def to_json(self) -> dict[str, Any]:
        """Return dictionaries, lists, strings and numbers that hold all of it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Protocol:
        """Return the protocol that `to_json` made `values` of.

        Raises:
            TypeError: a field is missing or not known.
        """
        return cls(
            **{
                **values,
                "data": DataSummary(**values["data"]),
                "callbacks": tuple(values["callbacks"]),
                "restraint": None
                if values.get("restraint") is None
                else tuple(values["restraint"]),
            }
        )

    def differences(self, other: Protocol) -> list[Difference]:
        """Return in what the trials of another protocol could not be compared with these.

        `max_trials` may grow, and does not count.
        """
        return list(self._differences(other))

    def _differences(self, other: Protocol) -> Iterator[Difference]:
        before, now = self.to_json(), other.to_json()
        before, now = (dict(side, **side.pop("data")) for side in (before, now))
        for name, value in before.items():
            if name in ("max_trials", "callbacks_given") or now[name] == value:
                continue
            if name in ("folds_checksum", "held_out_share"):
                yield Difference("folds and groups", "those that it began with", "others")
            elif name == "checksum":
                yield Difference("data", "those that it began with", "others")
            else:
                yield Difference(name, value, now[name])

    def sentences(self) -> list[str]:
        """Describe how trials were judged; what is code stands between backquotes."""
        better = "lower" if self.direction == "min" else "higher"
        goal = f"Trials are judged by `{self.objective}`, {better} is better"
        if self.objective.endswith("data_loss"):
            goal += "; it is the loss without penalties, so that no λ looks good for being small"
        if self.scorer is not None:
            goal += f"; scikit-learn's metric `{self.scorer}` of the predictions on validation rows"
        sentences = [f"{goal}.", self.data.sentence()]
        if self.runs > 1:
            seeds = ""
            if self.seeds > 1:
                seeds = f", with {self.seeds} seeds{' a fold' if self.folds else ''}"
            sentences.append(
                f"Each trial is trained {self.runs} times{seeds}; its score is the mean."
            )
        training = f"Up to {self.epochs} epochs"
        if self.epochs == FUNCTION:
            training = "Epochs by hyperparameters"
        if self.batch_size == FUNCTION:
            training += ", rows a step by hyperparameters"
        elif self.batch_size:
            training += f", {self.batch_size} rows a step"
        if self.callbacks:
            training += "; callbacks: " + ", ".join(f"`{words}`" for words in self.callbacks)
        sentences.append(f"{training}. {self._epoch_sentence()}")
        most = f", at most {self.max_trials}" if self.max_trials else ""
        sentences.append(f"The oracle `{self.oracle}` proposed the trials{most}.")
        if self.data.preprocess:
            sentences.append(f"Preprocessing: `{self.data.preprocess}`, fitted on training rows.")
        return [sentence for sentence in sentences if sentence]

    def _epoch_sentence(self) -> str:
        if self.score_at == "last_epoch":
            return "A run is scored at its last epoch."
        return {
            "the other folds": "The epoch that a fold is scored at is chosen on the other folds.",
            "the other half": "The epoch that one half of the validation rows is scored at is "
            "chosen on the other.",
        }.get(self.epoch_chosen_on or "", "A trial is scored at its best epoch.")

    def call(self) -> str:
        """Return the call of `kregs.tune` that repeats the search, as Python source.

        What no file holds (functions, data, objects) stands in it under a name of its own.

        Example:

        >>> print(Protocol(objective="val_data_loss", direction="min", max_trials=8, epochs=5,
        ...     seed=3, data=DataSummary(validation="given")).call())
        import kregs
        <BLANKLINE>
        result = kregs.tune(
            build,  # your function
            x,
            y,
            validation_data=validation_data,  # yours
            oracle="random",
            max_trials=8,
            epochs=5,
            batch_size=32,
            seed=3,
        )
        """
        imports = ["import kregs"]
        if (
            self.objective != "val_data_loss" and self.scorer is None
        ):  # a name alone may not tell the direction
            imports.insert(0, "import keras_tuner")
        body = "".join(f"    {line}\n" for line in self._argument_lines())
        return "\n".join(imports) + f"\n\nresult = kregs.tune(\n{body})"

    def _argument_lines(self) -> Iterator[str]:
        yield from ("build,  # your function", "x,")
        if self.batch_size is not None:
            yield "y,"
        data = self.data
        if data.folds:
            yield f"folds={data.folds},  # {_one_line(data.validation)}"
            if "Group" in data.validation:
                yield "groups=groups,  # yours"
        elif data.validation == "given":
            yield "validation_data=validation_data,  # yours"
        elif data.validation_split is not None:
            yield f"validation_split={data.validation_split!r},"
            if data.validation == "group split":
                yield "groups=groups,  # yours"
        if data.preprocess:
            yield f"preprocess=preprocess,  # {_one_line(data.preprocess)}"
        if self.oracle in ORACLES:
            yield f'oracle="{self.oracle}",'
        else:
            yield f"oracle=oracle,  # yours: {_one_line(self.oracle)}"
        for name in ("max_trials", "epochs", "batch_size"):
            if getattr(self, name) == FUNCTION:
                yield f"{name}={name},  # yours: a function of hp"
            elif getattr(self, name) is not None:
                yield f"{name}={getattr(self, name)!r},"
        if self.scorer is not None:
            yield f"objective={_quoted(self.scorer)},"
        elif self.objective != "val_data_loss":
            pair = f"{_quoted(self.objective)}, {_quoted(self.direction)}"
            yield f"objective=keras_tuner.Objective({pair}),"
        if self.callbacks_given:
            words = _one_line(", ".join(self.callbacks))
            yield f"callbacks=callbacks,  # yours: {words}" if words else "callbacks=[],"
        for name in ("seeds", "selection", "score_at", "engine"):
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                yield f"{name}={_quoted(value) if isinstance(value, str) else value},"
        if self.restraint is not None:
            yield f"restraint=[{', '.join(map(_quoted, self.restraint))}],"
        if isinstance(self.class_weight, str):
            yield f"class_weight={_quoted(self.class_weight)},"
        elif self.class_weight:
            yield "class_weight=class_weight,  # yours"
        yield f"seed={self.seed!r},"


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Protocol)}


def _one_line(words: str) -> str:
    return " ".join(words.split())


def _quoted(words: str) -> str:
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'
