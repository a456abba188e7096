"""`export` of a tiny model: what `transformers` and ONNX Runtime make of the folder, and that a failure leaves none."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, pipeline

from src.__main__ import main
from src.data.tokenization import Encoder
from src.exporting import classifier as classifier_export
from src.inference.classifier import load, probabilities
from src.runs.checkpoint_reading import read_checkpoint
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run_folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with the results of `test`."""
    run = tmp_path_factory.mktemp("tested") / "version_0"
    shutil.copytree(tiny_checkpoint.parents[1], run)
    figures = {
        "accuracy": 0.875,
        "accuracy_low": 0.6900,
        "accuracy_high": 0.9566,
        "loss": 0.25,
        "ece": 0.125,
        "n": 24,
        "checkpoint_digest": read_checkpoint(run / "checkpoints/best.ckpt").digest,
    }
    (run / "test.json").write_text(json.dumps(figures))
    return run


@pytest.fixture(scope="module")
def exported(run_folder: Path, reviews_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder, with both ONNX files."""
    folder = tmp_path_factory.mktemp("exported") / "my-classifier"
    options = [f"--ckpt_path={run_folder / 'checkpoints/best.ckpt'}", f"--output={folder}", f"--reviews={reviews_csv}"]
    assert main(["export", *options, "--onnx", "--int8"]) == 0
    return folder


def test_the_next_export_removes_what_a_killed_one_left(exported: Path, run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.0123abcd.tmp" / "below").mkdir(parents=True)
    assert main(["export", f"--ckpt_path={run_folder / 'checkpoints/best.ckpt'}", f"--output={tmp_path / 'out'}"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in exported.parent.iterdir()] == [exported.name], "no lock either"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Reviews of which some are longer than the 64 tokens of the training."""
    return list(synthetic_reviews(50, seed=9).text)


def test_pipeline_gives_the_labels_and_scores_of_the_checkpoint(
    exported: Path, tiny_checkpoint: Path, texts: list[str]
) -> None:
    classify = pipeline("text-classification", str(exported), device="cpu")
    assert type(classify.model) is BertForSequenceClassification
    found = classify(texts, truncation=True, batch_size=8)
    classifier = load(tiny_checkpoint)
    expected = probabilities(classifier.logits(texts), classifier.task)
    assert {row["label"] for row in found} == {"neg", "pos"}
    assert [row["label"] for row in found] == [["neg", "pos"][i] for i in expected.argmax(1)]
    np.testing.assert_allclose([row["score"] for row in found], expected.max(1), atol=1e-5)


def test_the_weights_are_those_of_the_checkpoint(exported: Path, tiny_checkpoint: Path) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(exported)
    state = torch.load(tiny_checkpoint, weights_only=True)["state_dict"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[f"model.{name}"]), name


def test_onnx_files_take_any_shape(exported: Path, tiny_checkpoint: Path, texts: list[str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported)
    classifier = load(tiny_checkpoint)
    expected = probabilities(classifier.logits(texts), classifier.task)
    for file, tolerance in (("model.onnx", 1e-4), ("model_int8.onnx", 0.1)):
        session = onnxruntime.InferenceSession(str(exported / file), providers=["CPUExecutionProvider"])
        for rows in (slice(0, 1), slice(1, 4), slice(4, 50)):
            batch = tokenizer(texts[rows], truncation=True, padding=True, return_tensors="np")
            inputs = {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            found = probabilities(session.run(None, inputs)[0], classifier.task)
            np.testing.assert_allclose(found, expected[rows], atol=tolerance)


@pytest.mark.parametrize("name", ["", "model.onnx", "model_int8.onnx"])
def test_predict_takes_the_folder_and_the_onnx_files(
    name: str, exported: Path, tiny_checkpoint: Path, reviews_csv: Path, run_cli: Run
) -> None:
    tables = []
    for path in (tiny_checkpoint, exported / name):
        assert run_cli("predict", f"--ckpt_path={path}", f"--input={reviews_csv}", "--output=out.csv")[0] == 0
        tables.append(pd.read_csv("out.csv"))
    assert list(tables[0].columns) == list(tables[1].columns)
    tolerance = 0.1 if "int8" in name else 2e-5
    np.testing.assert_allclose(tables[0].probability_pos, tables[1].probability_pos, atol=tolerance)
    assert (tables[0].label == tables[1].label).mean() > 0.95


def test_fit_starts_from_the_folder(exported: Path, tiny_options: list[str], run_cli: Run) -> None:
    options = [option for option in tiny_options if not option.startswith("--model.model_name_or_path")]
    status, out, _ = run_cli(
        "fit",
        *options,
        f"--model.model_name_or_path={exported}",
        "--trainer.max_epochs=1",
        "--model.learning_rate=1e-9",
    )
    assert status == 0
    # its head came along: it knows the synthetic reviews already
    assert float(out.split("Best validation accuracy: ")[1].split()[0]) > 0.7


def test_the_card_says_what_is_known(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "# my-classifier\n" in card
    assert "accuracy 0.8750 (95% CI 0.6900–0.9566, Wilson; n=24); loss 0.2500, ece 0.1250." in card
    options = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert options["seed_everything"] == 42
    assert options["trainer"]["max_epochs"] == 6
    assert options["model"]["class_path"].endswith("BertClassifier")
    assert options["model"]["init_args"]["learning_rate"] == 0.003
    assert options["data"]["init_args"]["dataset"] == "reviews.csv"
    assert options["data"]["init_args"]["train_size"] == 160
    assert f"- torch {torch.__version__}" in card
    assert "one of 2 labels: neg, pos." in card
    assert "the first 100 reviews of reviews.csv" in card
    compared = [line.split(" | ") for line in card.splitlines() if line.startswith("| model") and "name" not in line]
    assert [line[0] for line in compared] == ["| model.safetensors", "| model.onnx", "| model_int8.onnx"]
    assert all(line[1] == "100" for line in compared)
    assert str(Path.home()) not in card
    assert "/tmp" not in card


def test_it_is_checked_on_the_reviews_of_the_training_or_on_generated_ones(
    tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=a")
    assert "same label as the checkpoint on 100 of 100 reviews" in out
    assert "100 reviews of its own validation and training data" in out
    monkeypatch.setattr("src.data.cache.cache_dir", lambda: Path("nowhere"))
    _, out, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=b")
    assert "100 texts of random words" in out
    assert "--reviews" in err


@pytest.mark.parametrize("truncation", ["tail", "head_tail"])
def test_other_truncations_stay_with_the_model(
    truncation: str, tiny_checkpoint: Path, texts: list[str], run_cli: Run
) -> None:
    content = torch.load(tiny_checkpoint, weights_only=True)
    content["classifier"] |= {"truncation": truncation, "max_length": 16}
    torch.save(content, "other.ckpt")
    status, _, err = run_cli("export", "--ckpt_path=other.ckpt", "--output=folder")
    assert status == 0, err
    expected = load("other.ckpt")
    found = load("folder")
    assert found.encoder.truncation == truncation
    assert found.encoder.encode(texts) == expected.encoder.encode(texts)
    by_transformers = [[ids] for ids in AutoTokenizer.from_pretrained("folder")(texts, truncation=True)["input_ids"]]
    assert (by_transformers == expected.encoder.encode(texts)) == (truncation == "tail")
    warned = "The pipeline cannot cut so" in Path("folder/README.md").read_text()
    assert warned == (truncation == "head_tail")


def test_the_card_of_windows_says_how_to_put_them_together(
    tiny_checkpoint: Path, texts: list[str], run_cli: Run
) -> None:
    content = torch.load(tiny_checkpoint, weights_only=True)
    content["classifier"] |= {"truncation": "windows", "max_length": 16}
    torch.save(content, "other.ckpt")
    status, _, err = run_cli("export", "--ckpt_path=other.ckpt", "--output=folder", "--onnx")
    assert status == 0, err
    expected = load("other.ckpt")
    assert max(map(len, expected.encoder.encode(texts))) > 1
    card = Path("folder/README.md").read_text()
    assert "The pipeline reads the first window only" in card
    snippet = card.split("```python\n")[2].split("```")[0].replace("THIS_FOLDER", "folder")
    said: dict[str, Any] = {}
    exec(snippet, said)
    by_card = torch.stack([said["logits"](text) for text in texts])
    for found in (by_card, load("folder").logits(texts), load("folder/model.onnx").logits(texts)):
        np.testing.assert_allclose(found, expected.logits(texts), atol=1e-5)


# ---- no half export ------------------------------------------------------------------------------------------------


def test_an_existing_folder_is_refused_and_left_alone(tiny_checkpoint: Path, run_cli: Run) -> None:
    Path("there").mkdir()
    Path("there/mine.txt").write_text("mine")
    status, _, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=there")
    assert status == 1
    assert err == "error: there exists already: delete it or name another --output\n"
    assert [path.name for path in Path("there").iterdir()] == ["mine.txt"]


def test_a_file_that_differs_is_no_export(tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = classifier_export.write_onnx

    def write_wrong(network: BertForSequenceClassification, encoder: Encoder, path: Path) -> None:
        with torch.no_grad():
            network.classifier.bias += torch.tensor([0.0, 0.01])
        original(network, encoder, path)
        with torch.no_grad():
            network.classifier.bias -= torch.tensor([0.0, 0.01])

    monkeypatch.setattr(classifier_export, "write_onnx", write_wrong)
    status, _, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=out", "--onnx")
    assert status == 1
    assert "failed its check: model.onnx" in err
    assert list(Path().iterdir()) == []


def test_a_signal_leaves_nothing(tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_export, "_compare", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    status, _, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=out")
    assert status == 130
    assert err == "stopped by SIGINT\n"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "reason"),
    [
        (["--output=out"], 2, "ckpt_path"),
        (["--ckpt_path=nowhere.ckpt", "--output=out"], 1, "nowhere.ckpt"),
        (["--ckpt_path=text.ckpt", "--output=out"], 1, "damaged, or no checkpoint"),
        (["--ckpt_path=other.ckpt", "--output=out"], 1, "no checkpoint of a BertClassifier"),
        (["--ckpt_path=other.ckpt", "--output=out", "--onxx"], 2, "onxx"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], status: int, reason: str, run_cli: Run) -> None:
    Path("text.ckpt").write_text("no checkpoint")
    torch.save({"state_dict": {}}, "other.ckpt")
    found, _, err = run_cli("export", *arguments)
    assert found == status
    assert len(err.splitlines()) == 1
    assert reason in err
    assert not Path("out").exists()


def test_onnx_missing_is_told_with_what_to_install(
    tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    status, _, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=out", "--int8")
    assert status == 1
    assert "pip install" in err
    assert len(err.splitlines()) == 1


def test_the_folder_needs_none_of_this_project(exported: Path) -> None:
    program = (
        "import sys\nfrom transformers import pipeline\n"
        f"print(pipeline('text-classification', {str(exported)!r}, device='cpu')('great', truncation=True))\n"
        "assert not any(name.split('.')[0] in ('src', 'lightning') for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "'label': 'pos'" in done.stdout


@pytest.mark.parametrize("asked", ["folder", "model.onnx", "model_int8.onnx"])
def test_a_file_that_has_changed_since_the_export_is_refused(
    asked: str, exported: Path, tmp_path: Path, run_cli: Run
) -> None:
    """One flipped bit in any file that is read; the card may be edited."""
    folder = shutil.copytree(exported, tmp_path / "copy")
    Path("in.csv").write_text("text\ngreat\n")
    model = folder if asked == "folder" else folder / asked
    command = ["predict", f"--ckpt_path={model}", "--input=in.csv", "--output=out.csv"]
    (folder / "README.md").write_text("my own words")
    assert run_cli(*command)[0] == 0
    Path("out.csv").unlink()
    read = ["config.json", "tokenizer.json", "preprocessing.json", "model.safetensors" if asked == "folder" else asked]
    for name in read:
        whole = (folder / name).read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 4
        (folder / name).write_bytes(flipped)
        status, _, err = run_cli(*command)
        assert (status, err.count("\n")) == (1, 1), name
        assert f"{name} is not the file that was exported" in err
        assert not Path("out.csv").exists()
        (folder / name).write_bytes(whole)
    (folder / "checksums.json").unlink()  # as in any other folder of transformers
    assert run_cli(*command)[0] == 0
