"""The rows of a search: checked, divided into training and validation rows, preprocessed."""

from __future__ import annotations

import dataclasses
import statistics
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.model_selection import GroupShuffleSplit

from kregs.population.rows import check_no_targets, is_dataset
from kregs.search.folds import (
    check_groups,
    fit_transform,
    halves_of,
    make_splits,
    shuffled_split,
    take_rows,
    transform_folds,
    transformed,
    with_halves,
)
from kregs.search.protocol import DataSummary
from kregs.search.randomness import derived_seed
from kregs.search.runs import Halves, Split
from kregs.training.data_checks import check_data, check_sample_weight
from kregs.training.targets import (
    check_classes,
    resolve_class_weight,
    row_classes,
    warn_of_many_classes,
)
from kregs.validation import check_number, in_words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What `fit` gets in every trial, and the plain facts about it.

    Args:
        fit: the arguments of `fit` that are data: `x`, and `y`, `sample_weight`,
            `validation_data` where there are any.
        summary: where the validation rows come from, how many rows there are, and checksums.
        splits: the folds; `None` without.
        fitted: the transformer that the training rows of a single split went through.
        fold_transformers: that of each fold; empty without folds or transformer.
        halves: without folds, two halves of the validation rows, by their places among them; `None`
            if they have no numbers.
        class_weight: weights by class number, for training.
    """

    fit: dict[str, Any]
    summary: DataSummary
    splits: list[Split] | None = None
    fitted: Any = None
    fold_transformers: Sequence[Any] = ()
    halves: Halves | None = None
    class_weight: dict[int, float] | None = None

    def with_class_weight(
        self, class_weight: str | Mapping[int, float] | None, model: keras.Model, y: Any = None
    ) -> Data:
        """Return the same with weights of the classes of the rows that are trained on.

        Args:
            class_weight: as in `kregs.tune`.
            model: tells classes from other targets.
            y: with folds all targets, each once; prepared folds hold a row once for each of them.
        """
        y = self.fit["y"] if y is None else y
        if isinstance(y, np.ndarray):  # one output
            warn_of_many_classes(y, model)
        weights = resolve_class_weight(class_weight, y, model)
        return dataclasses.replace(self, class_weight=weights)

    def sample(self, rows: int) -> dict[str, Any]:
        """Return arguments for `evaluate` on a few rows, or on one batch of a dataset."""
        x, y = self.fit["x"], self.fit.get("y")
        if is_dataset(x):
            return {"x": x, "steps": 1}
        return {**_take({"x": x, "y": y}, slice(rows)), "batch_size": rows}


def prepare_data(
    x: Any,
    y: Any,
    *,
    validation_data: Any,
    validation_split: float,
    sample_weight: Any,
    seed: int,
    model: keras.Model,
    folds: Any = None,
    groups: Any = None,
    preprocess: Any = None,
    class_weight: str | Mapping[int, float] | None = None,
) -> Data:
    """Check the data and divide them into training and validation rows.

    Args:
        x, y, validation_data, validation_split, sample_weight, seed, folds, groups, preprocess,
            class_weight: as in `kregs.tune`.
        model: a compiled model with the shapes that all trials share.

    Raises:
        TypeError, ValueError: see `kregs.tune`.
    """
    if groups is not None and validation_data is not None:
        raise ValueError(
            "`groups` and `validation_data` were both given: groups keep rows of `x` together when "
            "they are divided"
        )
    if groups is not None and is_dataset(x):
        raise ValueError(f"`groups` needs arrays. Received: x of type {type(x).__name__}")
    if folds is not None and validation_data is not None:
        raise ValueError(
            "`folds` and `validation_data` were both given: folds validate on the rows of `x`"
        )
    if is_dataset(x):
        for name, value in (("folds", folds), ("preprocess", preprocess)):
            if value is not None:
                raise ValueError(f"`{name}` needs arrays. Received: x of type {type(x).__name__}")
        if isinstance(class_weight, str):
            raise ValueError(
                "`class_weight` must be a dictionary if `x` is a dataset, whose classes are not "
                f"counted. Received: class_weight={class_weight!r}"
            )
        data = _prepare_dataset(x, y, validation_data, sample_weight, model)
        weights_by_class = None if class_weight is None else dict(class_weight)
        return dataclasses.replace(data, class_weight=weights_by_class)
    if hasattr(x, "__next__"):
        raise TypeError(
            "`x` must be arrays or a dataset that can be read again in every trial. "
            f"Received: {type(x).__name__}; wrap it into tf.data.Dataset.from_generator"
        )
    if y is None:
        raise ValueError("`y` must be given with arrays: a search needs targets. Received: y=None")
    if class_weight is not None and sample_weight is not None:
        raise ValueError(
            "`sample_weight` and `class_weight` were both given: multiply them into one "
            "sample_weight, such as sklearn.utils.class_weight.compute_sample_weight makes of a "
            f"class_weight. Received: class_weight={class_weight!r}"
        )
    if preprocess is None:
        check_data(x, y, model=model, training=True)
        x, y = as_arrays(x), as_arrays(y)
    else:
        if isinstance(x, dict) or isinstance(y, dict):
            raise ValueError(
                "`preprocess` needs one table of rows and one target a row. Received: a dictionary"
            )
        x, y = as_table(x), np.asarray(y)
        check_data(y, x_name="y")
        if len(x) != len(y):
            raise ValueError(
                f"`x` and `y` must have the same length. Received: {len(x)} and {len(y)}"
            )
    rows = _rows(y)
    weights = check_sample_weight("sample_weight", sample_weight, rows)
    all_rows = {"x": x, "y": y} | ({} if weights is None else {"sample_weight": weights})
    if validation_data is not None:
        data = _prepare_given(all_rows, validation_data, preprocess, model, seed)
        return data.with_class_weight(class_weight, model)
    facts: dict[str, Any]
    groups = check_groups(groups, rows)
    labels = row_classes(y, model)
    if folds is not None:
        targets = y if isinstance(y, np.ndarray) else np.zeros(rows)  # several outputs
        splits, words = make_splits(
            folds, targets, labels=labels, groups=groups, seed=derived_seed(seed, 1)
        )
        splits = with_halves(splits, labels=labels, groups=groups, seed=derived_seed(seed, 2))
        facts = {"validation": words, "folds": len(splits), "rows": rows}
    else:
        fraction = check_number("validation_split", validation_split, above=0.0, below=1.0)
        train, held, words = _split(rows, labels, groups, fraction, seed)
        splits = [Split(train, held)]
        facts = {
            "validation": words,
            "validation_split": fraction,
            "rows": len(train),
            "validation_rows": len(held),
            "folds_checksum": None if groups is None else _checksum([held]),
        }
    transformers: list[Any] = []
    if preprocess is not None:
        prepared = transform_folds(preprocess, x, y, splits)
        others = {
            name: _take(part, prepared.rows) for name, part in all_rows.items() if name != "x"
        }
        all_rows = {"x": prepared.x, **others}
        splits, transformers = prepared.splits, prepared.fitted
        facts["preprocess"] = _words(preprocess)
        check_data(all_rows["x"], all_rows["y"], model=model, training=True)
    for number, split in enumerate(splits):
        where = f" in fold {number} of `folds`" if folds is not None else " in the training part"
        check_classes("y", _take(all_rows["y"], split.train_places), model, rows=where)
        if weights is not None:
            _check_any_weight(all_rows["sample_weight"], split, where)
    facts["checksum"] = _checksum(all_rows)
    if folds is not None:
        facts["held_out_share"] = statistics.fmean(
            len(split.validation) / len(split.train) for split in splits
        )
        facts["folds_checksum"] = _checksum([split.validation for split in splits])
        data = Data(
            fit=all_rows,
            summary=DataSummary(**facts),
            splits=splits,
            fold_transformers=transformers,
        )
        return data.with_class_weight(class_weight, model, y)
    (split,) = splits
    held_out = tuple(_take(part, split.validation_places) for part in all_rows.values())
    data = Data(
        fit={**_take(all_rows, split.train_places), "validation_data": held_out},
        summary=DataSummary(**facts),
        fitted=transformers[0] if transformers else None,
        halves=halves_of(
            len(split.validation),
            labels=None if labels is None else labels[split.validation],
            groups=None if groups is None else groups[split.validation],
            seed=derived_seed(seed, 2),
        ),
    )
    return data.with_class_weight(class_weight, model)


def _prepare_given(
    all_rows: dict[str, Any], validation_data: Any, preprocess: Any, model: keras.Model, seed: int
) -> Data:
    fitted = None
    if preprocess is not None:
        if not isinstance(validation_data, (tuple, list)):
            raise TypeError(
                "`validation_data` must be (x, y) or (x, y, sample_weight) with `preprocess`. "
                f"Received: {type(validation_data).__name__}"
            )
        fitted, rows = fit_transform(preprocess, all_rows["x"], all_rows["y"])
        all_rows = {**all_rows, "x": rows}
        validation_data = (transformed(fitted, validation_data[0]), *validation_data[1:])
        check_data(all_rows["x"], all_rows["y"], model=model, training=True)
    held_out = _validation(validation_data, model)
    has_rows = not is_dataset(held_out)
    summary = DataSummary(
        validation="given",
        rows=_rows(all_rows["y"]),
        validation_rows=_rows(held_out[0]) if has_rows else None,
        preprocess=None if preprocess is None else _words(preprocess),
        checksum=_checksum(all_rows),
        validation_checksum=_checksum(held_out) if has_rows else None,
    )
    fit = {**all_rows, "validation_data": held_out}
    halves = None
    if has_rows:
        labels = row_classes(held_out[1], model)
        halves = halves_of(_rows(held_out[1]), labels=labels, seed=derived_seed(seed, 2))
    return Data(fit=fit, summary=summary, fitted=fitted, halves=halves)


def _words(preprocess: Any) -> str:
    return " ".join(repr(preprocess).split())


def _prepare_dataset(
    x: Any, y: Any, validation_data: Any, sample_weight: Any, model: keras.Model
) -> Data:
    check_no_targets(y, sample_weight)
    if validation_data is None:
        raise ValueError(
            "`validation_data` must be given if `x` is a dataset, which cannot be split. "
            "Received: validation_data=None"
        )
    _check_pairs("x", x)
    if isinstance(x, tf.data.Dataset):
        check_data(x, model=model, training=True)
        if x.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("`x` must end. Received: an infinite tf.data.Dataset")
    held_out = _validation(validation_data, model)
    return Data(fit={"x": x, "validation_data": held_out}, summary=DataSummary(validation="given"))


def _check_pairs(name: str, dataset: Any) -> None:
    """Raise unless a dataset's batches hold targets."""
    if isinstance(dataset, tf.data.Dataset):
        parts = dataset.element_spec
    elif dataset.num_batches == 0:
        raise ValueError(f"`{name}` must have at least one batch. Received: an empty dataset")
    else:
        parts = dataset[0]
    if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3):
        raise ValueError(
            f"`{name}` must be a dataset of batches (x, y) or (x, y, sample_weight). "
            f"Received: batches of {type(parts).__name__}"
        )


def _validation(validation_data: Any, model: keras.Model) -> Any:
    if is_dataset(validation_data):
        _check_pairs("validation_data", validation_data)
        if isinstance(validation_data, tf.data.Dataset):
            check_data(validation_data, model=model, x_name="validation_data")
        return validation_data
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
        raise TypeError(
            "`validation_data` must be (x, y), (x, y, sample_weight) or a dataset. "
            f"Received: {in_words(validation_data)}"
        )
    x, y, *weights = validation_data
    if y is None:
        raise ValueError("`validation_data` must hold targets. Received: validation_data[1]=None")
    check_data(x, y, model=model, x_name="validation_data[0]", y_name="validation_data[1]")
    x, y = as_arrays(x), as_arrays(y)
    if not weights:
        return x, y
    return x, y, check_sample_weight("validation_data[2]", weights[0], _rows(x))


def _check_any_weight(weights: np.ndarray, split: Split, where: str) -> None:
    for kind, rows in (("train", split.train_places), ("judge", split.validation_places)):
        if not weights[rows].any():
            raise ValueError(
                f"`sample_weight` must have a weight above 0 among the rows to {kind} on{where}. "
                f"Received: {len(rows)} weights of 0"
            )


def as_table(x: Any) -> Any:
    """Return rows for a transformer: a pandas object as it is, other data as an array."""
    if hasattr(x, "iloc"):
        return x
    try:
        table = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise TypeError(f"`x` must be a table of rows. Received: {in_words(x)} ({error})") from None
    if table.ndim == 0 or not table.size or table.dtype.kind in "cmM":
        raise TypeError(
            f"`x` must be a table of rows. Received: {in_words(x)}, an array of shape "
            f"{table.shape} and dtype {table.dtype}"
        )
    return table


def _split(
    rows: int, labels: np.ndarray | None, groups: np.ndarray | None, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the rows to train on, the rows to validate on, and how they were divided."""
    if groups is not None:
        count = len(np.unique(groups))
        if not 0 < round(count * fraction) < count:
            raise ValueError(
                "`validation_split` must leave groups to train and to validate on. "
                f"Received: validation_split={fraction} of {count} groups"
            )
        splitter = GroupShuffleSplit(1, test_size=round(count * fraction), random_state=seed)
        train, validation = next(splitter.split(np.zeros(rows), groups=groups))
        return train, validation, "group split"
    held = round(rows * fraction)
    if not 0 < held < rows:
        raise ValueError(
            "`validation_split` must leave rows to train and to validate on. "
            f"Received: validation_split={fraction} of {rows} rows"
        )
    train, validation, stratified = shuffled_split(rows, held, labels=labels, seed=seed)
    return train, validation, "stratified split" if stratified else "shuffled split"


def as_arrays(data: Any) -> Any:
    """Return the data as NumPy arrays, several inputs as a list or a dictionary of them."""
    if isinstance(data, dict):
        return {name: np.asarray(part) for name, part in data.items()}
    # as in Keras, a list of arrays is several inputs, and a list of numbers is one
    if isinstance(data, (list, tuple)) and any(getattr(part, "shape", ()) for part in data):
        return [np.asarray(part) for part in data]
    return np.asarray(data)


def _take(data: Any, rows: Any) -> Any:
    return keras.tree.map_structure(lambda array: take_rows(array, rows), data)


def _rows(data: Any) -> int:
    return len(keras.tree.flatten(data)[0])


def _checksum(data: Any) -> int:
    """Return a number that tells these data from others, for a search that is resumed."""
    checksum = 0
    for array in keras.tree.flatten(data):
        if array.dtype.kind == "O":
            array = array.astype(str)
        checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, checksum)
    return checksum
