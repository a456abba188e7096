"""Several labels a text, from training to an exported folder, through the real command."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from src.__main__ import main
from src.runs.checkpoint_reading import read_checkpoint
from tests import processes
from tests.synthetic import LABELS, several_labels

Run = Callable[..., tuple[int, str, str]]

_NAMES = list(LABELS)
_NO_DROPOUT = ["--model.hidden_dropout=0", "--model.attention_dropout=0"]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("several") / "reviews.csv"
    several_labels(240).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def options(tiny_options: list[str], reviews: Path) -> list[str]:
    columns = f"--data.label_column=[{', '.join(_NAMES)}]"
    data = [f"--data.dataset={reviews}", columns, "--data.train_size=160", "--data.val_size=40", "--data.test_size=40"]
    return [*tiny_options, *data, "--model.learning_rate=5e-3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Path:
    """A run that has learnt its labels, and its test."""
    root = tmp_path_factory.mktemp("run")
    how = [
        "--trainer.max_epochs=8",
        "--model.monitor=val/f1",
        "--model.hidden_dropout=0",
        "--model.attention_dropout=0",
    ]
    assert main(["fit", *options, *how, f"--trainer.default_root_dir={root}"]) == 0
    version = root / "lightning_logs" / "version_0"
    assert main(["test", f"--config={version}/config.yaml", f"--ckpt_path={version}/checkpoints/best.ckpt"]) == 0
    return version


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "labels"
    assert main(["export", f"--ckpt_path={run}/checkpoints/best.ckpt", f"--output={folder}", "--onnx", "--int8"]) == 0
    return folder


@pytest.fixture(scope="module")
def expected(exported: Path, reviews: Path) -> np.ndarray:
    """The probabilities that transformers gives all reviews, one by one, without this project's code."""
    tokenizer = AutoTokenizer.from_pretrained(exported)
    network = AutoModelForSequenceClassification.from_pretrained(exported).eval()
    with torch.inference_mode():
        texts = pd.read_csv(reviews)["text"]
        logits = [network(**tokenizer(text, truncation=True, return_tensors="pt")).logits for text in texts]
    return torch.cat(logits).sigmoid().numpy()


def test_the_figures_of_the_test_are_those_of_scikit_learn(
    run: Path, exported: Path, expected: np.ndarray, reviews: Path
) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert list(config["id2label"].values()) == _NAMES
    tested = np.random.default_rng(42).permutation(240)[-40:]
    truth = pd.read_csv(reviews)[_NAMES].to_numpy()[tested]
    predicted = (expected[tested] >= np.array(config["thresholds"])).astype(int)
    figures = json.loads((run / "test.json").read_text())
    assert figures["n"] == 40
    assert figures["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    assert figures["accuracy_low"] < figures["accuracy"] <= figures["accuracy_high"]
    scores = sklearn_metrics.f1_score(truth, predicted, average=None)
    assert [figures["by_class"][name]["f1"] for name in _NAMES] == pytest.approx(scores)
    assert figures["f1"] == pytest.approx(scores.mean(), abs=1e-6)
    assert figures["f1"] > 0.8, "it learns its synthetic labels"
    auroc = sklearn_metrics.roc_auc_score(truth, expected[tested])
    assert figures["auroc"] == pytest.approx(auroc, abs=1e-6)
    assert figures["loss"] == pytest.approx(sklearn_metrics.log_loss(truth.ravel(), expected[tested].ravel()), abs=1e-5)


def test_the_thresholds_are_of_the_validation_rows(run: Path, expected: np.ndarray, reviews: Path) -> None:
    """And the validation in training is judged by them, as `validate` judges it afterwards."""
    config = read_checkpoint(run / "checkpoints/best.ckpt").content["classifier"]["config"]
    rows = np.random.default_rng(42).permutation(240)[-80:-40]
    truth = pd.read_csv(reviews)[_NAMES].to_numpy()[rows]
    for k, threshold in enumerate(config["thresholds"]):
        scores = [
            sklearn_metrics.f1_score(truth[:, k], expected[rows, k] >= t, zero_division=0) for t in expected[rows, k]
        ]
        found = sklearn_metrics.f1_score(truth[:, k], expected[rows, k] >= threshold)
        assert found == pytest.approx(max(scores)), _NAMES[k]
    assert main(["validate", f"--config={run}/config.yaml", f"--ckpt_path={run}/checkpoints/best.ckpt"]) == 0
    logged = pd.read_csv(run / "metrics.csv")["val/f1"].max()
    assert json.loads((run / "validate.json").read_text())["f1"] == pytest.approx(logged)


@pytest.mark.parametrize("model", ["best.ckpt", "", "model.onnx", "model_int8.onnx"])
def test_predict_gives_the_labels_over_their_thresholds(
    model: str, run: Path, exported: Path, expected: np.ndarray, reviews: Path, run_cli: Run
) -> None:
    path = run / "checkpoints" / model if model == "best.ckpt" else exported / model
    for output in ("out.csv", "out.jsonl"):
        status, _, err = run_cli("predict", f"--ckpt_path={path}", f"--input={reviews}", f"--output={output}")
        assert status == 0, err
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    found = np.array([[row[f"probability_{name}"] for name in _NAMES] for row in rows])
    np.testing.assert_allclose(found, expected, atol=0.1 if "int8" in model else 1e-5)
    thresholds = json.loads((exported / "config.json").read_text())["thresholds"]
    said = [[name for name, p, t in zip(_NAMES, row, thresholds, strict=True) if p >= t] for row in found]
    assert [row["label"] for row in rows] == said
    assert [] in said or "int8" in model
    assert "score" not in rows[0]
    table = pd.read_csv("out.csv", keep_default_na=False)
    assert list(table["label"]) == ["|".join(labels) for labels in said]
    assert list(table.columns) == ["text", *_NAMES, "label", *(f"probability_{name}" for name in _NAMES)]


def test_min_score_leaves_out_labels_over_their_threshold_that_are_doubtful(
    exported: Path, reviews: Path, expected: np.ndarray, run_cli: Run
) -> None:
    command = ["predict", f"--ckpt_path={exported}", f"--input={reviews}", "--output=out.jsonl", "--min_score=0.95"]
    status, _, err = run_cli(*command)
    assert status == 0, err
    thresholds = np.array(json.loads((exported / "config.json").read_text())["thresholds"])
    sure = (expected >= thresholds) & (expected >= 0.95)
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == [[_NAMES[k] for k in row.nonzero()[0]] for row in sure]
    changed = int((sure != (expected >= thresholds)).any(axis=1).sum())
    assert changed > 0
    assert f"{changed} of 240 reviews lack a label whose probability is below 0.95\n" in err


def test_the_card_says_how_to_get_the_labels(
    exported: Path, expected: np.ndarray, reviews: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (exported / "README.md").read_text()
    assert "gives a text any number of 3 labels: praise, blame, music." in card
    assert "| label | precision (95% CI) | recall (95% CI) | F1 | texts with it | threshold |" in card
    assert "The answer is always one of the labels" not in card
    text = next(text for text in pd.read_csv(reviews)["text"] if len(text.split()) > 5)
    code = card.split("```python\n")[1].split("```")[0]
    capsys.readouterr()
    exec(code.replace("THIS_FOLDER", str(exported)).replace("A wonderful film.", text), {"pipeline": pipeline})
    thresholds = np.array(json.loads((exported / "config.json").read_text())["thresholds"])
    row = list(pd.read_csv(reviews)["text"]).index(text)
    wanted = {name for name, has in zip(_NAMES, expected[row] >= thresholds, strict=True) if has}
    assert set(eval(capsys.readouterr().out)) == wanted


def test_the_report_is_there(run: Path) -> None:
    events = EventAccumulator(str(run), size_guidance={"tensors": 0, "images": 0}).Reload()
    for tag in ("calibration", "accuracy_by_length"):
        assert events.Images(f"test/{tag}")
    for tag in ("precision_recall/praise", "by_class/text_summary", "least_sure/text_summary"):
        assert events.Tensors(f"val/{tag}"), tag
    assert "confusion_matrix" not in str(events.Tags()["images"])
    table = events.Tensors("test/by_class/text_summary")[-1].tensor_proto.string_val[0].decode()
    figures = json.loads((run / "test.json").read_text())["by_class"]
    assert f"{figures['music']['f1']:.4f} | {figures['music']['support']} |" in table


def test_a_resumed_run_ends_as_one_that_never_stopped(options: list[str], run_cli: Run) -> None:
    """Its thresholds too, which are of an earlier validation where it stopped."""
    how = [*options, "--trainer.max_epochs=2", "--model.class_weights=balanced"]
    assert run_cli("fit", *how)[0] == 0
    stop = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_start"]
    stop += ["--trainer.callbacks.count=27", f"--trainer.callbacks.signum={int(signal.SIGTERM)}"]
    assert run_cli("fit", *how, *stop)[0] == 143
    last = "lightning_logs/version_1/checkpoints/last.ckpt"
    stopped = torch.load(last, weights_only=True)
    assert 20 < stopped["global_step"] < 40, "within the second epoch"
    status, _, err = run_cli("fit", *how, f"--ckpt_path={last}")
    assert status == 0, err
    whole, resumed = (
        torch.load(f"lightning_logs/version_{n}/checkpoints/last.ckpt", weights_only=True) for n in (0, 1)
    )
    assert resumed["classifier"]["config"] == whole["classifier"]["config"]
    assert stopped["classifier"]["config"]["thresholds"] != whole["classifier"]["config"]["thresholds"]
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, resumed["state_dict"][name]), name


@pytest.mark.slow
def test_two_ranks_and_accumulated_batches_end_as_one(options: list[str], run_cli: Run, tmp_path: Path) -> None:
    """The thresholds are of all ranks' rows, of which one rank has one more than the other."""
    how = [*options, *_NO_DROPOUT, "--trainer.max_epochs=1", "--data.val_size=39", "--model.class_weights=balanced"]
    assert run_cli("fit", *how, "--trainer.default_root_dir=one")[0] == 0
    shares = ["--data.batch_size=2", "--trainer.accumulate_grad_batches=2", "--trainer.default_root_dir=two"]
    args = ["fit", *how, *shares, "--trainer.devices=2", "--trainer.strategy=ddp"]
    for process in processes.ranks(args, 2, tmp_path):
        assert processes.wait(process) == 0, (tmp_path / "rank0.log").read_text()
    runs = [Path(root, "lightning_logs/version_0") for root in ("one", "two")]
    one, two = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in runs)
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, atol=1e-4, rtol=0)
    found, wanted = (content["classifier"]["config"]["thresholds"] for content in (two, one))
    assert found == pytest.approx(wanted, abs=1e-3)
    scores = [pd.read_csv(run / "metrics.csv")["val/f1"].dropna().item() for run in runs]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
