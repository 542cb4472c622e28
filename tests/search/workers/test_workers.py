"""One search in several processes: keras-tuner's chief and workers, `workers=`, `--workers`."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from pathlib import Path

import keras_tuner
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras_tuner.src.engine import trial as keras_tuner_trial

import kregs
from kregs import catalog
from kregs.cli import main
from kregs.reporting.progress import SearchProgress
from kregs.search.keras_tuner_internals import write_whole_files
from kregs.search.workers import chief as chief_module
from kregs.search.workers import client as client_module
from kregs.search.workers import processes

SECONDS = 200  # a process needs 5 to 30 to load TensorFlow

SCRIPT = """
import os, sys
import keras, numpy as np
import kregs

def build(hp):
    regularizer = keras.regularizers.L2(hp.Float("l2", 1e-6, 1e-1, sampling="log"))
    layers = [keras.Input((4,)), keras.layers.Dense(4, "relu", kernel_regularizer=regularizer)]
    if hp.Boolean("dropped"):
        layers.append(keras.layers.Dropout(hp.Float("rate", 0.1, 0.5, parent_name="dropped",
                                                     parent_values=[True])))
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
if __name__ == "__main__":
    tuner = kregs.PopulationTuner(
        build, "val_loss", 9, directory=sys.argv[1], project_name="search", max_members=2)
    ended = []
    tuner.on_trial_end = lambda trial, on=tuner.on_trial_end: (ended.append(1), on(trial))
    tuner.search(x, x.sum(1), epochs=3, validation_split=0.3, verbose=0)
    print("ended", len(ended))
    if os.environ["KERASTUNER_TUNER_ID"] == "chief":
        print(tuner.get_best_models()[0].output_shape)
"""


def family(parent=None, **environment):
    """Process ids by tuner id, of processes with these environment variables."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            entries = (folder / "environ").read_bytes().decode().split("\0")
        except OSError:
            continue
        own = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        if stat[0] == "Z" or (parent is not None and int(stat[1]) != parent):
            continue
        if "KERASTUNER_TUNER_ID" in own and environment.items() <= own.items():
            found[own["KERASTUNER_TUNER_ID"]] = int(folder.name)
    return found


def wait_until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)
    return value


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def assert_whole(folder, count):
    """Every trial is there once, completed, with its files."""
    names = sorted(path.name for path in folder.glob("trial_*"))
    assert [int(name.removeprefix("trial_")) for name in names] == list(range(count))
    for name in names:
        files = {path.name for path in (folder / name).iterdir()}
        assert {"trial.json", "training.json", "checkpoint.weights.h5"} <= files
        assert json.loads((folder / name / "trial.json").read_text())["status"] == "COMPLETED"
    state = json.loads((folder / "oracle.json").read_text())
    assert sorted(map(int, state["end_order"])) == list(range(count))
    assert not state["ongoing_trials"]
    assert not state["retry_queue"]


@pytest.fixture
def environment(monkeypatch):
    """keras-tuner's variables of a worker in this process; gives the port."""
    port = free_port()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(port))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "w1")
    return port


@pytest.fixture
def chief(environment, tmp_path):
    """A chief of four trials, which answers at the port of the environment."""
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=4, seed=1)
    oracle.hyperparameters.Float("rate", 0.0, 1.0)
    oracle.verbose = 0
    oracle._set_project_dir(tmp_path, "search")
    write_whole_files(oracle)
    chief = chief_module.Chief(oracle, SearchProgress(verbose=0))
    with chief.serving("127.0.0.1", environment):
        yield chief


def client(name, monkeypatch):
    monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=4, seed=1)
    return client_module.Client(oracle)


def end(client, trial, value=1.0):
    client.update_trial(trial.trial_id, {"val_loss": value})
    trial.status = keras_tuner_trial.TrialStatus.COMPLETED
    client.end_trial(trial)


def test_trials_of_a_lost_worker_go_to_others_and_end_once(chief, monkeypatch):
    first, second = client("w1", monkeypatch), client("w2", monkeypatch)
    held = [first.create_trial(f"w1-{i}") for i in range(3)]
    other = second.create_trial("w2-0")
    assert len({trial.trial_id for trial in [*held, other]}) == 4
    assert second.create_trial("w2-1").status == "IDLE"  # it may be needed
    end(first, held[0], 0.5)

    chief.lost("w1")
    again = [second.create_trial(f"w2-{i}") for i in (1, 2)]
    assert [t.trial_id for t in again] == [t.trial_id for t in held[1:]]
    assert again[0].hyperparameters.values == held[1].hyperparameters.values
    with pytest.raises(ConnectionError, match="others have its trials"):
        end(first, held[1], 9.0)
    assert not chief.finished
    for trial in [other, *again]:
        end(second, trial)
    assert second.create_trial("w2-3").status == "STOPPED"
    assert chief.finished
    assert chief.all_workers_told
    assert Counter(chief.oracle.end_order) == Counter(chief.oracle.trials.keys())
    assert sorted(t.score for t in chief.oracle.trials.values()) == [0.5, 1.0, 1.0, 1.0]


def test_a_silent_worker_is_lost_and_one_that_speaks_is_not(chief, monkeypatch):
    monkeypatch.setattr(chief_module, "SILENCE", 0.5)
    monkeypatch.setattr(client_module, "_BEAT", 0.1)
    silent, speaking = client("w1", monkeypatch), client("w2", monkeypatch)
    lost, kept = silent.create_trial("w1-0"), speaking.create_trial("w2-0")
    with speaking.alive():
        time.sleep(1.0)
        chief.check()
    assert chief.oracle._retry_queue == [lost.trial_id]
    assert [t.trial_id for t in chief.oracle.ongoing_trials.values()] == [kept.trial_id]


def test_a_worker_started_again_gets_its_trials_again(chief, monkeypatch):
    held = [client("w1", monkeypatch).create_trial("w1-0")]
    started_again = client("w1", monkeypatch)
    assert started_again.create_trial("w1-0").trial_id == held[0].trial_id


def test_an_error_of_the_oracle_ends_the_search(chief, monkeypatch):
    worker = client("w1", monkeypatch)
    trial = worker.create_trial("w1-0")
    with pytest.raises(Exception, match="Objective value missing"):
        worker.update_trial(trial.trial_id, {"loss": 1.0})
    with pytest.raises(ValueError, match="Objective value missing"):
        chief.check()
    with pytest.raises(ConnectionError, match="Objective value missing"):
        worker.create_trial("w1-1")


def test_messages_print_nothing_and_nothing_of_keras_tuner_is_changed(chief, monkeypatch, capfd):
    from keras_tuner.src.engine import conditions

    assert "print" not in vars(conditions)
    worker, space = client("w1", monkeypatch), keras_tuner.HyperParameters()
    for name, values in {"kind": ["a", "b"], "big": [True, False], "n": [3, 4]}.items():
        parent = space.Boolean(name) if name == "big" else space.Choice(name, values)
        with space.conditional_scope(name, values[:1]):
            space.Float(f"of_{name}", 0.0, 1.0)
        assert parent in values
    worker.update_space(space)
    trial = worker.create_trial("w1-0")
    known = {hp.name: hp.conditions for hp in worker.get_space().space}
    sent = {hp.name: hp.conditions for hp in trial.hyperparameters.space}
    for name in ("kind", "big", "n"):
        assert known[f"of_{name}"] == sent[f"of_{name}"]
        (condition,) = sent[f"of_{name}"]
        assert condition == next(hp for hp in space.space if hp.name == f"of_{name}").conditions[0]
        assert type(condition) is conditions.Parent
        (value,) = condition.values
        assert type(value) is {"kind": str, "big": bool, "n": int}[name]
    end(worker, trial)
    assert worker.get_trial(trial.trial_id).score == worker.get_best_trials()[0].score == 1.0
    assert capfd.readouterr().out == ""


def in_main(monkeypatch, source, file=None):
    """A main module of this source, as a notebook (no file) or a script has it."""
    main = types.ModuleType("__main__")
    if file is not None:
        file.write_text(source)
        main.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(source, vars(main))
    return main


BUILD = "import functools\ndef build(hp, more=0):\n    return None\n"


def test_a_build_of_a_notebook_is_refused_before_a_process_starts(monkeypatch, tmp_path):
    main = in_main(monkeypatch, BUILD + "class Hyper:\n    build = build\n")
    x = np.zeros((4, 2))
    started = []
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *a, **k: started.append(a))
    for build in (main.build, functools.partial(main.build, more=1)):
        with pytest.raises(
            TypeError, match=r"build of the main module, which is no file.*notebook"
        ):
            kregs.tune(build, x, x, workers=2, directory=tmp_path, verbose=0)
    assert not started
    assert not list(tmp_path.iterdir())


def test_a_build_of_a_script_is_sent_if_a_worker_will_find_it(monkeypatch, tmp_path):
    arguments = {"x": np.zeros(3), "validation_data": None, "oracle": "random"}
    above = BUILD + "if __name__ == '__main__':\n    other = 1\n"
    main = in_main(monkeypatch, above, tmp_path / "above.py")
    assert processes.check_workers(2, build=main.build, **arguments) == 2
    below = "if __name__ == '__main__':\n" + "".join(f"    {row}\n" for row in BUILD.splitlines())
    main = in_main(monkeypatch, below, tmp_path / "below.py")
    with pytest.raises(TypeError, match=r"build stands below `if __name__ == \"__main__\":`"):
        processes.check_workers(2, build=main.build, **arguments)


@pytest.mark.nightly
def test_workers_train_the_build_of_a_script_and_end_in_time(tmp_path):
    """Their trials are cut short as those of one process are, and gone on with."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, keras, numpy as np, kregs\n"
        "def build(hp):\n"
        "    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])\n"
        "    rate = hp.Float('rate', 1e-3, 1e-1)\n"
        "    return kregs.compile_model(model, 'mse', learning_rate=rate)\n"
        "if __name__ == '__main__':\n"
        "    x = np.random.default_rng(0).normal(size=(60, 4)).astype('float32')\n"
        "    limit = float(sys.argv[1]) or None\n"
        "    result = kregs.tune(build, x, x.sum(1), workers=1, max_trials=3, callbacks=[],\n"
        "        epochs=10**6 if limit else 3, max_time=limit, verbose=2,\n"
        f"        directory={str(tmp_path)!r}, project_name='limited' if limit else 'whole')\n"
        "    print(result.trials()['status'].tolist(), result.best_score < 100)\n"
    )
    for limit, status in (("60", "cut short"), ("0", "completed")):
        run = subprocess.run(
            [sys.executable, "-P", str(script), limit],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.splitlines()[-1] == f"{[status] * 3} True"


def test_the_port_is_taken(chief, environment):
    with (
        pytest.raises(ValueError, match=r"KERASTUNER_ORACLE_PORT.*cannot listen"),
        chief.serving("127.0.0.1", environment),
    ):
        pass


def test_the_port_is_none(environment, monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "http")
    with pytest.raises(ValueError, match=r"KERASTUNER_ORACLE_PORT must be.*'http'"):
        client_module.chief_address()


@pytest.mark.nightly
def test_a_script_with_keras_tuners_variables(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    common = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    processes = {}
    try:
        for name in ("chief", "worker1", "worker2"):
            processes[name] = subprocess.Popen(
                [sys.executable, "-P", str(tmp_path / "script.py"), str(tmp_path)],
                env={**os.environ, **common, "KERASTUNER_TUNER_ID": name, "KREGS_WORKERS": "2"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        said = {}
        for name, process in processes.items():
            said[name], error = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, error
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    assert_whole(tmp_path / "search", 9)
    trained = {name: int(text.split()[1]) for name, text in said.items()}
    assert trained["worker1"] + trained["worker2"] == 9
    assert "True" not in said["chief"].splitlines()
    assert said["chief"].splitlines() == ["ended 0", "(None, 1)"]


@pytest.mark.nightly  # what becomes of its trials is tested above, without processes
def test_a_worker_is_killed_in_the_middle(tmp_path, capfd):
    recipe = catalog.load("forkme")
    (x, y), _ = recipe.load_data()
    same = {"max_trials": 12, "epochs": 4, "batch_size": 32, "seed": 3, "keep": 12}
    alone = kregs.tune(recipe.build, x, y, **same, directory=tmp_path / "alone", verbose=0)
    folder = tmp_path / "shared" / "search"
    killed = []

    def kill():
        def ongoing():
            try:
                state = json.loads((folder / "oracle.json").read_text())
            except FileNotFoundError:
                return None
            return any(name.startswith("worker2-") for name in state["ongoing_trials"])

        wait_until(ongoing)
        killed.append(family(os.getpid())["worker2"])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    shared = kregs.tune(
        recipe.build, x, y, **same, workers=3, directory=tmp_path / "shared", verbose=2
    )
    killer.join(10)
    assert len(killed) == 1
    assert not family(os.getpid())
    assert "worker worker2 is gone; its " in capfd.readouterr().out
    assert_whole(folder, 12)
    left, right = (r.trials().sort_values("trial", ignore_index=True) for r in (alone, shared))
    assert left["status"].tolist() == right["status"].tolist() == ["completed"] * 12
    names = ["use_l2", "l2", "dropout", "learning_rate"]
    pd.testing.assert_frame_equal(left[names], right[names])  # to the last digit
    np.testing.assert_allclose(left["score"], right["score"], rtol=1e-3)
    assert len(pd.read_csv(folder / "trials.csv")) == 12
    assert shared.best_hyperparameters == alone.best_hyperparameters


@pytest.mark.nightly
def test_command_is_interrupted_and_resumed(tmp_path, capsys, start_interruptible):
    argv = ["tune", "forkme", "--max-trials", "12", "--epochs", "12", "--seeds", "1"]
    argv += ["--workers", "2", "--output", str(tmp_path / "runs")]
    folder = tmp_path / "runs" / "forkme"
    with start_interruptible(
        [sys.executable, "-P", "-m", "kregs", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: list(folder.glob("trial_*/trial.json")))
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
            started = family(process.pid)
        finally:
            process.kill()
    assert process.returncode == 130, error
    assert error.count("\n") == 1
    assert error.rstrip().endswith("--resume")
    assert not started

    assert main([*argv, "--resume"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "True" not in printed.out.splitlines()
    assert pd.read_csv(folder / "trials.csv")["status"].tolist() == ["completed"] * 12
    assert not family(os.getpid())


@pytest.mark.nightly
def test_a_script_that_does_not_guard_its_search(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import kregs\nfrom kregs import catalog\nrecipe = catalog.load('forkme')\n"
        "(x, y), _ = recipe.load_data()\n"
        f"kregs.tune(recipe.build, x, y, workers=1, directory={str(tmp_path)!r}, verbose=0)\n"
    )
    run = subprocess.run(
        [sys.executable, "-P", str(script)], capture_output=True, text=True, timeout=SECONDS
    )
    assert run.returncode == 1
    assert 'must stand below `if __name__ == "__main__":`' in run.stderr.splitlines()[-1]


@pytest.mark.nightly
def test_workers_end_with_their_parent(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import kregs\nfrom kregs import catalog\nrecipe = catalog.load('forkme')\n"
        "(x, y), _ = recipe.load_data()\nif __name__ == '__main__':\n"
        f"    kregs.tune(recipe.build, x, y, workers=2, directory={str(tmp_path)!r}, "
        "epochs=10**6, callbacks=[], verbose=0)\n"
    )
    process = subprocess.Popen([sys.executable, "-P", str(script)])
    workers = {}
    try:
        wait_until(lambda: len(family(process.pid)) == 2)
        workers = family(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not set(family().values()) & set(workers.values()), 60)
    finally:
        process.kill()
        process.wait()
        for worker in set(family().values()) & set(workers.values()):
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers=0"),
        ({"workers": 1.5}, TypeError, "workers=1.5"),
        ({"workers": "2"}, TypeError, "workers='2'"),
        (
            {"oracle": keras_tuner.oracles.RandomSearchOracle(max_trials=2), "max_trials": None},
            ValueError,
            "`oracle` must be a name",
        ),
        ({"x": tf.data.Dataset.range(3), "y": None}, TypeError, "`x` must be arrays"),
        (
            {"validation_data": tf.data.Dataset.range(3)},
            TypeError,
            "`validation_data` must be arrays",
        ),
        ({"build": lambda hp: None}, TypeError, "`build` must be something that another process"),
    ],
)
def test_bad_input(change, error, message, tmp_path):
    recipe = catalog.load("forkme")
    (x, y), _ = recipe.load_data()
    given = {"build": recipe.build, "x": x, "y": y, "workers": 2, "max_trials": 2, **change}
    with pytest.raises(error, match=message):
        kregs.tune(**given, directory=tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())


def test_a_worker_starts_no_workers(environment, tmp_path):
    recipe = catalog.load("forkme")
    (x, y), _ = recipe.load_data()
    with pytest.raises(RuntimeError, match="this process is one of them"):
        kregs.tune(recipe.build, x, y, workers=2, directory=tmp_path)


def test_nested_searches_have_no_common_chief(environment, tmp_path):
    recipe = catalog.load("forkme")
    (x, y), _ = recipe.load_data()
    with pytest.raises(ValueError, match="`nested` is several searches"):
        kregs.tune(recipe.build, x, y, nested=2, directory=tmp_path)


def test_bad_use_of_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "forkme", "--workers", "0"]) == 2
    assert "--workers 0" in capsys.readouterr().err
    assert main(["tune", "forkme", "--workers", "two"]) == 2
    assert "--workers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environ", "gpus", "expected"),
    [
        ({}, 4, ["0", "1", "2"]),
        ({}, 2, ["0", "1", "0"]),
        ({"CUDA_VISIBLE_DEVICES": "5, 3"}, 2, ["5", "3", "5"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-bb,GPU-cc"}, 3, ["GPU-aa", "GPU-bb", "GPU-cc"]),
    ],
)
def test_each_worker_has_a_gpu(environ, gpus, expected):
    variables = processes.environments(3, gpus=gpus, environ=environ)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in variables] == expected


def test_cores_are_shared_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    variables = processes.environments(3, gpus=0, environ={})
    assert variables == [{"TF_NUM_INTRAOP_THREADS": "2"}] * 3
    assert processes.environments(2, gpus=0, environ={"TF_NUM_INTRAOP_THREADS": "1"}) == [{}, {}]
