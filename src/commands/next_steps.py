"""Prints the result of `fit` and `test` and the commands to type next."""

import shlex
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger

from src.data.base import PreparedDataModule
from src.data.corpus.held_out import finetuning_config
from src.models.base import TransformerModule
from src.models.pretrainer import BertPretrainer
from src.runs import directories


def after_fit(
    trainer: Trainer, model: TransformerModule, data: PreparedDataModule, best: ModelCheckpoint | None, run: Path
) -> None:
    """Prints the best score, its checkpoint and what to do with it.

    Args:
        trainer: has trained `model` on `data`.
        model: the trained model.
        data: what it was trained on.
        best: has the best checkpoint; None where none was wanted.
        run: directory of the run.
    """
    print()
    if not trainer.global_step:
        print("No step was taken: nothing is trained.")
        return
    if reason := _ended_by(trainer):
        _print_step("Ended early", f"after step {trainer.global_step}, by {reason}")
    if best is None:
        print("No checkpoint was saved, since trainer.enable_checkpointing is false.")
    elif not best.best_model_path:
        last = directories.shown(run / directories.LAST)
        print(f"Nothing was validated, so there is no best checkpoint; the last: {last}")
    else:
        checkpoint = directories.shown(best.best_model_path)
        if best.best_model_score is not None:  # one of the user's may monitor nothing
            monitored = model.monitor_name if best.monitor == model.monitor else best.monitor
            print(f"Best {monitored}: {float(best.best_model_score):.4f}")
        print(f"Best checkpoint: {checkpoint}")
        if isinstance(model, BertPretrainer):
            config = shlex.quote(finetuning_config(data.hparams))
            _print_step("Export it", f"python -m src export --ckpt_path {checkpoint} --output my-bert")
            _print_step("Fine-tune it", f"python -m src fit --config {config} --model.model_name_or_path my-bert")
        else:
            _print_step("Test it", f"python -m src test {directories.chosen(Path(best.best_model_path))}")
    _print_tensorboard_command(trainer)


def after_test(trainer: Trainer, checkpoint: Path) -> None:
    """Prints what to do with the tested checkpoint."""
    print()
    given = f"--ckpt_path {directories.shown(checkpoint)}"
    _print_step("Label your own", f"python -m src predict {given} --input reviews.csv --output labels.csv")
    _print_step("Export it", f"python -m src export {given} --output my-model")
    _print_tensorboard_command(trainer)


def _ended_by(trainer: Trainer) -> str:
    """What ended a `fit` before its last step; empty if nothing did. Lightning only logs it, below the level shown."""
    for callback in trainer.callbacks if trainer.should_stop else ():  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "trainer.max_time"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"EarlyStopping: {callback.stopping_reason_message.partition(' Signaling')[0]}"
    return ""


def _print_tensorboard_command(trainer: Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            _print_step("See the curves", f"tensorboard --logdir {directories.shown(logger.root_dir)}")


def _print_step(purpose: str, command: str) -> None:
    print(f"{purpose + ':':<16} {command}")
