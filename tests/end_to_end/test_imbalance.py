"""Rare classes: weights in the training loss alone, and the figure that selects the best checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch.nn import functional

from src.data.splits import choose_rows
from src.inference.classifier import load
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]

_STILL = ["--model.learning_rate=1e-30", "--model.hidden_dropout=0", "--model.attention_dropout=0"]


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 reviews, of which 32 are pos."""
    frame = synthetic_reviews(256)
    path = tmp_path_factory.mktemp("rare") / "rare.csv"
    pd.concat([frame[frame.label == "neg"], frame[frame.label == "pos"][:32]]).to_csv(path, index=False)
    return path


def _weights(checkpoint: str) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize(
    ("option", "truncation"),
    [("balanced", "head"), ("balanced", "windows"), ("{neg: 0.5, pos: 4}", "head")],
    ids=["balanced", "balanced windows", "by name"],
)
def test_the_training_loss_alone_is_weighted(
    option: str, truncation: str, run_cli: Run, tiny_options: list[str], rare: Path
) -> None:
    """With a learning rate near 0, the loss of an epoch is the mean of the weighted rows of one network."""
    data = [f"--data.dataset={rare}", "--data.train_size=null", "--data.batch_size=7", "--data.max_length=32"]
    data += ["--data.val_size=40", "--data.test_size=0", f"--data.truncation={truncation}"]
    weighting = f"--model.class_weights={option}"
    status, _, err = run_cli("fit", *tiny_options, *data, *_STILL, weighting, "--trainer.max_epochs=1")
    assert status == 0, err
    log = pd.read_csv("lightning_logs/version_0/metrics.csv")
    classifier = load("lightning_logs/version_0/checkpoints/best.ckpt")
    frame = pd.read_csv(rare)

    def loss_of(rows: pd.DataFrame, weights: torch.Tensor | None, by_window: bool) -> float:
        windows = classifier.encoder.encode(rows["text"].tolist())
        labels = torch.tensor([int(label == "pos") for label in rows["label"]])
        if by_window:
            labels = labels.repeat_interleave(torch.tensor([len(each) for each in windows]))
            windows = [[window] for each in windows for window in each]
        if weights is None and option == "balanced" and by_window:
            weights = len(labels) / (2 * torch.bincount(labels))
        logits = torch.from_numpy(classifier.logits_of_tokens(windows))
        return float(functional.cross_entropy(logits, labels, weight=weights, reduction="sum")) / len(labels)

    chosen = choose_rows({"train": len(frame)}, None, 40, 0, 42)
    by_name = None if option == "balanced" else torch.tensor([0.5, 4.0])
    train, val = (frame.iloc[chosen[name].indices] for name in ("train", "val"))
    assert log["train/loss_epoch"].dropna().item() == pytest.approx(loss_of(train, by_name, True), abs=1e-5)
    assert log["val/loss"].dropna().item() == pytest.approx(loss_of(val, None, False), abs=1e-5)


def test_accumulated_batches_give_the_weighted_gradients_of_one(
    run_cli: Run, tiny_options: list[str], rare: Path
) -> None:
    """Though the share of the rare class differs from batch to batch."""
    still = ["--model.hidden_dropout=0", "--model.attention_dropout=0", "--trainer.max_epochs=1"]
    data = [f"--data.dataset={rare}", "--data.train_size=64", "--model.class_weights=balanced"]
    found = []
    for size, accumulated in ((16, 1), (4, 4)):
        shape = [f"--data.batch_size={size}", f"--trainer.accumulate_grad_batches={accumulated}"]
        status, _, err = run_cli("fit", *tiny_options, *data, *still, *shape)
        assert status == 0, err
        found.append(_weights(f"lightning_logs/version_{len(found)}/checkpoints/last.ckpt"))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, atol=1e-5, rtol=0)


def test_the_best_checkpoint_is_chosen_by_the_monitored_figure(
    run_cli: Run, tiny_options: list[str], rare: Path
) -> None:
    options = [*tiny_options, f"--data.dataset={rare}", "--model.learning_rate=2e-3", "--trainer.max_epochs=3"]
    status, out, err = run_cli("fit", *options, "--model.monitor=val/balanced_accuracy")
    assert status == 0, err
    run = Path("lightning_logs/version_0")
    scores = pd.read_csv(run / "metrics.csv")["val/balanced_accuracy"].dropna()
    assert f"Best val/balanced_accuracy: {scores.max():.4f}" in out
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["monitor"] == "val/balanced_accuracy"
    assert run_cli("validate", "--ckpt_path=best")[0] == 0
    figures = json.loads((run / "validate.json").read_text())
    assert figures["balanced_accuracy"] == pytest.approx(scores.max(), abs=1e-6)
    assert figures["by_class"].keys() == {"neg", "pos"}
    assert sum(each["support"] for each in figures["by_class"].values()) == figures["n"]

    for changed, words in (
        ("monitor=val/f1", "began with model.monitor=val/balanced"),
        ("class_weights=balanced", "None"),
    ):
        command = ["fit", "--ckpt_path=last", f"--model.{changed}", "--trainer.max_epochs=4"]
        status, _, err = run_cli(*command)
        assert (status, len(err.splitlines())) == (1, 1), err
        assert words in err
