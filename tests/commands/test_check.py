"""`check` through the real command, on data with known faults."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import write_reviews
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """Three splits with known faults."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    train, val, test = (synthetic_reviews(n, seed=n) for n in (80, 20, 24))
    long = "the film was a very quite moving story and the music is great " * 2
    train.loc[3, "text"] = train["text"][2]  # equal
    train.loc[[10, 50], "text"] = long  # equal, and neg and pos
    train.loc[20, "text"] = "  "
    val.loc[7, "text"] = f"{long} end"  # nearly equal
    val.loc[9, "label"] = "mixed"
    test.loc[[0, 1], "text"] = [train["text"][5], f" {train['text'][6].upper()}"]
    for name, frame in (("train", train), ("validation", val), ("test", test)):
        write_reviews(folder / f"{name}.csv", frame)
    return folder


def _check(run_cli: Run, *options: str) -> tuple[dict[str, Any], str]:
    status, out, err = run_cli("check", *options)
    assert status == 0, err
    return json.loads(Path("check.json").read_text()), out


def test_known_faults_are_found(run_cli: Run, tiny_options: list[str], faulty: Path) -> None:
    sizes = [f"--data.{name}_size=null" for name in ("train", "val", "test")]
    options = [*tiny_options, f"--data.dataset={faulty}", *sizes, "--data.max_length=32"]
    report, out = _check(run_cli, *options)
    rows = report["rows"]
    assert {use: fact["rows"] for use, fact in rows.items()} == {"training": 80, "validation": 20, "testing": 24}
    assert rows["training"]["labels"] == {"neg": 40, "pos": 40}
    assert rows["training"]["empty_texts"] == {"rows": 1, "first": [20]}
    assert rows["validation"]["unknown_labels"] == {"rows": 1, "first": [9]}
    equal = {(each["rows_for"], each["among_rows_for"]): each for each in report["equal_texts"]}
    pairs = equal["training", "training"]["first"]
    assert sorted(map(sorted, pairs)) == [[2, 3], [10, 50]]
    assert equal["testing", "training"]["first"] == [[0, 5], [1, 6]]
    [near] = report["nearly_equal_texts"]
    assert (near["rows_for"], near["among_rows_for"], near["rows"]) == ("validation", "training", 1)
    assert near["first"][0][0] == 7
    [differing] = report["equal_texts_with_other_labels"]
    assert sorted(differing["first"][0]) == [10, 50]
    assert 0 < report["tokens"]["training"]["tokens_cut"] < report["tokens"]["training"]["longer"] < 1
    probe = report["probe"]
    assert probe["rows"] == 79
    assert probe["accuracy_low"] < probe["accuracy"] < probe["accuracy_high"]
    doubts = report["likeliest_wrong_labels"]
    assert [doubt["probability"] for doubt in doubts] == sorted(doubt["probability"] for doubt in doubts)
    assert all(doubt["label"] != doubt["predicted"] and doubt["probability"] < 0.5 for doubt in doubts)
    assert "1 rows have no text: 20" in out
    assert "Training must beat both." in out
    assert out.splitlines()[-1].startswith("Train it:        python -m src fit --model.model_name_or_path=")
    assert not Path("lightning_logs").exists(), "nothing is trained"
    # to the last bit, and into another file
    assert run_cli("check", *options, "--output=again/report.json")[0] == 0
    assert json.loads(Path("again/report.json").read_text()) == report


def test_windows_are_counted_and_a_probe_needs_two_classes(
    run_cli: Run, tiny_options: list[str], tmp_path: Path
) -> None:
    frame = pd.concat([synthetic_reviews(100).query("label == 'neg'"), synthetic_reviews(4).query("label == 'pos'")])
    file = write_reviews(tmp_path / "few.csv", frame)
    windows = ["--data.truncation=windows", "--data.max_length=16"]
    sizes = ["--data.train_size=null", "--data.val_size=0", "--data.test_size=0"]
    report, out = _check(run_cli, *tiny_options, f"--data.dataset={file}", *windows, *sizes)
    assert report["tokens"]["training"]["windows_a_text"] > 2
    assert report["tokens"]["training"]["tokens_cut"] == 0
    assert report["probe"] is None
    assert "No linear probe: fewer than two classes have 5 of the first 52 rows" in out
    assert list(report["rows"]) == ["training"]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from src.__main__ import main; main(['check', '--help']); assert 'torch' not in sys.modules"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python -m src check")
