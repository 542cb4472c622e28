"""Worker processes on this machine: started, pinned to GPUs, watched, ended."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import pickle
import pickletools
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing import spawn
from pathlib import Path
from typing import Any, BinaryIO

import keras
import keras_tuner

from kregs.population.rows import is_dataset
from kregs.search.keras_tuner_internals import is_chief, is_worker, save_now
from kregs.search.loop import TimeUp
from kregs.search.progress import Progress
from kregs.search.randomness import preserved_state
from kregs.search.storage import WORKERS_FOLDER
from kregs.validation import check_integer

_HOST = "127.0.0.1"
_RESTARTS = 3  # of each worker that is killed
_PATIENCE = 10.0  # seconds for a worker to end by itself
_PATIENCE_FOR_EPOCHS = 60.0  # and where the time is up, to end the epochs under way
_NOTE = "kregs-note: "
# before kregs is imported: the caller's own modules may not be on the path yet
_PROGRAM = """\
import pickle, sys
from multiprocessing import spawn
with open(sys.argv[1], "rb") as file:
    spawn.prepare(pickle.load(file))
    from kregs.search.workers.processes import work
    work(file)
"""


def check_workers(
    workers: Any,
    *,
    build: Any,
    x: Any,
    validation_data: Any,
    oracle: Any,
    functions: Mapping[str, Any] | None = None,
) -> int | None:
    """Return how many workers there shall be, or raise if the search cannot be shared by them.

    Raises:
        TypeError: `workers` is no integer; `x` or `validation_data` is a dataset; `build` cannot
            be imported by another process.
        ValueError: `workers` is below 1; `oracle` is an object.
        RuntimeError: this process is a worker or a chief itself.
    """
    if workers is None:
        return None
    workers = check_integer("workers", workers, minimum=1)
    if is_chief() or is_worker():
        raise RuntimeError(
            "`workers` starts processes, and this process is one of them. In a script, what "
            'searches must stand below `if __name__ == "__main__":`; where KERASTUNER_TUNER_ID is '
            "set, leave workers= out"
        )
    if isinstance(oracle, keras_tuner.Oracle):
        raise ValueError(
            "`oracle` must be a name if there are `workers`: an Oracle object is of one process. "
            f"Received: oracle={type(oracle).__name__}"
        )
    for name, data in (("x", x), ("validation_data", validation_data)):
        if is_dataset(data):
            raise TypeError(
                f"`{name}` must be arrays if there are `workers`: a dataset cannot be sent to "
                f"another process. Received: {type(data).__name__}"
            )
    for name, function in {"build": build, **(functions or {})}.items():
        _check_picklable(name, function)
        _check_importable(name, function)
    return workers


def _check_picklable(name: str, value: Any) -> None:
    try:
        pickle.dumps(value)
    except Exception as error:
        raise TypeError(
            f"`{name}` must be something that another process can import if there are `workers`: "
            "a function or class at the top of a module, no lambda and nothing defined in a "
            f"function. Received: {value!r}, which raises {type(error).__name__}: {error}"
        ) from error


def _check_importable(name: str, value: Any) -> None:
    """Raise `TypeError` if a value is of `__main__` and no other process can have that module.

    A worker runs the main script anew, without what stands below `if __name__ == "__main__":`.
    """
    main = sys.modules["__main__"]
    names = _names_of_main(value)
    if not names:
        return
    where = f"`{name}` is, or needs, {', '.join(sorted(names))} of the main module"
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and (file is None or not Path(file).is_file()):
        raise TypeError(
            f"{where}, which is no file (a notebook, a console): a worker is another process and "
            "cannot import it. Write it into a module of its own and import it. "
            f"Received: {value!r}"
        )
    guarded = names & _guarded_names(file)
    if guarded:
        raise TypeError(
            f"{where}, and {', '.join(sorted(guarded))} stands below "
            '`if __name__ == "__main__":`, which workers do not run: put it above. '
            f"Received: {value!r}"
        )


def _names_of_main(value: Any) -> set[str]:
    """Return the names of the main module that a pickled value refers to."""
    operations = pickletools.genops(pickle.dumps(value, protocol=2))
    words = [argument for operation, argument, _ in operations if operation.name == "GLOBAL"]
    parts = (str(word).split(" ") for word in words)
    return {name.split(".")[0] for module, name in parts if module == "__main__"}


def _guarded_names(file: str | None) -> set[str]:
    """Return the names that a script defines below `if __name__ == "__main__":` only."""
    if file is None or not Path(file).is_file():
        return set()
    try:
        body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError):
        return set()
    guards = [
        node for node in body if isinstance(node, ast.If) and "__main__" in ast.dump(node.test)
    ]
    others = [node for node in body if node not in guards]
    inside, outside = (
        {name for node in nodes for name in _bound_names(node)}
        for nodes in ([part for guard in guards for part in guard.body], others)
    )
    return inside - outside


def _bound_names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id
        elif isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            yield part.name
        elif isinstance(part, ast.alias):
            yield (part.asname or part.name).split(".")[0]


def search_with_workers(tuner: Any, task: Any, *, workers: int, progress: Progress) -> None:
    """Let workers train the trials of a tuner's oracle; return when all have ended.

    A worker that is killed is replaced, and its trials are trained again.

    Args:
        tuner: its oracle, project directory and time limit are used.
        task: the `SearchTask` whose trials they train.
        workers: how many processes.
        progress: is told of trials.

    Raises:
        TypeError: an argument cannot be sent to another process.
        RuntimeError: a worker ended with an error that cannot be sent here, or workers were killed
            again and again.
        Exception: what a worker raised.
    """
    from kregs.search.workers.chief import Chief

    tuner.save()
    chief = Chief(tuner.oracle, progress, tuner.forget_weights)
    logs = Path(tuner.project_dir) / WORKERS_FOLDER
    logs.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(save_now, tuner.oracle)
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        port = stack.enter_context(chief.serving(_HOST, 0))
        payload = Path(scratch) / "search"
        _write_payload(payload, task, tuner.time_left)
        team = stack.enter_context(_team(payload, logs, port=port, workers=workers))
        noted: set[str] = set()
        while not chief.finished:
            time.sleep(0.1)
            for worker in team:
                for note in worker.notes():
                    if note not in noted:
                        noted.add(note)
                        progress.note(note)
            chief.check()
            if tuner.time_is_up:  # for them, too: they end with their epochs
                ends = time.monotonic() + _PATIENCE_FOR_EPOCHS
                for worker in team:
                    worker.wait(max(0.0, ends - time.monotonic()))
            tuner.check_time()
            for worker in team:
                if worker.ended() and not chief.finished:
                    chief.lost(worker.name)
                    worker.start()
        for worker in team:
            worker.wait(_PATIENCE)


def _write_payload(path: Path, task: Any, time_left: float | None) -> None:
    preparation = spawn.get_preparation_data("kregs worker")
    # a key of this process, which may not be written down
    preparation.pop("authkey", None)
    preparation["orig_dir"] = os.getcwd()
    settings = task.settings
    for name in ("callbacks", "preprocess", "folds", "objective"):
        _check_picklable(name, getattr(settings, name))
    here = dataclasses.replace(task, directory=os.path.abspath(task.directory))
    with path.open("wb") as file:
        pickle.dump(preparation, file)
        pickle.dump((keras.config.floatx(), keras.config.dtype_policy().name), file)
        # by the clock of the machine: a worker needs a while to start
        pickle.dump(None if time_left is None else time.time() + time_left, file)
        pickle.dump(here, file, protocol=pickle.HIGHEST_PROTOCOL)


@contextlib.contextmanager
def _team(payload: Path, logs: Path, *, port: int, workers: int) -> Iterator[list[_Worker]]:
    """Start workers; none is left when the block ends, however it does."""
    team: list[_Worker] = []
    try:
        for number, environment in enumerate(environments(workers), 1):
            environment |= {
                "KERASTUNER_TUNER_ID": f"worker{number}",
                "KERASTUNER_ORACLE_IP": _HOST,
                "KERASTUNER_ORACLE_PORT": str(port),
                "KREGS_WORKERS": str(workers),
            }
            team.append(_Worker(payload, logs, environment))
            team[-1].start()
        yield team
    finally:
        for worker in team:
            worker.terminate()
        for worker in team:
            worker.close()


class _Worker:
    """One worker process, and those started in its place."""

    def __init__(self, payload: Path, logs: Path, environment: Mapping[str, str]) -> None:
        self.name = environment["KERASTUNER_TUNER_ID"]
        self._environment = {**os.environ, **environment}
        self._payload = payload
        self._log = logs / f"{self.name}.log"
        self._log.unlink(missing_ok=True)
        self._read = 0
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._starts > _RESTARTS:
            raise RuntimeError(
                f"{self.name} was killed {self._starts} times, perhaps for want of memory. What it "
                f"printed is in {str(self._log)!r}. resume=True goes on with the search"
            )
        self._starts += 1
        self._close_pipe()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_interpreter(), "-c", _PROGRAM, str(self._payload)],
                stdin=subprocess.PIPE,  # its end tells the worker that this process has died
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for this process, which ends the workers
            )

    def notes(self) -> list[str]:
        """Return what the worker has to say since the last call."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read().rpartition(b"\n")[0]
        self._read += len(new)
        lines = new.decode(errors="replace").splitlines()
        return [line.removeprefix(_NOTE) for line in lines if line.startswith(_NOTE)]

    def ended(self) -> bool:
        """Whether the worker was killed or has left; raises what it raised."""
        if self._process is None or self._process.poll() is None:
            return False
        code = self._process.returncode
        if code > 0:
            self._raise(code)
        return True

    def _raise(self, code: int) -> None:
        error = self._payload.with_name(self.name)
        if error.exists():
            raise pickle.loads(error.read_bytes())
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError(
            f"{self.name} ended with exit code {code}: {lines[-1] if lines else 'it said nothing'} "
            f"(all that it printed is in {str(self._log)!r})"
        )

    def wait(self, seconds: float) -> None:
        """Let the worker end by itself."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """End the worker for certain."""
        if self._process is None:
            return
        self.wait(_PATIENCE / 2)
        self._process.kill()
        self._process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def _interpreter() -> list[str]:
    """Return this interpreter's command, with its settings (`-P`, `-W`, ...)."""
    return [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]


def environments(
    workers: int, *, gpus: int | None = None, environ: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Return each worker's own environment variables: one GPU, or a share of the cores.

    Args:
        workers: how many there are.
        gpus: how many GPUs this process sees. Default: what TensorFlow finds.
        environ: this process's environment. Default: `os.environ`.

    Example:

    >>> [e["CUDA_VISIBLE_DEVICES"] for e in environments(3, gpus=2, environ={})]
    ['0', '1', '0']
    """
    environ = os.environ if environ is None else environ
    if gpus is None:
        import tensorflow as tf

        gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        given = environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [name.strip() for name in given.split(",") if name.strip()][:gpus]
        names = names or [str(number) for number in range(gpus)]
        # several workers, and the chief, may share a GPU
        return [
            {
                "CUDA_VISIBLE_DEVICES": names[number % len(names)],
                "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            }
            for number in range(workers)
        ]
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    # workers that all use all cores wait for one another
    return [
        {} if "TF_NUM_INTRAOP_THREADS" in environ else {"TF_NUM_INTRAOP_THREADS": threads}
        for _ in range(workers)
    ]


# ---- in the worker -------------------------------------------------------------------------


class Notes(Progress):
    """What a worker says: only what concerns the search as a whole, for the chief to repeat."""

    def note(self, text: str) -> None:
        print(_NOTE + " ".join(text.split()), flush=True)


def work(file: BinaryIO) -> None:
    """Train trials; what a worker process does.

    Args:
        file: holds, pickled, Keras's settings, when the time is up, and the `SearchTask`.
    """
    _end_with_parent()
    try:
        floatx, policy = pickle.load(file)
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
        ends = pickle.load(file)
        task = pickle.load(file)
        max_time = None if ends is None else max(0.0, ends - time.time())
        with preserved_state(), contextlib.suppress(TimeUp):
            task.tuner(Notes(), max_time=max_time).search(**task.fit_arguments())
    except Exception as error:
        _leave(error, Path(file.name).with_name(os.environ["KERASTUNER_TUNER_ID"]))
        raise


def _end_with_parent() -> None:
    """End this process when the one that started it does, by whatever death."""

    def watch() -> None:
        os.read(0, 1)  # nothing is ever written
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _leave(error: Exception, path: Path) -> None:
    """Write an error for the chief to raise, if it can be sent."""
    with contextlib.suppress(Exception):
        data = pickle.dumps(error)
        pickle.loads(data)
        path.write_bytes(data)


def set_memory_growth() -> None:
    """Let the chief leave room on the GPU, where a worker is to train."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # it is in use already
            tf.config.experimental.set_memory_growth(gpu, True)
