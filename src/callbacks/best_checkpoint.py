"""The checkpoint that validated best."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from src.runs.folders import BEST


class BestCheckpoint(ModelCheckpoint):
    """`checkpoints/best.ckpt` of a run, which it still knows when the run's directory has been moved.

    Args:
        run: the directory of the run.
        monitor: what of the log it is best in.
        mode: "max" or "min".
    """

    def __init__(self, run: Path, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=run / BEST.parent,
            filename=BEST.stem,
            monitor=monitor,
            mode=mode,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the score of the best checkpoint, if that is there.

        Lightning forgets the score where the directory has another name than before, and then overwrites the best
        with the next.
        """
        best, score = Path(str(self.dirpath), BEST.name), state_dict["best_model_score"]
        if score is None or not best.is_file():
            return
        here = {"dirpath": self.dirpath, "best_model_path": str(best), "kth_best_model_path": str(best)}
        super().load_state_dict({**state_dict, **here, "best_k_models": {str(best): score}, "last_model_path": ""})
