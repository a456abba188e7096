"""One fine-tuning and the rows it answers correctly, by the real commands, each in its own process."""

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

from benchmarks.processes import WORK, ours, quickstart_inputs, run_process


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        correct: whether each evaluated row was answered correctly, in the order of the data.
        loss: over the evaluated rows; None for a peer.
        curve: pairs of a step and the mean training loss since the pair before.
    """

    correct: np.ndarray
    loss: float | None
    curve: list[tuple[int, float]]


def train(options: Sequence[str], seed: int, directory: Path) -> Path:
    """Runs `fit` below `directory`, unless that has been done already, and returns the run's directory.

    Args:
        options: of `fit`, configs among them.
        seed: of the head, the order and dropout; the rows stay the same.
        directory: stands for all of these.
    """
    finished = directory / "finished"
    run = directory / "lightning_logs" / "version_0"
    if not finished.is_file():
        shutil.rmtree(directory, ignore_errors=True)
        # in fp32 on every processor, unless the recipe says otherwise
        options = ["--trainer.precision=32-true", *options]
        place = [f"--seed_everything={seed}", f"--trainer.default_root_dir={directory}"]
        # the final weights are evaluated, so that validation within training would be for nothing
        run_process(ours("fit", *options, *place, "--trainer.limit_val_batches=0"), directory / "fit.log")
        checkpoint = run / "checkpoints" / "last.ckpt"
        # a third of the file: what evaluation needs
        torch.save({**torch.load(checkpoint, weights_only=True), "optimizer_states": []}, checkpoint)
        finished.touch()
    return run


def evaluate(run: Path, split: str) -> Outcome:
    """Runs `validate` or `test`, for the split "val" or "test", with the final weights."""
    command = "validate" if split == "val" else "test"
    rows = run / f"{command}.npy"
    # its config.yaml is read unasked below that directory alone
    root = f"--trainer.default_root_dir={run.parents[1]}"
    options = ["--trainer.callbacks+=benchmarks.recipes.correct_rows.CorrectRows", root]
    if split == "val":
        options.append("--trainer.limit_val_batches=1.0")
    path = run / "checkpoints" / "last.ckpt"
    run_process(ours(command, f"--ckpt_path={path}", *options), run / f"{command}.log", BENCH_ROWS=str(rows))
    figures = json.loads((run / f"{command}.json").read_text())
    correct = np.load(rows)
    assert np.isclose(correct.mean(), figures["accuracy"]), (
        f"{correct.mean()} is not the {figures['accuracy']} of {run}"
    )
    with (run / "metrics.csv").open(newline="") as stream:
        curve = [(int(r["step"]) + 1, float(r["train/loss"])) for r in csv.DictReader(stream) if r.get("train/loss")]
    return Outcome(correct, figures["loss"], curve)


def run_peer(module: str, labels: int, seed: int, eval_rows: int, held_back: int, directory: Path) -> Outcome:
    """Runs one of the peers' scripts for 3 epochs; `held_back` rows behind the evaluated ones are not used."""
    model, dataset = quickstart_inputs()
    shutil.rmtree(directory, ignore_errors=True)
    correct = directory / "correct.npy"
    command = [sys.executable, "-m", module, "--model", str(model), "--dataset", str(dataset)]
    command += ["--reviews", str(labels), "--eval_reviews", str(eval_rows), "--held_back", str(held_back)]
    command += ["--epochs", "3", "--seed", str(seed), "--output_dir", str(directory), "--correct", str(correct)]
    run_process(command, directory / "peer.log")
    history = json.loads((directory / "trainer_state.json").read_text())["log_history"]
    curve = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    return Outcome(np.load(correct), None, curve)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv, none if there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a csv, which is written anew beside it and renamed, so that it is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    with FileLock(WORK / f"{path.name}.lock"):  # several of these programs may run at once
        rows = [*read_rows(path), row]
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(row), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        unfinished.replace(path)
