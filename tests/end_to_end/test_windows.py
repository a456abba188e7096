"""Reviews that are read in windows: what is trained on, what an answer is, and that every command gives the same."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest

from src.callbacks.progress import PlainProgress
from src.inference.classifier import load, probabilities
from tests.processes import ranks, wait

Run = Callable[..., tuple[int, str, str]]

_WINDOWS = ["--data.truncation=windows", "--data.max_length=10", "--data.batch_size=4", "--data.eval_batch_size=3"]


class Rows(lightning.Callback):
    """Keeps how many rows the network was given at once, in training and in evaluation."""

    training: list[int]
    evaluation: list[int]
    shown: float

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        Rows.shown = next(callback for callback in trainer.callbacks if isinstance(callback, PlainProgress))._rows

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        Rows.training, Rows.evaluation = [], []
        pl_module.model.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, network: Any, args: Any, given: dict[str, Any]) -> None:
        (Rows.training if network.training else Rows.evaluation).append(len(given["input_ids"]))


@pytest.fixture
def windows(tiny_checkpoint: Path, reviews_csv: Path) -> dict[str, list[int]]:
    """How many windows of 10 tokens the rows for training and for validation have."""
    tokenizer = load(tiny_checkpoint).encoder.tokenizer
    texts = pd.read_csv(reviews_csv)["text"]
    order = np.random.default_rng(42).permutation(len(texts))
    rows = {"train": order[:48], "val": order[-48:-24]}
    lengths = {name: [len(tokenizer.tokenize(texts[i])) for i in numbers] for name, numbers in rows.items()}
    return {name: [math.ceil(length / 8) for length in each] for name, each in lengths.items()}


def test_training_takes_windows_and_evaluation_reviews(
    run_cli: Run, tiny_options: list[str], windows: dict[str, list[int]]
) -> None:
    assert max(windows["val"]) > 2
    options = ["--trainer.max_epochs=1", f"--trainer.callbacks+={__name__}.Rows"]
    status, out, err = run_cli("fit", *tiny_options, *_WINDOWS, *options)
    assert status == 0, err
    n = sum(windows["train"])
    assert f"48 for training, 24 for validation, 24 for testing; {n} windows to train on" in out
    assert sum(Rows.training) == n
    assert len(Rows.training) == math.ceil(n / 4)
    assert sum(Rows.evaluation) == sum(windows["val"])
    assert max(Rows.evaluation) == 3, "a long review must not take more memory than a batch of short ones"
    log = pd.read_csv("lightning_logs/version_0/metrics.csv")
    rates = log[["train/reviews_per_s", "train/tokens_per_s"]].dropna()
    tokens_a_review = rates["train/tokens_per_s"] / rates["train/reviews_per_s"]
    assert tokens_a_review.mean() > 10, "reviews are counted, not windows"
    assert Rows.shown == pytest.approx(48)


def test_validation_is_of_the_mean_over_windows_and_so_are_prediction_and_export(
    run_cli: Run, tiny_options: list[str], reviews_csv: Path
) -> None:
    options = ["--trainer.max_epochs=2", "--model.learning_rate=3e-3"]
    assert run_cli("fit", *tiny_options, *_WINDOWS, *options)[0] == 0
    checkpoint = "lightning_logs/version_0/checkpoints/last.ckpt"
    assert run_cli("validate", f"--ckpt_path={checkpoint}")[0] == 0
    judged = json.loads(Path("lightning_logs/version_0/validate.json").read_text())

    frame = pd.read_csv(reviews_csv)
    frame = frame.iloc[np.random.default_rng(42).permutation(len(frame))[-48:-24]]
    labels = (frame["label"] == "pos").to_numpy().astype(int)
    classifier = load(checkpoint)
    logits = [
        np.mean([classifier.network(np.array([window]), np.ones((1, len(window)), int))[0] for window in text], axis=0)
        for text in classifier.encoder.encode(frame["text"].tolist())
    ]
    expected = probabilities(np.stack(logits), classifier.task)
    finished: list[int] = []
    classifier.logits_of_tokens(classifier.encoder.encode(frame["text"].tolist()), 3, finished.append)
    assert sum(finished) == 24
    assert finished[0] < 3, "a text is finished when its last window is"
    assert judged["n"] == 24
    assert judged["accuracy"] == pytest.approx((expected.argmax(axis=1) == labels).mean())
    assert judged["loss"] == pytest.approx(-np.log(expected[np.arange(24), labels]).mean(), abs=1e-5)

    frame.to_csv("in.csv", index=False)
    assert run_cli("export", f"--ckpt_path={checkpoint}", "--output=folder", "--onnx")[0] == 0
    for model in (checkpoint, "folder", "folder/model.onnx"):
        assert run_cli("predict", f"--ckpt_path={model}", "--input=in.csv", "--output=out.csv")[0] == 0
        found = pd.read_csv("out.csv")[["probability_neg", "probability_pos"]].to_numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        Path("out.csv").unlink()


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [24, 1])  # of one row, the second rank has none
def test_two_ranks_judge_as_one(n_rows: int, tiny_options: list[str], tmp_path: Path, run_cli: Run) -> None:
    options = [*tiny_options, *_WINDOWS, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    options += [f"--data.val_size={n_rows}"]
    assert run_cli("fit", *options)[0] == 0
    run = tmp_path / "lightning_logs" / "version_0"
    judged = []
    for n in (1, 2):
        processes = ranks(
            ["validate", f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}", f"--trainer.devices={n}"]
            + (["--trainer.strategy=ddp"] if n > 1 else []),
            n,
            tmp_path,
        )
        assert [wait(process) for process in processes] == [0] * n
        judged.append(json.loads((run / "validate.json").read_text()))
        del judged[-1]["digest"]  # of the figures, which differ by rounding
    assert judged[0]["n"] == n_rows
    assert judged[0].pop("by_class") == judged[1].pop("by_class")  # from counts
    for name, value in judged[0].items():
        assert judged[1][name] == pytest.approx(value, abs=1e-6, nan_ok=True), name
