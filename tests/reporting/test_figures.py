"""Figures show the tables: tested by what stands in their axes, not by drawing them."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_result import SAMPLINGS, make_history, make_trials
from matplotlib.collections import LineCollection

from kregs.reporting import figures
from kregs.reporting.figures import search_map
from kregs.reporting.figures.style import plain_text
from kregs.reporting.tables import format_value

LINEAR, LOG, WORDS = "linear", "log", None
GOAL = {"objective": "val_data_loss", "direction": "min"}


def make_points(n=12):
    generator = np.random.default_rng(0)
    l2 = 10 ** generator.uniform(-6, -1, n)
    l2[:3] = 0.0
    score = generator.uniform(0.1, 1.0, n)
    score[-1] = np.nan
    return pd.DataFrame(
        {
            "trial": range(n),
            "score": score,
            "status": "completed",
            "l2": l2,
            "dropout": generator.uniform(0, 0.6, n),
            "units": generator.choice([16, 32, 64], n),
            "norm": generator.choice(["none", "batch"], n),
            "same": 1.0,
        }
    )


@pytest.mark.parametrize(
    ("samplings", "x", "y"),
    [
        ({"dropout": LINEAR, "l2": LOG, "units": LINEAR}, "l2", "dropout"),
        ({"units": LINEAR, "dropout": LINEAR, "norm": WORDS}, "dropout", "units"),
        ({"units": LINEAR, "l2": LOG}, "l2", "units"),
        ({"l2": LOG, "same": LINEAR}, "l2", "loss (lower is better)"),
        ({"norm": WORDS}, "norm", "loss (lower is better)"),
        ({}, "trial", "loss (lower is better)"),
    ],
)
def test_map_shows_the_hyperparameters_that_tell_most(samplings, x, y):
    figure = search_map(make_points(), samplings, objective="loss", direction="min")
    axes = figure.axes[0]
    assert axes.get_xlabel() == x
    assert axes.get_ylabel().startswith(y)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_map_marks_the_best_and_zero(direction):
    trials = make_points()
    figure = search_map(
        trials, {"l2": LOG, "dropout": LINEAR}, objective="score", direction=direction
    )
    axes = figure.axes[0]
    star = axes.collections[-1]
    best = trials["score"].idxmin() if direction == "min" else trials["score"].idxmax()
    assert f"best: {format_value(trials['score'][best])}" == star.get_label()
    assert star.get_offsets()[0][1] == trials["dropout"][best]
    points = axes.collections[0].get_offsets()
    assert len(points) == 11  # the twelfth failed
    zeros = sorted(points[:, 0])[:3]
    assert zeros[0] == zeros[2] < trials["l2"][trials["l2"] > 0].min()
    figure.canvas.draw()
    assert axes.get_xticklabels()[0].get_text() == "0"


def test_map_without_a_completed_trial():
    trials = make_points().assign(score=np.nan)
    for samplings in ({"l2": LOG, "dropout": LINEAR}, {"l2": LOG}, {}):
        figure = search_map(
            trials,
            samplings,
            objective="loss",
            direction="min",
        )
        figure.canvas.draw()
        assert len(figure.axes) == 1  # no colour bar


def test_map_leaves_pyplot_alone():
    before = dict(matplotlib.rcParams)
    search_map(make_points(), {"l2": LOG}, objective="loss", direction="min")
    assert dict(matplotlib.rcParams) == before


def line(axes, color, width=3.0):
    return next(ln for ln in axes.lines if ln.get_color() == color and ln.get_linewidth() == width)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_ranked_trials_are_drawn(direction):
    trials = make_trials(errors=True, direction=direction)
    chosen = int(trials["trial"][19])
    figure = figures.ranked_trials(trials, objective="score", direction=direction, chosen=chosen)
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "The best 15 of 22 completed trials, and the chosen one"
    points = next(c for c in axes.collections if len(c.get_offsets()) == 16).get_offsets()
    shown = [*range(15), 19]
    np.testing.assert_allclose(points[:, 0], trials["score"][shown])
    assert [t.get_text() for t in axes.get_yticklabels()] == [
        f"trial {n}" for n in trials["trial"][shown]
    ]
    bars = np.array(axes.containers[0][2][0].get_segments())
    np.testing.assert_allclose(bars[:, 1, 0] - bars[:, 0, 0], 0.04)
    labels = axes.get_legend_handles_labels()[1]
    assert f"chosen: {format_value(trials['score'][19])}" in labels
    assert f"best: {format_value(trials['score'][0])}" in labels


def test_parallel_coordinates_are_drawn():
    trials = make_trials()
    chosen = int(trials["trial"][5])
    names = {name: SAMPLINGS[name] for name in ("dropout", "l2", "norm", "depth")}
    axes = figures.parallel_coordinates(trials, names, chosen=chosen, **GOAL).axes[0]

    def places(row):
        l2 = trials["l2"][trials["l2"] > 0]
        zero = l2.min() / max((l2.max() / l2.min()) ** 0.08, 2.0) ** 2
        logs = np.log10([zero, trials["l2"][row] or zero, l2.max()])
        dropout = trials["dropout"]
        depth = trials["depth"][row]
        return [
            (dropout[row] - dropout.min()) / (dropout.max() - dropout.min()),
            (logs[1] - logs[0]) / (logs[2] - logs[0]),
            ["batch", "none"].index(trials["norm"][row]),
            -0.09 if np.isnan(depth) else (depth - 1) / 2,
        ]

    best, picked = line(axes, "#d55e00").get_xdata(), line(axes, "black").get_xdata()
    np.testing.assert_allclose(best[:4], places(0), atol=1e-12)
    np.testing.assert_allclose(picked[:4], places(5), atol=1e-12)
    assert best[4] == 0.0 < picked[4] < 1.0
    dotted, thin = (c.get_segments() for c in axes.collections if isinstance(c, LineCollection))
    assert [len(segment) for segment in dotted] == [4, 4]  # failed: they reach no score
    assert len(thin) == 22
    np.testing.assert_allclose(thin[-1][:, 0], best)  # upon the others
    np.testing.assert_allclose(thin[0][:4, 0], places(21), atol=1e-12)
    words = [text.get_text() for text in axes.texts]
    assert {"dropout", "l2", "norm", "depth", "off", "batch", "none", "0"} <= set(words)


def test_learning_curves_are_drawn():
    history = make_history(1, folds=3)
    axes = figures.learning_curves(history, objective="val_data_loss", best_epoch=4).axes[0]
    labelled = {ln.get_label(): ln for ln in axes.lines}
    mean = history.groupby("epoch")[["data_loss", "val_data_loss"]].mean()
    for label, name in (
        ("training: data_loss", "data_loss"),
        ("validation: val_data_loss", "val_data_loss"),
    ):
        np.testing.assert_allclose(labelled[label].get_ydata(), mean[name])
    assert labelled["best epoch: 4"].get_xdata()[0] == 4
    assert len([ln for ln in axes.lines if ln.get_linewidth() == 0.8]) == 6
    one = figures.learning_curves(make_history(1), objective="val_data_loss").axes[0]
    assert len(one.lines) == 2


def test_in_the_mean_a_run_that_ended_goes_on_at_its_last_value():
    history = make_history(0, folds=2).query("fold == 0 or epoch <= 3")
    whole = make_history(0).set_index("epoch")["val_data_loss"]
    axes = figures.learning_curves(history, objective="val_data_loss").axes[0]
    mean = next(ln for ln in axes.lines if ln.get_label().startswith("validation"))
    ended = np.minimum(whole.index, 3)
    expected = (whole.to_numpy() + whole[ended].to_numpy() + 0.1) / 2
    np.testing.assert_allclose(mean.get_ydata(), expected)


def test_importance_gap_and_time_are_drawn():
    table = pd.DataFrame(
        {"hyperparameter": ["l2", "a$b"], "importance": [0.5, -0.1], "standard_error": [0.1, 0.2]}
    )
    axes = figures.importance_bars(table, r2=0.25).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, -0.1]
    assert "R² = 0.25" in axes.get_title(loc="left")

    gaps = make_trials().assign(gap=lambda t: t["score"] / 2)
    gaps.loc[3, "gap"] = 1e6
    gaps.loc[4, "gap"] = np.nan
    figure = figures.generalization_gap(gaps, SAMPLINGS, "dropout", metric="loss", **GOAL)
    axes = figure.axes[0]
    near = gaps[gaps["gap"] < 1e6].dropna(subset=["gap", "score"])
    np.testing.assert_allclose(axes.collections[0].get_offsets(), near[["dropout", "gap"]])
    np.testing.assert_allclose(axes.collections[0].get_array(), near["score"])
    assert "off the scale" in axes.get_legend_handles_labels()[1]
    assert axes.get_ylim()[1] < 10

    seconds = make_trials()["seconds"]
    axes = figures.time_histogram(seconds).axes[0]
    heights = np.histogram(seconds, bins=8)[0]
    assert [bar.get_height() for bar in axes.patches] == heights.tolist()
    assert axes.lines[0].get_xdata()[0] == seconds.median()


def test_the_map_marks_the_chosen_trial():
    trials = make_trials()
    arguments = {"samplings": SAMPLINGS, **GOAL}
    for row, marked in ((0, False), (6, True)):
        figure = figures.search_map(trials, chosen=int(trials["trial"][row]), **arguments)
        axes = figure.axes[0]
        labels = axes.get_legend_handles_labels()[1]
        assert (f"chosen: {format_value(trials['score'][row])}" in labels) == marked
        if marked:
            assert axes.collections[-1].get_offsets()[0][1] == trials["dropout"][row]


def draw(figure):
    """Lay out and draw; what matplotlib cannot draw raises."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def test_names_with_formulas_and_brackets_are_drawn_as_text():
    formula, long = r"$\frac{$", "encoder[0]/conv_block[2]/" + "spatial_dropout_rate" * 3
    trials = make_trials().rename(columns={"dropout": formula, "norm": long})
    trials[long] = trials[long].replace("batch", r"$\bad{$")
    samplings = {formula: "linear", "l2": "log", long: None}
    goal = {"objective": formula, "direction": "min"}
    draw(search_map(trials, {formula: "linear", long: None}, **goal))
    draw(search_map(trials, {long: None}, **goal))
    draw(figures.parallel_coordinates(trials, samplings, **goal))
    history = make_history(1).rename(columns={"val_data_loss": formula})
    draw(figures.learning_curves(history, objective=formula, title=formula))
    table = pd.DataFrame(
        {"hyperparameter": [formula, long], "importance": 0.1, "standard_error": 0}
    )
    draw(figures.importance_bars(table, r2=0.5))
    gaps = trials.assign(gap=trials["score"])
    draw(figures.generalization_gap(gaps, samplings, formula, metric=formula, **goal))


def test_long_names_are_cut_in_the_middle():
    assert plain_text("a" * 30, 11) == "aaaaa…aaaaa"
    assert plain_text("short", 11) == "short"


def test_whole_numbers_have_whole_ticks():
    trials = make_trials()
    axes = figures.search_map(trials, {"l2": "log", "depth": "linear"}, **GOAL).axes[0]
    assert all(tick % 1 == 0 for tick in axes.get_yticks())


def test_many_categories_are_not_all_named():
    trials = make_trials(80).assign(kind=[f"kind {n}" for n in range(80)])
    figure = search_map(trials, {"kind": None}, **GOAL)
    draw(figure)
    assert len(figure.axes[0].get_xticks()) < 40


def test_path_figure_shows_both_panels():
    path = pd.DataFrame(
        {
            "l2": [0.0, 1e-4, 1e-2, 1.0],
            "train": [0.1, 0.2, 0.3, 0.4],
            "validation": [0.5, 0.3, 0.25, 0.6],
            "standard_error": [0.05, 0.05, np.nan, 0.05],
            "norm": [3.0, 2.0, 1.0, 0.0],
            "nonzero": [1.0, 1.0, 0.5, 0.0],
        }
    )
    figure = figures.path_figure(
        path, "l2", objective="val_data_loss", best=1e-2, one_standard_error=1.0
    )
    draw(figure)
    errors, weights, share = figure.axes
    assert weights.get_xscale() == "log"
    assert weights.get_xlabel() == "l2"
    np.testing.assert_allclose(errors.containers[0][0].get_ydata(orig=False), path["validation"])
    np.testing.assert_allclose(share.lines[0].get_ydata(orig=False), [100, 100, 50, 0])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[-2:] == ["non-zero weights", "weight norm"]
    assert {"best", "one standard error"} <= set(words)
    marks = [ln.get_xdata()[0] for ln in errors.lines if ln.get_label() == "best"]
    assert marks == [1e-2]
