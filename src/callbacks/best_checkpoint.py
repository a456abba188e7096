"""Saves `checkpoints/best.ckpt`, the checkpoint with the best validation score."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from src.runs.directories import BEST


class BestCheckpoint(ModelCheckpoint):
    """Saves a run's `best.ckpt` after each validation that beats the best score so far.

    Args:
        run: directory of the run.
        monitor: the logged metric that is the score.
        mode: "max" or "min".
    """

    def __init__(self, run: Path, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=str(run / BEST.parent),  # a Path with "::" in it would go into the checkpoint as it is
            filename=BEST.stem,
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the best score of a resumed run if its best.ckpt exists, also after the run was moved.

        Lightning forgets the score if the directory's path has changed, and then overwrites best.ckpt with whatever
        comes next.
        """
        best, score = Path(str(self.dirpath), BEST.name), state_dict["best_model_score"]
        if score is None or not best.is_file():
            return
        here = {"dirpath": self.dirpath, "best_model_path": str(best), "kth_best_model_path": str(best)}
        super().load_state_dict({**state_dict, **here, "best_k_models": {str(best): score}, "last_model_path": ""})
