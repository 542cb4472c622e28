"""`tune`: search the hyperparameters of a build function."""

from __future__ import annotations

import dataclasses
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from kregs.search.keras_tuner_internals import is_chief, is_worker
from kregs.search.nested import check_nested, outer_scores
from kregs.search.project import run_search
from kregs.search.result import SearchResult
from kregs.search.settings import check_settings
from kregs.search.workers.processes import check_workers, set_memory_growth
from kregs.validation import check_flag, check_number


def tune(
    build: Callable[[Any], keras.Model] | keras_tuner.HyperModel,
    x: Any,
    y: Any = None,
    *,
    validation_data: Any = None,
    validation_split: float = 0.2,
    folds: Any = None,
    groups: Any = None,
    seeds: int = 1,
    preprocess: Any = None,
    selection: str = "best",
    restraint: Sequence[str] | None = None,
    score_at: str = "best_epoch",
    nested: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | str | None = None,
    oracle: str | keras_tuner.Oracle = "random",
    max_trials: int | None = None,
    epochs: int | Callable[[Any], int] = 30,
    batch_size: int | Callable[[Any], int] = 32,
    objective: str | keras_tuner.Objective = "val_data_loss",
    callbacks: Iterable[keras.callbacks.Callback] | None = None,
    max_time: float | None = None,
    keep: int = 5,
    keep_folds: bool = False,
    refit: bool = True,
    seed: int = 0,
    directory: str | os.PathLike[str] = "kregs_runs",
    project_name: str = "search",
    resume: bool = False,
    engine: str = "auto",
    workers: int | None = None,
    verbose: str | int = "auto",
) -> SearchResult:
    """Search the hyperparameters that a build function samples.

    Every trial starts from the same seed, so that trials differ by their hyperparameters and not
    by luck, and the same call gives the same trials. The caller's random state is left as it was.

    The validation rows are chosen once, at random: Keras's own `validation_split` takes the last
    rows, which in sorted data are other data. If `y` holds integers, they are stratified: each
    value keeps its share.

    The epoch that a trial is scored at is never chosen on the rows that rank the trials: with
    `folds` that of a fold is chosen on the other folds, on a single split that of one half of the
    validation rows on the other half. So it is with folds that share validation rows
    (`ShuffleSplit`), and with folds in order of time (`TimeSeriesSplit`), where the halves are the
    earlier and the later rows; a group is in one half. (Only of a validation dataset, whose rows
    cannot be numbered, is the score that of the best epoch, too good a number for anything but
    ranking.) The weights kept are those of the epoch that is best on all validation rows.

    Trials are judged by `val_data_loss`, the loss without penalties: Keras's `val_loss` contains
    them and so favours λ = 0. Models compiled with `kregs.compile_model` log it.

    Args:
        build: a function of keras-tuner's `hp` that returns a compiled model, or a
            `keras_tuner.HyperModel`. See `Regularization.from_hp` for sampling.
        x: arrays (n, ...), a list or dictionary of them for several inputs, a `tf.data.Dataset`
            or a `keras.utils.PyDataset`.
        y: targets (n, ...); `None` with a dataset.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset. Default: rows of `x`.
        validation_split: the fraction of rows for validation, in (0, 1); not used if
            `validation_data` is given.
        folds: judge every trial by cross-validation: how many folds, or a scikit-learn splitter
            such as `StratifiedKFold(5)`, `GroupKFold(5)`, `TimeSeriesSplit(5)`, or a list of pairs
            of row numbers. All folds of all
            trials are members of one population. The score is their mean; at the end the chosen
            trial's model is trained on all rows, and that is `best.keras`.
        groups: one label a row; rows of one group are in one fold, or on one side of a single
            split.
        seeds: models trained per trial (and fold), with different seeds; the score is their mean.
        preprocess: an unfitted scikit-learn transformer, fitted in each fold on its training rows
            only. `x` may then be a pandas `DataFrame`; models get what it makes of the rows.
        selection: which trial the search ends with: `"best"`, or `"one_standard_error"`: of those
            that are worse than the best by no more than one standard error of the difference, fold
            by fold, the most restrained one.
        restraint: what "most restrained" means for `"one_standard_error"`: names of
            hyperparameters, the most important first; `"-units"` is the more the smaller it is.
            Default: the numbers in which the built models differ (penalties, rates, noise, weight
            decay, label smoothing, bounds of norms, number of weights). A trial is then restrained
            more than the best if nothing restrains it less; where one has more of this and the
            other more of that, the better score wins.
        score_at: the epoch that a run is scored at: `"best_epoch"`, or `"last_epoch"`, for which
            no epoch is chosen at all.
        nested: outer folds, as `folds`: the whole search is repeated on the training rows of each,
            and its chosen model scored on the rows left out: `result.nested`. The best score of a
            search is too good, being the best of many; this one is not.
        sample_weight: weights (n,) of the rows of `x`, >= 0.
        class_weight: weights by class number, for training, or `"balanced"`: each class counts the
            same, as scikit-learn's `compute_class_weight` has it. The classes are counted on the
            rows that are trained on; with `folds` on all rows, so that all folds have one weight
            a class; by `refit` on the rows that it is given. As in Keras they are not for
            validation: what epochs and trials are chosen by counts each row once, where
            `sample_weight` counts there, too. Not together with `sample_weight`.
        oracle: what proposes trials: `"random"`, `"random_from_defaults"` (the default values
            first), `"bayesian"` (a Gaussian process), `"hyperband"` (many short trials, the best go
            on), `"grid"`, or a `keras_tuner.Oracle` object.
        max_trials: upper bound. Default: 20 for random and Bayesian search, all points for
            `"grid"`, one sweep for `"hyperband"`, which with a bound makes the largest sweep that
            fits.
        epochs: the most epochs of a trial, or a function of `hp` that returns them, such as
            `lambda hp: hp.Int("epochs", 5, 50)`; not with Hyperband, which shares epochs out.
        batch_size: rows per step, or a function of `hp` that returns them; not used with a dataset.
            Trials of one batch size are stacked.
        objective: a metric in the logs, its direction inferred from the name, or a
            `keras_tuner.Objective`; or a metric of scikit-learn, computed from the predictions on
            all validation rows of a fold: `"log_loss"`, `"accuracy"`, `"balanced_accuracy"`,
            `"roc_auc"` (of several classes one against the rest), `"f1_macro"`, `"rmse"`, `"mae"`,
            `"mse"`, `"r2"`. Scikit-learn's own names of scorers (`"neg_log_loss"`) do, too. Rows
            are weighted by `sample_weight` only.
        callbacks: for every trial, each of which gets a copy. Default: early stopping on the
            objective, with a patience of a fifth of the epochs and at least 5 (5 if they are a
            function of `hp`). `[]` for none. The weights of the best epoch are kept either way.
        max_time: seconds after which the search ends, at the end of an epoch. Trials that are under
            way then have the status `"cut short"`: they are scored by the epochs that they had,
            rank by that score, and are a result like any other. Those whose folds or seeds had not
            all begun stand behind the others. `resume=True` goes on: it trains them from their
            start to their end, as if they had not been cut short. The searches of `nested` share
            what time is left; the training on all rows after a search with folds comes on top.
        keep: how many of the best trials keep their weights on disk.
        keep_folds: with `folds`, the models of all folds of these trials keep their weights, for
            `SearchResult.fold_ensemble`.
        refit: with `folds`, train the chosen trial on all rows at the end, for `best.keras`.
            `False`: no such file; `result.refit(x, y)` or `result.refit_ensemble` may follow.
        seed: integer in [0, 2**32), of the proposals, the split, and the training.
        directory, project_name: the search's files are in `directory/project_name`.
        resume: go on with the search that is there, if there is one. Its trials must be
            comparable: the same space, objective, seed, data and protocol, and the same model of
            the default hyperparameters. `max_trials` may grow.
        engine: what trains the trials: `"population"`, trials of one structure as one stacked
            model (an error where that cannot be); `"sequential"`, one after the other; `"auto"`,
            the first where it can be and the second, with a line that says why, where not.
        workers: train in so many processes on this machine, each with a GPU of its own where there
            are GPUs and its share of the cores where not. One that is killed is replaced and loses
            no trial. They import `build`: it stands at the top of a module; in a script, the call
            stands below `if __name__ == "__main__":`. For several machines run the script on
            each with keras-tuner's variables `KERASTUNER_TUNER_ID` (`chief` on one of them, which
            trains nothing and writes the result), `KERASTUNER_ORACLE_IP` and
            `KERASTUNER_ORACLE_PORT`, on a folder that all of them see, and `KREGS_WORKERS`, how
            many workers there are (default: 4), so that each takes its share of the trials; a
            worker's own result is what there was when it left.
        verbose: `"auto"` (live display in a terminal, else a line per few trials), 0 (nothing), 1
            (live display), 2 (lines).

    Returns:
        A `SearchResult`. Its `result.json`, `trials.csv` and `best.keras` are in
        `directory/project_name`, beside keras-tuner's own files.

    Raises:
        TypeError: an argument has the wrong type, or `build` returns no model.
        ValueError: an argument is out of bounds, the data are unfit (NaN, shapes, labels), the
            model is not compiled, training will not log the objective, `directory` cannot be
            written, or a search to be resumed is another one.
        FileExistsError: there is a search of this name and `resume` is not set.
        RuntimeError: all trials failed; the message has the first reason. Or no trial had an epoch
            within `max_time`. Or workers were killed again and again.
        kregs.files.DiskFull: there is no space left; what was finished is kept.
        KeyboardInterrupt: passed on after what was done is saved; `resume=True` goes on.

    Example:

    >>> import keras, kregs, numpy as np, tempfile
    >>> def build(hp):
    ...     l2 = hp.Choice("l2", [0.0, 1e-3])
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(
    ...         1, kernel_regularizer=keras.regularizers.L2(l2))])
    ...     return kregs.compile_model(model, "mse", learning_rate=0.1)
    >>> x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    >>> result = kregs.tune(
    ...     build, x, x.sum(axis=1), oracle="grid", epochs=2, verbose=0,
    ...     directory=tempfile.mkdtemp(),
    ... )
    >>> sorted(result.best_hyperparameters), len(result.trials())
    (['l2'], 2)

    References:
        Bergstra, Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012;
        Snoek et al., "Practical Bayesian Optimization", 2012; Li et al., "Hyperband", JMLR 18,
        2018.
    """
    began = time.monotonic()
    refit = check_flag("refit", refit)
    check_nested(nested, x, validation_data, oracle)
    if max_time is not None:
        max_time = check_number("max_time", max_time, above=0.0)
    settings = check_settings(
        build,
        objective=objective,
        oracle=oracle,
        max_trials=max_trials,
        epochs=epochs,
        batch_size=batch_size,
        validation_split=validation_split,
        folds=folds,
        seeds=seeds,
        preprocess=preprocess,
        selection=selection,
        restraint=restraint,
        score_at=score_at,
        callbacks=callbacks,
        class_weight=class_weight,
        keep=keep,
        keep_folds=keep_folds,
        seed=seed,
        engine=engine,
        workers=check_workers(
            workers,
            build=build,
            x=x,
            validation_data=validation_data,
            oracle=oracle,
            functions={"epochs": epochs, "batch_size": batch_size},
        ),
        verbose=verbose,
    )
    if nested is not None and (is_chief() or is_worker()):
        raise ValueError(
            "`nested` is several searches, and KERASTUNER_TUNER_ID speaks of one: use workers="
        )
    if is_worker():
        from kregs.search.workers.client import wait_for_chief  # loads gRPC

        wait_for_chief()  # which writes the search's record first
        resume = True
    elif workers is not None:
        set_memory_growth()
    rows = {"sample_weight": sample_weight, "groups": groups}
    result, ended = run_search(
        settings,
        x,
        y,
        **rows,
        validation_data=validation_data,
        directory=directory,
        project_name=project_name,
        resume=resume,
        max_time=max_time,
        trains_final_model=refit,
    )
    if nested is not None and not ended:
        warnings.warn("the time was up before the outer folds of `nested`", stacklevel=2)
    elif nested is not None:
        left = None if max_time is None else max(0.0, max_time - (time.monotonic() - began))
        scores = outer_scores(nested, settings, x, y, **rows, result=result, max_time=left)
        result.record = dataclasses.replace(result.record, nested=scores)
        result.write()
    return result
