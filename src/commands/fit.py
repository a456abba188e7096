"""`python -m src fit | validate | test`: the commands that need a Trainer, through LightningCLI."""

import functools
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.timer import Interval
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities.model_helpers import is_overridden

from src.callbacks.config_yaml import RunConfig
from src.commands import loggers_and_callbacks, next_steps, trainer_checks
from src.commands.allowed_classes import allow_classes
from src.commands.arguments import SUBCOMMANDS, Command, read_command
from src.commands.help import print_help
from src.commands.library_errors import as_user_error
from src.data.base import PreparedDataModule
from src.data.imdb import ImdbDataModule
from src.data.pretraining import PretrainingDataModule  # noqa: F401  (so that YAML may name it alone)
from src.models.base import TransformerModule
from src.models.classifier import BertClassifier
from src.models.pretrainer import BertPretrainer  # noqa: F401  (likewise)
from src.runs import directories
from src.runs.checkpoint_writing import DurableCheckpointIO
from src.system.errors import Interrupted, UserError, one_line, tell
from src.system.locations import expanded
from src.system.quiet import hush_libraries
from src.system.rendezvous import check_rendezvous, let_first_rank_tell
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
    """LightningCLI with one directory a run, for all its loggers, and checkpoints that a run resumes from.

    Args:
        command: what was typed, with the checkpoint that it means.
        locks: of the files that the command writes.
    """

    model: TransformerModule
    datamodule: PreparedDataModule

    def __init__(self, command: Command, locks: ExitStack) -> None:
        self.command = command
        self.locks = locks
        strict = {"allow_abbrev": False, "exit_on_error": False}
        super().__init__(
            model_class=TransformerModule,
            datamodule_class=PreparedDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults=_TRAINER_DEFAULTS,
            seed_everything_default=42,
            auto_configure_optimizers=False,
            save_config_callback=RunConfig,
            parser_kwargs=dict.fromkeys(self.subcommands(), strict) | strict,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The typed one, since each one's parser takes time to make; without one, all that need a Trainer."""
        typed = [self.command.name] if self.command.name in SUBCOMMANDS else SUBCOMMANDS
        return {name: keys for name, keys in LightningCLI.subcommands().items() if name in typed}

    def add_arguments_to_parser(self, parser: Any) -> None:
        # jsonargparse writes arguments as YAML to make an instance, but the default of Timer's `interval` is no text
        yaml.SafeDumper.add_representer(Interval, lambda dumper, interval: dumper.represent_str(interval.value))
        # only where no other class is named: that one would get this one's defaults for the options that both have
        for option, default in (("model", BertClassifier), ("data", ImdbDataModule)):
            if not self.command.names_class_of(option):
                parser.set_defaults({option: {"class_path": f"{default.__module__}.{default.__qualname__}"}})

    def _parse_ckpt_path(self) -> None:
        """Leaves the configuration as it was typed.

        Lightning lets the checkpoint's hyper-parameters override flags and config files (lightning #21455).
        """

    def before_instantiate_classes(self) -> None:
        if self.command.name != "fit":
            # the run's config.yaml is the record of how it was trained
            self.save_config_callback = None

    def instantiate_classes(self) -> None:
        """Tells the module what will be restored, and the data module which tokenizer the model has."""
        super().instantiate_classes()
        model, data = self.model, self.datamodule
        if model.rows_are != data.rows_are:
            raise UserError(
                f"{type(model).__name__} learns from {model.rows_are}, but {type(data).__name__} gives "
                f"{data.rows_are}: --model and --data do not belong together"
            )
        if self.command.name == "test" and not is_overridden("test_step", model):
            raise UserError(f"{type(model).__name__} has no rows to test on: `validate` evaluates it")
        if self.command.name == "fit":
            model.check_schedule(self.trainer)
        model.origin = replace(model.origin, checkpoint=self.command.checkpoint)
        if data.hparams.get("tokenizer") is None:
            data.tokenizer_source = model.origin
        if self.trainer.world_size > 1 and not self.trainer.local_rank:
            check_rendezvous(self.trainer.node_rank, self.trainer.num_nodes)
        if self.trainer.num_nodes > 1:
            end_by_signals_at_once()

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A Trainer with this project's loggers and callbacks beside those that the user configured."""
        config = self._get(self.config_init, "trainer", default={})
        checkpoint = self.command.checkpoint
        self.run = self._run_directory(config)
        self.save_config_kwargs = {"run": self.run, "resumed": checkpoint is not None, "locks": self.locks}
        if self.command.name == "fit" and checkpoint is not None and not _get_rank():  # None or 0
            directories.lock_run(self.run, self.locks)  # a new run is locked before its first file: see RunConfig
        trainer_checks.check_options(config)
        plugins = _as_list(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, DurableCheckpointIO(checkpoint)]
        config["use_distributed_sampler"] = False  # src.data.batches deals the rows
        if config.get("logger") in (None, True):
            config["logger"] = loggers_and_callbacks.loggers(self.run, self.command.name == "fit", checkpoint)
        config["callbacks"] = self._callbacks(config)
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (TypeError, ValueError, RuntimeError, ModuleNotFoundError) as error:  # no such accelerator, strategy …
            raise UserError(f"the Trainer cannot be made: {one_line(error)}") from error
        self.locks.push(functools.partial(_end_further_ranks, trainer))
        trainer_checks.check_parts(trainer, config)
        return trainer

    def _run_directory(self, config: Any) -> Path:
        if self.command.checkpoint is not None:
            return directories.run_of(self.command.checkpoint.path)
        root = expanded(str(config.get("default_root_dir") or ".")).absolute()
        if self.command.name == "fit" and not _get_rank():  # None or 0; no other rank writes to it
            return directories.claim_run(root, self.locks)
        return directories.next_run(root)

    def _callbacks(self, config: Any) -> list[Any]:
        configured = _as_list(config.get("callbacks"))
        if config.get("enable_progress_bar") is not False and (bar := loggers_and_callbacks.progress_bar(configured)):
            configured.append(bar)
            config["enable_progress_bar"] = sys.stdout.isatty()
        if self.command.name == "fit":
            saves = config.get("enable_checkpointing") is not False
            if not saves:
                trainer_checks.check_unsaved(configured)
                config["enable_checkpointing"] = True  # to Lightning, GracefulStop is a callback that saves
            return loggers_and_callbacks.fit_callbacks(configured, self.run, self.model, saves)
        if self.command.checkpoint is not None:
            return loggers_and_callbacks.evaluation_callbacks(configured, self.run, self.model, self.command.checkpoint)
        return configured

    # ---- subcommands -----------------------------------------------------------------------------------------------

    def after_fit(self) -> None:
        """Says what came out, and what to type next."""
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            named = (c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
            best = next((callback for callback in named if callback.filename == directories.BEST.stem), None)
            next_steps.after_fit(self.trainer, self.model, self.datamodule, best, self.run)

    def after_test(self) -> None:
        """Says what to type next."""
        if self.trainer.is_global_zero and self.command.checkpoint is not None:
            next_steps.after_test(self.trainer, self.command.checkpoint.path)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command line and returns its exit status.

    Args:
        args: in place of `sys.argv[1:]`, so that tests run the real command line in their own process.
    """
    argv = sys.argv
    try:
        return _run(sys.argv[1:] if args is None else list(args))
    except (UserError, Interrupted, OSError) as error:
        let_first_rank_tell()
        return tell(error)
    finally:
        sys.argv = argv


def _end_further_ranks(trainer: lightning.Trainer, error: type[BaseException] | None, *_: object) -> None:
    """Ends the processes that the Trainer has started, after an error.

    They would tell it again, or that this process, which they wait for, has gone.
    """
    launcher = trainer.strategy.launcher
    if error and isinstance(launcher, _SubprocessScriptLauncher) and launcher.procs:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # sent here by Lightning, which watches them
        launcher.kill(signal.SIGKILL)


def _run(args: list[str]) -> int:
    hush_libraries()
    command = read_command(args)
    allow_classes(command)
    if command.name and {"--help", "-h"} & set(args):
        print_help(command.name)
        return 0
    if command.checkpoint and command.finished:
        print(
            f"{directories.shown(command.checkpoint.path)}: this run is finished; to train it further, raise the limit "
            "that ended it: --trainer.max_epochs, --trainer.max_steps or --trainer.max_time"
        )
        return 0
    if command.checkpoint and not os.environ.get("LOCAL_RANK"):
        print(f"Checkpoint: {directories.shown(command.checkpoint.path)}")
    # where LightningCLI reads them, and the processes that DDP starts for the other ranks
    sys.argv = [sys.argv[0], *command.args]
    try:
        # signals are handled here until training starts, and then by GracefulStop
        with ExitStack() as locks, interrupted_by_signals():
            ReviewCLI(command, locks)
    except (UserError, Interrupted):
        raise
    except Exception as error:
        raise as_user_error(error, command.args) from error
    return 0


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
