"""test.json says what was evaluated, and null for what its rows leave undefined; so do the logs and the card."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the run, and beside it the data set `other`, whose test rows are of one class."""
    rows = synthetic_reviews(200, seed=1).assign(kind="a")
    Path("other").mkdir()
    rows.iloc[::4].to_csv("other/train.csv", index=False)
    rows[rows.label == "pos"].to_csv("other/test.csv", index=False)
    return shutil.copytree(tiny_checkpoint.parents[1], tmp_path / "lightning_logs" / "version_0")


def test_what_one_class_leaves_undefined_is_null_quietly(run: Path, run_cli: Run) -> None:
    options = ["--data.dataset=other", "--data.train_size=8", "--data.val_size=8", "--data.where={kind: a}"]
    with warnings.catch_warnings(record=True) as caught:
        status, out, err = run_cli("test", "--ckpt_path=best", *options)
    assert status == 0, err
    assert not [warning for warning in caught if "samples in targets" in str(warning.message)]
    figures = json.loads((run / "test.json").read_text())
    assert (figures["auroc"], figures["mcc"], figures["n"]) == (None, None, 24)
    assert 0.9 < figures["accuracy"] <= figures["f1"] <= 1.0
    assert f"Accuracy: {figures['accuracy']:.4f}" in out
    assert (figures["dataset"], figures["split"], figures["where"]) == ("other", "test", "kind=a")
    assert len(figures["fingerprint"]) == 64
    logged = EventAccumulator(str(run)).Reload().Tags()["scalars"]
    defined = ("loss", "accuracy", "balanced_accuracy", "f1", "ece")
    assert {f"test/{name}" for name in defined} == {tag for tag in logged if tag.startswith("test/")}

    status, _, err = run_cli("export", "--ckpt_path=best", "--output=ex")
    assert status == 0, err
    card = Path("ex/README.md").read_text()
    assert rf"- Test on other (split test, where kind\=a, content {figures['fingerprint'][:12]}): accuracy " in card
    assert ", auroc –, mcc –, ece " in card


def test_rows_of_the_training_split_are_said_to_be_of_it(run: Path, run_cli: Run) -> None:
    status, _, err = run_cli("validate", "--ckpt_path=best")
    assert status == 0, err
    figures = json.loads((run / "validate.json").read_text())
    assert figures["dataset"].endswith("/reviews.csv")
    assert figures["split"] == "train"
    assert "where" not in figures
    assert figures["auroc"] > 0.9
