"""What is left of a search whose files are lost, broken or do not fit on the disk."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

import kregs
from kregs import files
from kregs.cli import main
from kregs.files import DiskFull
from kregs.search.project import SearchResult
from kregs.search.storage import TrialRecord, outcome_file, read_outcome, trial_folder

SEARCHES = {
    "random": {"max_trials": 4},
    "bayesian": {"max_trials": 4},
    "grid": {"max_trials": 4},
    "hyperband": {},
}


def run(build, data, path, **changes):
    arguments = {"epochs": 3, "directory": path, "verbose": 0}
    return kregs.tune(build, *data, **arguments | changes)


def same_trials(a, b):
    frames = [r.trials().drop(columns="seconds").sort_values("trial") for r in (a, b)]
    one, other = (frame.reset_index(drop=True) for frame in frames)
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)


def copy_of(result, path):
    shutil.copytree(result.path, path / "search")
    return path / "search"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, build, linear_data):
    """A finished search of each oracle; do not write into it."""
    directory = tmp_path_factory.mktemp("finished")
    return {
        oracle: run(
            build, linear_data, directory, oracle=oracle, project_name=oracle, **SEARCHES[oracle]
        )
        for oracle in SEARCHES
    }


@pytest.mark.parametrize("oracle", SEARCHES)
def test_a_deleted_trial_is_trained_again(says, finished, build, linear_data, tmp_path, oracle):
    folder = copy_of(finished[oracle], tmp_path)
    lost = folder / "trial_1" if (folder / "trial_1").exists() else folder / "trial_0001"
    others = {p: p.read_bytes() for p in folder.glob("trial_*/training.json") if p.parent != lost}
    assert len(others) > 2
    shutil.rmtree(lost)
    # it is not lost for who only reads, either
    assert len(kregs.load_result(folder).trials()) == len(finished[oracle].trials())
    with says(r"trial\.json' is missing: trial 0*1 is trained again"):
        resumed = run(build, linear_data, tmp_path, oracle=oracle, resume=True, **SEARCHES[oracle])
    same_trials(finished[oracle], resumed)
    assert {path: path.read_bytes() for path in others} == others


def test_a_gap_that_the_oracle_does_not_know_is_filled(
    says, finished, build, linear_data, tmp_path
):
    """A random search writes the oracle's state at times only."""
    folder = copy_of(finished["random"], tmp_path)
    state = json.loads((folder / "oracle.json").read_text())
    state["start_order"], state["end_order"], state["values_by_trial"] = [], [], {}
    (folder / "oracle.json").write_text(json.dumps(state))
    shutil.rmtree(folder / "trial_1")
    with says("trial 1 is trained again"):
        resumed = run(build, linear_data, tmp_path, max_trials=4, resume=True)
    assert sorted(resumed.trials()["trial"]) == [0, 1, 2, 3]
    assert set(resumed.trials()["status"]) == {"completed"}
    assert resumed.record.trials[2]["score"] == finished["random"].record.trials[2]["score"]


@pytest.mark.parametrize("name", ["trial.json", "training.json"])
@pytest.mark.parametrize("text", ["", '{"status": "COMPL', "[]"])
def test_a_broken_file_costs_its_trial_only(
    says, finished, build, linear_data, tmp_path, name, text
):
    project = finished["random"]
    folder = copy_of(project, tmp_path)
    others = {p: p.read_bytes() for p in folder.glob("trial_[013]/training.json")}
    (folder / "trial_2" / name).write_text(text)
    with says(rf"trial_2/{name}' cannot be read.*as result.json has it"):
        loaded = kregs.load_result(folder)
    same_trials(project, loaded)
    with says(rf"{name}' cannot be read.*: trial 2 is trained again"):
        resumed = run(build, linear_data, tmp_path, max_trials=4, resume=True)
    same_trials(project, resumed)
    assert {path: path.read_bytes() for path in others} == others


@pytest.mark.parametrize("text", [None, "", '{"seed": 1', "[]", "{}"])
def test_a_broken_state_of_the_oracle_is_said(finished, build, linear_data, tmp_path, text):
    folder = copy_of(finished["grid"], tmp_path)
    path = folder / "oracle.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(
        ValueError, match=r"oracle\.json' (is missing|cannot be read).*restore"
    ) as e:
        run(build, linear_data, tmp_path, oracle="grid", max_trials=4, resume=True)
    assert "\n" not in str(e.value)
    same_trials(finished["grid"], kregs.load_result(folder))
    assert len(list(folder.glob("trial_*"))) == 4  # nothing was written over


@pytest.mark.parametrize("text", [None, "", "{"])
def test_the_file_of_the_tuner_holds_nothing_that_could_be_lost(
    finished, build, linear_data, tmp_path, text
):
    folder = copy_of(finished["random"], tmp_path)
    path = folder / "tuner0.json"
    path.unlink() if text is None else path.write_text(text)
    before = {p: p.read_bytes() for p in folder.glob("trial_*/training.json")}
    resumed = run(build, linear_data, tmp_path, max_trials=4, resume=True)
    same_trials(finished["random"], resumed)
    assert {p: p.read_bytes() for p in folder.glob("trial_*/training.json")} == before


def test_a_broken_model_is_said_and_written_anew(finished, build, linear_data, tmp_path):
    project = finished["random"]
    folder = copy_of(project, tmp_path)
    whole = (folder / "best.keras").read_bytes()
    (folder / "best.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"best\.keras' is no \.keras file.*Delete it and search on"
    ):
        kregs.load_result(folder)
    # where it is built anew, its file is not needed
    model = kregs.load_result(folder, build=build).best_model()
    np.testing.assert_array_equal(model.get_weights()[0], project.best_model().get_weights()[0])
    resumed = run(build, linear_data, tmp_path, max_trials=4, resume=True)
    keras.models.load_model(resumed.path / "best.keras")


def test_broken_weights_are_said(finished, build, tmp_path):
    project = finished["random"]
    folder = copy_of(project, tmp_path)
    number = project.chosen_trial
    checkpoint = folder / f"trial_{number}" / "checkpoint.weights.h5"
    for data in (checkpoint.read_bytes()[:100], None):
        checkpoint.unlink() if data is None else checkpoint.write_bytes(data)
        with pytest.raises(ValueError, match=rf"weights of trial {number} in .* cannot be read"):
            kregs.load_result(folder, build=build).best_model()


def test_a_broken_run_is_trained_again(says, tmp_path):
    from kregs.search.runs import Run, RunOutcome, RunState
    from kregs.search.storage import write_outcome

    run, state = Run(2, 0), RunState([np.ones(300)])
    write_outcome(tmp_path, run, RunOutcome({"loss": [1.0]}, state=state))
    assert read_outcome(tmp_path, run).history == {"loss": [1.0]}
    path = outcome_file(tmp_path, run)
    whole = path.read_bytes()
    for data in (b"", whole[:60], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with says(r"run_002\.npz' cannot be read.*trained again"):
            assert read_outcome(tmp_path, run) is None


# ---- the training on all rows --------------------------------------------------------------


@pytest.fixture(scope="module")
def folded(tmp_path_factory, build, linear_data):
    directory = tmp_path_factory.mktemp("folded")
    return run(
        build, linear_data, directory, folds=2, max_trials=2, epochs=1,
        preprocess=StandardScaler(),
    )  # fmt: skip


def test_a_refit_that_fails_loses_nothing(folded, build, linear_data, tmp_path, monkeypatch):
    folder = copy_of(folded, tmp_path)
    model = (folder / "best.keras").read_bytes()

    def fail(*arguments, **options):
        raise ArithmeticError("in the refit")

    monkeypatch.setattr(SearchResult, "refit", fail)
    same = {"folds": 2, "epochs": 1, "preprocess": StandardScaler(), "resume": True}
    with pytest.raises(ArithmeticError, match="in the refit") as caught:
        run(build, linear_data, tmp_path, max_trials=5, **same)
    assert "All trials are kept" in caught.value.__notes__[0]
    # the earlier model is there until it has a successor, and is not taken for another trial's
    assert (folder / "best.keras").read_bytes() == model
    loaded = kregs.load_result(folder)
    assert loaded.trials()["status"].tolist() == ["completed"] * 5
    assert loaded.record.model_trial == folded.chosen_trial
    loaded.record = loaded.record.with_trials(
        [dict(t, score=t["score"] - 9 * (t["trial"] == 4)) for t in loaded.record.trials]
    )
    assert loaded.chosen_trial == 4
    with pytest.raises(
        ValueError, match="before its model was trained on all rows, that of trial 4"
    ):
        loaded.best_model()
    monkeypatch.undo()
    resumed = run(build, linear_data, tmp_path, max_trials=5, **same)
    assert resumed.record.model_trial == resumed.chosen_trial
    assert kregs.load_result(folder).best_model().get_weights()


def test_a_model_that_cannot_be_written_leaves_the_last_one(says, folded, tmp_path, monkeypatch):
    folder = copy_of(folded, tmp_path)
    model = (folder / "best.keras").read_bytes()
    result = kregs.load_result(folder)

    def fail(self, path, **options):
        with open(path, "wb") as file:
            file.write(b"half")
        raise ArithmeticError("cannot be saved")

    monkeypatch.setattr(keras.Model, "save", fail)
    with says(r"best\.keras could not be written"):
        result.write_model(result.best_model())
    assert (folder / "best.keras").read_bytes() == model


# ---- what predicting needs -----------------------------------------------------------------


def test_a_saved_result_has_its_preprocessing(folded, build, linear_data, tmp_path, monkeypatch):
    x, _ = linear_data
    saved = folded.save(tmp_path / "saved")
    assert saved["preprocessing"].name == "preprocessing.joblib"
    with monkeypatch.context() as patch:
        patch.setattr("joblib.load", lambda path: pytest.fail("a joblib file can run code"))
        unasked = kregs.load_result(tmp_path / "saved")
        assert unasked.preprocess_ is None
        again = unasked.save(tmp_path / "again")
    assert again["preprocessing"].read_bytes() == saved["preprocessing"].read_bytes()
    loaded = kregs.load_result(tmp_path / "again", preprocessing=True)
    rows = StandardScaler().fit(x).transform(x)
    np.testing.assert_allclose(loaded.preprocess_.transform(x), rows, rtol=1e-6)
    np.testing.assert_array_equal(
        loaded.best_model().predict(loaded.preprocess_.transform(x), verbose=0),
        folded.best_model().predict(folded.preprocess_.transform(x), verbose=0),
    )
    loaded.save(tmp_path / "again")  # onto itself
    (tmp_path / "again" / "preprocessing.joblib").write_bytes(b"\x80")
    with pytest.raises(ValueError, match=r"preprocessing\.joblib' cannot be read"):
        kregs.load_result(tmp_path / "again", preprocessing=True)
    saved["preprocessing"].unlink()
    with pytest.raises(ValueError, match=r"preprocessing\.joblib' does not exist"):
        kregs.load_result(tmp_path / "saved", preprocessing=True)


# ---- the disk is full ----------------------------------------------------------------------


class Disk:
    """Has room for so many files: the next `os.replace` fails as on a full disk."""

    def __init__(self, room):
        self.room, self.replace = room, os.replace

    def __call__(self, source, target):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        self.room -= 1
        self.replace(source, target)


@pytest.mark.nightly
@pytest.mark.parametrize("folds", [None, 2])
def test_a_full_disk_keeps_what_was_finished(build, linear_data, tmp_path, monkeypatch, folds):
    few = {"max_trials": 3, "epochs": 1, "folds": folds}
    whole = run(build, linear_data, tmp_path / "whole", **few)
    disk = Disk(10**6)
    monkeypatch.setattr(files.os, "replace", disk)
    kept, said = 0, []
    for room in (0, 1, 4, 7, 9, 11, 13):
        disk.room = room
        try:
            run(build, linear_data, tmp_path, resume=True, **few)
        except DiskFull as error:
            said.append(str(error))
        if not (tmp_path / "search" / "result.json").exists():
            continue
        disk.room = 10**6
        now = kregs.load_result(tmp_path / "search").trials()["status"].tolist()
        assert now.count("completed") >= kept
        kept = now.count("completed")
        assert "failed" not in now
        assert not list((tmp_path / "search").rglob(".[0-9]*"))  # temporary files
    assert kept > 0
    assert len(said) > 4
    assert all(re.fullmatch("No space left on device for .*", words) for words in said)
    disk.room = 10**6
    same_trials(whole, run(build, linear_data, tmp_path, resume=True, **few))


def test_a_callback_that_finds_the_disk_full_ends_the_search(build, linear_data, tmp_path, eager):
    class Full(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError(f"write failed: errno = 28, {os.strerror(errno.ENOSPC)}")

    with pytest.raises(DiskFull, match="No space left"):
        run(build, linear_data, tmp_path, max_trials=3, callbacks=[Full()])
    assert set(kregs.load_result(tmp_path / "search").trials()["status"]) == {"interrupted"}


def test_the_command_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    room = Disk(3)
    monkeypatch.setattr(files.os, "replace", room)
    argv = ["tune", "forkme", "--max-trials", "2", "--epochs", "1", "--output", str(tmp_path)]
    assert main(argv) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("kregs: No space left on device for")


@pytest.mark.nightly
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts")
def test_a_disk_that_is_really_full(build, linear_data, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with pytest.raises(DiskFull, match="No space left"):
            run(build, linear_data, disk, max_trials=60, epochs=2)
        statuses = kregs.load_result(disk / "search").trials()["status"].tolist()
        assert 0 < statuses.count("completed") < 60
        assert "failed" not in statuses
        before = {
            p.parent.name: json.loads(p.read_text())["scores"]
            for p in disk.glob("search/trial_*/training.json")
        }
        larger = ["mount", "-o", "remount,size=64m", str(disk)]
        subprocess.run(larger, check=True)
        result = run(build, linear_data, disk, max_trials=60, epochs=2, resume=True)
        assert result.trials()["status"].tolist() == ["completed"] * 60
        for name, scores in before.items():
            after = TrialRecord.read(disk / "search" / name).scores
            assert after[0]["score"] == pytest.approx(scores[0]["score"], rel=1e-5)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- two processes -------------------------------------------------------------------------

TWICE = """
import sys, numpy as np, keras, kregs
def build(hp):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    return kregs.compile_model(model, "mse", learning_rate=hp.Float("rate", 0.01, 0.1))
x = np.random.default_rng(0).normal(size=(80, 3)).astype("float32")
try:
    kregs.tune(build, x, x.sum(1), max_trials=40, epochs=30, callbacks=[], directory=sys.argv[1],
               resume=True, verbose=0)
    print("done")
except OSError as error:
    print(error)
"""


@pytest.mark.nightly
def test_of_two_processes_one_searches(tmp_path):
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, env=environment, **options) for _ in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    words = sorted(out.strip() for out, _ in said)
    assert "done" in words
    other = next(word for word in words if word != "done") if set(words) != {"done"} else None
    # the second may have come when the first had ended
    assert other is None or ("searches in" in other and "\n" not in other)
    result = kregs.load_result(tmp_path / "search")
    assert result.trials()["status"].tolist() == ["completed"] * 40
    assert trial_folder(result.path, result.record.trials[39]) is not None
