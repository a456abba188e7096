"""Several ranks compute what one does: in evaluation exactly, in training to rounding; and end together."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.end_to_end import evaluation_ranks
from tests.processes import call, free_port, ranks, run, start, wait

pytestmark = pytest.mark.slow

_REPOSITORY = Path(__file__).parents[2]
_NO_DROPOUT = ["--model.hidden_dropout=0", "--model.attention_dropout=0", "--trainer.gradient_clip_val=null"]
_STRATEGY = [
    f"--config={_REPOSITORY / 'configs' / 'trainer' / 'ddp.yaml'}",
    "--trainer.strategy.process_group_backend=gloo",
    "--trainer.strategy.timeout=0:00:30",
]


def _fit(options: list[str], world_size: int, folder: Path, status: int = 0) -> dict[str, Any]:
    """Trains with so many ranks, one thread each; the last checkpoint."""
    folder.mkdir()
    options = [*options, f"--trainer.default_root_dir={folder}", f"--trainer.devices={world_size}"]
    if world_size == 1:
        ended, output = run(["fit", *options], folder / "log")
        assert ended == status, output
    else:
        processes = ranks(["fit", *_STRATEGY, *options], world_size, folder)
        outputs = [(wait(process), folder / f"rank{rank}.log") for rank, process in enumerate(processes)]
        assert all(ended == status for ended, _ in outputs), "\n".join(log.read_text() for _, log in outputs)
    checkpoint: dict[str, Any] = torch.load(
        folder / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt", weights_only=True
    )
    return checkpoint


def _largest_difference(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[key] - theirs[key]).abs().max()) for key in ours)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_every_row_is_counted_once_for_every_number_of_rows(world_size: int, tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "results.pt"
    processes = [call(evaluation_ranks.main, rank, world_size, port, str(output)) for rank in range(world_size)]
    assert [wait(process) for process in processes] == [0] * world_size
    for n, found in enumerate(torch.load(output, weights_only=True), start=1):
        expected = evaluation_ranks.evaluate(n, rank=0, world_size=1)
        assert torch.equal(found.pop("confusion_matrix"), expected.pop("confusion_matrix")), n
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0, equal_nan=True, msg=f"{name}, {n} rows")


@pytest.mark.parametrize(("grouped", "rows", "accumulated"), [("true", 48, 1), ("false", 5, 2)])
def test_first_step_has_the_gradients_of_one_process(
    grouped: str, rows: int, accumulated: int, tiny_options: list[str], tmp_path: Path
) -> None:
    options = [*tiny_options, *_NO_DROPOUT, "--trainer.max_steps=1", f"--data.group_by_length={grouped}"]
    options += [f"--data.train_size={rows}"]  # of 5 rows, the second batch of the second rank has none
    one = _fit([*options, "--data.batch_size=8"], 1, tmp_path / "one")
    parts = [f"--data.batch_size={4 // accumulated}", f"--trainer.accumulate_grad_batches={accumulated}"]
    two = _fit([*options, *parts], 2, tmp_path / "two")
    # after one step, AdamW's first moment is a tenth of the gradient
    gradients = [
        {str(key): state["exp_avg"] * 10 for key, state in run["optimizer_states"][0]["state"].items()}
        for run in (one, two)
    ]
    assert max(float(gradient.abs().max()) for gradient in gradients[0].values()) > 1e-3
    assert _largest_difference(*gradients) < 1e-6


@pytest.mark.parametrize(
    ("probe", "accumulated", "more"), [("false", 2, []), ("true", 1, ["--model.lora={rank: 2, alpha: 4}"])]
)
def test_twenty_steps_end_with_the_weights_of_one_process(
    probe: str, accumulated: int, more: list[str], tiny_options: list[str], tmp_path: Path
) -> None:
    # 33 rows, 8 a step: the fifth step of each epoch has one row, and the second rank none
    options = [*tiny_options, *_NO_DROPOUT, "--data.train_size=33", "--trainer.max_epochs=4", "--data.val_size=7"]
    options += [f"--model.linear_probe={probe}", *more]  # a head that each rank finds for itself
    one = _fit([*options, "--data.batch_size=8"], 1, tmp_path / "one")
    parts = [f"--data.batch_size={4 // accumulated}", f"--trainer.accumulate_grad_batches={accumulated}"]
    two = _fit([*options, *parts], 2, tmp_path / "two")
    assert one["global_step"] == two["global_step"] == 20
    assert _largest_difference(one["state_dict"], two["state_dict"]) < 1e-4
    status, output = run(
        ["test", "--ckpt_path", "last", f"--trainer.default_root_dir={tmp_path / 'one'}"], tmp_path / "log"
    )
    assert status == 0, output
    assert ", n=24)" in output


def test_each_rank_has_its_own_dropout(tiny_options: list[str], tmp_path: Path) -> None:
    options = [
        *tiny_options,
        "--trainer.callbacks=tests.end_to_end.dropout_probe.DropoutProbe",
        "--trainer.max_steps=1",
    ]
    _fit(options, 2, tmp_path / "two")
    masks = [torch.load(tmp_path / "two" / f"mask{rank}.pt", weights_only=True) for rank in range(2)]
    assert not torch.equal(*masks)


def test_resumes_to_the_same_bits_with_two_ranks(tiny_options: list[str], tmp_path: Path) -> None:
    options = [*tiny_options, "--trainer.max_epochs=2", "--data.batch_size=4"]
    whole = _fit(options, 2, tmp_path / "whole")
    kill = ["--trainer.callbacks=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_start"]
    # SIGTERM to the second rank alone: both save and stop
    kill += [
        "--trainer.callbacks.count=3",
        f"--trainer.callbacks.signum={int(signal.SIGTERM)}",
        "--trainer.callbacks.rank=1",
        "--trainer.callbacks+=tests.end_to_end.collectives.SlowSteps",  # the ranks ask each other about once a second
    ]
    stopped = _fit([*options, *kill], 2, tmp_path / "stopped", status=143)
    assert stopped["global_step"] == 3
    config = tmp_path / "empty.yaml"
    config.write_text("{}")
    again = ["--trainer.devices=2", "--ckpt_path=last", f"--trainer.default_root_dir={tmp_path / 'stopped'}"]
    processes = ranks(["fit", f"--config={config}", *_STRATEGY, *options, *again], 2, tmp_path)
    assert [wait(process) for process in processes] == [0, 0], (tmp_path / "rank0.log").read_text()
    resumed = torch.load(tmp_path / "stopped/lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert _largest_difference(whole["state_dict"], resumed["state_dict"]) == 0


def test_ranks_ask_each_other_for_signals_in_few_steps(tiny_options: list[str], tmp_path: Path) -> None:
    probe = "--trainer.callbacks=tests.end_to_end.collectives.Questions"
    options = [*tiny_options, probe, "--data.batch_size=2", "--trainer.max_epochs=5"]
    _fit([*options, "--trainer.num_sanity_val_steps=0"], 2, tmp_path / "two")
    found = [json.loads((tmp_path / "two" / f"questions{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    assert found[0]["steps"] == 60
    assert {12, 24, 36, 48, 60} <= set(found[0]["maxima"])  # after validations
    assert len(found[0]["maxima"]) < 30
    assert found[0]["broadcasts"] == []


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_others_in_one_line(victim: int, tiny_options: list[str], tmp_path: Path) -> None:
    kill = ["--trainer.callbacks=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_start"]
    kill += ["--trainer.callbacks.count=3", f"--trainer.callbacks.rank={victim}"]
    processes = ranks(["fit", *_STRATEGY, *tiny_options, *kill, "--trainer.devices=2"], 2, tmp_path)
    assert wait(processes[victim]) == -signal.SIGKILL
    started = time.monotonic()
    assert wait(processes[1 - victim], timeout=60) == 1
    assert time.monotonic() - started < 40  # the strategy's timeout is 30 s
    last_line = (tmp_path / f"rank{1 - victim}.log").read_text().strip().splitlines()[-1]
    assert last_line.startswith("error: another process of this run has died or hangs")


def test_two_machines_with_torchrun(tiny_options: list[str], tmp_path: Path) -> None:
    port = free_port()
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(_REPOSITORY)}
    agents = []
    for node in range(2):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nnodes=2",
            "--nproc_per_node=1",
            f"--node_rank={node}",
        ]
        command += ["--master_addr=127.0.0.1", f"--master_port={port}", "-m", "src", "fit"]
        command += [f"--config={_REPOSITORY / 'configs' / 'trainer' / 'multinode.yaml'}", *tiny_options]
        command += ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.max_epochs=1"]
        with (tmp_path / f"node{node}.log").open("w") as log:
            agents.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    try:
        statuses = [agent.wait(timeout=400) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
    assert statuses == [0, 0], (tmp_path / "node0.log").read_text()
    status, output = run(["validate", "--ckpt_path", "last", "--trainer.num_nodes=1"], tmp_path / "log")
    assert status == 0, output
    assert json.loads((tmp_path / "lightning_logs/version_0/validate.json").read_text())["n"] == 24
    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == ["version_0"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_waiting_for_a_node_that_does_not_come_can_be_ended(
    tiny_options: list[str], tmp_path: Path, signum: signal.Signals
) -> None:
    port = free_port()
    env = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    options = [*_STRATEGY[:-1], "--trainer.num_nodes=2", "--trainer.devices=1"]
    waiting = start(["fit", *options, *tiny_options], tmp_path / "log", env)
    deadline = time.monotonic() + 60
    while True:  # until the store listens, for which the first rank waits for the second
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert waiting.is_alive(), (tmp_path / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    assert waiting.pid is not None
    os.kill(waiting.pid, signum)
    assert wait(waiting, 10) == -signum
