"""Plots, as matplotlib figures that belong to no window and change no global state."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from kregs.reporting.tables import format_value

# shown first where they were searched, in this order
_PENALTIES = ("l2", "l1", "activity_l2", "activity_l1", "bias_l2", "bias_l1", "weight_decay")
_RATES = ("dropout", "spatial_dropout", "input_dropout", "drop_path", "gaussian_noise")

# Okabe and Ito's colours, which the colour-blind tell apart
_BEST = "#d55e00"
_TRAINING = "#e69f00"
_VALIDATION = "#0072b2"
_POINT = "#31688e"  # from the middle of viridis

_RUNS = ("fold", "execution", "seed")  # columns of a history that holds several runs


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One hyperparameter as positions along an axis."""

    name: str
    logarithmic: bool
    positions: np.ndarray  # one per trial, as plotted
    zero: float | None = None  # where exactly 0 stands on a log axis
    words: tuple[str, ...] = ()  # names of the positions 0, 1, ... of what is no number


def search_map(
    trials: pd.DataFrame,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    objective: str,
    direction: str,
    chosen: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Return a map of the objective over the two most telling hyperparameters.

    A penalty's coefficient and a dropout rate if they were searched, else the numbers whose values
    are spread most. One number alone, or words only: the objective over it. A coefficient of
    exactly 0 stands at the left of a logarithmic axis, beyond a dashed line. The best trial is
    marked with a star, failed ones with a cross.

    Args:
        trials: columns `trial`, `score`, `status` and one per hyperparameter, as
            `SearchResult.trials()` returns it.
        hyperparameters: per column, `{"sampling": "linear" | "log" | None}`; `None` for what is no
            number.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        chosen: number of the trial to mark with a diamond, if it is not the best.
        path: also write the figure there; the suffix gives the format. Default: do not.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:

    >>> trials = pd.DataFrame(
    ...     {"trial": [1, 0], "score": [0.2, 0.3], "status": "completed", "l2": [1e-4, 1e-2]}
    ... )
    >>> figure = search_map(
    ...     trials, {"l2": {"sampling": "log"}}, objective="val_data_loss", direction="min"
    ... )
    >>> figure.axes[0].get_xlabel()
    'l2'
    """
    figure = Figure(figsize=(7.0, 4.8), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    done = trials["score"].notna().to_numpy()
    better = "lower" if direction == "min" else "higher"
    shown = _choose(trials, hyperparameters)
    count = f"{len(trials)} trials" if len(trials) != 1 else "1 trial"
    scores = trials["score"].to_numpy(float)
    if len(shown) == 2:
        x = _axis(trials, shown[0], hyperparameters)
        y = _axis(trials, shown[1], hyperparameters)
        _scatter_map(figure, axes, x, y, scores, done, direction)
        heights = y.positions
        if done.any():
            figure.axes[-1].set_ylabel(f"{objective} ({better} is better)")
        _dress(axes, x, "x")
        _dress(axes, y, "y")
        title = f"{objective} over {x.name} and {y.name}, {count}"
    else:
        x = (
            _axis(trials, shown[0], hyperparameters)
            if shown
            else _Axis("trial", False, trials["trial"].to_numpy(float))
        )
        _scatter_line(axes, x, scores, done, direction)
        heights = scores
        _dress(axes, x, "x")
        axes.set_ylabel(f"{objective} ({better} is better)")
        title = f"{objective} over {x.name}, {count}"
    if done.any():
        _mark_chosen(axes, trials, x.positions, heights, direction, chosen)
    _finish(figure, axes, title)
    if path is not None:
        figure.savefig(Path(path))
    return figure


def _choose(trials: pd.DataFrame, hyperparameters: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the one or two columns to show."""
    varied = [name for name in hyperparameters if name in trials and trials[name].nunique() > 1]
    numbers = [name for name in varied if hyperparameters[name]["sampling"] is not None]
    if not numbers:
        return varied[:1]
    spread = {
        name: _spread(trials[name].dropna().to_numpy(float), hyperparameters[name]["sampling"])
        for name in numbers
    }
    by_spread = sorted(numbers, key=lambda name: -spread[name])
    across = _first(_PENALTIES, numbers)
    up = _first(_RATES, numbers)
    ordered = [name for name in (across, up) if name]
    ordered += [name for name in by_spread if name not in ordered]
    pair = ordered[:2]
    # a logarithmic axis reads better across than up
    pair.sort(key=lambda name: hyperparameters[name]["sampling"] != "log")
    return pair


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the first name that is a wanted one, or ends with it after a prefix."""
    return next(
        (name for word in wanted for name in names if name == word or name.endswith(f"_{word}")),
        None,
    )


def _spread(values: np.ndarray, sampling: str) -> float:
    """Return how evenly values lie between their smallest and largest, from 0 to about 0.5."""
    if sampling == "log":
        values = np.log(values[values > 0])
    extent = np.ptp(values) if len(values) else 0.0
    return float(np.std(values) / extent) if extent else 0.0


def _axis(
    trials: pd.DataFrame, name: str, hyperparameters: Mapping[str, Mapping[str, Any]]
) -> _Axis:
    column = trials[name]
    sampling = hyperparameters[name]["sampling"]
    if sampling is None:
        words = tuple(sorted(column.dropna().astype(str).unique()))
        places = {word: float(i) for i, word in enumerate(words)}
        return _Axis(name, False, column.astype(str).map(places).to_numpy(float), words=words)
    values = column.to_numpy(float)
    if sampling != "log" or not (values > 0).any():
        return _Axis(name, False, values)
    smallest, largest = values[values > 0].min(), values[values > 0].max()
    if not (values == 0).any():
        return _Axis(name, True, values)
    gap = max((largest / smallest) ** 0.08, 2.0)
    zero = smallest / gap**2
    return _Axis(name, True, np.where(values == 0, zero, values), zero=zero)


def _scatter_map(
    figure: Figure,
    axes: Axes,
    x: _Axis,
    y: _Axis,
    scores: np.ndarray,
    done: np.ndarray,
    direction: str,
) -> None:
    shown = scores[done]
    if not len(shown):
        _crosses(axes, x.positions, y.positions)
        return
    _colored(figure, axes, x.positions[done], y.positions[done], shown, direction)
    _crosses(axes, x.positions[~done], y.positions[~done])
    _star(axes, x, y.positions, scores, direction)


def _colored(
    figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, scores: np.ndarray, direction: str
) -> None:
    """Scatter points coloured by their scores, with a colour bar."""
    norm, colors = _color_scale(scores, direction)
    limit = norm.vmax if direction == "min" else norm.vmin
    extend = "neither" if not _beyond(scores, float(limit or 0.0), direction) else _side(direction)
    points = axes.scatter(
        x, y, c=scores, s=46, cmap=colors, norm=norm, edgecolors="black", linewidths=0.4
    )
    figure.colorbar(points, ax=axes, extend=extend)


def _color_scale(scores: np.ndarray, direction: str) -> tuple[Normalize, str]:
    """Return how scores become colours: dark is good in both directions."""
    best = scores.min() if direction == "min" else scores.max()
    # the worst tenth, often far off, must not take all the colours
    limit = np.quantile(scores, 0.9 if direction == "min" else 0.1)
    if limit == best:
        limit = scores.max() if direction == "min" else scores.min()
    return Normalize(*sorted((best, limit))), "viridis" if direction == "min" else "viridis_r"


def _beyond(shown: np.ndarray, limit: float, direction: str) -> bool:
    return bool((shown > limit).any() if direction == "min" else (shown < limit).any())


def _side(direction: str) -> str:
    return "max" if direction == "min" else "min"


def _scatter_line(
    axes: Axes, x: _Axis, scores: np.ndarray, done: np.ndarray, direction: str
) -> None:
    shown = scores[done]
    off = np.zeros(len(scores), dtype=bool)
    if len(shown):
        best = shown.min() if direction == "min" else shown.max()
        worst = np.quantile(shown, 0.9 if direction == "min" else 0.1)
        limit = worst + (worst - best)  # far beyond the rest, a trial would squeeze the others
        off[done] = shown > limit if direction == "min" else shown < limit
    near = done & ~off
    axes.scatter(x.positions[near], scores[near], s=40, color=_POINT, edgecolors="black")
    edge = 0.97 if direction == "min" else 0.03
    _at_height(axes, x.positions[off], edge, "^" if direction == "min" else "v", "off the scale")
    _at_height(axes, x.positions[~done], 1 - edge, "x", "failed")
    if len(shown):
        _star(axes, x, scores, scores, direction)


def _at_height(axes: Axes, x: np.ndarray, height: float, marker: str, label: str) -> None:
    """Mark what has no place on the y axis, at a fraction of its height."""
    if len(x):
        transform = axes.get_xaxis_transform()
        heights = np.full(len(x), height)
        axes.scatter(x, heights, marker=marker, color="grey", label=label, transform=transform)


def _crosses(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x):
        axes.scatter(x, y, marker="x", s=36, color="grey", label="failed")


def _star(axes: Axes, x: _Axis, y: np.ndarray, scores: np.ndarray, direction: str) -> None:
    best = _best_row(scores, direction)
    axes.scatter(
        x.positions[best],
        y[best],
        marker="*",
        s=260,
        color=_BEST,
        edgecolors="white",
        linewidths=1.0,
        zorder=3,
        label=f"best: {format_value(float(scores[best]))}",
    )


def _mark_chosen(
    axes: Axes,
    trials: pd.DataFrame,
    x: np.ndarray,
    y: np.ndarray,
    direction: str,
    chosen: int | None,
) -> None:
    """Mark the trial that was chosen, where it is not the best."""
    row = _row(trials, chosen)
    if row is None or row == _best_row(trials["score"].to_numpy(float), direction):
        return
    axes.scatter(
        x[row],
        y[row],
        marker="D",
        s=110,
        facecolors="none",
        edgecolors="black",
        linewidths=2.0,
        zorder=3,
        label=f"chosen: {format_value(float(trials['score'].iloc[row]))}",
    )


def _row(trials: pd.DataFrame, number: int | None) -> int | None:
    """Return the row of a trial that has a score."""
    rows = np.flatnonzero((trials["trial"] == number).to_numpy() & trials["score"].notna())
    return int(rows[0]) if len(rows) else None


def _best_row(scores: np.ndarray, direction: str) -> int:
    return int(np.nanargmin(scores) if direction == "min" else np.nanargmax(scores))


def _dress(axes: Axes, axis: _Axis, which: str) -> None:
    """Name an axis, scale it, and mark the place of exactly 0."""
    own = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(_plain(axis.name))
    if axis.words:
        own.set_major_locator(FixedLocator(range(len(axis.words))))
        own.set_major_formatter(FuncFormatter(lambda place, _: _plain(axis.words[round(place)])))
        (axes.set_xlim if which == "x" else axes.set_ylim)(-0.5, len(axis.words) - 0.5)
        return
    if not axis.logarithmic:
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if axis.zero is None:
        return
    above = axis.positions[axis.positions > axis.zero]
    ticks = [t for t in LogLocator().tick_values(above.min(), above.max()) if t > axis.zero]
    smallest = above.min()
    ticks = [t for t in ticks if smallest / 1.5 <= t <= above.max() * 1.5]
    own.set_major_locator(FixedLocator([axis.zero, *ticks]))
    own.set_minor_locator(NullLocator())
    zero = axis.zero
    own.set_major_formatter(FuncFormatter(lambda place, _: "0" if place == zero else _power(place)))
    edge = float(np.sqrt(axis.zero * smallest))
    (axes.axvline if which == "x" else axes.axhline)(edge, color="grey", linestyle="--", alpha=0.7)


def _power(value: float) -> str:
    return f"$10^{{{round(np.log10(value))}}}$"


def ranked_trials(
    trials: pd.DataFrame,
    *,
    objective: str,
    direction: str,
    chosen: int | None = None,
    rows: int = 15,
) -> Figure:
    """Return the best trials' scores, the best at the top, with error bars of one standard error.

    Args:
        trials: columns `trial`, `score` and, where trials have several runs, `standard_error`.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        chosen: number of the trial to mark with a diamond.
        rows: how many trials to show; the chosen one is shown beside them.

    Example:

    >>> trials = pd.DataFrame({"trial": [3, 1], "score": [0.2, 0.3], "standard_error": [0.1, 0.1]})
    >>> axes = ranked_trials(trials, objective="val_data_loss", direction="min").axes[0]
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['trial 3', 'trial 1']
    """
    ranked = trials[trials["score"].notna()].sort_values(
        "score", ascending=direction == "min", kind="stable"
    )
    place = _row(ranked, chosen)
    shown = ranked.head(rows)
    title = f"The best {len(shown)} of {len(ranked)} completed trials"
    if place is not None and place >= rows:
        title += ", and the chosen one"
        shown = pd.concat([shown, ranked.iloc[[place]]])
    figure, axes = _figure(5.6, 1.3 + 0.26 * max(len(shown), 2))
    scores = shown["score"].to_numpy(float)
    heights = np.arange(len(shown))
    errors = shown.get("standard_error", pd.Series(np.nan, shown.index)).to_numpy(float)
    if np.isfinite(errors).any():
        known = np.isfinite(errors)
        axes.errorbar(
            scores[known],
            heights[known],
            xerr=errors[known],
            fmt="none",
            ecolor=_POINT,
            elinewidth=1.5,
            capsize=3,
            label="± 1 standard error",
        )
        low, high = scores[0] - errors[0], scores[0] + errors[0]
        if known[0]:
            axes.axvspan(low, high, color=_BEST, alpha=0.12, linewidth=0)
    axes.scatter(scores, heights, s=36, color=_POINT, edgecolors="black", linewidths=0.4, zorder=2)
    _star(axes, _Axis("score", False, scores), heights, scores, direction)
    _mark_chosen(axes, shown, scores, heights, direction, chosen)
    axes.set_yticks(heights, [f"trial {number}" for number in shown["trial"]])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel(_with_direction(objective, direction))
    _finish(figure, axes, title)
    return figure


def parallel_coordinates(
    trials: pd.DataFrame,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    objective: str,
    direction: str,
    chosen: int | None = None,
) -> Figure:
    """Return parallel coordinates that run down the page: a line per trial, an axis per number.

    The last axis is the objective. Dark lines are good trials, the best one is drawn thick and
    orange, the chosen one, if it is another, thick and black; failed ones are dotted and end before
    the last axis. A hyperparameter that was not active in a trial stands left of its axis.

    Args:
        trials: columns `trial`, `score` and one per hyperparameter.
        hyperparameters: the columns to show, in order, with their `{"sampling": ...}`.
        objective: what the score is called.
        direction: `"min"` or `"max"`.
        chosen: number of the trial that was chosen.

    Example:

    >>> trials = pd.DataFrame({"trial": [1, 0], "score": [0.2, 0.3], "l2": [1e-4, 1e-2]})
    >>> figure = parallel_coordinates(
    ...     trials, {"l2": {"sampling": "log"}}, objective="val_data_loss", direction="min"
    ... )
    >>> figure.axes[0].lines[-1].get_xdata().tolist()
    [0.0, 0.0]
    """
    scores = trials["score"].to_numpy(float)
    done = np.isfinite(scores)
    axes_down = [_axis(trials, name, hyperparameters) for name in hyperparameters]
    spread = [_spread_out(axis) for axis in axes_down]
    columns = [np.where(np.isnan(places), -0.09, places) for places, _ in spread]
    ticks = [marks for _, marks in spread]
    if done.any():
        limit = _far(scores[done], direction)
        clip = np.minimum if direction == "min" else np.maximum
        places, marks = _spread_out(_Axis(objective, False, clip(scores, limit)))
        if _beyond(scores[done], limit, direction):
            end = 1.0 if direction == "min" else 0.0
            marks = [mark for mark in marks if abs(mark[0] - end) > 0.2] + [(end, "beyond")]
        columns.append(places)
        ticks.append(marks)
    names = [*hyperparameters, _with_direction(objective, direction)][: len(columns)]
    figure, axes = _figure(5.6, 0.5 + 0.72 * len(columns))
    heights = np.arange(len(columns))
    lines = np.column_stack(columns) if columns else np.empty((len(trials), 0))
    for height, marks in zip(heights, ticks, strict=True):
        axes.plot([0, 1], [height, height], color="black", linewidth=0.9, zorder=2.5)
        absent = height < len(axes_down) and bool((columns[height] < 0).any())
        for place, words in [*marks, *([(-0.09, "off")] if absent else [])]:
            axes.plot([place, place], [height, height + 0.06], color="black", linewidth=0.9)
            axes.text(place, height + 0.1, words, ha="center", va="top", fontsize=8.5, **_PAPER)
        axes.text(
            0.0,
            height - 0.1,
            _plain(names[height]),
            va="bottom",
            weight="bold",
            fontsize=9,
            **_PAPER,
        )
    for row in np.flatnonzero(~done):
        axes.plot(
            lines[row][: len(axes_down)],
            heights[: len(axes_down)],
            color="grey",
            linestyle=":",
            linewidth=1.0,
        )
    if done.any():
        norm, colors = _color_scale(scores[done], direction)
        best = _best_row(scores, direction)
        order = np.argsort(-scores if direction == "min" else scores)
        for row in (row for row in order if done[row]):
            color = colormaps[colors](norm(scores[row]))
            axes.plot(lines[row], heights, color=color, linewidth=1.1, alpha=0.75)
        picked = _row(trials, chosen)
        if picked is not None and picked != best:
            axes.plot(lines[picked], heights, color="black", linewidth=3.0, marker="o", zorder=3)
        axes.plot(lines[best], heights, color=_BEST, linewidth=3.0, marker="o", zorder=3)
    left = min((float(column.min()) for column in columns), default=0.0)
    axes.set_xlim(left - 0.06, 1.06)
    axes.set_ylim(len(columns) - 0.5, -0.55)
    axes.set_axis_off()
    return figure


def learning_curves(
    history: pd.DataFrame, *, objective: str, best_epoch: int | None = None, title: str = ""
) -> Figure:
    """Return one trial's objective, and the same metric in training, by epoch.

    Several runs are drawn thin, their mean thick; in it a run that ended goes on at its last value.

    Args:
        history: columns `epoch`, one per metric, and `fold` or `execution` if there are several
            runs, as `SearchResult.history()` returns it.
        objective: the metric to show; without `val_` it is the one in training.
        best_epoch: marked with a vertical line.
        title: above the figure.

    Example:

    >>> history = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]})
    >>> axes = learning_curves(history, objective="val_loss").axes[0]
    >>> [line.get_label() for line in axes.lines]
    ['training: loss', 'validation: val_loss']
    """
    figure, axes = _figure(5.6, 3.7)
    drawn: list[pd.Series] = []
    for name, color, style, words in (
        (objective.removeprefix("val_"), _TRAINING, "--", "training"),
        (objective, _VALIDATION, "-", "validation"),
    ):
        if name not in history or (name == objective and words == "training"):
            continue
        parts = [part.set_index("epoch")[name].astype(float) for part in split_runs(history)]
        parts = [part.where(np.isfinite(part)) for part in parts]
        if len(parts) > 1:
            for part in parts:
                axes.plot(part.index, part, color=color, linestyle=style, linewidth=0.8, alpha=0.5)
            mean = _mean_curve(parts)
        else:
            mean = parts[0]
        axes.plot(
            mean.index,
            mean,
            color=color,
            linestyle=style,
            linewidth=2.2,
            label=f"{words}: {name}",
            marker="o" if mean.notna().sum() < 3 else None,
        )
        drawn += parts
    values = np.concatenate([part.to_numpy() for part in drawn]) if drawn else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        axes.text(0.5, 0.5, "no number was logged", ha="center", transform=axes.transAxes)
    elif values.min() > 0 and values.max() / values.min() > 20:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value)))
        axes.yaxis.set_minor_locator(NullLocator())
    if best_epoch is not None:
        axes.axvline(best_epoch, color="grey", linestyle=":", label=f"best epoch: {best_epoch}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(objective.removeprefix("val_"))
    _finish(figure, axes, title, columns=2)
    return figure


def _mean_curve(parts: Sequence[pd.Series]) -> pd.Series:
    epochs = sorted(set().union(*(part.index for part in parts)))
    padded = []
    for part in parts:
        longer = part.reindex(epochs)
        longer[longer.index > part.index.max()] = part.iloc[-1]
        padded.append(longer)
    return pd.concat(padded, axis=1).mean(axis=1, skipna=False)


def split_runs(history: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield each run of a history, which has a column `fold` or `execution` if there are several.

    Example:

    >>> history = pd.DataFrame({"epoch": [1, 2, 1], "fold": [0, 0, 1], "loss": [3.0, 2.0, 3.0]})
    >>> [len(run) for run in split_runs(history)]
    [2, 1]
    """
    keys = [name for name in _RUNS if name in history]
    if not keys:
        yield history
        return
    for _, run in history.groupby(keys, sort=False, dropna=False):
        yield run


def importance_bars(table: pd.DataFrame, *, r2: float, rows: int = 12) -> Figure:
    """Return the importance of hyperparameters as bars with standard errors.

    Args:
        table: columns `hyperparameter`, `importance`, `standard_error`, most important first.
        r2: how well the forest behind them predicts, for the title.
        rows: how many to show.

    Example:

    >>> table = pd.DataFrame({"hyperparameter": ["l2"], "importance": 0.5, "standard_error": 0.1})
    >>> importance_bars(table, r2=0.7).axes[0].get_yticklabels()[0].get_text()
    'l2'
    """
    shown = table.head(rows)
    figure, axes = _figure(5.6, 1.3 + 0.34 * max(len(shown), 2))
    heights = np.arange(len(shown))
    axes.barh(
        heights,
        shown["importance"],
        xerr=shown["standard_error"],
        color=_VALIDATION,
        ecolor="black",
        capsize=3,
        height=0.65,
    )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(heights, [_plain(name) for name in shown["hyperparameter"]])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlabel("fall of R² when shuffled")
    _finish(figure, axes, f"Importance, by a forest with R² = {r2:.2f}")
    return figure


def generalization_gap(
    gaps: pd.DataFrame,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    name: str,
    *,
    metric: str,
    objective: str,
    direction: str,
) -> Figure:
    """Return how far validation lies above training, against the strength of a regularizer.

    Args:
        gaps: one row per completed trial, columns `gap`, `score` and `name`.
        hyperparameters: per column, `{"sampling": ...}`.
        name: the hyperparameter to show.
        metric: what the gap is of, for the axis.
        objective: what the score, which gives the colour, is called.
        direction: `"min"` or `"max"`.

    Example:

    >>> gaps = pd.DataFrame({"gap": [0.2, 0.1], "score": [0.5, 0.4], "l2": [1e-4, 1e-2]})
    >>> figure = generalization_gap(gaps, {"l2": {"sampling": "log"}}, "l2", metric="data_loss",
    ...                             objective="val_data_loss", direction="min")
    >>> figure.axes[0].get_xlabel()
    'l2'
    """
    figure, axes = _figure(5.6, 4.0)
    gaps = gaps[np.isfinite(gaps["gap"]) & gaps[name].notna() & np.isfinite(gaps["score"])]
    values = gaps["gap"].to_numpy(float)
    if len(values):
        x = _axis(gaps, name, hyperparameters)
        low, high = np.quantile(values, (0.1, 0.9))
        reach = 2 * (high - low)  # farther off, a trial would squeeze the others
        above, below = values > high + reach, values < low - reach
        near = ~(above | below)
        scores = gaps["score"].to_numpy(float)
        _colored(figure, axes, x.positions[near], values[near], scores[near], direction)
        figure.axes[-1].set_ylabel(_with_direction(objective, direction))
        _at_height(axes, x.positions[above], 0.97, "^", "off the scale")
        _at_height(axes, x.positions[below], 0.03, "v", "off the scale, below")
        _dress(axes, x, "x")
        axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel(f"val_{metric} − {metric}")
    _finish(figure, axes, f"Generalization gap over {name}")
    return figure


def time_histogram(seconds: Sequence[float] | np.ndarray) -> Figure:
    """Return how many trials took how long.

    Args:
        seconds: one per trial that ended.

    Example:

    >>> figure = time_histogram([1.0, 1.5, 4.0])
    >>> figure.axes[0].lines[0].get_label()
    'median: 1.5 s'
    """
    figure, axes = _figure(5.6, 3.2)
    values = np.asarray(seconds, dtype=float)
    values = values[np.isfinite(values)]
    if len(values):
        axes.hist(values, bins=min(20, max(5, len(values) // 3)), color=_VALIDATION, ec="white")
        median = float(np.median(values))
        label = f"median: {format_value(median)} s"
        axes.axvline(median, color=_BEST, linestyle="--", linewidth=2, label=label)
    axes.set_xlabel("seconds")
    axes.set_ylabel("trials")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, "Time of a trial")
    return figure


def telling(names: Sequence[str]) -> str | None:
    """Return the penalty coefficient that a reader looks for first, or `None`.

    Example:

    >>> telling(["dropout", "conv_l2", "l1"]), telling(["dropout"])
    ('conv_l2', None)
    """
    return _first(_PENALTIES, names)


# behind words that lines run through
_PAPER: dict[str, Any] = {
    "bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
    "zorder": 4,
}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure that is still readable at the width of a phone."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Figure, axes: Axes, title: str, *, columns: int = 3) -> None:
    axes.set_title(_plain(title), loc="left", fontsize=11)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    if len(axes.get_legend_handles_labels()[0]):
        figure.legend(loc="outside lower left", ncols=columns, fontsize=9, frameon=False)


def _with_direction(objective: str, direction: str) -> str:
    return f"{objective} ({'lower' if direction == 'min' else 'higher'} is better)"


def _far(shown: np.ndarray, direction: str) -> float:
    """Return the score beyond which a trial would squeeze the others."""
    best = shown.min() if direction == "min" else shown.max()
    worst = np.quantile(shown, 0.9 if direction == "min" else 0.1)
    return float(worst + (worst - best))


def _spread_out(axis: _Axis) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Return an axis's positions scaled to 0 ... 1, and where its ticks are and what they say."""
    if axis.words:
        last = max(len(axis.words) - 1, 1)
        return axis.positions / last, [
            (i / last, _plain(word)) for i, word in enumerate(axis.words)
        ]
    values = axis.positions
    known = np.unique(values[np.isfinite(values)])
    if not len(known):
        return np.full(len(values), np.nan), []
    low, high = (np.log10(known[[0, -1]]) if axis.logarithmic else known[[0, -1]]).tolist()

    def scaled(numbers: Any) -> Any:
        if low == high:
            return np.where(np.isnan(numbers), np.nan, 0.5)
        return ((np.log10(numbers) if axis.logarithmic else numbers) - low) / (high - low)

    if len(known) <= 5 and (np.diff(scaled(known)) > 0.15).all():
        marks = known
    elif axis.logarithmic:
        powers = 10.0 ** np.arange(np.floor(low), np.ceil(high) + 1)
        within = ((powers >= known[0]) & (powers <= known[-1])).sum()
        marks = powers[:: 1 + within // 6] if within > 2 else np.outer(powers, (1, 2, 5)).ravel()
    else:
        marks = np.asarray(MaxNLocator(nbins=5).tick_values(low, high))
    if axis.zero is not None:
        marks = np.concatenate([[axis.zero], marks[marks > known[1] / 1.01]])
    elif len(marks) < 2 or ((marks >= known[0]) & (marks <= known[-1])).sum() < 2:
        marks = known[[0, -1]] if len(known) > 1 else known
    marks = marks[(marks >= known[0]) & (marks <= known[-1])]
    words = ["0" if mark == axis.zero else _short(float(mark)) for mark in marks]
    return scaled(values), list(zip(scaled(marks).tolist(), words, strict=True))


def _plain(words: str) -> str:
    """Return words in which matplotlib finds no formula."""
    return words.replace("$", r"\$")


def _short(value: float) -> str:
    power = np.log10(value) if value > 0 else 0.5
    if (value <= 1e-2 or value >= 1e4) and abs(power - round(power)) < 1e-9:
        return _power(value)
    return format_value(value)
