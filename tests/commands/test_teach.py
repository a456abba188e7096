"""`teach` through the real command, with a tiny encoder: what it writes, and that it reads no label."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pandas as pd
import pytest

from tests.docs.pages import ROOT
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]

_SENTENCES = "sentences: {neg: [the film is awful, a boring story], pos: [the film is great, a moving story]}\n"


@pytest.fixture
def reviews() -> Path:
    Path("sentences.yaml").write_text(_SENTENCES)
    synthetic_reviews(220).to_csv("reviews.csv", index=False)
    return Path("reviews.csv")


@pytest.fixture
def command(tiny_bert: Path, reviews: Path) -> list[str]:
    sizes = ["--data.train_size=160", "--data.val_size=24", "--data.test_size=16", "--data.max_length=32"]
    model = [f"--model.model_name_or_path={tiny_bert}", "--data.truncation=windows", "--trainer.accelerator=cpu"]
    return ["teach", "--sentences=sentences.yaml", "--output=taught", f"--data.dataset={reviews}", *sizes, *model]


def test_fit_trains_on_the_folder(run_cli: Run, command: list[str], reviews: Path, tiny_options: list[str]) -> None:
    status, out, err = run_cli(*command)
    assert status == 0, err
    assert "Labelled the surest 80 of 160 texts: 'neg' (40), 'pos' (40)" in out
    assert "python -m src fit --config configs/few_labels.yaml --data.dataset=taught\n" in out
    taught = datasets.load_dataset("./taught")
    assert {name: len(rows) for name, rows in taught.items()} == {"train": 80, "validation": 24, "test": 16}
    assert taught["train"].features["label"].names == ["neg", "pos"]
    of_row = pd.read_csv(reviews)
    assert taught["train"]["text"][:] == of_row["text"][taught["train"]["row"]].tolist()
    names = taught["test"].features["label"].int2str(taught["test"]["label"][:])
    known = dict(zip(of_row["text"], of_row["label"], strict=True))
    assert names == [known[text] for text in taught["test"]["text"]]
    assert not set(taught["train"]["text"]) & (set(taught["test"]["text"]) | set(taught["validation"]["text"]))
    assert json.loads(Path("taught/teacher.json").read_text())["keep"] == 0.5
    sizes = [f"--data.{name}_size=null" for name in ("train", "val", "test")]
    fit = ["fit", *tiny_options, "--data.dataset=taught", *sizes, "--trainer.max_steps=2"]
    status, out, err = run_cli(*fit)
    assert status == 0, err
    assert "80 for training, 24 for validation, 16 for testing" in out


def test_no_label_of_a_training_row_is_read(run_cli: Run, command: list[str], reviews: Path) -> None:
    assert run_cli(*command)[0] == 0
    rows = pd.read_csv(reviews)
    used = datasets.load_dataset("./taught")
    kept = rows["text"].isin([*used["validation"]["text"], *used["test"]["text"]])
    rows["label"] = rows["label"].where(kept, "unknown")
    rows.to_csv("unlabelled.csv", index=False)
    other = [*command, "--data.dataset=unlabelled.csv", "--output=again"]
    status, _, err = run_cli(*other)
    assert status == 0, err
    for split in ("train", "validation", "test"):
        assert Path("again", f"{split}.parquet").read_bytes() == Path("taught", f"{split}.parquet").read_bytes()


def test_texts_need_no_column_of_labels(
    run_cli: Run, command: list[str], reviews: Path, tiny_options: list[str]
) -> None:
    pd.read_csv(reviews)[["text"]].to_csv("texts.csv", index=False)
    options = ["--data.dataset=texts.csv", "--data.train_size=null", "--data.val_size=0", "--data.test_size=0"]
    status, out, err = run_cli(*command, *options)
    assert status == 0, err
    assert "of 220 texts" in out
    assert sorted(path.name for path in Path("taught").iterdir()) == ["teacher.json", "train.parquet"]
    assert "few_labels.yaml --data.dataset=taught --data.val_size=0 --data.test_size=0\n" in out
    options = ["--data.dataset=taught", "--data.train_size=null", "--data.val_size=0", "--data.test_size=0"]
    assert run_cli("fit", *tiny_options, *options, "--trainer.max_steps=1")[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output=reviews.csv"], "is there already"),
        (["--sentences=none.yaml"], "cannot be read"),
        (["--data.train_size=50"], "100 texts or more"),
        (["--data.stratify=true"], "knows none before"),
        (["--ckpt_path=best"], "takes no --ckpt_path"),
        (["--data.dataset=other.csv"], "the label 'odd', for which there are no sentences"),
        (["--data.text_column=body"], "has no column"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(run_cli: Run, command: list[str], options: list[str], words: str) -> None:
    rows = synthetic_reviews(220)
    rows["label"] = "odd"
    rows.to_csv("other.csv", index=False)
    status, _, err = run_cli(*command, *options)
    assert status in (1, 2)
    assert words in err
    assert len(err.strip().splitlines()) == 1, err
    assert not Path("taught").exists()


@pytest.mark.usefixtures("reviews")
def test_a_pretraining_is_refused(run_cli: Run) -> None:
    config = f"--config={ROOT / 'configs' / 'pretrain_quickstart.yaml'}"
    status, _, err = run_cli("teach", "--sentences=sentences.yaml", "--output=taught", config)
    assert status == 2
    assert err == "error: this command is about texts to classify, but these options are those of a pre-training\n"
