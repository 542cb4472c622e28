"""Every private name of keras-tuner that kregs uses, in one place, each with the reason.

A new version of keras-tuner is checked against this file alone.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import threading
import time
import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_tuner.src.distribute import utils as distribute_utils

from kregs.files import write_text
from kregs.population.keras_internals import built_with_fresh_names
from kregs.population.undrawn import InitialWeights

# an oracle's state is written when that takes at most this share of the time
_SHARE_FOR_STATE = 0.02
# kregs's part of an oracle's state: each trial's values, for a trial whose own file is lost
_VALUES = "values_by_trial"


_TUNER = keras_tuner.Tuner
_redirecting = threading.RLock()


class QuietTuner(keras_tuner.Tuner):
    """A `keras_tuner.Tuner` that prints nothing and whose files do not depend on its role."""

    def __init__(self, **kwargs: Any) -> None:
        self._saved_state: str | None = None
        # whether it was explored before, fit and all: no build is needed to find hyperparameters
        self.space_is_whole = getattr(kwargs["oracle"], "space_is_whole", False)
        folder = Path(kwargs["directory"], kwargs["project_name"])
        if not kwargs.get("overwrite") and not is_worker():
            self._check_files(folder)
        if kwargs.get("overwrite") or not (folder / "tuner0.json").exists():
            super().__init__(**kwargs)
            return
        # keras-tuner prints that it reloads a project. Standard output is that of all threads
        with _redirecting, contextlib.redirect_stdout(io.StringIO()):
            super().__init__(**kwargs)

    def _check_files(self, folder: Path) -> None:
        """Raise if what a search is gone on from is broken; write the tuner's file if it is lost.

        keras-tuner begins anew where its file is missing, under the numbers of the trials there.
        """
        oracle_file, tuner_file = folder / "oracle.json", folder / "tuner0.json"
        if not oracle_file.exists() and any(folder.glob("trial_*/trial.json")):
            raise ValueError(
                f"{str(oracle_file)!r} is missing: it holds what the oracle has proposed, without "
                "which the search cannot go on. kregs.load_result reads its trials; restore the "
                "file, or begin another search under another project_name"
            )
        if not oracle_file.exists():
            tuner_file.unlink(missing_ok=True)  # nothing was begun
            return
        try:
            state = json.loads(oracle_file.read_text(encoding="utf-8"))
            if not isinstance(state, dict) or not {"hyperparameters", "start_order"} <= set(state):
                raise ValueError("no state of an oracle")
        except ValueError as error:
            raise ValueError(
                f"{str(oracle_file)!r} cannot be read ({error}): it holds what the oracle has "
                "proposed, without which the search cannot go on. kregs.load_result reads its "
                "trials; restore the file, or begin another search under another project_name"
            ) from None
        try:
            json.loads(tuner_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError) as error:
            if type(self).get_state is not keras_tuner.Tuner.get_state:
                raise ValueError(
                    f"{str(tuner_file)!r} is missing or cannot be read ({error}): it holds the "
                    f"state of {type(self).__name__}. Restore it, or delete the project folder"
                ) from None
            write_text(tuner_file, "{}")  # all that keras-tuner keeps there

    def _populate_initial_space(self) -> None:
        if not self.space_is_whole:
            with InitialWeights().drawn_late():  # these models are only to be built
                super()._populate_initial_space()

    def save(self) -> None:
        """Write the tuner's file whole, which keras-tuner does not, and the oracle's."""
        self.oracle.save()
        state = json.dumps(self.get_state())
        if state != self._saved_state:  # it hardly ever changes
            write_text(self._get_tuner_fname(), state)
            self._saved_state = state

    def _get_tuner_fname(self) -> str:
        # a search that one process began can be resumed by a chief, and the other way round
        return os.path.join(str(self.project_dir), "tuner0.json")


# ---- roles ---------------------------------------------------------------------------------


def is_chief() -> bool:
    """Whether keras-tuner's environment variables make this process the chief."""
    return distribute_utils.is_chief_oracle()


def is_worker() -> bool:
    """Whether keras-tuner's environment variables make this process a worker."""
    return distribute_utils.has_chief_oracle() and not distribute_utils.is_chief_oracle()


def messages() -> types.SimpleNamespace:
    """Return keras-tuner's messages between chief and workers; loads gRPC."""
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer
    from keras_tuner.src.distribute.oracle_client import OracleClient
    from keras_tuner.src.engine.trial import Trial, TrialStatus

    return types.SimpleNamespace(
        service=protos.get_service(),
        grpc=protos.get_service_grpc(),
        OracleServicer=OracleServicer,
        OracleClient=OracleClient,
        Trial=Trial,
        TrialStatus=TrialStatus,
    )


def space_message(hyperparameters: Any) -> Any:
    """Return hyperparameters as keras-tuner's message, without the print of each condition."""
    from keras_tuner.src import protos
    from keras_tuner.src.engine import conditions

    class Quiet(conditions.Parent):
        def to_proto(self) -> Any:
            names = {str: "string", bool: "boolean", int: "int"}
            field = f"{names.get(type(self.values[0]), 'float')}_value"
            values = [protos.get_proto().Value(**{field: value}) for value in self.values]
            parent = protos.get_proto().Condition.Parent(name=self.name, values=values)
            return protos.get_proto().Condition(parent=parent)

    sent = hyperparameters.copy()
    for hp in sent.space:
        hp.conditions = [Quiet(c.name, c.values) for c in hp.conditions]
    return sent.to_proto()


def trial_message(trial: Any) -> Any:
    """Return a trial as keras-tuner's message, without the print of each condition."""
    space = types.SimpleNamespace(to_proto=lambda: space_message(trial.hyperparameters))
    sent = copy.copy(trial)
    sent.hyperparameters = space
    return sent.to_proto()


# ---- oracles -------------------------------------------------------------------------------


def trial_folder(oracle: Any, trial_id: str) -> str:
    """Return a trial's directory, which is made if it does not exist."""
    return oracle._get_trial_dir(trial_id)


def knows(hyperparameters: Any, hp: Any) -> bool:
    """Whether a space has this hyperparameter under these conditions."""
    return hyperparameters._exists(hp.name, hp.conditions)


def was_tried(oracle: Any, values: dict[str, Any]) -> bool:
    """Whether some trial had these values."""
    return oracle._duplicate(values)


def random_point(oracle: Any) -> dict[str, Any]:
    """Return a random proposal of a Bayesian oracle."""
    return oracle._random_populate_space()


def seed_generator(oracle: Any, seed: int) -> None:
    """Seed a Bayesian oracle's generator, whose state keras-tuner does not save."""
    oracle._random_state.seed(seed)


def try_again(oracle: Any, trial_ids: Iterable[str]) -> None:
    """Give trials that are under way to whoever asks next, in this order."""
    lost = set(trial_ids)
    for tuner_id, trial in list(oracle.ongoing_trials.items()):
        if trial.trial_id in lost:
            del oracle.ongoing_trials[tuner_id]
    # the queue is taken from its end
    oracle._retry_queue.extend(sorted(lost, reverse=True))


def write_whole_files(oracle: keras_tuner.Oracle) -> None:
    """Make an oracle write its files whole, and spend no more on the last trial than on others.

    keras-tuner writes in place, and all of its state twice a trial, so that a search of n trials
    takes n² time. Each trial's own file holds what is needed to bring an older state up to date.
    The oracles whose state is more than that (a grid's order, Hyperband's brackets, a user's own)
    are written every time.
    """
    journaled = type(oracle) is keras_tuner.oracles.RandomSearchOracle
    written = types.SimpleNamespace(at=-1e9, seconds=0.0)

    def save(*, always: bool = True) -> None:
        began = time.perf_counter()
        if not always and began - written.at < written.seconds / _SHARE_FOR_STATE:
            return
        values = {name: trial.hyperparameters.values for name, trial in oracle.trials.items()}
        state = {**oracle.get_state(), _VALUES: values}
        write_text(oracle._get_oracle_fname(), json.dumps(state))
        written.at = time.perf_counter()
        written.seconds = written.at - began

    def save_trial(trial: Any) -> None:
        state = {**trial.get_state(), "seed_state": oracle._seed_state}
        path = Path(trial_folder(oracle, trial.trial_id), "trial.json")
        write_text(path, json.dumps(state))

    def reload() -> None:
        lost = _restore_lost_trials(oracle, journaled=journaled)
        type(oracle).reload(oracle)
        if journaled:
            _bring_up_to_date(oracle)
        else:  # killed before the state had it, a trial is proposed again
            unknown = set(oracle.trials) - set(oracle.start_order)
            for trial_id in unknown:
                if oracle.trials[trial_id].status == "RUNNING":
                    del oracle.trials[trial_id]
        _train_again(oracle, lost)

    def check_consecutive_failures() -> None:
        # keras-tuner's own counts through all trials at the end of each
        for failures, trial_id in enumerate(reversed(oracle.end_order), start=1):
            if oracle.trials[trial_id].status != "FAILED":
                return
            if failures == oracle.max_consecutive_failed_trials:
                message = oracle.trials[oracle.end_order[-1]].message or ""
                raise RuntimeError(
                    f"Number of consecutive failures exceeded the limit of {failures}.\n{message}"
                )

    oracle._check_consecutive_failures = check_consecutive_failures
    oracle.save = (lambda: save(always=False)) if journaled else save
    oracle.save_now = save
    oracle._save_trial = save_trial
    oracle.reload = reload


def save_now(oracle: Any) -> None:
    """Write an oracle's state, however long that takes."""
    getattr(oracle, "save_now", oracle.save)()


def _restore_lost_trials(oracle: Any, *, journaled: bool) -> dict[str, bool]:
    """Write the files of trials anew whose files are lost or broken.

    keras-tuner gives a new trial the number of trials that there are: with a gap, that of another.

    Returns:
        For each of them whether its values are known; others are to be proposed.

    Raises:
        ValueError: the oracle cannot do without the values of such a trial.
    """
    state = json.loads(Path(oracle._get_oracle_fname()).read_text(encoding="utf-8"))
    known = state.get(_VALUES, {})
    project = Path(oracle._project_dir)
    begun = {path.parent.name.removeprefix("trial_") for path in project.glob("trial_*/trial.json")}
    numbers = {name for name in {*begun, *state["start_order"]} if name.isdigit()}
    lost = {}
    for trial_id in sorted(numbers | _gaps(numbers)):
        folder = project / f"trial_{trial_id}"
        problem = _problem_of(folder)
        if problem is None:
            continue
        values = known.get(trial_id) or _values_of(folder)
        if values is None and not journaled:
            raise ValueError(
                f"{problem}, and no other file holds the trial's hyperparameters. Restore it, or "
                "begin another search under another project_name; kregs.load_result reads the rest"
            )
        warnings.warn(f"{problem}: trial {trial_id} is trained again", stacklevel=6)
        folder.mkdir(exist_ok=True)
        for name in ("training.json", "checkpoint.weights.h5"):
            (folder / name).unlink(missing_ok=True)
        space = keras_tuner.HyperParameters.from_config(state["hyperparameters"])
        space.values = values or {}
        trial = _new_trial(space, trial_id)
        write_text(folder / "trial.json", json.dumps(trial.get_state()))
        lost[trial_id] = values is not None
    return lost


def _gaps(numbers: set[str]) -> set[str]:
    """Return the numbers below the largest that are missing, written as the others are."""
    largest = max(numbers, key=int, default="0")
    missing = set(range(int(largest))) - set(map(int, numbers))
    return {f"{number:0{len(largest)}d}" for number in missing}


def _problem_of(folder: Path) -> str | None:
    """Say what is wrong with the files of a trial; `None` if nothing is."""
    for name in ("trial.json", "training.json"):
        path = folder / name
        try:
            if not isinstance(json.loads(path.read_text(encoding="utf-8")), dict):
                raise ValueError("it holds no record")
        except FileNotFoundError:
            if name == "trial.json":
                return f"{str(path)!r} is missing"
        except ValueError as error:
            return f"{str(path)!r} cannot be read ({error})"
    return None


def _values_of(folder: Path) -> dict[str, Any] | None:
    """Return a trial's values by its own file, `None` if that does not tell them."""
    try:
        state = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
        return state["hyperparameters"]["values"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _new_trial(space: Any, trial_id: str) -> Any:
    from keras_tuner.src.engine.trial import Trial

    return Trial(space, trial_id=trial_id, status="RUNNING")


def _train_again(oracle: Any, lost: Mapping[str, bool]) -> None:
    """Put trials before all that are to come, as if they had not ended."""
    for trial_id, known in lost.items():
        trial = oracle.trials[trial_id]
        if not known:
            trial.hyperparameters.values = oracle.populate_space(trial_id)["values"] or {}
            oracle._record_values(trial)
            oracle._save_trial(trial)
        oracle._run_times[trial_id] = 0
        for order in (oracle.end_order, oracle._retry_queue):
            while trial_id in order:
                order.remove(trial_id)
        if trial_id not in oracle.start_order:
            oracle.start_order.append(trial_id)
    # the queue is taken from its end
    oracle._retry_queue.extend(sorted(lost, reverse=True))


def _bring_up_to_date(oracle: Any) -> None:
    """Add what trials' own files tell and the oracle's state, written before them, does not."""
    for trial_id in sorted(oracle.trials):
        trial = oracle.trials[trial_id]
        path = Path(trial_folder(oracle, trial_id), "trial.json")
        state = json.loads(path.read_text(encoding="utf-8"))
        oracle._seed_state = max(oracle._seed_state, state.get("seed_state", 0))
        if trial_id not in oracle._id_to_hash:
            oracle.start_order.append(trial_id)
        oracle._record_values(trial)
        ended = trial.status in ("COMPLETED", "FAILED")
        if ended and not oracle._run_times[trial_id]:
            oracle._run_times[trial_id] = 1
            oracle.end_order.append(trial_id)
            oracle.update_space(trial.hyperparameters)
        if ended and trial_id in oracle._retry_queue:
            oracle._retry_queue.remove(trial_id)
        elif not ended and trial_id not in oracle._retry_queue:
            oracle._retry_queue.append(trial_id)
    # the queue is taken from its end
    oracle._retry_queue.sort(reverse=True)


# ---- grid and Hyperband --------------------------------------------------------------------


def grid_order(oracle: Any) -> Iterator[str]:
    """Yield the trials of a grid in the order of the grid."""
    links = oracle._ordered_ids
    index = links._next_index[None]
    while index is not None:
        yield links._memory[index]
        index = links._next_index[index]


def restore_grid_order(oracle: Any, order: Sequence[str]) -> None:
    """Give a reloaded grid its order, and the trials after which it goes on."""
    for trial_id in order:
        oracle._ordered_ids.insert(trial_id)
    # one that was followed already is skipped by `populate_space`
    oracle._populate_next = [trial_id for trial_id in order if trial_id in oracle.end_order]


def next_grid_point(oracle: Any, values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the point after another one, `None` after the last."""
    return oracle._get_next_combination(values)


def bracket_count(oracle: Any) -> int:
    """Return how many brackets a whole sweep of Hyperband has."""
    return oracle._get_num_brackets()


def round_size(oracle: Any, bracket: int, place: int) -> int:
    """Return how many trials a round of a Hyperband bracket has if none fails."""
    return oracle._get_size(bracket, place)


def round_epochs(oracle: Any, bracket: int, place: int) -> int:
    """Return up to which epoch a round of a Hyperband bracket trains."""
    return oracle._get_epochs(bracket, place)


def random_values(oracle: Any) -> dict[str, Any] | None:
    """Return a random point that was not tried; `None` if there seems to be none."""
    return oracle._random_values()


def open_brackets(oracle: Any) -> list[dict[str, Any]]:
    """Return the Hyperband brackets under way: their rounds are lists of `past_id` and `id`."""
    return list(oracle._brackets)


def begin_bracket(oracle: Any, number: int) -> dict[str, Any]:
    """Begin a Hyperband bracket and return it."""
    oracle._current_bracket = number
    oracle._start_new_bracket()
    return oracle._brackets[-1]


def close_brackets(oracle: Any, brackets: Sequence[dict[str, Any]]) -> None:
    """Forget Hyperband brackets that have no further trial."""
    oracle._brackets = [b for b in oracle._brackets if all(b is not other for other in brackets)]


# ---- tuners --------------------------------------------------------------------------------


def build_model(tuner: keras_tuner.Tuner, hp: Any) -> Any:
    """Build as keras-tuner does: the hypermodel's model, compiled anew if the tuner says how."""
    from keras_tuner.src.engine.tuner import maybe_distribute

    def build() -> Any:
        # keras-tuner's own looks for the optimizer of a model that has none yet
        with maybe_distribute(tuner.distribution_strategy):
            model = tuner.hypermodel.build(hp)
            overrides = tuner.optimizer or tuner.loss or tuner.metrics
            if overrides and isinstance(model, keras.Model) and not model.compiled:
                model.compile("rmsprop", tuner.loss)
            tuner._override_compile_args(model)
        return model

    return built_with_fresh_names(build)


def tensorboard_folder(tuner: Any, log_dir: Any, trial_id: str, number: int) -> str:
    """Return where the logs of one run of a trial go."""
    return tuner._get_tensorboard_dir(log_dir, trial_id, number)


def callbacks_of_run(
    tuner: Any, callbacks: Sequence[keras.callbacks.Callback], trial: Any, number: int
) -> list[keras.callbacks.Callback]:
    """Return copies of callbacks for one run of a trial; TensorBoard logs into its own folder."""
    copies = tuner._deepcopy_callbacks(list(callbacks))
    tuner._configure_tensorboard_dir(copies, trial, number)
    return copies


def own_hooks(tuner: keras_tuner.Tuner) -> list[str]:
    """Return the hooks of epochs and batches that the tuner's class has overridden."""
    names = ("on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")
    kind = type(tuner)
    if not issubclass(kind, _TUNER):
        return []
    return [name for name in names if getattr(kind, name) is not getattr(_TUNER, name)]


def check_own_methods(tuner: keras_tuner.Tuner) -> None:
    """Raise `TypeError` if a subclass overrides what only keras-tuner's own `run_trial` calls."""
    name = "_build_and_fit_model"
    if getattr(type(tuner), name) is not getattr(_TUNER, name):
        raise TypeError(
            f"{type(tuner).__name__} must not override `{name}`, a private method that a "
            "PopulationTuner does not call: override `run_trial`, or `HyperModel.fit`"
        )


def hooks_of_tuner(tuner: keras_tuner.Tuner, trial: Any) -> list[keras.callbacks.Callback]:
    """Return the callback that calls a tuner's own hooks, none if it has none: it costs time."""
    from keras_tuner.src.engine.tuner_utils import TunerCallback

    return [TunerCallback(tuner, trial)] if own_hooks(tuner) else []


def check_model_size(tuner: keras_tuner.Tuner, model: keras.Model) -> None:
    """Raise `FailedTrialError`, as keras-tuner does, if a model is larger than `max_model_size`."""
    from keras_tuner.src.engine.tuner import maybe_compute_model_size

    size = maybe_compute_model_size(model)
    if tuner.max_model_size and size > tuner.max_model_size:
        raise keras_tuner.errors.FailedTrialError(
            f"Oversized model: it has {size} parameters, more than "
            f"max_model_size={tuner.max_model_size}"
        )


def tensorboard_hyperparameters(hyperparameters: Any, hparams_api: Any) -> dict[Any, Any]:
    """Return hyperparameters as TensorBoard's HParams plugin takes them."""
    from keras_tuner.src.engine.tuner_utils import convert_hyperparams_to_hparams

    return convert_hyperparams_to_hparams(hyperparameters, hparams_api)
