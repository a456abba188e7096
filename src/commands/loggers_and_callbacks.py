"""What a command gives the Trainer beside what the user configured: loggers and callbacks."""

import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from src.callbacks.best_checkpoint import BestCheckpoint
from src.callbacks.graceful_stop import GracefulStop
from src.callbacks.last_checkpoint import LastCheckpoint
from src.callbacks.metrics_csv import RunCSVLogger
from src.callbacks.progress import PlainProgress, Summary
from src.callbacks.progress_bar import ProgressBar as OwnProgressBar
from src.callbacks.results_json import Results
from src.callbacks.step_log import StepLog
from src.callbacks.tensorboard_hparams import Hyperparameters
from src.callbacks.tensorboard_report import Report
from src.callbacks.throughput import Throughput
from src.models.base import TransformerModule
from src.models.classifier import BertClassifier
from src.runs import checkpoint_reading, directories


class RunTensorBoardLogger(TensorBoardLogger):
    """A TensorBoardLogger that takes the name of a directory as it is, where Lightning's expands `$NAME` in it."""

    @property
    def log_dir(self) -> str:
        return str(Path(self.root_dir, str(self.version)))


def loggers(run: Path, fit: bool, checkpoint: checkpoint_reading.Checkpoint | None) -> list[Logger]:
    """TensorBoard, and in `fit` metrics.csv, all in the run's directory.

    Args:
        run: the directory.
        fit: whether the command is `fit`.
        checkpoint: that a run is resumed from: what was logged after it is cut off.
    """
    place: dict[str, Any] = {"save_dir": run.parent.parent, "name": run.parent.name, "version": run.name}
    if not fit:
        return [RunTensorBoardLogger(**place, default_hp_metric=False)]
    step = checkpoint.step if checkpoint else None
    return [
        RunTensorBoardLogger(**place, default_hp_metric=False, purge_step=step),
        RunCSVLogger(**place, resume_step=step),
    ]


def progress_bar(configured: list[Callback]) -> Callback | None:
    """A bar on a terminal, lines elsewhere; None where the user configured one."""
    if any(isinstance(callback, ProgressBar) for callback in configured):
        return None
    return OwnProgressBar() if sys.stdout.isatty() else PlainProgress()


def fit_callbacks(configured: list[Callback], run: Path, model: TransformerModule, saves: bool) -> list[Callback]:
    """The user's callbacks and ours, in the order in which they must be called.

    Those that log come before those that save, and the best checkpoint before the last, which records it.

    Args:
        configured: the user's. A ModelCheckpoint keeps its files beside ours; one of the name "best" replaces ours.
        run: the run's directory.
        model: that is trained.
        saves: whether checkpoints are wanted.
    """
    saving = [callback for callback in configured if isinstance(callback, Checkpoint)]
    own = [callback for callback in saving if isinstance(callback, ModelCheckpoint)]
    for checkpoint in own:
        checkpoint.dirpath = checkpoint.dirpath or str(run / directories.BEST.parent)
    best = next((checkpoint for checkpoint in own if checkpoint.filename == directories.BEST.stem), None)
    best = best or BestCheckpoint(run, model.monitor, model.monitor_mode)
    last = next((callback for callback in saving if isinstance(callback, LastCheckpoint)), None) or LastCheckpoint()
    last.run = run
    throughput = Throughput()
    kept = [Hyperparameters(best), *(callback for callback in saving if callback not in (best, last)), best, last]
    return [
        throughput,
        StepLog(throughput),  # before the progress bar, which shows what it logs
        *(callback for callback in configured if callback not in saving),
        *_reports(configured, model),
        Summary(run),
        *(kept if saves else []),
        GracefulStop(last if saves else None),
    ]


def evaluation_callbacks(
    configured: list[Callback], run: Path, model: TransformerModule, checkpoint: checkpoint_reading.Checkpoint
) -> list[Callback]:
    """The user's callbacks, and those that write what `checkpoint` scored."""
    return [*configured, *_reports(configured, model), Results(run, checkpoint)]


def _reports(configured: list[Callback], model: TransformerModule) -> list[Callback]:
    """TensorBoard's pictures of an evaluation, for a classifier; nothing where the user configured them."""
    wanted = isinstance(model, BertClassifier) and not any(isinstance(callback, Report) for callback in configured)
    return [Report()] if wanted else []
