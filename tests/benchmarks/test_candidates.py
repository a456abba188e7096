"""The ideas that recipes are compared with: each does what its paper says."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from benchmarks.candidates import RandomWindows, ReinitialiseTopLayers, SmoothedClassifier
from src.data.labels import IGNORED_LABEL

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("layers", [1, 2])
def test_top_layers_and_pooler_begin_anew_and_nothing_else(tiny_bert: Path, layers: int) -> None:
    network: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)  # so that no bias is zero, and no norm one, as it would be anew
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    ReinitialiseTopLayers(layers).on_fit_start(None, SimpleNamespace(model=network))  # type: ignore[arg-type]
    top = tuple(f"bert.encoder.layer.{1 - i}." for i in range(layers))
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, before[name]) != name.startswith((*top, "bert.pooler.")), name
    weight = network.bert.encoder.layer[1].intermediate.dense.weight
    assert weight.std().item() == pytest.approx(network.config.initializer_range, rel=0.1)


class Weights(lightning.Callback):
    """Keeps a weight as it was after each step."""

    seen: list[torch.Tensor]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        Weights.seen = []

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: Any) -> None:
        Weights.seen.append(pl_module.model.classifier.weight.detach().clone())


def test_the_average_is_that_of_the_last_steps(run_cli: Run, tiny_options: list[str]) -> None:
    callbacks = [
        f"--trainer.callbacks+={name}" for name in (f"{__name__}.Weights", "benchmarks.candidates.AverageOfLastSteps")
    ]
    # 12 steps, of which the last quarter is averaged
    options = ["--trainer.max_epochs=2", "--model.learning_rate=1e-2", "--model.schedule=constant"]
    status, _, err = run_cli("fit", *tiny_options, *callbacks, *options)
    assert status == 0, err
    assert len(Weights.seen) == 12
    saved = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    torch.testing.assert_close(saved["model.classifier.weight"], torch.stack(Weights.seen[-3:]).mean(dim=0))
    assert not torch.allclose(saved["model.classifier.weight"], Weights.seen[-1], atol=1e-4)


def test_labels_are_smoothed_in_training() -> None:
    logits, labels = (
        torch.randn(4, 2, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 1, 1, IGNORED_LABEL]),
    )
    logs = logits.log_softmax(dim=1)
    wanted = torch.tensor([[0.95, 0.05], [0.05, 0.95], [0.05, 0.95], [0.0, 0.0]])
    losses = SmoothedClassifier().row_losses(logits, labels)
    torch.testing.assert_close(losses, -(wanted * logs).sum(dim=1))


class BothPasses(lightning.Callback):
    """Keeps, of each step, the loss and the answers to each row, as they were with and without its twin."""

    steps: list[tuple[float, torch.Tensor, torch.Tensor]]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        BothPasses.steps = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        BothPasses.steps.append((float(outputs["loss"]), pl_module._logits.detach(), batch["labels"]))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_answers_that_differ_with_dropout_cost(run_cli: Run, tiny_options: list[str], dropout: float) -> None:
    model = "--model=benchmarks.candidates.RDropClassifier"
    options = [f"--trainer.callbacks+={__name__}.BothPasses", f"--model.hidden_dropout={dropout}"]
    status, _, err = run_cli("fit", model, *tiny_options, *options, "--model.attention_dropout=0")
    assert status == 0, err
    for loss, logits, labels in BothPasses.steps:
        one, other = (half.softmax(dim=1) for half in logits.chunk(2))
        plain = torch.nn.functional.cross_entropy(logits, torch.cat([labels, labels]))
        apart = ((one - other) * (one.log() - other.log())).sum(dim=1).mean() / 2  # both directions, averaged
        assert loss == pytest.approx(float(plain + apart), abs=1e-6)
        assert (apart > 5e-6) == (dropout > 0)


class LossByHand(lightning.Callback):
    """Keeps, of each step, the loss and what the windows' logits say that it should be, one review at a time."""

    steps: list[tuple[float, float]]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        LossByHand.steps = []

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            windows = pl_module(batch["input_ids"], batch["attention_mask"])
        means = torch.stack([windows[batch["review"] == i].mean(dim=0) for i in range(len(batch["labels"]))])
        self.wanted = float(torch.nn.functional.cross_entropy(means, batch["labels"]))

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        LossByHand.steps.append((float(outputs["loss"]), self.wanted))


def test_whole_reviews_are_trained_on_the_mean_of_their_windows(run_cli: Run, tiny_options: list[str]) -> None:
    options = ["--data.truncation=windows", "--data.max_length=8", "--model.linear_probe=true"]
    still = ["--model.hidden_dropout=0", "--model.attention_dropout=0", f"--trainer.callbacks+={__name__}.LossByHand"]
    status, _, err = run_cli("fit", "--data=benchmarks.candidates.WholeReviews", *tiny_options, *options, *still)
    assert status == 0, err
    assert len(LossByHand.steps) == 18
    for loss, wanted in LossByHand.steps:
        assert loss == pytest.approx(wanted, abs=1e-6)


def test_random_windows_are_parts_of_their_review_as_long_as_before() -> None:
    cls, sep = 101, 102
    body = list(range(1000, 1020))
    parts = [body[:7], body[7:14], body[14:]]
    ids = [token for part in parts for token in (cls, *part, sep)]
    lengths = [len(part) + 2 for part in parts]
    data = RandomWindows()
    data.splits["train"] = Dataset.from_dict(
        {"input_ids": [ids], "windows": [lengths], "label": [1], "length": [len(ids)], "text": [""], "row": [0]}
    )
    windows: Any = data.dataset("train")
    starts = set()
    for _ in range(100):
        for i, window in enumerate(windows.__getitems__([0, 1, 2])):
            (found,) = window["windows"]
            assert window["label"] == 1
            assert (found[0], found[-1], len(found)) == (cls, sep, lengths[i])
            start = body.index(found[1])
            assert found[1:-1] == body[start : start + lengths[i] - 2]
            starts.add((i, start))
    assert {start for i, start in starts if i == 0} == set(range(14))  # everywhere, not only where they were cut
