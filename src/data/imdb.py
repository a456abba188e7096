"""Labelled reviews for fine-tuning, as a LightningDataModule."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from src.data.base import PreparedDataModule
from src.data.batches import Collator, Padding, PreparedReviews, PreparedWindows
from src.data.cache import cache_dir
from src.data.fingerprints import hash_texts
from src.data.reviews import USES, Prepared, Selection, prepare_reviews
from src.data.sources import find_source
from src.data.tokens import Encoder, Truncation, check_length
from src.system.errors import UserError


class ImdbDataModule(PreparedDataModule):
    """Reviews and their labels: found, checked, cut into subsets, tokenised and cached in `prepare_data`.

    The tokenizer is the model's (`trainer.lightning_module.origin.tokenizer()`). Any data set with a text and a label
    column will do, with any number of classes; the defaults are the tutorial's.

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
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_loading_options()
        check_length(max_length, None, "")
        self.label_names: list[str] = []
        self.encoder: Encoder

    def prepare_data(self) -> None:
        """Downloads, checks, tokenises and caches, once a machine; the other ranks wait and read the cache."""
        prepared = self._prepare()
        self.module.origin.check_weights(self.encoder.tokenizer)
        self.module.origin.check_labels(prepared.labels())
        self._check_unread(prepared)
        self.check_resumption()
        counts = ", ".join(f"{len(prepared.rows(name)):,} for {use}" for name, use in USES.items())
        if self.hparams["truncation"] == "windows":
            counts += f"; {len(PreparedWindows(prepared.rows('train'))):,} windows to train on"
        print(f"{'Found' if prepared.found else 'Prepared'} reviews: {counts} (in {prepared.folder})", flush=True)

    def _check_unread(self, prepared: Prepared) -> None:
        """Refuses rows to be judged by that the pre-training has read: its results would be too good."""
        read = self.module.origin.texts_read()
        for name in ("val", "test"):
            n = int(np.isin(hash_texts(prepared.rows(name)["text"]), read).sum()) if len(read) else 0
            if n:
                raise UserError(
                    f"{n} of the rows for {USES[name]} were read in the pre-training of "
                    f"{self.module.hparams['model_name_or_path']!r}: pre-train with this config in data.held_out"
                )

    def setup(self, stage: str) -> None:
        """Opens the prepared rows of the stage; "fit" needs those of training and validation."""
        prepared = self._prepare()
        self.label_names = prepared.labels()
        for name in _ROWS_OF_STAGE[stage]:
            self.splits[name] = prepared.rows(name)
            if stage != "fit" and not len(self.splits[name]):
                raise UserError(f"there are no rows to {stage} on: data.{name}_size is 0")
        if stage == "fit":
            self.windows_a_row = len(self.lengths("train")) / len(self.splits["train"])

    def _prepare(self) -> Prepared:
        h: Any = self.hparams
        check_length(h.max_length, self.module.origin.longest_input(), self.module.hparams["model_name_or_path"])
        self.encoder = Encoder(self.module.origin.tokenizer(), h.max_length, h.truncation)
        source = find_source(h.dataset, h.revision, cache_dir())
        selection = Selection(**{field.name: h[field.name] for field in fields(Selection)})
        prepared = prepare_reviews(source, selection, self.encoder)
        self.key = prepared.key
        return prepared

    def dataset(self, name: str) -> PreparedReviews:
        """Token ids and labels: to train on, of each window; to be judged by, of each review."""
        rows = self.splits[name].remove_columns(["text", "row"])
        return PreparedWindows(rows) if name == "train" else PreparedReviews(rows)

    def lengths(self, name: str) -> np.ndarray:
        """Tokens of each item of `dataset(name)`."""
        dataset = self.dataset(name)
        return dataset.lengths if isinstance(dataset, PreparedWindows) else super().lengths(name)

    def collator(self, name: str) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        """Pads to `padding`."""
        h: Any = self.hparams
        pad_token_id = self.encoder.tokenizer.pad_token_id
        if pad_token_id is None:
            raise UserError("the tokenizer has no padding token, so reviews cannot be put into batches")
        by_review = h.truncation == "windows" and name != "train"
        return Collator(pad_token_id, h.padding, h.max_length, by_review)


_ROWS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
