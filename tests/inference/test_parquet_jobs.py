"""Many parquet files: which are asked for, by one process, by several, after a kill."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from src.inference import parquet_files
from src.inference.classifier import load
from src.inference.parquet_files import FileLabeller, Job, Labelled
from src.inference.parquet_jobs import find_jobs, label_files
from src.system.locks import exclusive
from tests.inference.parquet_folders import write_folder

Run = Callable[..., tuple[int, str, str]]
_ADDED = ["label", "score", "probability_neg", "probability_pos"]


@pytest.fixture
def command(tiny_checkpoint: Path) -> list[str]:
    return ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=reviews", "--output=labelled"]


# ---- several processes, and what one leaves ------------------------------------------------------------------------


def test_a_stopped_prediction_goes_on_with_the_files_that_are_not_done(
    command: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(Path("reviews"), 5)
    written: list[str] = []
    write = FileLabeller._write

    def stop_at_the_third(self: FileLabeller, job: Job, report: Callable[[int], object]) -> Labelled:
        written.append(job.source.name)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return write(self, job, report)

    monkeypatch.setattr(FileLabeller, "_write", stop_at_the_third)
    status, _, err = run_cli(*command)
    assert (status, err.splitlines()[-1]) == (
        143,
        "stopped by SIGTERM after 2 files; the same command resumes from there",
    )
    assert sorted(file.name for file in Path("labelled").iterdir()) == ["part-0.parquet", "part-1.parquet"]
    Path("labelled/.part-2.parquet.0123abcd.tmp").write_text("left by a kill")
    status, _, err = run_cli(*command)
    assert status == 0
    assert "2 of 5 files are labelled already" in err
    assert written == ["part-0.parquet", "part-1.parquet", *[f"part-{i}.parquet" for i in (2, 2, 3, 4)]]
    assert sorted(file.name for file in Path("labelled").iterdir()) == [f"part-{i}.parquet" for i in range(5)]
    before = {file: file.stat().st_mtime_ns for file in Path("labelled").iterdir()}
    assert run_cli(*command)[0] == 0
    assert before == {file: file.stat().st_mtime_ns for file in Path("labelled").iterdir()}


def test_processes_that_share_a_folder_label_each_file_once_and_take_over_what_one_leaves(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(Path("reviews"), 6)
    jobs = find_jobs("reviews", "labelled")
    assert jobs
    written: Counter[str] = Counter()
    write = FileLabeller._write

    def count(self: FileLabeller, job: Job, report: Callable[[int], object]) -> Labelled:
        written[job.source.name] += 1
        time.sleep(0.05)
        return write(self, job, report)

    monkeypatch.setattr(FileLabeller, "_write", count)
    labeller = FileLabeller(load(tiny_checkpoint), "text")
    threads = [threading.Thread(target=label_files, args=(labeller, jobs, "labelled")) for _ in range(2)]
    Path("labelled").mkdir()
    # as another process would that dies in the middle of this file
    with exclusive(Path("labelled/.part-0.parquet.lock"), "part-0"):
        for thread in threads:
            thread.start()
        while len(list(Path("labelled").glob("part-*.parquet"))) < 5:
            time.sleep(0.01)
            assert any(thread.is_alive() for thread in threads)
        assert not Path("labelled/part-0.parquet").exists()
    for thread in threads:
        thread.join(60)
    assert written == {f"part-{i}.parquet": 1 for i in range(6)}
    assert sorted(file.name for file in Path("labelled").iterdir()) == [f"part-{i}.parquet" for i in range(6)]


# ---- what is asked for ---------------------------------------------------------------------------------------------


def test_a_pattern_keeps_the_folders_that_it_leaves_open(tmp_path: Path) -> None:
    for name in ("a/x.parquet", "a/b/x.parquet", "a/.hidden.parquet", "a/y.csv", "a/out/z.parquet", "odd[1]/x.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = {
        pattern: [f"{job.source} {job.target}" for job in find_jobs(pattern, "a/out") or []]
        for pattern in ("a", "a/*.parquet", "a/**/*.parquet", "*/x.parquet", "odd[1]", "odd[1]/x.parquet")
    }
    assert found == {
        "a": ["a/x.parquet a/out/x.parquet"],
        "a/*.parquet": ["a/x.parquet a/out/x.parquet"],
        "a/**/*.parquet": ["a/b/x.parquet a/out/b/x.parquet", "a/x.parquet a/out/x.parquet"],
        "*/x.parquet": ["a/x.parquet a/out/a/x.parquet", "odd[1]/x.parquet a/out/odd[1]/x.parquet"],
        "odd[1]": ["odd[1]/x.parquet a/out/x.parquet"],
        "odd[1]/x.parquet": [],  # the name of a file
    }


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--input=nothing"], 1, "there is no .parquet file in nothing"),
        (["--input=no/*.parquet"], 1, "there is no file no/*.parquet"),
        (["--input=reviews/*"], 1, "reviews/notes.csv is no .parquet file: several files are labelled if all"),
        (["--output=-"], 1, "--input reviews names several files: --output must name a folder, not -"),
        (["--output=out.csv"], 1, "--input reviews names several files: --output must name a folder, not out.csv"),
        (["--output=reviews/notes.csv"], 1, "--output must name a folder, not reviews/notes.csv"),
        (["--output=reviews"], 1, "--output reviews is the folder of the input itself: name another one"),
        (["--output=reviews/notes.csv/out"], 1, "Not a directory"),
        (["--text_column=body"], 1, "has no column 'body' (its columns: text, id): --text_column"),
        (["--text_column=id"], 1, "has int64 in 'id', not text"),
        (["--output_format=csv"], 2, "leave out --input_format and --output_format"),
        (["--input_format=csv"], 2, "leave out --input_format and --output_format"),
        (["--engine=spark"], 2, "invalid choice"),
        (["--input=reviews/part-0.parquet", "--output=out.csv", "--engine=ray"], 2, "--engine ray labels many parquet"),
    ],
)
def test_mistakes_are_told_in_one_line(
    options: list[str], status: int, words: str, command: list[str], run_cli: Run
) -> None:
    write_folder(Path("reviews"), 1)
    Path("reviews/notes.csv").write_text("text\n")
    Path("nothing").mkdir()
    found, _, err = run_cli(*command, *options)
    told = [line for line in err.splitlines() if line and "reviews/s" not in line]  # the bar
    assert (found, len(told)) == (status, 1), err
    assert words in told[0]


def test_files_that_cannot_be_read_are_named_and_the_others_labelled(command: list[str], run_cli: Run) -> None:
    write_folder(Path("reviews"), 4)
    whole = Path("reviews/part-1.parquet").read_bytes()
    Path("reviews/part-1.parquet").write_bytes(whole[:-9])
    damaged = bytearray(Path("reviews/part-2.parquet").read_bytes())
    damaged[4:200] = bytes(196)
    Path("reviews/part-2.parquet").write_bytes(damaged)
    status, _, err = run_cli(*command)
    assert status == 1
    assert "reviews/part-1.parquet cannot be read as parquet" in err
    assert "reviews/part-2.parquet is damaged after row 0" in err
    assert err.endswith("error: 2 of 4 files could not be read and are left out\n")
    assert sorted(file.name for file in Path("labelled").iterdir()) == ["part-0.parquet", "part-3.parquet"]
    Path("reviews/part-1.parquet").write_bytes(whole)
    assert run_cli(*command)[0] == 1
    assert Path("labelled/part-1.parquet").exists()


def test_an_output_of_another_prediction_is_refused_before_anything_is_labelled(
    command: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(Path("reviews"), 2)
    assert run_cli(*command)[0] == 0
    Path("labelled/part-0.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(parquet_files, "hash_files", lambda _: "of another model")
        status, _, err = run_cli(*command)
    advice = "delete it, or name another --output\n"
    assert (status, err) == (1, f"error: labelled/part-1.parquet was labelled from another model: {advice}")
    write_folder(Path("reviews"), 2, rows=41)
    assert run_cli(*command)[2] == f"error: labelled/part-1.parquet was labelled from another input: {advice}"
    for content in (Path("reviews/part-0.parquet").read_bytes(), b"no parquet"):
        Path("labelled/part-1.parquet").write_bytes(content)
        status, _, err = run_cli(*command)
        assert (status, err) == (1, f"error: labelled/part-1.parquet is no file that was labelled here: {advice}")
    assert not Path("labelled/part-0.parquet").exists()
