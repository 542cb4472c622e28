"""`gradient_flow`: against `GradientTape` by hand, a linear chain in NumPy, and known truths."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kregs

L = keras.layers


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def chain(
    depth=20, activation="relu", initializer="he_normal", *, width=16, norm=False, residual=False
):
    inputs = keras.Input((8,))
    hidden = L.Dense(width, name="first", kernel_initializer=initializer, activation=activation)(
        inputs
    )
    for i in range(depth - 1):
        kernel = keras.initializers.get(initializer)
        config = (
            {**kernel.get_config(), "seed": i}
            if "seed" in kernel.get_config()
            else kernel.get_config()
        )
        dense = L.Dense(width, name=f"d{i}", kernel_initializer=type(kernel).from_config(config))
        before = hidden
        hidden = dense(hidden)
        if norm:
            hidden = L.BatchNormalization()(hidden)
        hidden = L.Activation(activation)(hidden)
        if residual:
            hidden = L.Add()([before, hidden])
    model = keras.Model(inputs, L.Dense(1, name="out")(hidden))
    model.compile("adam", "mse")
    return model


def flow_of(model, rows=64):
    return kregs.gradient_flow(model, data(rows, 8), data(rows, 1, seed=1))


def test_a_linear_chain_in_closed_form(double):
    rng = np.random.default_rng(0)
    widths = [5, 7, 4, 6, 2]
    layers = [L.Dense(n, use_bias=False, name=f"w{i}") for i, n in enumerate(widths[1:])]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile("sgd", "mse")
    weights = [rng.normal(size=shape) for shape in itertools.pairwise(widths)]
    model.set_weights(weights)
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(9, 2))
    outputs = [x]
    for weight in weights:
        outputs.append(outputs[-1] @ weight)
    back = [2 * (outputs[-1] - y) / y.size]  # by the last output
    for weight in weights[:0:-1]:
        back.insert(0, back[0] @ weight.T)
    by_weight = [a.T @ d for a, d in zip(outputs, back, strict=False)]

    flow = kregs.gradient_flow(model, x, y)
    frame = flow.to_frame().set_index("layer")
    assert list(frame.index) == ["w0", "w1", "w2", "w3"]
    assert flow.loss == pytest.approx(((outputs[-1] - y) ** 2).mean(), rel=1e-12)
    norm = np.linalg.norm
    for i, name in enumerate(frame.index):
        row = frame.loc[name]
        assert row["gradient_norm"] == pytest.approx(norm(by_weight[i]), rel=1e-12)
        assert row["gradient_mean_abs"] == pytest.approx(np.abs(by_weight[i]).mean(), rel=1e-12)
        assert row["relative_gradient"] == pytest.approx(norm(by_weight[i]) / norm(weights[i]))
        assert row["backpropagated"] == pytest.approx(norm(back[i]), rel=1e-12)
        assert row["activation_mean"] == pytest.approx(outputs[i + 1].mean(), rel=1e-12)
        assert row["activation_std"] == pytest.approx(outputs[i + 1].std(), rel=1e-12)
    ratios = [norm(d) / norm(back[2]) for d in back[:3]]
    assert frame["ratio"].tolist() == pytest.approx([*ratios, np.nan], nan_ok=True)
    assert flow.gradient_norm == pytest.approx(np.sqrt(sum(norm(g) ** 2 for g in by_weight)))


class Own(keras.Model):
    """No graph: a layer called twice, a frozen one, one that is never called."""

    def __init__(self):
        super().__init__(name="own")
        self.twice = L.Dense(6, "tanh", name="twice", kernel_regularizer="l2")
        self.frozen = L.Dense(6, name="frozen", trainable=False)
        self.relu = L.ReLU(name="cut")
        self.memory = L.LSTM(4, name="memory")
        self.out = L.Dense(2, name="out")

    def call(self, inputs, training=False):
        words, numbers = inputs["words"], inputs["numbers"]
        hidden = self.twice(self.twice(numbers))
        hidden = self.relu(self.frozen(hidden))
        return self.out(keras.ops.concatenate([hidden, self.memory(words)], -1))


def test_a_subclassed_model_against_a_tape_by_hand():
    model = Own()
    x = {"words": data(12, 5, 3), "numbers": data(12, 6, seed=1)}
    y = data(12, 2, seed=2)
    model(x)
    model.compile("adam", "mse")
    flow = kregs.gradient_flow(model, x, y)
    frame = flow.to_frame().set_index("layer")
    with tf.GradientTape() as tape:
        prediction = model(x, training=True)
        loss = model.compute_loss(x, y, prediction)
    named = {"twice": model.twice, "memory": model.memory, "out": model.out}
    gradients = tape.gradient(
        loss, {n: [v.value for v in layer.trainable_variables] for n, layer in named.items()}
    )
    for name, parts in gradients.items():
        flat = np.concatenate([np.ravel(part) for part in parts])
        assert frame.loc[name, "gradient_norm"] == pytest.approx(np.linalg.norm(flat), rel=1e-5)
        assert frame.loc[name, "gradient_mean_abs"] == pytest.approx(np.abs(flat).mean(), rel=1e-5)
        assert frame.loc[name, "gradient_zeros"] == pytest.approx((flat == 0).mean())
    assert flow.loss == pytest.approx(float(loss), rel=1e-6)
    once = model.twice(x["numbers"])
    both = np.concatenate([once, model.twice(once)])
    assert frame.loc["twice", "activation_std"] == pytest.approx(both.std(), rel=1e-5)
    cut = keras.ops.convert_to_numpy(model.relu(model.frozen(model.twice(once))))
    assert frame.loc["cut", "dead"] == pytest.approx((cut == 0).all(axis=0).mean())
    assert frame.loc["twice", "saturated"] == pytest.approx((1 - both**2 < 0.05).mean())
    assert np.isnan(frame.loc["frozen", "gradient_norm"])
    assert "call" not in vars(model.twice)


def test_nothing_is_changed():
    inputs = keras.Input((8,))
    hidden = L.BatchNormalization()(L.Dense(6, "relu", kernel_regularizer="l2")(inputs))
    model = keras.Model(inputs, L.Dense(1)(L.Dropout(0.5, seed=3)(hidden)))
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    x, y = data(40, 8), data(40, 1)
    model.fit(x, y, epochs=1, verbose=0)
    everything = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [v.numpy() for v in everything]
    first, second = (kregs.gradient_flow(model, x, y, rows=None) for _ in range(2))
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, everything, strict=True))
    # dropout acts, each time alike, since its seed is put back
    assert first.loss == second.loss
    assert first.rows == 40
    dropped = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert first.loss != pytest.approx(dropped, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"activation": "sigmoid", "initializer": "glorot_uniform"}, "vanishing"),
        ({"initializer": keras.initializers.RandomNormal(stddev=1.0)}, "exploding"),
        ({"initializer": keras.initializers.RandomNormal(stddev=0.05)}, "vanishing"),
        ({"initializer": "he_normal"}, None),
        ({"activation": "tanh", "initializer": "glorot_normal"}, None),
        ({"norm": True}, None),
        ({"norm": True, "residual": True}, None),
    ],
)
def test_known_truths_of_twenty_layers(options, problem, eager):
    flow = flow_of(chain(**options))
    found = {finding.problem for finding in flow.findings}
    assert found == ({problem} if problem else set())
    if problem is None:
        assert "nothing vanishes" in str(flow)
        return
    assert "first" in getattr(flow, problem)
    if problem == "vanishing":
        assert "d18" not in flow.vanishing  # with the last hidden layer the others are compared
    (first,) = [finding for finding in flow.findings if finding.layer == "first"]
    words = " ".join(first.remedies)
    assert "BatchNormalization" in words
    assert "residual" in words
    if "stddev" in str(getattr(options["initializer"], "get_config", str)()):
        assert "HeNormal gives" in first.remedies[0]
    else:
        assert "he_normal" in first.remedies[0]
    assert ("clipnorm" in words) == (problem == "exploding")


def test_shortcuts_keep_the_gradient_though_their_sums_saturate(eager):
    flow = flow_of(chain(activation="tanh", initializer="glorot_uniform", residual=True))
    assert {finding.problem for finding in flow.findings} == {"saturated"}


def test_dead_and_saturated_and_not_finite(eager):
    model = chain(3)
    model.get_layer("first").bias.assign(np.full(16, -1e3))
    flow = flow_of(model)
    (finding,) = [f for f in flow.findings if f.layer == "first"]
    assert (finding.problem, finding.value) == ("dead", 1.0)
    model = chain(3, "tanh", keras.initializers.RandomNormal(stddev=20.0))
    assert "saturated" in {f.problem for f in flow_of(model).findings}
    model = chain(3)
    model.get_layer("d0").kernel.assign(np.full((16, 16), np.inf))
    flow = flow_of(model)
    assert flow.exploding
    assert "no finite number" in str(flow)
    assert flow.plot()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    flow = flow_of(model)
    assert len(flow.exploding) == 4
    assert all("built anew" in finding.remedies[0] for finding in flow.findings)
    assert str(flow).count(" nan") >= 4


def test_a_penalty_in_half_precision_is_said_to_be_the_reason(eager):
    """Keras's own `fit` fails to add it to the loss, with an error that names no layer."""
    model = keras.Sequential([keras.Input((8,))])
    model.add(L.Dense(4, activity_regularizer="l2", dtype="mixed_float16"))
    model.add(L.Dense(1, dtype="float32"))
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="in float16, which Keras cannot add to the loss"):
        flow_of(model)
    with pytest.raises(ValueError, match="in float16, which Keras cannot add to the loss"):
        kregs.penalties(model, data(4, 8), data(4, 1))
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        model.fit(data(4, 8), data(4, 1), verbose=0)
    audit = kregs.audit(model, x=data(64, 8), y=data(64, 1))
    assert "KR015" in {finding.code for finding in audit.findings}
    mended = audit.repair().model
    mended.compile("sgd", "mse")
    mended.fit(data(4, 8), data(4, 1), verbose=0)


def test_convolutions_embeddings_and_wrappers(eager):
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            L.Embedding(9, 4, name="words"),
            L.Bidirectional(L.GRU(3, return_sequences=True), name="both"),
            L.TimeDistributed(L.Dense(4, "relu"), name="each"),
            L.Conv1D(5, 3, name="conv"),
            L.GlobalMaxPooling1D(),
            L.Dense(3, "softmax", name="out"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).integers(0, 9, (16, 6))
    frame = kregs.gradient_flow(model, x, x[:, 0] % 3).to_frame().set_index("layer")
    weighted = frame[frame["parameters"] > 0]
    assert weighted["gradient_norm"].gt(0).all()
    assert frame.loc["words", "ratio"] > 0
    assert "conv" in weighted.index
    assert sum(weighted["parameters"]) == model.count_params()


def test_mixed_precision_takes_the_scale_of_the_loss_out():
    x, y = data(32, 8), data(32, 1)
    norms = []
    for policy in ("float32", "mixed_float16"):
        layers = [
            L.Dense(
                8,
                "tanh",
                dtype=policy,
                name=f"l{i}",
                kernel_initializer=keras.initializers.GlorotNormal(i),
            )
            for i in range(3)
        ]
        model = keras.Sequential(
            [keras.Input((8,)), *layers, L.Dense(1, dtype="float32", kernel_initializer="ones")]
        )
        optimizer = keras.optimizers.SGD(0.1)
        if policy != "float32":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**30)
        model.compile(optimizer, "mse")
        norms.append(kregs.gradient_flow(model, x, y).to_frame()["gradient_norm"].to_numpy())
    assert norms[1] == pytest.approx(norms[0], rel=0.02)


def test_the_logger_follows_training(tmp_path, eager):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    x, y = data(32, 8), data(32, 1, seed=1)
    model, twin = chain(4), chain(4)
    twin.set_weights(model.get_weights())
    initial = kregs.gradient_flow(model, x, y)
    logger = kregs.GradientFlowLogger(x, y, every=2, log_dir=tmp_path)
    options = {"epochs": 3, "verbose": 0, "shuffle": False}
    history = model.fit(x, y, callbacks=[logger], **options).history
    plain = twin.fit(x, y, **options).history
    assert history["loss"] == pytest.approx(plain["loss"], rel=1e-5)  # looking changes nothing
    assert sorted(logger.flows) == [0, 2]
    assert logger.flows[0].gradient_norm == pytest.approx(initial.gradient_norm, rel=1e-5)
    assert logger.flows[2].gradient_norm != pytest.approx(initial.gradient_norm, rel=1e-5)
    assert history["gradient_norm"][0] == logger.flows[0].gradient_norm
    assert history["gradient_norm"][1:] == [logger.flows[2].gradient_norm] * 2
    assert history["gradient_ratio/d2"] == [1.0] * 3
    assert history["vanishing"] == [0.0] * 3
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.step for event in events.Tensors("gradient_norm/first")] == [0, 2]
    frame = logger.to_frame()
    assert set(frame["epoch"]) == {0, 2}
    axes = logger.plot().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["first", "d0", "d1", "d2"]


def test_the_figure_marks_what_vanishes(eager):
    flow = flow_of(chain(12, "sigmoid", "glorot_uniform"))
    gradients = flow.plot().axes[0]
    colors = {t.get_text(): t.get_color() for t in gradients.get_yticklabels()}
    assert {name for name, color in colors.items() if color == "#d55e00"} == set(flow.vanishing)
    assert repr(flow).startswith("<GradientFlow: ")


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        (
            {"model": keras.Sequential([keras.Input((8,)), L.Dense(1)])},
            ValueError,
            "must be compiled",
        ),
        ({"model": 3}, TypeError, "must be a keras.Model"),
        ({"y": data(64, 2)}, ValueError, "shape of the model's output"),
        ({"x": data(64, 7)}, ValueError, "shape of the model's input"),
        ({"rows": 0}, ValueError, "`rows` must be an integer >= 1"),
        ({"vanishing": 2.0}, ValueError, "`vanishing` must be"),
        ({"exploding": 0.5}, ValueError, "`exploding` must be"),
    ],
)
def test_errors(changed, error, words):
    arguments = {"model": chain(2), "x": data(64, 8), "y": data(64, 1), **changed}
    with pytest.raises(error, match=words):
        kregs.gradient_flow(**arguments)


def test_a_model_with_nothing_to_train(eager):
    model = chain(2)
    model.trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have weights that are trained"):
        flow_of(model)


def test_a_dataset_gives_its_first_batch(eager):
    x, y = data(24, 8), data(24, 1)
    model = chain(2)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
    assert (
        kregs.gradient_flow(model, dataset).loss == kregs.gradient_flow(model, x[:10], y[:10]).loss
    )


def test_the_limits_are_those_of_the_docstring(eager):
    flow = flow_of(chain(activation="sigmoid", initializer="glorot_uniform"))
    ratios = flow.frame.set_index("layer")["ratio"].dropna()
    assert ((ratios > 1e-9) & (ratios < 1e-3)).any()
    assert set(flow.vanishing) == set(ratios.index[ratios < 1e-3])
