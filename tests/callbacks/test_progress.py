"""The progress lines that `fit` prints where no progress bar is shown."""

import re
from collections.abc import Callable

import pytest

from src.callbacks import progress

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("length", "first", "steps"),
    [
        (["--trainer.max_epochs=2"], "epoch 1/2 step 1/6", 12),
        (["--trainer.max_epochs=-1", "--trainer.max_steps=8"], "epoch 1 step 1/6", 8),
        (["--trainer.max_epochs=2", "--trainer.max_steps=8"], "epoch 1/2 step 1/6", 8),
        # steps after batches 4 and 6 of the first epoch, and 4 of the second
        (["--trainer.max_steps=3", "--trainer.accumulate_grad_batches=4"], "epoch 1/3 step 1/6", 10),
    ],
)
def test_a_line_has_the_place_and_the_time_left(
    length: list[str], first: str, steps: int, run_cli: Run, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    status, out, err = run_cli("fit", *tiny_options, *length)
    assert status == 0, err
    lines = re.findall(r"^epoch .* step .*$", out, flags=re.MULTILINE)
    assert len(lines) == steps
    assert lines[0].startswith(first)
    assert all(re.search(r"reviews/s about 0:00:\d\d left$", line) for line in lines)
    # from the first row of the log on: here after the last step of the first epoch
    later = [line for line in lines if "step 6/6" in line or not line.startswith(first[:7])]
    assert later
    assert all(re.search(r" train/loss \d\.\d{4} .* reviews/s", line) for line in later)
    assert lines[-1].endswith("about 0:00:00 left")
    validations = re.findall(r"^epoch \d+: val/loss \d\.\d{4}, val/accuracy \d\.\d{4}$", out, flags=re.MULTILINE)
    assert len(validations) == steps // 6
