"""Files of a search: one format, whole files, the lock of a folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading

import pytest

import kregs
from kregs.search.storage import (
    FORMAT,
    LOCK_FILE,
    FolderInUse,
    TrialRecord,
    locked,
    read_record,
    trial_folder,
)


def files_of(folder):
    return {path.name for path in folder.iterdir()}


def test_every_file_tells_its_format(project, tmp_path):
    assert json.loads((project.path / "result.json").read_text())["format"] == FORMAT
    for trial in project.record.trials:
        folder = trial_folder(project.path, trial)
        assert json.loads((folder / "training.json").read_text())["format"] == FORMAT
    saved = project.save(tmp_path / "saved")
    assert json.loads(saved["histories"].read_text())["format"] == FORMAT


@pytest.mark.parametrize(("number", "words"), [(1, r"kregs 0\.1\.0"), (99, "another version")])
def test_another_format_is_refused_with_words(project, tmp_path, number, words):
    for file in ("result.json", "trial_0/training.json"):
        folder = tmp_path / file.replace("/", "-")
        shutil.copytree(project.path, folder)
        values = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**values, "format": number}))
        with pytest.raises(ValueError, match=f"format {number}.*{words}"):
            kregs.load_result(folder)


def test_what_0_1_0_wrote_is_not_gone_on_with(tmp_path, build, linear_data):
    (tmp_path / "search").mkdir()
    old = {"format": 1, "protocol": {}, "space": [], "trials": []}
    (tmp_path / "search" / "result.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match=r"`resume`.*kregs 0\.1\.0 wrote"):
        kregs.tune(build, *linear_data, directory=tmp_path, resume=True, verbose=0)


def test_a_trial_has_two_files_beside_kept_weights(tmp_path, build, linear_data):
    result = kregs.tune(
        build, *linear_data, max_trials=4, epochs=1, keep=1, directory=tmp_path, verbose=0
    )
    kept = {"checkpoint.weights.h5", "build_config.json"}
    for trial in result.record.trials:
        names = files_of(trial_folder(result.path, trial))
        more = kept if trial["trial"] == result.best_trial else set()
        assert names == {"trial.json", "training.json"} | more
    assert LOCK_FILE not in files_of(result.path)


def test_the_record_is_read_as_it_was_written(project):
    record = read_record(project.path)
    assert record == project.record
    training = TrialRecord.read(trial_folder(project.path, record.trials[0]))
    assert training.scores == record.trials[0]["scores"]


# ---- the lock ------------------------------------------------------------------------------

HOLD = """
import pathlib, sys, time
from kregs.search.storage import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        pipe.close()


def test_a_second_process_is_refused_with_words(holder, tmp_path):
    with pytest.raises(FolderInUse, match=f"process {holder.pid} searches in"), locked(tmp_path):
        pass
    assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == holder.pid
    holder.stdin.close()
    holder.wait()
    with locked(tmp_path):  # it has ended
        pass


def test_the_lock_of_a_killed_process_is_taken_over(holder, tmp_path):
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    assert files_of(tmp_path) == set()


def test_a_number_that_another_process_got_is_no_lock(tmp_path):
    lock = {"host": socket.gethostname(), "pid": os.getpid(), "began": "1"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(lock))
    with locked(tmp_path):
        pass


def test_the_lock_of_another_machine_is_respected(tmp_path):
    lock = {"host": "elsewhere", "pid": 1, "began": None}
    (tmp_path / LOCK_FILE).write_text(json.dumps(lock))
    with pytest.raises(FolderInUse, match=r"process 1 on 'elsewhere'.*delete"), locked(tmp_path):
        pass
    (tmp_path / LOCK_FILE).write_text("{")
    with pytest.raises(FolderInUse, match="cannot be read"), locked(tmp_path):
        pass


def test_a_thread_is_kept_out_and_a_nested_call_is_not(tmp_path):
    said = []

    def other():
        try:
            with locked(tmp_path):
                said.append("entered")
        except FolderInUse as error:
            said.append(str(error))

    with locked(tmp_path):
        with locked(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert f"process {os.getpid()} searches" in said[0]


def test_the_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    assert files_of(tmp_path) == set()


def test_tune_refuses_a_folder_in_which_another_process_searches(
    holder, tmp_path, build, linear_data
):
    with pytest.raises(FolderInUse, match="searches in"):
        kregs.tune(
            build, *linear_data, directory=tmp_path.parent, project_name=tmp_path.name, verbose=0
        )
    tuner = kregs.PopulationTuner(
        build, "val_loss", directory=tmp_path.parent, project_name=tmp_path.name
    )
    with pytest.raises(FolderInUse, match="searches in"):
        tuner.search(*linear_data, validation_split=0.5, verbose=0)
