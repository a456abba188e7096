"""The run's config.yaml: all options, so that `test` and `fit --ckpt_path last` find them again."""

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.cli import SaveConfigCallback

from src.runs.folders import CONFIG
from src.system.atomic import atomic_write
from src.system.errors import UserError


class RunConfig(SaveConfigCallback):
    """Written when a run begins, in its directory, whatever loggers there are; it is what claims a new directory.

    Args:
        run: the directory.
        resumed: whether the run was there before.
    """

    def __init__(self, parser: Any, config: Any, run: Path, resumed: bool) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.run = run
        self.resumed = resumed

    def save_config(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Called by one rank.

        Raises:
            UserError: another run has taken the directory, since this one looked which was free.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        path = self.run / CONFIG
        if not self.resumed:
            try:
                path.open("x").close()
            except FileExistsError:
                raise UserError(f"another run, started at the same time, has taken {self.run}: start again") from None
        # without the checkpoint that it went on from: whoever takes the file as a config begins anew
        config = self.config.clone()
        config["ckpt_path"] = None
        with atomic_write(path) as unfinished:
            self.parser.save(config, str(unfinished), skip_none=False, overwrite=True, multifile=False)
