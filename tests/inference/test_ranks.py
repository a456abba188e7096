"""Several processes label a file as one does, to the byte; one that dies ends all, and the same command resumes."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.processes import ranks, run, wait

pytestmark = pytest.mark.slow

# 256 rows are a chunk
_BATCH = "--batch_size=4"


@pytest.fixture
def predict(reviews_csv: Path, tiny_checkpoint: Path) -> Callable[..., list[str]]:
    """Makes `in.csv` with so many rows, and gives the command that labels it."""

    def command(rows: int, output: str) -> list[str]:
        reviews = pd.concat([pd.read_csv(reviews_csv)] * (rows // 240 + 1), ignore_index=True)
        reviews.loc[reviews.index % 50 == 3, "text"] = ""
        reviews.assign(id=reviews.index)[:rows].to_csv("in.csv", index=False)
        return ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=in.csv", f"--output={output}", _BATCH]

    return command


@pytest.mark.parametrize(
    ("world_size", "rows", "suffix"),
    [(2, 0, ".csv"), (2, 1, ".jsonl"), (3, 1100, ".jsonl"), (4, 600, ".csv")],
)
def test_the_output_has_the_bytes_of_one_process(
    world_size: int, rows: int, suffix: str, predict: Callable[..., list[str]], tmp_path: Path
) -> None:
    least = "--min_score=0.995"
    status, told = run([*predict(rows, f"one{suffix}"), least], tmp_path / "log")
    assert status == 0, told
    processes = ranks([*predict(rows, f"many{suffix}"), least], world_size, tmp_path)
    assert [wait(process) for process in processes] == [0] * world_size, (tmp_path / "rank0.log").read_text()
    assert Path(f"many{suffix}").read_bytes() == Path(f"one{suffix}").read_bytes()
    counts = [line for line in told.splitlines() if "reviews lack a label" in line]
    assert len(counts) == 1
    assert counts[0] in (tmp_path / "rank0.log").read_text()
    assert rows < 2 or not counts[0].startswith("0 of")
    assert all((tmp_path / f"rank{rank}.log").read_text() == "" for rank in range(1, world_size))
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_ends_all_and_another_number_of_ranks_resumes(
    victim: int, predict: Callable[..., list[str]], tmp_path: Path
) -> None:
    command = predict(2500, "out.csv")
    processes = ranks(command, 3, tmp_path)
    journal = Path("out.csv.partial")
    deadline = time.monotonic() + 60
    while not journal.exists() or json.loads(journal.read_text())["rows"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    processes[victim].kill()
    assert [wait(process, 30) for process in processes] == [-9 if rank == victim else 1 for rank in range(3)]
    for rank in {0, 1, 2} - {victim}:
        told = (tmp_path / f"rank{rank}.log").read_text().splitlines()
        assert told[-1].startswith("error: another process of this prediction has died or hangs"), told
    done = json.loads(journal.read_text())["rows"]
    assert 0 < done < 2500
    status = [wait(process) for process in ranks(command, 2, tmp_path)]
    assert status == [0, 0], (tmp_path / "rank0.log").read_text()
    assert f"holds {done:,} rows already" in (tmp_path / "rank0.log").read_text()
    assert run([*command[:-2], "--output=one.csv", _BATCH], tmp_path / "log")[0] == 0
    assert Path("out.csv").read_bytes() == Path("one.csv").read_bytes()


@pytest.mark.parametrize(
    ("last", "line"),
    [
        (["--batch_size=5"], "error: rank 1 has another batch size than rank 0: all must have the same"),
        (["--input=other.csv"], "error: rank 1 has another input than rank 0: all must have the same"),
    ],
)
def test_ranks_with_different_files_or_options_are_refused(
    last: list[str], line: str, predict: Callable[..., list[str]], tmp_path: Path
) -> None:
    command = predict(10, "out.csv")
    Path("other.csv").write_text(Path("in.csv").read_text() + "great,pos,10\n")
    assert [wait(process) for process in ranks(command, 2, tmp_path, last=last)] == [1, 1]
    assert line in (tmp_path / "rank0.log").read_text()
    assert not Path("out.csv").exists()


def test_standard_input_is_refused(predict: Callable[..., list[str]], tmp_path: Path) -> None:
    assert [wait(process) for process in ranks([*predict(1, "-"), "--input=-"], 2, tmp_path)] == [1, 1]
    for rank in range(2):
        told = (tmp_path / f"rank{rank}.log").read_text()
        assert told == "error: several processes cannot share standard input: name a file as --input\n"
