"""Reviews without labels, prepared for pre-training: cut into chunks and tokenised, on disk."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from src.data.cache import ROWS_AT_ONCE, cache_key, map_into, prepare_once, stored_rows
from src.data.corpus.chunks import Chunker
from src.data.corpus.held_out import HeldOut
from src.data.fingerprints import hash_texts
from src.data.prepared_reviews import USES, select_rows
from src.data.sources import Source
from src.data.splits import choose_rows
from src.data.tokenization import check_texts, tokenizer_facts
from src.system.errors import UserError

_COUNTS, _TOKENIZER, _TEXTS = "counts.json", "tokenizer", "texts.npy"
_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "ends": datasets.List(datasets.Value("int32")),
        "length": datasets.Value("int32"),
        "review": datasets.Value("int64"),
    }
)


@dataclass(frozen=True)
class CorpusSelection:
    """Which rows of a source are meant, and how they are cut; the options of `PretrainingDataModule` say what each is.

    Attributes:
        pairs: the chunks are to be parted in two.
    """

    where: dict[str, int | str] | None
    split: str
    text_column: str
    train_size: int | None
    val_size: int
    subset_seed: int
    sequence_length: int
    pairs: bool

    @property
    def room(self) -> int:
        """Tokens of a sequence beside [CLS] and its one or two [SEP]."""
        return self.sequence_length - (3 if self.pairs else 2)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus on disk.

    Attributes:
        key: changes with the source's content, the selection and the tokenizer.
        folder: has a data set each for "train" and "val".
        found: it was there already.
    """

    key: str
    folder: Path
    found: bool

    def rows(self, name: str) -> datasets.Dataset:
        """The chunks of "train" or "val": `input_ids`, `ends` (of its sentences), `length` and `review`, its number."""
        return stored_rows(self.folder / name, _FEATURES)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that was trained on the corpus, where one was."""
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.folder / _TOKENIZER)
        return tokenizer

    def hashes(self) -> np.ndarray:
        """Of the reviews that training reads, uint64, sorted."""
        hashes: np.ndarray = np.load(self.folder / _TEXTS)
        return hashes

    def counts(self) -> dict[str, int]:
        """Reviews by use ("train", "val"), and how many were left out since they are held out."""
        counts: dict[str, int] = json.loads((self.folder / _COUNTS).read_text())
        return counts


def prepare_corpus(
    source: Source,
    selection: CorpusSelection,
    tokenizer: PreTrainedTokenizerBase | int,
    held_out: Sequence[HeldOut],
) -> Corpus:
    """Finds the prepared corpus, or makes it.

    Args:
        source, selection: the reviews.
        tokenizer: a fast one; or the size of the vocabulary of one that is to be trained on the reviews.
        held_out: rows whose texts are left out, wherever they stand.

    Raises:
        UserError: the source cannot be read, or its content will not do; the text says what and where.
    """
    key = cache_key(
        {
            "source": source.fingerprint,
            "corpus": asdict(selection),
            "tokenizer": tokenizer if isinstance(tokenizer, int) else tokenizer_facts(tokenizer),
            "held_out": [held.facts() for held in held_out],
        }
    )

    def build(folder: Path) -> None:
        reviews, n_left_out, hashes = _reviews(source, selection, held_out)
        subsets = choose_rows(
            {"train": len(reviews)}, selection.train_size, selection.val_size, 0, selection.subset_seed
        )
        train = reviews.select(subsets["train"].indices)
        if isinstance(tokenizer, int):
            used = _train_tokenizer(train, selection.text_column, tokenizer)
            used.save_pretrained(str(folder / _TOKENIZER))
        else:
            used = tokenizer
        for name in ("train", "val"):
            indices = subsets[name].indices
            if not len(indices):
                continue  # `load_from_disk` cannot open a data set without rows
            unfinished = folder / "chunks.arrow"
            chunks = _chunk(reviews.select(indices), indices, selection, used, unfinished, f"for {USES[name]}")
            _check_chunks(chunks, name, selection)
            chunks.save_to_disk(str(folder / name))
            unfinished.unlink(missing_ok=True)
        np.save(folder / _TEXTS, np.unique(hashes[subsets["train"].indices]))
        counts = {name: len(subsets[name].indices) for name in ("train", "val")} | {"held_out": n_left_out}
        (folder / _COUNTS).write_text(json.dumps(counts))

    folder, found = prepare_once(key, build)
    return Corpus(key, folder, found)


def _reviews(
    source: Source, selection: CorpusSelection, held_out: Sequence[HeldOut]
) -> tuple[datasets.Dataset, int, np.ndarray]:
    """The texts that may be used, the number of those that are held out, and the hashes of the former."""
    splits = source.read()
    parts = []
    for name in selection.split.split("+"):
        if name not in splits:
            raise UserError(
                f"the data set {source.dataset!r} has no split {name!r} (data.split; its splits: {', '.join(splits)})"
            )
        part = select_rows(splits[name], name, source.dataset, selection.where, [selection.text_column])
        check_texts(_texts(part, selection.text_column), selection.text_column, np.arange(len(part)), name)
        parts.append(part)
    reviews = datasets.concatenate_datasets(parts)
    hashes = hash_texts(_texts(reviews, selection.text_column))
    kept = np.ones(len(hashes), dtype=bool)
    for held in held_out:
        kept &= ~np.isin(hashes, held.hashes())
    return reviews.select(np.flatnonzero(kept)), int((~kept).sum()), hashes[kept]


def _texts(reviews: datasets.Dataset, column: str) -> Iterator[str]:
    return (text for batch in reviews.iter(ROWS_AT_ONCE) for text in batch[column])


def _train_tokenizer(reviews: datasets.Dataset, column: str, vocab_size: int) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer in the manner of bert-base-uncased, from the reviews that training reads."""
    tokenizer: PreTrainedTokenizerBase = BertTokenizer().train_new_from_iterator(
        (batch[column] for batch in reviews.iter(ROWS_AT_ONCE)), vocab_size
    )
    return tokenizer


def _chunk(
    reviews: datasets.Dataset,
    numbers: np.ndarray,
    selection: CorpusSelection,
    tokenizer: PreTrainedTokenizerBase,
    file: Path,
    what_for: str,
) -> datasets.Dataset:
    """A row for each chunk, on disk in `file`."""
    chunker = Chunker(tokenizer, selection.room, selection.pairs)
    n_special = selection.sequence_length - selection.room

    def rows(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in _FEATURES}
        for index, chunks in zip(indices, chunker.chunks(batch[selection.text_column]), strict=True):
            for chunk in chunks:
                ids = [token for sentence in chunk for token in sentence]
                columns["input_ids"].append(ids)
                columns["ends"].append(np.cumsum([len(sentence) for sentence in chunk]).tolist())
                columns["length"].append(min(len(ids), selection.room) + n_special)
                columns["review"].append(int(numbers[index]))
        return columns

    return map_into(file, reviews, rows, _FEATURES, f"Cutting into sequences {what_for}")


def _check_chunks(chunks: datasets.Dataset, name: str, selection: CorpusSelection) -> None:
    if not len(chunks):
        raise UserError(f"the reviews for {USES[name]} hold no sequence that could be used: they are too short")
    if selection.pairs and len(chunks.unique("review")) < 2:
        raise UserError(
            f"data.next_sentence needs sequences of two reviews at least for {USES[name]}, to take segments of "
            "another one; raise the number of rows"
        )
