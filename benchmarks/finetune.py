"""One training run and the rows it gets right, by the real commands, each in a process of its own."""

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from benchmarks.common import WORK, ours, quickstart_inputs, run_process

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        correct: whether each evaluated row was right, in the order of the shuffle.
        loss: over the evaluated rows; None from a peer.
        fit_s: wall time of the training command, start-up and saving included; evaluation is not in it. None where
            other programs ran beside it.
        curve: training loss by step, each the mean over the steps since the one before.
    """

    correct: np.ndarray
    loss: float | None
    fit_s: float | None
    curve: Curve


@dataclass(frozen=True)
class Trained:
    """A finished `fit`: the folder it was made in, its run, and its wall time if that means something."""

    directory: Path
    run: Path
    fit_s: float | None


def train(options: Sequence[str], seed: int, checkpoint: str, name: str, timed: bool = True) -> Trained:
    """`fit` with the options, unless that has been done already.

    Args:
        options: of `fit`; configs among them.
        seed: of the head, the order and dropout; the rows stay the same.
        checkpoint: "last" does without validation in training, since the final weights will be taken.
        name: of the folder, which stands for all of these.
        timed: nothing runs beside it.
    """
    directory = WORK / "runs" / name
    finished = directory / "fit.json"
    if not finished.is_file():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        silent = ["--trainer.limit_val_batches=0"] if checkpoint == "last" else []
        place = [f"--seed_everything={seed}", f"--trainer.default_root_dir={directory}"]
        fit = run_process(ours("fit", *options, *place, *silent), directory / "fit.log")
        for file in directory.glob("lightning_logs/version_0/checkpoints/*.ckpt"):
            _drop_optimizer(file)
        unfinished = finished.with_suffix(".tmp")
        unfinished.write_text(json.dumps({"fit_s": fit.wall_s if timed else None}))
        unfinished.rename(finished)
    fit_s = json.loads(finished.read_text())["fit_s"]
    return Trained(directory, directory / "lightning_logs" / "version_0", fit_s)


def _drop_optimizer(checkpoint: Path) -> None:
    """Leaves a third of the file: what evaluation needs."""
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "optimizer_states": []}, checkpoint)


def evaluate(trained: Trained, split: str, checkpoint: str) -> Outcome:
    """`validate` or `test`, for the split "val" or "test", with the weights of the checkpoint "last" or "best"."""
    command = "validate" if split == "val" else "test"
    rows = trained.directory / f"{command}.npy"
    probe = "--trainer.callbacks+=benchmarks.lightning_probe.CorrectRows"
    again = ["--trainer.limit_val_batches=1.0"] if command == "validate" else []
    path = trained.run / "checkpoints" / f"{checkpoint}.ckpt"
    log = trained.directory / f"{command}.log"
    run_process(ours(command, f"--ckpt_path={path}", probe, *again), log, BENCH_ROWS=str(rows))
    figures = json.loads((trained.run / f"{command}.json").read_text())
    correct = np.load(rows)
    assert np.isclose(correct.mean(), figures["accuracy"]), (
        f"{correct.mean()} is not the {figures['accuracy']} of {trained.run}"
    )
    return Outcome(correct, figures["loss"], trained.fit_s, _our_curve(trained.run / "metrics.csv"))


def run_peer(module: str, labels: int, seed: int, rows: tuple[int, int], name: str, epochs: int = 3) -> Outcome:
    """One of the peers' scripts; `rows` are the numbers of rows evaluated and of those behind them left alone."""
    model, dataset = quickstart_inputs()
    directory = WORK / "runs" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    correct = directory / "correct.npy"
    command = [sys.executable, "-m", module, "--model", str(model), "--dataset", str(dataset)]
    command += ["--reviews", str(labels), "--eval_reviews", str(rows[0]), "--held_back", str(rows[1])]
    command += ["--epochs", str(epochs), "--seed", str(seed), "--output_dir", str(directory)]
    command += ["--correct", str(correct)]
    process = run_process(command, directory / "peer.log", BENCH_REPORT=str(directory / "report.json"))
    state = json.loads((directory / "trainer_state.json").read_text())
    curve = [(entry["step"], entry["loss"]) for entry in state["log_history"] if "loss" in entry]
    finished = json.loads((directory / "report.json").read_text())["finished_at"]
    return Outcome(np.load(correct), None, finished - process.started, curve)


def _our_curve(path: Path) -> Curve:
    with path.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("train/loss")]
    return [(int(row["step"]) + 1, float(row["train/loss"])) for row in rows]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv, none if there is no file; one that a kill cut off is left out."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if None not in row and None not in row.values()]


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a csv, which is written anew beside it and renamed, so that it is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    with FileLock(WORK / f"{path.name}.lock"):  # of several programs that write at once
        rows = [*read_rows(path), row]
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        unfinished.replace(path)
