"""`penalties` and `PenaltyLogger`: against sums by hand, `model.losses` and Keras's `evaluate`."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import kregs

L, R = keras.layers, keras.regularizers


class Quartic(R.Regularizer):
    """A penalty of a user's own."""

    def __call__(self, weight):
        return 0.1 * keras.ops.sum(weight**4)


class Adding(L.Layer):
    """A layer that penalizes by itself, twice, and its activity, too."""

    def __init__(self, **kwargs):
        super().__init__(activity_regularizer=R.L1(0.5), **kwargs)

    def call(self, x):
        self.add_loss(keras.ops.sum(x) * 0.25)
        self.add_loss([keras.ops.max(x)])
        return 2.0 * x


class Subclassed(keras.Model):
    """No graph: a block in a list, a recurrent layer, and a loss of the model itself."""

    def __init__(self):
        super().__init__(name="own")
        self.blocks = [L.Dense(3, bias_regularizer=R.L1(0.2), name=f"d{i}") for i in range(2)]
        self.memory = L.GRU(2, recurrent_regularizer=R.L2(0.1), name="memory")
        self.adding = Adding(name="adding")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        self.add_loss(keras.ops.mean(x) * 0.0 + 7.0)
        return self.adding(self.memory(x))


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(model, seed=1):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))


def nested():
    shared = L.Dense(3, "relu", kernel_regularizer=R.L1L2(0.1, 0.2), activity_regularizer="l2")
    inner = keras.Sequential(
        [keras.Input((3,)), L.Dense(3, name="deep", kernel_regularizer=Quartic())], name="inner"
    )
    a, b = keras.Input((3,)), keras.Input((3,))
    joined = L.Concatenate()([shared(a), shared(b), inner(shared(a))])
    model = keras.Model([a, b], L.Dense(2, bias_regularizer=R.L2(0.3), name="out")(joined))
    return model, shared


def test_nested_shared_and_custom_by_hand(eager):
    model, shared = nested()
    randomize(model)
    model.compile("sgd", "mse")
    x, y = [data(5, 3), data(5, 3, seed=1)], data(5, 2, seed=2)
    found = kregs.penalties(model, x, y)

    kernel, bias = (np.asarray(w, "float64") for w in shared.get_weights())
    deep = model.get_layer("inner").get_layer("deep").get_weights()[0].astype("float64")
    out_bias = model.get_layer("out").get_weights()[1].astype("float64")
    activities = [
        0.01 * (np.maximum(part @ kernel + bias, 0) ** 2).sum() / 5 for part in (x[0], x[1], x[0])
    ]
    expected = {
        (shared.name, "kernel"): 0.1 * np.abs(kernel).sum() + 0.2 * (kernel**2).sum(),
        (shared.name, "activity"): sum(activities),
        ("inner/deep", "kernel"): 0.1 * (deep**4).sum(),
        ("out", "bias"): 0.3 * (out_bias**2).sum(),
    }
    assert found.by_kind() == pytest.approx(expected, rel=1e-5)
    assert found.total == float(sum(model.losses))  # to the last bit
    whole = model.evaluate(x, y, batch_size=5, verbose=0)
    assert found.loss == pytest.approx(whole, rel=1e-6)
    assert found.share == pytest.approx(sum(expected.values()) / whole, rel=1e-5)
    assert sum(term.share for term in found.terms) == pytest.approx(found.share)


def test_what_a_subclassed_model_adds_is_told_from_its_activity(eager):
    model = Subclassed()
    x = np.abs(data(4, 6, 3))
    model(x)
    randomize(model)
    found = kregs.penalties(model, x)
    by_kind = found.by_kind()
    output = model(x)
    memory = keras.ops.convert_to_numpy(output) / 2
    assert by_kind["adding", "activity"] == pytest.approx(
        0.5 * np.abs(2 * memory).sum() / 4, rel=1e-5
    )
    assert by_kind["adding", "added"] == pytest.approx(0.25 * memory.sum() + memory.max(), rel=1e-5)
    assert by_kind["own", "added"] == 7.0
    recurrent = model.memory.cell.recurrent_kernel.numpy()
    assert by_kind["memory", "kernel"] == pytest.approx(0.1 * (recurrent**2).sum(), rel=1e-5)
    assert {term.weight for term in found.terms if term.layer == "memory"} == {"recurrent_kernel"}
    assert by_kind["d1", "bias"] == pytest.approx(
        0.2 * np.abs(model.blocks[1].bias).sum(), rel=1e-5
    )
    assert found.total == float(sum(model.losses))
    # what was watched is as it was
    assert isinstance(model.adding.activity_regularizer, R.L1)
    assert "add_loss" not in vars(model.adding)


def test_frozen_weights_embeddings_and_no_rows():
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            L.Embedding(7, 3, embeddings_regularizer=R.L2(0.5), name="words"),
            L.GlobalAveragePooling1D(),
            L.Dense(3, kernel_regularizer="l2", activity_regularizer="l1", name="frozen"),
        ]
    )
    model.get_layer("frozen").trainable = False
    found = kregs.penalties(model)
    assert [(t.layer, t.kind, t.weight) for t in found.terms] == [("words", "weight", "embeddings")]
    assert found.total == float(sum(model.losses[-1:]))
    assert found.unseen == ("frozen",)
    assert "need `x`: frozen" in str(found)


def test_rows_in_batches_weigh_as_in_evaluate(eager):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(4, "relu", activity_regularizer=R.L2(0.3), kernel_regularizer=R.L1(0.1)),
            L.Dropout(0.5, seed=1),
            L.BatchNormalization(),
            L.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x, y, weight = data(10, 3), data(10, 1, seed=3), np.linspace(0, 2, 10)
    before = [v.numpy() for v in model.variables]
    found = kregs.penalties(model, x, y, sample_weight=weight, batch_size=4)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))
    whole = model.evaluate(x, y, sample_weight=weight, batch_size=4, verbose=0)
    assert found.loss == pytest.approx(whole, rel=1e-6)


def test_mixed_precision():
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [
            keras.Input((3,)),
            L.Dense(2, kernel_regularizer="l2", activity_regularizer="l2", dtype=policy),
        ]
    )
    x = data(4, 3)
    found = kregs.penalties(model, x)
    assert found.total == pytest.approx(sum(map(float, model.losses)), rel=1e-6)
    assert len(found.terms) == 2


def test_the_logger_writes_history_csv_and_tensorboard(tmp_path, eager):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = kregs.mlp(
        (3,),
        1,
        units=(4,),
        head_activation=None,
        regularization=kregs.Regularization(l2=0.1, activity_l1=0.2),
    )
    kregs.compile_model(model, "mse", learning_rate=0.05)
    x, y = data(16, 3), data(16, 1, seed=1)
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(
            sum(map(float, kregs.penalties(model, x).by_kind().values()))
        )
    )
    csv = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    logger = kregs.PenaltyLogger(x, log_dir=tmp_path / "scalars", every=2)
    history = model.fit(x, y, epochs=3, verbose=0, callbacks=[logger, keep, csv]).history
    assert history["penalty"] == pytest.approx([seen[0], seen[0], seen[2]], rel=1e-6)
    assert seen[0] != seen[1]
    assert history["penalty_share"] == pytest.approx(np.divide(history["penalty"], history["loss"]))
    names = [name for name in history if name.startswith("penalty/")]
    assert "penalty/dense_activity_1/activity" in names
    assert "penalty/head/kernel" in names
    assert sum(history[name][-1] for name in names) == pytest.approx(history["penalty"][-1])
    assert pd.read_csv(tmp_path / "log.csv")["penalty"].tolist() == pytest.approx(
        history["penalty"]
    )
    events = EventAccumulator(str(tmp_path / "scalars"))
    events.Reload()
    tensors = events.Tensors("penalty")
    assert [event.step for event in tensors] == [0, 2]
    assert float(tf.make_ndarray(tensors[1].tensor_proto)) == pytest.approx(history["penalty"][2])


def test_frames_words_and_figure(eager):
    model, _ = nested()
    model.compile("sgd", "mse")
    found = kregs.penalties(model, [data(5, 3), data(5, 3)], data(5, 2))
    table = found.by_layer()
    assert table.loc["inner/deep", "kernel"] == pytest.approx(table.loc["inner/deep", "total"])
    assert table["total"].sum() == pytest.approx(found.total)
    assert "L1L2(0.1, 0.2)" in str(found)
    assert "Quartic" in str(found)
    axes = found.plot().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(table.index)
    none = kregs.penalties(keras.Sequential([keras.Input((2,)), L.Dense(1)]))
    assert str(none) == "no penalty: nothing is added to the loss"
    assert none.total == 0.0
    assert none.plot().axes[0].get_title(loc="left") == "No penalty"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": "a"}, TypeError, "`model` must be a keras.Model"),
        ({"model": keras.Sequential([L.Dense(1)])}, ValueError, "must be built"),
        ({"y": data(4, 1)}, ValueError, "`x` must be given with `y`"),
        ({"x": data(4, 3), "y": data(4, 1)}, ValueError, "must be compiled"),
        ({"x": data(4, 2)}, ValueError, r"shape of the model's input, \(n, 3\)"),
        ({"x": data(4, 3), "batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
        ({"x": data(4, 3), "sample_weight": [1.0]}, ValueError, "`sample_weight` must have 4 rows"),
    ],
)
def test_errors(arguments, error, words):
    model = keras.Sequential([keras.Input((3,)), L.Dense(1)])
    with pytest.raises(error, match=words):
        kregs.penalties(**{"model": model, **arguments})


def test_errors_of_the_logger():
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        kregs.PenaltyLogger(every=0)
    with pytest.raises(TypeError, match="`log_dir` must be a path"):
        kregs.PenaltyLogger(log_dir=3)
