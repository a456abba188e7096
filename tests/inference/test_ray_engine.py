"""Many parquet files labelled by Ray."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.inference.parquet_folders import write_folder

Run = Callable[..., tuple[int, str, str]]
_ADDED = ["label", "score", "probability_neg", "probability_pos"]


@pytest.fixture
def command(tiny_checkpoint: Path) -> list[str]:
    return ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=reviews", "--output=labelled"]


def test_ray_missing_is_told_with_what_to_install(
    command: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(Path("reviews"), 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = run_cli(*command, "--engine=ray")
    assert (status, err) == (1, "error: --engine ray needs Ray: pip install -c constraints.txt -e '.[ray]'\n")


def _labelling() -> set[int]:
    """The processes that hold the lock of a file now."""
    found = set()
    for lock in Path("labelled").glob(".*.lock"):
        with suppress(OSError):
            if process := re.match(r"process (\d+) ", lock.read_text()):
                found.add(int(process[1]))
    return found


def _memory(process: int) -> int:
    """In MB, resident; 0 if it has gone."""
    with suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) // 1000 if found else 0  # a process that ends has none
    return 0


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed; `make stress` does it"
)
def test_ray_labels_each_row_once_when_a_worker_is_killed(command: list[str], run_cli: Run) -> None:
    frames = write_folder(Path("reviews"), 8, rows=1500)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-m", "src", *command, "--engine=ray"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killed = 0
    memory: dict[int, list[int]] = {}
    while process.poll() is None:
        for worker in _labelling():
            memory.setdefault(worker, []).append(_memory(worker))
        if not killed and len(memory) > 1 and list(Path("labelled").glob("part-*")) and (now := _labelling()):
            killed = now.pop()
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    assert process.returncode == 0, process.stdout and process.stdout.read()
    assert killed
    assert len(memory) >= 3, "two workers, and the one that took over"
    assert all(max(sizes) < sizes[len(sizes) // 4] + 150 for worker, sizes in memory.items() if worker != killed)

    Path("labelled").rename("by-ray")
    assert run_cli(*command)[0] == 0
    assert len(frames) == len(list(Path("by-ray").iterdir()))
    for file in Path("labelled").iterdir():
        assert pq.read_table(file).equals(pq.read_table(Path("by-ray") / file.name)), file
