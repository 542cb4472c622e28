"""Fixtures that several test files share. Keras is imported by those that need it, not here."""

from __future__ import annotations

import json
import os
import random
import runpy
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

offline = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("offline_data.py"))))
REPOSITORY = Path(__file__).resolve().parents[1]


# files of minutes go first, or one worker is left with them at the end
_LONG = ("test_docs.py", "test_exact.py", "test_cross_validation.py", "test_runs.py", "test_cli.py")

# Processor seconds of the tests that take more than one, as `pytest -m "" --record-seconds` saw
# them. Whoever makes a test faster or slower need not move a marker: the tier follows from here.
_SECONDS_FILE = Path(__file__).with_name("seconds.json")
_SLOW, _NIGHTLY = 1.0, 3.0  # seconds: `pytest` stays under 5 minutes, `.ci/run` under 25


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-seconds",
        action="store_true",
        help="write what each test takes into tests/seconds.json",
    )


@pytest.hookimpl(tryfirst=True)  # before `-m` deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds = json.loads(_SECONDS_FILE.read_text("utf-8"))
    for item in items:
        if any(item.get_closest_marker(tier) for tier in ("quick", "slow", "nightly")):
            continue  # said where the test is
        took = seconds.get(item.nodeid, 0)
        if took >= _NIGHTLY:
            item.add_marker("nightly")
        elif took >= _SLOW:
            item.add_marker("slow")
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else 99)


_recorded: dict[str, float] = {}
_BEGAN = pytest.StashKey[float]()


def _processor_seconds() -> float:
    return sum(os.times()[:4])  # of this process and of those that it waited for


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item):
    item.stash[_BEGAN] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if call.when == "teardown":  # travels from a worker to the process that writes
        seconds = _processor_seconds() - item.stash[_BEGAN]
        report.user_properties.append(("processor seconds", seconds))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    seconds = dict(report.user_properties).get("processor seconds")  # doctests have none
    if seconds is not None:
        _recorded[report.nodeid] = seconds


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("--record-seconds") or hasattr(session.config, "workerinput"):
        return
    seconds = json.loads(_SECONDS_FILE.read_text("utf-8")) | _recorded
    kept = {
        name: round(took, 1)
        for name, took in sorted(seconds.items())
        if took >= _SLOW and (REPOSITORY / name.partition("::")[0]).exists()
    }
    _SECONDS_FILE.write_text(json.dumps(kept, indent=0, ensure_ascii=False) + "\n", "utf-8")


@pytest.fixture(autouse=True)
def seeded(request) -> None:
    """Draw the same weights in every run: a failure that comes and goes cannot be mended."""
    seed = zlib.crc32(request.node.nodeid.encode())
    random.seed(seed)  # a Keras that the test itself imports draws its seeds from here
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(seed)


@pytest.fixture
def double():
    """Layers and optimizers of float64, so that only the arithmetic can differ."""
    import keras

    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


@pytest.fixture
def eager(monkeypatch) -> None:
    """Let Keras train and evaluate without tracing, most of the time of a few small steps."""
    import keras

    always = property(lambda self: True, lambda self, value: None)
    monkeypatch.setattr(keras.Model, "run_eagerly", always)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; the test is skipped where it is absent."""
    folder = offline.shared_folder()
    if folder is None:
        pytest.skip("../shared is not beside the repository and KREGS_SHARED is not set")
    return folder


@pytest.fixture
def keras_datasets(shared, tmp_path_factory, monkeypatch) -> None:
    """Let `keras.datasets` read the copies in `../shared` instead of downloading."""
    import keras.src.datasets.fashion_mnist as fashion_mnist
    import keras.src.datasets.imdb as imdb

    scratch = tmp_path_factory.getbasetemp() / "keras_datasets"
    scratch.mkdir(exist_ok=True)
    get_file = offline.offline_get_file(shared, scratch, reviews=4000)
    monkeypatch.setattr(fashion_mnist, "get_file", get_file)
    monkeypatch.setattr(imdb, "get_file", get_file)


@pytest.fixture
def start_interruptible() -> Callable[..., subprocess.Popen]:
    """`subprocess.Popen` whose process obeys SIGINT, even where this one ignores it.

    A process inherits the ignored signal (`nohup pytest &`, `trap '' INT`) and Python then installs
    no handler of its own.
    """

    def start(command: list[str], **options) -> subprocess.Popen:
        # a handler, unlike SIG_IGN, is reset to the default in the process that is started
        inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(command, **options)
        finally:
            signal.signal(signal.SIGINT, inherited)

    return start
