"""PretrainingDataModule: the LightningDataModule for pre-training, with unlabelled reviews."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from transformers import PreTrainedTokenizerBase

from src.data.base import PreparedDataModule
from src.data.batches import Batch
from src.data.corpus.held_out import held_out_of
from src.data.corpus.prepared_corpus import Corpus, CorpusSelection, prepare_corpus
from src.data.corpus.sequences import DrawnBatches, SequenceCollator, Sequences
from src.data.examples import Example
from src.data.sources import Source, find_source
from src.data.tokenization import check_length
from src.system.errors import UserError
from src.system.seeds import run_seed


class PretrainingDataModule(PreparedDataModule):
    """Unlabelled reviews as masked pairs of segments, for BERT's two pre-training tasks.

    `prepare_data` cuts the reviews into sequences at the ends of sentences, tokenises and caches them. Training draws
    pairs and masks anew in each epoch. Validation always draws the same, so that its curves can be compared.

    Args:
        dataset: a Hub id; a folder in the Hub's layout; a csv, tsv, jsonl, json or parquet file; or
            `package://NAME/PATH`, a file inside an installed Python package.
        revision: commit, tag or branch of a Hub data set. A commit is found again without network access.
        config_name: a configuration of the data set, such as sst2 of nyu-mll/glue; null takes the only or default one.
        where: keeps only the rows whose columns have these values, as in `{source: imdb}`.
        split: name of the data set's split; `train+unsupervised` takes both.
        text_column: name of the column with the text. No label is needed.
        held_out: configs of fine-tunings, as in `[configs/imdb.yaml]`. Their validation and test reviews are left out,
            to avoid data leakage: they are recognised by a hash of the text.
        sequence_length: tokens of a sequence, special tokens included.
        mask_rate: probability of a token to be masked, and so to be predicted.
        next_sentence: makes two segments of each sequence, and takes half of the second ones from another review; false
            trains masked language modelling only.
        train_size: number of training reviews, from the start of the shuffled split; null takes all that remain.
        val_size: number of validation reviews, from the end of the shuffled split.
        subset_seed: seed of this shuffle, as in `datasets.Dataset.shuffle(seed)`.
        group_by_length: trains on batches of sequences of similar length, which saves padding; the order stays random.
        batch_size: sequences in a training step, per device.
        eval_batch_size: sequences in a validation step, per device; null takes batch_size.
        num_workers: processes that load batches.
        tokenizer: Hub id, folder or `package://NAME/PATH` of the model whose tokenizer is used. null takes that of the
            model on the command line, and that of bert-base-uncased in Python.

    Attributes:
        corpus: the prepared sequences on disk.
    """

    rows_are = "sequences"
    train_batches = DrawnBatches

    def __init__(
        self,
        dataset: str = "stanfordnlp/imdb",
        revision: str | None = None,
        config_name: str | None = None,
        where: dict[str, bool | int | str] | None = None,
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
        check_length("data.sequence_length", sequence_length)
        if not 0 < mask_rate < 1:
            raise UserError(f"data.mask_rate is {mask_rate}; it must be above 0 and below 1")

    @functools.cached_property
    def _given_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """None if one is to be trained on the corpus."""
        origin = self.tokenizer_source
        check_length("data.sequence_length", self.hparams["sequence_length"], origin.longest_input(), origin.name)
        tokenizer = origin.tokenizer()
        if tokenizer is not None and type(tokenizer.backend_tokenizer.model).__name__ != "WordPiece":
            raise UserError(f"{origin.name!r} has no WordPiece tokenizer; pre-training here is BERT's")
        for name in ("cls", "sep", "pad", "mask"):
            if tokenizer is not None and getattr(tokenizer, f"{name}_token_id") is None:
                raise UserError(f"the tokenizer of {origin.name!r} has no {name} token, which pre-training needs")
        return tokenizer

    @functools.cached_property
    def _source(self) -> Source:
        h: Any = self.hparams
        return find_source(h.dataset, h.revision, h.config_name)

    @functools.cached_property
    def corpus(self) -> Corpus:
        h: Any = self.hparams
        selection = CorpusSelection(**{field.name: h[field.name] for field in fields(CorpusSelection)})
        # the size first: a resumed run that trained its tokenizer has that tokenizer too, but must find the same corpus
        tokenizer = self.tokenizer_source.vocab_size or self._given_tokenizer
        assert tokenizer is not None
        return prepare_corpus(self._source, selection, tokenizer, held_out_of(h.held_out or []))

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._given_tokenizer or self.corpus.tokenizer()

    @property
    def fingerprint(self) -> str:
        return self._source.fingerprint

    def origin_of(self, name: str) -> tuple[Source, str]:
        return self._source, str(self.hparams["split"])

    @property
    def key(self) -> str:
        return f"{self.corpus.key}, masked {self.hparams['mask_rate']}"

    def prepare_data(self) -> None:
        """Downloads, checks, cuts, tokenises and caches, once a machine. The other ranks wait, and read the cache."""
        counts = self.corpus.counts()
        sequences = {name: len(self.corpus.rows(name)) for name in ("train", "val")}
        left_out = f"; {counts['held_out']:,} left out as they are held out" if self.hparams["held_out"] else ""
        print(
            f"{'Found' if self.corpus.found else 'Prepared'} {sequences['train']:,} sequences of {counts['train']:,} "
            f"reviews for training, {sequences['val']:,} of {counts['val']:,} for validation{left_out} "
            f"(in {self.corpus.folder})",
            flush=True,
        )
        if self._source.repository:
            print(f"Data set: {self._source}", flush=True)

    def setup(self, stage: str) -> None:
        """Opens the prepared sequences."""
        self.splits = {name: self.corpus.rows(name) for name in ("train", "val")}
        if stage == "validate" and not len(self.splits["val"]):
            raise UserError("there are no rows to validate on: data.val_size is 0")

    def dataset(self, name: str) -> Sequences:
        """Masked sequences, of one or two segments."""
        h: Any = self.hparams
        return Sequences(self.splits[name], self.tokenizer, h.sequence_length, h.mask_rate, h.next_sentence, run_seed())

    def collator(self, name: str) -> Callable[[list[Example]], Batch]:
        """Pads to the longest sequence of the batch."""
        return SequenceCollator(int(self.tokenizer.pad_token_id))
