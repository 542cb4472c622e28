from __future__ import annotations

import io

import pytest
from rich.console import Console

from kregs.reporting import SearchProgress
from kregs.reporting.progress import EpochLines


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


class CountedReads(dict):
    """What is running, and how much of it was looked at."""

    reads = 0

    def items(self):
        for item in super().items():
            self.reads += 1
            yield item


def test_live_display_looks_at_few_of_the_trials_that_run():
    progress = SearchProgress(5000, verbose=0)
    for number in range(5000):
        progress.trial_started(str(number), {"l2": number})
    progress._running = running = CountedReads(progress._running)
    console = Console(file=io.StringIO(), width=100)
    console.print(progress._render())
    assert running.reads <= 3
    assert "and 4997 more are running" in console.file.getvalue()
    assert len(console.file.getvalue().splitlines()) == 6


def test_trials_may_start_and_end_while_the_display_is_drawn():
    import threading

    progress = SearchProgress(verbose=0)
    ended = threading.Event()
    errors = []

    def draw():
        try:
            while not ended.is_set():
                progress._render()
        except RuntimeError as error:  # a dictionary that changed size
            errors.append(error)

    thread = threading.Thread(target=draw)
    thread.start()
    for number in range(2000):
        progress.trial_started(str(number), {})
        if number >= 5:
            progress.trial_ended(str(number - 5), 1.0)
    ended.set()
    thread.join()
    assert errors == []


def test_names_with_brackets_are_no_markup():
    progress = SearchProgress(3, objective="val[loss]", verbose=0, best=(0.5, {"a[red]": 1}))
    progress.trial_started("0", {"b[/]": 2})
    console = Console(file=io.StringIO(), width=100)
    console.print(progress._render())
    assert "best val[loss] 0.5 (a[red]=1)" in console.file.getvalue()
    assert "b[/]=2" in console.file.getvalue()


def test_lines_of_epochs_come_at_intervals_with_the_time_left(monkeypatch):
    seconds = iter([0.0, 10.0, 13.0, 14.0, 30.0])  # the first epochs are compiled before
    monkeypatch.setattr("kregs.reporting.progress.time.monotonic", lambda: next(seconds))
    console = Console(file=io.StringIO(), width=100)
    lines = EpochLines("networks", seconds=3.0, console=console)
    for trained in (250, 1000, 1250, 5000):
        lines(trained, 5000)
    assert console.file.getvalue().splitlines() == [
        "networks: 250/5,000 epochs, 10 s",
        "networks: 1,000/5,000 epochs, 13 s, about 16 s left",
        "networks: 5,000/5,000 epochs, 30 s",
    ]
