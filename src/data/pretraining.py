"""Unlabelled reviews for pre-training, as a LightningDataModule."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from src.data.base import PreparedDataModule
from src.data.cache import cache_dir
from src.data.corpus.prepared import Corpus, CorpusSelection, prepare_corpus
from src.data.corpus.sequences import DrawnBatches, SequenceCollator, Sequences
from src.data.held_out import held_out_of
from src.data.sources import find_source
from src.data.tokens import check_length
from src.system.errors import UserError
from src.system.seeds import run_seed


class PretrainingDataModule(PreparedDataModule):
    """Unlabelled reviews as masked pairs of segments, for BERT's two pre-training tasks.

    `prepare_data` cuts the reviews into sequences at sentence ends, tokenises and caches them. Pairs and masks are
    drawn anew in every epoch; those of validation are always the same, so that curves can be compared.

    Args:
        dataset: a Hub id; a folder in the Hub's layout; a csv, jsonl or parquet file; or `package://NAME/PATH`, a file
            inside an installed Python package.
        revision: commit, tag or branch of a Hub data set; a commit is found again without the network.
        where: keeps the rows whose columns have these values, as in `{source: imdb}`.
        split: of the data set; `train+unsupervised` takes both.
        text_column: name of the column with the text; no label is needed.
        held_out: configs of fine-tunings, as in `[configs/imdb.yaml]`. Their validation and test reviews are left out,
            known by a hash of the text: a classifier must not be judged by what its pre-training has read.
        sequence_length: tokens of a sequence, special tokens included.
        mask_rate: probability of a token to be guessed.
        next_sentence: makes two segments of each sequence, half of the second ones of another review; false leaves
            masked language modelling alone.
        train_size: reviews to train on, from the start of the shuffled split; null takes all that remain.
        val_size: reviews to validate on, from the end of the shuffled split.
        subset_seed: seed of that shuffle, as in `datasets.Dataset.shuffle(seed)`.
        group_by_length: trains on batches of sequences of like length, which saves padding; the order stays random.
        batch_size: sequences a training step, per device.
        eval_batch_size: sequences a validation step, per device; null takes batch_size.
        num_workers: processes that load batches.
        tokenizer: Hub id, folder or `package://NAME/PATH` of the model whose tokenizer is used. null: on the command
            line that of the model, in Python that of bert-base-uncased.

    Attributes:
        corpus: the prepared sequences on disk.
    """

    rows_are = "sequences"
    train_batches = DrawnBatches

    def __init__(
        self,
        dataset: str = "stanfordnlp/imdb",
        revision: str | None = None,
        where: dict[str, int | str] | None = None,
        split: str = "unsupervised",
        text_column: str = "text",
        held_out: list[str] | None = None,
        sequence_length: int = 128,
        mask_rate: float = 0.15,
        next_sentence: bool = True,
        train_size: int | None = None,
        val_size: int = 500,
        subset_seed: int = 42,
        group_by_length: bool = True,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__(tokenizer)
        self.save_hyperparameters()
        self.check_loading_options()
        check_length(sequence_length, None, "", option="data.sequence_length")
        if not 0 < mask_rate < 1:
            raise UserError(f"data.mask_rate is {mask_rate}; it must be above 0 and below 1")

    @functools.cached_property
    def _given_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """None where one is to be trained on the corpus."""
        source = self.tokenizer_source
        check_length(
            self.hparams["sequence_length"], source.longest_input(), source.name, option="data.sequence_length"
        )
        tokenizer = source.tokenizer()
        if tokenizer is not None and type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
            raise UserError(f"{source.name!r} has no WordPiece tokenizer; pre-training here is BERT's")
        return tokenizer

    @functools.cached_property
    def corpus(self) -> Corpus:
        h: Any = self.hparams
        selection = CorpusSelection(
            where=h.where,
            split=h.split,
            text_column=h.text_column,
            train_size=h.train_size,
            val_size=h.val_size,
            subset_seed=h.subset_seed,
            sequence_length=h.sequence_length,
            pairs=h.next_sentence,
        )
        source = find_source(h.dataset, h.revision, cache_dir())
        # the size first: a run that trained its tokenizer has it when it is resumed, and must find the same corpus
        tokenizer = self.tokenizer_source.vocab_size or self._given_tokenizer
        assert tokenizer is not None
        return prepare_corpus(source, selection, tokenizer, held_out_of(h.held_out or []))

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = self._given_tokenizer or self.corpus.tokenizer()
        for name in ("cls", "sep", "pad", "mask"):
            if getattr(tokenizer, f"{name}_token_id") is None:
                model = self.tokenizer_source.name
                raise UserError(f"the tokenizer of {model!r} has no {name} token, which pre-training needs")
        return tokenizer

    @property
    def key(self) -> str:
        return f"{self.corpus.key}, masked {self.hparams['mask_rate']}"

    def prepare_data(self) -> None:
        """Downloads, checks, cuts, tokenises and caches, once a machine; the other ranks wait and read the cache."""
        counts = self.corpus.counts()
        sequences = {name: len(self.corpus.rows(name)) for name in ("train", "val")}
        left_out = f"; {counts['held_out']:,} left out as they are held out" if self.hparams["held_out"] else ""
        print(
            f"{'Found' if self.corpus.found else 'Prepared'} {sequences['train']:,} sequences of {counts['train']:,} "
            f"reviews for training, {sequences['val']:,} of {counts['val']:,} for validation{left_out} "
            f"(in {self.corpus.folder})",
            flush=True,
        )

    def setup(self, stage: str) -> None:
        """Opens the prepared sequences."""
        self.splits = {name: self.corpus.rows(name) for name in ("train", "val")}
        if stage == "validate" and not len(self.splits["val"]):
            raise UserError("there are no rows to validate on: data.val_size is 0")

    def dataset(self, name: str) -> Sequences:
        """Masked sequences."""
        h: Any = self.hparams
        return Sequences(self.splits[name], self.tokenizer, h.sequence_length, h.mask_rate, h.next_sentence, run_seed())

    def collator(self, name: str) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        """Pads to the longest sequence of the batch."""
        return SequenceCollator(int(self.tokenizer.pad_token_id))
