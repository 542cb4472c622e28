"""Bad inputs of `Regularization`, builders, layers, initializers and `regularize`."""

from __future__ import annotations

import math

import keras
import keras_tuner
import numpy as np
from harness import (
    NO_COUNTS,
    NO_FINITE,
    NO_FLAGS,
    NO_NAMES,
    NO_NUMBERS,
    NO_RATES,
    NO_SEEDS,
    NO_SIZES,
    Bad,
    Case,
    Lazy,
    bad,
)

import kregs
from kregs import Regularization
from kregs.layers import (
    BatchEnsembleDense,
    CategoryEmbedding,
    Columns,
    DropBlock2D,
    EnsembleAverage,
    EnsembleDense,
    PeriodicEmbedding,
    PiecewiseLinearEmbedding,
    RandomSign,
    Scale,
    TiedDense,
    quantile_edges,
)

COEFFICIENT = (*NO_NUMBERS, *NO_FINITE, -1e-9)
NO_SHAPES = (
    None, 4, "4", "", (), (0,), (-1,), (2.5,), (True,), ("4",), ((2,),), (math.nan,), (2**70,), [],
    np.array(4),
)  # fmt: skip
NO_REGULARIZATIONS = (0.1, "l2", {"l2": 0.1}, True, Regularization, keras.regularizers.L2(0.1))
NO_ACTIVATIONS = ("rely", "", "RELU ", 3, True, ["relu"], b"relu", keras.layers.Dense)
NO_INITIALIZERS = ("he_norml", "", 3, None, True, ["zeros"])


def fields() -> list[Case]:
    cases = []
    for name in ("l1", "l2", "bias_l1", "bias_l2", "activity_l1", "activity_l2", "gaussian_noise"):
        cases += bad(Regularization, {}, {name: COEFFICIENT})
    for name in ("dropout", "input_dropout", "spatial_dropout", "drop_path"):
        cases += bad(Regularization, {}, {name: NO_RATES})
    positive = [v for v in (*NO_NUMBERS, *NO_FINITE, 0, 0.0, -3) if v is not None]
    cases += bad(Regularization, {}, {"max_norm": positive})
    kinds = ("btach", "", "Batch", True, 0, ["batch"], np.array("batch"), keras.layers.Layer)
    cases += bad(Regularization, {}, {"normalization": kinds, "droput": [0.1], "lambda_": [0.1]})
    base = Regularization(l2=0.1)
    cases += bad(base.replace, {}, {"droput": [Bad(0.5, "droput", "'dropout'")], "l2": [-1, "1"]})
    configs = (
        Bad({"droput": 0.5}, "droput", "'dropout'"), Bad({"l2": -1}, "l2", "-1"), None, 3, "l2",
        [("l2", 1)], {1: 2}, {None: 0.1},
    )  # fmt: skip
    return cases + bad(Regularization.from_config, {}, {"config": configs})


def from_hp() -> list[Case]:
    hp = {"hp": Lazy(keras_tuner.HyperParameters)}
    ranges = (
        (0.1, 0.01), (0.1, 0.1), (0, 0.1), (-1, 1), (), (0.1,), (1, 2, 3), (0, 0, 1), (0.1, None),
        ("a", "b"), (True, 2), (math.nan, 1), (1e-3, math.inf), [], [-1], ["a"], [0.1, 0.1], "0.1",
        -1, math.nan, {"low": 0}, {0.1, 0.2}, np.array([0.1, 1.0]), range(3),
    )  # fmt: skip
    cases = bad(
        Regularization.from_hp,
        hp,
        {
            "l2": ranges,
            "dropout": [(0.5, 0.1), (0, 1), (0.0, 1.5), (0, 0.1, 0.5), [1.0], (0.1,), [], "0.5"],
            "max_norm": [(0, 3), (3, 1), (0, 1, 3), [0]],
            "normalization": [("batch", None), [], ["btach"], "btach", ["batch", "batch"]],
            "droput": [Bad((0, 0.5), "droput", "'dropout'")],
            "base": [0.1, "l2", {"l2": 0.1}, Regularization],
            "prefix": [None, 3, b"a", ["a"]],
        },
    )
    wrong_hp = (None, {}, 3, "hp", keras_tuner.HyperParameters, object())
    return cases + bad(Regularization.from_hp, {"l2": (0.1, 1)}, {"hp": wrong_hp})


def builders() -> list[Case]:
    common = {
        "regularization": NO_REGULARIZATIONS,
        "kernel_initializer": NO_INITIALIZERS,
        "head_activation": NO_ACTIVATIONS,
        "seed": NO_SEEDS,
        "name": NO_NAMES,
    }
    hidden = {**common, "activation": NO_ACTIVATIONS, "use_bias": [0, "yes", 1.0, [True]]}
    outputs = {"outputs": [*NO_COUNTS, Bad(1, "head_activation", "softmax")]}
    image = [*NO_SHAPES, (8, 8), (8, 8, 1, 1), (8, 8, None), (0, 8, 1)]
    scale = [v for v in (*NO_NUMBERS, *NO_FINITE, 0, -1) if v is not None]
    block = [v for v in NO_COUNTS if v is not None]
    squares = {"regularization": Regularization(spatial_dropout=0.1)}
    no_squares = [Bad(3, "block_size", "spatial_dropout")]
    cases = bad(
        kregs.mlp,
        {"input_shape": (4,), "outputs": 3, "units": (5,)},
        {
            **hidden, **outputs, "input_shape": [*NO_SHAPES, (None,)], "units": NO_SIZES,
            "unit": [(3,)], "regularization": [
                *NO_REGULARIZATIONS, Bad(Regularization(spatial_dropout=0.1), "spatial_dropout"),
                Bad(Regularization(drop_path=0.1), "drop_path"),
            ],
        },
    )  # fmt: skip
    cases += bad(
        kregs.convnet,
        {"input_shape": (8, 8, 1), "outputs": 3, "filters": (2,)},
        {
            **hidden, **outputs, "input_shape": [*image, (None, 8, 1)],
            "filters": [*NO_SIZES, (2,) * 4], "kernel_size": [*NO_COUNTS, (3, 3)],
            "convolutions_per_block": NO_COUNTS, "pooling": ["max pool", "", None, 2, ["max"]],
            "dense_units": [v for v in NO_SIZES if not isinstance(v, tuple) or v],
            "rescaling": scale,
            "block_size": [Bad(v, "block_size", call=squares) for v in block] + no_squares,
        },
    )  # fmt: skip
    cases += bad(
        kregs.resnet,
        {"input_shape": (8, 8, 1), "outputs": 3, "filters": (2,), "blocks_per_stage": 1},
        {
            **hidden, **outputs, "input_shape": image, "filters": NO_SIZES,
            "blocks_per_stage": NO_COUNTS, "kernel_size": NO_COUNTS, "pre_activation": NO_FLAGS,
            "rescaling": scale,
            "block_size": [Bad(v, "block_size", call=squares) for v in block] + no_squares,
        },
    )  # fmt: skip
    text = {"vocabulary": 20, "outputs": 3, "sequence_length": 7, "embedding_units": 2}
    cases += bad(
        kregs.text_cnn,
        {**text, "filters": 2},
        {
            **hidden, **outputs, "vocabulary": NO_COUNTS, "sequence_length": [*NO_COUNTS, 2],
            "embedding_units": NO_COUNTS, "filters": NO_COUNTS,
            "kernel_sizes": [*NO_SIZES, (3, 3), (9,)], "penalize_embeddings": NO_FLAGS,
        },
    )  # fmt: skip
    cases += bad(
        kregs.recurrent,
        {**text, "units": (2,)},
        {
            **common, **outputs, "vocabulary": NO_COUNTS, "embedding_units": NO_COUNTS,
            "sequence_length": [v for v in NO_COUNTS if v is not None], "units": NO_SIZES,
            "cell": ["ltsm", "LSTM", "", None, 3, ["gru"], keras.layers.LSTM],
            "bidirectional": NO_FLAGS, "recurrent_dropout": NO_RATES, "mask_zero": NO_FLAGS,
            "penalize_embeddings": NO_FLAGS,
            "regularization": [
                *NO_REGULARIZATIONS, Bad(Regularization(normalization="batch"), "normalization"),
            ],
        },
    )  # fmt: skip
    no_optional_counts = [v for v in NO_COUNTS if v is not None]
    cases += bad(
        kregs.table_mlp,
        {"numbers": 3, "outputs": 3, "categories": (2,), "units": (5,), "embedding": "piecewise"},
        {
            **hidden, **outputs, "numbers": [v for v in NO_COUNTS if v != 0], "units": NO_SIZES,
            "categories": [None, 3, "ab", (0,), (-1,), (2.5,), ("a",)],
            "embedding": ["linear", "", 2, True], "embedding_units": no_optional_counts,
            "bins": no_optional_counts, "edges": [3, "ab", [0, 1], [[0, 1]], [[1, 0]] * 3],
            "category_units": NO_COUNTS, "scaling": NO_FLAGS, "skip_connections": NO_FLAGS,
            "ensemble": [*no_optional_counts, 1],
            "regularization": [
                *NO_REGULARIZATIONS, Bad(Regularization(spatial_dropout=0.1), "spatial_dropout"),
                Bad(Regularization(drop_path=0.1), "drop_path"),
                # no two layers of the same units: nothing is skipped
                Bad(Regularization(drop_path=0.1), "drop_path",
                    call={"skip_connections": True, "units": (4, 5)}),
            ],
        },
    )  # fmt: skip
    cases += bad(
        kregs.table_mlp,
        {"numbers": 3, "outputs": 3},
        {"bins": [3, Bad(3, "`bins`", "periodic", call={"embedding": "periodic"})]},
    )
    cases += bad(
        kregs.linear,
        {"input_shape": (4,)},
        {
            **common, "outputs": NO_COUNTS, "input_shape": [*NO_SHAPES, (None,)],
            "use_bias": NO_FLAGS,
            "regularization": [*NO_REGULARIZATIONS, Bad(Regularization(dropout=0.1), "dropout")],
        },
    )  # fmt: skip
    return cases + bad(
        kregs.autoencoder,
        {"input_shape": (4,), "units": (2,)},
        {**hidden, "input_shape": [*NO_SHAPES, (None,)], "units": NO_SIZES, "tied": NO_FLAGS},
    )


def layers() -> list[Case]:
    cases = bad(
        DropBlock2D,
        {"rate": 0.1},
        {"rate": NO_RATES, "block_size": NO_COUNTS, "seed": NO_SEEDS},
        entry="layers.DropBlock2D",
    )
    cases += bad(
        TiedDense,
        {"units": 3},
        {
            "units": NO_COUNTS, "use_bias": NO_FLAGS, "use_reverse_bias": NO_FLAGS,
            "kernel_initializer": NO_INITIALIZERS, "bias_initializer": NO_INITIALIZERS,
            "kernel_regularizer": ["l3", 3, True], "bias_regularizer": ["l3", 3, True],
            "kernel_constraint": ["max", 3, True],
        },
        entry="layers.TiedDense",
    )  # fmt: skip
    regularizers = ["l3", 3, True]
    for dense in (BatchEnsembleDense, EnsembleDense):
        cases += bad(
            dense,
            {"units": 3, "members": 2},
            {
                "units": NO_COUNTS, "members": NO_COUNTS, "use_bias": NO_FLAGS,
                "kernel_initializer": NO_INITIALIZERS, "bias_initializer": NO_INITIALIZERS,
                "kernel_regularizer": regularizers, "bias_regularizer": regularizers,
                "kernel_constraint": ["max", 3, True],
            },
            entry=f"layers.{dense.__name__}",
        )  # fmt: skip
    factor = [*NO_NUMBERS, *NO_FINITE, 0, -1]
    for layer, good, values in (
        (RandomSign, {}, {"seed": [v for v in NO_SEEDS if v is not None]}),
        (EnsembleAverage, {}, {"activation": ["tanh", "", 3, ["softmax"]]}),
        (Columns, {"start": 0, "stop": 2}, {"start": [-1, 0.5, "a", None], "stop": [0, 0.5]}),
        (Scale, {}, {"learning_rate_factor": factor}),
        (CategoryEmbedding, {"cardinalities": (2,), "units": 2},
         {"cardinalities": [None, 3, "ab", (), (0,), (2.5,)], "units": NO_COUNTS,
          "embeddings_initializer": NO_INITIALIZERS, "embeddings_regularizer": regularizers}),
        (PeriodicEmbedding, {},
         {"units": [*NO_COUNTS, 1], "frequencies": NO_COUNTS, "frequency_scale": factor,
          "learning_rate_factor": factor, "embeddings_regularizer": regularizers,
          "bias_regularizer": regularizers, "seed": NO_SEEDS}),
        (PiecewiseLinearEmbedding, {"units": 2},
         {"units": [v for v in NO_COUNTS if v is not None], "bins": NO_COUNTS,
          "edges": [3, "ab", [0, 1], [[1, 0]]], "activation": NO_ACTIVATIONS,
          "embeddings_regularizer": regularizers, "bias_regularizer": regularizers,
          "seed": NO_SEEDS}),
        (quantile_edges, {"x": np.ones((3, 1)), "bins": 2},
         {"x": [None, 3, "ab", [], np.ones(3)], "bins": NO_COUNTS}),
    ):  # fmt: skip
        cases += bad(layer, good, values, entry=f"layers.{layer.__name__}")
    unknown = keras.KerasTensor((None, None, 8, 1))
    flat = keras.KerasTensor((None, 8))
    cases += [
        Case("layers.DropBlock2D", "unknown height", lambda: DropBlock2D(0.1)(unknown),
             ("height", "Received")),
        Case("layers.DropBlock2D", "two axes", lambda: DropBlock2D(0.1)(flat), ("Received",)),
        Case("layers.TiedDense", "backwards first",
             lambda: TiedDense(3)(np.ones((2, 4), "float32"), reverse=True), ("Received",)),
        Case("layers.TiedDense", "unknown width",
             lambda: TiedDense(3)(keras.KerasTensor((None, None))), ("Received",)),
    ]  # fmt: skip
    return cases + bad(
        kregs.initializer_for,
        {"activation": "relu"},
        {"activation": NO_ACTIVATIONS, "seed": NO_SEEDS},
    )


def regularize() -> list[Case]:
    model = kregs.mlp((4,), 3, units=(5,))

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    bounded = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, kernel_constraint="non_neg")]
    )
    models = (
        None, "mlp", 3, [model], keras.Sequential, model.layers[0], Subclassed(),
        keras.Sequential(), keras.Sequential([keras.layers.Dense(3)]),
        Bad(bounded, "max_norm|constraint", call={"regularization": Regularization(max_norm=1)}),
    )  # fmt: skip
    no_meaning = [
        Bad(Regularization(**{name: value}), name)
        for name, value in (
            ("normalization", "batch"), ("input_dropout", 0.1), ("gaussian_noise", 0.1),
            ("drop_path", 0.1),
        )
    ]  # fmt: skip
    return bad(
        kregs.regularize,
        {"model": model, "regularization": Regularization(l2=0.1)},
        {
            "model": models,
            "regularization": [None, *NO_REGULARIZATIONS, *no_meaning],
            "layers": [
                "dense_1", "", 3, True, ["dens_1"], [3], [None], [], [""], lambda layer: False,
                model.layers[0], [model.layers[0]],
            ],
            "seed": NO_SEEDS,
        },
    )  # fmt: skip


def good_calls(folder: str) -> dict:
    """Return calls without the bad value, which must pass: else the cases prove nothing."""
    hp = keras_tuner.HyperParameters
    model = kregs.mlp((4,), 3, units=(5,))
    return {
        "mlp": lambda: kregs.mlp((4,), 3, units=(5,), seed=2**32 - 1),
        "convnet": lambda: kregs.convnet((8, 8, 1), 3, filters=(2,)),
        "resnet": lambda: kregs.resnet((8, 8, 1), 3, filters=(2,), blocks_per_stage=1),
        "text_cnn": lambda: kregs.text_cnn(20, 3, sequence_length=7, filters=2),
        "recurrent": lambda: kregs.recurrent(20, 3, sequence_length=7, units=(2,)),
        "linear": lambda: kregs.linear((np.int64(4),)),
        "table_mlp": lambda: kregs.table_mlp(
            3, 3, categories=(2,), units=(5,), embedding="piecewise"
        ),
        "autoencoder": lambda: kregs.autoencoder((4,), units=[np.int32(2)]),
        "from_hp": lambda: Regularization.from_hp(hp(), l2=(0.1, 1)),
        "regularize": lambda: kregs.regularize(model, Regularization(l2=np.float32(0.1))),
    }


def cases(folder: str) -> list[Case]:
    return [*fields(), *from_hp(), *builders(), *layers(), *regularize()]
