"""The progress bar of a population: means over the members as they are now."""

from __future__ import annotations

import types

import keras

from kregs.population.verbose import FitProgress


class OlderProgbar(keras.utils.Progbar):
    """That of Keras 3.14, which knows no `stateless_metrics`."""

    def __init__(self, target, width=20, verbose=1, interval=0.05, unit_name="step"):
        super().__init__(target, width, verbose, interval, unit_name=unit_name)


def test_the_bar_shows_means_over_members_and_not_over_time(monkeypatch, capsys):
    monkeypatch.setattr(keras.utils, "Progbar", OlderProgbar)
    progress = FitProgress(1, 4)
    for epoch, losses in ((1, (8.0, 4.0)), (2, (2.0, 1.0))):
        for name, loss in enumerate(losses):
            logs = {"loss": loss}
            progress(types.SimpleNamespace(logs=logs, name=name, epoch=epoch, epochs=2))
    assert progress._bar._values == {"loss": [1.5, 1]}
    progress.end()
    printed = capsys.readouterr().out
    assert "4/4" in printed
    assert "loss: 1.5000" in printed
