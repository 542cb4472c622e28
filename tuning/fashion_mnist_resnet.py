"""The search for λ, stochastic depth and dropout of the residual network on Fashion-MNIST.

Command:  python -m kregs.tuning.fashion_mnist_resnet
Time:     41 min on 2 CPU cores
Result:   results/fashion_mnist_resnet.json

All 60,000 pictures, of which 10,200 validate: 4 trials of 5 epochs in each search, and 10
networks at the end.
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 4,
    "epochs": 5,
    "batch_size": 128,
    "validation_split": 0.17,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("fashion_mnist_resnet")
