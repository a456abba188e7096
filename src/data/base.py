"""What the data modules share: loaders that deal prepared rows to ranks, and what a resumed run must find again."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import datasets
import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from src.data.batches import EvalBatches, TrainBatches, TrainLoader
from src.runs.reading import read_checkpoint
from src.system.errors import UserError

# options that say how rows are cut into steps, and not what the rows are
STEP_OPTIONS = ("batch_size", "group_by_length")
_LOADING_OPTIONS = (*STEP_OPTIONS, "eval_batch_size", "num_workers", "padding")


class PreparedDataModule(lightning.LightningDataModule):
    """Prepared rows on disk, as batches.

    A subclass sets `key` and `splits` in `setup`, and has the options `dataset`, `batch_size`, `eval_batch_size`,
    `group_by_length` and `num_workers`.

    Attributes:
        rows_are: what a row of a batch is, in the plural; that of the module that can learn from it.
        windows_a_row: rows of training batches for each of them, on average.
        train_batches: what names the rows of training batches.
    """

    rows_are: str
    windows_a_row = 1.0
    train_batches: type[TrainBatches] = TrainBatches

    def __init__(self) -> None:
        super().__init__()
        # a rank without a row evaluates one masked row; see EvalBatches
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.key = ""
        self.splits: dict[str, datasets.Dataset] = {}

    def check_loading_options(self) -> None:
        """Raises UserError for a batch size below 1 or a negative number of workers."""
        for name in ("batch_size", "eval_batch_size"):
            if (size := self.hparams[name]) is not None and size < 1:
                raise UserError(f"data.{name} is {size}; it must be 1 or more")
        if self.hparams["num_workers"] < 0:
            raise UserError(f"data.num_workers is {self.hparams['num_workers']}; it must be 0 or more")

    @property
    def module(self) -> Any:
        """The model that the Trainer trains, whose tokenizer and seed are used."""
        if self.trainer is None:
            raise RuntimeError("a data module takes the tokenizer from the Trainer's model: use it through a Trainer")
        return self.trainer.lightning_module

    @abstractmethod
    def dataset(self, name: str) -> Dataset[Any]:
        """The rows of "train" or of an evaluation, as the collator takes them."""

    @abstractmethod
    def collator(self, name: str) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        """What makes a batch of rows of "train", "val" or "test"."""

    def texts(self, name: str) -> datasets.Dataset:
        """The prepared rows of "val" or "test": `text`, `label`, `length` and `row`, the number in the source."""
        return self.splits[name]

    def lengths(self, name: str) -> np.ndarray:
        """Tokens of each prepared row, int64 of shape (rows,)."""
        return np.asarray(self.splits[name].data.column("length").to_numpy(), dtype=np.int64)

    # ---- loaders ---------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """Batches from where the training loop stands to the end of its epoch."""
        trainer = self.trainer
        assert trainer is not None
        sampler = self.train_batches(
            self.lengths("train"),
            batch_size=self.hparams["batch_size"],
            seed=self.module.seed,
            group_by_length=self.hparams["group_by_length"],
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

        def position() -> tuple[int, int]:
            loop: Any = trainer.fit_loop
            # overfit_batches means the same batches in each epoch
            epoch = 0 if trainer.overfit_batches else loop.epoch_progress.current.processed  # type: ignore[attr-defined]
            return epoch, loop.epoch_loop.batch_progress.current.ready

        return TrainLoader(batch_sampler=sampler, position=position, **self._loader_options("train"))

    def train_rows_once(self) -> DataLoader[dict[str, torch.Tensor]]:
        """All training rows on every rank, the longest first: to be looked at before training."""
        size = self.hparams["eval_batch_size"] or self.hparams["batch_size"]
        batches = EvalBatches(self.lengths("train"), size, rank=0, world_size=1)
        return DataLoader(batch_sampler=batches, **self._loader_options("train") | {"persistent_workers": False})

    def val_dataloader(self) -> Any:
        """All validation rows, each once over all ranks, the longest first."""
        return self._eval_loader("val")

    def test_dataloader(self) -> Any:
        """All test rows, each once over all ranks, the longest first."""
        return self._eval_loader("test")

    def eval_order(self, name: str) -> np.ndarray:
        """The rows of `name` in the order in which this rank evaluates them; -1 stands for a masked row."""
        return np.concatenate(list(self._eval_batches(name)))

    def _eval_batches(self, name: str) -> EvalBatches:
        assert self.trainer is not None
        return EvalBatches(
            self.lengths(name),
            self.hparams["eval_batch_size"] or self.hparams["batch_size"],
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )

    def _eval_loader(self, name: str) -> Any:
        if not len(self.splits[name]):
            return []
        return DataLoader(batch_sampler=self._eval_batches(name), **self._loader_options(name))

    def _loader_options(self, name: str) -> dict[str, Any]:
        assert self.trainer is not None
        workers = self.hparams["num_workers"]
        return {
            "dataset": self.dataset(name),
            "collate_fn": self.collator(name),
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": self.trainer.strategy.root_device.type == "cuda",  # copied while the GPU computes
            # making an iterator draws a number from the global generator, and with it changes dropout, unless the
            # loader has its own
            "generator": torch.Generator().manual_seed(0),
        }

    # ---- resuming --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must find again: the data, and how they are cut into steps."""
        trainer = self.trainer
        assert trainer is not None
        options = {f"data.{name}": value for name, value in self.hparams.items() if name not in _LOADING_OPTIONS}
        return {
            "key": self.key,
            "options": options,
            "steps": {
                **{f"data.{name}": self.hparams[name] for name in STEP_OPTIONS},
                "number of ranks": trainer.world_size,
                "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
                "seed_everything": self.module.seed,
            },
            "mid_epoch": not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch,
        }

    def check_resumption(self) -> None:
        """Compares the run to resume with this one, once the data are prepared and before its files are touched.

        Raises:
            UserError: the optimizer or the data differ; or, in mid-epoch, the steps do.
        """
        assert self.trainer is not None
        path = self.module.origin.checkpoint
        if self.trainer.state.fn != "fit" or path is None:
            return
        checkpoint = read_checkpoint(path)
        self.module.check_resumption(checkpoint)
        if (state := checkpoint.get(type(self).__qualname__)) is not None:
            self._check_state(state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing has to be restored; but a run that was resumed past `check_resumption` is refused here."""
        assert self.trainer is not None
        if self.trainer.state.fn == "fit":
            self._check_state(state)

    def _check_state(self, state: dict[str, Any]) -> None:
        mine = self.state_dict()
        if state["key"] != mine["key"]:
            changed = differences(state["options"], mine["options"])
            raise UserError(
                "the run to resume was made with other data: "
                + (
                    changed
                    or f"the content of {self.hparams['dataset']!r}, what is held out, or the tokenizer has changed"
                )
            )
        if state["mid_epoch"] and (changed := differences(state["steps"], mine["steps"])):
            raise UserError(
                "the run to resume stopped in mid-epoch, and the rows that are left of that epoch cannot be cut into "
                f"other steps: {changed}. Resume with the old value; after an epoch's end it may change"
            )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What changed from one set of options to another, in words; empty where nothing did."""
    return "; ".join(
        f"{name} was {before.get(name)!r} and is {value!r}" for name, value in now.items() if before.get(name) != value
    )
