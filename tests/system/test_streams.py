"""A command goes on, and ends as it should, whatever its standard streams are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).parents[2]


def shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Runs a line of bash, in which $SRC is the command: exit status, stdout, stderr."""
    env = os.environ | {"SRC": f"{sys.executable} -m src", "PYTHONPATH": str(_REPOSITORY), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(["bash", "-c", line], env=env | environment, capture_output=True, timeout=120, check=False)
    return ended.returncode, ended.stdout.decode(), ended.stderr.decode()


@pytest.mark.parametrize("option", ["--help", "--version"])
@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        (">&-", 0, ""),
        (">/dev/full", 1, "error: standard output could not be written: No space left on device\n"),
        ("2>&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&-", 0, ""),
        ("| head -0; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_what_is_printed_only(option: str, redirection: str, status: int, error: str) -> None:
    ended, _, err = shell(f"$SRC {option} {redirection}")
    assert (ended, err) == (status, error)


def test_nothing_is_written_into_a_file_that_got_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = "from src.system.streams import Streams; Streams(); f = open('f', 'w'); print('lost'); print(f.fileno() > 2)"
    assert shell(f'cd {tmp_path}; {sys.executable} -c "{code}" >&- 2>&- <&-')[0] == 0
    assert (tmp_path / "f").read_text() == ""


@pytest.mark.slow
def test_training_ends_when_nobody_reads_and_results_are_written_before_they_are_printed(
    tiny_options: list[str], tmp_path: Path
) -> None:
    fit = " ".join(["fit", *tiny_options, "--trainer.max_epochs=1"])
    status, out, err = shell(f"$SRC {fit} 2>err | head -1; exit ${{PIPESTATUS[0]}}")
    assert (status, out.count("\n"), err) == (0, 1, "")
    assert "Traceback" not in (tmp_path / "err").read_text()
    run = tmp_path / "lightning_logs" / "version_0"
    assert (run / "checkpoints" / "last.ckpt").exists()
    # the line has a dash that ASCII lacks
    status, out, _ = shell("$SRC test --ckpt_path best", PYTHONIOENCODING="ascii")
    assert status == 0
    assert "\\u2013" in out
    (run / "test.json").unlink()
    status, _, err = shell("$SRC test --ckpt_path best >/dev/full")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: standard output could not be written")
    assert (run / "test.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        ("| true; exit ${PIPESTATUS[0]}", 141, ""),  # as by SIGPIPE
        (">&-", 1, "error: standard output could not be written: Bad file descriptor"),
        (">/dev/full", 1, "error: standard output could not be written: no space left on the device"),
    ],
)
def test_a_prediction_needs_its_output(
    redirection: str, status: int, error: str, tiny_checkpoint: Path, reviews_csv: Path
) -> None:
    ended, _, err = shell(f"$SRC predict --ckpt_path={tiny_checkpoint} --input={reviews_csv} --output=- {redirection}")
    assert ended == status, err
    assert [line for line in err.splitlines() if "reviews/s" not in line and line] == ([error] if error else []), err
