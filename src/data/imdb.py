"""ImdbDataModule: the LightningDataModule for fine-tuning, with labelled reviews."""

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from src.data.base import PreparedDataModule
from src.data.batches import Batch
from src.data.examples import Collator, Example, Padding, ReviewExamples, WindowExamples, column
from src.data.fingerprints import hash_texts
from src.data.label_sets import check_label_columns
from src.data.labels import near_equal
from src.data.prepared_reviews import (
    Reviews,
    Selection,
    classes_of,
    labelled_splits,
    prepare_reviews,
    source_of,
    splits_used,
)
from src.data.sources import Source
from src.data.splits import SPLITS, USES, choose_rows
from src.data.tokenization import Encoder, Truncation, check_length
from src.runs.checkpoint_reading import changed_options
from src.system.errors import UserError

_SUBSETS_OF_STAGE = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
_CLASSES_SHOWN = 20


class ImdbDataModule(PreparedDataModule):
    """Labelled reviews, prepared once (split, checked, tokenised and cached on disk) and loaded as batches.

    Works with any data set that has a text column and a label column, with any number of classes. The defaults are the
    tutorial's. It needs no Trainer, so that a notebook can look at the batches:

        data = ImdbDataModule(tokenizer="bert-base-uncased")
        data.prepare_data()
        data.setup("fit")
        batch = next(iter(data.train_dataloader()))  # input_ids, attention_mask, labels

    Args:
        dataset: a Hub id; a folder in the Hub's layout; a csv, tsv, jsonl, json or parquet file; or
            `package://NAME/PATH`, a file inside an installed Python package.
        revision: commit, tag or branch of a Hub data set. A commit is found again without network access.
        config_name: a configuration of the data set, such as sst2 of nyu-mll/glue; null takes the only or default one.
        where: keeps only the rows whose columns have these values, as in `{source: imdb}`.
        text_column: name of the column with the text.
        label_column: name of the column with the label, an integer or a string. Where a text may have several labels,
            or none: names of columns of 0 and 1, as in `[toxic, threat, insult]`; or the name of a column that holds
            lists (json, parquet), or texts that `label_separator` splits.
        label_separator: what stands between the labels of a text in the label column, such as "|"; an empty text means
            no label. null takes the whole text as one label.
        train_size: number of training rows, from the start of the shuffled training split; null takes all that remain.
        val_size: number of validation rows, from the start of the shuffled validation split; null takes all. Without a
            validation split, they are the last rows of the shuffled training split, before those for testing.
        test_size: number of test rows, from the start of the shuffled test split; null takes all. Without a test split,
            they are the last rows of the shuffled training split.
        validation_data: a file, a folder or `package://NAME/PATH` with the validation rows, in place of a validation
            split: a table with the same columns, whose classes are matched by name. Of a folder with several splits,
            the one for validation is read.
        test_data: the same for the test rows.
        allow_overlap: false refuses validation and test rows whose texts are among the training rows too. They are
            counted and named in any case; white space and case make no difference.
        subset_seed: seed of these shuffles, as in `datasets.Dataset.shuffle(seed)`.
        stratify: gives each part of a split the proportions of the classes that the split has: of each class the first
            (or last) rows of the shuffle, in numbers rounded by the largest remainder.
        max_length: tokens that the model reads at once, special tokens included.
        truncation: what is read of a longer review. head: its start. tail: its end. head_tail: a quarter from the start
            and the rest from the end. windows: all of it, in windows of equal length; training uses each window as an
            example, and evaluation the mean of a review's logits.
        padding: to the longest review of the batch, or to max_length.
        group_by_length: trains on batches of reviews of similar length, which saves padding; the order stays random.
        batch_size: reviews (or windows) in a training step, per device.
        eval_batch_size: reviews in a validation or test step, per device; null takes batch_size.
        num_workers: processes that load batches. Prepared rows load quickly, so 0 (no extra process) is fastest here.
        tokenizer: Hub id, folder or `package://NAME/PATH` of the model whose tokenizer is used. null takes that of
            model.model_name_or_path on the command line, and that of bert-base-uncased in Python.

    Attributes:
        source: the data set.
        selection: the rows and columns of it that are used.
        encoder: turns texts into token ids.
        prepared: the prepared reviews on disk.
        label_names: the names of the classes, in the order of their numbers.
    """

    rows_are = "reviews"

    def __init__(
        self,
        dataset: str = "stanfordnlp/imdb",
        revision: str | None = None,
        config_name: str | None = None,
        where: dict[str, bool | int | str] | None = None,
        text_column: str = "text",
        label_column: str | list[str] = "label",
        label_separator: str | None = None,
        train_size: int | None = 1000,
        val_size: int | None = 500,
        test_size: int | None = 500,
        validation_data: str | None = None,
        test_data: str | None = None,
        allow_overlap: bool = True,
        subset_seed: int = 42,
        stratify: bool = False,
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
        check_length("data.max_length", max_length)
        check_label_columns(label_column, label_separator)

    @functools.cached_property
    def source(self) -> Source:
        return source_of(self.hparams)

    @property
    def selection(self) -> Selection:
        return Selection.of(self.hparams)

    @functools.cached_property
    def encoder(self) -> Encoder:
        h: Any = self.hparams
        origin = self.tokenizer_source
        check_length("data.max_length", h.max_length, origin.longest_input(), origin.name)
        tokenizer = origin.tokenizer()
        assert tokenizer is not None
        if tokenizer.pad_token_id is None:
            raise UserError(
                f"the tokenizer of {origin.name!r} has no padding token, so reviews cannot be put into batches"
            )
        return Encoder(tokenizer, h.max_length, h.truncation)

    @functools.cached_property
    def prepared(self) -> Reviews:
        return prepare_reviews(self.source, self.selection, self.encoder)

    @functools.cached_property
    def label_names(self) -> list[str]:
        return self.prepared.label_names

    @property
    def problem_type(self) -> str:
        """How many labels a text has, as a configuration of `transformers` says it."""
        return "single_label_classification" if self.prepared.one_label else "multi_label_classification"

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.encoder.tokenizer

    @property
    def key(self) -> str:
        return self.prepared.key

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def origin_of(self, name: str) -> tuple[Source, str]:
        used = splits_used(self.source)
        return used.get(SPLITS[name], used["train"])

    def prepare_data(self) -> None:
        """Downloads, checks, tokenises and caches, once a machine. The other ranks wait, and read the cache."""
        prepared, sizes = self.prepared, self.prepared.split_sizes()
        if self.source.repository:
            print(f"Data set: {self.source}")
        counts = ", ".join(f"{len(prepared.rows(name)):,} for {use}" for name, use in USES.items())
        if self.hparams["truncation"] == "windows":
            counts += f"; {len(WindowExamples(prepared.rows('train'))):,} windows to train on"
        print(f"{'Found' if prepared.found else 'Prepared'} reviews: {counts} (in {prepared.folder})")
        for name in ("val", "test"):
            if n := len(prepared.rows(name)):
                print(f"Rows for {USES[name]}: {self._taken(name, n, sizes.get(SPLITS[name]))}")
        classes = [f"{_quoted(name)} ({count:,})" for name, count in prepared.classes().items()]
        more = f" and {len(classes) - _CLASSES_SHOWN} more" if len(classes) > _CLASSES_SHOWN else ""
        more += f"; {n:,} rows have none" if (n := prepared.without_label()) else ""
        print(f"Classes, with their training rows: {', '.join(classes[:_CLASSES_SHOWN])}{more}", flush=True)
        for one, other in near_equal(self.label_names):
            print(f"warning: the classes {one!r} and {other!r} are spelt alike: are they one?", file=sys.stderr)
        shared = prepared.shared_texts()
        print("Texts in two of these:", "; ".join(map(str, shared)) or "none", flush=True)
        if not self.hparams["allow_overlap"] and (leaks := [each for each in shared if each.earlier == "train"]):
            raise UserError(f"{'; '.join(map(str, leaks))}: remove them, or set data.allow_overlap=true")

    def _taken(self, name: str, n: int, there: int | None) -> str:
        """Which rows the `n` of "val" or "test" are, in words, if their split has as many as are `there`."""
        if there is None:
            return (
                f"the last {n:,} that are left of the shuffled training split, since the data set has no split for them"
            )
        source, split = self.origin_of(name)
        of = f"split {split!r}" if source is self.source else f"file or folder {source.dataset}"
        return f"all {n:,} of the {of}" if n == there else f"the first {n:,} of the {there:,} of the shuffled {of}"

    def setup(self, stage: str) -> None:
        """Opens the prepared rows of the stage; "fit" needs those of training and validation."""
        for name in _SUBSETS_OF_STAGE[stage]:
            self.splits[name] = self.prepared.rows(name)
            if stage != "fit" and not len(self.splits[name]):
                raise UserError(f"there are no rows to {stage} on: data.{name}_size is 0")
        if stage == "fit":
            self.windows_a_row = len(self.lengths("train")) / len(self.splits["train"])

    def check_evaluation(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuses rows that the checkpoint was trained on too: another seed or other sizes may have moved them."""
        super().check_evaluation(checkpoint)
        state = checkpoint.get(type(self).__qualname__) or {}
        before = {name.removeprefix("data."): value for name, value in state.get("options", {}).items()}
        if state.get("fingerprint") != self.fingerprint or before.get("where") != self.hparams["where"]:
            return  # other rows, on purpose
        names = ("train_size", "val_size", "test_size", "validation_data", "test_data", "subset_seed", "stratify")
        trained = self._training_rows(before)
        assert self.trainer is not None
        for name in _SUBSETS_OF_STAGE[self.trainer.state.fn or "test"]:
            if SPLITS[name] in self.prepared.split_sizes():
                continue
            if n := int(np.isin(column(self.prepared.rows(name), "row"), trained).sum()):
                changes = changed_options({x: before.get(x) for x in names}, {x: self.hparams[x] for x in names})
                raise UserError(f"this checkpoint was trained on {n} of the rows for {USES[name]}: {changes}")

    def _training_rows(self, options: Mapping[str, Any]) -> np.ndarray:
        """The numbers of the rows of this data set that a run with these options has trained on."""
        sizes = {"train": self.prepared.split_sizes()["train"]}
        for name, split in SPLITS.items():
            if options.get(f"{split}_data") or split in splits_used(replace(self.source, own={})):
                sizes[split] = options[f"{name}_size"] or 0  # what there is does not change the rows for training
        then, classes = Selection.of(options), None
        if then.stratify:
            classes = functools.partial(classes_of, labelled_splits(self.source, then), selection=then)
        chosen = choose_rows(sizes, then.train_size, then.val_size, then.test_size, then.subset_seed, classes)
        return chosen["train"].indices

    def check_unread(self, read: np.ndarray, model: str) -> None:
        """Refuses validation and test reviews that the pre-training of `model` has read: data leakage.

        Args:
            read: hashes of the texts that it has read, uint64 of shape (texts,).
            model: its name, for the message.

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

    def dataset(self, name: str) -> ReviewExamples:
        """A window is an example of training, a whole review one of evaluation."""
        return (WindowExamples if name == "train" else ReviewExamples)(self.splits[name])

    def collator(self, name: str) -> Callable[[list[Example]], Batch]:
        h: Any = self.hparams
        by_review = h.truncation == "windows" and name != "train"
        return Collator(int(self.tokenizer.pad_token_id), h.padding, h.max_length, by_review)


def _quoted(name: str) -> str:
    """A name that can be told from others in a list."""
    return name if name.strip() == name and name.isprintable() else repr(name)
