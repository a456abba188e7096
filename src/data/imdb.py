"""Labelled reviews for fine-tuning."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import lightning
import numpy as np
from torch.utils.data import DataLoader

from src.data.batches import Collator, EvalBatches, Padding, PreparedRows, TrainBatches, TrainLoader
from src.data.cache import cache_dir, cache_key, prepare_once
from src.data.labels import label_ids, label_names
from src.data.sources import Source, find_source
from src.data.subsets import Rows, choose_rows
from src.data.tokens import Encoder, Truncation, check_length, check_texts
from src.errors import UserError

_LABELS_FILE = "labels.json"
_TOKENIZED_AT_ONCE = 1000


class ImdbDataModule(lightning.LightningDataModule):
    """Reviews and their labels: found, checked, cut into subsets, tokenised and cached in `prepare_data`.

    The tokenizer is the model's (`trainer.lightning_module.load_tokenizer()`). Any data set with a text and a label
    column will do, with any number of classes; the defaults are those of the seed experiment.

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
        max_length: tokens a review may have, special tokens included.
        truncation: what is kept of a longer one: its head, its tail, or a quarter from the head and the rest from the
            tail (head_tail).
        padding: to the longest review of the batch, or to max_length.
        group_by_length: trains on batches of reviews of like length, which saves padding; the order stays random.
        batch_size: reviews a training step, per device.
        eval_batch_size: reviews a validation or test step, per device; null takes batch_size.
        num_workers: processes that load batches. Reading prepared rows is quick, so 0 (none) is fastest here.
    """

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
        for name in ("batch_size", "eval_batch_size"):
            if (size := self.hparams[name]) is not None and size < 1:
                raise UserError(f"data.{name} is {size}; it must be 1 or more")
        if num_workers < 0:
            raise UserError(f"data.num_workers is {num_workers}; it must be 0 or more")
        check_length(max_length, None, "")
        # a rank without a row evaluates one masked row; see EvalBatches
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.label_names: list[str] = []
        self.encoder: Encoder
        self._splits: dict[str, datasets.Dataset] = {}
        self._key = ""

    # ---- preparing -------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Downloads, checks, tokenises and caches, once a machine; the other ranks wait and read the cache."""
        folder, found = self._prepare()
        self._count_classes(folder)
        counts = ", ".join(f"{_n_rows(folder, name)} for {use}" for name, use in _USES.items())
        print(f"{'Found' if found else 'Prepared'} reviews: {counts} (in {folder})", flush=True)

    def setup(self, stage: str) -> None:
        """Opens the prepared rows of the stage; "fit" needs those of training and validation."""
        folder, _ = self._prepare()
        self.label_names = json.loads((folder / _LABELS_FILE).read_text())
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ())
        for name in needed:
            self._splits[name] = datasets.load_from_disk(str(folder / name))
            if name != "train" and len(self._splits[name]) == 0 and stage != "fit":
                raise UserError(f"there are no rows to {stage} on: data.{name}_size is 0")

    def _prepare(self) -> tuple[Path, bool]:
        module = self._lightning_module()
        self.encoder = Encoder(module.load_tokenizer(), self.hparams.max_length, self.hparams.truncation)
        check_length(self.hparams.max_length, module.longest_input(), str(module.hparams.model_name_or_path))
        source = find_source(self.hparams.dataset, self.hparams.revision, cache_dir())
        self._key = cache_key(self._facts(source))
        return prepare_once(self._key, lambda folder: self._build(source, folder))

    def _lightning_module(self) -> Any:
        if self.trainer is None:
            raise RuntimeError("ImdbDataModule takes the tokenizer from the Trainer's model: use it through a Trainer")
        return self.trainer.lightning_module

    def _facts(self, source: Source) -> dict[str, Any]:
        """All that prepared data depends on, and nothing else."""
        rows = ("where", "text_column", "label_column", "train_size", "val_size", "test_size", "subset_seed")
        tokenizer = self.encoder.tokenizer
        return {
            "source": source.fingerprint,
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            **{name: self.hparams[name] for name in (*rows, "max_length", "truncation")},
        }

    def _build(self, source: Source, folder: Path) -> None:
        """Writes the subsets' tokens, labels and texts to `folder`."""
        splits = self._select_columns(source.read())
        names = label_names(splits["train"], self.hparams.label_column)
        sizes = {name: len(split) for name, split in splits.items()}
        h = self.hparams
        subsets = choose_rows(sizes, h.train_size, h.val_size, h.test_size, h.subset_seed)
        for name, rows in subsets.items():
            self._tokenize(splits[rows.split], rows, name, names).save_to_disk(str(folder / name))
        (folder / _LABELS_FILE).write_text(json.dumps(names))

    def _select_columns(self, splits: Mapping[str, datasets.Dataset]) -> dict[str, datasets.Dataset]:
        """The labelled splits, cut down to the rows that `where` keeps and the two columns that are needed."""
        text, label, where = self.hparams.text_column, self.hparams.label_column, self.hparams.where or {}
        kept = {}
        for name in ("train", "test"):
            if name not in splits:
                continue
            split = splits[name]
            for column in (text, label, *where):
                if column not in split.column_names:
                    raise UserError(
                        f"the data set {self.hparams.dataset!r} has no column {column!r} "
                        f"(its columns: {', '.join(split.column_names)})"
                    )
            for column, value in where.items():
                # by default a lambda's bytecode would be hashed for the cache of `datasets`; ours follows anyway
                split = split.filter(lambda cell, wanted=value: cell == wanted, input_columns=column)
                if not len(split):
                    raise UserError(f"no row of the split {name!r} has {column} = {value!r} (data.where)")
            kept[name] = split.select_columns([text, label])
        return kept

    def _tokenize(self, split: datasets.Dataset, rows: Rows, name: str, names: list[str]) -> datasets.Dataset:
        subset = split.select(rows.indices)
        labels = label_ids(subset, self.hparams.label_column, names, name)
        if name == "train" and len(set(labels.tolist())) < 2:
            raise UserError(
                f"all {len(labels)} training rows have the label {names[labels[0]]!r}: there is nothing to learn; "
                "raise data.train_size or change data.subset_seed"
            )
        column = self.hparams.text_column

        def tokens(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
            check_texts(batch[column], column, rows.indices[indices], rows.split)
            ids = self.encoder.encode(batch[column])
            return {
                "input_ids": ids,
                "length": [len(row) for row in ids],
                "label": labels[indices].tolist(),
                "row": rows.indices[indices].tolist(),
                "text": batch[column],
            }

        features = datasets.Features(
            {
                "input_ids": datasets.List(datasets.Value("int32")),
                "length": datasets.Value("int32"),
                "label": datasets.Value("int64"),
                "row": datasets.Value("int64"),
                "text": datasets.Value("string"),
            }
        )
        return subset.map(
            tokens,
            batched=True,
            batch_size=_TOKENIZED_AT_ONCE,
            with_indices=True,
            remove_columns=subset.column_names,
            features=features,
            new_fingerprint=f"{self._key}{name}",
            desc=f"Tokenising for {_USES[name]}",
        )

    def _count_classes(self, folder: Path) -> None:
        self.label_names = json.loads((folder / _LABELS_FILE).read_text())

    # ---- loading ---------------------------------------------------------------------------------------------------

    def lengths(self, name: str) -> np.ndarray:
        """Tokens of each prepared row of "train", "val" or "test"."""
        return np.asarray(self._splits[name]["length"][:], dtype=np.int64)

    def texts(self, name: str) -> datasets.Dataset:
        """The prepared rows of "val" or "test": `text`, `label`, `length` and `row`, the number in the source."""
        return self._splits[name]

    def train_dataloader(self) -> TrainLoader:
        """Batches from where the training loop stands to the end of its epoch."""
        trainer = self.trainer
        assert trainer is not None
        sampler = TrainBatches(
            self.lengths("train"),
            batch_size=self.hparams.batch_size,
            seed=self._lightning_module().seed,
            group_by_length=self.hparams.group_by_length,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

        def position() -> tuple[int, int]:
            loop = trainer.fit_loop
            return loop.epoch_progress.current.processed, loop.epoch_loop.batch_progress.current.ready

        return TrainLoader(batch_sampler=sampler, position=position, **self._loader_options("train"))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """All validation rows, each once over all ranks, the longest first."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """All test rows, each once over all ranks, the longest first."""
        return self._eval_loader("test")

    def eval_order(self, name: str) -> np.ndarray:
        """The rows of `name` in the order in which this rank evaluates them."""
        return np.concatenate(list(self._eval_batches(name)))

    def _eval_batches(self, name: str) -> EvalBatches:
        trainer = self.trainer
        assert trainer is not None
        return EvalBatches(
            self.lengths(name),
            self.hparams.eval_batch_size or self.hparams.batch_size,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def _eval_loader(self, name: str) -> DataLoader[Any] | list[Any]:
        if not len(self._splits[name]):
            return []
        return DataLoader(batch_sampler=self._eval_batches(name), **self._loader_options(name))

    def _loader_options(self, name: str) -> dict[str, Any]:
        import torch

        pad_token_id = self.encoder.tokenizer.pad_token_id
        if pad_token_id is None:
            raise UserError("the tokenizer has no padding token, so reviews cannot be put into batches")
        workers = self.hparams.num_workers
        return {
            "dataset": PreparedRows(self._splits[name].select_columns(["input_ids", "label"])),
            "collate_fn": Collator(pad_token_id, self.hparams.padding, self.hparams.max_length),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            # making an iterator draws a number from the global generator, and with it changes dropout, unless the
            # loader has its own
            "generator": torch.Generator().manual_seed(0),
        }

    # ---- resuming --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must find again: the data, and how it is cut into steps."""
        assert self.trainer is not None
        h = self.hparams
        return {
            "data": self._key,
            "options": {name: h[name] for name in _IDENTITY},
            "mid_epoch": not self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch,
            "batch_size": h.batch_size,
            "world_size": self.trainer.world_size,
            "group_by_length": h.group_by_length,
            "seed": self._lightning_module().seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compares the run that is resumed with this one.

        Raises:
            UserError: the data differ; or, in mid-epoch, the steps do.
        """
        assert self.trainer is not None
        if self.trainer.state.fn != "fit":
            return
        mine = self.state_dict()
        if state["data"] != mine["data"]:
            changed = [
                f"data.{name} was {state['options'].get(name)!r} and is {value!r}"
                for name, value in mine["options"].items()
                if state["options"].get(name) != value
            ]
            what = "; ".join(changed) or f"the content of {self.hparams.dataset!r} or the tokenizer has changed"
            raise UserError(f"the run to resume was made with other data: {what}")
        if not state["mid_epoch"]:
            return
        changed = [
            f"{name} was {state[name]} and is {mine[name]}"
            for name in ("batch_size", "world_size", "group_by_length", "seed")
            if state[name] != mine[name]
        ]
        if changed:
            raise UserError(
                f"the run to resume stopped in mid-epoch, and the steps that are left cannot be cut anew: "
                f"{'; '.join(changed)}. Resume with the old value; at an epoch's end it may change"
            )


_USES = {"train": "training", "val": "validation", "test": "testing"}
_IDENTITY = (
    "dataset",
    "revision",
    "where",
    "text_column",
    "label_column",
    "train_size",
    "val_size",
    "test_size",
    "subset_seed",
    "max_length",
    "truncation",
)


def _n_rows(folder: Path, name: str) -> int:
    return len(datasets.load_from_disk(str(folder / name)))
