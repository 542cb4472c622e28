"""The search for λ, spatial dropout and dropout of the convolutional network on Fashion-MNIST.

Command:  python -m kregs.tuning.fashion_mnist_convnet
Time:     10 min on 2 CPU cores
Result:   results/fashion_mnist_convnet.json

All 60,000 pictures, of which 10,200 validate. 2 million multiply-adds a picture are
most of the time: 6 trials of 6 epochs in each search, and 10 networks at the end.
"""

from __future__ import annotations

PROTOCOL = {
    "oracle": "random",
    "max_trials": 6,
    "epochs": 6,
    "batch_size": 128,
    "validation_split": 0.17,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("fashion_mnist_convnet")
