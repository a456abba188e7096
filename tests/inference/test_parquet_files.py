"""Many parquet files, labelled each into a file of the same name: by one process, by several, after a kill, by Ray."""

import datetime
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.inference import parquet_files
from src.inference.classifier import load
from src.inference.parquet_files import FileLabeller, Job, Labelled
from src.inference.parquet_jobs import find_jobs, label_files
from src.system.locks import exclusive
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
_ADDED = ["label", "score", "probability_neg", "probability_pos"]


def _write(folder: Path, files: int, rows: int = 40) -> list[pd.DataFrame]:
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for i in range(files):
        frame = synthetic_reviews(rows, seed=i).drop(columns="label")
        frame["text"] = frame["text"].where(frame.index % 11 > 0, " ")
        frame["id"] = frame.index + 1000 * i
        frame.to_parquet(folder / f"part-{i}.parquet", index=False)
        frames.append(frame)
    return frames


@pytest.fixture
def command(tiny_checkpoint: Path) -> list[str]:
    return ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=reviews", "--output=labelled"]


def test_each_file_has_the_labels_that_it_has_alone(command: list[str], run_cli: Run) -> None:
    frames = _write(Path("reviews"), 3, rows=300)
    status, _, err = run_cli(*command)
    assert status == 0, err
    assert "84 reviews are empty and have no label" in err
    assert sorted(file.name for file in Path("labelled").iterdir()) == [f"part-{i}.parquet" for i in range(3)]
    for i, frame in enumerate(frames):
        alone = [*command[:2], f"--input=reviews/part-{i}.parquet", f"--output={i}.csv"]
        assert run_cli(*alone)[0] == 0
        expected = pd.read_csv(f"{i}.csv", dtype={"text": str}, keep_default_na=False, na_values={"label": [""]})
        found = pd.read_parquet(f"labelled/part-{i}.parquet")
        assert list(found.columns) == ["text", "id", *_ADDED]
        assert found[["text", "id"]].equals(frame)
        for column in _ADDED:
            expected_column = pd.to_numeric(expected[column]) if column != "label" else expected[column]
            assert found[column].isna().equals(expected_column.isna())
            assert (found[column].dropna() == expected_column.dropna()).all(), column
    assert datasets.Dataset.from_parquet("labelled/part-0.parquet").column_names == ["text", "id", *_ADDED]


def test_labels_below_the_least_score_are_left_out(command: list[str], run_cli: Run) -> None:
    _write(Path("reviews"), 2)
    assert run_cli(*command)[0] == 0
    sure = pd.concat(map(pd.read_parquet, sorted(Path("labelled").iterdir())))
    least = sure["score"].median()
    status, _, err = run_cli(*command[:3], "--output=sure", f"--min_score={least}")
    assert status == 0, err
    found = pd.concat(map(pd.read_parquet, sorted(Path("sure").iterdir())))
    assert found["label"].equals(sure["label"].where(sure["score"] >= least))
    lack = int((sure["score"] < least).sum())
    assert lack
    assert f"{lack} of {sure['score'].count()} reviews lack a label" in err
    status, _, err = run_cli(*command, f"--min_score={least}")
    assert status == 1
    assert "was labelled from another min score" in err


def test_columns_keep_their_types(command: list[str], run_cli: Run) -> None:
    table = pa.table(
        {
            "text": pa.array(["great", None, "boring"], pa.large_string()).dictionary_encode(),
            "label": pa.array([1, 0, None], pa.int8()),
            "input_label": pa.array([b"\xff", b"", None]),
            "when": pa.array([1, 2, None], pa.timestamp("ns", "UTC")),
            "at": pa.array([1, None, 3], pa.time64("ns")),
            "price": pa.array([Decimal("1.10"), None, Decimal("2.20")]),
            "nested": pa.array([{"a": [1]}, None, {"a": []}]),
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "day": pa.array([datetime.date(2024, 2, 29), None, None]),
        }
    )
    Path("reviews").mkdir()
    pq.write_table(table, "reviews/all.parquet")
    pq.write_table(table.slice(0, 0), "reviews/empty.parquet")
    assert run_cli(*command)[0] == 0
    found = pq.read_table("labelled/all.parquet")
    kept = found.select(range(table.num_columns)).rename_columns(table.column_names)
    assert kept.equals(pq.read_table("reviews/all.parquet"))
    assert found.column_names[1:3] == ["input_input_label", "input_label"]
    assert found.column("label").to_pylist() == ["pos", None, "neg"]
    assert pq.read_table("labelled/empty.parquet").schema.equals(found.schema)


def test_memory_holds_a_part_of_a_file(tiny_checkpoint: Path) -> None:
    rows = synthetic_reviews(2000)
    pages = pa.array([os.urandom(100) * 1000] * len(rows))
    pq.write_table(pa.table({"text": rows["text"], "page": pages}), "in.parquet", row_group_size=100)
    sizes = [0]
    labeller = FileLabeller(load(tiny_checkpoint), "text")
    before = pa.total_allocated_bytes()
    job = Job(Path("in.parquet"), Path("out/in.parquet"))
    labeller.label(job, report=lambda _: sizes.append(pa.total_allocated_bytes() - before))
    assert len(sizes) > 5
    assert max(sizes) < 120_000_000 < pages.nbytes
    assert pq.read_table("out/in.parquet")["page"].combine_chunks().equals(pages)


# ---- several processes, and what one leaves ------------------------------------------------------------------------


def test_a_stopped_prediction_goes_on_with_the_files_that_are_not_done(
    command: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(Path("reviews"), 5)
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
    _write(Path("reviews"), 6)
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
    _write(Path("reviews"), 1)
    Path("reviews/notes.csv").write_text("text\n")
    Path("nothing").mkdir()
    found, _, err = run_cli(*command, *options)
    told = [line for line in err.splitlines() if line and "reviews/s" not in line]  # the bar
    assert (found, len(told)) == (status, 1), err
    assert words in told[0]


def test_files_that_cannot_be_read_are_named_and_the_others_labelled(command: list[str], run_cli: Run) -> None:
    _write(Path("reviews"), 4)
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
    _write(Path("reviews"), 2)
    assert run_cli(*command)[0] == 0
    Path("labelled/part-0.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(parquet_files, "hash_files", lambda _: "of another model")
        status, _, err = run_cli(*command)
    advice = "delete it, or name another --output\n"
    assert (status, err) == (1, f"error: labelled/part-1.parquet was labelled from another model: {advice}")
    _write(Path("reviews"), 2, rows=41)
    assert run_cli(*command)[2] == f"error: labelled/part-1.parquet was labelled from another input: {advice}"
    for content in (Path("reviews/part-0.parquet").read_bytes(), b"no parquet"):
        Path("labelled/part-1.parquet").write_bytes(content)
        status, _, err = run_cli(*command)
        assert (status, err) == (1, f"error: labelled/part-1.parquet is no file that was labelled here: {advice}")
    assert not Path("labelled/part-0.parquet").exists()


# ---- Ray -----------------------------------------------------------------------------------------------------------


def test_ray_missing_is_told_with_what_to_install(
    command: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(Path("reviews"), 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    status, _, err = run_cli(*command, "--engine=ray")
    assert (status, err) == (1, "error: --engine ray needs Ray: pip install -c constraints.txt -e '.[ray]'\n")


def _labelling() -> set[int]:
    """The processes that hold the lock of a file now."""
    found = set()
    for lock in Path("labelled").glob(".*.lock"):
        with suppress(OSError):
            if process := re.match(r"process (\d+) ", lock.read_text()):
                found.add(int(process[1]))
    return found


def _memory(process: int) -> int:
    """In MB, resident; 0 if it has gone."""
    with suppress(OSError):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
        return int(found[1]) // 1000 if found else 0  # a process that ends has none
    return 0


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed; `make stress` does it"
)
def test_ray_labels_each_row_once_when_a_worker_is_killed(command: list[str], run_cli: Run) -> None:
    frames = _write(Path("reviews"), 8, rows=1500)
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"RAY_OVERRIDE_RESOURCES": '{"CPU": 2}', "PYTHONPATH": root}
    process = subprocess.Popen(
        [sys.executable, "-m", "src", *command, "--engine=ray"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killed = 0
    memory: dict[int, list[int]] = {}
    while process.poll() is None:
        for worker in _labelling():
            memory.setdefault(worker, []).append(_memory(worker))
        if not killed and len(memory) > 1 and list(Path("labelled").glob("part-*")) and (now := _labelling()):
            killed = now.pop()
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    assert process.returncode == 0, process.stdout and process.stdout.read()
    assert killed
    assert len(memory) >= 3, "two workers, and the one that took over"
    assert all(max(sizes) < sizes[len(sizes) // 4] + 150 for worker, sizes in memory.items() if worker != killed)

    Path("labelled").rename("by-ray")
    assert run_cli(*command)[0] == 0
    assert len(frames) == len(list(Path("by-ray").iterdir()))
    for file in Path("labelled").iterdir():
        assert pq.read_table(file).equals(pq.read_table(Path("by-ray") / file.name)), file
