"""Base class of the data modules: prepared rows, dealt to the ranks as batches."""

import shutil
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from src.data.batches import Batch, EvalBatches, Position, TrainBatches, TrainLoader
from src.data.examples import Example, Examples
from src.data.sources import Source
from src.data.tokenizer_source import DEFAULT, PretrainedTokenizer, TokenizerSource
from src.runs.checkpoint_reading import changed_options
from src.system.errors import UserError
from src.system.seeds import run_seed
from src.system.stored import difference

_STEP_OPTIONS = ("batch_size", "group_by_length")  # how rows are cut into steps
# all that do not change which rows there are, nor their tokens
_LOADING_OPTIONS = (*_STEP_OPTIONS, "eval_batch_size", "num_workers", "padding", "allow_overlap")
_SECONDS_FOR_A_BATCH = 300
_SHARED_MEMORY = Path("/dev/shm")
_LEAST_SHARED_MEMORY = 16 * 2**20


class PreparedDataModule(lightning.LightningDataModule):
    """Prepared rows as batches.

    It knows nothing of the model. A Trainer tells it the rank, the number of ranks and the step to resume from.
    Without a Trainer, in a notebook for example, it gives all rows from the start of the first epoch.

    A subclass fills `splits` in `setup`, and has the options `dataset`, `where`, `batch_size`, `eval_batch_size`,
    `group_by_length` and `num_workers`.

    Args:
        tokenizer: name of the model whose tokenizer is used; None is bert-base-uncased.

    Attributes:
        tokenizer_source: loads the tokenizer. A model's `origin` may replace it before `prepare_data`.
        splits: the rows of "train", "val" and "test".
        rows_are: what a row of a batch is called, in the plural; the same as in the model that is trained on it.
        windows_a_row: training examples for each training row, on average.
        train_batches: class of the sampler of training batches.
    """

    rows_are: str
    windows_a_row = 1.0
    train_batches: type[TrainBatches] = TrainBatches

    def __init__(self, tokenizer: str | None) -> None:
        super().__init__()
        self.tokenizer_source: TokenizerSource = PretrainedTokenizer(tokenizer or DEFAULT)
        self.splits: dict[str, datasets.Dataset] = {}

    def check_loading_options(self) -> None:
        """Raises UserError for a batch size below 1, a negative number of workers, or no room for theirs."""
        for name in ("batch_size", "eval_batch_size"):
            if (size := self.hparams[name]) is not None and size < 1:
                raise UserError(f"data.{name} is {size}; it must be 1 or more")
        if self.hparams["num_workers"] < 0:
            raise UserError(f"data.num_workers is {self.hparams['num_workers']}; it must be 0 or more")
        if self.hparams["num_workers"] and _SHARED_MEMORY.is_dir():
            free = shutil.disk_usage(_SHARED_MEMORY).free
            if free < _LEAST_SHARED_MEMORY:
                raise UserError(
                    f"{_SHARED_MEMORY}, through which workers pass batches, has {free:,} bytes left: set "
                    "--data.num_workers=0, or enlarge it (`docker run --shm-size=1g`)"
                )

    @property
    @abstractmethod
    def key(self) -> str:
        """Changes with the content of the prepared rows."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with the content of the data set."""

    @abstractmethod
    def origin_of(self, name: str) -> tuple[Source, str]:
        """The data set that the rows of "val" or "test" are from, and its split."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the prepared rows."""

    @abstractmethod
    def dataset(self, name: str) -> Examples:
        """The examples of "train", "val" or "test"."""

    @abstractmethod
    def collator(self, name: str) -> Callable[[list[Example]], Batch]:
        """Makes a batch of examples of "train", "val" or "test"."""

    def lengths(self, name: str) -> np.ndarray:
        """Tokens of each example of `dataset(name)`, int64 of shape (examples,)."""
        return self.dataset(name).lengths

    def description(self, name: str) -> dict[str, str]:
        """What the rows of "val" or "test" are: the data set, its split and version, and `where` if that is set."""
        source, split = self.origin_of(name)
        where = self.hparams["where"] or {}
        kept = {"where": ", ".join(f"{column}={value}" for column, value in where.items())} if where else {}
        return {"dataset": source.dataset, "split": split, "fingerprint": source.fingerprint} | kept

    # ---- loaders ---------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """Training batches, from the training loop's position to the end of its epoch."""
        rank, world_size = self._rank()
        batches = self.train_batches(
            self.lengths("train"),
            batch_size=self.hparams["batch_size"],
            seed=run_seed(),
            group_by_length=self.hparams["group_by_length"],
            rank=rank,
            world_size=world_size,
        )
        return TrainLoader(batches, self._position, **self._loader_options("train"))

    def train_rows_once(self) -> DataLoader[Batch]:
        """All training examples on every rank, the longest first: for a pass before training."""
        batches = EvalBatches(self.lengths("train"), self._eval_batch_size(), rank=0, world_size=1)
        return DataLoader(batch_sampler=batches, **self._loader_options("train") | {"persistent_workers": False})

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """All validation rows, each once over all ranks, the longest first; an empty list if there are none."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """All test rows, each once over all ranks, the longest first; an empty list if there are none."""
        return self._eval_loader("test")

    def eval_order(self, name: str) -> np.ndarray:
        """The row numbers of `name` in the order in which this rank evaluates them; -1 is a filler row."""
        return np.concatenate(list(self._eval_batches(name)))

    def _eval_batches(self, name: str) -> EvalBatches:
        limit = getattr(self.trainer, f"limit_{name}_batches", 1.0)
        return EvalBatches(self.lengths(name), self._eval_batch_size(), *self._rank(), limit)

    def _eval_batch_size(self) -> int:
        return int(self.hparams["eval_batch_size"] or self.hparams["batch_size"])

    def _eval_loader(self, name: str) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        if not len(self.splits[name]):
            return []
        return DataLoader(batch_sampler=self._eval_batches(name), **self._loader_options(name))

    def _rank(self) -> tuple[int, int]:
        """This process's rank and the number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _position(self) -> Position:
        if self.trainer is None:
            return Position()
        loop = self.trainer.fit_loop
        # overfit_batches asks for the same batches in each epoch
        epoch = 0 if self.trainer.overfit_batches else loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        due = loop.epoch_loop.batch_progress.current.ready
        return Position(epoch, due, self.trainer.accumulate_grad_batches, loop.max_batches)

    def _loader_options(self, name: str) -> dict[str, Any]:
        workers = self.hparams["num_workers"]
        return {
            "dataset": self.dataset(name),
            "collate_fn": self.collator(name),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "timeout": _SECONDS_FOR_A_BATCH if workers else 0,  # a batch that a worker could not pass on never comes
            # so that batches are copied while the GPU computes
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
            # otherwise a loader's iterator draws from the global generator, which changes dropout
            "generator": torch.Generator().manual_seed(0),
        }

    # ---- resuming --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run is compared with: the data, and how they are cut into steps."""
        trainer = self.trainer
        assert trainer is not None
        options = {f"data.{name}": value for name, value in self.hparams.items() if name not in _LOADING_OPTIONS}
        return {
            "key": self.key,
            "fingerprint": self.fingerprint,
            "options": options,
            "steps": {
                **{f"data.{name}": self.hparams[name] for name in _STEP_OPTIONS},
                "number of ranks": trainer.world_size,
                "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
                "seed_everything": run_seed(),
            },
            "mid_epoch": not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch,
        }

    def check_resumption(self, checkpoint: Mapping[str, Any]) -> None:
        """Compares these data, once prepared, with those of the run to resume.

        Raises:
            UserError: the data differ; or, for a run that stopped within an epoch, the way they are cut into steps.
        """
        self._check_state(checkpoint.get(type(self).__qualname__))

    def check_evaluation(self, checkpoint: Mapping[str, Any]) -> None:
        """Compares these data, once prepared, with those of the run whose checkpoint is evaluated.

        Raises:
            UserError: the data set has the same name but another content, so rows may have moved from those for
                training to those for testing.
        """
        state = checkpoint.get(type(self).__qualname__) or {}
        known = state.get("options", {})
        same_name = all(
            known.get(f"data.{name}") == self.hparams[name] for name in ("dataset", "revision", "config_name")
        )
        if same_name and state.get("fingerprint", self.fingerprint) != self.fingerprint:
            raise UserError(
                f"the data set {self.hparams['dataset']!r} has changed since this checkpoint was trained, so rows that "
                "it was trained on may be evaluated: restore the old content, or give the new one another name"
            )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores nothing; it repeats `check_resumption` for a run that was resumed from Python."""
        assert self.trainer is not None
        if self.trainer.state.fn == "fit":
            self._check_state(state)

    def _check_state(self, state: Any) -> None:
        mine = self.state_dict()
        example = {"key": "", "options": {}, "steps": {}, "mid_epoch": False}
        if wrong := difference(state, example, f"the state of {type(self).__qualname__}"):
            raise UserError(f"the run cannot be restored, since its checkpoint is damaged: {wrong}")
        if state["key"] != mine["key"]:
            reason = changed_options(state["options"], mine["options"]) or (
                f"the content of {self.hparams['dataset']!r}, the held-out reviews or the tokenizer has changed"
            )
            raise UserError(f"the run to resume was trained on other data: {reason}")
        if state["mid_epoch"] and (changed := changed_options(state["steps"], mine["steps"])):
            raise UserError(
                "the run to resume stopped within an epoch, and the rest of that epoch cannot be cut into other steps: "
                f"{changed}. Resume with the old value; after the end of an epoch it may change"
            )
