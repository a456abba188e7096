"""What a command says at its end: what came out, and what to type next."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger

from src.data.held_out import finetuning_config
from src.runs import folders


def after_fit(trainer: Any, model: Any, data: Any, best: ModelCheckpoint, run: Path) -> None:
    """Prints the best figure and where its weights are.

    Args:
        model, data: that were trained, and on what.
        best: knows the best checkpoint.
        run: the directory of the run.
    """
    print()
    if not trainer.global_step:
        print("No step was taken: nothing is trained.")
        return
    if by := _ended_by(trainer):
        print(f"Ended early:     after step {trainer.global_step}, by {by}")
    if best.best_model_score is not None:
        monitored = model.monitor_name if best.monitor == model.monitor else best.monitor
        print(f"Best {monitored}: {float(best.best_model_score):.4f}")
        print(f"Best checkpoint: {folders.shown(best.best_model_path)}")
        places = {"best": folders.shown(best.best_model_path), "held_out": finetuning_config(data.hparams)}
        for purpose, command in model.next_commands:
            print(f"{purpose:<16} {command.format(**places)}")
    else:
        print(f"Nothing was validated, so there is no best checkpoint; the last: {folders.shown(run / folders.LAST)}")
    _say_where_the_curves_are(trainer)


def after_test(trainer: Any, checkpoint: Path) -> None:
    """Prints what can be done with the checkpoint that was tested."""
    print()
    given = f"--ckpt_path {folders.shown(checkpoint)}"
    print(f"Label your own:  python -m src predict {given} --input reviews.csv --output labels.csv")
    print(f"Give it away:    python -m src export {given} --output my-model")
    _say_where_the_curves_are(trainer)


def _ended_by(trainer: Any) -> str:
    """What ended a fit before its last step; Lightning says so in a log that is not shown."""
    for callback in trainer.callbacks if trainer.should_stop else ():
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "trainer.max_time"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return f"EarlyStopping: {callback.stopping_reason_message.partition(' Signaling')[0]}"
    return ""


def _say_where_the_curves_are(trainer: Any) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            print(f"See the curves:  tensorboard --logdir {folders.shown(logger.root_dir)}")
