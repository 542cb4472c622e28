"""Scripts for keras-tuner: each score is what `evaluate` says of the best model."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

_cases = runpy.run_path(str(Path(__file__).with_name("drop_in.py")))
# what sees single batches or steps, or ends after one pass
ONE_BY_ONE = {
    "a callback of one's own, by batch",
    "a Python generator",
    "a `train_step` of one's own",
}


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _cases["SCRIPTS"])
def test_the_score_is_that_of_the_best_model(name, tmp_path):
    outcome = _cases["run"](name, str(tmp_path))
    assert outcome.evaluated == pytest.approx(outcome.score, rel=1e-3, abs=1e-4)
    assert bool(outcome.reason) == (name in ONE_BY_ONE), outcome.reason
