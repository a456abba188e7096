"""Writes a run's config.yaml: all options, from which `test` and `fit --ckpt_path last` take them again."""

import re
from contextlib import ExitStack
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from src.runs.directories import CONFIG, lock_run
from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import UserError


class RunConfig(SaveConfigCallback):
    """Writes config.yaml into the run's directory before training.

    Args:
        parser: the parser of the command line.
        config: the options as they were parsed.
        run: directory of the run.
        resumed: whether the run existed before.
        locks: takes the lock of a new run, until the command ends.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, run: Path, resumed: bool, locks: ExitStack
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.run = run
        self.resumed = resumed
        self.locks = locks

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file. Lightning calls it on rank 0 only.

        Raises:
            UserError: another process writes to the run; or an option holds what YAML cannot, so that the run could
                not be resumed.
        """
        # without the checkpoint that the run resumed from: used as a config, the file starts a new run
        config = self.config.clone()
        config["ckpt_path"] = None
        content = self.parser.dump(config, skip_none=False)
        if lost := re.search(r"(\w+): Unable to serialize instance (.*)", content):
            raise UserError(
                f"the argument {lost[1]} of a class is {lost[2]:.100}, which config.yaml cannot hold, so the run could "
                "not be resumed: give it a plain value"
            )
        path = self.run / CONFIG
        if not self.resumed:
            lock_run(self.run, self.locks)
        remove_unfinished(path)
        with atomic_write(path) as unfinished:
            unfinished.write_text(content, "utf-8")
