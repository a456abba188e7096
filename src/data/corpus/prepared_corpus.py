"""Unlabelled reviews prepared for pre-training: chosen, cut into chunks, tokenised, and written to disk."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from transformers import BertTokenizer, PreTrainedTokenizerBase

from src.data.cache import Prepared, cache_key, prepare_once, write_rows
from src.data.corpus.chunks import cut_into_chunks, room_for_text
from src.data.corpus.held_out import HeldOut
from src.data.fingerprints import hash_texts, read_hashes, save_hashes
from src.data.row_selection import ROWS_AT_ONCE, check_texts, select_rows, texts_of
from src.data.sources import Source
from src.data.splits import USES, choose_rows
from src.data.tokenization import tokenizer_facts
from src.system.errors import UserError
from src.system.pretrained import read_tokenizer

_COUNTS, _TOKENIZER = "counts.json", "tokenizer"
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
    """Which rows of a source are used and how they are cut. `PretrainingDataModule` explains these options."""

    where: dict[str, bool | int | str] | None
    split: str
    text_column: str
    train_size: int | None
    val_size: int
    subset_seed: int
    sequence_length: int
    next_sentence: bool


class Corpus(Prepared):
    """A prepared corpus on disk.

    Its rows are chunks, with the columns `input_ids`, `ends` (of its sentences, in tokens), `length` (of the sequence
    that is made of it, in tokens) and `review` (its number in the corpus).
    """

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that was trained on the corpus, if one was."""
        return read_tokenizer(self.folder / _TOKENIZER)

    def hashes(self) -> np.ndarray:
        """The hashes of the training reviews, uint64, sorted."""
        return read_hashes(self.folder)

    def counts(self) -> dict[str, int]:
        """The number of reviews in "train" and "val", and of those that were left out as "held_out"."""
        counts: dict[str, int] = json.loads((self.folder / _COUNTS).read_text())
        return counts


def prepare_corpus(
    source: Source,
    selection: CorpusSelection,
    tokenizer: PreTrainedTokenizerBase | int,
    held_out: Sequence[HeldOut],
) -> Corpus:
    """Finds the prepared corpus, or prepares it.

    Args:
        source, selection: the reviews.
        tokenizer: a fast one; or the size of the vocabulary of one to be trained on the reviews.
        held_out: reviews that are left out, wherever their text occurs.

    Raises:
        UserError: the source cannot be read, or its content cannot be used.
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
        s = selection
        reviews = _read(source, s)
        hashes = hash_texts(texts_of(reviews, s.text_column))
        kept = np.ones(len(hashes), dtype=bool)
        for held in held_out:
            kept &= ~np.isin(hashes, held.hashes())
        reviews, hashes = reviews.select(np.flatnonzero(kept)), hashes[kept]
        subsets = choose_rows({"train": len(reviews)}, s.train_size, s.val_size, 0, s.subset_seed)
        train, val = subsets["train"].indices, subsets["val"].indices
        used = tokenizer
        if isinstance(used, int):
            batches = (batch[s.text_column] for batch in reviews.select(train).iter(ROWS_AT_ONCE))
            used = BertTokenizer().train_new_from_iterator(batches, used)  # WordPiece, as in bert-base-uncased
            used.save_pretrained(str(folder / _TOKENIZER))
        _write_chunks(folder, "train", reviews, train, s, used)
        _write_chunks(folder, "val", reviews, val, s, used)
        save_hashes(folder, np.unique(hashes[train]))
        counts = {"train": len(train), "val": len(val), "held_out": int((~kept).sum())}
        (folder / _COUNTS).write_text(json.dumps(counts))

    return Corpus(key, *prepare_once(key, build))


def _read(source: Source, selection: CorpusSelection) -> datasets.Dataset:
    """The chosen reviews of all chosen splits, checked."""
    column = selection.text_column
    names, there = selection.split.split("+"), source.splits()
    for name in names:
        if name not in there:
            raise UserError(
                f"the data set {source.dataset!r} has no split {name!r} (data.split; its splits: {', '.join(there)})"
            )
    splits = source.read(list(dict.fromkeys([column, *(selection.where or ())])), names)
    parts = []
    for name in names:
        part = select_rows(splits[name], name, source.dataset, selection.where, [column])
        check_texts(part, column, np.arange(len(part)), name)
        parts.append(part)
    return datasets.concatenate_datasets(parts)


def _write_chunks(
    folder: Path,
    name: str,
    reviews: datasets.Dataset,
    numbers: np.ndarray,
    selection: CorpusSelection,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Writes the chunks of the reviews with these numbers, a row each."""
    if not len(numbers):
        return
    longest, pairs = selection.sequence_length, selection.next_sentence
    room = room_for_text(longest, pairs)

    def cut(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {column: [] for column in _FEATURES}
        texts = batch[selection.text_column]
        for index, chunks in zip(indices, cut_into_chunks(texts, tokenizer, room, pairs), strict=True):
            for chunk in chunks:
                ids = list(chain.from_iterable(chunk))
                columns["input_ids"].append(ids)
                columns["ends"].append(list(accumulate(map(len, chunk))))
                columns["length"].append(min(len(ids) + longest - room, longest))
                columns["review"].append(int(numbers[index]))
        return columns

    description = f"Cutting into sequences for {USES[name]}"
    chunks = write_rows(folder, name, reviews.select(numbers), cut, _FEATURES, description)
    if not len(chunks):
        raise UserError(f"the reviews for {USES[name]} hold no sequence that could be used: they are too short")
    if pairs and len(chunks.unique("review")) < 2:
        raise UserError(
            f"data.next_sentence needs sequences of two reviews at least for {USES[name]}, to take segments of "
            "another one; raise the number of rows"
        )
