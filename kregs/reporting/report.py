"""The report of a search: one HTML page that needs nothing else, and its pictures beside it."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kregs.files import atomic_path, write_text
from kregs.reporting.importance import WEAK_FIT, Importance, measure_importance, varied
from kregs.reporting.plots import (
    generalization_gap,
    importance_bars,
    learning_curves,
    parallel_coordinates,
    ranked_trials,
    search_map,
    split_runs,
    telling,
    time_histogram,
)
from kregs.reporting.tables import format_duration, format_value

PAGE = "report.html"

_PICTURES = (
    *("trials", "map", "coordinates", "curves_chosen", "curves_best", "curves_worst"),
    *("importance", "gap", "time"),
)
_TOP = 10  # trials in the first table
_MOST = 500  # rows of any table
_AXES = 10  # of the parallel coordinates
_DPI = 160
_EARLY_STOPPING = re.compile(r"(?:Strict)?EarlyStopping\(patience=(\d+)\)")


@dataclasses.dataclass(frozen=True, eq=False)
class _Search:
    """All that is known of a search, and what several sections need of it."""

    trials: pd.DataFrame
    histories: Callable[[int], pd.DataFrame]
    record: Mapping[str, Any]
    hyperparameters: Mapping[str, Mapping[str, Any]]
    failures: pd.DataFrame
    name: str
    best: pd.Series
    chosen: pd.Series
    importance: Importance | str  # or why there is none

    @property
    def objective(self) -> str:
        return self.record["objective"]["name"]

    @property
    def direction(self) -> str:
        return self.record["objective"]["direction"]

    @property
    def protocol(self) -> Mapping[str, Any]:
        return self.record.get("protocol") or {}

    @property
    def completed(self) -> pd.DataFrame:
        return self.trials[self.trials["score"].notna()]

    @property
    def differs(self) -> bool:
        """Whether the chosen trial is not the best."""
        return bool(self.chosen["trial"] != self.best["trial"])

    @property
    def by_importance(self) -> list[str]:
        """The hyperparameters that varied, the most important first if that is known."""
        if isinstance(self.importance, Importance):
            return self.importance.table["hyperparameter"].tolist()
        return varied(self.trials, self.hyperparameters)

    def history(self, trial: int) -> pd.DataFrame | None:
        """Return a trial's history, `None` if it is lost."""
        try:
            history = self.histories(trial)
        except (ValueError, KeyError, OSError):
            return None
        return history if len(history) else None

    @property
    def goal(self) -> dict[str, Any]:
        return {"objective": self.objective, "direction": self.direction}


def write_report(
    path: str | os.PathLike[str],
    *,
    trials: pd.DataFrame,
    histories: Callable[[int], pd.DataFrame],
    record: Mapping[str, Any],
    hyperparameters: Mapping[str, Mapping[str, Any]],
    failures: pd.DataFrame | None = None,
    name: str = "search",
    command: str | None = None,
) -> Path:
    """Write a search's report: one HTML page with all its pictures inside, and these as PNG files.

    The page loads nothing from elsewhere and runs no script.

    Args:
        path: the page, if it ends in `.html`; else a folder, made if it does not exist, for
            `report.html`. The pictures are written beside the page, under its name:
            `report_map.png`.
        trials: one row per trial: `trial`, `score`, `best_epoch`, `seconds`, `status`, perhaps
            `standard_error`, and one column per hyperparameter.
        histories: gives a trial's history by its number: columns `epoch`, one per metric, and
            `fold`, `seed` or `execution` if there are several runs.
        record: what `result.json` holds: `objective`, `seed`, `seconds`, `space`, `protocol`,
            `best`, perhaps `chosen` and `versions`.
        hyperparameters: per column of `trials`, `{"sampling": "linear" | "log" | None}`; `None`
            for what is no number.
        failures: columns `trial` and `message`.
        name: of the search.
        command: the command line that ran the search, if it was one. Default: the page shows the
            call of `kregs.tune` as far as the record tells it.

    Returns:
        The page's path.

    Raises:
        RuntimeError: no trial has completed.
        ValueError: `path` cannot be written.

    Example:

    >>> import tempfile
    >>> trials = pd.DataFrame({"trial": [0], "score": [0.5], "best_epoch": [1], "seconds": [1.0],
    ...                        "status": ["completed"], "l2": [0.01]})
    >>> record = {"objective": {"name": "val_loss", "direction": "min"}, "seed": 0, "seconds": 2.0,
    ...           "space": [], "protocol": {"epochs": 1}, "best": {"trial": 0}}
    >>> page = write_report(
    ...     tempfile.mkdtemp(), trials=trials, record=record,
    ...     hyperparameters={"l2": {"sampling": "log"}},
    ...     histories=lambda trial: pd.DataFrame({"epoch": [1], "loss": [0.4], "val_loss": [0.5]}),
    ... )
    >>> page.name, "<script" in page.read_text(encoding="utf-8")
    ('report.html', False)
    """
    # JSON lacks infinity: a search's own files do not hold it, other tables may
    trials = trials.assign(score=trials["score"].astype(float).replace([np.inf, -np.inf], np.nan))
    if not trials["score"].notna().any():
        raise RuntimeError(f"no trial of the search {name!r} has completed: nothing to report")
    if failures is None:
        failures = pd.DataFrame({"trial": [], "message": []})
    search = _study(trials, histories, record, hyperparameters, failures, name)
    pictures: dict[str, bytes] = {}
    body = "\n".join(
        [
            _head(search),
            f'<div class="pair">{_what_was_searched(search)}{_how_judged(search)}</div>',
            _best_trials(search, pictures),
            _space_in_pictures(search, pictures),
            _curves(search, pictures),
            _importance(search, pictures),
            _gap(search, pictures),
            _time(search, pictures),
            _failed(search),
            _repeat(search, command),
        ]
    )
    page = _PAGE.format(title=html.escape(f"{name}: search report"), style=_STYLE, body=body)
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / PAGE
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for picture in _PICTURES:
            file = target.with_name(f"{target.stem}_{picture}.png")
            if picture in pictures:
                with atomic_path(file) as temporary:
                    temporary.write_bytes(pictures[picture])
            else:
                file.unlink(missing_ok=True)  # of an earlier report
        write_text(target, page)
    except OSError as error:
        raise ValueError(
            "`path` must be a folder that can be written, or an .html file in one. "
            f"Received: {os.fspath(path)!r}, {error.strerror or error}"
        ) from error
    return target


def _study(
    trials: pd.DataFrame,
    histories: Callable[[int], pd.DataFrame],
    record: Mapping[str, Any],
    hyperparameters: Mapping[str, Mapping[str, Any]],
    failures: pd.DataFrame,
    name: str,
) -> _Search:
    completed = trials[trials["score"].notna()].sort_values(
        "score", ascending=record["objective"]["direction"] == "min", kind="stable"
    )
    best = completed.iloc[0]
    number = (record.get("chosen") or record.get("best") or best)["trial"]
    chosen = completed[completed["trial"] == number]
    try:
        importance: Importance | str = measure_importance(
            trials, hyperparameters, seed=record["seed"] % 2**32
        )
    except ValueError as error:
        importance = str(error)
    return _Search(
        trials=trials,
        histories=histories,
        record=record,
        hyperparameters={n: h for n, h in hyperparameters.items() if n in trials},
        failures=failures,
        name=name,
        best=best,
        chosen=chosen.iloc[0] if len(chosen) else best,
        importance=importance,
    )


# --- sections ------------------------------------------------------------------------------------


def _head(search: _Search) -> str:
    chosen, counts = search.chosen, search.trials["status"].value_counts()
    others = ", ".join(f"{counts[s]} {s}" for s in ("failed", "interrupted") if s in counts)
    tiles = [
        (f"{search.objective} of the chosen trial", _score(chosen)),
        ("chosen", f"trial {int(chosen['trial'])}"),
        ("epochs of the chosen trial", _plain(chosen.get("best_epoch"))),
        ("trials completed", f"{len(search.completed)} of {len(search.trials)}"),
        ("time", format_duration(search.record["seconds"])),
        ("seed", format_value(search.record["seed"])),
    ]
    facts = "".join(
        f"<div><dt>{_text(words)}</dt><dd>{_text(value)}</dd></div>" for words, value in tiles
    )
    note = f"<p>Not completed: {_text(others)}.</p>" if others else ""
    return (
        f"<header><h1>{_text(search.name)}</h1>"
        f"<p>Report of a hyperparameter search by kregs.</p></header>"
        f'<dl class="tiles">{facts}</dl>{note}'
    )


_NOTHING_SEARCHED = "<p>No hyperparameter was searched.</p>"


def _what_was_searched(search: _Search) -> str:
    space = search.record.get("space") or []
    if not space:
        return _section("What was searched", _NOTHING_SEARCHED)
    rows = [
        {
            "hyperparameter": hp["config"]["name"],
            "chosen": search.chosen.get(hp["config"]["name"]),
            "of": _range(hp),
            "scale": _scale(hp),
            "only if": _conditions(hp),
        }
        for hp in space
    ]
    if not any(row["only if"] for row in rows):
        for row in rows:
            del row["only if"]
    return _section("What was searched", _table(rows))


def _range(hp: Mapping[str, Any]) -> str:
    config = hp["config"]
    kind = hp.get("class_name")
    if kind in ("Float", "Int"):
        words = f"{format_value(config['min_value'])} to {format_value(config['max_value'])}"
        return words + (f", step {format_value(config['step'])}" if config.get("step") else "")
    if kind == "Choice":
        values = [format_value(value) for value in config["values"]]
        more = f" and {len(values) - 20} more" if len(values) > 20 else ""
        return ", ".join(values[:20]) + more
    if kind == "Boolean":
        return "yes, no"
    return f"always {format_value(config.get('value'))}"


def _scale(hp: Mapping[str, Any]) -> str:
    sampling = hp["config"].get("sampling")
    if hp.get("class_name") not in ("Float", "Int"):
        return "choice" if hp.get("class_name") in ("Choice", "Boolean") else "fixed"
    return {"log": "logarithmic", "reverse_log": "reversed logarithmic"}.get(sampling, "linear")


def _conditions(hp: Mapping[str, Any]) -> str:
    parts = []
    for condition in hp["config"].get("conditions") or []:
        parent = condition["config"]
        values = " or ".join(format_value(value) for value in parent["values"])
        parts.append(f"{parent['name']} = {values}")
    return " and ".join(parts)


def _how_judged(search: _Search) -> str:
    protocol = search.protocol
    better = "lower" if search.direction == "min" else "higher"
    goal = f"<code>{_text(search.objective)}</code>, {better} is better"
    if search.objective.endswith("data_loss"):
        goal += "; it is the loss without penalties, so that no λ looks good for being small"
    items = [f"Trials are judged by {goal}.", _rows_judged_on(protocol)]
    seeds = protocol.get("seeds") or protocol.get("executions_per_trial") or 1
    runs = seeds * (protocol.get("folds") or 1)
    if runs > 1:
        items.append(
            f"Each trial is trained {runs} times"
            + (f", with {seeds} seeds{' a fold' if runs > seeds else ''}" if seeds > 1 else "")
            + "; its score is the mean."
        )
    training = f"Up to {_text(protocol.get('epochs'))} epochs"
    if protocol.get("batch_size"):
        training += f", {_text(protocol['batch_size'])} rows a step"
    callbacks = protocol.get("callbacks")
    if callbacks:
        training += "; callbacks: " + ", ".join(f"<code>{_text(c)}</code>" for c in callbacks)
    if protocol.get("score_at") == "last_epoch":
        training += ". A run is scored at its last epoch."
    elif protocol.get("folds"):
        training += ". The epoch that a fold is scored at is chosen on the other folds."
    elif protocol.get("epoch_chosen_on") == "the other half":
        training += (
            ". The epoch that one half of the validation rows is scored at is chosen on the other."
        )
    else:
        training += ". A trial is scored at its best epoch."
    items.append(training)
    most = protocol.get("max_trials")
    proposals = f"The oracle <code>{_text(protocol.get('oracle'))}</code> proposed the trials"
    items.append(proposals + (f", at most {_text(most)}." if most else "."))
    if protocol.get("preprocess"):
        items.append(
            f"Preprocessing: <code>{_text(protocol['preprocess'])}</code>, fitted on training rows."
        )
    if protocol.get("selection"):
        rule = f"The trial was chosen by the rule <code>{_text(protocol['selection'])}</code>"
        if search.differs:
            rule += (
                f": trial {_number(search.chosen)} ({_text(_score(search.chosen))}), not the best "
                f"one, trial {_number(search.best)} ({_text(_score(search.best))})"
            )
        items.append(rule + ".")
    listed = "".join(f"<li>{item}</li>" for item in items if item)
    return _section("How trials were judged", f"<ul>{listed}</ul>")


def _rows_judged_on(protocol: Mapping[str, Any]) -> str:
    rows, held = protocol.get("rows"), protocol.get("validation_rows")
    if protocol.get("folds"):
        words = f"Cross-validation with {_text(protocol['folds'])} folds"
        words += f" of {_text(rows)} rows" if rows else ""
        kind = protocol.get("validation")
        return words + (f": <code>{_text(kind)}</code>." if kind else ".")
    if protocol.get("validation") == "given":
        counts = f": {_text(rows)} rows to train on" if rows else ""
        counts += f", {_text(held)} to validate on" if rows and held else ""
        return f"The validation data were given{counts}."
    if rows is None or held is None:
        return ""
    return (
        f"{_text(rows)} rows to train on, {_text(held)} to validate on "
        f"({_text(protocol.get('validation', 'split'))}), the same for all trials."
    )


def _best_trials(search: _Search, pictures: dict[str, bytes]) -> str:
    ranked = search.completed.sort_values(
        "score", ascending=search.direction == "min", kind="stable"
    )
    top = ranked.head(_TOP)
    if search.chosen["trial"] not in set(top["trial"]):
        top = pd.concat([top, ranked[ranked["trial"] == search.chosen["trial"]]])
    with_errors = "standard_error" in ranked and ranked["standard_error"].notna().any()
    if with_errors:
        words = (
            "± and the bars are one standard error of the mean over a trial's runs. Trials whose "
            "bars overlap may differ by luck alone; <code>result.compare(a, b)</code> compares two "
            "of them pair by pair."
        )
        if pd.notna(search.best.get("standard_error")):
            words += " The band is that of the best trial."
    else:
        words = (
            "Each trial was trained once, so there are no error bars: close scores may differ by "
            "luck alone. Search with several folds or seeds to see how much."
        )
    words = f"★ is the best trial, ◆ the chosen one. {words}"
    if len(ranked) > 1:
        words += (
            f" The best of {len(ranked)} scores is also a lucky one: measure the model that you "
            "keep on rows that no trial has seen."
        )
    picture = _picture(
        pictures,
        "trials",
        ranked_trials(search.trials, chosen=_number(search.chosen), **search.goal),
        f"Scores of the best trials; the best has {search.objective} {_score(search.best)}",
    )
    every = _table(_trial_rows(search, search.trials.head(_MOST), with_status=True))
    left = len(search.trials) - _MOST
    more = f"<p>{left} more are in trials.csv.</p>" if left > 0 else ""
    return _section(
        "The best trials",
        f"<p>{words}</p>"
        + f'<div class="beside">{_table(_trial_rows(search, top))}{picture}</div>'
        + f"<details><summary>All {len(search.trials)} trials</summary>{every}{more}</details>",
    )


def _trial_rows(
    search: _Search, trials: pd.DataFrame, *, with_status: bool = False
) -> list[dict[str, Any]]:
    rows = []
    for _, trial in trials.iterrows():
        mark = "".join(
            f" {sign}"
            for sign, row in (("★", search.best), ("◆", search.chosen))
            if row["trial"] == trial["trial"]
        )
        rows.append(
            {"trial": f"{int(trial['trial'])}{mark}"}
            | ({"status": trial["status"]} if with_status else {})
            | {search.objective: _score(trial)}
            | {"epoch": trial.get("best_epoch"), "seconds": trial.get("seconds")}
            | {name: trial[name] for name in _shown_names(search)}
        )
    return rows


def _shown_names(search: _Search) -> list[str]:
    """Return all hyperparameters, without a switch that its coefficient tells already."""
    told = set(varied(search.trials, search.hyperparameters))
    return [
        name
        for name in search.hyperparameters
        if name in told or not re.search(r"(^|[_/])use_", name)
    ]


def _space_in_pictures(search: _Search, pictures: dict[str, bytes]) -> str:
    chosen = _number(search.chosen)
    figure = search_map(search.trials, search.hyperparameters, chosen=chosen, **search.goal)
    figure.set_size_inches(5.6, 4.4)
    labels = figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()
    where = " and ".join(labels)
    zero = any(
        search.hyperparameters[name].get("sampling") == "log" and (search.trials[name] == 0).any()
        for name in labels
        if name in search.hyperparameters
    )
    shown = _picture(
        pictures,
        "map",
        figure,
        f"Map of {search.objective} over {where}",
        ("Dark is good, the star is the best trial." if figure.axes[1:] else "")
        + (" What lies beyond the dashed line is exactly 0." if zero else ""),
    )
    names = search.by_importance
    if names:
        lines = parallel_coordinates(
            search.trials,
            {name: search.hyperparameters[name] for name in names[:_AXES]},
            chosen=chosen,
            **search.goal,
        )
        order = (
            "the most important hyperparameter first"
            if isinstance(search.importance, Importance)
            else "in the order of the space"
        )
        left = f" ({len(names) - _AXES} more are not shown)" if len(names) > _AXES else ""
        shown += _picture(
            pictures,
            "coordinates",
            lines,
            f"Parallel coordinates of {', '.join(names[:_AXES])} and {search.objective}",
            f"One line a trial, {order}{left}. Dark lines are good trials, the thick orange one is "
            "the best"
            + (", the thick black one was chosen" if search.differs else "")
            + ("; dotted ones have no score." if search.trials["score"].isna().any() else "."),
        )
    return _section("Where the good trials lie", f'<div class="figures">{shown}</div>')


def _curves(search: _Search, pictures: dict[str, bytes]) -> str:
    ranked = search.completed.sort_values(
        "score", ascending=search.direction == "min", kind="stable"
    )
    wanted: dict[str, pd.Series] = {"chosen": search.chosen}
    if search.differs:
        wanted["best"] = search.best
    worst = ranked.iloc[-1]
    if worst["trial"] not in {trial["trial"] for trial in wanted.values()}:
        wanted["worst"] = worst
    shown = ""
    for role, trial in wanted.items():
        history = search.history(_number(trial))
        if history is None:
            continue
        title = f"{role} and best" if role == "chosen" and not search.differs else role
        epoch = trial.get("best_epoch")
        figure = learning_curves(
            history,
            objective=search.objective,
            best_epoch=None if pd.isna(epoch) else int(epoch),
            title=f"Trial {_number(trial)}, {title}: {_score(trial)}",
        )
        shown += _picture(
            pictures,
            f"curves_{role}",
            figure,
            f"Learning curves of trial {_number(trial)}, the {title} one",
        )
    if not shown:
        return _section("Learning curves", "<p>No history of these trials was kept.</p>")
    return _section(
        "Learning curves",
        "<p>Each with a scale of its own. Training is measured while dropout and noise are on, so "
        "that it may lie above validation. Several runs are drawn thin and their mean thick; in "
        "it a run that ended goes on at its last value.</p>"
        f'<div class="figures">{shown}</div>',
    )


def _importance(search: _Search, pictures: dict[str, bytes]) -> str:
    title = "How much each hyperparameter mattered"
    found = search.importance
    if isinstance(found, str):
        return _section(title, f"<p>Not known: {_text(found)}.</p>")
    repeated = found.points < len(search.completed)
    again = " (of a point that was trained several times, the last)" if repeated else ""
    words = (
        f"A forest of random trees was fitted to the hyperparameters of {found.points} completed "
        f"trials{again}, to predict which do better. On trials that it has not seen, its R² is "
        f"<strong>{found.r2:.2f}</strong> (1 is perfect, 0 no better than the mean). A bar says "
        "how far R² falls when one hyperparameter is shuffled; the lines are standard errors."
    )
    warning = ""
    if found.r2 < WEAK_FIT:
        warning = (
            '<p class="warning">The forest predicts poorly, so the bars mean little: the '
            "hyperparameters hardly matter in these ranges, or there are too few trials.</p>"
        )
    picture = _picture(
        pictures,
        "importance",
        importance_bars(found.table, r2=found.r2),
        f"Importance of hyperparameters, the most important is {found.table['hyperparameter'][0]}",
    )
    rows = [
        {
            "hyperparameter": row.hyperparameter,
            "importance": f"{row.importance:.3f} ± {row.standard_error:.3f}",
        }
        for row in found.table.itertuples()
    ]
    return _section(
        title,
        f'<p>{words}</p>{warning}<div class="figures">{picture}<div>{_table(rows)}</div></div>',
    )


def _gap(search: _Search, pictures: dict[str, bytes]) -> str:
    title = "Generalization gap against strength"
    names = search.by_importance
    numbers = [n for n in names if search.hyperparameters[n].get("sampling") is not None]
    strength = telling(numbers) or next(iter(numbers or names), None)
    if strength is None:
        return _section(title, "<p>No hyperparameter took more than one value.</p>")
    gaps, metric = _gaps(search)
    if gaps is None:
        return _section(
            title, "<p>No loss was logged both in training and in validation, or it is lost.</p>"
        )
    finite = gaps[np.isfinite(gaps["gap"])]
    picture = _picture(
        pictures,
        "gap",
        generalization_gap(gaps, search.hyperparameters, strength, metric=metric, **search.goal),
        f"Gap between validation and training {metric} over {strength}",
    )
    chosen = finite.loc[finite["trial"] == search.chosen["trial"], "gap"]
    facts = (
        f" The chosen trial's gap is {format_value(float(chosen.iloc[0]))}." if len(chosen) else ""
    )
    penalties = (
        ""
        if metric == "data_loss"
        else " These losses contain the penalties, which hide some of it."
    )
    words = (
        f"How far <code>val_{_text(metric)}</code> lies above <code>{_text(metric)}</code> at the "
        f"epoch that a trial is judged at: overfitting, which <code>{_text(strength)}</code> may "
        "restrain. The best trial is often not the one with the smallest gap. Training is measured "
        "while dropout and noise are on, so that a gap may be below 0." + facts + penalties
    )
    return _section(title, f'<p>{words}</p><div class="figures">{picture}</div>')


def _gaps(search: _Search) -> tuple[pd.DataFrame | None, str]:
    """Return each completed trial's gap at its best epoch, and what it is a gap of."""
    entries = {entry.get("trial"): entry for entry in search.record.get("trials") or []}
    rows = []
    metric = None
    for _, trial in search.completed.iterrows():
        history = search.history(_number(trial))
        if history is None:
            continue
        if metric is None:
            metric = next(
                (m for m in ("data_loss", "loss") if {m, f"val_{m}"} <= set(history)), None
            )
        if metric is None or not {metric, f"val_{metric}"} <= set(history):
            continue
        scores = entries.get(_number(trial), {}).get("scores") or []
        runs = list(split_runs(history))
        values = []
        for place, run in enumerate(runs):
            epoch = scores[place].get("epoch") if len(scores) == len(runs) else None
            row = _judged_row(run, search, trial) if epoch is None else min(epoch, len(run) - 1)
            values.append(float(run[f"val_{metric}"].iloc[row] - run[metric].iloc[row]))
        rows.append({**trial.to_dict(), "gap": float(np.mean(values))})
    return (pd.DataFrame(rows) if rows else None), metric or "loss"


def _judged_row(run: pd.DataFrame, search: _Search, trial: pd.Series) -> int:
    """Return the row of the epoch that a run is scored at."""
    if search.protocol.get("score_at") == "last_epoch":
        return len(run) - 1
    if search.objective in run and np.isfinite(run[search.objective].astype(float)).any():
        values = run[search.objective].astype(float).to_numpy()
        return int(np.nanargmin(values) if search.direction == "min" else np.nanargmax(values))
    best = np.flatnonzero(run["epoch"] == trial.get("best_epoch"))
    return int(best[0]) if len(best) else len(run) - 1


def _time(search: _Search, pictures: dict[str, bytes]) -> str:
    seconds = search.trials["seconds"].dropna().to_numpy(float)
    facts = [{"": "the whole search", "time": format_duration(search.record["seconds"])}]
    if len(seconds):
        for words, value in (
            ("median of a trial", np.median(seconds)),
            ("shortest trial", seconds.min()),
            ("longest trial", seconds.max()),
            ("all trials added up", seconds.sum()),
        ):
            facts.append({"": words, "time": format_duration(float(value))})
    shown = ""
    if len(seconds) > 1:
        shown = _picture(
            pictures, "time", time_histogram(seconds), "Histogram of the trials' times"
        )
    note = (
        "<p>Trials that are trained together, as one model, share its time. What the search took "
        "beyond them is preparation and saving.</p>"
    )
    return _section(
        "Time spent", f'{note}<div class="figures"><div>{_table(facts)}</div>{shown}</div>'
    )


def _failed(search: _Search) -> str:
    if not len(search.failures):
        return ""
    rows = [
        {"trial": row.trial, "reason": row.message}
        for row in search.failures.head(_MOST).itertuples()
    ]
    count = len(search.failures)
    return _section(
        "Failed trials", f"<p>{count} of {len(search.trials)}.</p>" + _table(rows, wrap=True)
    )


def _repeat(search: _Search, command: str | None) -> str:
    parts = []
    if command is not None:
        parts.append(f"<p>The command that was run:</p><pre>{_text(command)}</pre>")
    parts.append(
        "<p>As a call in Python, put together from the record. What no file holds (the data, "
        "sample and class weights, your own functions), you pass as you did:</p>"
        f"<pre>{_text(call_of(search.record))}</pre>"
    )
    checksum = search.protocol.get("checksum")
    if checksum is not None:
        parts.append(f"<p>The data's CRC-32 was {_text(checksum)}.</p>")
    versions = search.record.get("versions") or {}
    rows = [{"package": name, "version": version} for name, version in versions.items()]
    rows.append({"package": "seed", "version": search.record["seed"]})
    parts.append("<p>Made with these versions:</p>" + _table(rows))
    facts = [{"name": name, "value": _plain(value)} for name, value in search.protocol.items()]
    parts.append(
        f"<details><summary>The protocol as recorded</summary>{_table(facts, wrap=True)}</details>"
    )
    return _section("To repeat it", "".join(parts))


def call_of(record: Mapping[str, Any]) -> str:
    """Return the call of `kregs.tune` that a record tells of, as Python source.

    Args:
        record: what `result.json` holds.

    Example:

    >>> print(call_of({"objective": {"name": "val_data_loss", "direction": "min"}, "seed": 3,
    ...                "protocol": {"oracle": "random", "max_trials": 8, "epochs": 5}}))
    import kregs
    <BLANKLINE>
    result = kregs.tune(
        build,  # your function
        x,
        y,
        oracle="random",
        max_trials=8,
        epochs=5,
        seed=3,
    )
    """
    protocol = record.get("protocol") or {}
    arrays = "batch_size" not in protocol or protocol["batch_size"] is not None
    lines = ["build,  # your function", "x,", "y,"] if arrays else ["build,  # your function", "x,"]
    validation = protocol.get("validation")
    if protocol.get("folds"):
        lines.append(f"folds={protocol['folds']!r},  # {_comment(validation)}")
        if "Group" in str(validation):
            lines.append("groups=groups,  # yours")
    elif validation == "given":
        lines.append("validation_data=validation_data,  # yours")
    elif "validation_split" in protocol:
        lines.append(f"validation_split={protocol['validation_split']!r},")
    if protocol.get("preprocess"):
        lines.append(f"preprocess=preprocess,  # {_comment(protocol['preprocess'])}")
    oracle = protocol.get("oracle")
    if oracle in ("random", "bayesian", "hyperband", "grid"):
        lines.append(f'oracle="{oracle}",')
    elif oracle is not None:
        lines.append(f"oracle=oracle,  # yours: {_comment(oracle)}")
    for name in ("max_trials", "epochs", "batch_size"):
        if protocol.get(name) is not None:
            lines.append(f"{name}={protocol[name]!r},")
    objective = record["objective"]
    imports = ["import kregs"]
    if objective["name"] != "val_data_loss":
        # a name alone may not tell the direction
        imports.insert(0, "import keras_tuner")
        pair = f"{_quoted(objective['name'])}, {_quoted(objective['direction'])}"
        lines.append(f"objective=keras_tuner.Objective({pair}),")
    lines += _callback_lines(protocol)
    seeds = protocol.get("seeds") or protocol.get("executions_per_trial")
    if seeds and seeds != 1:
        lines.append(f"seeds={seeds!r},")
    for name, usual in (
        ("selection", "best"),
        ("score_at", "best_epoch"),
        ("engine", "auto"),
    ):
        if protocol.get(name, usual) != usual:
            lines.append(f"{name}={_quoted(protocol[name])},")
    lines.append(f"seed={record['seed']!r},")
    body = "".join(f"    {line}\n" for line in lines)
    return "\n".join(imports) + f"\n\nresult = kregs.tune(\n{body})"


def _callback_lines(protocol: Mapping[str, Any]) -> list[str]:
    callbacks = protocol.get("callbacks")
    if callbacks is None:
        return []
    if not callbacks:
        return ["callbacks=[],"]
    stopping = _EARLY_STOPPING.fullmatch(str(callbacks[0])) if len(callbacks) == 1 else None
    epochs = protocol.get("epochs")
    if stopping and epochs and int(stopping[1]) == max(5, epochs // 5):  # the default
        return []
    return [f"callbacks=callbacks,  # yours: {_comment(', '.join(map(str, callbacks)))}"]


def _comment(words: Any) -> str:
    return " ".join(str(words).split())


def _quoted(words: str) -> str:
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- pieces of HTML ------------------------------------------------------------------------------


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _text(value: Any) -> str:
    """Return a value as HTML text; whatever stands in it, it stays text."""
    return html.escape(value if isinstance(value, str) else format_value(value))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    return "–" if not isinstance(value, str) and pd.isna(value) else format_value(value)


def _score(trial: Mapping[str, Any] | pd.Series) -> str:
    words = format_value(trial["score"])
    error = trial.get("standard_error")
    return words if error is None or pd.isna(error) else f"{words} ± {float(error):.2g}"


def _number(trial: pd.Series) -> int:
    return int(trial["trial"])


def _table(rows: Iterable[Mapping[str, Any]], *, wrap: bool = False) -> str:
    """Return a table that scrolls sideways by itself where it is wider than the page.

    Args:
        rows: all with the same names, which become the head.
        wrap: break lines in cells, for sentences.
    """
    rows = list(rows)
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{_text(str(name))}</th>' for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{"wrap" if wrap else "lines"}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    return _text(_plain(value))


def _picture(
    pictures: dict[str, bytes], name: str, figure: Figure, alt: str, caption: str = ""
) -> str:
    """Keep a figure as PNG and return it as HTML, the picture within."""
    buffer = io.BytesIO()
    # without the version of matplotlib, so that one result gives one page
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    pictures[name] = buffer.getvalue()
    code = base64.b64encode(pictures[name]).decode("ascii")
    below = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="data:image/png;base64,{code}" alt="{_text(alt)}">{below}</figure>'


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --soft: #59626d; --page: #ffffff;
  --line: #d5dae0; --panel: #f4f6f8; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a3adb8; --page: #15191e;
  --line: #39414a; --panel: #1f252c; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 30px; overflow-wrap: anywhere; }
header p { margin: 2px 0 18px; color: var(--soft); }
h2 { margin: 40px 0 10px; padding-bottom: 4px; border-bottom: 2px solid var(--line);
  font-size: 21px; }
p, li { max-width: 78ch; }
ul { padding-left: 22px; }
code, pre { font-family: ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace;
  font-size: 14px; }
code { overflow-wrap: anywhere; }
pre { margin: 8px 0; padding: 12px 14px; overflow-x: auto; background: var(--panel);
  border: 1px solid var(--line); border-radius: 6px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 0; }
.tiles div { padding: 10px 14px; background: var(--panel); border-left: 4px solid var(--accent);
  border-radius: 4px; }
dt { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
dd { margin: 0; font-size: 17px; font-weight: 600; }
.scroll { margin: 10px 0; overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td { white-space: nowrap; }
.wrap td { white-space: normal; overflow-wrap: anywhere; min-width: 60px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
  column-gap: 40px; align-items: start; }
.pair > *, .figures > * { min-width: 0; }
.beside { display: flex; flex-wrap: wrap; gap: 0 28px; align-items: flex-start; }
.beside > * { max-width: 100%; }
.beside > figure { flex: 1 1 440px; max-width: min(100%, 562px); margin-top: 8px; }
details { margin-top: 14px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 18px; align-items: start; margin-top: 12px; }
figure { margin: 0; max-width: 562px; }
img { display: block; width: 100%; height: auto; padding: 6px; background: #ffffff;
  border: 1px solid var(--line); border-radius: 6px; }
figcaption { margin-top: 6px; color: var(--soft); font-size: 14px; }
summary { cursor: pointer; color: var(--accent); }
.warning { padding: 8px 12px; border-left: 4px solid #d55e00; background: var(--panel); }
@media (max-width: 500px) { body { padding: 16px 12px 40px; } h1 { font-size: 25px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } dd { font-size: 16px; } }
@media print { .scroll { overflow: visible; } figure { break-inside: avoid; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
