"""Labelled reviews for fine-tuning, as a LightningDataModule."""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from src.data.base import PreparedDataModule
from src.data.batches import Collator, Padding, PreparedReviews, PreparedWindows
from src.data.cache import cache_dir
from src.data.fingerprints import hash_texts
from src.data.reviews import USES, Prepared, Selection, prepare_reviews
from src.data.sources import find_source
from src.data.tokens import Encoder, Truncation, check_length
from src.system.errors import UserError


class ImdbDataModule(PreparedDataModule):
    """Labelled reviews, prepared once (split, checked, tokenised and cached on disk) and served as batches.

    Works with any data set that has a text and a label column, with any number of classes. The defaults are the
    tutorial's. It stands alone, so that a notebook can look at the batches:

        data = ImdbDataModule(tokenizer="bert-base-uncased")
        data.prepare_data()
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))  # input_ids, attention_mask, labels

    Args:
        dataset: a Hub id; a folder in the Hub's layout; a csv, jsonl or parquet file; or `package://NAME/PATH`, a file
            inside an installed Python package.
        revision: commit, tag or branch of a Hub data set; a commit is found again without the network.
        where: keeps the rows whose columns have these values, as in `{source: imdb}`.
        text_column: name of the column with the text.
        label_column: name of the column with the label, integer or string.
        train_size: rows to train on, from the start of the shuffled training split; null takes all that remain.
        val_size: rows to validate on, from the end of the shuffled training split.
        test_size: rows to test on, from the start of the shuffled test split; null takes all. Without a test split,
            they are the last rows of the shuffled training split, and validation takes those before them.
        subset_seed: seed of those shuffles, as in `datasets.Dataset.shuffle(seed)`.
        max_length: tokens that are read at once, special tokens included.
        truncation: what is read of a longer review: its head, its tail, a quarter from the head and the rest from the
            tail (head_tail), or all of it, in windows of like length, each of which is trained on by itself; the
            answer is then the mean of their logits (windows).
        padding: to the longest review of the batch, or to max_length.
        group_by_length: trains on batches of reviews of like length, which saves padding; the order stays random.
        batch_size: reviews (or windows) a training step, per device.
        eval_batch_size: reviews a validation or test step, per device; null takes batch_size.
        num_workers: processes that load batches. Reading prepared rows is quick, so 0 (none) is fastest here.
        tokenizer: Hub id, folder or `package://NAME/PATH` of the model whose tokenizer is used. null: on the command
            line that of model.model_name_or_path, in Python that of bert-base-uncased.

    Attributes:
        prepared: the prepared reviews on disk.
        encoder: turns texts into token ids.
        label_names: the names of the classes, in the order of their numbers.
    """

    rows_are = "reviews"

    def __init__(
        self,
        dataset: str = "stanfordnlp/imdb",
        revision: str | None = None,
        where: dict[str, int | str] | None = None,
        text_column: str = "text",
        label_column: str = "label",
        train_size: int | None = 1000,
        val_size: int | None = 500,
        test_size: int | None = 500,
        subset_seed: int = 42,
        max_length: int = 512,
        truncation: Truncation = "head",
        padding: Padding = "longest",
        group_by_length: bool = False,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        tokenizer: str | None = None,
    ) -> None:
        super().__init__(tokenizer)
        self.save_hyperparameters()
        self.check_loading_options()
        check_length(max_length, None, "")

    @functools.cached_property
    def prepared(self) -> Prepared:
        h: Any = self.hparams
        source = find_source(h.dataset, h.revision, cache_dir())
        selection = Selection(**{field.name: h[field.name] for field in fields(Selection)})
        return prepare_reviews(source, selection, self.encoder)

    @functools.cached_property
    def encoder(self) -> Encoder:
        h: Any = self.hparams
        check_length(h.max_length, self.tokenizer_source.longest_input(), self.tokenizer_source.name)
        tokenizer = self.tokenizer_source.tokenizer()
        assert tokenizer is not None
        if tokenizer.pad_token_id is None:
            raise UserError("the tokenizer has no padding token, so reviews cannot be put into batches")
        return Encoder(tokenizer, h.max_length, h.truncation)

    @functools.cached_property
    def label_names(self) -> list[str]:
        return self.prepared.labels()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.encoder.tokenizer

    @property
    def key(self) -> str:
        return self.prepared.key

    def prepare_data(self) -> None:
        """Downloads, checks, tokenises and caches, once a machine; the other ranks wait and read the cache."""
        prepared = self.prepared
        counts = ", ".join(f"{len(prepared.rows(name)):,} for {use}" for name, use in USES.items())
        if self.hparams["truncation"] == "windows":
            counts += f"; {len(PreparedWindows(prepared.rows('train'))):,} windows to train on"
        print(f"{'Found' if prepared.found else 'Prepared'} reviews: {counts} (in {prepared.folder})", flush=True)

    def setup(self, stage: str) -> None:
        """Opens the prepared rows of the stage; "fit" needs those of training and validation."""
        for name in _ROWS_OF_STAGE[stage]:
            self.splits[name] = self.prepared.rows(name)
            if stage != "fit" and not len(self.splits[name]):
                raise UserError(f"there are no rows to {stage} on: data.{name}_size is 0")
        if stage == "fit":
            self.windows_a_row = len(self.lengths("train")) / len(self.splits["train"])

    def check_unread(self, read: np.ndarray, model: str) -> None:
        """Refuses validation and test reviews that the pre-training of `model` has read: data leakage.

        Args:
            read: hashes of what it has read, uint64 of shape (texts,).
            model: its name, for the error's text.

        Raises:
            UserError: there are such reviews.
        """
        for name in ("val", "test"):
            n = int(np.isin(hash_texts(self.prepared.rows(name)["text"]), read).sum()) if len(read) else 0
            if n:
                raise UserError(
                    f"{n} of the rows for {USES[name]} were read in the pre-training of {model!r}: "
                    "pre-train with this config in data.held_out"
                )

    def texts(self, name: str) -> datasets.Dataset:
        """The prepared rows of "val" or "test": `text`, `label`, `length` and `row`, the number in the source."""
        return self.splits[name]

    def dataset(self, name: str) -> PreparedReviews:
        """Token ids and labels: a row for each window in training, for each review in evaluation."""
        rows = self.splits[name].remove_columns(["text", "row"])
        return PreparedWindows(rows) if name == "train" else PreparedReviews(rows)

    def lengths(self, name: str) -> np.ndarray:
        dataset = self.dataset(name)
        return dataset.lengths if isinstance(dataset, PreparedWindows) else super().lengths(name)

    def collator(self, name: str) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        h: Any = self.hparams
        by_review = h.truncation == "windows" and name != "train"
        return Collator(int(self.tokenizer.pad_token_id), h.padding, h.max_length, by_review)


_ROWS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
