"""Fixtures that several test files share."""

from __future__ import annotations

import runpy
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

offline = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("offline_data.py"))))
REPOSITORY = Path(__file__).resolve().parents[1]


# files of minutes go first, or one worker is left with them at the end
_LONG = ("test_readme.py", "test_exact.py", "test_folds.py", "test_runs.py", "test_cli.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else 99)


@pytest.fixture(autouse=True)
def seeded(request) -> None:
    """Draw the same weights in every run: a failure that comes and goes cannot be mended.

    Where no test has imported Keras, there are no weights, and it is not loaded for this.
    """
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(zlib.crc32(request.node.nodeid.encode()))


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
    get_file = offline.offline_get_file(shared, scratch)
    monkeypatch.setattr(fashion_mnist, "get_file", get_file)
    monkeypatch.setattr(imdb, "get_file", get_file)
