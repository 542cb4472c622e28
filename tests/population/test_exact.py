# ruff: noqa: E501 (a table row is a line)
"""Each member ends where Keras's `fit` ends, from the same weights and batches."""

import keras
import numpy as np
import pytest
from keras import layers, losses, optimizers, regularizers

import kregs
from kregs.population import NotStackable, Population

STEPS, BATCH = 200, 4
ROWS = STEPS * BATCH


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def one_hot(rows, classes, seed=1):
    return np.eye(classes)[np.random.default_rng(seed).integers(0, classes, rows)]


def make(body, inputs, optimizer=None, loss="mse", head=None, metrics=()):
    """A compiled Sequential of fresh layers."""
    model = keras.Sequential([keras.Input(inputs), *body, *(head or [layers.Dense(3)])])
    model.compile(optimizer or optimizers.Adam(1e-2), loss, metrics=list(metrics))
    return model


def twin(model):
    """An independent copy with equal weights, compiled alike."""
    copy = keras.models.clone_model(model)
    # Keras runs as many steps in one call: the same steps, without the way back to Python
    copy.compile_from_config(model.get_compile_config() | {"steps_per_execution": 20})
    copy.set_weights(model.get_weights())
    return copy


def begin_anew(model, weights):
    """Give a model weights, and an optimizer that has seen nothing."""
    model.set_weights(weights)
    for variable in model.optimizer.variables:
        if variable.name != "learning_rate":
            variable.assign(keras.ops.zeros_like(variable))


def ends_of_keras(twins, x, y, *, by=None, **fit):
    """Weights and history of each twin after Keras's `fit`.

    Args:
        by: where they differ in weights and learning rate alone, one of their kind: traced once,
            it is fitted from the state of each in turn.
    """
    ends = []
    for reference in twins:
        model = by or reference
        for each in (reference, model):
            each.optimizer.build(each.trainable_variables)  # else Keras traces the step twice
        if by is not None:
            model.set_weights(reference.get_weights())
            pairs = zip(model.optimizer.variables, reference.optimizer.variables, strict=True)
            for variable, value in pairs:
                variable.assign(value)
        history = model.fit(x, y, verbose=0, **fit).history
        assert np.isfinite(list(history.values())).all()
        ends.append((model.get_weights(), history))
    return ends


def check_equal(
    models, x, y, *, tolerance=1e-8, accelerate=(False,), twins=None, by=None, compared=None, **fit
):
    """Check the models as populations, with XLA or without, against Keras.

    Args:
        compared: how many, from the last one back, are trained by Keras, too; default: all.
    """
    fit = {"epochs": 1, "batch_size": BATCH, "shuffle": False, **fit}
    starts = [model.get_weights() for model in models]
    chosen = slice(None if compared is None else -compared, None)
    twins = twins or [twin(model) for model in models[chosen]]
    expected = ends_of_keras(twins, x, y, by=by, **fit)
    for xla in accelerate:
        for model, weights in zip(models, starts, strict=True):
            begin_anew(model, weights)
        population = Population.from_models(models)
        histories = population.fit(x, y, accelerate=xla, **fit)
        trained = population.unstack()[chosen]
        check_ends(trained, histories[chosen], expected, tolerance, f"{xla=}")


def check_ends(trained, histories, expected, tolerance, message):
    for model, history, (weights, logged) in zip(trained, histories, expected, strict=True):
        close = {"rtol": tolerance, "atol": tolerance}
        assert set(logged) == set(history)
        for name, values in logged.items():
            np.testing.assert_allclose(history[name], values, err_msg=f"{name} {message}", **close)
        for ours, theirs in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, err_msg=message, **close)


def l2(value):
    return regularizers.L2(value)


LAYERS = {
    "dense": ((5,), lambda n: [layers.Dense(6, "gelu", kernel_regularizer=l2(n), bias_regularizer="l1")]),
    "activity": ((5,), lambda n: [layers.Dense(6, "tanh", activity_regularizer=regularizers.L1L2(n, n / 2))]),
    "max_norm": ((5,), lambda n: [layers.Dense(6, "relu", kernel_constraint=keras.constraints.MaxNorm(0.5 + n))]),
    "unit_norm": ((5,), lambda n: [layers.Dense(6, kernel_constraint="unit_norm", bias_constraint="non_neg")]),
    "batch_norm": ((5,), lambda n: [layers.Dense(6, use_bias=False), layers.BatchNormalization(momentum=0.9 - n), layers.ReLU()]),
    "layer_norm": ((5,), lambda n: [layers.Dense(6), layers.LayerNormalization(), layers.Activation("silu"), layers.UnitNormalization()]),
    "group_norm": ((4, 4, 2), lambda n: [layers.Conv2D(6, 2), layers.GroupNormalization(3), layers.Flatten()]),
    "conv2d": ((6, 6, 2), lambda n: [layers.Rescaling(0.5), layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", kernel_regularizer=l2(n)), layers.BatchNormalization(), layers.MaxPooling2D(), layers.Flatten()]),
    "dilated": ((7, 7, 1), lambda n: [layers.Conv2D(3, 3, dilation_rate=2, activation="softmax"), layers.GlobalAveragePooling2D()]),
    "conv1d": ((8, 2), lambda n: [layers.ZeroPadding1D(1), layers.Conv1D(4, 3, padding="causal"), layers.LeakyReLU(0.1 + n), layers.AveragePooling1D(2), layers.Conv1D(3, 2, strides=2), layers.GlobalMaxPooling1D()]),
    "depthwise": ((6, 6, 2), lambda n: [layers.DepthwiseConv2D(3, depth_multiplier=2, depthwise_regularizer=l2(n)), layers.PReLU(), layers.Cropping2D(1), layers.UpSampling2D(), layers.Flatten()]),
    "separable": ((6, 6, 2), lambda n: [layers.SeparableConv2D(4, 3, padding="same"), layers.AveragePooling2D(2), layers.GlobalMaxPooling2D()]),
    "reshape": ((6,), lambda n: [layers.Dense(6), layers.Reshape((2, 3)), layers.Permute((2, 1)), layers.Dense(4), layers.ELU(), layers.Flatten(), layers.RepeatVector(2), layers.Flatten(), layers.Softmax()]),
    "absent_noise": ((5,), lambda n: [layers.Dense(6), *([layers.Dropout(0.0), layers.GaussianNoise(0.0)] if n else []), layers.ReLU()]),
    "lstm": ((3, 3), lambda n: [layers.LSTM(4, kernel_regularizer=l2(n), recurrent_regularizer=l2(n / 2), bias_regularizer=l2(n), return_sequences=True), layers.LSTM(3, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False, unroll=True, go_backwards=True, recurrent_constraint=keras.constraints.MaxNorm(1 + n))]),
    "gru": ((3, 3), lambda n: [layers.GRU(4, kernel_regularizer=l2(n), bias_regularizer=l2(n), go_backwards=True, return_sequences=True), layers.GRU(3, activation="relu", reset_after=False, use_bias=False), layers.LayerNormalization()]),
    "gru_reset_before": ((3, 3), lambda n: [layers.GRU(4, reset_after=False, recurrent_regularizer=l2(n))]),
    "simple_rnn": ((3, 3), lambda n: [layers.SimpleRNN(4, kernel_regularizer=l2(n), return_sequences=True), layers.SimpleRNN(3, activation="relu", use_bias=False, go_backwards=True)]),
    "bidirectional": ((3, 3), lambda n: [layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True, kernel_regularizer=l2(n), activity_regularizer=l2(n))), layers.Bidirectional(layers.SimpleRNN(3), backward_layer=layers.GRU(3, go_backwards=True, use_bias=False), merge_mode="mul")]),
    "masking": ((3, 3), lambda n: [layers.ReLU(), layers.Masking(), layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="ave"), layers.Dropout(0.0), layers.GRU(3, go_backwards=True, zero_output_for_mask=True)]),
}  # fmt: skip


# these do something else in validation, or add to its loss
OTHERWISE_WHEN_TESTED = {"dense", "activity", "batch_norm", "conv2d", "absent_noise", "simple_rnn", "masking"}  # fmt: skip


# where Keras's `fit`, traced anew for each member, is compared for the one at 0, too
BOTH = {"dense", "max_norm", "batch_norm", "conv2d", "absent_noise"}


RECURRENT = {"gru_reset_before", "simple_rnn", "gru", "masking", "bidirectional"}


@pytest.mark.parametrize(
    "name",
    # "lstm" goes through the same loop
    [pytest.param(n, marks=[pytest.mark.nightly] * (n in RECURRENT)) for n in LAYERS],
)
def test_layer(double, name):
    inputs, body = LAYERS[name]
    x = numbers(ROWS, *inputs)
    y = numbers(ROWS, 3, seed=2)
    # plain descent shows a gradient's size, which Adam divides by; OPTIMIZERS are below
    models = [make(body(n), inputs, optimizers.SGD(0.05)) for n in (0.0, 0.02)]
    validated = {"validation_data": (x[:10], y[:10])} if name in OTHERWISE_WHEN_TESTED else {}
    # a member without a penalty needs no look in every row
    check_equal(models, x, y, compared=None if name in BOTH else 1, **validated)


def test_embedding(double):
    x = np.random.default_rng(0).integers(0, 9, (ROWS, 4))
    models = [
        make([layers.Embedding(9, 3, embeddings_regularizer=l2(n)), layers.Flatten()], (4,))
        for n in (0.0, 0.01)
    ]
    check_equal(models, x, numbers(ROWS, 3))


@pytest.mark.parametrize(
    ("cell", "accelerate"),
    [
        pytest.param(layers.LSTM, True, marks=pytest.mark.nightly),
        pytest.param(layers.GRU, False, marks=pytest.mark.nightly),  # "masking" has masks, too
    ],
)
def test_masked_steps(double, cell, accelerate):
    """Masked at the start, in the middle, at the end, everywhere; carried through layers."""
    x = np.random.default_rng(0).integers(0, 3, (59, 4))
    x[0] = 0

    def build(n):
        body = [
            # a penalty makes the gradient dense: Keras squares a sparse one part by part
            layers.Embedding(9, 3, mask_zero=True, embeddings_regularizer=l2(n)),
            layers.LayerNormalization(),
            layers.Bidirectional(
                layers.SimpleRNN(3, return_sequences=True, kernel_regularizer=l2(n))
            ),
            layers.Dropout(0.0),
            cell(4, go_backwards=True),
        ]
        return make(body, (None,), optimizers.SGD(0.05))

    models = [build(n) for n in (0.0, 0.02)]
    check_equal(models, x, numbers(59, 3), accelerate=(accelerate,), batch_size=8, epochs=2)


TEXT = ("normalization", "activity_l2", "max_norm", "dropout", "input_dropout", "spatial_dropout")
DENSE = ("normalization", "activity_l1", "max_norm", "dropout", "gaussian_noise")
BUILDERS = {
    "mlp": ((5,), DENSE, lambda r: kregs.mlp((5,), 3, units=(6, 4), regularization=r)),
    "linear": ((5,), ("max_norm", "input_dropout"), lambda r: kregs.linear((5,), 3, regularization=r)),
    "autoencoder": ((5,), DENSE, lambda r: kregs.autoencoder((5,), units=(4, 2), regularization=r)),
    "tied": ((5,), DENSE, lambda r: kregs.autoencoder((5,), units=(4, 5, 3), regularization=r, tied=True)),
    "convnet": ((6, 6, 2), ("normalization", "spatial_dropout", "dropout"), lambda r: kregs.convnet((6, 6, 2), 3, filters=(3, 4), dense_units=(4,), regularization=r)),
    "drop_block": ((6, 6, 2), ("normalization", "spatial_dropout"), lambda r: kregs.convnet((6, 6, 2), 3, filters=(3, 4), block_size=2 if r.spatial_dropout else None, regularization=r)),
    "resnet": ((6, 6, 2), ("normalization", "drop_path"), lambda r: kregs.resnet((6, 6, 2), 3, filters=(3, 4), blocks_per_stage=1, regularization=r)),
    "text_cnn": ((6,), TEXT, lambda r: kregs.text_cnn(7, 3, sequence_length=6, embedding_units=4, filters=3, regularization=r)),
    "recurrent": ((6,), TEXT, lambda r: kregs.recurrent(7, 3, embedding_units=4, units=(3, 2), regularization=r)),
    "bidirectional": ((6,), TEXT, lambda r: kregs.recurrent(7, 3, embedding_units=4, units=(3, 2), cell="gru", bidirectional=True, regularization=r)),
}  # fmt: skip
# of each two members; the noise is off first
FIELDS = {
    "normalization": "layer", "activity_l1": (0.01, 0.0), "activity_l2": (0.01, 0.0),
    "max_norm": (1.0, None), "dropout": (0.2, 0.0), "input_dropout": (0.2, 0.0),
    "spatial_dropout": (0.2, 0.0), "gaussian_noise": (0.2, 0.0), "drop_path": (0.2, 0.0),
}  # fmt: skip


# their layers stand in other rows or in LAYERS too
ELSEWHERE = {"autoencoder", "recurrent", "bidirectional", "text_cnn", "tied", "resnet"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.nightly] * (n in ELSEWHERE)) for n in BUILDERS],
)
def test_builder(double, name):
    shape, fields, builder = BUILDERS[name]
    tokens = fields is TEXT
    rng = np.random.default_rng(0)
    x = rng.integers(0, 7, (26, *shape)) if tokens else rng.normal(size=(26, *shape))

    def build(k, noise):
        values = {f: FIELDS[f] if isinstance(FIELDS[f], str) else FIELDS[f][k] for f in fields}
        if not noise:
            quiet = ("normalization", "max_norm", "activity_l1", "activity_l2")
            values = {f: v for f, v in values.items() if f in quiet}
        penalty = (0.01, 0.0)[k]
        model = builder(kregs.Regularization(l1=penalty, l2=penalty / 2, **values))
        model.compile(optimizers.SGD(0.05), "mse")
        return model

    fit = {"batch_size": 8, "epochs": 2, "shuffle": False}
    quiet = [build(k, False) for k in (0, 1)]
    y = numbers(26, *quiet[0].output_shape[1:])
    compared = quiet if name == "mlp" else quiet[:1]  # one without penalties is enough
    expected = ends_of_keras([twin(model) for model in compared], x, y, **fit)
    # beside one with noise, which runs but is not Keras's draw by draw
    population = Population.from_models([build(0, True), *quiet])
    histories = population.fit(x, y, accelerate=False, **fit)
    noisy = histories[0]["loss"]
    assert np.isfinite(noisy).all()
    assert noisy[-1] != pytest.approx(expected[0][1]["loss"][-1], rel=1e-6)
    ends = slice(1, 1 + len(compared))
    check_ends(population.unstack()[ends], histories[ends], expected, 1e-8, "beside noise")


def test_adapted_normalization(double):
    def body():
        normalization = layers.Normalization()
        normalization.adapt(numbers(50, 5, seed=3) * 4 + 1)
        return [normalization, layers.Dense(4, "relu")]

    models, twins = ([make(body(), (5,)) for _ in range(2)] for _ in range(2))
    for model, reference in zip(models, twins, strict=True):
        reference.set_weights(model.get_weights())
    check_equal(models, numbers(ROWS, 5), numbers(ROWS, 3), twins=twins)


def test_huber_deltas_are_told_apart():
    models = [make([], (5,), loss=losses.Huber(delta=delta)) for delta in (0.5, 1.0)]
    with pytest.raises(NotStackable, match="loss"):
        Population.from_models(models)


def test_functional_model_with_branches_and_a_nested_model(double):
    def build(rate):
        inputs = keras.Input((6, 6, 2))
        inner = keras.Sequential([keras.Input((6, 6, 4)), layers.Conv2D(4, 3, padding="same")])
        x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
        y = layers.SpatialDropout2D(rate)(inner(x)) if rate is not None else inner(x)
        x = layers.Add()([x, y])
        x = layers.Concatenate()([x, layers.Maximum()([x, y])])
        x = layers.Multiply()([x, layers.Average()([x, x])])
        outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, outputs)
        model.compile(optimizers.SGD(0.05), "mse")
        return model

    check_equal([build(0.0), build(None)], numbers(ROWS, 6, 6, 2), numbers(ROWS, 3))


def test_shared_layer(double):
    def build(n):
        inputs = keras.Input((4,))
        shared = layers.Dense(4, "tanh", kernel_regularizer=l2(n))
        model = keras.Model(inputs, layers.Dense(3)(shared(shared(inputs))))
        model.compile("sgd", "mse")
        return model

    check_equal([build(0.0), build(0.1)], numbers(ROWS, 4), numbers(ROWS, 3))


def test_frozen_layer(double):
    def build():
        model = make([layers.Dense(4), layers.BatchNormalization()], (4,))
        model.layers[0].trainable = False
        model.layers[1].trainable = False
        model.compile("adam", "mse")
        return model

    models = [build(), build()]
    before = models[0].get_weights()[0]
    twins = [twin(model) for model in models]
    for copy in twins:
        copy.layers[0].trainable = copy.layers[1].trainable = False
        copy.compile("adam", "mse")
    population = Population.from_models(models)
    x, y = numbers(80, 4), numbers(80, 3)
    population.fit(x, y, shuffle=False, batch_size=8)
    ((weights, _),) = ends_of_keras(twins[:1], x, y, shuffle=False, batch_size=8)
    ended = population.unstack()[0].get_weights()
    np.testing.assert_array_equal(ended[0], before)
    for ours, theirs in zip(ended, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


OPTIMIZERS = {
    "sgd": lambda n: optimizers.SGD(0.01 + n),
    "sgd_momentum": lambda n: optimizers.SGD(0.01, momentum=0.9 * n * 10, weight_decay=n),
    "sgd_nesterov": lambda n: optimizers.SGD(0.01, momentum=0.8 + n, nesterov=True),
    "adam": lambda n: optimizers.Adam(0.01 + n, beta_1=0.9 - n, beta_2=0.99 + n / 100),
    "adam_amsgrad": lambda n: optimizers.Adam(0.01, amsgrad=True, epsilon=1e-4, clipvalue=0.1 + n),
    "adamw": lambda n: optimizers.AdamW(0.01, weight_decay=0.1 + n),
    "adam_clipnorm": lambda n: optimizers.Adam(0.01, clipnorm=0.05 if n else None),
    "rmsprop": lambda n: optimizers.RMSprop(0.01 + n, rho=0.9 - n),
    "rmsprop_all": lambda n: optimizers.RMSprop(0.01, momentum=n, centered=True, global_clipnorm=0.3 + n),
    "lion": lambda n: optimizers.Lion(0.001 + n / 10, beta_1=0.9 - n, weight_decay=n),
    "cosine": lambda n: optimizers.Adam(optimizers.schedules.CosineDecay(0.01 + n, 150, warmup_steps=10, warmup_target=0.02)),
    "piecewise": lambda n: optimizers.SGD(optimizers.schedules.PiecewiseConstantDecay([50, 100], [0.02, 0.01, n])),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer(double, name):
    def build(n):
        # a matrix and a vector, which clipping by norm takes apart or together
        return make([], (5,), optimizer=OPTIMIZERS[name](n))

    both = name in ("sgd_momentum", "adam", "adam_clipnorm")  # 0 or none is a case of its own
    models = [build(0.0), build(0.05)]
    check_equal(models, numbers(ROWS, 5), numbers(ROWS, 3), compared=None if both else 1)


def test_excluded_variables_are_not_decayed(double):
    def build(decay):
        optimizer = optimizers.AdamW(0.01, weight_decay=decay)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return make([layers.Dense(4)], (5,), optimizer=optimizer)

    models = [build(0.1), build(0.5)]
    twins = [twin(model) for model in models]
    for copy in twins:
        copy.optimizer.exclude_from_weight_decay(var_names=["bias"])
    population = Population.from_models(models)
    x, y = numbers(80, 5), numbers(80, 3)
    population.fit(x, y, shuffle=False, epochs=3)
    expected = ends_of_keras(twins, x, y, shuffle=False, epochs=3)
    for model, (weights, _) in zip(population.unstack(), expected, strict=True):
        for ours, theirs in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


POSITIVE = [layers.Dense, {"units": 3, "activation": "softmax"}]
LOSSES = {
    "mse": ("mse", "linear", "numbers"),
    "mae": (lambda: losses.MeanAbsoluteError(), "linear", "numbers"),
    "mape": ("mean_absolute_percentage_error", "linear", "numbers"),
    "msle": ("msle", "softplus", "positive"),
    "log_cosh": ("log_cosh", "linear", "numbers"),
    "huber": (lambda: losses.Huber(), "linear", "numbers"),
    "poisson": ("poisson", "softplus", "positive"),
    "kl_divergence": ("kl_divergence", "softmax", "one_hot"),
    "hinge": ("hinge", "tanh", "signs"),
    "squared_hinge": ("squared_hinge", "tanh", "signs"),
    "categorical_hinge": ("categorical_hinge", "softmax", "one_hot"),
    "cosine_similarity": (lambda: losses.CosineSimilarity(), "linear", "numbers"),
    "binary": ("binary_crossentropy", "sigmoid", "one_hot"),
    "binary_logits": (lambda: losses.BinaryCrossentropy(from_logits=True), "linear", "one_hot"),
    "binary_focal": ("binary_focal_crossentropy", "sigmoid", "one_hot"),
    "categorical": ("categorical_crossentropy", "softmax", "one_hot"),
    "categorical_focal": (lambda: losses.CategoricalFocalCrossentropy(), "softmax", "one_hot"),
    "categorical_sum": (lambda: losses.CategoricalCrossentropy(reduction="sum"), "softmax", "one_hot"),
    "sparse": ("sparse_categorical_crossentropy", "softmax", "labels"),
    "sparse_logits": (lambda: losses.SparseCategoricalCrossentropy(from_logits=True), "linear", "labels"),
    "dice": (lambda: losses.Dice(), "sigmoid", "one_hot"),
    "tversky": ("tversky", "sigmoid", "one_hot"),
}  # fmt: skip


def targets(kind):
    return {
        "numbers": lambda: numbers(ROWS, 3, seed=4),
        "positive": lambda: np.abs(numbers(ROWS, 3, seed=4)),
        "one_hot": lambda: one_hot(ROWS, 3),
        "signs": lambda: 2 * one_hot(ROWS, 3) - 1,
        "labels": lambda: np.random.default_rng(5).integers(0, 3, ROWS),
    }[kind]()


@pytest.mark.parametrize("name", LOSSES)
def test_loss(double, name):
    loss, activation, kind = LOSSES[name]
    loss = loss if isinstance(loss, str) else loss()  # made under the fixture's float64

    def build(n):
        optimizer = optimizers.SGD(0.01 + n)
        return make([], (5,), optimizer, loss, head=[layers.Dense(3, activation)])

    models = [build(0.0), build(0.05)]
    check_equal(models, numbers(ROWS, 5), targets(kind), by=twin(models[0]))


@pytest.mark.parametrize("kind", ["binary", "categorical"])
def test_label_smoothing_differs(double, kind):
    loss_class = {
        "binary": losses.BinaryCrossentropy,
        "categorical": losses.CategoricalCrossentropy,
    }[kind]
    activation = {"binary": "sigmoid", "categorical": "softmax"}[kind]
    models = [
        make([], (5,), "sgd", loss_class(label_smoothing=e), head=[layers.Dense(3, activation)])
        for e in (0.3, 0.0, 0.1)
    ]
    check_equal(models, numbers(ROWS, 5), one_hot(ROWS, 3), accelerate=(False, True))


@keras.saving.register_keras_serializable("kregs_tests")
def own_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 1.5, axis=-1)


def test_own_loss_function(double):
    models = [make([], (5,), optimizers.SGD(r), own_loss) for r in (0.01, 0.02)]
    check_equal(models, numbers(ROWS, 5), numbers(ROWS, 3), by=twin(models[0]))


@pytest.mark.nightly
def test_integers_that_no_int32_holds(double):
    """Such as times in milliseconds."""
    x = np.array([[5_000_000_000], [-3_000_000_000], [7]])
    inputs = keras.Input((1,))
    scaled = layers.Rescaling(1e-9)(inputs)
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="ones")(scaled))
    model.compile("sgd", "mse")
    population = Population.from_models([model])
    np.testing.assert_allclose(population.predict(x)[0].ravel(), [5.0, -3.0, 7e-9], rtol=1e-6)
    expected = model.evaluate(x, np.zeros(3), verbose=0)
    assert population.evaluate(x, np.zeros(3))["loss"][0] == pytest.approx(expected)


def test_last_batch_is_smaller(double):
    def build(n):
        body = [layers.Dense(6, activity_regularizer=l2(n)), layers.BatchNormalization()]
        head = [layers.Dense(3, "softmax")]
        loss = "sparse_categorical_crossentropy"
        return make(body, (5,), None, loss, head=head, metrics=["accuracy"])

    x, y = numbers(59, 5), np.random.default_rng(5).integers(0, 3, 59)
    validation = (x[:21], y[:21])
    check_equal(
        [build(0.0), build(0.1)], x, y, batch_size=16, epochs=3, validation_data=validation,
        accelerate=(False, True),
    )  # fmt: skip


def test_weights_of_rows_and_classes(double):
    x, y = numbers(59, 5), np.random.default_rng(5).integers(0, 3, 59)
    weight = np.random.default_rng(6).uniform(0, 2, 59)

    def build():
        head = [layers.Dense(3, "softmax")]
        model = make([], (5,), None, "sparse_categorical_crossentropy", head=head)
        model.compile("adam", model.loss, metrics=["accuracy"], weighted_metrics=["accuracy"])
        return model

    models = [build(), build()]
    fit = {"batch_size": 16, "epochs": 2, "by": twin(models[0])}
    check_equal(models, x, y, sample_weight=weight, accelerate=(False, True), **fit)
    check_equal(models, x, y, class_weight={0: 0.2, 2: 3.0}, **fit)  # they become weights of rows


@pytest.mark.nightly
def test_accelerated_model(double):
    def build(n):
        body = [
            layers.Dense(6, "relu", kernel_regularizer=l2(n)),
            layers.BatchNormalization(),
            layers.Dense(6, kernel_constraint=keras.constraints.MaxNorm(1 + n)),
            layers.LayerNormalization(),
        ]
        return make(body, (5,))

    check_equal([build(0.0), build(0.1)], numbers(ROWS, 5), numbers(ROWS, 3), accelerate=(True,))


@pytest.mark.nightly
def test_accelerated_sums_of_many_numbers(double):
    """Those of penalties and norms, which XLA adds up in another order."""

    def build(n):
        body = [layers.Dense(64, "tanh", kernel_regularizer=l2(n), activity_regularizer=l2(n / 2))]
        return make(body, (16,), optimizers.Adam(1e-2, global_clipnorm=0.2 + n))

    models = [build(0.02), build(0.1)]
    x, y = numbers(96, 16), numbers(96, 3)
    check_equal(models, x, y, batch_size=8, epochs=2, accelerate=(False, True))


def test_float32_is_close():
    def build(n):
        body = [
            layers.Conv2D(4, 3, use_bias=False, kernel_regularizer=l2(n)),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ]
        return make(body, (6, 6, 1), optimizers.SGD(0.01), metrics=["mae"])

    x = numbers(ROWS, 6, 6, 1).astype("float32")
    check_equal([build(0.0), build(0.01)], x, numbers(ROWS, 3).astype("float32"), tolerance=1e-3)
