"""Kills a real run at random moments, resumes it each time, and compares its end with an uninterrupted run.

    python -m benchmarks.stress               # 20 kills: 13 minutes on 2 cores
    python -m benchmarks.stress --kills 3

Real reviews and the quickstart's weights, dropout on. SIGKILL comes at a random moment after training has begun, so it
hits steps, validation and checkpoint writes (every third step) alike. Exits with 1 where a weight, an optimizer state
or a logged figure differs in one bit.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from src.runs.directories import LAST, runs

_WORK = Path("build") / "stress"
_CONFIG = """
data: {init_args: {train_size: 160, val_size: 40, test_size: 8, max_length: 128, truncation: head_tail}}
model: {init_args: {attention_dropout: null, linear_probe: false}}
trainer:
  max_epochs: 10
  log_every_n_steps: 1
  enable_progress_bar: false
  callbacks:
  - class_path: src.callbacks.last_checkpoint.LastCheckpoint
    init_args: {every_n_train_steps: 3}
"""
_BEGUN = "effective batch"  # in the line that a run prints when training begins
_TIMES = ["train/reviews_per_s", "train/tokens_per_s"]


def main() -> int:
    """Returns 0 where both runs ended bit for bit alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how often the run is killed (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    shutil.rmtree(_WORK, ignore_errors=True)
    _WORK.mkdir(parents=True)
    (_WORK / "stress.yaml").write_text(_CONFIG)

    started = time.monotonic()
    _finish(_launch(_WORK / "alone"))
    whole = time.monotonic() - started
    print(f"left alone: {whole:.0f} s", flush=True)

    moments = random.Random(options.seed)
    root = _WORK / "killed"
    kills = 0
    while kills < options.kills:
        process = _launch(root)
        _wait_for_training(process, root)
        # together about two thirds of the run, so that all kills fall into it
        patience = moments.uniform(0, 1.3 * whole / options.kills)
        try:
            process.wait(timeout=patience)
            break  # it came to its end all the same
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kills += 1
        print(f"kill {kills}/{options.kills}, {patience:.1f} s into training; saved: {_step(root)}", flush=True)
    _finish(_launch(root))
    different = differences(outcome(_WORK / "alone"), outcome(root))
    print(f"{kills} kills; differences: {', '.join(different) or 'none'}")
    return 1 if different else 0


def _launch(root: Path) -> "subprocess.Popen[bytes]":
    resume = ["--ckpt_path=last"] if any((run / LAST).exists() for run in runs(root)) else []
    if not resume:
        shutil.rmtree(root, ignore_errors=True)  # nothing was saved yet: begin anew, in version_0
    configs = ["--config", "configs/quickstart.yaml", "--config", str(_WORK / "stress.yaml")]
    command = [sys.executable, "-m", "src", "fit", *configs, f"--trainer.default_root_dir={root}", *resume]
    with (_WORK / f"{root.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _wait_for_training(process: "subprocess.Popen[bytes]", root: Path) -> None:
    log = _WORK / f"{root.name}.log"
    begun = log.read_text().count(_BEGUN)
    while process.poll() is None and log.read_text().count(_BEGUN) == begun:
        time.sleep(0.05)


def _finish(process: "subprocess.Popen[bytes]") -> None:
    if process.wait() != 0:
        sys.exit(f"a run failed with status {process.returncode}; see {_WORK}/*.log")


def _step(root: Path) -> str:
    saved = [run / LAST for run in runs(root) if (run / LAST).exists()]
    if not saved:
        return "no checkpoint yet"
    return f"step {torch.load(saved[0], weights_only=True, mmap=True)['global_step']}"


def outcome(root: Path) -> dict[str, Any]:
    """What the newest run below `root` left: its last checkpoint's state and its log, without times."""
    run = runs(root)[0]
    checkpoint = torch.load(run / LAST, weights_only=True)
    outcome = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")}
    log = pd.read_csv(run / "metrics.csv").drop(columns=_TIMES)
    return {**outcome, "metrics.csv": log.reindex(sorted(log.columns), axis=1)}


def _leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Whatever a nested outcome holds, by its place."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {place: leaf for key, part in items for place, leaf in _leaves(part, f"{where}/{key}").items()}
    return {where: value}


def differences(ours: Any, theirs: Any) -> list[str]:
    """The places where anything differs in any bit."""
    left, right = _leaves(ours), _leaves(theirs)
    return sorted(left.keys() ^ right.keys()) + [
        place for place in left.keys() & right.keys() if not _equal(left[place], right[place])
    ]


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    return bool(ours.equals(theirs)) if isinstance(ours, pd.DataFrame) else bool(ours == theirs)


if __name__ == "__main__":
    sys.exit(main())
