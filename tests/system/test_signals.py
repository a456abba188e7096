"""A signal at any moment of start-up ends the process with one line; a rank ends with its launcher."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
# as a library that catches whatever is raised while it is imported
_IMPORTING = """
import pathlib, sys
from src.system.signals import end_with_a_line, interrupted_by_signals
greedy = "import time\\nprint(1, flush=True)\\ntry: time.sleep(60)\\nexcept BaseException: pass"
pathlib.Path("greedy.py").write_text(greedy)
sys.path.insert(0, "")
end_with_a_line()
with interrupted_by_signals():
    import greedy
"""
_LAUNCHER = """
import os, subprocess, sys, time
from src.system.signals import end_with_launcher
end_with_launcher()
code = "from src.system.signals import *; end_with_launcher(); import time; print(1, flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"LOCAL_RANK": "1"})
time.sleep(60)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_import_that_catches_everything(signum: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _IMPORTING],
        env=_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signum)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (128 + signum, f"stopped by {signum.name}\n")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 0.6, 1.2, 2.0])
def test_a_signal_during_start_up(seconds: float, tiny_options: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "src", "fit", *tiny_options], env=_ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    time.sleep(seconds)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "stopped by SIGTERM\n")


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_rank_ends_when_its_launcher_is_killed() -> None:
    launcher = subprocess.Popen([sys.executable, "-c", _LAUNCHER], env=_ENVIRONMENT, stdout=subprocess.PIPE)
    assert launcher.stdout is not None
    launcher.stdout.readline()  # of the child, which has inherited the pipe
    launcher.kill()
    launcher.wait()
    # the pipe ends when the child has ended
    os.set_blocking(launcher.stdout.fileno(), False)
    deadline = time.monotonic() + 10
    while launcher.stdout.read() is None:
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)
    launcher.stdout.close()
