"""The benchmark on UCI splits: no test row is touched, and the page shows what was measured."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def benchmark(repository):
    return SimpleNamespace(
        **runpy.run_path(str(repository / "tests" / "benchmarks" / "mc_dropout_uci.py"))
    )


def test_candidates_see_no_test_row(benchmark, shared):
    loader = benchmark.shared_loader()
    x, y = loader.regression("yacht")
    for number, (training_rows, test_rows) in enumerate(loader.gal_splits("yacht")):
        held, inner = benchmark.divided(training_rows, number)
        assert sorted([*held, *inner]) == sorted(training_rows)
        assert not {*held, *inner} & {*test_rows}
        assert len(held) == round(0.2 * len(training_rows))
        scaled = benchmark.Scaled(x, y, inner)
        # what is scaled by no other rows has mean 0 and deviation 1 on its own
        np.testing.assert_allclose(scaled.x[inner].mean(axis=0), 0, atol=1e-9)
        np.testing.assert_allclose(scaled.y[inner].std(), 1)
        np.testing.assert_allclose(scaled.in_units(scaled.y)[:, 0], y)


def test_the_page_shows_what_was_measured(benchmark, repository, shared):
    results = repository / "tuning" / "results" / "mc_dropout_uci.json"
    record = json.loads(results.read_text(encoding="utf-8"))
    page = (repository / "docs" / "uncertainty.md").read_text(encoding="utf-8")
    for name, outcome in record["sets"].items():
        assert benchmark.row_of(name, outcome) in page
        assert outcome["published"] == benchmark.published(name)
        splits = outcome["splits"]
        assert len(splits) == 20
        for key in ("rmse", "log_likelihood"):
            values = [split[key] for split in splits]
            assert outcome[key] == pytest.approx(np.mean(values))
            error = np.std(values) / np.sqrt(20)
            assert outcome[f"{key}_standard_error"] == pytest.approx(error)
