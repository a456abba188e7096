"""`export --calibrate` through the real command: figures of test rows, the same labels, every file alike."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss

from src.__main__ import main
from src.inference.classifier import load, probabilities
from tests.synthetic import LABELS, several_labels, synthetic_reviews

Run = Callable[..., tuple[int, str, str]]

_FILES = ["", "model.onnx", "model_int8.onnx"]
_TEST_ROWS = np.random.default_rng(42).permutation(240)[-40:]


@pytest.fixture(scope="module", params=["one label", "several labels"])
def several(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "several labels")


@pytest.fixture(scope="module")
def reviews(several: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 reviews, of which each tenth has a wrong label, so that no classifier is right of all."""
    frame = several_labels(240) if several else synthetic_reviews(240)
    if several:
        frame.loc[::10, list(LABELS)] = 1 - frame.loc[::10, list(LABELS)]
    else:
        frame.loc[::10, "label"] = frame.loc[::10, "label"].map({"neg": "pos", "pos": "neg"})
    path = tmp_path_factory.mktemp("noisy") / "reviews.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def checkpoint(several: bool, reviews: Path, tiny_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a run whose head makes it four times too sure, and its test."""
    root = tmp_path_factory.mktemp("run")
    columns = [f"--data.label_column=[{', '.join(LABELS)}]"] if several else []
    data = [f"--data.dataset={reviews}", "--data.train_size=160", "--data.val_size=40", "--data.test_size=40", *columns]
    how = ["--trainer.max_epochs=8", "--model.learning_rate=5e-3", f"--trainer.default_root_dir={root}"]
    how += ["--model.hidden_dropout=0", "--model.attention_dropout=0"]
    assert main(["fit", *tiny_options, *data, *how]) == 0
    version = root / "lightning_logs" / "version_0"
    content = torch.load(version / "checkpoints/last.ckpt", weights_only=True)
    for name in ("weight", "bias"):
        content["state_dict"][f"model.classifier.{name}"] *= 4
    if several:
        thresholds = torch.tensor(content["classifier"]["config"]["thresholds"], dtype=torch.float64)
        content["classifier"]["config"]["thresholds"] = (thresholds.logit() * 4).sigmoid().tolist()
    torch.save(content, version / "checkpoints/sure.ckpt")
    assert main(["test", f"--config={version}/config.yaml", f"--ckpt_path={version}/checkpoints/sure.ckpt"]) == 0
    return version / "checkpoints/sure.ckpt"


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "calibrated"
    files = ["--onnx", "--int8"]
    assert main(["export", f"--ckpt_path={checkpoint}", f"--output={folder}", *files, "--calibrate"]) == 0
    return folder


def _found(model: Path, reviews: Path) -> tuple[np.ndarray, torch.Tensor]:
    """The probabilities and labels that a model gives all reviews."""
    classifier = load(model)
    found = probabilities(classifier.logits(list(pd.read_csv(reviews)["text"])), classifier.task)
    return found, classifier.task.predicted(torch.from_numpy(found))


def _truth(reviews: Path, several: bool) -> np.ndarray:
    frame = pd.read_csv(reviews)
    return frame[list(LABELS)].to_numpy() if several else (frame["label"] == "pos").to_numpy().astype(int)


def test_every_label_stays_and_every_file_is_calibrated(checkpoint: Path, exported: Path, reviews: Path) -> None:
    before, labels = _found(checkpoint, reviews)
    calibrated = _found(exported, reviews)[0]
    assert np.abs(calibrated - before).max() > 0.02
    for file in _FILES:
        found, kept = _found(exported / file, reviews)
        assert (kept == labels).double().mean() >= (0.97 if "int8" in file else 1.0), file
        np.testing.assert_allclose(found, calibrated, atol=0.1 if "int8" in file else 1e-5)


def test_the_figures_are_of_the_test_rows(several: bool, checkpoint: Path, exported: Path, reviews: Path) -> None:
    """Before, those of `test`; after, the log loss that scikit-learn computes of the exported folder."""
    card = (exported / "README.md").read_text()
    assert "The scores are not calibrated" not in card
    assert "| on 40 test texts | before | after |" in card
    table = re.findall(r"\| (expected calibration error|log loss) \| ([\d.]+) \| ([\d.]+) \|", card)
    (_, ece, _), (_, loss_before, loss_after) = table
    figures = json.loads((checkpoint.parents[1] / "test.json").read_text())
    assert float(ece) == pytest.approx(figures["ece"], abs=1e-4)
    assert float(loss_before) == pytest.approx(figures["loss"], abs=1e-4)
    truth, found = _truth(reviews, several)[_TEST_ROWS], _found(exported, reviews)[0][_TEST_ROWS]
    expected = log_loss(truth.ravel(), found.ravel()) if several else log_loss(truth, found)
    assert float(loss_after) == pytest.approx(expected, abs=1e-4)
    assert expected < figures["loss"], "it was too sure"


def test_validation_rows_are_prepared_again_where_they_are_not_in_the_cache(
    checkpoint: Path, reviews: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("src.data.cache", "src.exporting.calibration"):
        monkeypatch.setattr(f"{module}.cache_dir", lambda: Path("another-cache").absolute())
    command = ("export", f"--ckpt_path={checkpoint}", f"--reviews={reviews}", "--calibrate")
    status, out, err = run_cli(*command, "--output=again")
    assert status == 0, err
    assert re.search(r"^Calibrated on 40 validation texts: temperature (praise )?[\d.]+", out, flags=re.MULTILINE)
    assert re.search(r"^On 40 test texts: ece [\d.]+ → [\d.]+, log loss [\d.]+ → [\d.]+$", out, flags=re.MULTILINE)
    shutil.rmtree("another-cache")
    Path("texts.txt").write_text("a film\n")
    whole = reviews.read_text()
    command = (*command[:2], "--reviews=texts.txt", "--calibrate", "--output=refused")
    try:
        reviews.write_text(whole + whole.splitlines()[1] + "\n")
        changed = run_cli(*command)
        reviews.unlink()
        gone = run_cli(*command)
    finally:
        reviews.write_text(whole)
    for (status, _, err), reason in ((changed, "is not as it was then"), (gone, "does not exist")):
        assert (status, err.count("\n")) == (1, 1), err
        assert err.startswith("error: --calibrate needs the validation rows of the training: ")
        assert reason in err
    assert not Path("refused").exists()


def test_without_validation_rows_it_is_refused_and_without_test_rows_not_measured(
    tiny_options: list[str], run_cli: Run
) -> None:
    how = ["--trainer.max_steps=1", "--data.train_size=8"]
    for i, size in enumerate(("--data.val_size=0", "--data.test_size=0")):
        assert run_cli("fit", *tiny_options, *how, size)[0] == 0
        checkpoint = f"--ckpt_path=lightning_logs/version_{i}/checkpoints/last.ckpt"
        status, out, err = run_cli("export", checkpoint, "--output=out", "--calibrate")
        assert status == 1 - i, err
        if i:
            assert "What that changes was not measured: the training had no test rows" in out
        else:
            assert err == "error: --calibrate needs validation rows, and the training had none (data.val_size was 0)\n"
            assert not Path("out").exists()
