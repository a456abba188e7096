"""A prediction that was stopped or killed resumes, and ends with the bytes of one that never was."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from src.inference import prediction
from src.inference.classifier import Classifier
from src.system.locks import exclusive

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def stop_at_chunk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes chunks of 16 rows, and sends SIGTERM within the given one."""
    monkeypatch.setattr(prediction, "ROWS_A_CHUNK", 16)
    monkeypatch.setattr(prediction, "BATCHES_A_CHUNK", 1)
    original = Classifier.logits_of_tokens

    def stop(at: int) -> None:
        count = 0

        def logits(self: Classifier, *args: object) -> np.ndarray:
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Classifier, "logits_of_tokens", logits)

    return stop


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_stopped_prediction_resumes_and_ends_with_the_same_bytes(
    suffix: str, reviews_csv: Path, tiny_checkpoint: Path, run_cli: Run, stop_at_chunk: Callable[[int], None]
) -> None:
    base = ("predict", "--ckpt_path", str(tiny_checkpoint), f"--input={reviews_csv}")
    stop_at_chunk(0)
    assert run_cli(*base, f"--output=whole{suffix}")[0] == 0
    stop_at_chunk(4)
    status, _, err = run_cli(*base, f"--output=out{suffix}")
    assert status == 143
    assert "SIGTERM after 48 rows; the same command resumes" in err
    # what a kill in the midst of writing leaves
    with Path(f"out{suffix}").open("a") as stream:
        stream.write("half a li")
    stop_at_chunk(0)
    status, _, err = run_cli(*base, f"--output=out{suffix}")
    assert status == 0
    assert "holds 48 rows already" in err
    assert Path(f"out{suffix}").read_bytes() == Path(f"whole{suffix}").read_bytes()
    assert sorted(path.name for path in Path().iterdir()) == [f"out{suffix}", f"whole{suffix}"]


def test_a_partial_output_of_another_input_model_or_format_is_left_alone(
    reviews_csv: Path, tiny_checkpoint: Path, run_cli: Run, stop_at_chunk: Callable[[int], None]
) -> None:
    def start(checkpoint: Path, source: Path, *more: str) -> tuple[int, str]:
        status, _, err = run_cli("predict", f"--ckpt_path={checkpoint}", f"--input={source}", "--output=out.csv", *more)
        return status, err.splitlines()[-1]

    stop_at_chunk(3)
    assert start(tiny_checkpoint, reviews_csv)[0] == 143
    before = Path("out.csv").read_bytes()
    stop_at_chunk(0)
    other = pd.read_csv(reviews_csv)
    other.loc[20, "text"] = "another"
    other.to_csv("other.csv", index=False)
    short = pd.read_csv(reviews_csv)[:5]
    short.to_csv("short.csv", index=False)
    content = torch.load(tiny_checkpoint, weights_only=True)
    torch.save(content | {"epoch": 99}, "other.ckpt")
    for arguments, reason in (
        ((tiny_checkpoint, Path("other.csv")), "another input"),
        ((tiny_checkpoint, Path("short.csv")), "another input"),
        ((Path("other.ckpt"), reviews_csv), "another model"),
        ((tiny_checkpoint, reviews_csv, "--output_format=jsonl"), "other options"),
    ):
        status, line = start(*arguments)
        assert status == 1
        assert reason in line
        assert "out.csv.partial" in line
        assert Path("out.csv").read_bytes() == before


@pytest.mark.slow
def test_sigkill_loses_no_row_and_repeats_none(reviews_csv: Path, tiny_checkpoint: Path) -> None:
    frame = pd.concat([pd.read_csv(reviews_csv)] * 40, ignore_index=True)
    frame.assign(id=frame.index).to_csv("in.csv", index=False)
    command = [sys.executable, "-m", "src", "predict", f"--ckpt_path={tiny_checkpoint}", "--input=in.csv"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([*command, "--output=out.csv"], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    journal = Path("out.csv.partial")
    while not journal.exists() or json.loads(journal.read_text())["rows"] == 0:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert journal.exists()
    done = subprocess.run([*command, "--output=out.csv"], env=environment, capture_output=True, text=True, check=True)
    assert "rows already" in done.stderr
    assert list(pd.read_csv("out.csv").id) == list(frame.index)


def test_an_output_that_is_being_written_is_refused(tiny_checkpoint: Path, run_cli: Run) -> None:
    Path("in.csv").write_text("text\ngreat\n")
    command = ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=in.csv", "--output=out.csv"]
    with exclusive(Path(".out.csv.lock").absolute(), "it"):
        status, _, err = run_cli(*command)
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: out.csv is being written by process ")
    assert not Path("out.csv").exists()
    assert run_cli(*command)[0] == 0
    assert {path.name for path in Path().iterdir()} == {"in.csv", "out.csv"}
