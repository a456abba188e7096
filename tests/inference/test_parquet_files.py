"""A parquet file labelled into a parquet file: its columns, its labels, its memory."""

import datetime
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.inference.classifier import load
from src.inference.parquet_files import FileLabeller, Job
from tests.inference.parquet_folders import write_folder
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
_ADDED = ["label", "score", "probability_neg", "probability_pos"]


@pytest.fixture
def command(tiny_checkpoint: Path) -> list[str]:
    return ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=reviews", "--output=labelled"]


def test_each_file_has_the_labels_that_it_has_alone(command: list[str], run_cli: Run) -> None:
    frames = write_folder(Path("reviews"), 3, rows=300)
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
    write_folder(Path("reviews"), 2)
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
