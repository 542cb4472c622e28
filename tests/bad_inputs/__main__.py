"""Run all bad inputs and print how many of them were clear errors: `python tests/bad_inputs`."""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

from all_cases import SUBJECTS, make_cases
from harness import SECONDS, run, summary


def main() -> int:
    verbose = "-v" in sys.argv
    chosen = [word for word in sys.argv[1:] if not word.startswith("-")]
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for subject in chosen or SUBJECTS:
            for case in make_cases(subject, folder):
                # where a signal does not help: in C
                faulthandler.dump_traceback_later(3 * SECONDS, exit=True)
                verdict = run(case)
                faulthandler.cancel_dump_traceback_later()
                verdicts.append((case, verdict))
                if verdict.kind != "clear" or verbose:
                    print(f"{verdict.kind}: {case.entry}({case.name})\n    {verdict.error}")
    print(summary(verdicts))
    return 0 if all(verdict.kind == "clear" for _, verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
