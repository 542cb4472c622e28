"""Runs calls with bad inputs and judges their errors: raised by kregs, of the right type, clear."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import linecache
import math
import re
import signal
import traceback
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TYPES = (ValueError, TypeError, FileNotFoundError, FileExistsError)
SECONDS = 20  # for one case, of which the slowest takes one or two

# what is no number, no integer and so on; a list of a group's values is a list of cases
NO_NUMBERS = (None, True, np.True_, "0.1", "", "NaN", 1j, [0.1], np.array(0.1), {"a": 1}, object)
NO_FINITE = (math.nan, math.inf, -math.inf, np.float32("nan"), 10**400, 1e300)
NO_INTEGERS = (None, True, 2.5, np.float64(3), "3", "", 1j, [3], np.array(3), math.nan, math.inf)
NO_COUNTS = (*NO_INTEGERS, 0, -1, np.int64(-3), 2**70)  # what is no integer >= 1
NO_SEEDS = (True, 1.5, "0", 1j, [0], np.array(0), math.nan, -1, 2**32, 10**30)
NO_FLAGS = (None, 0, 1, "yes", "", [True], np.array(True))
NO_RATES = (*NO_NUMBERS, *NO_FINITE, -0.1, 1, 1.0, 1.5)  # in [0, 1)
NO_SIZES = (
    None, 64, "64", (), (0,), (-1,), (True,), (2.5,), (math.nan,), ((1,),), ("8",), (None,),
    (2**70,), np.array([2.0]), np.array(3),
)  # fmt: skip
NO_NAMES = (3, "", "a/b", b"a", ["a"], True)


class Hangs(BaseException):
    """A case took longer than `SECONDS`; no `except Exception` of the library may catch it."""


class Lazy:
    """A value that is made anew for each use of it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


@dataclasses.dataclass(frozen=True)
class Case:
    """A call that has to raise.

    Args:
        entry: the function or command that is called.
        name: what is bad about the call.
        call: the call; its result, if there is one, is not used.
        words: regular expressions that the message must match.
        types: what it may raise.
        frames: folders, besides kregs's own, whose code may raise.
    """

    entry: str
    name: str
    call: Callable[[], Any]
    words: Sequence[str]
    types: tuple[type[BaseException], ...] = TYPES
    frames: tuple[Path, ...] = ()


class Bad:
    """A bad value whose message names something else than the argument, or more than it."""

    def __init__(self, value: Any, *words: str, call: Mapping[str, Any] | None = None) -> None:
        self.value, self.words, self.call = value, words, call or {}


def bad(
    function: Callable[..., Any],
    good: Mapping[str, Any],
    bad_values: Mapping[str, Sequence[Any]],
    *,
    entry: str | None = None,
    **options: Any,
) -> list[Case]:
    """Return one case for each bad value of each argument, all others being good.

    The message has to name the argument and, of a value that is short to write, the value.
    """
    entry = entry or function.__qualname__
    cases = []
    for argument, values in bad_values.items():
        for value in values:
            more = value if isinstance(value, Bad) else Bad(value)
            arguments = {**good, **more.call, argument: more.value}
            cases.append(
                Case(
                    entry,
                    f"{argument}={in_short(more.value)}",
                    _Call(function, arguments),
                    more.words or (rf"(?<!\w){re.escape(argument)}(?!\w)", _received(more.value)),
                    **options,
                )
            )
    return cases


@dataclasses.dataclass(frozen=True)
class _Call:
    function: Callable[..., Any]
    arguments: Mapping[str, Any]

    def __call__(self) -> Any:
        arguments = {
            name: value.make() if isinstance(value, Lazy) else value
            for name, value in self.arguments.items()
        }
        return self.function(**arguments)


def _received(value: Any) -> str:
    if value is None or isinstance(value, (bool, int, float, str, complex, np.number)):
        if isinstance(value, int) and abs(value) > 2**64:
            return "(?i)received"
        return re.escape(repr(value))
    return "(?i)received"


def in_short(value: Any) -> str:
    """Return what stands for a value in a case's name."""
    if isinstance(value, Lazy):
        value = value.make()
    words = re.sub(r" at 0x\w+", "", " ".join(repr(value).split()))
    return words if len(words) <= 50 else f"{words[:47]}..."


# ---- judging -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What came of a case: `"clear"`, or what is wrong with it, and the error in words."""

    kind: str
    error: str = ""


def run(case: Case) -> Verdict:
    """Call a case and judge what it raises."""
    try:
        with _time_limit(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.call()
    except Hangs:
        return Verdict("hanging")
    except Exception as error:
        return _judge(case, error)
    return Verdict("silent")


def _judge(case: Case, error: Exception) -> Verdict:
    message = "\n".join([str(error), *getattr(error, "__notes__", [])])
    if isinstance(error, OSError) and error.strerror:
        message = str(error)
    trace = traceback.extract_tb(error.__traceback__)
    described = f"{type(error).__name__}: {message}\n    at {trace[-1].filename}:{trace[-1].lineno}"
    if not isinstance(error, case.types):
        return Verdict("wrong type", described)
    words = case.words
    if _raised_by_signature(case, error):
        words = words[:1]  # the argument's name is all there is to say
    elif not _raised_within(case, error.__traceback__):
        return Verdict("from inside", described)
    missing = [pattern for pattern in words if not re.search(pattern, message)]
    if missing:
        return Verdict("unclear", f"{described}\n    does not say {' nor '.join(missing)}")
    return Verdict("clear", described)


def _raised_within(case: Case, trace: types.TracebackType | None) -> bool:
    """Whether the innermost frame is kregs's (or one of the case's), at a `raise` statement."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    path = Path(trace.tb_frame.f_code.co_filename)
    if any(path.is_relative_to(folder) for folder in case.frames):
        return True
    line = linecache.getline(str(path), trace.tb_lineno).strip()
    # by name: pytest imports some modules from the checkout, others from where kregs is installed
    module = trace.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == "kregs" and line.startswith("raise")


def _raised_by_signature(case: Case, error: Exception) -> bool:
    """Whether Python itself refused a keyword, or the lack of one, where the case is called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (
        isinstance(error, TypeError)
        and trace is not None
        and Path(trace.tb_frame.f_code.co_filename) == Path(__file__)
        and re.search(r"unexpected keyword argument|missing \d+ required", str(error)) is not None
    )


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(signal_number: int, frame: Any) -> None:
        raise Hangs

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def summary(verdicts: Sequence[tuple[Case, Verdict]]) -> str:
    """Return a table of entry points, counts of cases and of clear errors, and what is not."""
    by_entry: dict[str, list[Verdict]] = collections.defaultdict(list)
    for case, verdict in verdicts:
        by_entry[case.entry].append(verdict)
    width = max(map(len, by_entry))
    lines = [f"{'entry point':{width}}  cases  clear"]
    lines += [
        f"{entry:{width}}  {len(own):5}  {sum(v.kind == 'clear' for v in own):5}"
        for entry, own in by_entry.items()
    ]
    kinds = collections.Counter(verdict.kind for _, verdict in verdicts)
    others = ", ".join(
        f"{kinds[kind]} {kind}"
        for kind in ("silent", "from inside", "unclear", "wrong type", "hanging")
    )
    lines.append(f"\n{len(verdicts)} bad inputs, {kinds['clear']} clear errors; {others}")
    return "\n".join(lines)
