"""`SearchResult`: what a search found, read from its files.

Reading one loads neither TensorFlow nor matplotlib: models and figures are made when they are asked
for, by modules that are loaded then.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import numbers
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kregs.files import PREPROCESSING_FILE, DiskFull, atomic_path
from kregs.search.engines import engine_words
from kregs.search.judging.bias import bias_of_best
from kregs.search.judging.compare import Comparison, compare
from kregs.search.protocol import Protocol
from kregs.search.runs import align
from kregs.search.space import samplings
from kregs.search.storage import (
    CUT_SHORT,
    HISTORIES_FILE,
    MODEL_FILE,
    PLOT_FILE,
    RESULT_FILE,
    TRIALS_FILE,
    SearchRecord,
    TrialRecord,
    read_histories,
    read_preprocessing,
    read_record,
    trial_folder,
    write_histories,
    write_model,
    write_preprocessing,
    write_record,
    write_trials_table,
)
from kregs.validation import check_flag, check_path

if TYPE_CHECKING:
    import keras
    import keras_tuner
    from matplotlib.figure import Figure

    from kregs.inspection.diagnosis import Diagnosis
    from kregs.search.data import Data
    from kregs.search.fold_ensemble import FoldEnsemble

_FIGURE_FORMATS = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".eps", ".ps", ".tif", ".webp")
_FLOATS = ("score", "standard_error", "seconds")


class SearchResult:
    """The outcome of `kregs.tune`, also of one that was interrupted, or of a saved folder.

    Attributes:
        best_hyperparameters: the chosen trial's values by name; only those that were active. The
            chosen trial is the one with the best score, or that of the one-standard-error rule if
            the search was told to choose by it.
        best_score: the chosen trial's objective.
        best_epoch: the epochs after which it was reached, counted from 1.
        score_bias: by how much the best trial's score is too good, estimated from the folds.
        nested: the scores of the whole search on rows that it did not see, one row an outer fold;
            `None` unless `tune(nested=...)` was asked for.
        preprocess_: the fitted transformer that the rows of `best_model()` go through: that of
            `refit`, or what `load_result(path, preprocessing=True)` has read; else `None`.
        protocol: how trials were judged, a `kregs.search.protocol.Protocol`.
        objective, direction, seed: the protocol's.
        seconds: the time the search took, over all its parts.
        trained: how many trials were trained stacked, how many were not, and why, in one line;
            `None` if none was trained.
        best_trial, chosen_trial: the numbers of the trial with the best score, and of the one that
            the search ended with.
        space: the hyperparameters, as keras-tuner serializes them.
        samplings: on which scale each of them is sampled, `"linear"`, `"log"` or `None`.
        versions: of the packages that the search was begun with.
        path: the folder of its files, whose name is `name`.
        callbacks: the search's; `None` in a result that was loaded without them.
        data: the rows of the search and how folds divide them; `None` in a result that was loaded.
    """

    def __init__(
        self,
        record: SearchRecord,
        path: str | os.PathLike[str],
        *,
        build: keras_tuner.HyperModel | None = None,
        preprocess: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> None:
        self.callbacks = callbacks
        self.record = record
        self.path = Path(path)
        self.build = build
        self.preprocess = preprocess
        self.preprocess_: Any = None
        self.data: Data | None = None
        self._index: dict[int, dict[str, Any]] = {}
        self._indexed: SearchRecord | None = None

    def __repr__(self) -> str:
        from kregs.reporting.tables import format_value, format_values

        trials = self.record.trials
        done = sum(trial["status"] == "completed" for trial in trials)
        words = f"{done} of {len(trials)} trials completed"
        cut = sum(trial["status"] == CUT_SHORT for trial in trials)
        if cut:
            words += f", {cut} cut short"
        if self.record.best is not None:
            words += (
                f", best {self.objective} {format_value(self.best_score)} "
                f"({format_values(self.best_hyperparameters)})"
            )
        return f"<SearchResult: {words}, in {str(self.path)!r}>"

    @property
    def protocol(self) -> Protocol:
        return self.record.protocol

    @property
    def objective(self) -> str:
        return self.protocol.objective

    @property
    def direction(self) -> str:
        return self.protocol.direction

    @property
    def seed(self) -> int:
        return self.protocol.seed

    @property
    def seconds(self) -> float:
        return self.record.seconds

    @property
    def trained(self) -> str | None:
        return engine_words((t.get("engine"), t.get("unstacked")) for t in self.record.trials)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def space(self) -> list[dict[str, Any]]:
        return self.record.space

    @property
    def samplings(self) -> dict[str, str | None]:
        return samplings(self.record.space)

    @property
    def versions(self) -> Mapping[str, str]:
        return self.record.versions

    @property
    def best_trial(self) -> int:
        self._chosen()
        return self.record.best["trial"]  # type: ignore[index]

    @property
    def chosen_trial(self) -> int:
        return self._chosen()["trial"]

    @property
    def best_hyperparameters(self) -> dict[str, Any]:
        return dict(self._chosen()["hyperparameters"])

    @property
    def best_score(self) -> float:
        return self._chosen()["score"]

    @property
    def best_epoch(self) -> int | None:
        return self._chosen()["best_epoch"]

    @property
    def nested(self) -> pd.DataFrame | None:
        scores = self.record.nested
        return None if scores is None else pd.DataFrame(scores)

    def _chosen(self) -> dict[str, Any]:
        if self.record.best is None:
            raise RuntimeError(f"no trial of the search in {str(self.path)!r} has completed")
        return self.record.chosen or self.record.best

    def hyperparameters(self, trial: int | None = None) -> keras_tuner.HyperParameters:
        """Return a trial's values (default: the best one's) as the `hp` that `build` takes.

        Args:
            trial: a number from `trials()`; default: the chosen one.

        Raises:
            ValueError: there is no such trial.
        """
        values = (
            self.best_hyperparameters if trial is None else self._trial(trial)["hyperparameters"]
        )
        import keras_tuner

        config = {"space": copy.deepcopy(self.record.space), "values": dict(values)}
        return keras_tuner.HyperParameters.from_config(config)

    def best_model(self) -> keras.Model:
        """Return the chosen trial's model with the weights of its best epoch, compiled.

        With `build` it is built anew and gets the trial's weights; without, in a result that was
        loaded from a folder, it is read from `best.keras`. After a search with folds it is the
        model in `best.keras`, which was trained on all rows.

        Raises:
            RuntimeError: no trial has completed.
            ValueError: the model's file is missing or is none.
        """
        import keras

        from kregs.search.checkpoints import load_checkpoint

        number = self.chosen_trial
        checkpoint_folder = self.trial_folder(number)
        if self.build is not None and checkpoint_folder is not None and not self.protocol.folds:
            model = self.build_model(number)
            try:
                load_checkpoint(model, checkpoint_folder)
            except OSError as error:
                raise ValueError(
                    f"the weights of trial {number} in {str(checkpoint_folder)!r} are missing or "
                    f"cannot be read ({error}): call refit(x, y), or delete that folder and search "
                    "on with resume=True, which trains the trial again"
                ) from error
            return model
        path = self.path / MODEL_FILE
        if self.protocol.folds and (
            not path.exists() or self.record.model_trial not in (None, number)
        ):
            raise ValueError(
                f"the search ended before its model was trained on all rows, that of trial {number}"
                ": call refit(x, y), or search on with resume=True"
            )
        if not path.exists():
            raise ValueError(
                f"{str(path)!r} does not exist: pass build= to kregs.load_result to build the "
                "model anew"
            )
        _check_model_file(path)
        import kregs.layers  # noqa: F401  (what the file may hold)

        return keras.models.load_model(path)

    def build_model(self, trial: int | None = None) -> keras.Model:
        """Return a trial's model, built anew, compiled and not trained.

        Args:
            trial: a number from `trials()`; default: the chosen one.

        Raises:
            ValueError: there is no such trial, the result was loaded without `build`, or `build`
                makes another model of the trial's hyperparameters than it was trained with.
        """
        from kregs.population.keras_internals import built_with_fresh_names
        from kregs.search.fingerprint import check_same_model, fingerprint

        if self.build is None:
            raise ValueError(
                "a model is built by the build function, which no file holds: pass it to "
                "kregs.load_result(path, build=build)"
            )
        number = self.chosen_trial if trial is None else self._trial(trial)["trial"]
        hp = self.hyperparameters(number)
        model = built_with_fresh_names(functools.partial(self.build.build, hp))
        folder = self.trial_folder(number)
        record = None if folder is None else TrialRecord.read(folder)
        if record is not None and record.model is not None:
            check_same_model(record.model, fingerprint(model), f"trial {number}")
        return model

    @property
    def hyperparameter_names(self) -> list[str]:
        """The names of all hyperparameters, as columns of `trials()`."""
        names = [hp["config"]["name"] for hp in self.record.space]
        # what only some trial's build asked for
        names += [name for trial in self.record.trials for name in trial["hyperparameters"]]
        return list(dict.fromkeys(names))

    def trials(self) -> pd.DataFrame:
        """Return one row per trial, best first, failed and interrupted ones last.

        Returns:
            Columns `trial` (the number in the names of the trials' directories), `score` (the
            mean objective over the runs, at epochs chosen on other rows: a little worse than the
            best in `history`), `standard_error` (of the score, if trials have several
            runs), `best_epoch` (counted from 1), `seconds`, `status`
            (`"completed"`, `"failed"`, `"interrupted"`, `"cut short"`), one per other metric (its
            mean over the runs, at the epoch that each is scored at), and one per hyperparameter.
            A trial that `max_time` has cut short is scored by the epochs that it had; it stands
            after the others if some of its folds or seeds had not begun. A conditional
            hyperparameter that was not active is NaN, except a coefficient that
            `Regularization.from_hp` switched off: 0. Hyperband trains a promising point in several
            trials, of more epochs each: it has several rows.
        """
        names = self.hyperparameter_names
        columns = ["trial", "score", "standard_error", "best_epoch", "seconds", "status"]
        if all(trial.get("standard_error") is None for trial in self.record.trials):
            columns.remove("standard_error")
        metrics = sorted({name for t in self.record.trials for name in t.get("metrics") or ()})
        # the objective is the score; a hyperparameter of the same name is what was searched
        metrics = [m for m in metrics if m not in (self.objective, *columns, *names)]
        rows = []
        for trial in self.record.trials:
            values = {name: self._value(trial["hyperparameters"], name) for name in names}
            logged = {name: (trial.get("metrics") or {}).get(name) for name in metrics}
            rows.append({key: trial.get(key) for key in columns} | logged | values)
        frame = pd.DataFrame(rows, columns=[*columns, *metrics, *names])
        floats = [name for name in columns if name in _FLOATS] + metrics
        frame = frame.astype({**dict.fromkeys(floats, float), "best_epoch": "Int64"})
        behind = [self.record.lacks_runs(trial) for trial in self.record.trials]
        order = frame.assign(score=frame["score"] * self.protocol.sign, behind=behind)
        order["behind"] &= order["score"].notna()
        order["behind"] = order["behind"].astype(int) + 2 * order["score"].isna()
        places = order.sort_values(["behind", "score", "trial"], na_position="last").index
        return frame.loc[places].reset_index(drop=True)

    @staticmethod
    def _value(values: Mapping[str, Any], name: str) -> Any:
        if name in values:
            return values[name]
        # from_hp's switch `use_l2` for `l2`, also behind a prefix
        for place in (i for i in range(len(name)) if i == 0 or name[i - 1] in "_/"):
            if values.get(f"{name[:place]}use_{name[place:]}") is False:
                return 0.0
        return float("nan")

    def failures(self) -> pd.DataFrame:
        """Return the trials that failed: columns `trial` and `message`, the reason in one line."""
        failed = [
            {"trial": t["trial"], "message": t["message"]}
            for t in self.record.trials
            if t["status"] == "failed"
        ]
        return pd.DataFrame(failed, columns=["trial", "message"])

    def history(self, trial: int) -> pd.DataFrame:
        """Return what a trial logged: one row per epoch.

        Args:
            trial: a number from `trials()`.

        Returns:
            Columns `epoch` (counted from 1), `fold` and `seed` if there are several, and one per
            metric, NaN where an epoch has not logged it.

        Raises:
            ValueError: there is no such trial.
        """
        entry = self._trial(trial)
        stored = self._stored_history(entry["trial"])
        frames = []
        runs = [(score["fold"], score["seed"]) for score in entry.get("scores") or []]
        if len(runs) != len(stored["histories"]):  # a trial that failed has no scores
            runs = [divmod(run, self.protocol.seeds) for run in range(len(stored["histories"]))]
        logged = stored.get("logged_epochs") or [{} for _ in runs]
        for (fold, seed), metrics, epochs in zip(runs, stored["histories"], logged, strict=True):
            frame = pd.DataFrame(align(metrics, epochs), dtype=float)
            frame.insert(
                0,
                "epoch",
                range(1 + stored["initial_epoch"], 1 + stored["initial_epoch"] + len(frame)),
            )
            if self.protocol.seeds > 1:
                frame.insert(1, "seed", seed)
            if self.protocol.folds:
                frame.insert(1, "fold", fold)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"epoch": []})

    def diagnosis(self, trial: int | None = None, *, baseline: float | None = None) -> Diagnosis:
        """Return what a trial's training suffers from, see `kregs.diagnose`.

        All its folds and seeds are diagnosed together, at its best epoch, whose weights were kept.

        Args:
            trial: a number from `trials()`; default: the chosen one.
            baseline: as in `kregs.diagnose`.

        Raises:
            ValueError: there is no such trial, or its history is lost or of one epoch.
            RuntimeError: no trial has completed.
        """
        from kregs.inspection.diagnosis import diagnose

        entry = self._trial(self.chosen_trial if trial is None else trial)
        history = self.history(entry["trial"])
        best = entry.get("best_epoch")
        if best is not None and self.protocol.score_at == "best_epoch" and len(history):
            # Hyperband counts the epochs of the trial that this one goes on from
            best = min(
                max(best - entry.get("initial_epoch", 0), 1), int(history["epoch"].nunique())
            )
        else:
            best = None
        return diagnose(history, baseline=baseline, best_epoch=best)

    def findings(self) -> pd.DataFrame | None:
        """Return what the audit of `build`'s model found, one row a finding, the gravest first.

        It was made before the search's first trial, of the model of the default hyperparameters.

        Returns:
            Columns `code`, `severity`, `layer`, `what`, `why`, `source`, `fix`, as of
            `kregs.audit`; no row if nothing was found, `None` if the model was not audited.
        """
        columns = ["code", "severity", "layer", "what", "why", "source", "fix"]
        found = self.record.findings
        return None if found is None else pd.DataFrame(found, columns=columns)

    def scores(self, trial: int) -> pd.DataFrame:
        """Return a trial's score in each of its runs: columns `fold`, `seed`, `score`, `epoch`.

        Args:
            trial: a number from `trials()`.

        Raises:
            ValueError: there is no such trial.
        """
        frame = pd.DataFrame(self._trial(trial).get("scores") or [])
        frame = frame.reindex(columns=["fold", "seed", "score", "epoch"])
        return frame.assign(epoch=frame["epoch"] + 1 + self._trial(trial).get("initial_epoch", 0))

    def compare(self, a: int, b: int) -> Comparison:
        """Say whether two trials differ by more than luck.

        They are compared over their common folds, pair by pair, with the variance corrected for the
        training rows that folds share. Without folds they are compared over seeds: the error is
        then that of training, and says nothing of how they would do on other rows.

        Args:
            a, b: numbers from `trials()`.

        Returns:
            The difference of the scores, its standard error, the p-value, and which is better. If
            one is the best trial of several or the chosen one, `chosen_out_of` says out of how many
            it was chosen by these very scores: the p-value is too small then.

        Raises:
            ValueError: there is no such trial, or there are fewer than 2 common runs.

        Reference:
            Nadeau, Bengio, "Inference for the generalization error", Machine Learning 52, 2003.
        """
        first, second = (self._trial(number).get("scores") or [] for number in (a, b))
        share = self.protocol.data.held_out_share
        completed = sum(trial["score"] is not None for trial in self.record.trials)
        # of two the better one is chosen whichever of them is asked about
        chosen = completed > 2 and not {a, b}.isdisjoint({self.best_trial, self.chosen_trial})
        return compare(
            first,
            second,
            direction=self.direction,
            held_out_share=share,
            chosen_out_of=completed if chosen else None,
        )

    @property
    def score_bias(self) -> float | None:
        """By how much the best trial's score is too good for being the best of many, >= 0.

        It is estimated from the scores of the folds: the mean over folds of how much worse the best
        trial does in a fold than the trial that is best in this fold alone. An honest estimate of
        what the best trial will do is its score plus this number (less it, for an objective that is
        to be large); `tune(nested=)` measures it instead. `None` without folds.

        Reference:
            Tibshirani, Tibshirani, "A bias correction for the minimum error rate in
            cross-validation", Annals of Applied Statistics 3, 2009.
        """
        completed = [trial for trial in self.record.trials if trial["score"] is not None]
        return bias_of_best(completed, direction=self.direction)

    def importance(self) -> pd.DataFrame:
        """Return how much each hyperparameter mattered, the most important first.

        A forest is fitted to the ranks of four fifths of the completed trials; on the last fifth
        each hyperparameter is shuffled in turn, and its importance is how far the forest's R²
        falls. It says nothing of values outside the ranges that were searched.

        Returns:
            Columns `hyperparameter`, `importance` and `standard_error` (over the five folds of
            trials). Its `attrs` hold `r2`, of predictions of trials that the forest has not seen
            (1 is perfect; below 0.3 the importances mean little), and `trials`, how many were used.

        Raises:
            ValueError: there is too little to learn from: fewer than 12 completed trials that
                differ, no hyperparameter that varied, or equal scores.

        References:
            Breiman, "Random Forests", Machine Learning 45, 2001; Geurts, Ernst, Wehenkel,
            "Extremely randomized trees", Machine Learning 63, 2006.
        """
        from kregs.reporting.importance import measure_importance

        trials = self.trials()
        samplings = {name: kind for name, kind in self.samplings.items() if name in trials}
        measured = measure_importance(trials, samplings, seed=self.seed % 2**32)
        table = measured.table.copy()
        table.attrs.update(r2=measured.r2, trials=measured.points)
        return table

    def restraints(self, trial: int) -> dict[str, Any] | None:
        """Return what restrained a trial's built model, recorded when it was built.

        Args:
            trial: a number from `trials()`.

        Returns:
            `numbers`: by kind (`l1`, `l2`, `dropout`, `noise`, `max_norm`, `weight_decay`,
            `label_smoothing`, ...) and place in the model; `weights`: how many kernel weights it
            has; `structure`: equal for trials whose places are the same. `None` if it is not known.

        Raises:
            ValueError: there is no such trial.
        """
        return copy.deepcopy(self._trial(trial).get("restraints"))

    def kernels(self, trial: int) -> pd.DataFrame:
        """Return how large a trial's kernels were in each of its runs, at its best epoch.

        Args:
            trial: a number from `trials()`.

        Returns:
            One row a run, in the order of `scores`: `norm`, the root of the sum of squares of all
            kernels, and `nonzero`, the share of their weights above 1e-4 in size.

        Raises:
            ValueError: there is no such trial.
        """
        runs = [kernels or {} for kernels in self._trial(trial).get("kernels") or []]
        return pd.DataFrame(runs, columns=["norm", "nonzero"], dtype=float)

    def _stored_history(self, number: int) -> dict[str, Any]:
        folder = self.trial_folder(number)
        if folder is not None:
            training = TrialRecord.read(folder) or TrialRecord()
            names = ("histories", "initial_epoch", "logged_epochs")
            return {name: getattr(training, name) for name in names}
        histories = read_histories(self.path)
        if str(number) not in histories:
            raise ValueError(
                f"the history of trial {number} is lost: neither its folder nor {HISTORIES_FILE} "
                "has it"
            )
        return histories[str(number)]

    def refit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | str | None = None,
        callbacks: Iterable[keras.callbacks.Callback] | None = None,
        seed: int | None = None,
        verbose: str | int = 0,
    ) -> keras.Model:
        """Train a fresh model of the best hyperparameters on all rows.

        With `preprocess` the transformer is fitted on all rows first, and kept as `preprocess_`.

        There are no validation rows left to stop by, so it is trained for as many epochs as were
        best in the search. With more rows these are more steps: the number of epochs is kept, not
        that of steps.

        The search's callbacks act as they did: schedules of the learning rate, averages of the
        weights, those of one's own. One that watches a validation metric (`ReduceLROnPlateau`)
        cannot: the learning rates that were recorded in the search take its place, in each epoch
        the median over the folds and seeds. Those that only stop, write or show are left out.

        Args:
            x, y, sample_weight: as in `keras.Model.fit`.
            class_weight: as in `kregs.tune`. Default: the search's, unless there is a
                `sample_weight`.
            epochs: default: `best_epoch`.
            batch_size: default: the search's.
            callbacks: in place of the search's, `[]` for none.
            seed: integer >= 0; default: the search's, which repeats the best trial's initial
                weights.
            verbose: as in `keras.Model.fit`.

        Returns:
            The trained model.

        Raises:
            TypeError, ValueError: an argument is wrong, or the result was loaded without `build`.
            RuntimeError: no trial has completed.
        """
        from kregs.search.refit import refit

        return refit(
            self,
            x,
            y,
            epochs=epochs,
            batch_size=batch_size,
            sample_weight=sample_weight,
            class_weight=class_weight,
            callbacks=callbacks,
            seed=seed,
            verbose=verbose,
        )

    def ensemble(
        self,
        k: int = 5,
        *,
        method: str = "mean",
        x: Any = None,
        y: Any = None,
    ) -> keras.Model:
        """Return the best trials' models as one model of stock Keras layers.

        Args:
            k: how many members. Only the trials whose weights are on disk (`tune(keep=...)`) can be
                members.
            method: `"mean"` of the predictions; `"vote"`, the share of the members that hold each
                class to be the likeliest; `"greedy"`: out of all kept trials `k` times the one that
                helps the mean most, with replacement.
            x, y: for `"greedy"`: rows that no member was trained on.

        Returns:
            A compiled model; `model.save("ensemble.keras")` writes one file, which loads without
            kregs.

        Raises:
            ValueError: fewer than `k` trials kept their weights, `method` is not known, or there
                are no rows to choose by.

        Reference:
            Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
        """
        from kregs.search.ensemble import ensemble_of

        return ensemble_of(self, k, method=method, x=x, y=y)

    def fold_ensemble(self, size: int = 8, *, trials: Sequence[int] | None = None) -> FoldEnsemble:
        """Combine the models of all folds: of the kept trials those that help each other most.

        Nothing is trained. `size` times, with replacement, the trial is taken that makes the mean
        of the out-of-fold predictions best, by the objective where scikit-learn computes it, else
        by the loss without penalties. A trial's part is the mean of the models of its folds.

        Args:
            size: how many choices.
            trials: numbers of those that may be chosen. Default: all that kept their weights.

        Returns:
            A `FoldEnsemble`: `predict(x)`, `model()` (one Keras model, of a search without
            `preprocess`), `counts` (how often each trial was chosen, as `refit_ensemble` takes it),
            `out_of_fold` and `score`.

        Raises:
            ValueError: the search had no folds or no `keep_folds=True`, or the result was loaded
                from its folder, which holds no rows: `kregs.tune(..., resume=True)` has them.

        Reference:
            Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
        """
        from kregs.search.fold_ensemble import choose_folds

        return choose_folds(self, size, trials=trials)

    def refit_ensemble(
        self,
        x: Any,
        y: Any,
        *,
        counts: int | Mapping[int, int] = 8,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | str | None = None,
        seed: int | None = None,
    ) -> keras.Model:
        """Train several models anew on all rows, as one population, and return their mean.

        As `refit`, several times with different seeds: each model begins from weights of its own
        if `build` does not fix the seeds of its initializers, and has an order of rows of its own.
        With `preprocess` the transformer is fitted once, and kept as `preprocess_`.

        Args:
            x, y: arrays, as in `refit`.
            counts: how many models of each trial, such as `fold_ensemble().counts`; one number:
                of the chosen trial.
            sample_weight, class_weight: as in `refit`.
            seed: integer >= 0; default: the search's.

        Returns:
            One compiled model of stock Keras layers around the members; its file needs no kregs if
            theirs do not. Members that diverged are left out, with a warning.

        Raises:
            TypeError, ValueError: an argument is wrong, or all members diverged.

        Reference:
            Lakshminarayanan, Pritzel, Blundell, "Simple and scalable predictive uncertainty
            estimation using deep ensembles", NeurIPS 2017.
        """
        from kregs.search.refit_ensemble import refit_ensemble

        return refit_ensemble(
            self,
            x,
            y,
            counts=counts,
            sample_weight=sample_weight,
            class_weight=class_weight,
            seed=seed,
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Return a map of the objective over λ and the dropout rate.

        If these were not both searched, over the two numbers that varied most; over one if there
        is one only.

        Args:
            path: also write the figure there (`.png`, `.pdf`, `.svg`).

        Returns:
            A `matplotlib.figure.Figure`, for notebooks and for `savefig`.
        """
        if path is not None:
            _check_figure_path(path)
        from kregs.reporting.figures import search_map

        figure = search_map(
            self.trials(), self.samplings, objective=self.objective, direction=self.direction
        )
        if path is not None:
            with atomic_path(path) as temporary:
                figure.savefig(temporary)
        return figure

    def report(
        self, path: str | os.PathLike[str] | None = None, *, command: str | None = None
    ) -> Path:
        """Write what was searched, how it was judged and what came out as one HTML page.

        Its pictures are in the page.

        Args:
            path: an `.html` file, or a folder for `report.html`. Default: the search's own folder.
            command: the command line that ran the search, to be shown.

        Returns:
            The page's path.

        Raises:
            RuntimeError: no trial has completed.
            ValueError: `path` cannot be written.
        """
        from kregs.reporting import write_report

        if path is not None:
            check_path("path", path)
        if command is not None and not isinstance(command, str):
            raise TypeError(
                f"`command` must be a command line or None. Received: command={command!r}"
            )
        self._chosen()
        return write_report(self, path, command=command)

    def write(self) -> None:
        """Write `result.json` and `trials.csv` into the search's own folder."""
        write_record(self.path, self.record)
        write_trials_table(self.path, self.trials())

    def write_model(self, model: keras.Model | None = None) -> None:
        """Write `best.keras` and, if the rows went through a transformer, `preprocessing.joblib`.

        A model that cannot be saved does not cost the search: a warning says so.

        Args:
            model: default: the chosen trial's, with the weights of its run; not after a search with
                folds, whose models have not seen all rows.
        """
        try:
            model = model or self.best_model()
            if self.preprocess_ is not None:
                write_preprocessing(self.path, self.preprocess_)
            write_model(self.path, model)
            # only now: killed before, the file is taken for what it was
            self.record = dataclasses.replace(self.record, model_trial=self.chosen_trial)
            write_record(self.path, self.record)
        except DiskFull:
            raise
        except Exception as error:
            warnings.warn(
                f"{MODEL_FILE} could not be written ({type(error).__name__}: {error}); "
                "SearchResult.best_model() builds the model anew",
                stacklevel=3,
            )

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> dict[str, Path]:
        """Write a folder that holds the result without the search's own files.

        Args:
            path: the folder; made if it does not exist.
            overwrite: write over another result in it.

        Returns:
            The files' paths: `"model"` (`best.keras`), `"trials"` (`trials.csv`), `"result"`
            (`result.json`), `"histories"` (`histories.json`), `"plot"` (`plot.png`), and where
            the rows went through a transformer `"preprocessing"` (`preprocessing.joblib`).

        Raises:
            FileExistsError: `path` holds another result and `overwrite` is not set.
            RuntimeError: no trial has completed.
        """
        folder = check_path("path", path)
        if folder.is_file():
            raise FileExistsError(f"`path` must be a folder. Received: the file {str(folder)!r}")
        check_flag("overwrite", overwrite)
        same = folder.resolve() == self.path.resolve()
        self._chosen()
        if (folder / RESULT_FILE).exists() and not (overwrite or same):
            raise FileExistsError(
                f"{str(folder)!r} holds a result already: choose another folder or pass "
                "overwrite=True"
            )
        folder.mkdir(parents=True, exist_ok=True)
        files = {
            "model": folder / MODEL_FILE,
            "trials": folder / TRIALS_FILE,
            "result": folder / RESULT_FILE,
            "histories": folder / HISTORIES_FILE,
            "plot": folder / PLOT_FILE,
        }
        fits = self.record.model_trial in (None, self.chosen_trial)
        if not (fits and (self.path / MODEL_FILE).exists()):
            write_model(folder, self.best_model())
        elif not same:
            with atomic_path(files["model"]) as temporary:
                shutil.copyfile(self.path / MODEL_FILE, temporary)
        if self.preprocess_ is not None:
            files["preprocessing"] = folder / PREPROCESSING_FILE
            write_preprocessing(folder, self.preprocess_)
        elif (self.path / PREPROCESSING_FILE).exists():
            files["preprocessing"] = folder / PREPROCESSING_FILE
            if not same:
                with atomic_path(files["preprocessing"]) as temporary:
                    shutil.copyfile(self.path / PREPROCESSING_FILE, temporary)
        histories = {}
        for trial in self.record.trials:
            with contextlib.suppress(ValueError):  # a lost one costs itself only
                histories[str(trial["trial"])] = self._stored_history(trial["trial"])
        write_histories(folder, histories)
        write_trials_table(folder, self.trials())
        write_record(folder, self.record)
        self.plot(files["plot"])
        return files

    def _trial(self, number: Any) -> dict[str, Any]:
        is_number = isinstance(number, numbers.Integral) and not isinstance(number, bool)
        trial = self._by_number.get(int(number)) if is_number else None
        if trial is None:
            raise ValueError(
                f"`trial` must be the number of one of the {len(self.record.trials)} trials, as in "
                f"trials(). Received: trial={number!r}"
            )
        return trial

    @property
    def _by_number(self) -> dict[int, dict[str, Any]]:
        if self._indexed is not self.record:
            self._index = {trial["trial"]: trial for trial in self.record.trials}
            self._indexed = self.record
        return self._index

    def earlier_trial(self, number: int) -> int | None:
        """Return the trial whose training a trial of Hyperband goes on with, `None` if none."""
        earlier = self._trial(number).get("goes_on_from")
        return None if earlier is None else int(earlier)

    def trial_folder(self, number: int) -> Path | None:
        """Return the directory of a trial, `None` if it is not there."""
        return trial_folder(self.path, self._trial(number))


def load_result(
    path: str | os.PathLike[str],
    *,
    build: Any = None,
    preprocess: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    preprocessing: bool = False,
) -> SearchResult:
    """Load what `SearchResult.save` wrote, or the project directory of a search.

    Args:
        path: a saved folder, or `<directory>/<project_name>` of `kregs.tune`, also of a search
            that was interrupted or still runs.
        build: the build function or hypermodel of the search, which no file holds. `refit` needs
            it; `best_model` without it reads `best.keras`.
        preprocess: the search's unfitted transformer, which no file holds either.
        callbacks: the search's, which no file holds either. `refit` without them uses the recorded
            learning rates alone, and warns of the others.
        preprocessing: also read the fitted transformer, as `preprocess_`, that the rows of
            `best_model()` go through. It is a joblib file, and reading one can run any code: ask
            for it only where you trust who wrote the folder.

    Returns:
        A `SearchResult`.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: `path` holds no result, its `best.keras` is no Keras model, or
            `preprocessing` is asked for and not there.
        TypeError: `build` is no function.
    """
    folder = check_path("path", path)
    if not folder.exists():
        raise FileNotFoundError(
            f"`path` must be a folder with a result: {str(path)!r} is not there"
        )
    if folder.is_file():
        raise ValueError(
            "`path` must be a folder that SearchResult.save wrote, or a project directory of "
            f"kregs.tune. Received: the file {str(path)!r}"
        )
    record = read_record(folder)
    if (folder / MODEL_FILE).exists() and (build is None or record.protocol.folds):
        _check_model_file(folder / MODEL_FILE)
    hypermodel = None
    if build is not None:
        from kregs.search.build import make_hypermodel

        hypermodel = make_hypermodel(build)
    result = SearchResult(
        record, folder, build=hypermodel, preprocess=preprocess, callbacks=callbacks
    )
    if preprocessing:
        result.preprocess_ = read_preprocessing(folder)
    return result


def _check_model_file(path: Path) -> None:
    if not zipfile.is_zipfile(path) or "config.json" not in zipfile.ZipFile(path).namelist():
        raise ValueError(
            f"{str(path)!r} is no .keras file: `path` holds no model. Delete it and search on with "
            "resume=True, which writes it anew; the trials are kept"
        )


def _check_figure_path(path: Any) -> None:
    """Raise unless a figure can be written there: a format that is known, a folder that exists."""
    target = check_path("path", path)
    if target.suffix.lower() not in _FIGURE_FORMATS:
        raise ValueError(
            f"`path` must end in one of {', '.join(_FIGURE_FORMATS)}. Received: {os.fspath(path)!r}"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"`path` must be in a folder that exists. Received: {os.fspath(path)!r}"
        )
