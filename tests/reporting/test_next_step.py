"""What a report ends with: a diagnosis, the audit's findings, one next step."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fake_result import FakeResult, make_history, make_trials
from page_parser import Page

from kregs.reporting import importance, write_report
from kregs.reporting.advice import advice_of

FINDINGS = pd.DataFrame(
    {
        "code": ["KR902", "KR901"],
        "severity": ["warning", "info"],
        "layer": ["dense_1", ""],
        "what": ["an initializer <that> does not fit", "a small thing"],
        "why": ["it starts wrong", "it may matter"],
        "source": ["a paper", "another"],
        "fix": ["take another initializer", "leave it"],
    }
)


@pytest.fixture
def page_of(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, file, **_: None)
    monkeypatch.setattr(importance, "_TREES", 10)
    monkeypatch.setattr(importance, "_REPEATS", 2)
    return lambda result: Page(write_report(result, tmp_path / "page.html"))


def overfitted(trial):
    epochs = np.arange(1, 41)
    loss = 1.0 / epochs
    return pd.DataFrame(
        {"epoch": epochs, "data_loss": loss, "val_data_loss": 0.3 + loss + 0.02 * epochs}
    )


def test_the_diagnosis_is_of_the_chosen_trial(tmp_path, page_of):
    def histories(trial):
        return overfitted(trial) if trial == 3 else make_history(trial)

    text = page_of(FakeResult(tmp_path, chosen=3, histories=histories, space=[])).text
    assert "Diagnosis of trial 3, the chosen one overfitting (confidence" in text
    assert "Next step: multiply λ by 10" in text
    assert "Not made: the search was begun by a version that had none" in text


def test_faults_of_the_model_come_first(tmp_path, page_of):
    page = page_of(FakeResult(tmp_path, found=FINDINGS, histories=overfitted))
    assert "Next step: take another initializer (KR902)" in page.text
    assert "1 warning, 1 info" in page.text
    rows = page.table("code", "severity")
    assert [row["what"] for row in rows] == list(FINDINGS["what"])
    assert [row["layer"] for row in rows] == ["dense_1", ""]


def test_what_is_only_worth_knowing_does_not(tmp_path, page_of):
    harmless = FINDINGS[FINDINGS["severity"] == "info"]
    text = page_of(FakeResult(tmp_path, found=harmless, histories=overfitted, space=[])).text
    assert "Next step: multiply λ by 10" in text
    nothing = page_of(FakeResult(tmp_path, found=FINDINGS[:0], histories=overfitted)).text
    assert "default hyperparameters: nothing found." in nothing


@pytest.mark.parametrize("lost", ["empty", "one epoch", "unreadable"])
def test_a_history_that_tells_nothing_costs_no_report(tmp_path, page_of, lost):
    def histories(trial):
        if lost == "unreadable":
            raise ValueError("the history of trial 3 is lost")
        return make_history(trial).head(0 if lost == "empty" else 1)

    text = page_of(FakeResult(tmp_path, histories=histories)).text
    assert "none, since" in text
    step = "bring the search's folder back" if lost == "unreadable" else "search with more epochs"
    assert f"Next step: {step}" in text


def test_a_trial_that_was_cut_short_needs_more_time(tmp_path, page_of):
    result = FakeResult(tmp_path, histories=lambda trial: make_history(trial).head(1))
    trials = result.trials().assign(status="cut short")
    result.trials = lambda: trials
    assert "Next step: search with more time" in page_of(result).text


def test_a_loss_that_is_no_number_is_a_diagnosis(tmp_path, page_of):
    def histories(trial):
        return make_history(trial).assign(data_loss=math.nan, val_data_loss=math.nan)

    assert "diverging (confidence" in page_of(FakeResult(tmp_path, histories=histories)).text


@pytest.mark.parametrize(
    ("l2", "dropout", "step"),
    [
        (1e-3, 0.59, "raise the dropout rates"),  # it was at the end of its range
        (0.09, 0.3, "multiply λ by 10"),
        (1e-3, 0.3, "stop at the lowest validation loss"),
    ],
)
def test_what_the_search_has_settled_is_no_next_step(tmp_path, l2, dropout, step):
    table = make_trials()
    table.loc[0, ["l2", "dropout"]] = l2, dropout
    advice = advice_of(FakeResult(tmp_path, table, histories=overfitted))
    assert advice.diagnosis.next_steps[0].startswith("multiply λ by 10")
    assert advice.next_step.startswith(step)


def test_a_terminal_shows_the_same(tmp_path):
    lines = advice_of(FakeResult(tmp_path, found=FINDINGS, histories=overfitted)).lines()
    assert lines[0].startswith("Diagnosis of trial")
    assert "overfitting (confidence" in lines[0]
    assert "  KR902 warning: dense_1: an initializer <that> does not fit" in lines
    assert "  KR901 info: a small thing" in lines
    assert lines[-1] == "Next step: take another initializer (KR902)"
