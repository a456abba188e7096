"""What configs say of the checkpoint to go on from, of how long to go on, and what a resumed run's own config says."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from src.system.locks import exclusive

Run = Callable[..., tuple[int, str, str]]


def test_a_finished_run_goes_on_where_a_config_says_for_longer(tiny_options: list[str], run_cli: Run) -> None:
    Path("once.yaml").write_text("trainer: {max_epochs: 1}")
    Path("twice.yaml").write_text("trainer: {max_epochs: 2}")
    assert run_cli("fit", "--config=once.yaml", *tiny_options)[0] == 0
    status, out, _ = run_cli("fit", "--config=once.yaml", *tiny_options, "--ckpt_path=last")
    assert status == 0
    assert "this run is finished" in out
    status, out, err = run_cli("fit", "--config=twice.yaml", *tiny_options, "--ckpt_path=last")
    assert status == 0, err
    checkpoint = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 12


def test_the_config_of_a_resumed_run_begins_anew(tiny_options: list[str], run_cli: Run) -> None:
    options = [*tiny_options, "--model.schedule=constant"]
    assert run_cli("fit", *options, "--trainer.max_epochs=1")[0] == 0
    assert run_cli("fit", *options, "--trainer.max_epochs=2", "--ckpt_path=last")[0] == 0
    status, out, err = run_cli("fit", "--config=lightning_logs/version_0/config.yaml")
    assert status == 0, err
    assert "Best checkpoint: lightning_logs/version_1/checkpoints/best.ckpt" in out
    again, before = (torch.load(f"lightning_logs/version_{n}/checkpoints/last.ckpt", weights_only=True) for n in (1, 0))
    assert all(torch.equal(weight, before["state_dict"][name]) for name, weight in again["state_dict"].items())


def test_a_config_may_say_what_to_go_on_from(tiny_options: list[str], run_cli: Run) -> None:
    Path("resume.yaml").write_text("ckpt_path: last")
    assert run_cli("fit", *tiny_options, "--trainer.max_epochs=1")[0] == 0
    status, _, err = run_cli("fit", "--config=resume.yaml", *tiny_options, "--trainer.max_epochs=2")
    assert status == 0, err
    assert torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)["global_step"] == 12
    # what is typed wins
    options = ["--config=resume.yaml", *tiny_options, "--trainer.max_epochs=3", "--ckpt_path=null"]
    assert run_cli("fit", *options)[0] == 0
    assert torch.load("lightning_logs/version_1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 18


def test_a_run_that_is_being_written_is_not_resumed(run_cli: Run, tiny_options: list[str]) -> None:
    assert run_cli("fit", *tiny_options, "--trainer.max_epochs=1")[0] == 0
    run = Path("lightning_logs/version_0")
    assert not (run / ".lock").exists()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with exclusive((run / ".lock").absolute(), "it"):
        status, _, err = run_cli("fit", "--ckpt_path=last", "--trainer.max_epochs=2")
    assert (status, err.count("\n")) == (1, 1)
    assert f"error: the run {run} is being written by process {os.getpid()} on " in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert run_cli("fit", "--ckpt_path=last", "--trainer.max_epochs=2")[0] == 0
