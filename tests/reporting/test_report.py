"""What the page says, and that it needs nothing else: pages are written once for many tests."""

from __future__ import annotations

import ast
import base64
import dataclasses
import hashlib
import html
import io
import re

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_result import (
    PROTOCOL,
    SAMPLINGS,
    SPACE,
    FakeResult,
    change,
    hyperparameter,
    make_history,
    make_trials,
)
from matplotlib.image import imsave
from page_parser import Page

from kregs.reporting import importance, write_report
from kregs.reporting.report import code_spans
from kregs.reporting.report_sections import gap
from kregs.reporting.tables import format_value

PIXEL = io.BytesIO()
imsave(PIXEL, np.zeros((1, 1, 3)), format="png")


def save_pixel(self, file, **_):
    file.write(PIXEL.getvalue())


@pytest.fixture(scope="module")
def quick():
    """For tests of what is written: pictures of one pixel, and a smaller forest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matplotlib.figure.Figure, "savefig", save_pixel)
        patch.setattr(importance, "_TREES", 10)
        patch.setattr(importance, "_REPEATS", 2)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The path of the default page, with all its pictures drawn."""
    folder = tmp_path_factory.mktemp("plain") / "new" / "folder"
    path = write_report(FakeResult(folder))
    assert path == folder / "report.html"
    return path


@pytest.fixture(scope="module")
def plain_page(plain):
    return Page(plain)


# --- the page as a whole -------------------------------------------------------------------------


def test_the_sections(plain_page):
    assert plain_page.headings == [
        "What was searched",
        "How trials were judged",
        "The best trials",
        "Where the good trials lie",
        "Learning curves",
        "How much each hyperparameter mattered",
        "Generalization gap against strength",
        "Time spent",
        "What to do next",
        "To repeat it",
    ]


def test_all_pictures_are_within_and_say_what_they_show(plain, plain_page):
    images = plain_page.images()
    assert len(images) == 9
    assert all(image.shape[1] == round(5.6 * 160) and image[..., :3].std() > 0 for image in images)
    assert all(len(picture["alt"]) > 20 for picture in plain_page.pictures)
    assert [file.name for file in plain.parent.iterdir()] == ["report.html"]


def test_the_page_needs_nothing_else(plain_page):
    parts = re.sub(
        r"data:image/png;base64,[\w+/=]+|<script>.*</script>", "", plain_page.source, flags=re.S
    )
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", parts)
    names = {name for name, _ in plain_page.attributes}
    assert not {"href", "style", "onclick", "onload"} & names


def test_the_policy_allows_one_script_by_its_hash_and_nothing_else(plain_page):
    (script,), (style,) = plain_page.scripts, plain_page.styles

    def source(text):
        digest = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(digest).decode()}'"

    assert dict(part.split(" ", 1) for part in plain_page.policy.split("; ")) == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "style-src": source(style),
        "script-src": source(script),
    }
    assert not re.search(r"innerHTML|eval|fetch|XMLHttp|document\.write", script)


def test_without_its_script_the_page_is_whole(plain_page):
    """Fields and buttons that do nothing without it are made by it."""
    assert not {"button", "input", "form", "noscript"} & set(plain_page.tags)
    assert plain_page.source.count(" data-sortable>") == 1
    assert "details" in plain_page.tags


def test_what_was_rounded_is_sorted_by_what_it_is(plain_page):
    trials = make_trials()
    values = plain_page.values("trial", "status")
    rows = plain_page.table("trial", "status")
    assert [row["trial"] for row in values] == [str(number) for number in trials["trial"]]
    for name, column in (("val_data_loss", "score"), ("l2", "l2"), ("seconds", "seconds")):
        kept = [
            np.nan if row[name] == "–" else float(value[name] or row[name])
            for row, value in zip(rows, values, strict=True)
        ]
        np.testing.assert_array_equal(kept, trials[column])
    assert all(row["norm"] is None for row in values)


def test_the_same_bytes_again_under_another_name(plain, tmp_path):
    settings = dict(matplotlib.rcParams)
    again = write_report(FakeResult(plain.parent), tmp_path / "mine.html")
    assert again == tmp_path / "mine.html"
    assert [file.name for file in tmp_path.iterdir()] == ["mine.html"]
    assert again.read_bytes() == plain.read_bytes()
    assert dict(matplotlib.rcParams) == settings


# --- the numbers ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["min", "max"])
def numbers(request, quick, tmp_path_factory):
    """A page of trials with standard errors, and the result it was made of."""
    trials = make_trials(errors=True, direction=request.param)
    result = FakeResult(
        tmp_path_factory.mktemp("numbers"), trials, protocol=change(direction=request.param)
    )
    return Page(write_report(result, command="kregs x")), result


def test_the_best_trials_are_those_of_the_table(numbers):
    page, result = numbers
    rows = page.table("trial", "val_data_loss")
    assert len(rows) == 10
    for row, (_, trial) in zip(rows, result.table.iterrows(), strict=False):
        assert row["trial"].split()[0] == str(trial["trial"])
        assert row["val_data_loss"] == f"{format_value(trial['score'])} ± 0.02"
        assert row["epoch"] == str(trial["best_epoch"])
        assert row["l2"] == format_value(trial["l2"])
        assert row["depth"] == format_value(trial["depth"]).replace("-", "–") or trial["depth"] > 0
    assert rows[0]["trial"].endswith("★ ◆")


def test_all_trials_and_their_times_are_told(numbers):
    page, result = numbers
    every = page.table("trial", "status")
    assert [row["status"] for row in every].count("failed") == 2
    assert len(every) == 24
    assert "22 of 24" in page.text
    assert "1 min 15 s" in page.text
    assert "2 failed" in page.text
    times = {row[""]: row["time"] for row in page.table("", "time")}
    assert times["longest trial"] == f"{result.table['seconds'].max():.1f} s"
    assert times["the whole search"] == "1 min 15 s"


def test_the_space_is_told(numbers):
    page, result = numbers
    space = {row["hyperparameter"]: row for row in page.table("hyperparameter", "chosen")}
    assert space["l2"]["of"] == "1.00e-06 to 0.1"
    assert space["l2"]["only if"] == "use_l2 = yes"
    assert space["norm"] == {
        "hyperparameter": "norm",
        "chosen": result.table["norm"][0],
        "of": "batch, none",
        "scale": "choice",
        "only if": "",
    }
    assert space["dropout"]["chosen"] == format_value(result.table["dropout"][0])


def test_the_importance_is_told(numbers):
    page, result = numbers
    rows = page.table("hyperparameter", "importance")
    assert rows[0]["hyperparameter"] == "l2"
    measured = importance.measure_importance(result.table, SAMPLINGS, seed=17)
    assert f"its R² is {measured.r2:.2f}" in page.text
    assert rows[0]["importance"].startswith(f"{measured.table['importance'][0]:.3f}")


def test_what_repeats_it_is_told(numbers):
    page, result = numbers
    versions = {row["package"]: row["version"] for row in page.table("package", "version")}
    assert versions == {"kregs": "0.1.0", "keras": "3.15.1", "seed": "17"}
    assert "kregs x" in page.text
    assert "CRC-32 was 12345" in page.text
    protocol = {row["name"]: row["value"] for row in page.table("name", "value")}
    assert protocol["epochs"] == "6"
    assert protocol["data: validation"] == "stratified split"
    assert protocol["callbacks"] == "StrictEarlyStopping(patience=5)"
    pre = page.source.split("<pre>")[2].split("</pre>")[0]
    assert result.protocol.call().strip().splitlines()[-1] == pre.strip().splitlines()[-1]


def test_the_gap_is_that_of_the_best_epoch(numbers):
    page, result = numbers
    better = {"min": "lower", "max": "higher"}[result.protocol.direction]
    assert f"{better} is better" in page.text
    # at the best epoch, 4 or, where more is better, 6
    expected = 0.1 if better == "lower" else 1.1
    assert f"gap is {format_value(expected)}." in page.text


def test_protocol_sentences_are_shown_with_code(plain_page):
    assert (
        "<li>Trials are judged by <code>val_data_loss</code>, lower is better" in plain_page.source
    )
    assert "90 rows to train on, 30 to validate on (stratified split)" in plain_page.text
    assert "chosen by the rule <code>best</code>.</li>" in plain_page.source


# --- folds, seeds, a rule ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A page of 3 folds and 2 seeds, another trial than the best chosen, nested; drawn."""
    trials = make_trials(errors=True)
    protocol = change(
        folds=3,
        seeds=2,
        selection="one_standard_error",
        epoch_chosen_on="the other folds",
        validation="StratifiedKFold(n_splits=3, random_state=1, shuffle=True)",
        validation_split=None,
    )
    result = FakeResult(
        tmp_path_factory.mktemp("folds"),
        trials,
        protocol=protocol,
        chosen=int(trials["trial"][13]),
        epochs=2,
        nested=pd.DataFrame({"fold": [0, 1], "score": [0.25, 0.75], "l2": [0.001, 0.01]}),
        score_bias=0.03125,
    )
    return Page(write_report(result)), result


def test_a_trial_chosen_by_a_rule(folds):
    page, result = folds
    rows = page.table("trial", "val_data_loss")
    assert len(rows) == 11
    assert rows[-1]["trial"] == f"{result.chosen} ◆"
    assert rows[0]["trial"].endswith("★")
    best, chosen = result.table["score"][0], result.table["score"][13]
    assert (
        f"one_standard_error : trial {result.chosen} ({format_value(chosen)} ± 0.02), not the best "
        f"one, trial {result.best_trial} ({format_value(best)} ± 0.02)"
    ) in page.text
    assert len(page.images()) == 10  # with the learning curves of the best
    assert "one standard error of the difference, fold by fold" in page.text
    assert "is told by the numbers that restrain its built model." in page.text


def test_the_best_score_is_said_to_be_too_good(folds, plain_page):
    page, _ = folds
    words = "by the scores of the folds it is too good by about 0.031 (Tibshirani and Tibshirani"
    assert f"The best of 22 scores is also a lucky one: {words}" in page.text
    assert "Tibshirani" not in plain_page.text
    assert "a lucky one: measure the model" in plain_page.text


def test_an_error_over_seeds_is_one_of_training(tmp_path, quick):
    protocol = change(seeds=3, selection="one_standard_error", restraint=("l2", "-depth"))
    page = Page(write_report(FakeResult(tmp_path, make_trials(errors=True), protocol=protocol)))
    assert "over seeds: of training, not of sampling" in page.text
    assert "over folds" not in page.text
    assert "one standard error of the difference, seed by seed" in page.text
    assert "is told by l2 , then -depth ." in page.text
    assert 'restraint=["l2", "-depth"],' in html.unescape(page.source)


def test_folds_and_seeds_are_told(folds):
    page, _ = folds
    assert "Cross-validation with 3 folds" in page.text
    assert "trained 6 times, with 2 seeds a fold" in page.text
    assert "one standard error of the mean over folds, so of sampling" in page.text
    assert "folds=3,  # StratifiedKFold" in page.source


def test_the_gap_is_the_mean_over_runs_where_they_are_scored(folds):
    page, _ = folds
    assert f"gap is {format_value(np.mean([0.1 * run for run in range(1, 7)]))}." in page.text


def test_nested_scores_are_shown(folds, plain_page):
    page, _ = folds
    assert "The search on rows that it did not see" in page.headings
    assert "each of 2 outer folds" in page.text
    assert "val_data_loss is 0.5 ± 0.35 (mean ± standard deviation over the folds)" in page.text
    best = format_value(folds[1].table["score"][0])
    assert f"The best trial's own, which it was chosen by, is {best} ± 0.02." in page.text
    assert page.table("fold", "score")[1] == {"fold": "1", "score": "0.75", "l2": "0.01"}
    assert "outer fold" not in plain_page.text


def test_scored_at_the_last_epoch(tmp_path, quick):
    page = Page(write_report(FakeResult(tmp_path, protocol=change(score_at="last_epoch"))))
    assert "A run is scored at its last epoch." in page.text
    assert "gap is 1.1." in page.text  # at epoch 6


# --- what users wrote stays text -----------------------------------------------------------------

EVIL = '<script>alert("x")</script>'
TEMPLATE = "{{ 7 * 7 }}{% raw %}"
FORMULA = r"$\frac{$"


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A page, drawn, of names, values and messages that would be code elsewhere."""
    trials = make_trials().rename(columns={"norm": EVIL, "dropout": FORMULA, "depth": TEMPLATE})
    trials[EVIL] = trials[EVIL].replace("batch", "<b>&'")
    space = [
        hyperparameter("Choice", EVIL, values=["<b>&'", "none"]),
        hyperparameter("Float", FORMULA, min_value=0.0, max_value=0.6),
        hyperparameter("Int", TEMPLATE, min_value=1, max_value=3),
        *SPACE[:2],
    ]
    result = FakeResult(
        tmp_path_factory.mktemp("evil"),
        trials,
        protocol=change(
            callbacks=(EVIL,), oracle=f"`{EVIL}", callbacks_given=True, preprocess=TEMPLATE
        ),
        space=space,
        samplings={EVIL: None, FORMULA: "linear", TEMPLATE: "linear", "use_l2": None, "l2": "log"},
        failed=pd.DataFrame({"trial": [22, 23], "message": [EVIL, TEMPLATE]}),
        name=EVIL,
        versions={EVIL: TEMPLATE},
        nested=pd.DataFrame({"fold": [0], "score": [0.5], EVIL: ["<b>"]}),
    )
    return Page(write_report(result, command=EVIL))


def test_nothing_becomes_html_or_template(evil):
    assert evil.source.count("<script") == len(evil.scripts) == 1
    assert "<b>" not in evil.source
    assert evil.text.count(EVIL) > 8
    assert evil.table("trial", "reason") == [
        {"trial": "22", "reason": EVIL},
        {"trial": "23", "reason": TEMPLATE},
    ]
    assert TEMPLATE in evil.table("trial", "status")[0]
    assert evil.table("package", "version")[0] == {"package": EVIL, "version": TEMPLATE}


def test_quotes_stay_within_an_attribute(evil):
    assert any(EVIL in picture["alt"] for picture in evil.pictures)
    assert all(set(picture) == {"src", "alt"} for picture in evil.pictures)


def test_formulas_are_drawn_as_text(evil):
    assert len(evil.images()) == 9


def test_code_spans_escape_first():
    assert code_spans("a `<b>` & `c`") == "a <code>&lt;b&gt;</code> &amp; <code>c</code>"
    assert code_spans("an odd ` <i>") == "an odd ` &lt;i&gt;"
    assert code_spans("") == ""


# --- searches of other kinds ---------------------------------------------------------------------


def test_one_trial(tmp_path, quick):
    page = Page(write_report(FakeResult(tmp_path, make_trials(1, failed=0))))
    assert "1 of 1" in page.text
    assert "Not known: no hyperparameter took more than one value" in page.text
    assert len(page.images()) == 4  # scores, map, curves, diagnosis


def test_nothing_completed(tmp_path):
    with pytest.raises(RuntimeError, match="no trial of the search 'a search' has completed"):
        write_report(FakeResult(tmp_path, make_trials(3, failed=3)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "images"),
    [
        ([], 6),  # no coordinates, importance, gap
        (["norm"], 8),  # too few points to tell the importance
        (["use_l2"], 8),
        (["depth"], 8),
        (["norm", "use_l2", "depth"], 9),
    ],
)
def test_other_spaces(tmp_path, quick, names, images):
    result = FakeResult(
        tmp_path,
        make_trials().drop(columns=[name for name in SAMPLINGS if name not in names]),
        space=[hp for hp in SPACE if hp["config"]["name"] in names],
        samplings={name: SAMPLINGS[name] for name in names},
    )
    page = Page(write_report(result))
    assert len(page.images()) == images
    assert ("No hyperparameter was searched." in page.text) == (not names)


def test_hyperband_interrupted_and_infinite(tmp_path, quick):
    """Points that were trained twice, trials that were not finished, scores that are no number."""
    trials = pd.concat([make_trials(), make_trials().assign(trial=lambda t: t["trial"] + 24)])
    trials = trials.sort_values("score", ignore_index=True)
    trials.loc[18, "score"] = np.inf
    trials.loc[20, ["score", "seconds"]] = np.nan
    trials.loc[20, "best_epoch"] = pd.NA
    trials.loc[20, "status"] = "interrupted"
    page = Page(write_report(FakeResult(tmp_path, trials, protocol=change(oracle="hyperband"))))
    assert "42 of 48" in page.text
    assert "1 interrupted" in page.text
    assert "of 22 completed trials (of a point that was" in page.text


def test_histories_that_are_nan(tmp_path):
    def nan(trial):
        return make_history(trial).assign(data_loss=np.nan, val_data_loss=np.nan)

    page = Page(write_report(FakeResult(tmp_path, histories=nan)))
    assert len(page.images()) == 9
    assert "gap is" not in page.text


def lose(trial):
    raise ValueError("they are lost")


@pytest.mark.parametrize(
    ("histories", "words", "images"),
    [
        (lose, "No history of these trials was kept.", 5),
        (lambda n: pd.DataFrame({"epoch": []}), "No history of these trials was kept.", 5),
        (lambda n: make_history(n).drop(columns="data_loss"), "No loss was logged", 7),
        (
            lambda n: make_history(n).rename(
                columns={"data_loss": "loss", "val_data_loss": "val_loss"}
            ),
            "These losses contain the penalties",
            9,
        ),
    ],
)
def test_histories_that_are_strange_or_lost(tmp_path, quick, histories, words, images):
    page = Page(write_report(FakeResult(tmp_path, histories=histories)))
    assert words in page.text
    assert len(page.images()) == images


def test_a_poor_fit_is_said(tmp_path, quick, plain_page):
    trials = make_trials()
    done = trials["score"].notna()
    trials.loc[done, "score"] = np.random.default_rng(5).permutation(trials["score"][done])
    trials = trials.sort_values("score", ignore_index=True)
    assert "the bars mean little" in Page(write_report(FakeResult(tmp_path, trials))).text
    assert "the bars mean little" not in plain_page.text


# --- many trials ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(quick, tmp_path_factory):
    result = FakeResult(
        tmp_path_factory.mktemp("many"),
        make_trials(1300, failed=10),
        failed=pd.DataFrame({"trial": range(1290, 1300), "message": "it broke"}),
    )
    return Page(write_report(result)), result


def test_long_tables_are_cut(many):
    page, _ = many
    assert "800 more are in trials.csv" in page.text
    assert len(page.table("trial", "status")) == 500


def test_of_many_trials_few_histories_are_read_and_each_once(many):
    page, result = many
    assert len(result.read) == len(set(result.read)) <= gap.MOST_TRIALS + 2
    ranked = result.table["trial"]
    assert {ranked[0], ranked[1289]} <= set(result.read)
    assert f"{gap.MOST_TRIALS} of 1290 trials: the best, the worst, the chosen" in page.text


def test_of_many_trials_some_are_drawn_for_the_forest(many):
    page, _ = many
    assert "of 1000 completed trials, drawn at random, to predict" in page.text


def test_many_failures_are_cut(tmp_path, quick):
    failed = pd.DataFrame({"trial": range(501), "message": "it broke"})
    page = Page(write_report(FakeResult(tmp_path, failed=failed)))
    assert len(page.table("trial", "reason")) == 500
    assert "1 more are not shown" in page.text


# --- where it is written -------------------------------------------------------------------------


def test_a_path_that_cannot_be_written(tmp_path, quick, monkeypatch):
    file = tmp_path / "file"
    file.write_text("not a folder")
    result = FakeResult(tmp_path)
    with pytest.raises(ValueError, match="`path` must be a folder that can be written"):
        write_report(result, file / "below")
    page = write_report(result)
    before = page.read_bytes()

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(ValueError, match="No space left on device"):
        write_report(dataclasses.replace(result, name="another"))
    assert page.read_bytes() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_call_on_the_page_is_python(plain_page):
    pre = plain_page.source.split("<pre>")[1].split("</pre>")[0]
    call = html.unescape(pre)
    assert call.strip() == PROTOCOL.call().strip()
    ast.parse(call)
