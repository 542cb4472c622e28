"""`Population`: many compiled Keras models of one structure, trained as one."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
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
from kregs.population.arguments import (
    batches,
    check_counts,
    check_frequency,
    check_no_other_rows,
    check_sizes_of_splits,
    check_splits,
    check_validation,
    each_member,
    member_callbacks,
    split,
)
from kregs.population.callbacks import look_at_models
from kregs.population.capacity import members_at_once
from kregs.population.compiled import beside_file, check_savable, put_back
from kregs.population.graph import as_outputs
from kregs.population.jobs import Job
from kregs.population.layout import Layout
from kregs.population.metrics import Predicted, concatenated, predicted_rows
from kregs.population.optimizers import OptimizerState
from kregs.population.program import Program, Sums
from kregs.population.rows import (
    GATHER_BYTES,
    Feed,
    Rows,
    Stream,
    as_rows,
    as_source,
    as_validation,
    check_no_targets,
    check_one_target,
    is_dataset,
)
from kregs.population.signature import read_member
from kregs.population.steps import KERAS_BATCH_SIZE, batch_sizes, whole_executions
from kregs.population.training import Training, check_devices
from kregs.population.verbose import VERBOSE, FitProgress
from kregs.training.data_checks import check_data, check_rows
from kregs.training.targets import check_class_weight, resolve_class_weight
from kregs.validation import (
    check_choice,
    check_flag,
    check_integer,
    check_path,
    check_seed,
)

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
        numbers = each_member("seeds", seeds, len(models))
        return cls(models, seeds=[check_seed("seeds", seed) for seed in numbers])

    def __len__(self) -> int:
        return len(self.models)

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        validation_data: Any = None,
        validation_split: float = 0.0,
        splits: Iterable[tuple[Any, Any]] | None = None,
        epochs: int | Sequence[int] = 1,
        initial_epoch: int = 0,
        batch_size: int | None = None,
        steps_per_epoch: int | None = None,
        validation_batch_size: int | None = None,
        validation_steps: int | None = None,
        validation_freq: int | Sequence[int] = 1,
        verbose: str | int = 0,
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
        2 and 3 epochs do what one of 5 does (not with `steps_per_epoch`, where each call begins the
        rows anew). Where it is interrupted, or a callback raises, all members stay as before.

        Args:
            x, y: arrays, rows first, shared by all members, of several inputs or outputs a list or
                dictionary as in `keras.Model.fit`; or a `tf.data.Dataset` or
                `keras.utils.PyDataset` of batches `(x, y)` as `x`, which is streamed: all members
                see the same batches.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset.
            epochs: as in `keras.Model.fit`, one number for all or one a member.
            batch_size, initial_epoch, steps_per_epoch, shuffle: as in `keras.Model.fit`.
            validation_split, validation_batch_size, validation_steps, validation_freq: as in
                `keras.Model.fit`.
            splits: rows of `x` of its own for each member, a pair a member: numbers of the rows
                that it trains on, and of those that it is validated on, such as
                `KFold(5).split(x)` for 5 members. Either no second part has rows, or all have.
            verbose: 0: nothing is printed; 1 or `"auto"`: one progress bar over the epochs of all
                members; 2: a line for each epoch of each. Callbacks find it among their `params`.
            sample_weight: `(rows,)`, for all outputs.
            class_weight: as in `keras.Model.fit`, for one output; also `"balanced"`: weights with
                which each class counts the same, with `splits` among all rows of `x`.
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
            The history of each member: metric name to a list with one number for each epoch that
            logged it, or one array where Keras's metric is itself an array. Outputs and metrics
            that were given no name are called as those of the first model. A member whose loss is
            not finite ends there; `failures` says so.

        Raises:
            ValueError: arguments or shapes do not fit.
            NotStackable: a callback has hooks of batches, or changes how its model trains.
            Exception: whatever a callback raises.
        """
        self._take_back()
        initial_epoch = check_integer("initial_epoch", initial_epoch, minimum=0)
        durations = [
            check_integer("epochs", number, minimum=1)
            for number in each_member("epochs", epochs, len(self))
        ]
        if initial_epoch >= min(durations, default=math.inf):
            raise ValueError(
                f"`initial_epoch` must be below `epochs`, {min(durations)}. "
                f"Received: initial_epoch={initial_epoch}"
            )
        sizes = {
            "batch_size": batch_size,
            "validation_batch_size": validation_batch_size,
            "steps_per_epoch": steps_per_epoch,
            "validation_steps": validation_steps,
        }
        for name, size in sizes.items():
            if size is not None:
                check_integer(name, size, minimum=1)
        check_frequency(validation_freq)
        check_choice("verbose", verbose, VERBOSE)
        check_flag("shuffle", shuffle)
        if accelerate is not None:
            check_flag("accelerate", accelerate)
        callbacks_of_members = member_callbacks(callbacks, early_stopping, len(self))
        model = self.models[0]
        if splits is not None:
            check_no_other_rows(x, validation_data, validation_split)
            check_sizes_of_splits(sizes)
        if validation_split and validation_data is None:
            x, y, sample_weight, validation_data = split(validation_split, x, y, sample_weight)
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
        check_validation(validation_data, model)
        batch_order = self._batch_order if shuffle else None
        per_execution = model.steps_per_execution
        steps = whole_executions(steps_per_epoch, per_execution)
        held_out_steps = whole_executions(validation_steps, per_execution)
        data = as_source(x, y, sample_weight, class_weight, batch_order=batch_order, steps=steps)
        validation: Rows | Stream | None = None
        own_rows: list[Any] = [(None, None)] * len(self)
        if isinstance(data, Rows) and splits is not None:
            own_rows = check_splits(splits, len(data), len(self))
            if any(len(held_out) for _, held_out in own_rows):
                # class weights count where rows are trained on only
                validation = data if class_weight is None else as_rows(x, y, sample_weight)
        elif validation_data is not None:
            validation = as_validation(validation_data, steps=held_out_steps)
        feed = Feed(data, validation, KERAS_BATCH_SIZE, shuffle=shuffle)
        batch_size, validation_batch_size = batch_sizes(sizes, *feed.counts)
        feed = dataclasses.replace(
            feed,
            batch_size=batch_size,
            validation_batch_size=validation_batch_size,
            steps_per_epoch=steps,
            validation_steps=held_out_steps,
        )
        jobs = [
            Job(
                member=member,
                weights=None if self._weights is None else self._weights[k],
                seed=seed,
                callbacks=callbacks_of_members[k],
                epochs=durations[k],
                first_epoch=initial_epoch,
                verbose=verbose,
                name=k,
                state=self._states[k],
                # the order of rows goes on, whatever number the first epoch has
                epochs_before=self._epochs[k] - initial_epoch,
                train_rows=own_rows[k][0],
                validation_rows=None if validation is None else own_rows[k][1],
                validation_freq=validation_freq,
                keep_end=True,
            )
            for k, (member, seed) in enumerate(zip(self.members, self.seeds, strict=True))
        ]
        slots = members_at_once(self.layout, feed.step_rows, max_members)
        progress = FitProgress(verbose, sum(job.epochs - job.first_epoch for job in jobs))
        training = Training(
            self.layout,
            slots,
            feed,
            on_epoch=progress,
            accelerate=accelerate,
            devices=check_devices(devices),
        )
        try:
            with contextlib.closing(training.run(collections.deque(jobs))) as ended:
                for job in ended:
                    if job.error is not None:
                        raise job.error
        except BaseException:  # each is as it was, for who trains it otherwise or again
            for member, job in zip(self.members, jobs, strict=True):
                if look_at_models(job.callbacks) and job.state is not None:
                    self.layout.restore(member, job.weights, job.state)  # type: ignore[arg-type]
            raise
        progress.end()
        self._weights = [job.best_weights for job in jobs]  # type: ignore[misc]
        self._states = [job.end_state for job in jobs]
        self._epochs = [job.epochs_before + job.epoch for job in jobs]
        self.history = [job.history for job in jobs]
        self.failures = [job.failure for job in jobs]
        self._forget_training()
        self._training = training
        return self.history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = None,
        sample_weight: Any = None,
        steps: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Return the loss and each metric of each member.

        Args:
            x, y: inputs and targets, `(rows, ...)`, or several as in `fit`; or a dataset as `x`.
            batch_size: rows at a time, as in `keras.Model.evaluate`.
            sample_weight: `(rows,)`, >= 0.
            steps: how many batches count. Default: all.

        Returns:
            What `keras.Model.evaluate` returns, of all members: metric name to an array of shape
            `(members,)`, or `(members, ...)` where a metric is itself an array.

        Raises:
            ValueError: arguments or shapes do not fit.
        """
        check_counts(batch_size=batch_size, steps=steps)
        if is_dataset(x):
            check_no_targets(y, sample_weight)
            data: Rows | Stream = Stream(x, steps=steps)
        else:
            check_rows(x, y, sample_weight, model=self.models[0])
            data = as_rows(x, y, sample_weight)
        self._take_back()
        batch_size, chunks = batches(data, batch_size, steps)
        values: list[dict[str, Any]] = []
        for program, chosen in self._programs(data.head, batch_size):
            passes: list[Sums] = []
            predicted: list[list[Predicted]] = [[] for _ in chosen]
            for rows, index in chunks():
                slot_index = np.broadcast_to(index, (program.slots, *index.shape))
                sums, predictions = program.test(
                    rows, slot_index, True, GATHER_BYTES, collect=bool(program.metrics.others)
                )
                passes.append(sums)
                for position in range(len(chosen) if predictions is not None else 0):
                    own = [outputs[position] for outputs in predictions]  # type: ignore[union-attr]
                    predicted[position].append(predicted_rows(rows, index, own))
            means = sum(passes[1:], passes[0]).means()
            for position, parts in enumerate(predicted):
                values.append({name: slots[position] for name, slots in means.items()})
                if parts:
                    values[-1] |= program.metrics.compute_others(concatenated(parts))
        names = program.metrics.in_order(values[0])
        return {name: np.array([member[name] for member in values]) for name in names}

    def predict(self, x: Any, *, batch_size: int | None = None, steps: int | None = None) -> Any:
        """Return the predictions of all members, shape `(members, rows, ...)`.

        Args:
            x: inputs, `(rows, ...)`, or several as in `fit`; or a dataset, whose targets, if there
                are any, play no part.
            batch_size: rows at a time, as in `keras.Model.predict`.
            steps: how many batches count. Default: all.

        Returns:
            An array; of several outputs a structure of them, as `keras.Model.predict` gives.

        Raises:
            ValueError: arguments or shapes do not fit.
        """
        check_counts(batch_size=batch_size, steps=steps)
        if is_dataset(x):
            data: Rows | Stream = Stream(x, steps=steps, with_targets=False)
        else:
            check_data(x, model=self.models[0])
            data = as_rows(x)
        self._take_back()
        batch_size, chunks = batches(data, batch_size, steps)
        groups = []
        for program, chosen in self._programs(None, batch_size):
            parts = [
                [outputs[: len(chosen), index >= 0] for outputs in program.predict(rows.x, index)]
                for rows, index in chunks()
            ]
            groups.append([np.concatenate(output, 1) for output in zip(*parts, strict=True)])
        outputs = [np.concatenate(members) for members in zip(*groups, strict=True)]
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

        Raises:
            FileNotFoundError: its folder does not exist.
            ValueError: an optimizer is one of `kregs.proximal`, whose step no file holds.
        """
        path = check_path("path", path)
        for model in self.models:
            check_savable(model)
        if not path.parent.is_dir():
            raise FileNotFoundError(
                f"`path` must be in a folder that exists. Received: {str(path)!r}, and there is no "
                f"{str(path.parent)!r}"
            )
        with (
            tempfile.TemporaryDirectory() as folder,
            atomic_path(path) as target,
            zipfile.ZipFile(target, "w") as archive,
        ):
            models = self.unstack()
            facts = {"seeds": self.seeds, "epochs": self._epochs, "history": self.history}
            facts |= {"compiled": list(map(beside_file, models))}
            for position, model in enumerate(models):
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
        for model, beside in zip(models, facts.get("compiled", []), strict=False):
            put_back(model, **beside)
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
