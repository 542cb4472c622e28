"""Why a trial failed, in one line and in full."""

from __future__ import annotations

import traceback

_MESSAGE_LENGTH = 300


class NothingCompleted(RuntimeError):
    """A search ended without a completed trial; the message says why."""


def reason_of(error: Exception) -> str:
    """Return an exception in one line; TensorFlow's own reason is in the last line of many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Graph execution error"):
        lines = [line for line in lines if "{{node" not in line and "[Op:" not in line][
            -1:
        ] or lines
    text = " ".join(lines)
    if len(text) > _MESSAGE_LENGTH:
        text = text[: _MESSAGE_LENGTH - 3] + "..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def traceback_of(error: Exception) -> str:
    """Return an exception as Python prints it, with its traceback."""
    return "".join(traceback.format_exception(error))
