"""Prepared corpora: which reviews are in them, and which are kept out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from transformers import AutoTokenizer

from src.data.corpus.held_out import held_out_of
from src.data.corpus.prepared_corpus import Corpus, CorpusSelection, prepare_corpus
from src.data.fingerprints import hash_texts
from src.data.sources import find_source
from src.data.splits import shuffled
from src.system.errors import UserError
from tests.synthetic import synthetic_corpus

Make = Callable[..., Corpus]


@pytest.fixture
def make(tiny_bert: Path) -> Make:
    def corpus(path: Path, held_out: list[str] | None = None, vocab_size: int = 0, **changes: object) -> Corpus:
        options = {"where": None, "split": "train", "text_column": "text", "train_size": None, "val_size": 10}
        options |= {"subset_seed": 42, "sequence_length": 32, "next_sentence": True}
        return prepare_corpus(
            find_source(str(path), None),
            CorpusSelection(**(options | changes)),  # type: ignore[arg-type]
            vocab_size or AutoTokenizer.from_pretrained(tiny_bert),
            held_out_of(held_out or []),
        )

    return corpus


def _finetuning(path: Path, data: pd.DataFrame, **options: object) -> str:
    data.assign(label=["neg", "pos"] * (len(data) // 2)).to_csv(path.with_suffix(".csv"), index=False)
    init_args = {"dataset": str(path.with_suffix(".csv")), "train_size": None, "val_size": 6, "test_size": 4, **options}
    path.write_text(yaml.safe_dump({"data": {"class_path": "ImdbDataModule", "init_args": init_args}}))
    return str(path)


def test_rows_are_the_first_and_the_last_of_the_shuffle(make: Make, corpus_csv: Path) -> None:
    corpus = make(corpus_csv, train_size=50, val_size=20)
    order = shuffled(80, 42)
    assert set(corpus.rows("train")["review"]) == set(order[:50].tolist())
    assert set(corpus.rows("val")["review"]) == set(order[60:].tolist())
    assert corpus.counts() == {"train": 50, "val": 20, "held_out": 0}
    assert not corpus.found
    assert make(corpus_csv, train_size=50, val_size=20).found


def test_what_a_classifier_is_judged_by_is_left_out(make: Make, tmp_path: Path) -> None:
    """Its own rows, and others with the same text, whatever their spaces and capitals."""
    reviews = synthetic_corpus(60)
    config = _finetuning(tmp_path / "finetuning.yaml", reviews)
    judged = reviews["text"].iloc[shuffled(60, 42)[-10:]]
    unlabelled = pd.concat([reviews[["text"]], pd.DataFrame({"text": judged.str.upper().str.replace(" ", "\n ")})])
    unlabelled.to_csv(tmp_path / "corpus.csv", index=False)
    corpus = make(tmp_path / "corpus.csv", [config], val_size=5)
    assert corpus.counts() == {"train": 45, "val": 5, "held_out": 20}
    assert not np.isin(hash_texts(judged), corpus.hashes()).any()
    assert len(corpus.hashes()) == 45
    whole = make(tmp_path / "corpus.csv", val_size=5)
    assert whole.key != corpus.key
    assert whole.counts()["train"] == 65


def test_splits_are_joined_and_rows_chosen(make: Make, tmp_path: Path) -> None:
    import datasets

    frame = synthetic_corpus(40)
    frame["kind"] = ["film"] * 30 + ["book"] * 10
    parts = {"train": frame.iloc[:20], "unsupervised": frame.iloc[20:]}
    splits = {name: datasets.Dataset.from_pandas(part, preserve_index=False) for name, part in parts.items()}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    options = {"where": {"kind": "film"}, "val_size": 5}
    assert make(tmp_path / "both", split="train+unsupervised", **options).counts()["train"] == 25
    assert make(tmp_path / "both", split="unsupervised", **options).counts()["train"] == 5


def test_a_tokenizer_is_trained_on_the_training_reviews(make: Make, corpus_csv: Path, tmp_path: Path) -> None:
    corpus = make(corpus_csv, vocab_size=120)
    tokenizer = corpus.tokenizer()
    assert 50 < len(tokenizer) <= 120
    assert tokenizer.unk_token_id not in tokenizer("The wonderful film.")["input_ids"]
    ids = [token for row in corpus.rows("train")["input_ids"] for token in row]
    assert max(ids) < len(tokenizer)
    frame = pd.read_csv(corpus_csv)
    frame.loc[shuffled(80, 42)[-10:], "text"] += " Zebra zebra zebra." * 50
    frame.to_csv(tmp_path / "zebra.csv", index=False)
    assert "zebra" not in make(tmp_path / "zebra.csv", vocab_size=120).tokenizer().get_vocab(), "of validation alone"
    assert "zebra" in make(tmp_path / "zebra.csv", vocab_size=120, subset_seed=1).tokenizer().get_vocab()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "unsupervised"}, "no split 'unsupervised'"),
        ({"text_column": "review"}, "no column 'review'"),
        ({"val_size": 1}, "two reviews at least for validation"),
        ({"train_size": 200}, "data.train_size is 200"),
    ],
)
def test_what_will_not_do_is_named(make: Make, corpus_csv: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(corpus_csv, **changes)


@pytest.mark.parametrize("content", ["", "model: {}", "data: 7", "data: {class_path: PretrainingDataModule}", "a: ["])
def test_a_config_of_another_kind_holds_nothing_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "other.yaml").write_text(content)
    with pytest.raises(UserError, match=r"data\.held_out"):
        held_out_of([str(tmp_path / "other.yaml")])
    with pytest.raises(UserError, match="cannot be read"):
        held_out_of([str(tmp_path / "none.yaml")])
