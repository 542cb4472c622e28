"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from kregs.files import atomic_path, write_json, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "λ")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text(encoding="utf-8") == "λ"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_temporary_name_keeps_the_suffixes(tmp_path):
    with atomic_path(tmp_path / "a.weights.h5") as temporary:
        assert temporary.name.endswith(".weights.h5")
        assert temporary.parent == tmp_path
        temporary.write_text("")


def test_errors_name_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(IsADirectoryError, match="folder of that name") as raised:
        write_text(tmp_path, "a")
    assert raised.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as raised:
        write_text(tmp_path / "absent" / "a.txt", "a")
    assert raised.value.filename == str(tmp_path / "absent" / "a.txt")
    assert not list(tmp_path.iterdir())


def test_json_is_strict(tmp_path):
    value = {"a": [math.nan, math.inf, np.float32(0.5)], 1: np.arange(2), "b": (True, None)}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"a": [None, None, 0.5], "1": [0, 1], "b": [True, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "b.json", {"a": object()})
    assert not (tmp_path / "b.json").exists()
