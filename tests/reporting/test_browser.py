"""The page in a browser: its script runs under its policy, sorts, filters, and fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from fake_result import FakeResult, change, make_trials

from kregs.reporting import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

LONG = "encoder[0]/conv_block[2]/spatial_dropout_rate"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    trials = make_trials(40, failed=3, errors=True).rename(columns={"dropout": LONG})
    samplings = {"use_l2": None, "l2": "log", LONG: "linear", "norm": None, "depth": "linear"}
    result = FakeResult(
        tmp_path_factory.mktemp("browser"),
        trials,
        protocol=change(folds=3, validation="KFold()"),
        samplings=samplings,
    )
    return write_report(result), trials


def dom(path):
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    run = subprocess.run(
        [CHROMIUM, *arguments, "--dump-dom", "--virtual-time-budget=4000", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.stdout


def ask(path, script, width=1280):
    """Return what a script finds on the page, shown in a frame so wide.

    The page's own policy is taken away for it. A window cannot be as narrow as a phone.
    """
    source = path.read_text(encoding="utf-8")
    source, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert count == 1
    driver = (
        "<script>(() => { const answer = (() => {" + script + "})();"
        'const place = parent.document.createElement("pre"); place.id = "answer";'
        "place.textContent = JSON.stringify(answer); parent.document.body.append(place);"
        "})()</script>"
    )
    page = html.escape(source.replace("</body>", driver + "</body>"))
    frame = path.with_name("frame.html")
    frame.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body>'
        f'<iframe width="{width}" height="1500" frameborder="0" srcdoc="{page}"></iframe>',
        encoding="utf-8",
    )
    return json.loads(
        html.unescape(re.search(r'<pre id="answer">(.*?)</pre>', dom(frame), re.S)[1])
    )


HELPERS = """
const box = document.querySelector("[data-sortable]");
const head = (name) => [...box.querySelectorAll("th")].find((th) => th.textContent === name);
const cells = (name) => { const at = [...box.querySelectorAll("th")].indexOf(head(name));
  return [...box.querySelectorAll("tbody tr")].filter((row) => !row.hidden)
    .map((row) => row.cells[at].textContent); };
document.querySelectorAll("details").forEach((part) => { part.open = true; });
"""


def test_the_policy_lets_the_page_s_own_script_run(page):
    path, _ = page
    source = dom(path)
    assert source.count('aria-sort="none"') == 5 + 4  # and no use_l2 beside l2
    assert '<input type="search"' in source
    assert source.count("<style") == 1


def test_the_policy_stops_every_other_script(page):
    path, _ = page
    changed = path.with_name("changed.html")
    source = path.read_text(encoding="utf-8")
    injected = '<script>document.title = "changed"</script><img src="x" onerror="document.title=1">'
    changed.write_text(source.replace("</body>", injected + "</body>"), encoding="utf-8")
    assert "<title>a search: search report</title>" in dom(changed)


def test_a_click_sorts_and_another_sorts_the_other_way(page):
    path, trials = page
    answer = ask(
        path,
        HELPERS
        + """
        const steps = [];
        for (const name of ["l2", "l2", "norm", "trial", "val_data_loss", "depth"]) {
          head(name).querySelector("button").click();
          steps.push([cells("trial"), head(name).getAttribute("aria-sort"),
            box.querySelectorAll('th[aria-sort="none"]').length]);
        }
        return steps;
        """,
    )
    numbers = [[int(cell.split()[0]) for cell in cells] for cells, _, _ in answer]
    table = trials.set_index("trial")
    l2 = table["l2"][numbers[0]].to_numpy()
    assert (np.diff(l2) >= 0).all()
    assert (np.diff(table["l2"][numbers[1]]) <= 0).all()
    assert table["norm"][numbers[2]].is_monotonic_increasing
    assert numbers[3] == sorted(numbers[3])
    scores = table["score"][numbers[4]]
    assert (np.diff(scores[:37]) >= 0).all()
    assert scores[37:].isna().all()  # those without a score stay last
    assert table["depth"][numbers[5]].isna().to_numpy().nonzero()[0].min() >= (
        table["depth"].notna().sum()
    )
    assert [state for _, state, _ in answer] == ["ascending", "descending"] + ["ascending"] * 4
    assert {others for _, _, others in answer} == {8}


def test_heads_can_be_reached_and_pressed_by_keyboard(page):
    answer = ask(
        page[0],
        HELPERS
        + """
        const buttons = [...box.querySelectorAll("th button")];
        buttons[2].focus();
        return [buttons.length, document.activeElement === buttons[2],
          buttons.every((button) => button.tabIndex === 0 && button.type === "button")];
        """,
    )
    assert answer == [9, True, True]


def test_a_field_filters_rows(page):
    path, trials = page
    answer = ask(
        path,
        HELPERS
        + """
        const field = document.querySelector(".filter input");
        const type = (words) => { field.value = words; field.dispatchEvent(new Event("input"));
          return [cells("trial").length, document.querySelector(".filter output").textContent]; };
        return [type("FAILED"), type("completed  batch"), type("nothing has this"), type(" ")];
        """,
    )
    both = ((trials["status"] == "completed") & (trials["norm"] == "batch")).sum()
    assert answer == [[3, "3 of 40"], [both, f"{both} of 40"], [0, "0 of 40"], [40, ""]]


def test_on_a_phone_only_the_tables_scroll_sideways(page):
    answer = ask(
        page[0],
        HELPERS
        + """
        const frame = document.documentElement;
        return [frame.clientWidth, frame.scrollWidth, box.clientWidth, box.scrollWidth];
        """,
        width=390,
    )
    client, scroll, box_client, box_scroll = answer
    assert client == 390
    assert scroll == client
    assert box_client < client
    assert box_scroll > client
