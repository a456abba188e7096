"""The data module on every kind of source, with labels of every kind."""

import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from src.data.imdb import ImdbDataModule
from src.system.errors import UserError
from tests.conftest import write_reviews
from tests.data.conftest import Attach
from tests.synthetic import synthetic_reviews

REVIEWS = synthetic_reviews(120, seed=3)


def _prepared(data: ImdbDataModule) -> ImdbDataModule:
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def _check_rows(data: ImdbDataModule, frame: pd.DataFrame) -> None:
    """Each prepared row has the text, label and tokens of the source's row that it names."""
    for split in data.splits.values():
        for row in split:
            assert row["text"] == frame["text"][row["row"]]
            assert data.label_names[row["label"]] == str(frame["label"][row["row"]])
            assert row["length"] == len(row["input_ids"])
            [[window]] = data.encoder.encode([row["text"]])
            assert (row["input_ids"], row["windows"]) == (window, [len(window)])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_file(attach: Attach, tmp_path: Path, suffix: str) -> None:
    data = _prepared(attach(dataset=str(write_reviews(tmp_path / f"reviews{suffix}", REVIEWS))))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 48, "val": 24, "test": 24}
    assert data.label_names == ["neg", "pos"]
    _check_rows(data, REVIEWS)
    order = np.random.default_rng(42).permutation(120)
    assert data.splits["train"]["row"][:] == order[:48].tolist()
    assert data.splits["val"]["row"][:] == order[72:96].tolist()
    assert data.splits["test"]["row"][:] == order[96:].tolist()


def test_folder_in_the_layout_of_the_hub(attach: Attach, tmp_path: Path) -> None:
    folder = tmp_path / "imdb"
    (folder / "plain_text").mkdir(parents=True)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain_text\n  data_files:\n"
        + "".join(
            f"  - split: {split}\n    path: plain_text/{split}-*.parquet\n"
            for split in ("train", "test", "unsupervised")
        )
        + "---\n"
    )
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    numbered = REVIEWS.assign(label=(REVIEWS["label"] == "pos").astype(int))
    tested = synthetic_reviews(40, seed=4).assign(label=lambda f: (f["label"] == "pos").astype(int))
    for split, frame in (("train", numbered), ("test", tested), ("unsupervised", numbered.assign(label=-1))):
        file = folder / "plain_text" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_pandas(frame, features=features).to_parquet(str(file))
    data = _prepared(attach(dataset=str(folder), test_size=None))
    assert data.label_names == ["bad", "good"], "a ClassLabel's own names"
    assert sorted(data.splits["test"]["text"]) == sorted(tested["text"]), "all of the test split"
    assert set(data.splits["train"]["text"]) | set(data.splits["val"]["text"]) <= set(numbered["text"])


def test_file_inside_a_package_which_is_not_imported(
    attach: Attach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "some_reviews"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    mixed = pd.concat([REVIEWS.assign(source="imdb"), REVIEWS.assign(source="other", text="short")])
    write_reviews(package / "data" / "reviews.csv", mixed)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    data = _prepared(attach(dataset="package://some_reviews/data/reviews.csv", where={"source": "imdb"}))
    assert "some_reviews" not in sys.modules
    assert len(data.splits["train"]) == 48
    _check_rows(data, REVIEWS)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1], ["0", "1"]),
        (["no", "yes"], ["no", "yes"]),
        ([1, 2, 3, 4, 5], ["1", "2", "3", "4", "5"]),
        (["terrible", "bad", "so-so", "good", "great"], ["bad", "good", "great", "so-so", "terrible"]),
    ],
    ids=str,
)
def test_labels_of_any_kind_and_number(
    attach: Attach, tmp_path: Path, labels: list[int | str], names: list[str]
) -> None:
    frame = REVIEWS.assign(label=[labels[i % len(labels)] for i in range(len(REVIEWS))])
    data = _prepared(attach(dataset=str(write_reviews(tmp_path / "reviews.csv", frame))))
    assert data.label_names == names
    _check_rows(data, frame)


@pytest.mark.parametrize("label", [1, "pos"])
def test_one_class_is_an_error(attach: Attach, tmp_path: Path, label: int | str) -> None:
    """A set that is sorted by label, cut before it is shuffled, has one class only."""
    file = write_reviews(tmp_path / "reviews.csv", REVIEWS.assign(label=label))
    with pytest.raises(UserError, match=f"all 48 training rows have the label '{label}': there is nothing to learn"):
        attach(dataset=str(file)).prepare_data()


def test_missing_texts_are_counted_over_the_whole_subset(attach: Attach, tmp_path: Path) -> None:
    """More rows than are tokenised at once."""
    frame = synthetic_reviews(2600)
    order = np.random.default_rng(42).permutation(2600)
    missing = order[[3, 1500, 2300]]
    frame.loc[missing, "text"] = None
    sizes = {"train_size": None, "val_size": 10, "test_size": 10}
    with pytest.raises(UserError) as refused:
        attach(dataset=str(write_reviews(tmp_path / "reviews.jsonl", frame)), **sizes).prepare_data()
    named = ", ".join(map(str, sorted(missing)))
    assert str(refused.value) == f"no text in the column 'text' of 3 rows of the split 'train': {named}"


def test_where_takes_numbers_too_and_names_what_it_does_not_find(attach: Attach, tmp_path: Path) -> None:
    file = str(
        write_reviews(tmp_path / "reviews.csv", pd.concat([REVIEWS.assign(year=2000), REVIEWS.assign(year=2001)]))
    )
    assert len(_prepared(attach(dataset=file, where={"year": 2001}, train_size=None)).splits["train"]) == 72
    for where, words in (
        ({"year": 1999}, "no row of the split 'train' has year = 1999"),
        ({"age": 1}, "no column 'age'"),
    ):
        with pytest.raises(UserError, match=words):
            attach(dataset=file, where=where).prepare_data()


def test_where_takes_the_rows_that_have_all_its_values(attach: Attach, tmp_path: Path) -> None:
    frame = REVIEWS.assign(source=["imdb", "other"] * 60, year=[2000, 2000, 2001] * 40)
    wanted = np.flatnonzero((frame["source"] == "imdb") & (frame["year"] == 2001))
    assert len(wanted) == 20
    file = str(write_reviews(tmp_path / "reviews.csv", frame))
    sizes = {"train_size": None, "val_size": 0, "test_size": 5}
    data = _prepared(attach(dataset=file, where={"source": "imdb", "year": 2001}, **sizes))
    texts = [text for split in data.splits.values() for text in split["text"]]
    assert sorted(texts) == sorted(frame["text"][wanted])
    with pytest.raises(UserError, match="has source = 'imdb' and year = 1999"):
        attach(dataset=file, where={"source": "imdb", "year": 1999}, **sizes).prepare_data()


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_padding_modes(attach: Attach, padding: str) -> None:
    data = _prepared(attach(padding=padding, batch_size=5, max_length=48))
    for batch in (*data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()):
        assert set(batch) == {"input_ids", "attention_mask", "labels"}
        lengths = batch["attention_mask"].sum(dim=1)
        assert batch["input_ids"].shape[1] == (48 if padding == "max_length" else lengths.max())
        padded = batch["input_ids"][batch["attention_mask"] == 0]
        assert torch.all(padded == data.encoder.tokenizer.pad_token_id)
        assert torch.all(batch["input_ids"][:, 0] == data.encoder.tokenizer.cls_token_id)
    assert sum(len(batch["labels"]) for batch in data.train_dataloader()) == 48


def test_second_preparation_is_found(attach: Attach, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = str(write_reviews(tmp_path / "reviews.csv", synthetic_reviews(120, seed=9)))
    attach(dataset=file).prepare_data()
    first = capsys.readouterr().out
    attach(dataset=file).prepare_data()
    second = capsys.readouterr().out
    assert "Prepared reviews: 48 for training, 24 for validation, 24 for testing" in first
    assert second.replace("Found", "Prepared").splitlines() == first.strip().splitlines()[-5:]
    assert "Classes, with their training rows: neg (24), pos (24)" in second


def test_stage_opens_its_rows_alone(attach: Attach) -> None:
    for stage, names in (("fit", {"train", "val"}), ("validate", {"val"}), ("test", {"test"})):
        data = attach()
        data.prepare_data()
        data.setup(stage)
        assert set(data.splits) == names


@pytest.mark.parametrize(("stage", "name"), [("validate", "val"), ("test", "test")])
def test_nothing_to_evaluate_is_an_error(attach: Attach, stage: str, name: str) -> None:
    data = attach(val_size=0, test_size=0)
    data.prepare_data()
    data.setup("fit")
    assert data.val_dataloader() == []
    with pytest.raises(UserError, match=rf"there are no rows to {stage} on: data\.{name}_size is 0"):
        data.setup(stage)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, ""),
        (
            "--data.test_size=70 --data.train_size=10",
            "this checkpoint was trained on 6 of the rows for testing: ",
        ),
        ("--data.subset_seed=7", "of the rows for testing: subset_seed was 42 and is 7"),
        ("other rows", "has changed since this checkpoint was trained"),
    ],
)
def test_rows_of_training_are_not_tested(
    run_cli: Callable[..., tuple[int, str, str]],
    tiny_options: list[str],
    tmp_path: Path,
    change: str | None,
    words: str,
) -> None:
    file = write_reviews(tmp_path / "reviews.csv", synthetic_reviews(112))
    assert run_cli("fit", *tiny_options, f"--data.dataset={file}", "--trainer.max_epochs=1")[0] == 0
    if change == "other rows":
        write_reviews(file, synthetic_reviews(113))
    changes = change.split() if change and change.startswith("--") else []
    status, _, err = run_cli("test", "--ckpt_path", "best", *changes)
    assert status == (1 if words else 0)
    assert words in err
