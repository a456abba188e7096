"""Accumulated gradients: several small batches a step train as one large batch does, also in an epoch's last step."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from src.runs.checkpoint_reading import read_checkpoint

Run = Callable[..., tuple[int, str, str]]


def _norms(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as stream:
        return [float(row["train/grad_norm"]) for row in csv.DictReader(stream) if row["train/grad_norm"]]


@pytest.mark.parametrize("rows", [10, 11])
@pytest.mark.parametrize("pretraining", [False, True], ids=["classifier", "pre-training"])
def test_small_batches_train_as_a_large_one(
    run_cli: Run, tiny_options: list[str], tiny_pretraining: list[str], rows: int, pretraining: bool
) -> None:
    options = tiny_pretraining if pretraining else tiny_options
    options = [*options, f"--data.train_size={rows}", "--model.hidden_dropout=0", "--model.attention_dropout=0"]
    options += ["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", "--trainer.gradient_clip_val=null"]
    options += ["--data.group_by_length=false"]  # its order depends on the size of a batch
    assert run_cli("fit", *options, "--data.batch_size=8")[0] == 0
    assert run_cli("fit", *options, "--data.batch_size=2", "--trainer.accumulate_grad_batches=4")[0] == 0
    runs = [Path(f"lightning_logs/version_{i}") for i in range(2)]
    large, small = map(_norms, runs)
    assert len(large) >= 4
    assert small == pytest.approx(large, rel=1e-4)
    weights = [read_checkpoint(run / "checkpoints" / "last.ckpt").content["state_dict"] for run in runs]
    for name, weight in weights[0].items():
        assert weights[1][name].float() == pytest.approx(weight.float(), abs=2e-5), name
