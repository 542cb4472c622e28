from __future__ import annotations

import io

import matplotlib
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from kregs.reporting import SearchProgress, format_duration, format_value, make_table, search_map

LINEAR, LOG, WORDS = {"sampling": "linear"}, {"sampling": "log"}, {"sampling": None}


def frame(n=12):
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
    ("hyperparameters", "x", "y"),
    [
        ({"dropout": LINEAR, "l2": LOG, "units": LINEAR}, "l2", "dropout"),
        ({"units": LINEAR, "dropout": LINEAR, "norm": WORDS}, "dropout", "units"),
        ({"units": LINEAR, "l2": LOG}, "l2", "units"),
        ({"l2": LOG, "same": LINEAR}, "l2", "loss (lower is better)"),
        ({"norm": WORDS}, "norm", "loss (lower is better)"),
        ({}, "trial", "loss (lower is better)"),
    ],
)
def test_map_shows_the_telling_hyperparameters(hyperparameters, x, y, tmp_path):
    path = tmp_path / "map.png"
    figure = search_map(frame(), hyperparameters, objective="loss", direction="min", path=path)
    axes = figure.axes[0]
    assert axes.get_xlabel() == x
    assert axes.get_ylabel().startswith(y)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("direction", ["min", "max"])
def test_map_marks_the_best_and_zero(direction):
    trials = frame()
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


def test_map_without_a_completed_trial(tmp_path):
    trials = frame().assign(score=np.nan)
    for hyperparameters in ({"l2": LOG, "dropout": LINEAR}, {"l2": LOG}, {}):
        search_map(
            trials,
            hyperparameters,
            objective="loss",
            direction="min",
            path=tmp_path / "a.png",
        )


def test_map_leaves_pyplot_alone():
    before = dict(matplotlib.rcParams)
    search_map(frame(), {"l2": LOG}, objective="loss", direction="min")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.float64(1e-6), "1.00e-06"),
        (np.int64(3), "3"),
        (np.True_, "yes"),
        (0.0, "0"),
        (float("nan"), "-"),
        (None, "-"),
        ("batch", "batch"),
    ],
)
def test_format_value(value, words):
    assert format_value(value) == words


def test_format_duration():
    assert [format_duration(s) for s in (9.96, 59.4, 59.9, 3599.9)] == [
        "10.0 s",
        "59 s",
        "1 min 0 s",
        "1 h 0 min",
    ]


def test_table():
    table = make_table(frame(), title="Trials", rows=3)
    assert table.row_count == 3
    console = Console(file=io.StringIO(), width=120)
    console.print(table)
    assert "dropout" in console.file.getvalue()
    assert [column.justify for column in table.columns][-2:] == ["left", "right"]


def play(progress, scores):
    with progress:
        for number, score in enumerate(scores):
            progress.trial_started(str(number), {"l2": number / 10})
            progress.epoch_ended(str(number), 1, 5)
            progress.trial_ended(str(number), score, None if score is not None else "it broke")


def lines(progress_arguments, scores):
    console = Console(file=io.StringIO(), width=200)
    play(SearchProgress(console=console, **progress_arguments), scores)
    return console.file.getvalue().splitlines()


def test_plain_lines_are_few_and_name_the_best():
    out = lines({"total": 40, "objective": "val_loss"}, [1 + i % 7 for i in range(3, 43)])
    assert len(out) == 10
    assert out[0].startswith("4/40 trials")
    assert "best val_loss 1 (l2=0.4)" in out[-1]
    assert "left" in out[0]
    assert "left" not in out[-1]


def test_plain_lines_for_failures_and_unknown_length():
    out = lines({"direction": "max"}, [None, 2.0, 3.0, 1.0, 0.0])
    assert out[0] == "trial 0 failed: it broke"
    assert "1 failed" in out[1]
    assert "best score 3 (l2=0.2)" in out[1]


def test_resumed_search_counts_what_was_done():
    out = lines({"total": 4, "done": 3, "best": (0.5, {"l2": 9.0})}, [0.7])
    assert out[0].startswith("4/4 trials")
    assert "best score 0.5 (l2=9)" in out[0]


@pytest.mark.parametrize("verbose", [0, 2])
def test_silence_and_notes(verbose):
    assert lines({"verbose": 0}, [1.0, None]) == []
    console = Console(file=io.StringIO(), width=40)
    SearchProgress(verbose=verbose, console=console).note("trials run [one] by one")
    assert console.file.getvalue() == ("trials run [one] by one\n" if verbose else "")


def test_live_display_ends_with_the_last_state_also_when_interrupted():
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    progress = SearchProgress(3, objective="val_loss", console=console)

    def search():
        with progress:
            progress.trial_started("0", {"l2": 0.5})
            progress.epoch_ended("0", 2, 5)
            progress._live.refresh()
            progress.trial_ended("0", 0.25)
            progress.trial_started("1", {"l2": 0.7})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search()
    out = console.file.getvalue()
    assert "trial 0, epoch 2 of 5: l2=0.5" in out
    last = out.rsplit("1/3 trials", 1)[1]
    assert "best val_loss 0.25 (l2=0.5)" in last
    assert "l2=0.7" not in last  # nothing is running any more
    assert "\x1b[?25h" in out  # the cursor is shown again
