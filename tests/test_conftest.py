"""What the fixtures of all tests promise."""

from __future__ import annotations

import signal
import subprocess
import sys


def test_tests_of_pure_python_load_no_tensorflow(repository):
    program = (
        "import pytest, sys; code = pytest.main(['tests/test_files.py', '-q', '-n0', '-p', "
        "'no:cacheprovider']); print({'tensorflow', 'keras'} & set(sys.modules)); sys.exit(code)"
    )
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, cwd=repository
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "set()"


def test_a_process_obeys_an_interrupt_that_its_parent_ignores(start_interruptible):
    program = "import time; print('ready', flush=True); time.sleep(60)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = start_interruptible(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
