"""Fixtures that several test files share. Keras is imported by those that need it, not here."""

from __future__ import annotations

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else 99)


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
