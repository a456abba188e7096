"""What works of the Trainer's own options and callbacks, through the real command."""

import os
import re
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from tests.processes import run

Run = Callable[..., tuple[int, str, str]]

_CALLBACK = "--trainer.callbacks+=lightning.pytorch.callbacks."
_LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")
_ONLOOKERS = [
    "--trainer.reload_dataloaders_every_n_epochs=1",
    "--trainer.num_sanity_val_steps=2",
    "--trainer.detect_anomaly=true",
    "--trainer.deterministic=true",
    "--trainer.benchmark=true",
    "--trainer.inference_mode=false",
    "--trainer.sync_batchnorm=true",
    "--trainer.use_distributed_sampler=true",
    "--trainer.enable_model_summary=true",
    "--trainer.max_time=00:01:00:00",
    "--trainer.devices=auto",
    f"{_CALLBACK}LearningRateMonitor",
    f"{_CALLBACK}LambdaCallback",
    f"{_CALLBACK}EarlyStopping",
    "--trainer.callbacks.monitor=val/loss",
    "--trainer.callbacks.patience=9",
    f"{_CALLBACK}Timer",
    "--trainer.callbacks.duration=00:00:10:00",
]


def _weights(path: Path = _LAST) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return weights


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_only_watches_a_run_does_not_change_it(run_cli: Run, tiny_options: list[str]) -> None:
    for options in (_ONLOOKERS, []):
        status, _, err = run_cli("fit", *tiny_options, "--trainer.max_epochs=2", *options)
        assert status == 0, err
    assert _equal(_weights(), _weights(Path("lightning_logs/version_1/checkpoints/last.ckpt")))
    status, _, err = run_cli("fit", "--ckpt_path", str(_LAST), "--trainer.max_epochs=3")
    assert status == 0, err
    assert run_cli("test", "--ckpt_path", str(_LAST))[0] == 0


def test_averaged_weights_are_saved_and_a_killed_run_resumes_exactly(
    run_cli: Run, tiny_options: list[str], tmp_path: Path
) -> None:
    options = [*tiny_options, "--trainer.max_epochs=2", f"{_CALLBACK}EMAWeightAveraging"]
    status, _, err = run_cli("fit", *options, f"--trainer.default_root_dir={tmp_path / 'whole'}")
    assert (status, err) == (0, "")
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_end"]
    saves = ["--trainer.callbacks+=src.callbacks.last_checkpoint.LastCheckpoint"]
    saves += ["--trainer.callbacks.every_n_train_steps=4"]
    assert run(["fit", *options, *kill, "--trainer.callbacks.count=11", *saves], tmp_path / "log")[0] < 0
    stopped = torch.load(_LAST, weights_only=True)
    assert stopped["global_step"] == 8
    assert not _equal(stopped["state_dict"], stopped["current_model_state"])
    config = yaml.safe_load((_LAST.parents[1] / "config.yaml").read_text())
    config["trainer"]["callbacks"] = [c for c in config["trainer"]["callbacks"] if "KillAt" not in c["class_path"]]
    Path("go-on.yaml").write_text(yaml.safe_dump(config))
    status, _, err = run_cli("fit", "--config", "go-on.yaml", "--ckpt_path", "last")
    assert (status, err) == (0, "")
    assert _equal(_weights(), _weights(tmp_path / "whole" / _LAST))


def test_without_checkpoints_nothing_is_saved_and_that_is_said(run_cli: Run, tiny_options: list[str]) -> None:
    status, out, err = run_cli("fit", *tiny_options, "--trainer.enable_checkpointing=false", "--trainer.max_epochs=1")
    assert (status, err) == (0, "")
    assert "No checkpoint was saved" in out
    assert "epoch 1: val/loss" in out
    assert "--ckpt_path" not in out
    assert not list(Path().rglob("*.ckpt"))
    status, _, err = run_cli("fit", "--ckpt_path", "last")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "saves none" in err


def test_a_run_without_checkpoints_ends_at_a_signal_and_says_so(tiny_options: list[str], tmp_path: Path) -> None:
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_end"]
    kill += ["--trainer.callbacks.count=2", "--trainer.callbacks.signum=15"]
    options = [*tiny_options, "--trainer.enable_checkpointing=false", *kill]
    status, output = run(["fit", *options], tmp_path / "log")
    assert status == 143, output
    assert "after step 2; nothing is saved, since trainer.enable_checkpointing is false" in output


def test_a_checkpoint_with_a_metric_in_its_name_belongs_to_its_run(run_cli: Run, tiny_options: list[str]) -> None:
    keep = [f"{_CALLBACK}ModelCheckpoint", "--trainer.callbacks.monitor=val/loss"]
    name = "--trainer.callbacks.filename={epoch}-{val/loss:.2f}"
    status, _, err = run_cli("fit", *tiny_options, *keep, name, "--trainer.max_epochs=1")
    assert status == 0, err
    (path,) = Path().rglob("loss=*.ckpt")
    status, _, err = run_cli("test", "--ckpt_path", str(path))
    assert status == 0, err
    assert [str(file) for file in Path().rglob("test.json")] == ["lightning_logs/version_0/test.json"]


def test_a_best_checkpoint_that_monitors_nothing_is_still_named(run_cli: Run, tiny_options: list[str]) -> None:
    best = [f"{_CALLBACK}ModelCheckpoint", "--trainer.callbacks.filename=best"]
    status, out, err = run_cli("fit", *tiny_options, *best, "--trainer.max_epochs=1")
    assert status == 0, err
    assert "Best checkpoint: lightning_logs/version_0/checkpoints/best.ckpt" in out


def test_a_config_from_a_pipe_is_read_once_and_kept(run_cli: Run, tiny_options: list[str]) -> None:
    reading, writing = os.pipe()
    text = b"seed_everything: 7\ntrainer:\n  max_epochs: 1\n"
    writer = threading.Thread(target=lambda: (os.write(writing, text), os.close(writing)))
    writer.start()
    status, out, err = run_cli("fit", *tiny_options, "--config", f"/dev/fd/{reading}", "--data.max_length=47")
    writer.join()
    os.close(reading)
    assert (status, err) == (0, "")
    assert "Tokenising for training: 48 rows" in out, "no progress bar says so"
    config = yaml.safe_load(Path("lightning_logs/version_0/config.yaml").read_text())
    assert (config["seed_everything"], config["trainer"]["max_epochs"]) == (7, 1)
    assert run_cli("test", "--ckpt_path", "best")[0] == 0


def test_printed_commands_find_a_run_below_another_root(
    run_cli: Run, tiny_options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    root = "--trainer.default_root_dir=~/my runs"
    status, out, err = run_cli("fit", *tiny_options, root, "--trainer.max_epochs=1")
    assert status == 0, err
    assert (tmp_path / "a home" / "my runs" / _LAST).is_file()
    (command,) = re.findall("Test it: +python -m src (.*)", out)
    status, _, err = run_cli(*shlex.split(command))
    assert (status, err) == (0, "")


def test_the_bar_counts_as_the_lines_do(run_cli: Run, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    status, out, err = run_cli("fit", *tiny_options, "--trainer.max_epochs=2")
    assert status == 0, err
    out = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out)
    assert re.search(r"Epoch 1/2 .* 6/6 .* [\d.]+ reviews/s", out)
    assert re.search(r"Epoch 2/2 .* 6/6 .* [\d.]+ reviews/s", out)
    assert not re.search(r"Epoch 0|v_num|it/s", out)
