from __future__ import annotations

import ast
import base64
import html
import html.parser
import io
import json
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread, imsave

import kregs
from kregs.reporting import plots
from kregs.reporting.importance import MINIMUM_POINTS, measure_importance, varied
from kregs.reporting.report import call_of, write_report
from kregs.reporting.tables import format_value

LINEAR, LOG, WORDS = {"sampling": "linear"}, {"sampling": "log"}, {"sampling": None}
GOAL = {"objective": "val_data_loss", "direction": "min"}


def hyperparameter(kind, name, conditions=(), **config):
    return {
        "class_name": kind,
        "config": {"name": name, "conditions": list(conditions), **config},
    }


SPACE = [
    hyperparameter("Boolean", "use_l2", default=False),
    hyperparameter(
        "Float",
        "l2",
        [{"class_name": "Parent", "config": {"name": "use_l2", "values": [True]}}],
        min_value=1e-6,
        max_value=1e-1,
        step=None,
        sampling="log",
    ),
    hyperparameter("Float", "dropout", min_value=0.0, max_value=0.6, step=None, sampling="linear"),
    hyperparameter("Choice", "norm", values=["batch", "none"]),
    hyperparameter("Int", "depth", min_value=1, max_value=3, step=1, sampling="linear"),
]
HYPERPARAMETERS = {"use_l2": WORDS, "l2": LOG, "dropout": LINEAR, "norm": WORDS, "depth": LINEAR}


def make_trials(n=24, *, failed=2, errors=False, direction="min"):
    """Trials whose score depends on l2 most, and on dropout a little."""
    generator = np.random.default_rng(0)
    use = generator.random(n) < 0.7
    use[0] = True
    l2 = np.where(use, 10 ** generator.uniform(-6, -1, n), 0.0)
    dropout = generator.uniform(0, 0.6, n)
    score = 0.2 + 0.1 * (np.log10(np.where(use, l2, 1e-7)) + 3) ** 2 + 0.1 * dropout
    score = score if direction == "min" else 1 - score / 10
    status = np.array(["completed"] * n, dtype=object)
    status[n - failed :] = "failed"
    score[n - failed :] = np.nan
    frame = pd.DataFrame(
        {
            "trial": range(n),
            "score": score,
            "best_epoch": pd.array([3 + i % 4 for i in range(n)], dtype="Int64"),
            "seconds": generator.uniform(1, 3, n),
            "status": status,
            "use_l2": use,
            "l2": l2,
            "dropout": dropout,
            "norm": generator.choice(["batch", "none"], n),
            # not active in every trial
            "depth": np.where(generator.random(n) < 0.5, generator.integers(1, 4, n), np.nan),
        }
    )
    if errors:
        frame.insert(2, "standard_error", np.where(np.isnan(score), np.nan, 0.02))
    return frame.sort_values(
        "score", ascending=direction == "min", na_position="last", ignore_index=True
    )


def make_history(trial, runs=1, epochs=6):
    steps = np.arange(1, epochs + 1)
    frames = []
    for run in range(runs):
        data_loss = 1.0 / steps + 0.01 * trial
        frame = pd.DataFrame(
            {
                "epoch": steps,
                "data_loss": data_loss,
                # its lowest point is at epoch 4
                "val_data_loss": data_loss + 0.1 + 0.1 * run + 0.5 * np.maximum(0, steps - 4),
            }
        )
        if runs > 1:
            frame.insert(1, "fold", run)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def make_record(trials, *, direction="min", **more):
    done = trials[trials["score"].notna()]
    return {
        "format": 1,
        "versions": {"kregs": "0.1.0", "keras": "3.15.1"},
        "seed": 17,
        "seconds": 75.0,
        "objective": {"name": "val_data_loss", "direction": direction},
        "protocol": {
            "oracle": "random",
            "max_trials": 24,
            "epochs": 6,
            "batch_size": 32,
            "callbacks": ["StrictEarlyStopping(patience=5)"],
            "engine": "auto",
            "checksum": 12345,
            "validation": "stratified split",
            "validation_split": 0.25,
            "rows": 90,
            "validation_rows": 30,
        },
        "space": SPACE,
        "best": None if done.empty else {"trial": int(done["trial"].iloc[0])},
        **more,
    }


def write(folder, trials=None, **changes):
    trials = make_trials() if trials is None else trials
    arguments = {
        "trials": trials,
        "histories": make_history,
        "record": make_record(trials),
        "hyperparameters": HYPERPARAMETERS,
        "name": "a search",
        **changes,
    }
    return write_report(folder, **arguments)


class Page(html.parser.HTMLParser):
    """What a browser would see: the tables, the words, the pictures, and what is not closed."""

    EMPTY = ("meta", "img", "br", "link")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.pictures, self.tables, self.words = [], [], [], []
        self.headings, self.attributes = [], []
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] == "style":
            return
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data
        if self.open[-1] == "h2":
            self.headings.append(data)
        self.words.append(data)

    def table(self, *head):
        """Return the rows, as dictionaries, of the first table whose head begins so."""
        rows = next(t for t in self.tables if tuple(t[0][: len(head)]) == head)
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]

    def images(self):
        """Return the pixels of every picture within."""
        start = "data:image/png;base64,"
        assert all(picture["src"].startswith(start) for picture in self.pictures)
        code = [picture["src"].removeprefix(start) for picture in self.pictures]
        return [imread(io.BytesIO(base64.b64decode(c, validate=True)), format="png") for c in code]


PIXEL = io.BytesIO()
imsave(PIXEL, np.zeros((1, 1, 3)), format="png")


@pytest.fixture
def words_only(monkeypatch):
    """For tests of what is written: pictures of one pixel, and a smaller forest."""
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, file, **_: file.write(PIXEL.getvalue())
    )
    monkeypatch.setattr("kregs.reporting.importance._REPEATS", 2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The page of the default arguments, with all its pictures; for tests that only read it."""
    folder = tmp_path_factory.mktemp("plain") / "new" / "folder"
    path = write(folder)
    assert path == folder / "report.html"
    return path


def test_the_page_is_whole_and_needs_nothing_else(plain):
    path = plain
    page = Page(path)
    assert page.headings == [
        "What was searched",
        "How trials were judged",
        "The best trials",
        "Where the good trials lie",
        "Learning curves",
        "How much each hyperparameter mattered",
        "Generalization gap against strength",
        "Time spent",
        "To repeat it",
    ]
    images = page.images()
    assert len(images) == 8
    assert all(image.shape[1] == round(5.6 * 160) and image[..., :3].std() > 0 for image in images)
    assert all(len(picture["alt"]) > 20 for picture in page.pictures)
    files = sorted(file.name for file in path.parent.iterdir())
    assert files == sorted(
        ["report.html"]
        + [
            f"report_{name}.png"
            for name in (
                *("trials", "map", "coordinates", "curves_chosen", "curves_worst"),
                *("importance", "gap", "time"),
            )
        ]
    )
    inside = {picture["src"].split(",")[1] for picture in page.pictures}
    for file in path.parent.glob("*.png"):
        assert base64.b64encode(file.read_bytes()).decode() in inside
    without_pictures = re.sub(r"data:image/png;base64,[\w+/=]+", "", page.source)
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", without_pictures)
    assert not {"href", "onclick", "onload"} & {name for name, _ in page.attributes}


def test_a_page_of_another_name_and_the_same_bytes_again(plain, tmp_path):
    settings = dict(matplotlib.rcParams)
    again = write(tmp_path / "mine.html")
    assert again == tmp_path / "mine.html"
    assert (tmp_path / "mine_map.png").exists()
    assert again.read_bytes() == plain.read_bytes()
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_numbers_are_those_of_the_tables(tmp_path, words_only, direction):
    trials = make_trials(errors=True, direction=direction)
    page = Page(
        write(tmp_path, trials, record=make_record(trials, direction=direction), command="kregs x")
    )
    rows = page.table("trial", "val_data_loss")
    assert len(rows) == 10
    for row, (_, trial) in zip(rows, trials.iterrows(), strict=False):
        assert row["trial"].split()[0] == str(trial["trial"])
        assert row["val_data_loss"] == f"{format_value(trial['score'])} ± 0.02"
        assert row["epoch"] == str(trial["best_epoch"])
        assert row["l2"] == format_value(trial["l2"])
        assert row["depth"] == format_value(trial["depth"]).replace("-", "–") or trial["depth"] > 0
    assert rows[0]["trial"].endswith("★ ◆")
    every = page.table("trial", "status")
    assert [row["status"] for row in every].count("failed") == 2
    assert len(every) == 24
    assert "22 of 24" in page.text
    assert "1 min 15 s" in page.text
    assert "2 failed" in page.text
    times = {row[""]: row["time"] for row in page.table("", "time")}
    assert times["longest trial"] == f"{trials['seconds'].max():.1f} s"
    assert times["the whole search"] == "1 min 15 s"
    space = {row["hyperparameter"]: row for row in page.table("hyperparameter", "chosen")}
    assert space["l2"]["of"] == "1.00e-06 to 0.1"
    assert space["l2"]["only if"] == "use_l2 = yes"
    assert space["norm"] == {
        "hyperparameter": "norm",
        "chosen": trials["norm"][0],
        "of": "batch, none",
        "scale": "choice",
        "only if": "",
    }
    assert space["dropout"]["chosen"] == format_value(trials["dropout"][0])
    importance = page.table("hyperparameter", "importance")
    assert importance[0]["hyperparameter"] == "l2"
    found = measure_importance(trials, HYPERPARAMETERS, seed=17)
    assert f"its R² is {found.r2:.2f}" in page.text
    assert importance[0]["importance"].startswith(f"{found.table['importance'][0]:.3f}")
    versions = {row["package"]: row["version"] for row in page.table("package", "version")}
    assert versions == {"kregs": "0.1.0", "keras": "3.15.1", "seed": "17"}
    assert "kregs x" in page.text
    assert f"{'lower' if direction == 'min' else 'higher'} is better" in page.text
    # at the best epoch, 4 or, where more is better, 6
    gap = 0.1 if direction == "min" else 1.1
    assert f"gap is {format_value(gap)}." in page.text


def test_folds_errors_and_a_trial_chosen_by_a_rule(tmp_path, request):
    trials = make_trials(errors=True)
    chosen = int(trials["trial"][13])
    record = make_record(trials, chosen={"trial": chosen})
    record["protocol"] |= {
        "folds": 3,
        "seeds": 2,
        "selection": "one_standard_error",
        "validation": "StratifiedKFold(n_splits=3, random_state=1, shuffle=True)",
    }
    # told by the search: the rows' indices that each run is judged at
    scores = [{"fold": fold, "epoch": 1} for fold in range(3)]
    record["trials"] = [{"trial": chosen, "scores": scores}]
    page = Page(write(tmp_path, trials, record=record, histories=lambda n: make_history(n, 3)))
    rows = page.table("trial", "val_data_loss")
    assert len(rows) == 11
    assert rows[-1]["trial"] == f"{chosen} ◆"
    assert rows[0]["trial"].endswith("★")
    assert len(page.images()) == 9
    assert (tmp_path / "report_curves_best.png").exists()
    assert "Cross-validation with 3 folds" in page.text
    assert "trained 6 times, with 2 seeds a fold" in page.text
    assert f"one_standard_error : trial {chosen}" in page.text
    assert "one standard error of the mean" in page.text
    assert "gap is 0.2." in page.text  # mean of 0.1, 0.2, 0.3
    assert "folds=3,  # StratifiedKFold" in page.source
    # the next report, of another search, leaves no picture of this one
    request.getfixturevalue("words_only")
    write(tmp_path)
    assert not (tmp_path / "report_curves_best.png").exists()


def test_a_search_scored_at_the_last_epoch(tmp_path, words_only):
    trials = make_trials()
    record = make_record(trials)
    record["protocol"]["score_at"] = "last_epoch"
    page = Page(write(tmp_path, trials, record=record))
    assert "A run is scored at its last epoch." in page.text
    assert "gap is 1.1." in page.text  # at epoch 6


def test_what_users_wrote_stays_text(tmp_path):
    evil = '<script>alert("x")</script>'
    formula = r"$\frac{$"
    trials = make_trials().rename(columns={"norm": evil, "dropout": formula})
    trials[evil] = trials[evil].replace("batch", "<b>&")
    record = make_record(trials)
    record["space"] = [
        hyperparameter("Choice", evil, values=["<b>&", "none"]),
        hyperparameter("Float", formula, min_value=0.0, max_value=0.6),
        *SPACE[:2],
    ]
    record["protocol"]["callbacks"] = [evil]
    page = Page(
        write(
            tmp_path,
            trials,
            record=record,
            hyperparameters={evil: WORDS, formula: LINEAR, "use_l2": WORDS, "l2": LOG},
            failures=pd.DataFrame({"trial": [22], "message": [evil]}),
            name=evil,
            command=evil,
        )
    )
    assert "<script" not in page.source
    assert "<b>" not in page.source
    assert page.text.count(evil) > 6
    assert page.table("trial", "reason") == [{"trial": "22", "reason": evil}]
    assert len(page.images()) == 8


def test_one_trial(tmp_path):
    trials = make_trials(1, failed=0)
    page = Page(write(tmp_path, trials))
    assert "1 of 1" in page.text
    assert "Not known: no hyperparameter took more than one value" in page.text
    assert len(page.images()) == 3  # scores, map, curves


def test_nothing_completed(tmp_path):
    trials = make_trials(3, failed=3)
    with pytest.raises(RuntimeError, match="no trial of the search 'a search' has completed"):
        write(tmp_path, trials)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "images"),
    [
        ([], 5),  # no coordinates, importance, gap
        (["norm"], 7),  # too few points to tell the importance
        (["use_l2"], 7),
        (["depth"], 7),
        (["norm", "use_l2", "depth"], 8),
    ],
)
def test_other_spaces(tmp_path, names, images):
    trials = make_trials()
    others = [name for name in HYPERPARAMETERS if name not in names]
    record = make_record(trials)
    record["space"] = [hp for hp in SPACE if hp["config"]["name"] in names]
    page = Page(
        write(
            tmp_path,
            trials.drop(columns=others),
            record=record,
            hyperparameters={name: HYPERPARAMETERS[name] for name in names},
        )
    )
    assert len(page.images()) == images
    assert ("No hyperparameter was searched." in page.text) == (not names)


def test_hyperband_interrupted_and_infinite(tmp_path):
    """Points that were trained twice, trials that were not finished, scores that are no number."""
    trials = pd.concat([make_trials(), make_trials().assign(trial=lambda t: t["trial"] + 24)])
    trials = trials.sort_values("score", ignore_index=True)
    trials.loc[18, "score"] = np.inf
    trials.loc[20, ["score", "seconds"]] = np.nan
    trials.loc[20, "best_epoch"] = pd.NA
    trials.loc[20, "status"] = "interrupted"
    record = make_record(trials)
    record["protocol"]["oracle"] = "hyperband"
    page = Page(write(tmp_path, trials, record=record))
    assert "42 of 48" in page.text
    assert "1 interrupted" in page.text
    assert "of 22 completed trials (of a point that was" in page.text


def test_histories_that_are_nan_strange_or_lost(tmp_path, request):
    def without(*names):
        return lambda trial: make_history(trial).drop(columns=list(names))

    def nothing(trial):
        raise ValueError("they are lost")

    nan = write(
        tmp_path, histories=lambda n: make_history(n).assign(data_loss=np.nan, val_data_loss=np.nan)
    )
    assert len(Page(nan).images()) == 8
    request.getfixturevalue("words_only")  # from here on pictures are left out, not drawn oddly
    page = Page(write(tmp_path, histories=nothing))
    assert "No history of these trials was kept." in page.text
    assert len(page.images()) == 5
    assert not (tmp_path / "report_gap.png").exists()
    assert "No loss was logged" in Page(write(tmp_path, histories=without("data_loss"))).text
    empty = Page(write(tmp_path, histories=lambda n: pd.DataFrame({"epoch": []})))
    assert "No history of these trials was kept." in empty.text

    def renamed(trial):
        names = {"data_loss": "loss", "val_data_loss": "val_loss"}
        return make_history(trial).rename(columns=names)

    page = Page(write(tmp_path, histories=renamed))
    assert "These losses contain the penalties" in page.text


def test_a_poor_fit_is_said(tmp_path, plain, words_only):
    trials = make_trials()
    done = trials["score"].notna()
    scores = np.random.default_rng(5).permutation(trials["score"][done])
    trials.loc[done, "score"] = scores
    trials = trials.sort_values("score", ignore_index=True)
    assert "the bars mean little" in Page(write(tmp_path, trials)).text
    assert "the bars mean little" not in Page(plain).text


def test_a_path_that_cannot_be_written(tmp_path, words_only, monkeypatch):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(ValueError, match="`path` must be a folder that can be written"):
        write(file / "below")
    page = write(tmp_path)
    before = page.read_bytes()

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(ValueError, match="No space left on device"):
        write(tmp_path, name="another")
    assert page.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_long_tables_are_cut(tmp_path, words_only):
    trials = make_trials(520)
    page = Page(write(tmp_path, trials))
    assert "20 more are in trials.csv" in page.text
    assert len(page.table("trial", "status")) == 500


def test_the_call_is_python():
    record = make_record(make_trials())
    call = ast.parse(call_of(record)).body[-1].value
    arguments = {k.arg: ast.unparse(k.value) for k in call.keywords}
    assert ast.unparse(call.func) == "kregs.tune"
    assert [a.id for a in call.args] == ["build", "x", "y"]
    assert arguments == {
        "validation_split": "0.25",
        "oracle": "'random'",
        "max_trials": "24",
        "epochs": "6",
        "batch_size": "32",
        "seed": "17",
    }
    record["objective"] = {"name": "val_f1", "direction": "max"}
    record["protocol"] = {
        "oracle": "MyOracle",
        "max_trials": None,
        "epochs": 6,
        "batch_size": None,
        "callbacks": ["A\nB()", "C"],
        "engine": "sequential",
        "validation": "given",
        "preprocess": "StandardScaler()",
        "seeds": 3,
        "selection": "one_standard_error",
        "score_at": "last_epoch",
    }
    call = ast.parse(call_of(record)).body[-1].value
    arguments = {k.arg: ast.unparse(k.value) for k in call.keywords}
    assert [a.id for a in call.args] == ["build", "x"]
    assert arguments == {
        "validation_data": "validation_data",
        "preprocess": "preprocess",
        "oracle": "oracle",
        "epochs": "6",
        "objective": "keras_tuner.Objective('val_f1', 'max')",
        "callbacks": "callbacks",
        "seeds": "3",
        "selection": "'one_standard_error'",
        "score_at": "'last_epoch'",
        "engine": "'sequential'",
        "seed": "17",
    }


def test_importance_finds_what_matters():
    trials = make_trials(80)
    found = measure_importance(trials, HYPERPARAMETERS, seed=1)
    table = found.table.set_index("hyperparameter")["importance"]
    assert table.index[0] == "l2"
    assert set(table.index) == {"l2", "dropout", "norm", "depth"}  # l2 stands for its switch
    assert table["l2"] > 1.0  # worse than the mean, once it is shuffled
    assert table[["norm", "depth"]].abs().max() < 0.05
    assert 0.8 < found.r2 <= 1.0
    assert found.points == 78
    again = measure_importance(trials, HYPERPARAMETERS, seed=1)
    pd.testing.assert_frame_equal(found.table, again.table)


def test_importance_is_of_ranks():
    trials = make_trials(60)
    far = trials.assign(score=trials["score"].where(trials.index != 57, 1e12))
    assert measure_importance(far, HYPERPARAMETERS).r2 > 0.7


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        (make_trials(MINIMUM_POINTS + 1), "11 completed points of the space are too few"),
        (make_trials().assign(score=1.0), "the same score"),
        (make_trials()[["trial", "score"]], "no hyperparameter took more than one value"),
    ],
)
def test_importance_needs_enough(trials, words):
    with pytest.raises(ValueError, match=words):
        measure_importance(trials, HYPERPARAMETERS)


def test_a_switch_that_says_more_is_kept():
    trials = pd.DataFrame({"use_l2": [True, False, True], "l2": [0.1, 0.0, 0.0], "x": [1, 1, 1]})
    assert varied(trials, dict.fromkeys(trials, LINEAR)) == ["use_l2", "l2"]
    trials = pd.DataFrame({"a/use_l2": [True, False], "a/l2": [0.1, np.nan]})
    assert varied(trials, dict.fromkeys(trials, LINEAR)) == ["a/l2"]


# --- the pictures show the tables ----------------------------------------------------------------


def line(axes, color, width=3.0):
    return next(ln for ln in axes.lines if ln.get_color() == color and ln.get_linewidth() == width)


@pytest.mark.parametrize("direction", ["min", "max"])
def test_ranked_trials_are_drawn(direction):
    trials = make_trials(errors=True, direction=direction)
    chosen = int(trials["trial"][19])
    figure = plots.ranked_trials(trials, objective="score", direction=direction, chosen=chosen)
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
    names = {name: HYPERPARAMETERS[name] for name in ("dropout", "l2", "norm", "depth")}
    axes = plots.parallel_coordinates(trials, names, chosen=chosen, **GOAL).axes[0]

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
    dotted = [ln for ln in axes.lines if ln.get_linestyle() == ":"]
    assert [len(ln.get_xdata()) for ln in dotted] == [4, 4]  # failed: they reach no score
    thin = [ln for ln in axes.lines if ln.get_linewidth() == 1.1]
    assert len(thin) == 22
    words = [text.get_text() for text in axes.texts]
    assert {"dropout", "l2", "norm", "depth", "off", "batch", "none", "0"} <= set(words)


def test_learning_curves_are_drawn():
    history = make_history(1, runs=3)
    axes = plots.learning_curves(history, objective="val_data_loss", best_epoch=4).axes[0]
    labelled = {ln.get_label(): ln for ln in axes.lines}
    mean = history.groupby("epoch")[["data_loss", "val_data_loss"]].mean()
    for label, name in (
        ("training: data_loss", "data_loss"),
        ("validation: val_data_loss", "val_data_loss"),
    ):
        np.testing.assert_allclose(labelled[label].get_ydata(), mean[name])
    assert labelled["best epoch: 4"].get_xdata()[0] == 4
    assert len([ln for ln in axes.lines if ln.get_linewidth() == 0.8]) == 6
    one = plots.learning_curves(make_history(1), objective="val_data_loss").axes[0]
    assert len(one.lines) == 2


def test_in_the_mean_a_run_that_ended_goes_on_at_its_last_value():
    history = make_history(0, runs=2).query("fold == 0 or epoch <= 3")
    whole = make_history(0).set_index("epoch")["val_data_loss"]
    axes = plots.learning_curves(history, objective="val_data_loss").axes[0]
    mean = next(ln for ln in axes.lines if ln.get_label().startswith("validation"))
    ended = np.minimum(whole.index, 3)
    expected = (whole.to_numpy() + whole[ended].to_numpy() + 0.1) / 2
    np.testing.assert_allclose(mean.get_ydata(), expected)


def test_importance_gap_and_time_are_drawn():
    table = pd.DataFrame(
        {"hyperparameter": ["l2", "a$b"], "importance": [0.5, -0.1], "standard_error": [0.1, 0.2]}
    )
    axes = plots.importance_bars(table, r2=0.25).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, -0.1]
    assert "R² = 0.25" in axes.get_title(loc="left")

    gaps = make_trials().assign(gap=lambda t: t["score"] / 2)
    gaps.loc[3, "gap"] = 1e6
    gaps.loc[4, "gap"] = np.nan
    figure = plots.generalization_gap(gaps, HYPERPARAMETERS, "dropout", metric="loss", **GOAL)
    axes = figure.axes[0]
    near = gaps[gaps["gap"] < 1e6].dropna(subset=["gap", "score"])
    np.testing.assert_allclose(axes.collections[0].get_offsets(), near[["dropout", "gap"]])
    np.testing.assert_allclose(axes.collections[0].get_array(), near["score"])
    assert "off the scale" in axes.get_legend_handles_labels()[1]
    assert axes.get_ylim()[1] < 10

    seconds = make_trials()["seconds"]
    axes = plots.time_histogram(seconds).axes[0]
    heights = np.histogram(seconds, bins=8)[0]
    assert [bar.get_height() for bar in axes.patches] == heights.tolist()
    assert axes.lines[0].get_xdata()[0] == seconds.median()


def test_the_map_marks_the_chosen_trial():
    trials = make_trials()
    arguments = {"hyperparameters": HYPERPARAMETERS, **GOAL}
    for row, marked in ((0, False), (6, True)):
        figure = plots.search_map(trials, chosen=int(trials["trial"][row]), **arguments)
        axes = figure.axes[0]
        labels = axes.get_legend_handles_labels()[1]
        assert (f"chosen: {format_value(trials['score'][row])}" in labels) == marked
        if marked:
            assert axes.collections[-1].get_offsets()[0][1] == trials["dropout"][row]


# --- a real search -------------------------------------------------------------------------------


def build(hp):
    import keras

    r = kregs.Regularization.from_hp(hp, l2=(0, 1e-5, 1e-1), dropout=(0.0, 0.5))
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dropout(r.dropout),
            keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(r.l2)),
        ]
    )
    return kregs.compile_model(model, "mse", learning_rate=0.05)


def test_a_real_search(tmp_path, request):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    y = x.sum(axis=1)
    result = kregs.tune(build, x, y, max_trials=2, epochs=2, directory=tmp_path, verbose=0)
    path = result.report()
    assert path == result.path / "report.html"
    page = Page(path)
    assert page.text.startswith("search: search report search")
    assert len(page.images()) == 7  # too few trials to tell what matters
    trials = result.trials()
    rows = page.table("trial", "val_data_loss")
    assert [row["val_data_loss"] for row in rows] == [format_value(s) for s in trials["score"]]
    assert [row["dropout"] for row in rows] == [format_value(d) for d in trials["dropout"]]
    history = result.history(trials["trial"][0]).set_index("epoch").loc[result.best_epoch]
    gap = history["val_data_loss"] - history["data_loss"]
    assert f"gap is {format_value(gap)}." in page.text
    assert "48 rows to train on, 12 to validate on" in page.text
    call = page.source.split("<pre>")[1].split("</pre>")[0]
    assert "validation_split=0.2" in call
    ast.parse(html.unescape(call))
    # a result that was saved and loaded says the same
    folder = result.save(tmp_path / "saved")["result"].parent
    request.getfixturevalue("words_only")
    loaded = Page(kregs.load_result(folder).report(tmp_path / "page.html", command="kregs tune x"))
    assert loaded.table("trial", "val_data_loss") == rows
    assert "kregs tune x" in loaded.text
    assert json.loads((folder / "result.json").read_text())["seed"] == 0
