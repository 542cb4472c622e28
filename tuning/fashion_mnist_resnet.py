"""The search for λ, stochastic depth and dropout of the residual network on Fashion-MNIST.

Command:  python -m kregs.tuning.fashion_mnist_resnet
Time:     17 min on 2 CPU cores
Result:   results/fashion_mnist_resnet.json

All 60,000 pictures, of which 10,200 validate. 2.6 million multiply-adds a picture are about 6 s an
epoch of one network in a population, on 2 CPU cores: 6 trials of 10 epochs in each search, and 10
networks at the end.
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 6,
    "epochs": 10,
    "batch_size": 128,
    "validation_split": 0.17,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("fashion_mnist_resnet")
