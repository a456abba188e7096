"""Folders of parquet files for tests."""

from pathlib import Path

import pandas as pd

from tests.synthetic import synthetic_reviews


def write_folder(folder: Path, files: int, rows: int = 40) -> list[pd.DataFrame]:
    """Writes `files` parquet files, in which every eleventh text is blank, and returns their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for i in range(files):
        frame = synthetic_reviews(rows, seed=i).drop(columns="label")
        frame["text"] = frame["text"].where(frame.index % 11 > 0, " ")
        frame["id"] = frame.index + 1000 * i
        frame.to_parquet(folder / f"part-{i}.parquet", index=False)
        frames.append(frame)
    return frames
