"""A user's own classifier and callback, named by their class paths on the command line."""

from collections.abc import Callable
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.nn import functional

from src.models.classifier import BertClassifier

Run = Callable[..., tuple[int, str, str]]


class SmoothedClassifier(BertClassifier):
    """Label smoothing: a loss of one's own."""

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.logits, self.labels = logits.detach(), labels
        return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1)


class AverageOfLastSteps(WeightAveraging):
    """Evaluates and saves the mean of the weights after each step of the last `share` of a run."""

    def __init__(self, share: float = 0.25) -> None:
        super().__init__(use_buffers=False)
        self.share = share

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= (1 - self.share) * 12


class Recorder(lightning.Callback):
    """Keeps the loss, the labels' smoothed loss and a weight of each step."""

    losses: list[tuple[float, float]]
    weights: list[torch.Tensor]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        Recorder.losses, Recorder.weights = [], []

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        logs = pl_module.logits.log_softmax(dim=1)
        wanted = functional.one_hot(pl_module.labels, 2) * 0.9 + 0.05
        Recorder.losses.append((float(outputs["loss"]), float(-(wanted * logs).sum(dim=1).mean())))
        Recorder.weights.append(pl_module.model.classifier.weight.detach().clone())


def test_own_loss_and_own_callback(run_cli: Run, tiny_options: list[str]) -> None:
    own = [f"--model={__name__}.SmoothedClassifier", *tiny_options]
    own += [f"--trainer.callbacks+={__name__}.{name}" for name in ("Recorder", "AverageOfLastSteps")]
    # 12 steps; the weights of the last quarter are averaged
    options = ["--trainer.max_epochs=2", "--model.learning_rate=1e-2", "--model.schedule=constant"]
    status, _, err = run_cli("fit", *own, *options)
    assert status == 0, err
    assert len(Recorder.losses) == 12
    for loss, wanted in Recorder.losses:
        assert loss == pytest.approx(wanted, abs=1e-6)
    path = "lightning_logs/version_0/checkpoints/last.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]["model.classifier.weight"]
    torch.testing.assert_close(saved, torch.stack(Recorder.weights[-3:]).mean(dim=0))
    assert not torch.allclose(saved, Recorder.weights[-1], atol=1e-4)
