"""`Population`: many compiled Keras models of one structure, trained as one."""

from __future__ import annotations

import collections
import contextlib
import copy
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kregs.files import atomic_path
from kregs.population.callbacks import check_callbacks, look_at_models
from kregs.population.capacity import members_at_once
from kregs.population.graph import as_outputs
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.metrics import predicted_rows
from kregs.population.optimizers import OptimizerState
from kregs.population.program import Program
from kregs.population.registry import NotStackable
from kregs.population.rows import (
    GATHER_BYTES,
    Feed,
    as_rows,
    as_source,
    as_validation,
    check_one_target,
    in_steps,
    is_dataset,
)
from kregs.population.signature import read_member
from kregs.population.training import Training, check_devices
from kregs.training.data_checks import check_data, check_rows
from kregs.training.targets import check_class_weight, resolve_class_weight
from kregs.validation import check_flag, check_integer, check_path, check_seed, in_words

_FACTS = "population.json"  # in the file that `save` writes


class Population:
    """Models of one structure, trained as one stacked model. Make one with `from_models`.

    Example:

    >>> import keras, numpy as np
    >>> def build(l2):
    ...     layers = [
    ...         keras.Input((4,)),
    ...         keras.layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(l2)),
    ...         keras.layers.Dense(1),
    ...     ]
    ...     model = keras.Sequential(layers)
    ...     model.compile("adam", "mse")
    ...     return model
    >>> population = Population.from_models([build(l2) for l2 in (0.0, 1e-3, 1e-1)])
    >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    >>> history = population.fit(x, x[:, :1], epochs=2)
    >>> len(population), len(history), len(history[0]["loss"])
    (3, 3, 2)
    >>> population.predict(x).shape
    (3, 64, 1)
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        *,
        seeds: Sequence[int],
        epochs: Sequence[int] | None = None,
    ) -> None:
        self.models = list(models)
        self.members = [read_member(model) for model in self.models]
        self.layout = Layout(self.members)
        self.seeds = list(seeds)
        self.history: list[dict[str, list[float]]] = [{} for _ in self.models]
        self.failures: list[str | None] = [None] * len(self.models)
        # what they ended with; `None`: their models are as far
        self._weights: list[list[np.ndarray]] | None = None
        self._states: list[OptimizerState | None] = [None] * len(self.models)
        self._epochs = list(epochs or [0] * len(self.models))  # of all calls of fit
        self._batch_order = np.random.default_rng(0)  # of a PyDataset
        self._training: Training | None = None  # the last one, whose programs are compiled
        self._given_out = False  # by `unstack`

    @classmethod
    def from_models(
        cls, models: Sequence[keras.Model], *, seeds: int | Sequence[int] = 0
    ) -> Population:
        """Stack compiled models that differ only in numbers.

        The numbers that may differ: l1 and l2 coefficients of kernels, biases and activities, the
        rates of Dropout, SpatialDropout and GaussianDropout, the deviation of GaussianNoise, the
        kind and maximum of constraints (MaxNorm, NonNeg, UnitNorm, none), learning rate, its
        schedule, weight decay, momentum, betas, the way and bound of clipping, `l1` and `group_l1`
        of `kregs.proximal` (or none), and label smoothing. A dropout layer may also be missing in
        some. Losses, metrics and activations must be the same: one object, or one source with equal
        closures, defaults and globals.

        An optimizer that was trained before goes on from its state.

        Args:
            models: built and compiled Sequential or Functional models.
            seeds: of batch order and noise, one for all (members are then compared under the same
                luck) or one a member.

        Raises:
            NotStackable: the models differ in anything else; the message names the layer, the
                field and both values. Or a layer, loss or optimizer has no stacked form.
        """
        if isinstance(models, (keras.Model, str)) or not isinstance(models, Iterable):
            raise TypeError(
                f"`models` must be a list of compiled models. Received: models={models!r}"
            )
        models = list(models)
        if len({id(model) for model in models}) < len(models):
            raise ValueError(
                "`models` must be different objects, each with weights of its own. "
                "Received: one model twice"
            )
        numbers = _each("seeds", seeds, len(models))
        return cls(models, seeds=[check_seed("seeds", seed) for seed in numbers])

    def __len__(self) -> int:
        return len(self.models)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        epochs: int | Sequence[int] = 1,
        batch_size: int = 32,
        validation_batch_size: int | None = None,
        shuffle: bool = True,
        early_stopping: keras.callbacks.EarlyStopping | None = None,
        callbacks: Sequence[Any] = (),
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | str | None = None,
        max_members: int | None = None,
        accelerate: bool | None = None,
        devices: Sequence[str] | None = None,
    ) -> list[dict[str, list[float]]]:
        """Train all members, from where an earlier call has left them.

        As in Keras, a further call goes on with the weights, the optimizer's state, its step count
        and learning rate, and counts epochs from 0 again. The order of the rows is kregs's own: a
        function of the member's seed and of the epoch, counted over all calls, so that two calls of
        2 and 3 epochs do what one of 5 does.

        Args:
            x, y: arrays, rows first, shared by all members, of several inputs or outputs a list or
                dictionary as in `keras.Model.fit`; or a `tf.data.Dataset` or
                `keras.utils.PyDataset` of batches `(x, y)` as `x`, which is streamed: all members
                see the same batches.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset.
            epochs: as in `keras.Model.fit`, one number for all or one a member.
            batch_size, validation_batch_size, shuffle: as in `keras.Model.fit`.
            sample_weight: `(rows,)`, for all outputs.
            class_weight: as in `keras.Model.fit`, for one output; also `"balanced"`: weights with
                which each class counts the same.
            early_stopping: applied to each member by itself.
            callbacks: further Keras callbacks without hooks of batches, of which each member has
                its own copy; or a list of such lists, one a member, which are not copied: for those
                that write files, or whose findings are wanted. A callback sees the member's own
                Keras model as `model`, and what it changes there counts.
            max_members: how many train at once. Default: what memory and cache suggest.
            accelerate: compile with XLA; default: where it is known to be faster.
            devices: names of the devices that share the members out, such as `["GPU:0", "GPU:1"]`.
                Default: all GPUs. What becomes of a member does not depend on it. A dataset is
                streamed to one device only.

        Returns:
            The history of each member: metric name to a list with one number an epoch, or one array
            where Keras's metric is itself an array. Outputs and metrics that were given no name
            are called as those of the first model. A member whose loss is not finite ends there;
            `failures` says so.

        Raises:
            ValueError: arguments or shapes do not fit.
            NotStackable: a callback has hooks of batches, or changes how its model trains.
            Exception: whatever a callback raises.
        """
        self._take_back()
        durations = [
            check_integer("epochs", number, minimum=1)
            for number in _each("epochs", epochs, len(self))
        ]
        check_integer("batch_size", batch_size, minimum=1)
        if validation_batch_size is not None:
            check_integer("validation_batch_size", validation_batch_size, minimum=1)
        check_flag("shuffle", shuffle)
        if accelerate is not None:
            check_flag("accelerate", accelerate)
        callbacks_of_members = _callbacks(callbacks, early_stopping, len(self))
        model = self.models[0]
        class_weight = check_class_weight(class_weight)
        if is_dataset(x):
            if isinstance(class_weight, str):
                raise ValueError(
                    "`class_weight` must be a dictionary if `x` is a dataset, whose classes are "
                    f"not counted. Received: class_weight={class_weight!r}"
                )
        else:
            check_rows(x, y, sample_weight, model=model, training=True)
            if class_weight is not None:
                check_one_target(y)
            class_weight = resolve_class_weight(class_weight, y, model)
        _check_validation(validation_data, model)
        batch_order = self._batch_order if shuffle else None
        data = as_source(x, y, sample_weight, class_weight, batch_order=batch_order)
        validation = None if validation_data is None else as_validation(validation_data)
        jobs = [
            Job(
                member=member,
                weights=None if self._weights is None else self._weights[k],
                seed=seed,
                callbacks=callbacks_of_members[k],
                epochs=durations[k],
                name=k,
                state=self._states[k],
                epochs_before=self._epochs[k],
                keep_end=True,
            )
            for k, (member, seed) in enumerate(zip(self.members, self.seeds, strict=True))
        ]
        feed = Feed(data, validation, batch_size, validation_batch_size, shuffle=shuffle)
        slots = members_at_once(self.layout, feed.step_rows, max_members)
        training = Training(
            self.layout,
            slots,
            feed,
            accelerate=accelerate,
            devices=check_devices(devices),
        )
        try:
            with contextlib.closing(training.run(collections.deque(jobs))) as ended:
                for job in ended:
                    if job.error is not None:
                        raise job.error
        except NotStackable:  # each is as it was, for who trains it otherwise
            for member, job in zip(self.members, jobs, strict=True):
                if look_at_models(job.callbacks) and job.state is not None:
                    self.layout.restore(member, job.weights, job.state)  # type: ignore[arg-type]
            raise
        self._weights = [job.best_weights for job in jobs]  # type: ignore[misc]
        self._states = [job.end_state for job in jobs]
        self._epochs = [job.epochs_before + job.epoch for job in jobs]
        self.history = [job.history for job in jobs]
        self.failures = [job.failure for job in jobs]
        self._forget_training()
        self._training = training
        return self.history

    def evaluate(
        self, x: Any, y: Any, *, batch_size: int = 32, sample_weight: Any = None
    ) -> dict[str, np.ndarray]:
        """Return the loss and each metric of each member on arrays.

        Args:
            x, y: inputs and targets, `(rows, ...)`, or several as in `fit`.
            batch_size: rows at a time.
            sample_weight: `(rows,)`, >= 0.

        Returns:
            What `keras.Model.evaluate` returns, of all members: metric name to an array of shape
            `(members,)`, or `(members, ...)` where a metric is itself an array.

        Raises:
            ValueError: arguments or shapes do not fit.
        """
        check_integer("batch_size", batch_size, minimum=1)
        check_rows(x, y, sample_weight, model=self.models[0])
        self._take_back()
        data = as_rows(x, y, sample_weight)
        batch_size = min(batch_size, len(data))
        index = self._steps(len(data), batch_size)
        values: list[dict[str, Any]] = []
        for program, chosen in self._programs(data.head, batch_size):
            others = bool(program.metrics.others)
            slot_index = np.broadcast_to(index, (program.slots, *index.shape))
            sums, predictions = program.test(data, slot_index, True, GATHER_BYTES, collect=others)
            means = sums.means()
            for position in range(len(chosen)):
                values.append({name: slots[position] for name, slots in means.items()})
                if predictions is not None:
                    own = [outputs[position] for outputs in predictions]
                    values[-1] |= program.metrics.compute_others(predicted_rows(data, index, own))
        names = program.metrics.in_order(values[0])
        return {name: np.array([member[name] for member in values]) for name in names}

    def predict(self, x: Any, *, batch_size: int = 32) -> Any:
        """Return the predictions of all members, shape `(members, rows, ...)`.

        Args:
            x: inputs, `(rows, ...)`, or several as in `fit`.
            batch_size: rows at a time.

        Returns:
            An array; of several outputs a structure of them, as `keras.Model.predict` gives.
        """
        check_integer("batch_size", batch_size, minimum=1)
        if is_dataset(x):
            raise TypeError(f"`x` must be an array. Received: {type(x).__name__}")
        check_data(x, model=self.models[0])
        self._take_back()
        rows = as_rows(x)
        batch_size = min(batch_size, len(rows))
        index = self._steps(len(rows), batch_size)
        groups = []
        for program, chosen in self._programs(None, batch_size):
            predictions = [outputs[: len(chosen)] for outputs in program.predict(rows.x, index)]
            groups.append([p.reshape(len(chosen), -1, *p.shape[3:]) for p in predictions])
        outputs = [np.concatenate(parts)[:, : len(rows)] for parts in zip(*groups, strict=True)]
        return as_outputs(self.models[0], outputs)

    def unstack(self) -> list[keras.Model]:
        """Return the members as plain Keras models, as they ended.

        Their weights, their optimizers' state, step count and learning rate are those that `fit`
        ended with, so that Keras's `fit` goes on from there; and the population goes on from what
        becomes of them.
        """
        if self._weights is not None:
            for member, weights, state in zip(
                self.members, self._weights, self._states, strict=True
            ):
                self.layout.restore(member, weights, state)  # type: ignore[arg-type]
            self._weights, self._states = None, [None] * len(self)
        self._forget_training()
        self._given_out = True
        return self.models

    def __getitem__(self, position: int) -> keras.Model:
        """Return one member as a plain Keras model, see `unstack`."""
        return self.unstack()[position]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all members with their optimizers' state into one file, to go on from later.

        Args:
            path: of the file, such as `"population.zip"`: a zip archive with a `.keras` file for
                each member, which Keras loads by itself, too. An older file is replaced when the
                new one is whole.
        """
        facts = {"seeds": self.seeds, "epochs": self._epochs, "history": self.history}
        path = check_path("path", path)
        with (
            tempfile.TemporaryDirectory() as folder,
            atomic_path(path) as target,
            zipfile.ZipFile(target, "w") as archive,
        ):
            for position, model in enumerate(self.unstack()):
                file = Path(folder, f"{position}.keras")
                model.save(file)
                archive.write(file, file.name)
                file.unlink()
            archive.writestr(_FACTS, json.dumps(facts, default=np.ndarray.tolist))

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, custom_objects: Mapping[str, Any] | None = None
    ) -> Population:
        """Return a population that `save` wrote; `fit` goes on where it ended.

        Weights, optimizers, seeds, and the number of epochs behind each member, on which the order
        of rows depends, are those of then. The `history` is that of the last `fit`.

        Args:
            path: of the file.
            custom_objects: as in `keras.models.load_model`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is none that `save` wrote.

        Example:

        >>> import keras, numpy as np, tempfile, pathlib
        >>> def build(rate):
        ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        ...     model.compile(keras.optimizers.SGD(rate), "mse")
        ...     return model
        >>> population = Population.from_models([build(0.1), build(0.2)], seeds=3)
        >>> history = population.fit(np.ones((8, 2)), np.ones(8), epochs=2)
        >>> path = pathlib.Path(tempfile.mkdtemp(), "population.zip")
        >>> population.save(path)
        >>> loaded = Population.load(path)
        >>> np.array_equal(loaded[1].get_weights()[0], population[1].get_weights()[0])
        True
        """
        path = check_path("path", path)
        try:
            with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
                facts = json.loads(archive.read(_FACTS))
                names = [f"{position}.keras" for position in range(len(facts["seeds"]))]
                archive.extractall(folder, names)
                models = [
                    keras.models.load_model(Path(folder, name), custom_objects=custom_objects)
                    for name in names
                ]
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(
                f"`path` must be a file that Population.save wrote. Received: {str(path)!r}"
            ) from error
        population = cls(models, seeds=facts["seeds"], epochs=facts["epochs"])
        population.history = facts["history"]
        return population

    def _take_back(self) -> None:
        """Read the models again if they were given out: they may have been compiled anew since."""
        if self._given_out:
            self.members = [read_member(model) for model in self.models]
            self.layout = Layout(self.members)
            self._given_out = False

    def _forget_training(self) -> None:
        if self._training is not None:
            self._training.forget()
        self._training = None

    @staticmethod
    def _steps(rows: int, batch_size: int) -> np.ndarray:
        """The rows of each step, in order, `(steps, batch)`."""
        order = np.arange(rows, dtype=np.int32)
        return in_steps(order, math.ceil(rows / batch_size), batch_size)

    def _programs(self, head: Any, batch_size: int) -> Iterator[tuple[Program, range]]:
        """Put one group of members after another into slots; yield the program and who they are.

        Args:
            head: a few targets; `None`: for predictions alone.
        """
        slots = min(len(self), members_at_once(self.layout, batch_size, None))
        fitted = self._training is not None and (head is None or self._training.targets_like(head))
        if fitted:
            program = self._training.program(slots)  # type: ignore[union-attr]
        else:
            program = Program(self.layout, slots, head, batch_size=batch_size)
        weights = self._weights or [[v.value.numpy() for v in m.weights] for m in self.members]
        for first in range(0, len(self), slots):
            chosen = range(first, min(first + slots, len(self)))
            program.fill(
                range(len(chosen)),
                [weights[k] for k in chosen],
                [self.layout.settings[k] for k in chosen],
                [self.seeds[k] for k in chosen],
            )
            yield program, chosen


def _each(name: str, value: Any, count: int) -> list[Any]:
    """Return one value a member, of a number for all or a list of `count`."""
    if isinstance(value, str) or getattr(value, "ndim", 1) == 0 or not isinstance(value, Iterable):
        return [value] * max(1, count)
    values = list(value)
    if len(values) != count:
        raise ValueError(
            f"`{name}` must be one integer or one a {'model' if name == 'seeds' else 'member'} "
            f"({count}). "
            f"Received: {len(values)} numbers"
        )
    return values


# these write where they were told to, whoever's they are
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)


def _callbacks(
    callbacks: Any, early_stopping: Any, members: int
) -> list[list[keras.callbacks.Callback]]:
    """Return the callbacks of each member."""
    if early_stopping is not None and not isinstance(early_stopping, keras.callbacks.EarlyStopping):
        raise TypeError(
            "`early_stopping` must be a keras.callbacks.EarlyStopping, such as "
            f"kregs.early_stopping(), or None. Received: early_stopping={early_stopping!r}"
        )
    if isinstance(callbacks, (keras.callbacks.Callback, str, type)) or not isinstance(
        callbacks, Iterable
    ):
        raise TypeError(f"`callbacks` must be a list of callbacks. Received: {callbacks!r}")
    callbacks = list(callbacks)
    if callbacks and all(isinstance(own, (list, tuple)) for own in callbacks):
        if len(callbacks) != members:
            raise ValueError(
                f"`callbacks` must be one list for all or one a member ({members}). "
                f"Received: {len(callbacks)} lists"
            )
        of_members = [list(own) for own in callbacks]
        given = [callback for own in of_members for callback in own]
        if len({id(callback) for callback in given}) < len(given):
            raise ValueError(
                "`callbacks` must hold other objects for each member: a callback has one model. "
                "Received: one object twice"
            )
    else:
        given = callbacks
        writer = next((each for each in given if isinstance(each, _WRITERS)), None)
        if writer is not None and members > 1:
            name = type(writer).__name__
            raise NotStackable(
                f"`callbacks` must be a list for each member, [[{name}(...), ...], ...], where one "
                f"is a {name}, which writes where it was told to. Received: one {name} for "
                f"{members} members"
            )
        of_members = [callbacks] * members
    stopping = [] if early_stopping is None else [early_stopping]
    check_callbacks([*given, *stopping])
    if given is callbacks:
        of_members = [copy.deepcopy(own) for own in of_members]
    return [[*own, *copy.deepcopy(stopping)] for own in of_members]


def _check_validation(data: Any, model: keras.Model) -> None:
    if data is None or is_dataset(data):
        return
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "`validation_data` must be (x, y), (x, y, sample_weight) or a dataset. "
            f"Received: {in_words(data)}"
        )
    check_rows(*data, model=model, name="validation_data[{}]")
