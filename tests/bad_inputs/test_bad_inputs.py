"""Every bad input is a clear error: none is silent, comes from inside or hangs."""

from __future__ import annotations

import pytest
from all_cases import SUBJECTS, good_calls, make_cases
from harness import Case, run, summary


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS)
def test_bad_inputs_are_clear_errors(subject, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = make_cases(subject, str(tmp_path))
    assert len(cases) > 50
    verdicts = [(case, run(case)) for case in cases]
    wrong = [
        f"{verdict.kind}: {case.entry}({case.name})\n    {verdict.error}"
        for case, verdict in verdicts
        if verdict.kind != "clear"
    ]
    assert not wrong, "\n".join([*wrong, summary(verdicts)])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_same_calls_with_good_values_pass(subject, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in good_calls(subject, str(tmp_path)).values():
        call()


def _inside():
    return int("a")  # a ValueError that names nothing


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: None, "silent"),
        (_inside, "from inside"),
        (lambda: {}["units"], "wrong type"),
    ],
)
def test_the_judge_tells_bad_errors(call, kind):
    assert run(Case("entry", "name", call, ("units",))).kind == kind


def test_the_judge_reads_the_message():
    from kregs.validation import check_integer

    def call():
        check_integer("units", 2.5)

    assert run(Case("entry", "name", call, (r"`units`", r"2\.5"))).kind == "clear"
    assert run(Case("entry", "name", call, (r"`filters`", r"2\.5"))).kind == "unclear"


def test_the_judge_stops_what_hangs(monkeypatch):
    monkeypatch.setattr("harness.SECONDS", 0.1)

    def call():
        while True:
            pass

    assert run(Case("entry", "name", call, ())).kind == "hanging"
