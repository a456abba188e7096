"""Validation and test rows from files of one's own, and texts that they share with the rows for training."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from src.data.imdb import ImdbDataModule
from src.data.splits import choose_rows
from tests.conftest import write_reviews
from tests.data.conftest import Attach
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
TRAIN, VALIDATION, TEST = (synthetic_reviews(n, seed=seed) for n, seed in ((60, 11), (30, 12), (40, 13)))


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """Training rows in a file, validation rows in another, and test rows in a folder that has training rows too.

    The test rows number their classes the other way round.
    """
    folder = tmp_path / "tests"
    folder.mkdir()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])})
    for name, frame in (("train", TRAIN), ("test", TEST)):
        numbered = frame.assign(label=(frame["label"] == "neg").astype(int))
        datasets.Dataset.from_pandas(numbered, features=features).to_parquet(str(folder / f"{name}.parquet"))
    return {
        "dataset": str(write_reviews(tmp_path / "train.csv", TRAIN)),
        "validation_data": str(write_reviews(tmp_path / "mine.jsonl", VALIDATION)),
        "test_data": str(folder),
    }


def _prepared(data: ImdbDataModule) -> ImdbDataModule:
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def _rows(data: ImdbDataModule, name: str) -> list[tuple[str, str]]:
    rows = data.splits[name]
    return sorted(zip(rows["text"], [data.label_names[label] for label in rows["label"]], strict=True))


def _of(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return sorted(zip(frame["text"], frame["label"], strict=True))


def test_own_files_take_the_place_of_splits(
    attach: Attach, own: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = _prepared(attach(**own, train_size=None, val_size=20, test_size=None))
    assert _rows(data, "train") == _of(TRAIN)
    assert set(_rows(data, "val")) < set(_of(VALIDATION))
    assert _rows(data, "test") == _of(TEST)
    out = capsys.readouterr().out
    assert (
        f"Rows for validation: the first 20 of the 30 of the shuffled file or folder {own['validation_data']}\n" in out
    )
    assert f"Rows for testing: all 40 of the file or folder {own['test_data']}\n" in out
    assert "Texts in two of these: none\n" in out
    assert data.description("test") == {
        "dataset": own["test_data"],
        "split": "test",
        "fingerprint": data.source.own["test"].fingerprint,
    }


def test_what_splits_there_are_is_said(attach: Attach, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, frame in (("train", TRAIN), ("dev", VALIDATION)):
        (tmp_path / "both").mkdir(exist_ok=True)
        write_reviews(tmp_path / "both" / f"{name}.csv", frame)
    data = _prepared(attach(dataset=str(tmp_path / "both"), train_size=20, test_size=10))
    assert set(_rows(data, "val")) < set(_of(VALIDATION))
    out = capsys.readouterr().out
    assert "Rows for validation: the first 24 of the 30 of the shuffled split 'validation'\n" in out
    assert (
        "Rows for testing: the last 10 that are left of the shuffled training split, since the data set has no" in out
    )
    # an own file comes before a split
    file = str(write_reviews(tmp_path / "other.csv", TEST))
    data = _prepared(attach(dataset=str(tmp_path / "both"), train_size=20, test_size=10, validation_data=file))
    assert set(_rows(data, "val")) < set(_of(TEST))


def test_content_of_own_files_changes_the_key(attach: Attach, own: dict[str, str]) -> None:
    before = _prepared(attach(**own))
    write_reviews(Path(own["validation_data"]), synthetic_reviews(30, seed=99))
    after = _prepared(attach(**own))
    assert before.key != after.key
    assert _rows(before, "val") != _rows(after, "val")
    assert before.fingerprint == after.fingerprint, "the training rows are the same"


def test_shared_texts_are_counted_and_named(
    attach: Attach, own: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """White space and case make no difference."""
    frame = VALIDATION.copy()
    frame.loc[[3, 7, 20], "text"] = [f"  {text.upper()}\n" for text in TRAIN["text"][[5, 6, 7]]]
    write_reviews(Path(own["validation_data"]), frame)
    data = _prepared(attach(**own, train_size=None, val_size=None))
    line = "Texts in two of these: 3 of the rows for validation are among those for training (row 3, 7, 20)\n"
    assert line in capsys.readouterr().out
    [shared] = data.prepared.shared_texts()
    assert (shared.subset, shared.earlier, shared.count) == ("val", "train", 3)


def test_stratified_rows_are_known_again(run_cli: Run, tiny_options: list[str], tmp_path: Path) -> None:
    """10% of the rows are pos; so are 10% of each subset. Rows that were trained on are found by the same rule."""
    frame = synthetic_reviews(200, seed=21)
    frame = pd.concat([frame[frame["label"] == "neg"].head(90), frame[frame["label"] == "pos"].head(10)])
    file = write_reviews(tmp_path / "few.csv", frame)
    sizes = ["--data.train_size=50", "--data.val_size=20", "--data.test_size=20"]
    status, out, _ = run_cli(
        "fit", *tiny_options, f"--data.dataset={file}", *sizes, "--data.stratify=true", "--trainer.max_epochs=1"
    )
    assert status == 0
    assert "Classes, with their training rows: neg (45), pos (5)" in out
    assert run_cli("test", "--ckpt_path=best")[0] == 0
    status, _, err = run_cli("test", "--ckpt_path=best", "--data.stratify=false", "--data.subset_seed=7")
    assert status == 1
    classes = (frame["label"] == "pos").to_numpy().astype(int)
    trained = choose_rows({"train": 100}, 50, 20, 20, 42, lambda _: classes)["train"].indices
    n = np.isin(choose_rows({"train": 100}, 50, 20, 20, 7)["test"].indices, trained).sum()
    changes = "subset_seed was 42 and is 7; stratify was True and is False"
    assert f"this checkpoint was trained on {n} of the rows for testing: {changes}" in err


def test_real_command(run_cli: Run, tiny_options: list[str], own: dict[str, str]) -> None:
    options = [f"--data.{name}={value}" for name, value in own.items()]
    sizes = ["--data.train_size=null", "--data.val_size=null", "--data.test_size=null", "--trainer.max_epochs=1"]
    assert run_cli("fit", *tiny_options, *options, *sizes)[0] == 0
    status, out, err = run_cli("test", "--ckpt_path=best")
    assert (status, err) == (0, "")
    assert "n=40)" in out
    results = json.loads(Path("lightning_logs/version_0/test.json").read_text())
    assert results["dataset"] == own["test_data"]
    # without the file, the test rows would be rows of training
    status, _, err = run_cli(
        "test", "--ckpt_path=best", "--data.test_data=null", "--data.train_size=40", "--data.test_size=8"
    )
    assert status == 1
    assert "this checkpoint was trained on 8 of the rows for testing: " in err
    assert "test_data was " in err
