"""README.md is short and its set-up is two commands. tests/test_docs.py runs its code."""

from __future__ import annotations

import re

import pytest

from kregs.cli.doctor import README_SECTION

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


def test_doctor_points_to_a_section_that_tells_how_to_install(readme):
    section = re.search(rf"^## {re.escape(README_SECTION)}$(.*?)^## ", readme, re.M | re.S)
    assert section is not None
    assert "pip install" in section[1]


def test_checks_set_up_as_readme_says(repository):
    script = repository / ".ci" / "run"
    if not script.exists():
        pytest.skip("no checkout")
    assert f"install='{INSTALL}'" in script.read_text(encoding="utf-8")
