"""The command line of everything that needs a Trainer: fit, validate, test."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.model_helpers import is_overridden

from src.callbacks.best_checkpoint import BestCheckpoint
from src.callbacks.graceful_stop import GracefulStop
from src.callbacks.hyperparameters import Hyperparameters
from src.callbacks.last_checkpoint import LastCheckpoint
from src.callbacks.progress import PlainProgress, Summary
from src.callbacks.report import Report
from src.callbacks.results import Results
from src.callbacks.run_config import RunConfig
from src.callbacks.run_csv import RunCSVLogger
from src.callbacks.step_log import StepLog
from src.callbacks.throughput import Throughput
from src.commands import next_steps
from src.commands.arguments import SUBCOMMANDS, Command, read_command
from src.commands.help import print_help
from src.commands.refusals import as_user_error
from src.data.base import PreparedDataModule
from src.data.imdb import ImdbDataModule  # noqa: F401  (these four, so that YAML may name them alone)
from src.data.pretraining import PretrainingDataModule  # noqa: F401
from src.models.base import TransformerModule
from src.models.classifier import BertClassifier
from src.models.pretrainer import BertPretrainer  # noqa: F401
from src.runs import folders
from src.runs.reading import read_checkpoint
from src.runs.writing import DurableCheckpointIO
from src.system.errors import Interrupted, UserError, one_line, tell
from src.system.quiet import hush_libraries
from src.system.signals import end_by_signals_at_once, interrupted_by_signals

_TRAINER_DEFAULTS: dict[str, Any] = {
    # the tutorial's, which are the Hugging Face Trainer's
    "max_epochs": 3,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    # prepare_data has checked all rows already
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}


class ReviewCLI(LightningCLI):
    """LightningCLI with one directory a run, for all its loggers, and checkpoints that a run goes on from.

    Args:
        command: what was typed, with the checkpoint that it means.
    """

    def __init__(self, command: Command, **kwargs: Any) -> None:
        self.command = command
        super().__init__(
            model_class=TransformerModule,
            datamodule_class=PreparedDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults=_TRAINER_DEFAULTS,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            parser_kwargs={name: {"allow_abbrev": False, "exit_on_error": False} for name in self.subcommands()}
            | {"allow_abbrev": False, "exit_on_error": False},
            **kwargs,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The one that was typed, since each one's parser takes time to make; without one, all that need a Trainer."""
        typed = [self.command.name] if self.command.name in SUBCOMMANDS else SUBCOMMANDS
        return {name: keys for name, keys in LightningCLI.subcommands().items() if name in typed}

    def add_arguments_to_parser(self, parser: Any) -> None:
        # only where no other class is named: that one would get this one's defaults for the options that both have
        classes = {"model": "src.models.classifier.BertClassifier", "data": "src.data.imdb.ImdbDataModule"}
        unnamed = [option for option in classes if not self.command.names_class_of(option)]
        parser.set_defaults({option: {"class_path": classes[option]} for option in unnamed})

    def _parse_ckpt_path(self) -> None:
        """Leaves the configuration as it was typed.

        Lightning lets the checkpoint's hyper-parameters override flags and config files (lightning #21455).
        """

    def before_instantiate_classes(self) -> None:
        if self.command.name != "fit":
            # the run's config.yaml is the record of how it was trained
            self.save_config_callback = None

    def instantiate_classes(self) -> None:
        """Tells the module what will be restored: Lightning itself knows only after the network is built."""
        super().instantiate_classes()
        if self.model.rows_are != self.datamodule.rows_are:
            raise UserError(
                f"{type(self.model).__name__} learns from {self.model.rows_are}, but {type(self.datamodule).__name__} "
                f"gives {self.datamodule.rows_are}: --model and --data do not belong together"
            )
        if self.command.name == "test" and not is_overridden("test_step", self.model):
            raise UserError(f"{type(self.model).__name__} has no rows to test on: `validate` evaluates it")
        if self.command.name == "fit":
            self.model.check_schedule(self.trainer)
        self.model.origin = replace(self.model.origin, checkpoint=self.command.checkpoint)
        if self.trainer.num_nodes > 1:
            end_by_signals_at_once()

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A Trainer with this project's loggers and callbacks beside those that the user configured."""
        config = self._get(self.config_init, "trainer", default={})
        fit = self.command.name == "fit"
        checkpoint = self.command.checkpoint
        self.run = self._run_directory(config)
        self.save_config_kwargs = {"run": self.run, "resumed": checkpoint is not None}
        _check_intervals(config)
        plugins = _as_list(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, DurableCheckpointIO()]
        config["use_distributed_sampler"] = False  # src.data.batches deals the rows
        if config.get("logger") in (None, True):
            config["logger"] = self._loggers(fit, checkpoint)
        callbacks: list[Any] = _as_list(config.get("callbacks"))
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(RichProgressBar(leave=True) if sys.stdout.isatty() else PlainProgress())
            config["enable_progress_bar"] = sys.stdout.isatty()
        if fit:
            callbacks = self._fit_callbacks(callbacks)
        elif checkpoint is not None:
            callbacks += [*self._reports(callbacks), Results(self.run, checkpoint)]
        config["callbacks"] = callbacks
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, ModuleNotFoundError) as error:  # an accelerator, a strategy that does not exist
            raise UserError(f"the Trainer cannot be made: {one_line(error)}") from error

    def _run_directory(self, config: Any) -> Path:
        if self.command.checkpoint is not None:
            return folders.run_of(self.command.checkpoint)
        return folders.next_run(Path(config.get("default_root_dir") or ".").absolute())

    def _loggers(self, fit: bool, checkpoint: Path | None) -> list[Any]:
        place: dict[str, Any] = {
            "save_dir": self.run.parent.parent,
            "name": self.run.parent.name,
            "version": self.run.name,
        }
        if not fit:
            return [TensorBoardLogger(**place, default_hp_metric=False)]
        step = int(read_checkpoint(checkpoint)["global_step"]) if checkpoint else None
        return [
            TensorBoardLogger(**place, default_hp_metric=False, purge_step=step),
            RunCSVLogger(**place, resume_step=step),
        ]

    def _fit_callbacks(self, configured: list[Any]) -> list[Any]:
        """Those that log come before those that save, and the best checkpoint before the last, which records it."""
        saving = [c for c in configured if isinstance(c, Checkpoint)]
        watching = [*(c for c in configured if c not in saving), *self._reports(configured)]
        # another ModelCheckpoint keeps what it is told to beside ours, or in place of it if that is its file
        own = [c for c in saving if isinstance(c, ModelCheckpoint)]
        for checkpoint in own:
            checkpoint.dirpath = checkpoint.dirpath or str(self.run / folders.BEST.parent)
        best = next((c for c in own if c.filename == folders.BEST.stem), None)
        self.best = best or BestCheckpoint(self.run, self.model.monitor, self.model.monitor_mode)
        last = next((c for c in saving if isinstance(c, LastCheckpoint)), None) or LastCheckpoint()
        last.run = self.run
        throughput = Throughput()
        return [
            *watching,
            Summary(self.run),
            throughput,
            StepLog(throughput),
            Hyperparameters(self.best),
            *(c for c in saving if c not in (self.best, last)),
            self.best,
            last,
            GracefulStop(last),
        ]

    def _reports(self, configured: list[Any]) -> list[Any]:
        wanted = isinstance(self.model, BertClassifier) and not any(isinstance(c, Report) for c in configured)
        return [Report()] if wanted else []

    # ---- subcommands -----------------------------------------------------------------------------------------------

    def after_fit(self) -> None:
        """Says what came out, and what to type next."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            next_steps.after_fit(self.trainer, self.model, self.datamodule, self.best, self.run)

    def after_test(self) -> None:
        """Says what to type next."""
        if self.trainer.is_global_zero and self.command.checkpoint is not None:
            next_steps.after_test(self.trainer, self.command.checkpoint)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        args: in place of `sys.argv[1:]`, so that tests run the real command line in their own process.
    """
    argv = sys.argv
    try:
        return _run(sys.argv[1:] if args is None else list(args))
    except (UserError, Interrupted) as error:
        return tell(error)
    finally:
        sys.argv = argv


def _run(args: list[str]) -> int:
    hush_libraries()
    command = read_command(args)
    if command.name and {"--help", "-h"} & set(args):
        print_help(command.name)
        return 0
    if command.checkpoint and command.finished:
        print(
            f"{folders.shown(command.checkpoint)}: this run is finished; raise what ended it to train it further: "
            "--trainer.max_epochs, or --trainer.max_steps or --trainer.max_time where that was set"
        )
        return 0
    if command.checkpoint and not os.environ.get("LOCAL_RANK"):
        print(f"Checkpoint: {folders.shown(command.checkpoint)}")
    # where LightningCLI reads them, and the processes that DDP starts for the other ranks
    sys.argv = [sys.argv[0], *command.args]
    try:
        with interrupted_by_signals():  # until training starts, which GracefulStop looks after
            ReviewCLI(command)
    except (UserError, Interrupted):
        raise
    except Exception as error:
        raise as_user_error(error, command.args) from error
    return 0


def _check_intervals(trainer: Any) -> None:
    """Raises UserError for what Lightning divides by."""
    for name in ("accumulate_grad_batches", "val_check_interval", "check_val_every_n_epoch"):
        if trainer.get(name) == 0:
            raise UserError(f"trainer.{name} is 0; it must be above 0")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
