"""What every builder promises, in one table."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization

RNG = np.random.default_rng(0)
PENALTIES = ("l1", "l2", "bias_l1", "bias_l2")
# fields that add layers, with a value; max_norm and the penalties belong to existing layers
LAYER_FIELDS = {
    "activity_l1": 1e-3,
    "activity_l2": 1e-3,
    "dropout": 0.3,
    "input_dropout": 0.1,
    "spatial_dropout": 0.2,
    "gaussian_noise": 0.05,
    "drop_path": 0.4,
    "normalization": None,  # each case has its own
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A builder with its arguments, a batch for it, and where the fields must land."""

    build: Callable[..., keras.Model]
    x: np.ndarray = dataclasses.field(repr=False)
    output_shape: tuple
    lands: dict[str, list[str]]  # field -> names of the layers it adds
    stock: bool = True  # loads without kregs
    hidden: bool = True  # has hidden layers
    activation: bool = True  # has an argument of this name
    normalizations: tuple[str, ...] = ("batch", "layer", "group")
    loss: str = "mse"
    bounded: str = ""  # `max_norm` holds for the kernels whose path begins with this

    def value(self, field: str) -> Any:
        """Return a value for a field that adds layers."""
        return self.normalizations[0] if field == "normalization" else LAYER_FIELDS[field]


def images(*shape):
    return RNG.uniform(0, 255, size=shape).astype("float32")


DENSE = {
    "activity_l1": ["dense_activity_1", "dense_activity_2"],
    "dropout": ["dropout_1", "dropout_2"],
    "input_dropout": ["input_dropout"],
    "gaussian_noise": ["gaussian_noise"],
    "normalization": ["dense_normalization_1", "dense_normalization_2"],
}
SIDES = (("encoder", 1), ("encoder", 2), ("decoder", 1))
AUTOENCODER = {
    "activity_l1": [f"{n}_dense_activity_{i}" for n, i in SIDES],
    "dropout": [f"{n}_dropout_{i}" for n, i in SIDES],
    "input_dropout": ["input_dropout"],
    "gaussian_noise": ["gaussian_noise"],
    "normalization": [f"{n}_dense_normalization_{i}" for n, i in SIDES],
}
TOKENS = RNG.integers(1, 20, size=(6, 7)).astype("int32")
RECURRENT = {
    "activity_l1": ["activity_1", "activity_2"],
    "dropout": ["dropout_1", "dropout_2"],
    "input_dropout": ["input_dropout"],
    "gaussian_noise": ["gaussian_noise"],
    "spatial_dropout": ["spatial_dropout"],
    "normalization": ["normalization_1", "normalization_2"],
}
CASES = {
    "mlp": Case(
        partial(kregs.mlp, (8,), 3, units=(8, 8)),
        RNG.normal(size=(6, 8)).astype("float32"),
        (None, 3),
        DENSE,
    ),
    "mlp_flatten": Case(
        partial(kregs.mlp, (4, 2), 3, units=(8, 8), activation="tanh"),
        RNG.normal(size=(6, 4, 2)).astype("float32"),
        (None, 3),
        DENSE,
    ),
    "convnet": Case(
        partial(
            kregs.convnet, (8, 8, 4), 3, filters=(4, 4), convolutions_per_block=2, dense_units=(8,)
        ),
        images(6, 8, 8, 4),
        (None, 3),
        {
            "activity_l1": [f"block{b}_activity{c}" for b in (1, 2) for c in (1, 2)]
            + ["dense_activity_1"],
            "dropout": ["dropout_0", "dropout_1"],
            "input_dropout": ["input_dropout"],
            "gaussian_noise": ["gaussian_noise"],
            "spatial_dropout": ["block1_spatial_dropout", "block2_spatial_dropout"],
            "normalization": [f"block{b}_normalization{c}" for b in (1, 2) for c in (1, 2)]
            + ["dense_normalization_1"],
        },
    ),
    "convnet_pooled": Case(
        partial(kregs.convnet, (None, None, 1), 2, filters=(4,), pooling="average"),
        images(6, 6, 8, 1),
        (None, 2),
        {
            "activity_l1": ["block1_activity1"],
            "dropout": ["dropout_0"],
            "input_dropout": ["input_dropout"],
            "gaussian_noise": ["gaussian_noise"],
            "spatial_dropout": ["block1_spatial_dropout"],
            "normalization": ["block1_normalization1"],
        },
    ),
    "resnet": Case(
        partial(kregs.resnet, (8, 8, 1), 3, filters=(4, 8), blocks_per_stage=1),
        images(6, 8, 8, 1),
        (None, 3),
        {
            "activity_l1": [f"stage{s}_block1_{c}_activity" for s in (1, 2) for c in (1, 2)]
            + ["last_activity"],
            "dropout": ["dropout"],
            "input_dropout": ["input_dropout"],
            "gaussian_noise": ["gaussian_noise"],
            "spatial_dropout": [f"stage{s}_block1_spatial_dropout" for s in (1, 2)],
            "drop_path": ["stage1_block1_drop_path", "stage2_block1_drop_path"],
            "normalization": [f"stage{s}_block1_{c}_normalization" for s in (1, 2) for c in (1, 2)]
            + ["last_normalization"],
        },
    ),
    "resnet_post": Case(
        partial(
            kregs.resnet,
            (8, 8, 1),
            3,
            filters=(4, 8),
            blocks_per_stage=1,
            pre_activation=False,
        ),
        images(6, 8, 8, 1),
        (None, 3),
        {
            "activity_l1": [f"stage{s}_block1_{c}_activity" for s in (1, 2) for c in (1, 2)]
            + ["stem_activity"],
            "dropout": ["dropout"],
            "input_dropout": ["input_dropout"],
            "gaussian_noise": ["gaussian_noise"],
            "spatial_dropout": [f"stage{s}_block1_spatial_dropout" for s in (1, 2)],
            "drop_path": ["stage1_block1_drop_path", "stage2_block1_drop_path"],
            "normalization": [f"stage{s}_block1_{c}_normalization" for s in (1, 2) for c in (1, 2)]
            + ["stem_normalization", "stage2_block1_shortcut_normalization"],
        },
    ),
    "linear": Case(
        partial(kregs.linear, (8,), 3, kernel_initializer="auto"),
        RNG.normal(size=(6, 8)).astype("float32"),
        (None, 3),
        {"input_dropout": ["input_dropout"], "gaussian_noise": ["gaussian_noise"]},
        hidden=False,
        activation=False,
    ),
    "autoencoder": Case(
        partial(kregs.autoencoder, (8,), units=(6, 6)),
        RNG.normal(size=(6, 8)).astype("float32"),
        (None, 8),
        AUTOENCODER,
    ),
    "autoencoder_tied": Case(
        partial(kregs.autoencoder, (4, 2), units=(6, 6), tied=True),
        RNG.normal(size=(6, 4, 2)).astype("float32"),
        (None, 4, 2),
        AUTOENCODER,
        stock=False,
    ),
    "text_cnn": Case(
        partial(kregs.text_cnn, 20, 3, sequence_length=7, embedding_units=5, filters=4),
        TOKENS,
        (None, 3),
        {
            "activity_l1": ["activity_3", "activity_4", "activity_5"],
            "dropout": ["dropout"],
            "input_dropout": ["input_dropout"],
            "gaussian_noise": ["gaussian_noise"],
            "spatial_dropout": ["spatial_dropout"],
            "normalization": ["normalization_3", "normalization_4", "normalization_5"],
        },
        bounded="head",
    ),
    "recurrent": Case(
        partial(kregs.recurrent, 20, 3, embedding_units=6, units=(6, 6)),
        TOKENS,
        (None, 3),
        RECURRENT,
        activation=False,
        normalizations=("layer",),
    ),
    "recurrent_gru": Case(
        partial(
            kregs.recurrent,
            20,
            3,
            sequence_length=7,
            embedding_units=6,
            units=(4,),
            cell="gru",
            bidirectional=True,
            recurrent_dropout=0.2,
        ),
        TOKENS,
        (None, 3),
        {field: names[:1] for field, names in RECURRENT.items()},
        activation=False,
        normalizations=("layer",),
    ),
}
TABLE = np.concatenate([RNG.normal(size=(6, 5)), RNG.integers(0, 3, size=(6, 2))], axis=1)
TABLE = TABLE.astype("float32")
CASES |= {
    "table_mlp": Case(
        partial(kregs.table_mlp, 8, 3, units=(8, 8)),
        RNG.normal(size=(6, 8)).astype("float32"),
        (None, 3),
        DENSE,
    ),
    "table_mlp_piecewise": Case(
        partial(
            kregs.table_mlp, 5, 3, categories=(3, 4), units=(8, 8), embedding="piecewise",
            skip_connections=True,
        ),
        TABLE,
        (None, 3),
        DENSE | {"drop_path": ["drop_path_2"]},
        stock=False,
    ),
    "table_mlp_ensemble": Case(
        partial(
            kregs.table_mlp, 5, 3, categories=(3, 4), units=(8, 8), embedding="periodic",
            scaling=True, ensemble=4,
        ),
        TABLE,
        (None, 3),
        DENSE,
        stock=False,
        normalizations=("batch", "layer"),
        loss="categorical_crossentropy",
        bounded="dense",
    ),
}  # fmt: skip
for _case in CASES.values():
    if "activity_l1" in _case.lands:
        _case.lands["activity_l2"] = _case.lands["activity_l1"]

ACTIVATED = {name: case for name, case in CASES.items() if case.activation}
HIDDEN = {name: case for name, case in CASES.items() if case.hidden}

every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
every_with_hidden_layers = pytest.mark.parametrize("case", HIDDEN.values(), ids=HIDDEN.keys())


def full(case: Case) -> Regularization:
    """Return a value with every field set that the builder takes."""
    layers = {name: case.value(name) for name in case.lands}
    return Regularization(**dict.fromkeys(PENALTIES, 1e-3), max_norm=2.0, **layers)


_built: dict[tuple[int, bool], keras.Model] = {}


def shared_model(case: Case, *, restrained: bool) -> keras.Model:
    """Return the case's model, bare or with every field set, built once; do not train it."""
    key = (id(case), restrained)
    if key not in _built:
        _built[key] = case.build(regularization=full(case) if restrained else None, seed=1)
    return _built[key]


def randomize(model: keras.Model) -> None:
    """Give all weights random values > 0, so that no bias is zero and no variance negative."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.1, 0.5, size=w.shape) for w in model.weights])


def losses(model: keras.Model) -> float:
    return sum(float(value) for value in model.losses)


def weights_named(model: keras.Model, *endings: str) -> list[np.ndarray]:
    return [np.asarray(w) for w in model.trainable_weights if w.name.endswith(endings)]


@every
def test_is_built_uncompiled_and_has_the_shape(case):
    for restrained in (False, True):
        model = shared_model(case, restrained=restrained)
        assert model.built
        assert not model.compiled
        assert model.output_shape == case.output_shape
        assert model(case.x).shape == (len(case.x), *case.output_shape[1:])


@every
def test_the_default_restrains_nothing(case):
    model = shared_model(case, restrained=False)
    kinds = {type(layer).__name__ for layer in model.layers}
    assert not {k for k in kinds if "Drop" in k or "Noise" in k or "Normalization" in k}
    model(case.x)
    assert model.losses == []
    assert '"L1L2"' not in model.to_json()
    assert '"MaxNorm"' not in model.to_json()


@every
def test_penalties_land_on_kernels_and_biases_only(case):
    normalization = {"normalization": case.normalizations[0]} if case.hidden else {}
    kernels, biases = ("kernel",), ("bias",)
    closed_forms = {
        "l1": lambda m: sum(np.abs(w).sum() for w in weights_named(m, *kernels)),
        "l2": lambda m: sum(np.square(w).sum() for w in weights_named(m, *kernels)),
        "bias_l1": lambda m: sum(np.abs(w).sum() for w in weights_named(m, *biases)),
        "bias_l2": lambda m: sum(np.square(w).sum() for w in weights_named(m, *biases)),
    }
    # one model for all: no coefficient makes up for another
    coefficients = {"l1": 0.011, "l2": 0.037, "bias_l1": 0.53, "bias_l2": 0.29}
    model = case.build(regularization=Regularization(**coefficients, **normalization))
    randomize(model)
    model(case.x)
    expected = {field: coefficients[field] * form(model) for field, form in closed_forms.items()}
    assert min(expected.values()) > 1e-3 * sum(expected.values())
    np.testing.assert_allclose(losses(model), sum(expected.values()), rtol=1e-5)


@every_with_hidden_layers
def test_activity_penalty_is_that_of_the_hidden_outputs(case):
    model = case.build(regularization=Regularization(activity_l1=0.1, activity_l2=0.01), seed=1)
    names = case.lands["activity_l1"]
    seen = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    hidden = [np.asarray(value, "float64") for value in _as_list(seen(case.x))]
    model(case.x)
    expected = sum(0.1 * np.abs(h).sum() + 0.01 * np.square(h).sum() for h in hidden)
    np.testing.assert_allclose(losses(model), expected / len(case.x), rtol=1e-4)
    # each penalty follows an activation, and no activation but the output's goes without
    follows = [model.get_layer(name)._inbound_nodes[0].parent_nodes[0].operation for name in names]
    activations = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Activation) and layer.name != "head"
    ]
    assert {layer.name for layer in activations} <= {layer.name for layer in follows}


def _as_list(value):
    return value if isinstance(value, list) else [value]


@every
@pytest.mark.parametrize("field", LAYER_FIELDS)
def test_fields_that_add_layers(case, field):
    value = case.value(field)
    regularization = Regularization(**{field: value})
    if field not in case.lands:
        with pytest.raises(ValueError, match=rf"`regularization.{field}` has no meaning for \w+\("):
            case.build(regularization=regularization)
        return
    before = {layer.name for layer in shared_model(case, restrained=False).layers}
    model = case.build(regularization=regularization)
    added = [layer for layer in model.layers if layer.name not in before]
    assert {layer.name for layer in added} == set(case.lands[field])
    for layer in added:
        config = layer.get_config()
        if field == "drop_path":
            assert config["noise_shape"][0] is None
            assert set(config["noise_shape"][1:]) == {1}
        elif field.endswith(("dropout", "gaussian_noise")):
            assert config.get("rate", config.get("stddev")) == value


@every_with_hidden_layers
@pytest.mark.parametrize("kind", ["batch", "layer", "group"])
def test_normalizations(case, kind):
    regularization = Regularization(normalization=kind)
    if kind not in case.normalizations:
        with pytest.raises(ValueError, match=r"`regularization.normalization` must be"):
            case.build(regularization=regularization)
        return
    model = case.build(regularization=regularization)
    for name in case.lands["normalization"]:
        layer = model.get_layer(name)
        assert type(layer).__name__ == f"{kind.capitalize()}Normalization"
        if kind == "group":
            assert layer.groups == np.gcd(32, layer.input.shape[-1])
    assert np.isfinite(model(case.x)).all()


@every
def test_two_steps_of_training(case):
    model = case.build(regularization=full(case), seed=0)
    # eagerly: test_data_loss.py trains every builder as a graph
    model.compile(keras.optimizers.SGD(0.05), loss=case.loss, run_eagerly=True)
    before = [np.array(w.numpy()) for w in model.trainable_weights]
    y = np.random.default_rng(0).uniform(size=(len(case.x), *case.output_shape[1:]))
    for _ in range(2):
        loss = model.train_on_batch(case.x, y)
        assert np.isfinite(loss)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        assert np.isfinite(weight.numpy()).all(), weight.path
        assert not np.array_equal(weight.numpy(), old), weight.path


@every
def test_max_norm_holds_after_a_step(case):
    model = case.build(regularization=Regularization(max_norm=0.5), seed=0)
    randomize(model)
    model.compile(keras.optimizers.SGD(1e-9), loss=case.loss, run_eagerly=True)
    model.train_on_batch(case.x, np.zeros((len(case.x), *case.output_shape[1:])))
    kernels = [
        np.asarray(w)
        for w in model.trainable_weights
        if w.name.endswith("kernel") and w.path.startswith(case.bounded)
    ]
    assert kernels
    for kernel in kernels:
        norms = np.sqrt(np.square(kernel).sum(axis=tuple(range(kernel.ndim - 1))))
        assert norms.max() < 0.5 + 1e-4


@every
def test_config_round_trips(case):
    model = shared_model(case, restrained=True)
    # from the objects in memory, and from text
    for copy in (keras.models.clone_model(model), keras.models.model_from_json(model.to_json())):
        assert type(copy) is type(model)
        assert json.loads(copy.to_json()) == json.loads(model.to_json())
        copy.set_weights(model.get_weights())
        np.testing.assert_allclose(copy(case.x), model(case.x), rtol=1e-5, atol=1e-6)


@every
def test_seeds(case):
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    one, two, other = (case.build(regularization=full(case), seed=s) for s in (1, 1, 2))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # noqa: NPY002
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels, others = (weights_named(m, "kernel", "embeddings") for m in (one, other))
    for a, b in zip(kernels, others, strict=True):
        assert not np.array_equal(a, b)
    for i, a in enumerate(kernels):
        for b in kernels[:i]:
            assert a.shape != b.shape or not np.array_equal(a, b)
    # training draws the same noise, too, and another seed other noise for the same weights
    other.set_weights(one.get_weights())
    outputs = [np.asarray(model(case.x, training=True)) for model in (one, two, other)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])
    seeds = [s for layer in one.layers for s in _seeds(layer.get_config())]
    assert None not in seeds
    assert len(seeds) == len(set(seeds))


def _seeds(config: Any) -> list:
    """Return all values of the key "seed" in a nested config."""
    if isinstance(config, dict):
        here = [config["seed"]] if "seed" in config else []
        return here + [s for value in config.values() for s in _seeds(value)]
    return []


@every
def test_regularization_leaves_the_initial_weights_alone(case):
    bare = case.build(seed=1)
    restrained = case.build(regularization=full(case).replace(normalization=None), seed=1)
    # by name: the layers of a Functional model change their order when one is added
    expected = {weight.path: weight.numpy() for weight in bare.weights}
    assert len(expected) == len(restrained.weights)
    for weight in restrained.weights:
        np.testing.assert_array_equal(weight.numpy(), expected[weight.path], weight.path)


@every
def test_without_a_seed_models_differ(case):
    one, two = (weights_named(case.build(), "kernel") for _ in range(2))
    assert not any(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.fixture
def policy():
    """Set a global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@every
def test_mixed_precision(case, policy):
    # a coefficient that float16 cannot hold: the penalty is finite only in float32
    activity = {"activity_l2": 1e6} if case.hidden else {}
    build = partial(case.build, regularization=Regularization(l2=1e6, **activity), seed=0)
    reference = build()
    policy("mixed_float16")
    model = build()
    model.set_weights(reference.get_weights())
    y = model(case.x)
    assert y.dtype == "float32"
    assert model.get_layer("head").compute_dtype == "float32"
    if (
        model.name == "autoencoder" and not case.stock
    ):  # the layer that makes the output when it runs backwards
        assert model.get_layer("encoder_dense_1").compute_dtype == "float32"
    if case.hidden:
        assert "float16" in {layer.compute_dtype for layer in model.layers}
    np.testing.assert_allclose(y, reference(case.x), rtol=0.05, atol=0.02)
    np.testing.assert_allclose(losses(model), losses(reference), rtol=0.02)


@every
def test_float64(case, policy):
    policy("float64")
    model = case.build(regularization=full(case), seed=0)
    layers = [x for x in model.layers if not isinstance(x, keras.layers.InputLayer)]
    assert {layer.compute_dtype for layer in layers} == {"float64"}


@every
def test_kernel_initializer(case):
    ones = case.build(kernel_initializer="ones")
    assert all((w.numpy() == 1).all() for w in ones.weights if w.name == "kernel")
    # one instance with a seed: still a different kernel in every layer, the same every time
    given = keras.initializers.HeNormal(seed=5)
    one, two = (
        [w.numpy() for w in case.build(kernel_initializer=given).weights if w.name == "kernel"]
        for _ in range(2)
    )
    for i, a in enumerate(one):
        np.testing.assert_array_equal(a, two[i])
        for b in one[:i]:
            assert a.shape != b.shape or not np.array_equal(a, b)


BAD = [
    ({"regularization": "l2"}, TypeError, r"`regularization` must be a kregs.Regularization"),
    ({"regularization": {"l2": 0.1}}, TypeError, r"`regularization` must be"),
    ({"kernel_initializer": "he_norml"}, ValueError, r"`kernel_initializer`.*Did you mean 'he_n"),
    ({"kernel_initializer": 3}, ValueError, r"`kernel_initializer` must be"),
    ({"head_activation": "sofmax"}, ValueError, r"'sofmax'.*Did you mean 'softmax'"),
    ({"seed": -1}, ValueError, r"`seed` must be an integer >= 0"),
    ({"seed": 1.5}, TypeError, r"`seed` must be an integer"),
    ({"seed": "1"}, TypeError, r"`seed` must be an integer"),
    ({"regularisation": None}, TypeError, r"regularisation"),
]


@every
@pytest.mark.parametrize(("arguments", "error", "message"), BAD)
def test_bad_arguments(case, arguments, error, message):
    with pytest.raises(error, match=message):
        case.build(**arguments)


@pytest.mark.parametrize("case", ACTIVATED.values(), ids=ACTIVATED.keys())
def test_bad_activation(case):
    with pytest.raises(ValueError, match=r"`activation`.*'rleu'.*Did you mean 'relu'"):
        case.build(activation="rleu")
    with pytest.raises(TypeError, match=r"`activation` must be a name"):
        case.build(activation=3)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (partial(kregs.mlp, (8,), 3, units=[]), ValueError, r"`units` must hold at least one"),
        (partial(kregs.mlp, (8,), 3, units=8), TypeError, r"`units` must be a sequence"),
        (partial(kregs.mlp, (8,), 3, units="8"), TypeError, r"`units` must be a sequence"),
        (partial(kregs.mlp, (8,), 3, units=(8, 0)), ValueError, r"`units\[1\]` must be"),
        (partial(kregs.mlp, (8,), 3, units=(8.0,)), TypeError, r"`units\[0\]` must be"),
        (partial(kregs.mlp, 8, 3, units=(8,)), TypeError, r"`input_shape` must be a tuple"),
        (partial(kregs.mlp, (), 3, units=(8,)), ValueError, r"`input_shape` must be a tuple"),
        (partial(kregs.mlp, (None,), 3, units=(8,)), ValueError, r"`input_shape` must be"),
        (partial(kregs.mlp, (-8,), 3, units=(8,)), ValueError, r"`input_shape\[0\]` must be"),
        (partial(kregs.mlp, (8,), 0, units=(8,)), ValueError, r"`outputs` must be"),
        (partial(kregs.mlp, (8,), 2.0, units=(8,)), TypeError, r"`outputs` must be"),
        (partial(kregs.mlp, (8,), 1, units=(8,)), ValueError, r"'softmax' with outputs=1"),
        (
            partial(kregs.mlp, (8,), 1, units=(8,), head_activation=keras.activations.softmax),
            ValueError,
            r"'softmax' with outputs=1",
        ),
        (partial(kregs.mlp, (8,), 3, units=(8,), use_bias=1), TypeError, r"`use_bias` must be"),
        (partial(kregs.convnet, (8, 8), 3), ValueError, r"`input_shape` must be .* 3 axes"),
        (partial(kregs.convnet, (None, 8, 1), 3), ValueError, r"`input_shape` must be"),
        (
            partial(kregs.convnet, (8, 8, None), 3, pooling="max"),
            ValueError,
            r"`input_shape` must be",
        ),
        (partial(kregs.convnet, (8, 8, 1), 3, filters=()), ValueError, r"`filters` must hold"),
        (
            partial(kregs.convnet, (8, 8, 1), 3, filters=(4,) * 4),
            ValueError,
            r"`filters` makes 4 blocks.*at most 3 for a side of 8",
        ),
        (partial(kregs.convnet, (8, 8, 1), 3, kernel_size=0), ValueError, r"`kernel_size` must"),
        (partial(kregs.convnet, (8, 8, 1), 3, kernel_size=(3, 3)), TypeError, r"`kernel_size`"),
        (
            partial(kregs.convnet, (8, 8, 1), 3, convolutions_per_block=0),
            ValueError,
            r"`convolutions_per_block` must be",
        ),
        (
            partial(kregs.convnet, (8, 8, 1), 3, pooling="averge"),
            ValueError,
            r"`pooling` must be .*Did you mean 'average'",
        ),
        (partial(kregs.convnet, (8, 8, 1), 3, rescaling=0), ValueError, r"`rescaling` must be"),
        (partial(kregs.convnet, (8, 8, 1), 3, dense_units=8), TypeError, r"`dense_units` must"),
        (partial(kregs.convnet, (8, 8, 1), 1), ValueError, r"'softmax' with outputs=1"),
        (partial(kregs.convnet, (8, 8, 1), 3, block_size=3), ValueError, r"`block_size` is the"),
        (partial(kregs.resnet, (8, 8), 3), ValueError, r"`input_shape` must be .* 3 axes"),
        (partial(kregs.resnet, (8, 8, 1), 3, filters=()), ValueError, r"`filters` must hold"),
        (
            partial(kregs.resnet, (8, 8, 1), 3, blocks_per_stage=0),
            ValueError,
            r"`blocks_per_stage` must be",
        ),
        (
            partial(kregs.resnet, (8, 8, 1), 3, pre_activation="no"),
            TypeError,
            r"`pre_activation` must be",
        ),
        (
            partial(
                kregs.resnet,
                (None, None, 1),
                3,
                block_size=3,
                regularization=Regularization(spatial_dropout=0.1),
            ),
            ValueError,
            r"`input_shape` must be",
        ),
        (partial(kregs.linear, (8,), 0), ValueError, r"`outputs` must be"),
        (
            partial(kregs.linear, (8,), head_activation="softmax"),
            ValueError,
            r"'softmax' with outputs=1",
        ),
        (partial(kregs.linear, (8,), use_bias=None), TypeError, r"`use_bias` must be"),
        (partial(kregs.table_mlp, 0, 3), ValueError, r"`numbers` and `categories` must make one"),
        (partial(kregs.table_mlp, -1, 3), ValueError, r"`numbers` must be an integer >= 0"),
        (partial(kregs.table_mlp, 2, 3, categories=3), TypeError, r"`categories` must be"),
        (partial(kregs.table_mlp, 2, 3, categories=(0,)), ValueError, r"`categories\[0\]` must"),
        (partial(kregs.table_mlp, 2, 3, units=()), ValueError, r"`units` must hold"),
        (
            partial(kregs.table_mlp, 2, 3, embedding="peicewise"),
            ValueError,
            r"`embedding` must be .*Did you mean 'piecewise'",
        ),
        (
            partial(kregs.table_mlp, 0, 3, categories=(2,), embedding="periodic"),
            ValueError,
            r"`embedding` is of numbers",
        ),
        (partial(kregs.table_mlp, 2, 3, edges=[[0, 1]] * 2), ValueError, r"`edges` is of"),
        (
            partial(kregs.table_mlp, 2, 3, embedding="periodic", edges=[[0, 1]] * 2),
            ValueError,
            r"`edges` is of embedding='piecewise'",
        ),
        (
            partial(kregs.table_mlp, 2, 3, embedding="piecewise", edges=[[0, 1]]),
            ValueError,
            r"1 for 2 features",
        ),
        (
            partial(kregs.table_mlp, 2, 3, embedding="periodic", embedding_units=1),
            ValueError,
            r"`embedding_units` must be an integer >= 2",
        ),
        (partial(kregs.table_mlp, 2, 3, embedding_units=4), ValueError, r"`embedding_units` is"),
        (
            partial(kregs.table_mlp, 2, 3, categories=(2,), category_units=0),
            ValueError,
            r"`category_units` must be",
        ),
        (partial(kregs.table_mlp, 2, 3, scaling=1), TypeError, r"`scaling` must be"),
        (partial(kregs.table_mlp, 2, 3, ensemble=1), ValueError, r"`ensemble` must be"),
        (
            partial(kregs.table_mlp, 2, 3, ensemble=2, head_activation="tanh"),
            ValueError,
            r"`head_activation` of an ensemble must be",
        ),
        (
            partial(kregs.table_mlp, 2, 3, skip_connections="yes"),
            TypeError,
            r"`skip_connections` must be",
        ),
        (partial(kregs.autoencoder, (8,), units=[]), ValueError, r"`units` must hold"),
        (partial(kregs.autoencoder, (8,), units=(4,), tied="yes"), TypeError, r"`tied` must be"),
        (partial(kregs.autoencoder, (None, 8), units=(4,)), ValueError, r"`input_shape` must be"),
    ],
)
def test_bad_sizes(build, error, message):
    with pytest.raises(error, match=message):
        build()


LOADER = """
import pathlib, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "kregs":
            raise ImportError("kregs is blocked")

sys.meta_path.insert(0, Blocked())
import keras
import numpy as np

for file in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    data = np.load(file.with_suffix(".npz"))
    try:
        model = keras.saving.load_model(file)
    except TypeError as error:
        print(file.stem, "TypeError" if "kregs" in str(error) else error)
        continue
    np.testing.assert_allclose(model(data["x"]), data["y"], rtol=1e-5, atol=1e-6)
    print(file.stem, "same")
try:
    import kregs
except ImportError:
    print("blocked")
"""


@pytest.mark.nightly
def test_saved_models_load_where_kregs_is_not_installed(tmp_path):
    for name, case in CASES.items():
        model = shared_model(case, restrained=True)
        randomize(model)
        model.save(tmp_path / f"{name}.keras")
        np.savez(tmp_path / f"{name}.npz", x=case.x, y=model(case.x))
        if not case.stock:  # the others are loaded below
            loaded = keras.saving.load_model(tmp_path / f"{name}.keras")
            np.testing.assert_allclose(loaded(case.x), model(case.x), rtol=1e-5, atol=1e-6)
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = {f"{n} {'same' if c.stock else 'TypeError'}" for n, c in CASES.items()}
    assert set(done.stdout.split("\n")[:-1]) == expected | {"blocked"}
