"""`resnet`: its shapes, and stochastic depth."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kregs
from kregs import Regularization

RNG = np.random.default_rng(0)


def names(model):
    return [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def test_resnet_shapes():
    model = kregs.resnet((32, 32, 3), 10, filters=(16, 32, 64), blocks_per_stage=3)
    shapes = [
        model.get_layer(f"stage{s}_block{b}_add").output.shape for s in (1, 2, 3) for b in (1, 2, 3)
    ]
    assert shapes == [
        *[(None, 32, 32, 16)] * 3,
        *[(None, 16, 16, 32)] * 3,
        *[(None, 8, 8, 64)] * 3,
    ]
    shortcuts = [n for n in names(model) if n.endswith("shortcut")]
    assert shortcuts == ["stage2_block1_shortcut", "stage3_block1_shortcut"]


def test_resnet_20_has_the_papers_size():
    model = kregs.resnet(
        (32, 32, 3),
        10,
        blocks_per_stage=3,
        pre_activation=False,
        regularization=Regularization(normalization="batch"),
    )
    # He et al. 2016a, table 6: 0.27 million for 20 layers; this is their number with projections
    assert sum(w.numpy().size for w in model.trainable_weights) == 272_474
    weighted = [n for n in names(model) if "convolution" in n or n in ("stem", "head")]
    assert len(weighted) == 20


def test_stochastic_depth_grows_linearly():
    r = Regularization(drop_path=0.5)
    model = kregs.resnet((8, 8, 1), 3, filters=(4, 8), blocks_per_stage=2, regularization=r)
    rates = [layer.rate for layer in model.layers if layer.name.endswith("drop_path")]
    np.testing.assert_allclose(rates, [0.125, 0.25, 0.375, 0.5])


@pytest.mark.parametrize("pre_activation", [True, False])
def test_stochastic_depth_drops_branches_per_sample(pre_activation):
    model = kregs.resnet(
        (4, 4, 2),
        3,
        filters=(2,),
        blocks_per_stage=1,
        pre_activation=pre_activation,
        regularization=Regularization(drop_path=0.25),
        seed=0,
    )
    add = model.get_layer("stage1_block1_add")
    shortcut, branch = add.input
    seen = keras.Model(
        model.inputs[0],
        [shortcut, model.get_layer("stage1_block1_convolution2").output, branch, add.output],
    )
    x = RNG.uniform(0, 255, size=(200, 4, 4, 2)).astype("float32")
    shortcut, convolution, branch, total = map(np.asarray, seen(x, training=True))
    dropped = (branch == 0).all(axis=(1, 2, 3))
    assert 0.15 < dropped.mean() < 0.35
    np.testing.assert_allclose(total[dropped], shortcut[dropped])
    kept = shortcut[~dropped] + convolution[~dropped] / 0.75
    np.testing.assert_allclose(total[~dropped], kept, rtol=1e-4, atol=1e-5)
