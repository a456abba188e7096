"""Unlabelled reviews for pre-training, as a LightningDataModule."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from src.data.base import PreparedDataModule
from src.data.cache import cache_dir
from src.data.corpus.prepared import Corpus, CorpusSelection, prepare_corpus
from src.data.corpus.sequences import DrawnBatches, SequenceCollator, Sequences
from src.data.held_out import held_out_of
from src.data.sources import find_source
from src.data.tokens import check_length
from src.system.errors import UserError


class PretrainingDataModule(PreparedDataModule):
    """Reviews without labels, as pairs of segments with some of their tokens masked: BERT's own two tasks.

    Found, cut into sequences at the ends of sentences, tokenised and cached in `prepare_data`. Pairs and masks are
    drawn anew in every epoch; those of validation are always the same, so that curves compare.

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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_loading_options()
        check_length(sequence_length, None, "", option="data.sequence_length")
        if not 0 < mask_rate < 1:
            raise UserError(f"data.mask_rate is {mask_rate}; it must be above 0 and below 1")
        self.tokenizer: PreTrainedTokenizerBase
        self.corpus: Corpus

    def prepare_data(self) -> None:
        """Downloads, checks, cuts, tokenises and caches, once a machine; the other ranks wait and read the cache."""
        self._prepare()
        self.module.origin.check_weights(self.tokenizer)
        self.check_resumption()
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
        self._prepare()
        self.splits = {name: self.corpus.rows(name) for name in ("train", "val")}
        if stage == "validate" and not len(self.splits["val"]):
            raise UserError("there are no rows to validate on: data.val_size is 0")

    def _prepare(self) -> None:
        h: Any = self.hparams
        origin = self.module.origin
        check_length(h.sequence_length, origin.longest_input(), origin.name, option="data.sequence_length")
        tokenizer = origin.tokenizer()
        if tokenizer is not None and type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
            raise UserError(f"{origin.name!r} has no WordPiece tokenizer; pre-training here is BERT's")
        self.corpus = prepare_corpus(
            find_source(h.dataset, h.revision, cache_dir()),
            CorpusSelection(
                h.where,
                h.split,
                h.text_column,
                h.train_size,
                h.val_size,
                h.subset_seed,
                h.sequence_length,
                pairs=h.next_sentence,
            ),
            # with one that is trained on the corpus, a resumed run has it already and must find the same corpus
            origin.vocab_size or tokenizer,
            held_out_of(h.held_out or []),
        )
        self.key = f"{self.corpus.key}, masked {h.mask_rate}"
        self.tokenizer = self.corpus.tokenizer() if tokenizer is None else tokenizer
        if missing := [name for name in ("cls", "sep", "pad", "mask") if self._special(name) is None]:
            raise UserError(f"the tokenizer of {origin.name!r} has no {missing[0]} token, which pre-training needs")

    def _special(self, name: str) -> int | None:
        token: int | None = getattr(self.tokenizer, f"{name}_token_id")
        return token

    def dataset(self, name: str) -> Dataset[Any]:
        """Masked sequences."""
        h: Any = self.hparams
        seed = self.module.seed
        return Sequences(self.splits[name], self.tokenizer, h.sequence_length, h.mask_rate, h.next_sentence, seed)

    def collator(self, name: str) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        """Pads to the longest sequence of the batch."""
        pad_token_id = self._special("pad")
        assert pad_token_id is not None
        return SequenceCollator(pad_token_id)
