"""best.ckpt stays the best of its run: beside other ModelCheckpoints, and after the run was moved."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Run = Callable[..., tuple[int, str, str]]
_RUN = Path("lightning_logs", "version_0")
_BEST = Path("checkpoints", "best.ckpt")
_BESIDE = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"


def _fit(run_cli: Run, *options: str) -> str:
    status, out, err = run_cli("fit", *options)
    assert status == 0, err
    return out


def test_a_run_that_was_moved_keeps_its_best(run_cli: Run, tiny_options: list[str]) -> None:
    _fit(run_cli, *tiny_options, "--trainer.max_epochs=1", "--trainer.default_root_dir=before")
    shutil.move("before", "after")
    run = Path("after") / _RUN
    best = (run / _BEST).read_bytes()
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (state,) = [state for name, state in last["callbacks"].items() if name.startswith("BestCheckpoint")]
    state["best_model_score"] = torch.tensor(2.0)  # which no accuracy beats
    torch.save(last, run / "checkpoints" / "last.ckpt")
    out = _fit(run_cli, *tiny_options, "--trainer.max_epochs=2", "--trainer.default_root_dir=after", "--ckpt_path=last")
    assert "Best validation accuracy: 2.0000" in out
    assert f"Best checkpoint: {run / _BEST}" in out
    assert (run / _BEST).read_bytes() == best


@pytest.mark.parametrize("monitor", ["val/accuracy", "val/f1"])
def test_another_model_checkpoint_keeps_its_own_files_beside_it(
    run_cli: Run, tiny_options: list[str], monitor: str
) -> None:
    every = ["--trainer.callbacks.save_top_k=-1", f"--trainer.callbacks.monitor={monitor}"]
    out = _fit(run_cli, *tiny_options, "--trainer.max_epochs=2", _BESIDE, *every, "--trainer.callbacks.mode=max")
    names = sorted(path.name for path in (_RUN / "checkpoints").iterdir())
    assert names == ["best.ckpt", "epoch=0-step=6.ckpt", "epoch=1-step=12.ckpt", "last.ckpt"]
    assert f"--ckpt_path {_RUN / _BEST}" in out


def test_another_model_checkpoint_may_take_its_place(run_cli: Run, tiny_options: list[str]) -> None:
    own = ["--trainer.callbacks.filename=best", "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=min"]
    out = _fit(run_cli, *tiny_options, "--trainer.max_epochs=1", _BESIDE, *own)
    assert sorted(path.name for path in (_RUN / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert "Best val/loss: 0." in out
    status, out, err = run_cli("test", "--ckpt_path=best")
    assert status == 0, err
    assert f"Checkpoint: {_RUN / _BEST}" in out
