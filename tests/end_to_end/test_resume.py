"""A run that was killed and resumed ends with the bits of one that never was."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Tokenizer

from src.callbacks.metrics_csv import RunCSVLogger
from tests.processes import run

# 44 rows: 6 batches an epoch, the last of 4; dropout is on, as in the tiny model's config
_CONFIG = """
data: {class_path: ImdbDataModule, init_args: {train_size: 44}}
model: {class_path: BertClassifier, init_args: {learning_rate: 1e-3}}
trainer:
  max_epochs: 3
  log_every_n_steps: 1
  callbacks:
  - class_path: src.callbacks.last_checkpoint.LastCheckpoint
    init_args: {every_n_train_steps: 2}
"""
_TIMES = ["train/reviews_per_s", "train/tokens_per_s"]


def _outcome(run: Path) -> dict[str, Any]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    log = pd.read_csv(run / "metrics.csv")
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag not in _TIMES
    }
    for tag, rows in scalars.items():
        # Lightning adds the epoch to the row of validation too
        assert tag == "epoch" or len({step for step, _ in rows}) == len(rows), f"{tag}: a step is shown twice"
    return {
        "weights": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer_states"],
        "schedule": checkpoint["lr_schedulers"],
        "steps": checkpoint["global_step"],
        "best": best["state_dict"],
        "best step": best["global_step"],
        "log": log.drop(columns=_TIMES).reindex(sorted(log.columns.difference(_TIMES)), axis=1),
        "scalars": scalars,
    }


def _assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            _assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), f"{where}: {ours} {theirs}"
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _assert_same(a, b, f"{where}[{i}]")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    else:
        assert ours == theirs, where


@pytest.fixture(
    scope="module", params=["plain", "grouped, accumulated, 2 workers, probed", "validated within an epoch"]
)
def variant(
    request: pytest.FixtureRequest, tiny_options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    config = tmp_path_factory.mktemp("config") / "tiny.yaml"
    config.write_text(_CONFIG)
    options = [f"--config={config}", *(option for option in tiny_options if "train_size" not in option)]
    if request.param == "validated within an epoch":
        options += ["--trainer.val_check_interval=3"]
    elif request.param != "plain":
        options += ["--data.group_by_length=true", "--data.batch_size=2", "--trainer.accumulate_grad_batches=4"]
        options += ["--data.num_workers=2", "--model.linear_probe=true"]
    return options


@pytest.fixture(scope="module")
def uninterrupted(variant: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("uninterrupted")
    status, output = run(["fit", *variant, f"--trainer.default_root_dir={root}"], root / "log")
    assert status == 0, output
    return _outcome(root / "lightning_logs" / "version_0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "count"),
    [
        ("on_train_batch_start", 10),  # between two checkpoints, or within an accumulation
        ("on_before_optimizer_step", 6),  # at the last step of an epoch
        ("on_validation_start", 1),  # after the last step, before validation
        ("on_validation_batch_end", 5),  # in the second epoch's validation
        ("on_train_epoch_end", 1),  # after validation and its checkpoint
        ("on_train_epoch_start", 2),
        ("on_train_end", 1),
        ("save", 2),  # while a checkpoint is written
        ("save", 4),
    ],
)
def test_killed_and_resumed_is_bit_identical(
    hook: str, count: int, variant: list[str], uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", f"--trainer.callbacks.hook={hook}"]
    status, output = run(["fit", *variant, *kill, f"--trainer.callbacks.count={count}"], tmp_path / "killed")
    assert status == -signal.SIGKILL, output
    status, output = run(["fit", *variant, "--ckpt_path=last"], tmp_path / "resumed")
    assert status == 0, output
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]
    _assert_same(_outcome(tmp_path / "lightning_logs" / "version_0"), uninterrupted)
    assert not list((tmp_path / "lightning_logs" / "version_0" / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "hook", "count"),
    [
        (signal.SIGTERM, "on_train_batch_start", 10),
        (signal.SIGINT, "on_before_optimizer_step", 4),
        (signal.SIGTERM, "on_validation_batch_end", 2),
        (signal.SIGINT, "on_train_batch_end", 6),
    ],
)
def test_signalled_and_resumed_is_bit_identical(
    signum: signal.Signals, hook: str, count: int, variant: list[str], uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", f"--trainer.callbacks.hook={hook}"]
    kill += [f"--trainer.callbacks.count={count}", f"--trainer.callbacks.signum={int(signum)}"]
    status, output = run(["fit", *variant, *kill], tmp_path / "stopped")
    assert status == 128 + signum, output
    assert f"stopped by {signum.name} after step" in output
    status, output = run(["fit", *variant, "--ckpt_path=last"], tmp_path / "resumed")
    assert status == 0, output
    _assert_same(_outcome(tmp_path / "lightning_logs" / "version_0"), uninterrupted)
    status, output = run(["fit", *variant, "--ckpt_path=last"], tmp_path / "again")
    assert status == 0
    assert "finished" in output


@pytest.mark.slow
def test_no_checkpoint_is_made_within_an_accumulation(tiny_options: list[str], tmp_path: Path) -> None:
    """Validation comes after three batches of a step's two: what it would save has half a step's gradients missing."""
    options = ["fit", *tiny_options, "--data.train_size=44", "--trainer.max_epochs=2", "--trainer.log_every_n_steps=1"]
    options += ["--trainer.val_check_interval=3", "--trainer.accumulate_grad_batches=2"]
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_start"]
    outcomes = []
    for name, first in (("whole", []), ("killed", [*kill, "--trainer.callbacks.count=11"])):
        root = f"--trainer.default_root_dir={tmp_path / name}"
        status, output = run([*options, root, *first], tmp_path / "log")
        assert status == (-signal.SIGKILL if first else 0), output
        if first:
            status, output = run([*options, root, "--ckpt_path=last"], tmp_path / "log")
            assert status == 0, output
        outcomes.append(_outcome(tmp_path / name / "lightning_logs" / "version_0"))
    _assert_same(*outcomes)


@pytest.fixture
def stopped(tiny_options: list[str], run_cli: Callable[..., tuple[int, str, str]]) -> list[str]:
    """The options of a run that was stopped in mid-epoch; it lies in this folder."""
    kill = ["--trainer.callbacks=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_start"]
    kill += ["--trainer.callbacks.count=3", f"--trainer.callbacks.signum={int(signal.SIGTERM)}"]
    status, _, err = run_cli("fit", *tiny_options, *kill)
    assert status == 143, err
    Path("empty.yaml").write_text("{}")  # a config of its own: else the run's is taken, with what stopped it
    return ["fit", "--config=empty.yaml", *tiny_options, "--ckpt_path=last"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--data.train_size=40", "trained on other data: data.train_size was 48 and is 40"),
        ("--data.max_length=32", "trained on other data: data.max_length was 64 and is 32"),
        ("--data.batch_size=4", "stopped within an epoch"),
        ("--trainer.accumulate_grad_batches=2", "accumulate_grad_batches was 1 and is 2"),
        ("--data.group_by_length=true", "group_by_length was False and is True"),
        ("--model.pooling=mean", "began with model.pooling=cls"),
        ("--model.linear_probe=true", "began with model.linear_probe=False"),
        ("--model.learning_rate=1e-3", "optimizer of its own: model.learning_rate was 5e-05 and is 0.001"),
    ],
)
def test_a_change_that_cannot_be_resumed_is_named(
    option: str, words: str, stopped: list[str], run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in Path("lightning_logs").rglob("*") if path.is_file()}

    before = content()
    status, _, err = run_cli(*stopped, option)
    assert status == 1
    assert words in err.strip().splitlines()[-1]
    assert content() == before, "what is refused leaves no trace"


def test_resumed_where_the_prepared_data_are_gone(
    tiny_bert: Path,
    tiny_options: list[str],
    run_cli: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on another machine: they are made again, with the checkpoint's tokenizer, and are the same.

    The quickstart's tokenizer says how it cuts and pads, until it is used.
    """
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(model / "tokenizer.json"))
    options = [*tiny_options, f"--model.model_name_or_path={model}"]
    assert run_cli("fit", *options, "--trainer.max_epochs=1")[0] == 0
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "empty"))
    status, out, err = run_cli("fit", *options, "--trainer.max_epochs=2", "--ckpt_path=last")
    assert status == 0, err
    assert "Prepared reviews" in out


def test_rows_of_the_log_survive_a_kill_while_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"save_dir": tmp_path, "name": "", "version": "run"}
    logger = RunCSVLogger(**place)
    for step in range(4):
        logger.log_metrics({"loss": step / 2}, step)
    logger.save()
    path = tmp_path / "run" / "metrics.csv"
    whole = path.read_text()
    path.write_text(whole + "9.5,")  # as a kill leaves a row
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            _ = RunCSVLogger(**place, resume_step=2).experiment
    assert path.read_text() == whole + "9.5,"
    resumed = RunCSVLogger(**place, resume_step=2)
    resumed.log_metrics({"loss": 7.0, "accuracy": 0.5}, 2)
    resumed.save()
    table = pd.read_csv(path)
    assert table["step"].tolist() == [0, 1, 2]
    assert table["loss"].tolist() == [0.0, 0.5, 7.0]
    assert table["accuracy"].dropna().tolist() == [0.5]


def test_after_an_epochs_end_the_batch_size_may_change(
    tiny_options: list[str], run_cli: Callable[..., tuple[int, str, str]]
) -> None:
    assert run_cli("fit", *tiny_options, "--trainer.max_epochs=1")[0] == 0
    again = ["--trainer.max_epochs=2", "--data.batch_size=4", "--ckpt_path=last"]
    status, _, err = run_cli("fit", *tiny_options, *again)
    assert status == 0, err
    checkpoint = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6 + 12
