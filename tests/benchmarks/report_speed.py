"""How long a report takes, by the number of trials; the result is a fake, no search is run.

Run it from the repository: `python tests/benchmarks/report_speed.py`. Each trial has 5 folds and
2 seeds, 30 epochs, and its history costs a millisecond to read.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reporting"))

from fake_result import FakeResult, change, make_history, make_trials

from kregs.reporting import write_report

COUNTS = (32, 128, 512, 2048)
HISTORY_SECONDS = 0.001


def measure(count: int) -> str:
    """Write a report of so many trials; return its row of the table."""
    history = make_history(0, folds=5, seeds=2, epochs=30)
    with tempfile.TemporaryDirectory() as folder:
        result = FakeResult(
            Path(folder),
            make_trials(count, errors=True),
            protocol=change(folds=5, seeds=2, validation="StratifiedKFold(n_splits=5)"),
            histories=lambda trial: history,
            epochs=20,
            history_seconds=HISTORY_SECONDS,
        )
        started, cpu_started = time.perf_counter(), time.process_time()
        page = write_report(result)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
        megabytes = page.stat().st_size / 1e6
    return f"{count:6}  {seconds:7.2f}  {cpu:5.2f}  {len(result.read):9}  {megabytes:7.1f}"


def main() -> None:
    measure(COUNTS[0])  # matplotlib looks for its fonts
    print("trials  seconds    CPU  histories  page, MB")
    for count in COUNTS:
        print(measure(count), flush=True)


if __name__ == "__main__":
    main()
