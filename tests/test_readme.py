"""README.md is short and its set-up is two commands. tests/test_docs.py runs its code."""

from __future__ import annotations

import re

import pytest

INSTALL = 'pip install ".[test]"'


@pytest.fixture(scope="module")
def readme(repository) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def test_it_is_short(readme):
    assert len(readme.splitlines()) <= 200


def test_set_up_is_two_commands(readme):
    assert re.search(r"^```bash\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[1] == (
        "pip install . && kregs tune digits_mlp    # searches, compares on test data, saves\n"
        f"{INSTALL} && pytest           # the tests\n"
    )


def test_checks_set_up_as_readme_says(repository):
    script = repository / ".ci" / "run"
    if not script.exists():
        pytest.skip("no checkout")
    assert f"install='{INSTALL}'" in script.read_text(encoding="utf-8")
