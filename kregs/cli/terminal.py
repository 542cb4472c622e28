"""Terminal: exit codes, messages on stderr, TensorFlow's log silenced, Ctrl-C that is not lost."""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DONE, BROKEN, BAD_USE, INTERRUPTED = 0, 1, 2, 130


def complain(message: str | Sequence[str], code: int) -> int:
    """Print a message, or each of several, on one line of stderr and return the exit code."""
    messages = [message] if isinstance(message, str) else message
    lines = [f"kregs: {' '.join(text.split())}" for text in messages]
    print("\n".join(lines), file=sys.stderr)
    return code


@contextlib.contextmanager
def interrupts_repeated() -> Iterator[None]:
    """Raise a `KeyboardInterrupt` again that Python has swallowed.

    Where it falls into a destructor or a weak reference's callback, of which Keras runs many
    between trials, Python prints "Exception ignored" and goes on.
    """
    previous = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            # from another thread: here it would be swallowed again
            threading.Timer(0.05, _thread.interrupt_main).start()
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = previous


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Silence TensorFlow's log while it is loaded, unless TF_CPP_MIN_LOG_LEVEL=0 asks for it."""
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if level == "0" or "tensorflow" in sys.modules:
        yield
        return
    # TensorFlow 2.21 writes its first lines before it looks at the variable
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as startup_log:
        os.dup2(startup_log.fileno(), 2)
        try:
            yield
        except BaseException:
            startup_log.seek(0)
            os.write(stderr, startup_log.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def make_console() -> Console:
    """Return the console on standard output, which takes nothing for markup."""
    from kregs.reporting.console import make_console

    return make_console()
