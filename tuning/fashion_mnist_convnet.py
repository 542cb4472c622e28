"""The search for λ, spatial dropout and dropout of the convolutional network on Fashion-MNIST.

Command:  python -m kregs.tuning.fashion_mnist_convnet
Time:     10 min on 2 CPU cores
Result:   results/fashion_mnist_convnet.json
Data:     the first 6,000 of the 60,000 training pictures, so that two CPU cores do it in minutes
"""

from __future__ import annotations

TRAIN_EXAMPLES = 6000
PROTOCOL = {
    "oracle": "random",
    "max_trials": 6,
    "epochs": 8,
    "batch_size": 128,
    "validation_split": 0.2,
    "objective": "val_data_loss",
}

if __name__ == "__main__":
    from kregs import catalog

    catalog.record_study("fashion_mnist_convnet")
